//! How surprised a model is by a text: llama.cpp's chunked convention, so that figures compare.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::generation::Busy;
use crate::plan::{MAX_COLUMNS, Params, Submission};

/// Negative log likelihood of a text.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Perplexity {
    /// Tokens of the whole text, the begin token included where the model wants one.
    pub tokens: usize,
    /// Tokens that were scored.
    pub scored: usize,
    /// Mean negative log likelihood of a scored token, in nats.
    pub nll: f64,
    /// `exp(nll)`
    pub perplexity: f64,
}

/// Scores the second half of every whole window of `context` tokens. Windows do not overlap and each starts with an empty
/// cache; where the model wants a begin token, it replaces the first token of each window.
pub async fn perplexity(engine: &Engine, text: &str, context: usize) -> Result<Perplexity> {
    let (tokenizer, target, executor) = (engine.tokenizer(), engine.target(), engine.executor());
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    tokens.extend(tokenizer.encode(text, false)?);
    let _busy = Busy::take(&engine.core)?;
    if context == 0 || !context.is_multiple_of(2 * MAX_COLUMNS) || context > target.context {
        let expected = format!("a multiple of {} up to {}", 2 * MAX_COLUMNS, target.context);
        return Err(Error::BadOption { name: "context".to_owned(), found: context.to_string(), expected });
    }
    if tokens.len() < context {
        let expected = format!("at least one window of {context}");
        return Err(Error::BadOption { name: "text".to_owned(), found: format!("{} tokens", tokens.len()), expected });
    }
    let vocabulary = target.config.vocabulary;
    let (mut sum, mut scored) = (0.0, 0);
    for window in tokens.chunks_exact(context) {
        let mut window = window.to_vec();
        if let Some(bos) = bos {
            window[0] = bos;
        }
        target.kv.rollback(0);
        for (index, columns) in window.chunks(MAX_COLUMNS).enumerate() {
            let base = index * MAX_COLUMNS;
            let mut params = Params::chain(columns.len(), base, 0);
            let wanted = base >= context / 2;
            params.logit_cols = if wanted { columns.len() as u32 } else { 0 };
            let runs = target.pass(params, false);
            let ticket = executor.submit(Submission { tokens: vec![(0, columns.to_vec())], runs, read: (0, 1) })?;
            executor.finish(ticket).await?;
            if !wanted {
                continue;
            }
            let logits = executor.read(target.logits, 0, columns.len() * vocabulary).await?;
            let rows: &[f32] = bytemuck::cast_slice(&logits);
            for (row, &next) in rows.chunks_exact(vocabulary).zip(&window[base + 1..]) {
                sum += negative_log_likelihood(row, next);
                scored += 1;
            }
        }
    }
    let nll = sum / scored as f64;
    Ok(Perplexity { tokens: tokens.len(), scored, nll, perplexity: nll.exp() })
}

fn negative_log_likelihood(row: &[f32], token: u32) -> f64 {
    let maximum = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&logit| (f64::from(logit) - maximum).exp()).sum();
    maximum + sum.ln() - f64::from(row[token as usize])
}
