//! The bench without a model: recorded answers, replayed round by round.
//!
//! With `match` and drafters that learn from committed tokens only, a replay makes exactly the rounds that the engine makes
//! on the text. Times are not measured but added up from a cost curve.

use super::report::{Builder, Report, Run, Timing};
use super::{Arm, Options, Trace};
use crate::error::{Error, Result};
use crate::plan::{COLUMN_BUCKETS, DeviceInfo, RowStats};
use crate::speculate::Speculator;
use crate::speculate::accept::Exactness;
use crate::speculate::cost::CostModel;
use crate::speculate::methods::Setup;
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::simulate::SimulatedTarget;
use crate::speculate::target::Target;
use crate::summary::SpeculationSummary;
use std::rc::Rc;

/// Replays recorded texts with each configuration, whose stores are empty before each text. `cost` says what passes cost;
/// configurations do not know it beforehand and measure it as they go, as on a device.
pub fn replay(traces: &[Trace], options: &Options, cost: &CostModel) -> Result<Report> {
    let mut builder = Builder::new(&options.arms);
    // The curve itself, whatever is known of it.
    let cost = CostModel::of_curve(COLUMN_BUCKETS.map(|columns| cost.verify_ms(columns)), &[]);
    for trace in options.select(traces, |trace| &trace.category) {
        if trace.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let most = options.max_tokens.unwrap_or(usize::MAX).min(trace.answer.len());
        let answer = &trace.answer[..most];
        for (at, arm) in options.arms.iter().enumerate() {
            let mut speculator = speculator(arm, trace)?;
            let mut target = SimulatedTarget::new([&trace.prompt[..], answer].concat(), cost.clone(), 0.0);
            target.stats = vec![None; trace.prompt.len() - 1];
            target.stats.extend(trace.top.iter().map(|top| Some(Rc::new(ranks(top)))));
            let outcomes = target.replay(&mut speculator, trace.prompt.len())?;
            let answered: Vec<u32> = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
            let equal = builder.compare(&trace.id, &arm.name, answer, &answered);
            let timing = Timing::assumed(cost.plain_ms() * answer.len() as f64 / target.now_ms());
            let speculation = SpeculationSummary::of(&speculator, 0, 0);
            let run = Run { answer: answered, decode_ms: target.now_ms(), speculation };
            builder.add(&trace.category, &trace.id, at, &run, Some(timing), Some(equal));
        }
    }
    let device = DeviceInfo { kind: "replay", name: "no device, assumed costs".to_owned(), software: true };
    let options = Options { repeats: 1, ..options.clone() };
    Ok(Report { model: "recorded texts".to_owned(), device, ..builder.report(&options, &cost) })
}

/// A speculator that a recording can answer; an error where it would ask for what is not in one.
fn speculator(arm: &Arm, trace: &Trace) -> Result<Speculator> {
    let refuse = |key: &str, expected: &str| {
        let (name, found) = (format!("speculation.{key}"), arm.name.clone());
        Err(Error::BadOption { name, found, expected: expected.to_owned() })
    };
    if arm.speculation.corpus.is_some() {
        return refuse("corpus", "none in a replay: there is no tokenizer without a model");
    }
    let mut speculator = arm.speculation.speculator(Setup::new(&arm.speculation))?;
    let needs = speculator.needs();
    if speculator.exactness() != Exactness::SameTokens || needs.p || needs.q {
        return refuse("accept", "accept=match: a recorded text says nothing of other tokens than its own");
    }
    if needs.stats {
        let what = if trace.top.is_empty() { "not in the recording" } else { "ranks alone in the recording" };
        speculator.reason.push_str(&format!("; statistics of rows are {what}"));
    }
    Ok(speculator)
}

/// The likeliest tokens of a row; of their probabilities nothing is known.
fn ranks(top: &[u32]) -> RowStats {
    let top = top.iter().map(|&token| (token, 0.0)).collect();
    RowStats { entropy: 0.0, second_moment: 0.0, sample_logp: 0.0, top, drawn: Vec::new() }
}
