//! `ensemble`: a mixture of the drafters' distributions, `q = Σ w_i q_i`, its weights refit from past agreement (TABED).
//!
//! `w` is the point of a grid on the simplex that maximises how often `argmax q` was the target's token over the last
//! [`WINDOW`] verified rows; of equals the one under which those tokens were likelier (TABED: the lower KL divergence), at first
//! the even mixture. `q_i` are the probabilities of the candidates that a drafter offers; of
//! those who offer nothing at a leaf the others take the weight. Every drafter is asked at every leaf.
//!
//! State: [`WINDOW`] rows of what was offered, two sums a grid point.

use super::heard::{Heard, Merged, Said, merged};
use super::{DraftSelector, DrafterInfo, Offer, Selection};
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, NodeId, TokenTree};
use std::collections::VecDeque;

/// This method.
pub static METHOD: Method = Method {
    name: "ensemble",
    paper: "TABED",
    about: "a mixture of all drafters, its weights refit from past agreement",
    needs: "",
    options: &[],
    test: "select::ensemble",
    make: Make::Select(|_| Ok(Box::new(Ensemble::default()))),
};

/// Verified rows that are remembered.
const WINDOW: usize = 256;
/// Points of the grid at most.
const MAX_POINTS: usize = 300;
/// Steps from 0 to 1 on a side of the simplex at most.
const MAX_STEPS: usize = 10;
/// Probability of what a mixture did not offer.
const FLOOR: f64 = 1e-3;

/// A mixture.
#[derive(Debug, Clone, Default)]
pub struct Ensemble {
    drafters: usize,
    grid: Vec<Point>,
    best: usize,
    rows: VecDeque<(Vec<Said>, u32)>,
    heard: Heard,
}

/// A mixture that is tried.
#[derive(Debug, Clone)]
struct Point {
    weights: Vec<f64>,
    agreed: f64,
    log_likelihood: f64,
}

impl Point {
    /// Whether the likeliest token is the target's, and ln of the target's token.
    fn judge(&self, said: &[Said], token: u32) -> (f64, f64) {
        let shares = shares(&self.weights, said.iter().map(|said| said.drafter));
        let mut mixed: Vec<(u32, f64)> = Vec::new();
        for (said, share) in said.iter().zip(shares) {
            for &(token, q) in &said.tokens {
                let q = share * f64::from(q);
                match mixed.iter_mut().find(|mixed| mixed.0 == token) {
                    Some(mixed) => mixed.1 += q,
                    None => mixed.push((token, q)),
                }
            }
        }
        let q = mixed.iter().find(|mixed| mixed.0 == token).map_or(0.0, |mixed| mixed.1);
        let agrees = q > 0.0 && mixed.iter().all(|mixed| mixed.1 <= q);
        (f64::from(u8::from(agrees)), (q + FLOOR).ln())
    }
}

/// Weights of those who speak, made to sum to 1; even where they have none.
fn shares(weights: &[f64], speakers: impl Iterator<Item = DrafterId> + Clone) -> Vec<f64> {
    let weight = |id: DrafterId| weights[usize::from(id.0)];
    let total: f64 = speakers.clone().map(weight).sum();
    let count = speakers.clone().count();
    speakers.map(|id| if total > 0.0 { weight(id) / total } else { 1.0 / count as f64 }).collect()
}

/// Points `(i_1 / n, …, i_k / n)` that sum to 1, with n as large as [`MAX_POINTS`] allows.
fn grid(drafters: usize) -> Vec<Point> {
    // Numbers of points for n = 1, 2, …: C(n + k - 1, n).
    let mut points = 1;
    let mut steps = 0;
    while steps < MAX_STEPS && points * (steps + drafters) / (steps + 1) <= MAX_POINTS {
        points = points * (steps + drafters) / (steps + 1);
        steps += 1;
    }
    let mut parts = vec![(Vec::new(), steps)];
    for left_after in (0..drafters).rev() {
        parts = parts
            .into_iter()
            .flat_map(|(part, left)| {
                let least = if left_after == 0 { left } else { 0 };
                (least..=left).map(move |n| ([&part[..], &[n]].concat(), left - n))
            })
            .collect();
    }
    let point = |(part, _): (Vec<usize>, usize)| Point {
        weights: part.into_iter().map(|n| n as f64 / steps.max(1) as f64).collect(),
        agreed: 0.0,
        log_likelihood: 0.0,
    };
    parts.into_iter().map(point).collect()
}

impl Ensemble {
    /// The weights in force, by drafter: even until something is known.
    pub fn weights(&self) -> Vec<f64> {
        match self.grid.get(self.best).filter(|_| !self.rows.is_empty()) {
            Some(point) => point.weights.clone(),
            None => vec![1.0 / self.drafters.max(1) as f64; self.drafters],
        }
    }

    /// Takes the best point.
    fn refit(&mut self) {
        // Counts are whole; sums of logarithms that differ by rounding are equal.
        let better = |a: &Point, b: &Point| {
            a.agreed > b.agreed + 0.5 || (a.agreed > b.agreed - 0.5 && a.log_likelihood > b.log_likelihood + 1e-9)
        };
        let points = 0..self.grid.len();
        self.best = points.fold(0, |best, at| if better(&self.grid[at], &self.grid[best]) { at } else { best });
    }

    fn learn(&mut self, said: Vec<Said>, token: u32) {
        self.rows.push_back((said, token));
        let gone = if self.rows.len() > WINDOW { self.rows.pop_front() } else { None };
        let Some((said, token)) = self.rows.back() else { return };
        for point in &mut self.grid {
            let (agreed, log_likelihood) = point.judge(said, *token);
            point.agreed += agreed;
            point.log_likelihood += log_likelihood;
            if let Some((said, token)) = &gone {
                let (agreed, log_likelihood) = point.judge(said, *token);
                point.agreed -= agreed;
                point.log_likelihood -= log_likelihood;
            }
        }
    }
}

impl DraftSelector for Ensemble {
    fn name(&self) -> &'static str {
        "ensemble"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        if self.drafters != drafters.len() {
            *self = Ensemble { drafters: drafters.len(), grid: grid(drafters.len()), ..Ensemble::default() };
        }
        self.heard.clear();
        Selection::All(drafters.iter().map(|drafter| drafter.id).collect())
    }

    fn combine(
        &mut self,
        _: &TokenTree,
        leaf: NodeId,
        offers: Vec<Offer>,
        width: usize,
    ) -> Vec<(DrafterId, Candidate)> {
        self.heard.note(leaf, &offers);
        let speakers = offers.iter().map(|offer| offer.drafter);
        let shares: Vec<(DrafterId, f64)> = speakers.clone().zip(shares(&self.weights(), speakers)).collect();
        let share = |id: DrafterId| shares.iter().find(|share| share.0 == id).map_or(0.0, |share| share.1 as f32);
        let mixed = |voices: &[(DrafterId, f32)]| voices.iter().map(|(id, q)| share(*id) * q).sum::<f32>();
        let tokens = merged(offers, width, mixed).into_iter().filter(|token| token.score > 0.0);
        tokens.flat_map(Merged::scored).collect()
    }

    fn looks_at_drafts(&self) -> bool {
        true
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let judged = self.heard.judged(outcome);
        let judged: Vec<(Vec<Said>, u32)> = judged.into_iter().map(|(said, token)| (said.to_vec(), token)).collect();
        for (said, token) in judged.into_iter().filter(|judged| !judged.0.is_empty()) {
            self.learn(said, token);
        }
        self.refit();
    }

    fn reset(&mut self) {
        *self = Ensemble::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::select::testing::{rounds, speculator};
    use crate::speculate::select::{Cascade, testing};
    use crate::speculate::shapes::Chain;
    use crate::speculate::shapes::testing::noise;
    use crate::speculate::simulate::SimulatedDrafter;

    #[test]
    fn grids_are_simplices_of_a_bounded_size() {
        for drafters in 1..=12 {
            let grid = grid(drafters);
            assert!((1..=MAX_POINTS).contains(&grid.len()), "{drafters}: {}", grid.len());
            assert!(grid.iter().all(|point| (point.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9));
        }
        assert_eq!(grid(2).len(), 11);
    }

    #[test]
    fn noise_loses_its_weight() {
        // The first drafter is noise that claims to be sure; the second is useful and honest.
        let text = noise(2000);
        let drafter = |seed, alpha, claims| SimulatedDrafter {
            seed,
            claims,
            ..SimulatedDrafter::new(text.clone(), move |_| alpha)
        };
        let noisy = || drafter(1, 0.02, |_, _| 0.9);
        let useful = || drafter(2, 0.75, |alpha, _| alpha);
        let mut mixed = speculator(Ensemble::default(), Chain, vec![Box::new(noisy()), Box::new(useful())], 4);
        rounds(&mut mixed, &text);
        let (alone, _) = testing::replay(Cascade, vec![Box::new(useful())], &text);
        let length = mixed.totals.mean_acceptance_length();
        println!("mixture {length:.3}, the useful one alone {alone:.3}");
        assert!(length > 0.97 * alone);
        // The same by hand, to see the weights.
        let mut ensemble = Ensemble { drafters: 2, grid: grid(2), ..Ensemble::default() };
        assert_eq!(ensemble.weights(), [0.5, 0.5]);
        for at in 0..200u32 {
            let said = |drafter, token, q| Said { drafter: DrafterId(drafter), tokens: vec![(token, q)] };
            let useful = if at % 4 == 0 { at + 1 } else { at };
            ensemble.learn(vec![said(0, at + 7, 0.9), said(1, useful, 0.75)], at);
        }
        ensemble.refit();
        assert_eq!(ensemble.weights(), [0.0, 1.0]);
    }
}
