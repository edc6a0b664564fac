//! Measures speculation against plain decoding, prompt by prompt and in turn, on one engine ([`run`]) or on recorded texts
//! without any model ([`replay`]).
//!
//! A prompt is prefilled once; every later run finds its prefix in the KV cache. Before each run the engine forgets what it
//! learned ([`Engine::reset_learned`]); what verifying costs on this device is a measurement, not something learned from a
//! text, and stays. Where a rule promises the tokens of plain decoding, they are compared.

mod costs;
#[cfg(not(target_arch = "wasm32"))]
mod html;
mod oracle;
mod profile;
mod replay;
mod report;

pub use costs::Costs;
pub use profile::{KernelTime, PassTime, Profile, profile};
pub use replay::replay;
pub use report::{CategoryRow, Figures, Overall, PromptRow, Report, Timing};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::generation::{Busy, CancelHandle, Generation, Prompt, Request};
use crate::plan::{COLUMN_BUCKETS, MAX_COLUMNS};
use crate::sampling::SamplingParams;
use crate::speculate::SpeculationConfig;
use crate::speculate::accept::Exactness;
use crate::speculate::drafters::DrafterId;
use crate::speculate::outcome::{Needs, Row};
use crate::speculate::target::{Job, ModelTarget, Target};
use crate::speculate::tree::TokenTree;
use report::{Builder, Run};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Tokens of the untimed run of each configuration that comes before all timed ones: caches and thread pools fill.
const WARM_UP_TOKENS: usize = 4;
/// Tokens in the KV cache before the passes whose cost is reported: those of a short prompt, and of a long one.
const COST_CONTEXTS: [usize; 2] = [128, 600];
/// Timed turns of these passes.
const COST_TURNS: usize = 5;

/// Prompts to measure on.
#[derive(Debug, Clone, Deserialize)]
pub struct Suite {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// In the order in which they are run.
    pub prompts: Vec<SuitePrompt>,
}

/// A prompt of a suite.
#[derive(Debug, Clone, Deserialize)]
pub struct SuitePrompt {
    /// Name of the prompt.
    pub id: String,
    /// What kind of text it asks for.
    pub category: String,
    /// OpenAI messages.
    pub messages: serde_json::Value,
    /// Tokens to make at most; what the context holds where not given.
    pub max_tokens: Option<usize>,
}

/// What the target wrote: enough to replay drafters and policies on the text without a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Name of the prompt.
    pub id: String,
    /// What kind of text it asks for.
    pub category: String,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of the answer, with the end token if there was one: a pass wrote that too.
    pub answer: Vec<u32>,
    /// Likeliest successors of the prompt's last token and of each token of the answer but its last, best first, for drafters
    /// that learn from the target's rows; may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Vec<u32>>,
}

/// A way to speculate that is measured.
#[derive(Debug, Clone)]
pub struct Arm {
    /// Its name in the report: the configuration as it was given.
    pub name: String,
    /// The configuration.
    pub speculation: SpeculationConfig,
}

impl std::str::FromStr for Arm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Arm> {
        Ok(Arm { name: text.to_owned(), speculation: text.parse()? })
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Each is measured on each prompt.
    pub arms: Vec<Arm>,
    /// Prompts of a category at most, the first ones.
    pub per_category: Option<usize>,
    /// Tokens of an answer at most, where that is fewer than the prompt says.
    pub max_tokens: Option<usize>,
    /// Timed pairs of a plain and a speculative run for each arm and prompt; 0 measures acceptance alone.
    pub repeats: usize,
    /// How to sample; every run has the same seed.
    pub sampling: SamplingParams,
    /// Ends the bench early, with [`Error::Aborted`].
    pub cancel: CancelHandle,
}

impl Default for Options {
    /// `auto`, once, greedy.
    fn default() -> Options {
        let auto = Arm { name: "auto".to_owned(), speculation: SpeculationConfig::default() };
        Options {
            arms: vec![auto],
            per_category: None,
            max_tokens: None,
            repeats: 1,
            sampling: SamplingParams::default(),
            cancel: CancelHandle::default(),
        }
    }
}

impl Options {
    /// The first prompts of each category, in order.
    fn select<'a, T>(&self, all: &'a [T], category: impl Fn(&T) -> &str) -> Vec<&'a T> {
        let most = self.per_category.unwrap_or(usize::MAX);
        let mut seen = BTreeMap::<String, usize>::new();
        let wanted = |item: &&T| {
            let count = seen.entry(category(item).to_owned()).or_default();
            *count += 1;
            *count <= most
        };
        all.iter().filter(wanted).collect()
    }

    /// Whether a rule's text is that of plain decoding, token by token. At temperature 0 the target's distribution is a single
    /// token, so that every rule that keeps it keeps the text.
    fn same_tokens(&self, exactness: Exactness) -> bool {
        match exactness {
            Exactness::SameTokens => true,
            Exactness::SameDistribution | Exactness::GreedyOnly => self.sampling.temperature == 0.0,
            Exactness::Bounded | Exactness::Heuristic => false,
        }
    }
}

/// How far a bench is.
#[derive(Debug, Clone, Serialize)]
pub struct Progress<'a> {
    /// The prompt that is run.
    pub id: &'a str,
    /// The configuration that is run; `off` for plain runs.
    pub config: &'a str,
    /// Runs done.
    pub done: usize,
    /// Runs there will be, without the warm-up.
    pub total: usize,
}

/// A text that is not the one of plain decoding although it had to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The prompt.
    pub id: String,
    /// The configuration; `off` where plain decoding differed from itself.
    pub config: String,
    /// The first difference.
    #[serde(flatten)]
    pub difference: Difference,
}

/// Where two texts differ first. `None` is an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Index among the tokens of the answer.
    pub at: usize,
    /// Token of plain decoding.
    pub plain: Option<u32>,
    /// Token found.
    pub found: Option<u32>,
}

/// The first difference of two answers.
pub fn difference(plain: &[u32], found: &[u32]) -> Option<Difference> {
    let at = plain.iter().zip(found).take_while(|(a, b)| a == b).count();
    let (plain, found) = (plain.get(at).copied(), found.get(at).copied());
    (plain != found).then_some(Difference { at, plain, found })
}

/// Runs a suite. Gives the figures, with those of plain decoding against itself as a control, and the texts of plain
/// decoding. What requests have taught the engine before is there again afterwards.
pub async fn run(
    engine: &Engine,
    suite: &Suite,
    options: &Options,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<(Report, Vec<Trace>)> {
    let learned = engine.save_suffix_store();
    let found = measure(engine, suite, options, progress).await;
    engine.load_suffix_store(&learned)?;
    found
}

async fn measure(
    engine: &Engine,
    suite: &Suite,
    options: &Options,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<(Report, Vec<Trace>)> {
    let off = Arm { name: "off".to_owned(), speculation: SpeculationConfig::off() };
    // Plain decoding against itself: what is no gain at all, and how far apart two equal runs are.
    let mut options = options.clone();
    if options.repeats > 0 && !options.arms.iter().any(|arm| arm.name == off.name) {
        options.arms.push(off.clone());
    }
    let options = &options;
    let verify_cost_at =
        profile::verify_cost(engine, &COLUMN_BUCKETS, &COST_CONTEXTS, COST_TURNS, &options.cancel).await?;
    let prompts = options.select(&suite.prompts, |prompt| &prompt.category);
    let pairs = options.repeats.max(1) * options.arms.len();
    // The first pair has its plain run from the prompt's own; without timing there are no others.
    let plain_runs = if options.repeats == 0 { 1 } else { pairs.max(1) };
    let (mut done, total) = (0, prompts.len() * (pairs + plain_runs));
    let mut builder = Builder::new(&options.arms);
    let mut traces = Vec::new();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let tokens = engine.prompt_tokens(&Prompt::Messages(prompt.messages.clone()))?;
        let wanted = [prompt.max_tokens, options.max_tokens].into_iter().flatten().min();
        let bench = Bench { engine, options, prompt: &tokens };
        if index == 0 && options.repeats > 0 {
            let few = Some(WARM_UP_TOKENS.min(wanted.unwrap_or(WARM_UP_TOKENS)));
            for arm in [&off].into_iter().chain(&options.arms) {
                bench.run(arm, few).await?;
            }
        }
        let mut count = |arm: &Arm| {
            progress(&Progress { id: &prompt.id, config: &arm.name, done, total });
            done += 1;
        };
        count(&off);
        let first = bench.run(&off, wanted).await?;
        let text = first.answer.clone();
        let mut plain = Some(first);
        let mut measured = Vec::new();
        let top = bench.likeliest(&text).await?;
        let (id, category) = (prompt.id.clone(), prompt.category.clone());
        let trace = Trace { id, category, prompt: tokens.clone(), answer: text.clone(), top };
        for _ in 0..options.repeats.max(1) {
            for (at, arm) in options.arms.iter().enumerate() {
                if plain.is_none() && options.repeats > 0 {
                    count(&off);
                    let again = bench.run(&off, wanted).await?;
                    builder.compare(&prompt.id, &off.name, &text, &again.answer);
                    plain = Some(again);
                }
                count(arm);
                let found = bench.run(arm, wanted).await?;
                let same = options.same_tokens(found.speculation.exactness);
                let equal = same.then(|| builder.compare(&prompt.id, &arm.name, &text, &found.answer));
                let timing = match plain.take() {
                    Some(plain) if options.repeats > 0 => Some(Timing::of(&plain, &found)),
                    _ => None,
                };
                measured.push((at, found, timing, equal, engine.cost_model()));
            }
        }
        // Only now: a GPU that waits for the host is slow in the run after.
        for (at, found, timing, equal, cost) in measured {
            let oracle = || replay::oracle_on_device(&options.arms[at], &trace, &cost, &found);
            let timing = timing.map(|timing| oracle().map_or(timing, |speedup| timing.with_oracle(speedup)));
            builder.add(&prompt.category, &prompt.id, at, &found, timing, equal);
        }
        traces.push(trace);
    }
    let report = Report {
        suite: suite.name.clone(),
        model: engine.model_name().to_owned(),
        device: engine.device(),
        system_fingerprint: engine.executor().fingerprint(),
        verify_cost: verify_cost_at.values().next().cloned().unwrap_or_default(),
        verify_cost_at,
        ..builder.report(options)
    };
    Ok((report, traces))
}

/// One prompt on one engine.
struct Bench<'a> {
    engine: &'a Engine,
    options: &'a Options,
    prompt: &'a [u32],
}

impl Bench<'_> {
    async fn run(&self, arm: &Arm, max_tokens: Option<usize>) -> Result<Run> {
        self.engine.reset_learned();
        let mut request = Request::new(Prompt::Tokens(self.prompt.to_vec()));
        request.max_tokens = max_tokens;
        request.sampling = self.options.sampling.clone();
        request.speculation = Some(arm.speculation.clone());
        let cancel = &self.options.cancel;
        let summary = Generation::new(Rc::clone(&self.engine.core), request, cancel.clone()).finish().await?;
        cancel.check()?;
        let mut answer = summary.tokens;
        answer.extend(summary.end_token);
        Ok(Run { answer, decode_ms: summary.timings.decode_ms, speculation: summary.speculation })
    }

    /// Likeliest successors of the prompt's last token and of each token of the answer but its last, which the engine has
    /// just written: it is checked again, in passes as wide as there are.
    async fn likeliest(&self, answer: &[u32]) -> Result<Vec<Vec<u32>>> {
        let _busy = Busy::take(&self.engine.core)?;
        let model = self.engine.target();
        let target = ModelTarget { executor: self.engine.executor(), model };
        let needs = Needs { stats: true, ..Needs::default() };
        let all = [self.prompt, answer].concat();
        let mut rows = Vec::new();
        for at in (self.prompt.len()..all.len()).step_by(MAX_COLUMNS) {
            model.kv.keep_prefix(&all, at - 1);
            let tree = TokenTree::chain(all[at - 1], &all[at..(all.len() - 1).min(at + MAX_COLUMNS - 1)], DrafterId(0));
            let job = Job::new(&all[..at], &tree, &self.options.sampling, needs);
            let verified = target.verify(job).await?;
            let path: Vec<_> = tree.ids().skip(1).collect();
            target.commit(&all[..at], &tree, &path);
            let ranked = |row: &Row| row.stats.iter().flat_map(|stats| &stats.top).map(|&(token, _)| token).collect();
            rows.extend(verified.rows.iter().map(ranked));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_token_by_token_and_to_the_end() {
        assert_eq!(difference(&[1, 2, 3], &[1, 2, 3]), None);
        let differ = |at, plain, found| Some(Difference { at, plain, found });
        assert_eq!(difference(&[1, 2, 3], &[1, 5, 3]), differ(1, Some(2), Some(5)));
        assert_eq!(difference(&[1, 2], &[1, 2, 3]), differ(2, None, Some(3)), "one goes on");
        assert_eq!(difference(&[1, 2], &[1]), differ(1, Some(2), None), "one ends early");
    }

    #[test]
    fn what_a_rule_promises_is_what_is_compared() {
        let at = |temperature| Options {
            sampling: SamplingParams { temperature, ..SamplingParams::default() },
            ..Options::default()
        };
        let promises = |options: &Options| {
            [
                Exactness::SameTokens,
                Exactness::SameDistribution,
                Exactness::GreedyOnly,
                Exactness::Bounded,
                Exactness::Heuristic,
            ]
            .map(|exactness| options.same_tokens(exactness))
        };
        assert_eq!(promises(&at(0.0)), [true, true, true, false, false]);
        assert_eq!(promises(&at(0.8)), [true, false, false, false, false]);
    }

    #[test]
    fn a_category_gives_its_first_prompts() {
        let all = ["a1", "b1", "a2", "a3", "b2"];
        let options = Options { per_category: Some(2), ..Options::default() };
        let first = options.select(&all, |id| &id[..1]);
        assert_eq!(first, [&"a1", &"b1", &"a2", &"b2"]);
    }
}
