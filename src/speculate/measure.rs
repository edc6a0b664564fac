//! What passes of each width take on this device, timed when a model is loaded, so that the first rounds choose well.

use super::cost::CostModel;
use crate::error::Result;
use crate::model::Model;
use crate::plan::{COLUMN_BUCKETS, Executor, Params, Submission, time_ms};
use crate::runtime::now_ms;

/// Tokens that the passes see before them: what a short prompt has.
const CONTEXT: usize = 128;
/// Turns, the first to warm up, and how long after its start, or that of the second, a pass is left out. The second times
/// what rounds cannot do without; the others only make it better, where that is quick.
const BUDGETS_MS: [f64; 4] = [2000.0, 2000.0, 800.0, 800.0];
/// Plain steps in a row that are timed one by one and ahead of each other, and how often, where a step takes less than so
/// long: of a longer one a round trip is no share.
const STEPS: usize = 4;
const AHEAD_TURNS: usize = 2;
const AHEAD_MS: f64 = 100.0;
/// Which widths first: a plain step, then what drafts use most.
const ORDER: [usize; COLUMN_BUCKETS.len()] = [0, 3, 2, 1, 4];

/// Times sampled passes of a model over whatever its cache holds, in turns: the first warms up, of the others the shortest
/// counts. Widths take turns since a GPU that was idle starts slowly, and its first passes would all be narrow ones. The
/// tokens that the cache is said to hold are not touched, so this is to be done while it is empty.
pub async fn measure(executor: &dyn Executor, model: &Model) -> Result<CostModel> {
    let mut start = now_ms();
    let mut warm = [false; COLUMN_BUCKETS.len()];
    let mut passes_ms = [None; COLUMN_BUCKETS.len()];
    for (turn, budget_ms) in BUDGETS_MS.into_iter().enumerate() {
        if turn == 1 {
            start = now_ms(); // what a first pass takes, the next does not
        }
        for bucket in ORDER {
            let late = now_ms() - start > budget_ms;
            // A plain step is measured whatever it takes.
            if late && (turn > 1 || bucket > 0) || turn > 0 && !warm[bucket] {
                continue;
            }
            let ms = time_pass(executor, model, COLUMN_BUCKETS[bucket]).await?;
            if turn == 0 {
                warm[bucket] = true;
            } else {
                passes_ms[bucket] = Some(passes_ms[bucket].map_or(ms, |best: f64| best.min(ms)));
            }
        }
    }
    let cost = CostModel::of_load(passes_ms);
    if !executor.is_asynchronous() || passes_ms[0].is_none_or(|plain| plain > AHEAD_MS) {
        return Ok(cost);
    }
    let (mut waiting_ms, mut ahead_ms) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..AHEAD_TURNS {
        let mut steps_ms = 0.0;
        for _ in 0..STEPS {
            steps_ms += time_pass(executor, model, 1).await?;
        }
        waiting_ms = waiting_ms.min(steps_ms);
        ahead_ms = ahead_ms.min(time_ahead(executor, model).await?);
    }
    // All but the first are ahead. As a share: the machine may have been faster or slower when the curve was timed.
    let saved = (waiting_ms - ahead_ms).max(0.0) / waiting_ms.max(f64::MIN_POSITIVE);
    let plain_ms = cost.plain_ms();
    Ok(cost.saving(saved * plain_ms * STEPS as f64 / (STEPS - 1) as f64))
}

async fn time_pass(executor: &dyn Executor, model: &Model, columns: usize) -> Result<f64> {
    time_ms(executor, pass(model, columns)).await
}

/// Plain steps of which each is submitted before the one before it is read.
async fn time_ahead(executor: &dyn Executor, model: &Model) -> Result<f64> {
    let start = now_ms();
    let mut last = executor.submit(pass(model, 1))?;
    for _ in 1..STEPS {
        let next = executor.submit(pass(model, 1))?;
        executor.finish(std::mem::replace(&mut last, next)).await?;
    }
    executor.finish(last).await?;
    Ok(now_ms() - start)
}

fn pass(model: &Model, columns: usize) -> Submission {
    let runs = model.pass(Params::sampled_chain(columns, CONTEXT.min(model.context - 1)), true);
    Submission { runs, read: (columns, columns), ..Submission::default() }
}
