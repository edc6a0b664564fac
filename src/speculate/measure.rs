//! What passes of each width take on this device, timed when a model is loaded, so that the first rounds choose well.

use super::cost::CostModel;
use crate::error::Result;
use crate::model::Model;
use crate::plan::{COLUMN_BUCKETS, Executor, Params, Submission};
use crate::runtime::now_ms;

/// Tokens that the passes see before them: what a short prompt has.
const CONTEXT: usize = 128;
/// Widths whose turn would come after this long are left out.
const BUDGET_MS: f64 = 2000.0;
/// Which widths first: a plain step, then what drafts use most.
const ORDER: [usize; COLUMN_BUCKETS.len()] = [0, 3, 2, 1, 4];

/// Times sampled passes of a model over whatever its cache holds, each once to warm up and then twice, of which the shorter
/// counts. The tokens that the cache is said to hold are not touched, so this is to be done while it is empty.
pub async fn measure(executor: &dyn Executor, model: &Model) -> Result<CostModel> {
    let start = now_ms();
    let mut passes_ms = [None; COLUMN_BUCKETS.len()];
    for bucket in ORDER {
        if now_ms() - start > BUDGET_MS {
            break;
        }
        let columns = COLUMN_BUCKETS[bucket];
        let mut params = Params::chain(columns, CONTEXT.min(model.context - 1), 0);
        (params.logit_cols, params.sample_at) = (columns as u32, columns as u32);
        let mut best = f64::INFINITY;
        for turn in 0..3 {
            let began = now_ms();
            let submission =
                Submission { runs: model.pass(params, true), read: (columns, columns), ..Submission::default() };
            let ticket = executor.submit(submission)?;
            executor.finish(ticket).await?;
            if turn > 0 {
                best = best.min(now_ms() - began);
            }
        }
        passes_ms[bucket] = Some(best);
    }
    Ok(CostModel::of_load(passes_ms))
}
