//! Passes by bucket of columns: a pace that all share and that moves from round to round (load of the machine, length of the
//! context), times a curve that hardly does. Were each width a mean of its own, passes of two widths would be compared that
//! were timed at different moments, and the luckiest of those errors would choose the draft.
//!
//! A Kalman filter over logarithms: `ln ms = ln base[b] + pace + bend[b] + noise`, `bend[0] = 0`, where the pace walks at random
//! and a bend goes back to 0 as rounds pass without its width. Bends are known beforehand as well as the curve is: of widths
//! timed at load each to within [`TIMED_DOUBT`], of the others mostly all at once, since a device is steep or flat. A plain step
//! that was submitted ahead is one more width.

use super::{BUCKETS, FADE};

/// What rounds of one kind differ by, as a share.
const NOISE: f64 = 0.1;
/// What the pace changes by from round to round.
const WALK: f64 = 0.02;
/// How far c of a width that was timed at load lies from that, and what one of its own lies from a common steepness.
const TIMED_DOUBT: f64 = 0.08;
const OWN_DOUBT: f64 = 0.3;
/// A pass counts as no more than so many deviations off what is expected: other work on the machine.
const OUTLIER: f64 = 3.0;
/// Nothing is known of the pace.
const ANY: f64 = 1e4;

/// The place of a plain step that was submitted before the one before it was read, after the buckets.
pub(super) const AHEAD: usize = BUCKETS;
const PLACES: usize = BUCKETS + 1;

type Vector = [f64; PLACES];

/// Times of passes.
#[derive(Debug, Clone)]
pub(super) struct Passes {
    /// The curve that is believed before any round, in milliseconds.
    base: Vector,
    /// The pace, then the bend of each place but the first.
    state: Vector,
    /// What is known of these.
    covariance: [Vector; PLACES],
    /// The same of bends before any round.
    prior: [Vector; PLACES],
}

impl Passes {
    /// A curve whose widths were timed or not.
    pub(super) fn new(base: [f64; BUCKETS], timed: [bool; BUCKETS]) -> Passes {
        // Of a width that was timed nothing follows from the others; one that was not goes on from the last that was.
        let timed_below = |at: usize| (0..=at).rev().find(|&below| timed[below]).unwrap_or(0);
        let steepness: [f64; BUCKETS] = std::array::from_fn(|at| (base[at] / base[timed_below(at)]).ln());
        let mut prior = [[0.0; PLACES]; PLACES];
        for a in 1..BUCKETS {
            for b in 1..BUCKETS {
                prior[a][b] = steepness[a] * steepness[b];
            }
            prior[a][a] += if timed[a] { TIMED_DOUBT.powi(2) } else { (OWN_DOUBT * steepness[a]).powi(2) };
        }
        let mut covariance = prior;
        covariance[0][0] = ANY;
        Passes { base: with_ahead(base), state: [0.0; PLACES], covariance, prior }
    }

    /// A curve that is known for good.
    pub(super) fn known(base: [f64; BUCKETS]) -> Passes {
        let nothing = [[0.0; PLACES]; PLACES];
        Passes { base: with_ahead(base), state: [0.0; PLACES], covariance: nothing, prior: nothing }
    }

    /// With a plain step that takes so many milliseconds less where it is submitted ahead, timed as the curve was.
    pub(super) fn saving(mut self, saved_ms: f64) -> Passes {
        self.base[AHEAD] = (self.base[0] - saved_ms).max(0.5 * self.base[0]);
        self.prior[AHEAD][AHEAD] = TIMED_DOUBT.powi(2);
        self.covariance[AHEAD][AHEAD] = TIMED_DOUBT.powi(2);
        self
    }

    /// A pass at the pace of the moment.
    pub(super) fn ms(&self, bucket: usize) -> f64 {
        let bend = if bucket > 0 { self.state[bucket] } else { 0.0 };
        self.base[bucket] * (self.state[0] + bend).exp()
    }

    /// How much slower everything is than the curve says.
    pub(super) fn pace(&self) -> f64 {
        self.state[0].exp()
    }

    /// A round has passed: the pace has walked, bends are surmised again.
    pub(super) fn step(&mut self) {
        for at in 1..PLACES {
            self.state[at] *= FADE;
            self.covariance[0][at] *= FADE;
            self.covariance[at][0] *= FADE;
            for other in 1..PLACES {
                let forgotten = (1.0 - FADE * FADE) * self.prior[at][other];
                self.covariance[at][other] = FADE * FADE * self.covariance[at][other] + forgotten;
            }
        }
        self.covariance[0][0] += WALK * WALK;
    }

    /// Learns from a pass.
    pub(super) fn observe(&mut self, bucket: usize, ms: f64) {
        let mut of = [0.0; PLACES];
        (of[0], of[bucket]) = (1.0, 1.0);
        self.update(&of, (ms / self.ms(bucket)).ln());
    }

    /// Learns the pace from something that took so many times what was expected of it.
    pub(super) fn observe_pace(&mut self, ratio: f64) {
        let mut of = [0.0; PLACES];
        of[0] = 1.0;
        self.update(&of, ratio.ln());
    }

    fn update(&mut self, of: &Vector, surprise: f64) {
        let dot = |a: &Vector, b: &Vector| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let shares = self.covariance.map(|row| dot(&row, of));
        let variance = dot(&shares, of) + NOISE * NOISE;
        let surprise = surprise.clamp(-OUTLIER * variance.sqrt(), OUTLIER * variance.sqrt());
        for (at, share) in shares.iter().enumerate() {
            self.state[at] += share / variance * surprise;
            for (other, also) in shares.iter().enumerate() {
                self.covariance[at][other] -= share * also / variance;
            }
        }
    }
}

/// A curve, and a plain step that takes no less where it is submitted ahead.
fn with_ahead(base: [f64; BUCKETS]) -> Vector {
    std::array::from_fn(|at| if at == AHEAD { base[0] } else { base[at] })
}
