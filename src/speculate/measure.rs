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
/// Pairs of plain steps that are timed, where a step takes less than so long: of a longer one a round trip is no share.
const PAIRS: usize = 3;
const PAIRED_MS: f64 = 100.0;
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
    if !executor.is_asynchronous() || passes_ms[0].is_none_or(|plain| plain > PAIRED_MS) {
        return Ok(cost);
    }
    let (mut plain_ms, mut pair_ms) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..PAIRS {
        plain_ms = plain_ms.min(time_pass(executor, model, 1).await? + time_pass(executor, model, 1).await?);
        pair_ms = pair_ms.min(time_pair(executor, model).await?);
    }
    // What one takes alone and a pair does not.
    Ok(cost.saving((plain_ms - pair_ms).max(0.0)))
}

async fn time_pass(executor: &dyn Executor, model: &Model, columns: usize) -> Result<f64> {
    time_ms(executor, pass(model, columns)).await
}

/// Two plain steps, of which the second is submitted before the first is read.
async fn time_pair(executor: &dyn Executor, model: &Model) -> Result<f64> {
    let start = now_ms();
    let first = executor.submit(pass(model, 1))?;
    let second = executor.submit(pass(model, 1))?;
    executor.finish(first).await?;
    executor.finish(second).await?;
    Ok(now_ms() - start)
}

fn pass(model: &Model, columns: usize) -> Submission {
    let runs = model.pass(Params::sampled_chain(columns, CONTEXT.min(model.context - 1)), true);
    Submission { runs, read: (columns, columns), ..Submission::default() }
}
