//! The bench without a model: recorded answers, replayed round by round.
//!
//! With `match` and drafters that learn from committed tokens only, a replay makes exactly the rounds that the engine makes
//! on the text. Times are not measured but added up from a cost curve.

use super::costs::{Costs, round_curve};
use super::oracle::Oracle;
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
use std::collections::BTreeSet;
use std::rc::Rc;

/// Times that the oracle's rate is corrected by what it then reaches; it hardly moves after the second.
const ORACLE_TURNS: usize = 3;

/// Replays recorded texts with each configuration, whose stores are empty before each text. `costs` says what rounds cost;
/// configurations do not know it beforehand and measure it as they go, as on a device.
pub fn replay(traces: &[Trace], options: &Options, costs: &Costs) -> Result<Report> {
    let mut builder = Builder::new(&options.arms);
    let cost = costs.model()?;
    for trace in options.select(traces, |trace| &trace.category) {
        if trace.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let most = options.max_tokens.unwrap_or(usize::MAX).min(trace.answer.len());
        let answer = &trace.answer[..most];
        // Of no tokens there is no rate.
        if answer.is_empty() {
            let (name, found) = ("replay".to_owned(), format!("an answer of 0 tokens ({})", trace.id));
            let expected = "at least 1, in the recording and by max_tokens".to_owned();
            return Err(Error::BadOption { name, found, expected });
        }
        for (at, arm) in options.arms.iter().enumerate() {
            let run = rounds(trace, answer, &cost, speculator(arm, trace)?)?;
            let equal = builder.compare(&trace.id, &arm.name, answer, &run.answer);
            let timing = Timing::assumed(cost.plain_ms() * answer.len() as f64 / run.decode_ms);
            let timing = timing.with_oracle(oracle_speedup(arm, trace, answer, &cost)?);
            builder.add(&trace.category, &trace.id, at, &run, Some(timing), Some(equal));
        }
    }
    let device = DeviceInfo { kind: "replay", name: costs.name.clone(), software: true };
    let options = Options { repeats: 1, ..options.clone() };
    let verify_cost = COLUMN_BUCKETS.map(|columns| (columns, cost.c(columns))).into();
    Ok(Report { model: "recorded texts".to_owned(), device, verify_cost, ..builder.report(&options) })
}

/// The speed-up of a configuration whose draft lengths are chosen by who knows the text.
fn oracle_speedup(arm: &Arm, trace: &Trace, answer: &[u32], cost: &CostModel) -> Result<f64> {
    let text: Rc<[u32]> = [&trace.prompt[..], answer].concat().into();
    let plain_rate = 1.0 / cost.plain_ms().min(cost.ahead_ms());
    let rate_of = |speculator| Ok::<_, Error>(answer.len() as f64 / rounds(trace, answer, cost, speculator)?.decode_ms);
    // Each round is best for itself, and what it keeps decides what is drafted next: nothing is worse than without it.
    let mut best = plain_rate.max(rate_of(speculator(arm, trace)?)?);
    let mut rate = plain_rate;
    for _ in 0..ORACLE_TURNS {
        rate = plain_rate.max(rate_of(speculator(arm, trace)?.map_length(|inner| {
            let (text, cost) = (Rc::clone(&text), cost.clone());
            Box::new(Oracle { inner, text, cost, rate })
        }))?);
        best = best.max(rate);
    }
    Ok(best / plain_rate)
}

/// The same where a configuration was measured on a device: passes cost what the device was found to take, and rounds what
/// this run took beside them. `None` where a recording cannot answer it.
pub(super) fn oracle_on_device(arm: &Arm, trace: &Trace, cost: &CostModel, run: &Run) -> Option<f64> {
    // `auto` drafts with a draft model where there is one; a recording has none.
    let names: BTreeSet<_> = speculator(arm, trace).ok()?.drafters().iter().map(|drafter| drafter.name).collect();
    if !names.iter().eq(run.speculation.by_drafter.keys()) {
        return None;
    }
    let SpeculationSummary { draft_ms, verify_ms, rounds, drafted_rounds, .. } = run.speculation;
    let host = (run.decode_ms - draft_ms - verify_ms).max(0.0) / rounds.max(1) as f64;
    let draft = draft_ms / drafted_rounds.max(1) as f64;
    let curve = round_curve(|columns| cost.verify_ms(columns), host, draft);
    let known = CostModel::of_curve(curve, &[]).saving(cost.plain_ms() - cost.ahead_ms());
    oracle_speedup(arm, trace, &trace.answer, &known).ok()
}

/// Writes an answer by rounds on a device of known costs.
fn rounds(trace: &Trace, answer: &[u32], cost: &CostModel, mut speculator: Speculator) -> Result<Run> {
    let mut target = SimulatedTarget::new([&trace.prompt[..], answer].concat(), cost.clone(), 0.0);
    target.stats = vec![None; trace.prompt.len() - 1];
    target.stats.extend(trace.top.iter().map(|top| Some(Rc::new(ranks(top)))));
    let outcomes = target.replay(&mut speculator, trace.prompt.len())?;
    let answer = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
    Ok(Run { answer, decode_ms: target.now_ms(), speculation: SpeculationSummary::of(&speculator, 0, 0) })
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
