//! A conversation: requests whose prompts share a beginning, and the prefill that runs only what is new.

use crate::engine::{Core, Engine};
use crate::error::{Error, Result};
use crate::generation::{CancelHandle, Generation, Request};
use crate::model::Model;
use crate::plan::{Executor, MAX_COLUMNS, Submission};
use crate::runtime;
use std::rc::Rc;

/// What one submit of prefill should take, so that an abort is heard.
const PREFILL_SUBMIT_MS: f64 = 200.0;
/// Passes of one submit at most: an eighth of `TOKENS`.
const PREFILL_MAX_PASSES: usize = 32;

/// A conversation with an engine. It holds no tokens of its own: the cache belongs to the engine, whose next request reuses
/// the prefix that is there, whoever put it there. Of two sessions that take turns, each finds only the prefix they share.
pub struct Session {
    core: Rc<Core>,
}

impl Session {
    pub(crate) fn new(engine: &Engine) -> Session {
        Session { core: Rc::clone(&engine.core) }
    }

    /// Runs the next request; only what is not in the cache is prefilled.
    pub fn generate(&self, request: Request) -> Generation {
        Generation::new(Rc::clone(&self.core), request, CancelHandle::default())
    }
}

/// Brings `tokens` into a model's KV cache, keeping the longest prefix that is there. Gives the length of that prefix.
/// Work is cut into submits by measured time; the cuts never change a bit.
pub(crate) async fn prefill(
    executor: &dyn Executor,
    model: &Model,
    tokens: &[u32],
    cancel: &CancelHandle,
) -> Result<usize> {
    if tokens.len() > model.context {
        return Err(Error::PromptTooLong { prompt_tokens: tokens.len(), context_tokens: model.context });
    }
    let cached = model.kv.keep_prefix(tokens, tokens.len());
    let mut at = cached;
    let mut passes = 1;
    while at < tokens.len() {
        cancel.check()?;
        let piece = &tokens[at..tokens.len().min(at + passes * MAX_COLUMNS)];
        // Where a tree was accepted in the round before, its path has to be moved together first.
        let mut runs: Vec<_> = model.take_pending().into_iter().collect();
        let fed = model.feed(at, piece.len());
        let passes_run = fed.len();
        runs.extend(fed);
        let start = runtime::now_ms();
        let ticket = executor.submit(Submission { tokens: vec![(0, piece.to_vec())], runs, read: (0, 1) })?;
        executor.finish(ticket).await?;
        model.kv.extend(piece);
        at += piece.len();
        let pass_ms = (runtime::now_ms() - start) / passes_run as f64;
        passes = ((PREFILL_SUBMIT_MS / pass_ms.max(0.1)) as usize).clamp(1, PREFILL_MAX_PASSES);
    }
    Ok(cached)
}
