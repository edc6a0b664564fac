//! The bench without a model: recorded answers, replayed round by round.
//!
//! With `match` and drafters that learn from committed tokens only, a replay makes exactly the rounds that the engine makes
//! on the text. Times are not measured but added up from a cost curve.

use super::report::{Builder, Report, Run, Timing};
use super::{Options, Trace};
use crate::error::{Error, Result};
use crate::plan::{COLUMN_BUCKETS, DeviceInfo};
use crate::speculate::accept::Exactness;
use crate::speculate::cost::CostModel;
use crate::speculate::methods::Setup;
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::simulate::SimulatedTarget;
use crate::speculate::target::Target;
use crate::summary::SpeculationSummary;

/// Replays recorded texts with each configuration. `cost` says what passes cost; configurations do not know it beforehand
/// and measure it as they go, as on a device.
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
            let mut speculator = arm.speculation.speculator(Setup::new(&arm.speculation))?;
            let needs = speculator.needs();
            if speculator.exactness() != Exactness::SameTokens || needs.p || needs.q {
                return Err(Error::BadOption {
                    name: "speculation.accept".to_owned(),
                    found: arm.name.clone(),
                    expected: "accept=match: a recorded text says nothing of other tokens than its own".to_owned(),
                });
            }
            if needs.stats {
                speculator.reason.push_str("; row statistics are not in the recording");
            }
            let text = [&trace.prompt[..], answer].concat();
            let target = SimulatedTarget::new(text, cost.clone(), 0.0);
            let outcomes = target.replay(&mut speculator, trace.prompt.len())?;
            let written: Vec<u32> = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
            let speculation = SpeculationSummary::of(&speculator, 0, 0);
            let timing = Timing::assumed(cost.plain_ms() * answer.len() as f64 / target.now_ms());
            let run = Run { answer: written, decode_ms: target.now_ms(), speculation };
            let equal = builder.compare(&trace.id, &arm.name, answer, &run.answer);
            builder.add(&trace.category, &trace.id, at, &run, Some(timing), Some(equal));
        }
    }
    let device = DeviceInfo { kind: "replay", name: "no device, assumed costs".to_owned(), software: true };
    let options = Options { repeats: 1, ..options.clone() };
    Ok(Report { model: "recorded texts".to_owned(), device, ..builder.report(&options, &cost) })
}
