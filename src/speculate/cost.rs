//! What things cost on this device, in milliseconds: measured round by round, so that policies need no tuning.
//!
//! Costs are by *columns*, the root included: `c(k)`, the cost of verifying k columns over one, is what decides whether
//! speculation pays. Passes run in buckets of columns, so c is a staircase.

use super::drafters::DrafterId;
use super::outcome::RoundTiming;
use crate::plan::{COLUMN_BUCKETS, MAX_COLUMNS};

/// Share of a new measurement.
const ALPHA: f64 = 0.2;
/// A measurement above this many times the mean counts as that many: other work on the machine.
const OUTLIER: f64 = 3.0;
/// c of the buckets before anything is measured: between a weight-bound and a compute-bound device.
const PRIOR_CURVE: [f64; COLUMN_BUCKETS.len()] = [1.0, 1.2, 1.6, 2.5, 4.5];
/// A draft step by a plain step before anything is measured.
const PRIOR_DRAFT_STEP: f64 = 0.3;

/// Costs by columns, draft steps and the rest. Bounded: one number a bucket and a drafter.
#[derive(Debug, Clone, Default)]
pub struct CostModel {
    verify: [Option<f64>; COLUMN_BUCKETS.len()],
    draft_step: Vec<Option<f64>>,
    host_draft: Option<f64>,
}

impl CostModel {
    /// A model of known costs: `curve` gives milliseconds by bucket of columns, 1, 2, 4, 8, 16.
    pub fn of_curve(curve: [f64; COLUMN_BUCKETS.len()], draft_steps: &[f64]) -> CostModel {
        CostModel {
            verify: curve.map(Some),
            draft_step: draft_steps.iter().copied().map(Some).collect(),
            host_draft: Some(0.0),
        }
    }

    /// A verify pass over a tree of this many nodes, sync included.
    pub fn verify_ms(&self, nodes: usize) -> f64 {
        let full = (nodes.max(1) - 1) / MAX_COLUMNS;
        let rest = nodes.max(1) - full * MAX_COLUMNS;
        let bucket = COLUMN_BUCKETS.iter().position(|&bucket| bucket >= rest).unwrap_or(0);
        full as f64 * self.bucket_ms(COLUMN_BUCKETS.len() - 1) + self.bucket_ms(bucket)
    }

    /// The cost of `nodes` columns over one.
    pub fn c(&self, nodes: usize) -> f64 {
        self.verify_ms(nodes) / self.verify_ms(1)
    }

    /// A plain step.
    pub fn plain_ms(&self) -> f64 {
        self.verify_ms(1)
    }

    /// Whether a bucket that holds this many columns was measured.
    pub fn is_measured(&self, nodes: usize) -> bool {
        COLUMN_BUCKETS.iter().position(|&bucket| bucket >= nodes).is_some_and(|at| self.verify[at].is_some())
    }

    /// One step of a device drafter.
    pub fn draft_step_ms(&self, drafter: DrafterId) -> f64 {
        let known = self.draft_step.get(usize::from(drafter.0)).copied().flatten();
        known.unwrap_or(PRIOR_DRAFT_STEP * self.plain_ms())
    }

    /// What host drafters take a round.
    pub fn host_draft_ms(&self) -> f64 {
        self.host_draft.unwrap_or(0.0)
    }

    /// Forgets draft steps: their places in the configuration may mean other drafters now.
    pub fn forget_drafters(&mut self) {
        self.draft_step.clear();
    }

    /// Learns from a round of `nodes` columns that `drafter` drafted.
    pub fn observe(&mut self, nodes: usize, drafter: Option<DrafterId>, timing: &RoundTiming) {
        let mut verify_ms = timing.verify_ms;
        if let Some(drafter) = drafter.filter(|_| timing.draft_steps > 0) {
            let total = if timing.inner_steps > 0 {
                // One submit did both: what its verify pass took is known from rounds without inner steps.
                let step_ms = (verify_ms - self.verify_ms(nodes)) / timing.inner_steps as f64;
                verify_ms = self.verify_ms(nodes);
                step_ms.max(0.0)
            } else {
                timing.draft_ms / timing.draft_steps as f64
            };
            let at = usize::from(drafter.0);
            if self.draft_step.len() <= at {
                self.draft_step.resize(at + 1, None);
            }
            blend(&mut self.draft_step[at], total);
        } else {
            blend(&mut self.host_draft, timing.draft_ms);
        }
        if nodes <= MAX_COLUMNS && timing.inner_steps == 0 {
            let bucket = COLUMN_BUCKETS.iter().position(|&bucket| bucket >= nodes).unwrap_or(0);
            blend(&mut self.verify[bucket], verify_ms);
        }
    }

    /// Measured, or the prior curve through the nearest bucket that was.
    fn bucket_ms(&self, bucket: usize) -> f64 {
        if let Some(ms) = self.verify[bucket] {
            return ms;
        }
        let measured = (0..COLUMN_BUCKETS.len()).filter(|&at| self.verify[at].is_some());
        let Some(nearest) = measured.min_by_key(|at| at.abs_diff(bucket)) else { return PRIOR_CURVE[bucket] };
        self.verify[nearest].unwrap_or(1.0) * PRIOR_CURVE[bucket] / PRIOR_CURVE[nearest]
    }
}

fn blend(mean: &mut Option<f64>, value: f64) {
    *mean = Some(match *mean {
        None => value,
        Some(mean) => mean + ALPHA * (value.min(OUTLIER * mean.max(1e-6)) - mean),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(verify_ms: f64) -> RoundTiming {
        RoundTiming { verify_ms, ..RoundTiming::default() }
    }

    #[test]
    fn what_was_not_measured_follows_the_nearest_bucket() {
        let mut cost = CostModel::default();
        assert_eq!(cost.c(8), 2.5);
        cost.observe(1, None, &timing(10.0));
        assert_eq!((cost.plain_ms(), cost.verify_ms(8)), (10.0, 25.0));
        cost.observe(7, None, &timing(50.0));
        assert_eq!(cost.verify_ms(16), 90.0);
        assert_eq!(cost.verify_ms(20), cost.verify_ms(16) + cost.verify_ms(4));
        assert!(cost.is_measured(5) && !cost.is_measured(3));
    }

    #[test]
    fn steps_inside_the_verify_pass_are_told_apart_from_it() {
        let mut cost = CostModel::default();
        cost.observe(4, None, &timing(20.0));
        let inner = RoundTiming { verify_ms: 32.0, draft_steps: 3, inner_steps: 3, ..RoundTiming::default() };
        cost.observe(4, Some(DrafterId(1)), &inner);
        assert_eq!((cost.draft_step_ms(DrafterId(1)), cost.verify_ms(4)), (4.0, 20.0));
        cost.observe(4, None, &timing(1e6));
        assert!(cost.verify_ms(4) < 30.0, "one hiccup does not spoil the model");
    }
}
