//! `thompson`: before each token, go on with a probability drawn from what is believed of acceptance (EESD).
//!
//! Belief `Beta(a, b)`; before each token draw `θ ~ Beta(a, b)` and go on with probability θ. After a round
//! `a ← λa + accepted`, `b ← λb + (1 if a token was rejected)`, λ = 0.98, so that drift is followed. All of it depends on the past
//! only, so the length is drawn before the draft and every rule stays exact. State: a and b by drafter, and a counter of draws.

use super::{LengthPolicy, MAX_DRAFTERS, Signals, place};
use crate::sampling::pcg4d;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "thompson",
    paper: "EESD, arXiv 2406.03853",
    about: "goes on with a probability drawn from what is believed of acceptance",
    needs: "",
    options: &[OptionSpec {
        key: "thompson_fade",
        about: "what is left of the counts after a round",
        default: 0.98,
        min: 0.0,
        max: 1.0,
    }],
    test: "length::thompson",
    make: Make::Length(|setup| {
        Ok(Box::new(Thompson::new(setup.option("thompson_fade"), setup.config.num_speculative_tokens)))
    }),
};

/// The prior: a and b.
const PRIOR: (f64, f64) = (1.0, 1.0);

/// The policy.
#[derive(Debug)]
pub struct Thompson {
    fade: f64,
    cap: Option<usize>,
    /// Accepted and rejected, by drafter.
    counts: [(f64, f64); MAX_DRAFTERS],
    /// The place that was planned by last: another drafter of the group may have filled in.
    planned: usize,
    draws: u32,
}

impl Thompson {
    /// With the fading of counts, and `num_speculative_tokens`.
    pub fn new(fade: f64, cap: Option<usize>) -> Thompson {
        Thompson { fade, cap, counts: [(0.0, 0.0); MAX_DRAFTERS], planned: 0, draws: 0 }
    }

    /// Uniform in the open unit interval.
    fn uniform(&mut self) -> f64 {
        self.draws = self.draws.wrapping_add(1);
        (f64::from(pcg4d([self.draws, 0xbe7a, 0, 0])[0]) + 0.5) / 4_294_967_296.0
    }

    /// Gamma(shape, 1) by Marsaglia and Tsang, for shapes of 1 and more: the counts start there.
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
            let v = (1.0 + c * normal).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (a, b) = (self.gamma(a), self.gamma(b));
        a / (a + b)
    }
}

impl LengthPolicy for Thompson {
    fn name(&self) -> &'static str {
        "thompson"
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        self.planned = place(signals.drafter);
        let (accepted, rejected) = self.counts[self.planned];
        let most = self.cap.unwrap_or(signals.room).min(signals.room);
        let mut tokens = 0;
        while tokens < most {
            let theta = self.beta(PRIOR.0 + accepted, PRIOR.1 + rejected);
            if self.uniform() >= theta {
                break;
            }
            tokens += 1;
        }
        tokens
    }

    fn estimate(&mut self, _: &TokenTree, _: NodeId) -> f32 {
        let (accepted, rejected) = self.counts[self.planned];
        ((PRIOR.0 + accepted) / (PRIOR.0 + PRIOR.1 + accepted + rejected)) as f32
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        if outcome.tree.drafted() == 0 {
            return;
        }
        let accepted = outcome.verdict.path.len();
        let last = outcome.verdict.path.last().copied().unwrap_or(NodeId::ROOT);
        let rejected = !outcome.tree.node(last).slots.is_empty();
        let counts = &mut self.counts[self.planned];
        counts.0 = self.fade * counts.0 + accepted as f64;
        counts.1 = self.fade * counts.1 + f64::from(u8::from(rejected));
    }

    fn reset(&mut self) {
        *self = Thompson::new(self.fade, self.cap);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLAT, Kind, Trace};
    use super::*;

    #[test]
    fn beliefs_are_drawn_as_they_are_distributed() {
        let mut policy = Thompson::new(0.98, None);
        let draws: Vec<f64> = (0..20_000).map(|_| policy.beta(6.0, 2.0)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 0.75).abs() < 0.005 && (variance - 0.75 * 0.25 / 9.0).abs() < 0.001, "{mean} {variance}");
    }

    #[test]
    fn lengths_spread_around_the_best_fixed_one_and_regret_falls() {
        let trace = Trace { step_ms: 0.17, ..Trace::new(Kind::Inner, FLAT, &|_| 0.8) };
        let (best, rate) = trace.best_fixed(2000);
        let replay = trace.replay("length=thompson", 2000);
        let mean = replay.mean_length(200..2000);
        assert!((mean - best as f64).abs() <= 1.0, "{mean}, the best is {best}");
        // Geometric lengths: none at all in about a fifth of the rounds, and some very long ones.
        let lengths = &replay.lengths()[200..];
        let none = lengths.iter().filter(|&&length| length == 0).count() as f64 / lengths.len() as f64;
        assert!((none - 0.2).abs() < 0.05 && lengths.iter().any(|&length| length > 9), "{none}");
        let regret = |rounds: std::ops::Range<usize>| 1.0 - replay.rate(rounds) / rate;
        let (early, late) = (regret(0..20), regret(500..2000));
        assert!(late < early && late < 0.3, "{early} then {late}");
    }
}
