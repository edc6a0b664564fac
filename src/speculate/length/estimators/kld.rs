//! `kld`: how far the draft is from the target, and how steadily (DSDE, known to us at second hand).
//!
//! With D the divergence KL(p‖q) of each judged token, `SF = exp(2·mean D of the last round) − 1`, WVIR the variance of the
//! last 10 over that of the last 30 (weights fall by 0.85 a token), the length is `SL = (1 − SF·WVIR)·(SLmax − 2) + 2`, clamped
//! to `2 … SLmax`, and `SLmax = (longest accepted)·(1 + mean D / max D)` over the first rounds. As an estimate that is
//! `â = SL/(SL+1)`, whose runs are SL tokens long on average; `length=survival,survival_stop=0.6` drafts about SL tokens.
//!
//! D is exact where whole rows of p and q are there. Else it is what row statistics and the draft's probability say of the
//! drafted token against all others, `p ln(p/q) + (1-p) ln((1-p)/(1-q))`: never more than the divergence (data processing
//! inequality). State: 30 divergences and what calibration found.

use crate::speculate::drafters::DrafterId;
use crate::speculate::length::AcceptanceEstimator;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{NodeId, Proposal, TokenTree};
use std::collections::VecDeque;

/// This method.
pub static METHOD: Method = Method {
    name: "kld",
    paper: "DSDE, arXiv 2509.01083",
    about: "by the divergence of draft and target and its stability",
    needs: "stats",
    options: &[],
    test: "length::estimators::kld",
    make: Make::Estimator(|_| Ok(Box::new(Kld::default()))),
};

/// Divergences of the long window, and of the short one.
const LONG: usize = 30;
const SHORT: usize = 10;
/// What a divergence weighs of the one after it.
const DECAY: f32 = 0.85;
/// The shortest length.
const SHORTEST: f32 = 2.0;
/// Drafted rounds that calibrate the longest, and the length until then.
const CALIBRATION: usize = 8;
const AT_FIRST: f32 = 4.0;
/// Probabilities are taken to lie within this and 1 less this.
const EDGE: f32 = 1e-3;
/// Variances below this are none.
const STILL: f32 = 1e-6;

/// Lengths by stability.
#[derive(Debug, Default)]
pub struct Kld {
    /// The last divergences, the latest last.
    window: VecDeque<f32>,
    /// Mean of the last round.
    last_mean: f32,
    /// Rounds that calibrated, the longest run accepted in them, and sum, number and largest of their divergences.
    rounds: usize,
    longest: usize,
    sum: f32,
    count: usize,
    largest: f32,
}

impl Kld {
    fn length(&self) -> f32 {
        if self.rounds < CALIBRATION || self.window.is_empty() {
            return AT_FIRST;
        }
        let mean = self.sum / self.count.max(1) as f32;
        let longest = (self.longest as f32 * (1.0 + mean / (self.largest + STILL))).max(SHORTEST);
        let scale = (2.0 * self.last_mean).exp() - 1.0;
        let long = self.variance(LONG);
        let ratio = if long < STILL { 1.0 } else { self.variance(SHORT) / long };
        ((1.0 - scale * ratio) * (longest - SHORTEST) + SHORTEST).clamp(SHORTEST, longest)
    }

    /// Weighted variance of the last divergences.
    fn variance(&self, last: usize) -> f32 {
        let (mut weight, mut sum, mut first, mut second) = (1.0, 0.0, 0.0, 0.0);
        for &value in self.window.iter().rev().take(last) {
            sum += weight;
            first += weight * value;
            second += weight * value * value;
            weight *= DECAY;
        }
        (second / sum - (first / sum) * (first / sum)).max(0.0)
    }
}

/// KL(p‖q) at a node's place, as far as the round tells.
fn divergence(outcome: &RoundOutcome, id: NodeId) -> Option<f32> {
    let node = outcome.tree.node(id);
    let row = &outcome.rows[node.parent.index()];
    let slot = outcome.tree.node(node.parent).slots.iter().find(|slot| slot.child == id)?;
    if let (Some(p), Proposal::Sampled(q) | Proposal::SampledWor(q)) = (&row.p, &slot.proposal) {
        let terms = p.iter().zip(q.iter()).filter(|(p, _)| **p > 0.0);
        return Some(terms.map(|(&p, &q)| p * (p / q.max(1e-9)).ln()).sum::<f64>() as f32);
    }
    let stats = row.stats.as_deref()?;
    let listed = || stats.top.iter().find(|(token, _)| Some(*token) == node.token).map(|(_, logp)| *logp);
    let logp = if node.token == Some(row.sample) { Some(stats.sample_logp) } else { listed() };
    // What is not listed is less likely than the last that is.
    let least = || stats.top.last().map_or(EDGE, |(_, logp)| 0.5 * logp.exp());
    let p = logp.map_or_else(least, f32::exp).clamp(EDGE, 1.0 - EDGE);
    let q = node.stats.logq.exp().clamp(EDGE, 1.0 - EDGE);
    Some(p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln())
}

impl AcceptanceEstimator for Kld {
    fn name(&self) -> &'static str {
        "kld"
    }

    fn needs(&self) -> Needs {
        Needs { stats: true, ..Needs::default() }
    }

    fn a_hat(&mut self, _: &TokenTree, _: NodeId) -> f32 {
        self.length() / (self.length() + 1.0)
    }

    fn expected(&self, _: DrafterId, _: usize) -> f32 {
        self.length() / (self.length() + 1.0)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let found: Vec<f32> = outcome.judged().filter_map(|(node, _)| divergence(outcome, node)).collect();
        if found.is_empty() {
            return;
        }
        self.last_mean = found.iter().sum::<f32>() / found.len() as f32;
        if self.rounds < CALIBRATION {
            self.rounds += 1;
            self.longest = self.longest.max(outcome.verdict.path.len());
            self.sum += found.iter().sum::<f32>();
            self.count += found.len();
            self.largest = found.iter().copied().fold(self.largest, f32::max);
        }
        self.window.extend(found);
        self.window.drain(..self.window.len().saturating_sub(LONG));
    }

    fn reset(&mut self) {
        *self = Kld::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{drafted_round, estimator};
    use super::*;

    /// The length after rounds of one token each: the target's probability of it, against 0.9 of the draft.
    fn lengths(p: impl Fn(usize) -> f32, rounds: usize) -> Vec<f32> {
        let mut kld = estimator("kld");
        let mut lengths = Vec::new();
        for round in 0..rounds {
            // Six accepted in one of the first rounds.
            let accepted = if round == 3 { 6 } else { 1 };
            kld.observe(&drafted_round(&vec![0.9; accepted], accepted, p(round)));
            let a_hat = kld.expected(DrafterId(0), 1);
            lengths.push(a_hat / (1.0 - a_hat));
        }
        lengths
    }

    #[test]
    fn steady_agreement_drafts_long_and_disagreement_short() {
        let steady = lengths(|_| 0.85, 60);
        assert!(steady[59] > 10.0, "the longest: {}", steady[59]);
        let apart = lengths(|round| if round < 40 { 0.85 } else { [0.01, 0.03][round % 2] }, 100);
        assert!((apart[99] - 2.0).abs() < 1e-3, "the shortest: {}", apart[99]);
    }

    #[test]
    fn less_stability_shortens_within_ten_tokens() {
        let unsteady = |round: usize| if round >= 40 && round.is_multiple_of(2) { 0.3 } else { 0.85 };
        let lengths = lengths(unsteady, 50);
        let least = lengths[40..].iter().copied().fold(f32::INFINITY, f32::min);
        assert!(lengths[39] > 10.0 && least < 4.0, "{} then {:?}", lengths[39], &lengths[40..]);
    }
}
