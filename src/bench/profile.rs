//! Where the time of a pass goes: each kernel of a model timed alone, beside the whole pass.

use super::report::median;
use crate::engine::Engine;
use crate::error::Result;
use crate::gpu::{CutTime, GpuExecutor, TuneReport};
use crate::model::Model;
use crate::plan::{Executor, MAX_COLUMNS, Params, Plan, PlanId, Step, Submission, time_ms};
use crate::runtime::now_ms;
use serde::Serialize;
use std::fmt::{Display, Formatter};

/// Work before anything is timed.
const WARM_UP_MS: f64 = 300.0;

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
    /// How matrices are cut on a GPU, with the candidates that were timed at load.
    pub cuts: Vec<TuneReport>,
    /// By context, then by columns.
    pub passes: Vec<PassTime>,
}

/// Times every kernel of the engine's target `repeats` times in turn and takes the medians. What the KV cache held is lost.
pub async fn profile(engine: &Engine, columns: &[usize], contexts: &[usize], repeats: usize) -> Result<Profile> {
    let (executor, model) = (engine.executor(), engine.target());
    model.kv.rollback(0);
    let mut passes = Vec::new();
    let empty = Timed { runs: Vec::new() };
    let mut round_trips = Vec::new();
    for _ in 0..repeats.max(1) {
        round_trips.push(empty.ms(executor).await?);
    }
    let round_trip_ms = median(round_trips).unwrap_or(0.0);
    // A GPU that was idle starts slowly.
    let (start, warm) = (now_ms(), Timed { runs: model.pass(Params::chain(1, 0, 0), true) });
    while now_ms() - start < WARM_UP_MS && !contexts.is_empty() {
        warm.ms(executor).await?;
    }
    for &context in contexts {
        for &columns in columns {
            let mark = executor.mark();
            let pass = time_pass(executor, model, columns.clamp(1, MAX_COLUMNS), context, repeats, round_trip_ms).await;
            executor.release(mark);
            passes.push(pass?);
        }
    }
    let cuts = engine.gpu().map(GpuExecutor::tuned).unwrap_or_default();
    Ok(Profile { device: engine.device(), round_trip_ms, cuts, passes })
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
    let mut params = Params::chain(columns, context, 0);
    params.logit_cols = columns as u32;
    params.sample_at = columns as u32;
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
        let mut one = None;
        for pass in &self.passes {
            if pass.columns == 1 {
                one = Some((pass.context, pass.pass_ms));
            }
            let over = one.filter(|(context, _)| *context == pass.context).map(|(_, ms)| pass.pass_ms / ms);
            let c = over.map_or_else(String::new, |c| format!(", c({}) = {c:.2}", pass.columns));
            writeln!(
                f,
                "\n{} columns after {} tokens: {:.2} ms{c}; kernels alone {:.2} ms",
                pass.columns, pass.context, pass.pass_ms, pass.kernels_ms
            )?;
            for KernelTime { kernel, calls, ms } in &pass.kernels {
                writeln!(f, "  {ms:>9.3} ms  {calls:>4} x {kernel}")?;
            }
        }
        Ok(())
    }
}
