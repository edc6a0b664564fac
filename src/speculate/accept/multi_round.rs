//! `multi-round`: SpecInfer's multi-step speculative sampling (Miao et al., arXiv 2305.09781). Sibling by sibling: keep x_j
//! with min(1, p(x_j)/q_j(x_j)), else p ← norm((p − q_j)+), q unchanged. Keeps no state.
//!
//! Exact for independent draws, of one drafter or of several with a q each, and for point masses among them. The paper
//! takes the siblings in random order; any order that does not look at the draws is as exact, and draft order needs no dice.

use super::residual::{Draft, Residual};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness, ProposalKind};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::NodeId;

/// This method.
pub static METHOD: Method = Method {
    name: "multi-round",
    paper: "SpecInfer, arXiv 2305.09781",
    about: "sibling by sibling: keep with min(1, p/q), else p becomes (p - q)+; for independent draws",
    needs: "p, q",
    options: &[],
    test: "accept::multi_round",
    make: Make::Accept(|_| Ok(Box::new(TopDown(MultiRound))), Exactness::SameDistribution),
};

/// The rule of [`TopDown`].
#[derive(Debug, Clone, Copy, Default)]
pub struct MultiRound;

impl LocalSolver for MultiRound {
    const METHOD: &'static Method = &METHOD;
    const SUPPORTS: &'static [ProposalKind] = &[ProposalKind::Deterministic, ProposalKind::Sampled];

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        (0..siblings.len()).find(|&index| {
            let sibling = &siblings[index];
            ratio_test(at, index, sibling, &Draft::alone(sibling), row, chance)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, mean_length};
    use super::super::{AcceptanceRule, Match};
    use super::*;
    use ProposalKind::{Deterministic, Sampled};

    /// Mean length over two independent draws below the root.
    fn of_two_draws(rule: &mut dyn AcceptanceRule, toy: &Toy, seed: usize) -> f64 {
        let q = toy.q(seed);
        let mut length = 0.0;
        for (a, b) in (0..16).map(|pair| (pair / 4, pair % 4)).filter(|&(a, b)| q[a] * q[b] > 0.0) {
            let tree = toy.siblings(&[(a as u32, Sampled), (b as u32, Sampled)], seed);
            length += q[a] * q[b] * mean_length(rule, &tree, &toy.rows(&tree, seed));
        }
        length
    }

    #[test]
    fn a_second_sibling_takes_part_of_what_the_first_left() {
        let toy = Toy::new(3);
        let mut better = 0;
        for seed in 0..20 {
            let (p, q) = (toy.p(seed), toy.q(seed));
            let first: f64 = p.iter().zip(q.iter()).map(|(p, q)| p.min(*q)).sum();
            let left: Vec<f64> = p.iter().zip(q.iter()).map(|(p, q)| (p - q).max(0.0)).collect();
            let total: f64 = left.iter().sum();
            let second: f64 = left.iter().zip(q.iter()).map(|(r, q)| (r / total).min(*q)).sum();
            let expected = 1.0 + first + if total > 0.0 { (1.0 - first) * second } else { 0.0 };
            let length = of_two_draws(&mut TopDown(MultiRound), &toy, seed);
            assert!((length - expected).abs() < 1e-12, "{length}, {expected}");
            better += usize::from(length > 1.0 + first + 1e-6);
        }
        assert!(better > 5, "a rule that looks at one sibling only would pass as well");
    }

    #[test]
    fn with_point_masses_it_has_the_length_of_match() {
        let toy = Toy::new(4);
        for seed in 0..20 {
            let p = toy.p(seed);
            let tree = toy.siblings(&[(0, Deterministic), (2, Deterministic)], seed);
            let length = mean_length(&mut TopDown(MultiRound), &tree, &toy.rows(&tree, seed));
            assert!((length - 1.0 - p[0] - p[2]).abs() < 1e-12);
        }
        assert_eq!(Match.draws(), Deterministic);
    }
}
