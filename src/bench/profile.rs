//! Where the time of a pass goes, each kernel of a model timed alone beside the whole pass; and what wider passes cost.

use super::report::median;
use crate::engine::Engine;
use crate::error::Result;
use crate::generation::{Busy, CancelHandle};
use crate::gpu::{CutTime, GpuExecutor, TuneReport};
use crate::model::Model;
use crate::plan::{Executor, MAX_COLUMNS, Params, Plan, PlanId, Step, Submission, round_trip_ms, time_ms};
use crate::runtime::now_ms;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

/// So long after its start no more turns of passes begin.
const TURNS_MS: f64 = 20_000.0;
/// No pass takes less; clocks of browsers may say so.
const TICK_MS: f64 = 1e-3;

/// All calls of one kernel in a pass, on matrices of one size.
#[derive(Debug, Clone, Serialize)]
pub struct KernelTime {
    /// [`Step::label`].
    pub kernel: String,
    /// Calls in a pass.
    pub calls: usize,
    /// What they take together.
    pub ms: f64,
}

/// A pass of some columns.
#[derive(Debug, Clone, Serialize)]
pub struct PassTime {
    /// Columns, all of them sampled.
    pub columns: usize,
    /// Tokens in the KV cache before it.
    pub context: usize,
    /// By first call.
    pub kernels: Vec<KernelTime>,
    /// Their sum.
    pub kernels_ms: f64,
    /// The whole pass in one submit, without the wait for it.
    pub pass_ms: f64,
}

/// Passes of several widths at several depths of context.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// Where it ran.
    pub device: crate::plan::DeviceInfo,
    /// An empty submit and the wait for it, which is not in the other times.
    pub round_trip_ms: f64,
    /// c(k) by context, then by columns.
    pub verify_cost: VerifyCost,
    /// How matrices are cut on a GPU, with the candidates that were timed at load.
    pub cuts: Vec<TuneReport>,
    /// By context, then by columns.
    pub passes: Vec<PassTime>,
}

/// c(k), the cost of verifying k columns over one, by tokens in the KV cache, then by columns.
pub(super) type VerifyCost = BTreeMap<usize, BTreeMap<usize, f64>>;

/// Times sampled passes of the engine's target in turns, all widths and contexts in each; the first warms up, of the others
/// the shortest of a pass counts, without the wait for it. So each is over the fastest plain step: work of other programs
/// makes passes only longer. What the KV cache held is lost.
pub(super) async fn verify_cost(
    engine: &Engine,
    columns: &[usize],
    contexts: &[usize],
    turns: usize,
    cancel: &CancelHandle,
) -> Result<VerifyCost> {
    let _busy = Busy::take(&engine.core)?;
    let (executor, model) = (engine.executor(), engine.target());
    model.kv.rollback(0);
    let round_trip_ms = round_trip_ms(executor).await?;
    let mut passes_ms = VerifyCost::new();
    for &context in contexts {
        let widths = std::iter::once(&1).chain(columns).map(|&columns| (columns, f64::INFINITY));
        passes_ms.insert(context.min(model.context - 1), widths.collect());
    }
    let start = now_ms();
    for turn in 0..=turns.max(1) {
        if turn > 1 && now_ms() - start > TURNS_MS {
            break;
        }
        for (&context, passes_ms) in &mut passes_ms {
            for (&columns, shortest) in passes_ms {
                cancel.check()?;
                let ms = Timed { runs: model.pass(Params::sampled_chain(columns, context), true) }.ms(executor).await?;
                if turn > 0 {
                    *shortest = shortest.min((ms - round_trip_ms).max(TICK_MS));
                }
            }
        }
    }
    for passes_ms in passes_ms.values_mut() {
        let plain_ms = passes_ms[&1];
        passes_ms.values_mut().for_each(|ms| *ms /= plain_ms);
    }
    Ok(passes_ms)
}

/// Times every kernel of the engine's target `repeats` times in turn and takes the medians. What the KV cache held is lost.
pub async fn profile(engine: &Engine, columns: &[usize], contexts: &[usize], repeats: usize) -> Result<Profile> {
    // A GPU that was idle starts slowly: this comes first, and counts the fastest passes only.
    let verify_cost = verify_cost(engine, columns, contexts, repeats, &CancelHandle::default()).await?;
    let _busy = Busy::take(&engine.core)?;
    let (executor, model) = (engine.executor(), engine.target());
    model.kv.rollback(0);
    let mut passes = Vec::new();
    let empty = Timed { runs: Vec::new() };
    let mut round_trips = Vec::new();
    for _ in 0..repeats.max(1) {
        round_trips.push(empty.ms(executor).await?);
    }
    let round_trip_ms = median(round_trips).unwrap_or(0.0);
    for &context in contexts {
        for &columns in columns {
            let mark = executor.mark();
            let pass = time_pass(executor, model, columns.clamp(1, MAX_COLUMNS), context, repeats, round_trip_ms).await;
            executor.release(mark);
            passes.push(pass?);
        }
    }
    let cuts = engine.gpu().map(GpuExecutor::tuned).unwrap_or_default();
    Ok(Profile { device: engine.device(), round_trip_ms, verify_cost, cuts, passes })
}

async fn time_pass(
    executor: &dyn Executor,
    model: &Model,
    columns: usize,
    context: usize,
    repeats: usize,
    round_trip_ms: f64,
) -> Result<PassTime> {
    let context = context.min(model.context - 1);
    let params = Params::sampled_chain(columns, context);
    let mut groups: Vec<(String, Vec<Step>)> = Vec::new();
    for step in model.steps() {
        let label = step.label();
        match groups.iter_mut().find(|(known, _)| *known == label) {
            Some((_, steps)) => steps.push(step),
            None => groups.push((label, vec![step])),
        }
    }
    let bucket = columns.next_power_of_two();
    let mut all = vec![Timed { runs: model.pass(params, true) }];
    let mut calls = Vec::new();
    for (label, steps) in &groups {
        calls.push(steps.len());
        let plan = Plan { label: label.clone(), bucket, steps: steps.clone() };
        all.push(Timed { runs: vec![(executor.prepare(plan)?, params)] });
    }
    let mut times = vec![Vec::new(); all.len()];
    // The first turn warms up.
    for turn in 0..=repeats.max(1) {
        for (timed, times) in all.iter().zip(&mut times) {
            let ms = timed.ms(executor).await?;
            if turn > 0 {
                times.push(ms - round_trip_ms);
            }
        }
    }
    let mut medians = times.into_iter().map(|times| median(times).unwrap_or(0.0));
    let pass_ms = medians.next().unwrap_or(0.0);
    let kernels: Vec<KernelTime> = (groups.into_iter().zip(calls).zip(medians))
        .map(|(((kernel, _), calls), ms)| KernelTime { kernel, calls, ms })
        .collect();
    let kernels_ms = kernels.iter().map(|kernel| kernel.ms).sum();
    Ok(PassTime { columns, context, kernels, kernels_ms, pass_ms })
}

/// Runs that are timed together.
struct Timed {
    runs: Vec<(PlanId, Params)>,
}

impl Timed {
    async fn ms(&self, executor: &dyn Executor) -> Result<f64> {
        time_ms(executor, Submission { runs: self.runs.clone(), read: (0, 1), ..Submission::default() }).await
    }
}

/// c(k) in a line.
pub(super) fn cost_line(costs: &BTreeMap<usize, f64>) -> String {
    let costs: Vec<String> = costs.iter().map(|(k, c)| format!("c({k}) = {c:.2}")).collect();
    format!("cost of verifying k columns over one: {}", costs.join(", "))
}

impl Display for Profile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{}: {}; an empty round trip takes {:.2} ms",
            self.device.kind, self.device.name, self.round_trip_ms
        )?;
        for TuneReport { layout, rows, cols, candidates, chosen } in &self.cuts {
            writeln!(f, "\nmatvec {rows} x {cols} {layout}: {chosen}, of (ms with 1 and 8 columns)")?;
            for CutTime { cut, ms: [one, eight] } in candidates {
                writeln!(f, "  {one:>9.4} {eight:>9.4}  {cut}")?;
            }
        }
        for (context, costs) in &self.verify_cost {
            write!(f, "\nafter {context} tokens, {}", cost_line(costs))?;
        }
        writeln!(f)?;
        for pass in &self.passes {
            writeln!(
                f,
                "\n{} columns after {} tokens: {:.2} ms; kernels alone {:.2} ms",
                pass.columns, pass.context, pass.pass_ms, pass.kernels_ms
            )?;
            for KernelTime { kernel, calls, ms } in &pass.kernels {
                writeln!(f, "  {ms:>9.3} ms  {calls:>4} x {kernel}")?;
            }
        }
        Ok(())
    }
}
