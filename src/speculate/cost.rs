//! What things cost on this device, in milliseconds: measured round by round, so that policies need no tuning.
//!
//! Costs are by *columns*, the root included: `c(k)`, the cost of verifying k columns over one, is what decides whether
//! speculation pays. Passes run in buckets of columns, so c is a staircase.
//!
//! Rounds of different widths come at different moments, on machines that are now faster, now slower: a pace common to all is
//! told apart from the curve ([`passes`]). What else runs on the device is kept at the pace of the curve.

mod passes;

use super::drafters::DrafterId;
use super::outcome::RoundTiming;
use crate::plan::{COLUMN_BUCKETS, MAX_COLUMNS, MAX_NODES};
use passes::{AHEAD, Passes};

/// Share of a new measurement.
const ALPHA: f64 = 0.2;
/// A measurement above this many times the mean counts as that many: other work on the machine.
const OUTLIER: f64 = 3.0;
/// Buckets of columns.
const BUCKETS: usize = COLUMN_BUCKETS.len();
/// c of the buckets before anything is measured: between a weight-bound and a compute-bound device.
const PRIOR_CURVE: [f64; BUCKETS] = [1.0, 1.2, 1.6, 2.5, 4.5];
/// A draft step by a plain step before anything is measured.
const PRIOR_DRAFT_STEP: f64 = 0.3;
/// The first pass of a width is not counted where it takes longer than this many times what is expected of it.
const FIRST: f64 = 2.0;
/// A plain step is submitted ahead where that saves more than this share of it: less is the noise of a measurement.
const AHEAD_SHARE: f64 = 0.03;
/// What is left of a bend of the curve, and of the weight of a measurement, after a round.
const FADE: f64 = 0.998;
/// Most measurements that a mean stands for.
const MAX_WEIGHT: f64 = 8.0;

/// What the prior weighs in a fit against a round measured as a whole, where the parts were measured and where not.
const SURE: f64 = 1e3;
const UNSURE: f64 = 0.02;
/// The same of a step, which is known better than the curve.
const STEP: f64 = 0.2;
/// A length that was never tried is taken to cost this share of what is expected, so that it is tried where it nearly pays.
const OPTIMISM: f64 = 0.9;

/// A mean of measurements; one whose weight has faded below 1 counts by that share.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    ms: f64,
    weight: f64,
}

impl Measured {
    fn add(&mut self, ms: f64) {
        self.ms = match self.weight {
            0.0 => ms,
            // The first pass of a width may have had pipelines to make.
            weight if weight <= 1.0 && ms < self.ms => ms,
            weight => self.ms + (ms.min(OUTLIER * self.ms.max(1e-6)) - self.ms) / (weight + 1.0),
        };
        self.weight = (self.weight + 1.0).min(MAX_WEIGHT);
    }

    /// Adds what a round took, at the pace of the curve, which it tells something of too.
    fn add_round(&mut self, ms: f64, passes: &mut Passes) {
        let ms_at_pace = ms / passes.pace();
        if self.weight >= 1.0 {
            passes.observe_pace(ms_at_pace / self.ms);
        }
        self.add(ms_at_pace);
    }

    /// The mean, or what is expected of it as far as it has faded.
    fn or(self, expected: impl FnOnce() -> f64) -> f64 {
        let trust = self.weight.min(1.0);
        if trust == 1.0 { self.ms } else { trust * self.ms + (1.0 - trust) * expected() }
    }
}

/// Costs by columns, draft steps and the rest. Bounded: one number a bucket, and a drafter and length.
#[derive(Debug, Clone)]
pub struct CostModel {
    passes: Passes,
    /// Buckets that a round has used: the first may have had pipelines to make.
    used: [bool; BUCKETS],
    /// One step by drafter, in a submit of its own, at the pace of the curve.
    draft_step: Vec<Measured>,
    /// Whole rounds of a device drafter inside the verify pass's submit, by its place and the tokens it drafted, at the
    /// pace of the curve.
    inner: Vec<[Measured; MAX_NODES]>,
    host_draft: Option<f64>,
    /// What the last round took, where it was a plain step that was submitted ahead.
    last_ahead_ms: Option<f64>,
}

impl Default for CostModel {
    fn default() -> CostModel {
        CostModel {
            passes: Passes::new(PRIOR_CURVE, [false; BUCKETS]),
            used: [false; BUCKETS],
            draft_step: Vec::new(),
            inner: Vec::new(),
            host_draft: None,
            last_ahead_ms: None,
        }
    }
}

impl CostModel {
    /// A model of a device whose passes were timed at load, by bucket of columns; what was not is `None`. Rounds correct it:
    /// the curve at load is that of one context.
    pub fn of_load(passes_ms: [Option<f64>; BUCKETS]) -> CostModel {
        let mut prior = PRIOR_CURVE;
        // A coarse clock may have told nothing.
        let plain = passes_ms[0].filter(|&ms| ms > 0.0);
        if let Some(plain) = plain {
            prior[0] = plain;
            for bucket in 1..BUCKETS {
                let grown = prior[bucket - 1] * PRIOR_CURVE[bucket] / PRIOR_CURVE[bucket - 1];
                // More columns never cost less; a difference of the noise would make the curve a step.
                prior[bucket] = passes_ms[bucket].unwrap_or(grown).max(prior[bucket - 1] + 0.01 * plain);
            }
        }
        let passes = Passes::new(prior, passes_ms.map(|ms| ms.is_some() && plain.is_some()));
        CostModel { passes, ..CostModel::default() }
    }

    /// A model of known costs: `curve` gives milliseconds by bucket of columns, 1, 2, 4, 8, 16.
    pub fn of_curve(curve: [f64; BUCKETS], draft_steps: &[f64]) -> CostModel {
        CostModel {
            passes: Passes::known(curve),
            used: [true; BUCKETS],
            draft_step: draft_steps.iter().map(|&ms| Measured { ms, weight: MAX_WEIGHT }).collect(),
            inner: Vec::new(),
            host_draft: Some(0.0),
            last_ahead_ms: None,
        }
    }

    /// The same of a device on which a plain step takes so much less where it is submitted before the one before it was read.
    pub fn saving(self, saved_ms: f64) -> CostModel {
        CostModel { passes: self.passes.saving(saved_ms), ..self }
    }

    /// A verify pass over a tree of this many nodes, sync included.
    pub fn verify_ms(&self, nodes: usize) -> f64 {
        let full = (nodes.max(1) - 1) / MAX_COLUMNS;
        let rest = nodes.max(1) - full * MAX_COLUMNS;
        full as f64 * self.passes.ms(BUCKETS - 1) + self.passes.ms(bucket_of(rest))
    }

    /// The cost of `nodes` columns over one.
    pub fn c(&self, nodes: usize) -> f64 {
        self.verify_ms(nodes) / self.verify_ms(1)
    }

    /// A plain step.
    pub fn plain_ms(&self) -> f64 {
        self.verify_ms(1)
    }

    /// A plain step that is submitted before the one before it was read.
    pub fn ahead_ms(&self) -> f64 {
        self.passes.ms(AHEAD)
    }

    /// Whether plain steps are worth submitting ahead. On a GPU in software they may take longer so: what makes them and what
    /// runs them share the cores.
    pub fn saves_ahead(&self) -> bool {
        self.plain_ms() - self.ahead_ms() > AHEAD_SHARE * self.plain_ms()
    }

    /// Whether a bucket that holds this many columns was measured.
    pub fn is_measured(&self, nodes: usize) -> bool {
        COLUMN_BUCKETS.iter().position(|&bucket| bucket >= nodes).is_some_and(|at| self.used[at])
    }

    /// One step of a device drafter.
    pub fn draft_step_ms(&self, drafter: DrafterId) -> f64 {
        match self.fit(drafter) {
            Some((_, step)) => step * self.plain_ms(),
            None => self.separate_step_ms(drafter),
        }
    }

    /// A round in which a device drafter drafts a chain of `tokens` and all are verified.
    pub fn round_ms(&self, drafter: DrafterId, tokens: usize) -> f64 {
        let parts = || {
            let plain = self.plain_ms();
            match self.fit(drafter) {
                Some((rise, step)) => {
                    let rise = rise * (self.verify_ms(tokens + 1) - plain) + step * tokens as f64 * plain;
                    plain + OPTIMISM * rise
                }
                None => self.verify_ms(tokens + 1) + tokens as f64 * self.separate_step_ms(drafter),
            }
        };
        let rounds = self.inner.get(usize::from(drafter.0)).filter(|_| tokens > 0);
        match rounds.and_then(|rounds| rounds.get(tokens)) {
            Some(measured) => self.passes.pace() * measured.or(|| parts() / self.passes.pace()),
            None => parts(),
        }
    }

    /// A step that had a submit of its own.
    fn separate_step_ms(&self, drafter: DrafterId) -> f64 {
        let known = self.draft_step.get(usize::from(drafter.0)).filter(|step| step.weight > 0.0);
        known.map_or(PRIOR_DRAFT_STEP * self.plain_ms(), |step| step.ms * self.passes.pace())
    }

    /// Rounds of a drafter whose steps share the submit of the verify pass are measured as a whole. Least squares tells the
    /// parts: by how much verifying really rises, against what this model says, and a step by a plain step. Where wide
    /// buckets were measured on their own the first is 1.
    fn fit(&self, drafter: DrafterId) -> Option<(f64, f64)> {
        let measured = |rounds: &&[Measured; MAX_NODES]| rounds.iter().any(|round| round.weight > 0.0);
        let rounds = self.inner.get(usize::from(drafter.0)).filter(measured)?;
        let plain = self.plain_ms();
        let trust = if self.used[1..].contains(&true) { SURE } else { UNSURE };
        // Sums over rounds of x², xk, k², xy, ky: x the modelled rise, k the steps, y the measured rise.
        let (mut xx, mut xk, mut kk, mut xy, mut ky) = (trust, 0.0, STEP, trust, STEP * PRIOR_DRAFT_STEP);
        for (tokens, round) in rounds.iter().enumerate().skip(1).filter(|(_, round)| round.weight > 0.0) {
            let (x, k) = (self.verify_ms(tokens + 1) / plain - 1.0, tokens as f64);
            let y = round.ms * self.passes.pace() / plain - 1.0;
            let weight = round.weight.min(1.0);
            xx += weight * x * x;
            xk += weight * x * k;
            kk += weight * k * k;
            xy += weight * x * y;
            ky += weight * k * y;
        }
        let determinant = xx * kk - xk * xk;
        let (rise, step) = ((xy * kk - ky * xk) / determinant, (xx * ky - xk * xy) / determinant);
        Some(match () {
            () if rise < 0.0 => (0.0, (ky / kk).max(0.0)),
            () if step < 0.0 => ((xy / xx).max(0.0), 0.0),
            () => (rise, step),
        })
    }

    /// What host drafters take a round.
    pub fn host_draft_ms(&self) -> f64 {
        self.host_draft.unwrap_or(0.0)
    }

    /// Forgets draft steps: their places in the configuration may mean other drafters now.
    pub fn forget_drafters(&mut self) {
        self.draft_step.clear();
        self.inner.clear();
    }

    /// Learns what a step of a drafter took that had a submit of its own.
    pub fn observe_step(&mut self, drafter: DrafterId, ms: f64) {
        if ms > 0.0 {
            of(&mut self.draft_step, drafter).add(ms / self.passes.pace());
        }
    }

    /// Learns from a round of `nodes` columns that `drafter` drafted.
    pub fn observe(&mut self, nodes: usize, drafter: Option<DrafterId>, timing: &RoundTiming) {
        self.passes.step();
        self.inner.iter_mut().flatten().for_each(|measured| measured.weight *= FADE);
        let before = std::mem::replace(&mut self.last_ahead_ms, timing.ahead.then_some(timing.verify_ms));
        if timing.ahead {
            // Two steps that were in flight at once may come back at once; both may have long been there where whoever reads
            // the answer was slow to ask.
            if let Some(mean_ms) = before.map(|before| (before + timing.verify_ms) / 2.0)
                && mean_ms > 0.5 * self.ahead_ms()
            {
                self.passes.observe(AHEAD, mean_ms);
            }
            return;
        }
        // What took no time by a coarse clock tells nothing.
        if timing.verify_ms <= 0.0 {
            return;
        }
        let verify_ms = timing.verify_ms;
        if timing.draft_steps == 0 {
            blend(&mut self.host_draft, timing.draft_ms);
        }
        if let Some(drafter) = drafter.filter(|_| timing.inner_steps > 0) {
            if let Some(round) = of(&mut self.inner, drafter).get_mut(nodes - 1) {
                round.add_round(verify_ms, &mut self.passes);
            }
            return;
        }
        if timing.followed {
            return;
        }
        if nodes > MAX_COLUMNS {
            return self.passes.observe_pace(verify_ms / self.verify_ms(nodes));
        }
        let bucket = bucket_of(nodes);
        let first = !std::mem::replace(&mut self.used[bucket], true);
        // One that made its pipelines says nothing of what the next will cost, and would bar its width for long.
        if !(first && bucket > 0 && self.used[0] && verify_ms > FIRST * self.passes.ms(bucket)) {
            self.passes.observe(bucket, verify_ms);
        }
    }
}

/// The place of a drafter in a table that grows.
fn of<T: Clone + Default>(table: &mut Vec<T>, drafter: DrafterId) -> &mut T {
    let at = usize::from(drafter.0);
    if table.len() <= at {
        table.resize(at + 1, T::default());
    }
    &mut table[at]
}

/// The bucket that a pass of so many columns takes.
fn bucket_of(columns: usize) -> usize {
    COLUMN_BUCKETS.iter().position(|&bucket| bucket >= columns).unwrap_or(BUCKETS - 1)
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
    use crate::sampling::pcg4d;

    fn timing(verify_ms: f64) -> RoundTiming {
        RoundTiming { verify_ms, ..RoundTiming::default() }
    }

    fn assert_near<const N: usize>(found: [f64; N], expected: [f64; N]) {
        let near = found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-4);
        assert!(near, "{found:?}, not {expected:?}");
    }

    #[test]
    fn neither_a_coarse_clock_nor_a_slow_reader_spoils_the_model() {
        let mut cost = CostModel::of_load([Some(10.0), Some(12.0), None, None, None]).saving(2.0);
        cost.observe(1, None, &timing(10.0));
        for ms in [0.0, 16.0].repeat(100) {
            cost.observe(1, None, &RoundTiming { ahead: true, ..timing(ms) });
            cost.observe(2, None, &timing(0.0));
            cost.observe(1, None, &RoundTiming { ahead: true, ..timing(ms) });
        }
        for ms in [0.0, 16.0].repeat(100) {
            cost.observe(1, None, &RoundTiming { ahead: true, ..timing(ms) });
        }
        assert_near([cost.ahead_ms(), cost.plain_ms(), cost.verify_ms(2)], [8.0, 10.0, 12.0]);
        cost.observe(1, None, &timing(10.0));
        for _ in 0..300 {
            // Whoever reads the answer takes longer than a step does.
            cost.observe(1, None, &RoundTiming { ahead: true, ..timing(0.05) });
        }
        assert_near([cost.ahead_ms(), cost.plain_ms(), cost.verify_ms(2)], [8.0, 10.0, 12.0]);
        let unknown = CostModel::of_load([Some(0.0), Some(0.0), Some(1.0), None, None]);
        assert_eq!(unknown.c(8), CostModel::default().c(8));
    }

    #[test]
    fn what_was_not_measured_lies_on_the_curve_of_its_neighbours() {
        let mut cost = CostModel::default();
        assert_eq!(cost.c(8), 2.5);
        cost.observe(1, None, &timing(10.0));
        assert_near([cost.plain_ms(), cost.verify_ms(8)], [10.0, 25.0]); // along the prior
        cost.observe(7, None, &timing(11.5));
        assert!((cost.verify_ms(16) - 14.0).abs() < 0.5, "as flat as it was so far: {}", cost.verify_ms(16));
        assert!((cost.verify_ms(3) - 11.0).abs() < 0.5, "between the two: {}", cost.verify_ms(3));
        assert_eq!(cost.verify_ms(20), cost.verify_ms(16) + cost.verify_ms(4));
        assert!(cost.is_measured(5) && !cost.is_measured(3));
    }

    #[test]
    fn passes_timed_at_load_are_the_curve_until_rounds_say_otherwise() {
        let mut cost = CostModel::of_load([Some(10.0), None, Some(18.0), Some(17.0), None]);
        assert_eq!((cost.plain_ms(), cost.verify_ms(2), cost.verify_ms(4)), (10.0, 12.0, 18.0));
        assert!((cost.verify_ms(8) - 18.1).abs() < 1e-9, "the curve rises: {}", cost.verify_ms(8));
        assert!((cost.verify_ms(16) - 18.1 * 1.8).abs() < 1e-9, "on as usual: {}", cost.verify_ms(16));
        cost.observe(1, None, &timing(20.0));
        assert_near([cost.plain_ms(), cost.c(4)], [20.0, 1.8]); // a longer context costs every width more
        assert_eq!(CostModel::of_load([None; BUCKETS]).c(8), 2.5);
    }

    /// The share of rounds in which c(2) errs by more than a tenth, of a device that is now faster, now slower; one round in
    /// `every` has two columns.
    fn errs(mut cost: CostModel, c: f64, every: usize, seed: u32) -> f64 {
        let uniform = |round: usize, which| f64::from(pcg4d([round as u32, seed, which, 7])[0]) / 4_294_967_296.0 - 0.5;
        let (mut pace, mut wrong) = (0.0_f64, 0);
        for round in 0..2000 {
            // Wanders by 20 % in a hundred rounds; single rounds differ by 10 %.
            pace = 0.99 * pace + 0.1 * uniform(round, 0);
            let columns = if round % every == 0 { 2 } else { 1 };
            let ms = if columns == 2 { c } else { 1.0 };
            cost.observe(columns, None, &timing(33.0 * ms * (pace + 0.35 * uniform(round, 1)).exp()));
            wrong += usize::from((cost.c(2) / c - 1.0).abs() > 0.1 && round > 200);
        }
        wrong as f64 / 1800.0
    }

    #[test]
    fn c_is_known_on_a_machine_that_is_now_faster_now_slower() {
        for every in [2, 4, 8, 16] {
            for seed in 0..6 {
                let load = [Some(33.0), Some(33.0 * 1.22), None, None, None];
                let (timed, untimed) = (CostModel::of_load(load), CostModel::default());
                let (timed, untimed) = (errs(timed, 1.22, every, seed), errs(untimed, 1.03, every, seed));
                assert!(timed <= 0.02 && untimed <= 0.15, "{every}: {timed}, {untimed}");
            }
        }
    }

    #[test]
    fn an_unlucky_measurement_does_not_last() {
        let mut cost = CostModel::default();
        cost.observe(1, None, &timing(10.0));
        cost.observe(8, None, &timing(900.0));
        assert_eq!(cost.c(8), 2.5, "the first pass of a width may have had its pipelines to make");
        cost.observe(8, None, &timing(90.0));
        for _ in 0..2000 {
            cost.observe(1, None, &timing(10.0));
        }
        assert!(cost.verify_ms(8) < 30.0, "{}", cost.verify_ms(8));
        cost.observe(8, None, &timing(12.0));
        assert!(cost.verify_ms(8) < 13.0, "the first pass of a width may be slow: {}", cost.verify_ms(8));
    }

    #[test]
    fn steps_inside_the_verify_pass_are_told_apart_from_it() {
        let mut cost = CostModel::default();
        cost.observe(4, None, &timing(20.0));
        let inner = RoundTiming { verify_ms: 32.0, draft_steps: 3, inner_steps: 3, ..RoundTiming::default() };
        cost.observe(4, Some(DrafterId(1)), &inner);
        assert_near([cost.round_ms(DrafterId(1), 3), cost.verify_ms(4)], [32.0, 20.0]);
        assert!((cost.draft_step_ms(DrafterId(1)) - 4.0).abs() < 0.1, "{}", cost.draft_step_ms(DrafterId(1)));
        cost.observe(4, None, &timing(1e6));
        assert!(cost.verify_ms(4) < 41.0, "one hiccup does not spoil the model: {}", cost.verify_ms(4));
    }

    #[test]
    fn rounds_measured_as_a_whole_tell_their_parts() {
        let mut cost = CostModel::default();
        cost.observe(1, None, &timing(10.0));
        // Flatter than the prior says, and a step of 1 ms.
        for (tokens, verify_ms) in [(1, 10.2), (3, 10.5), (7, 11.0)] {
            let inner = RoundTiming {
                verify_ms: verify_ms + tokens as f64,
                draft_steps: tokens,
                inner_steps: tokens,
                ..RoundTiming::default()
            };
            cost.observe(tokens + 1, Some(DrafterId(0)), &inner);
        }
        let round_ms = cost.round_ms(DrafterId(0), 5);
        assert!((round_ms - 16.0).abs() < 1.2, "a length that was not tried: {round_ms}");
        cost.observe(8, None, &timing(11.0));
        let step_ms = cost.draft_step_ms(DrafterId(0));
        assert!((step_ms - 1.0).abs() < 0.1, "{step_ms}");
    }
}
