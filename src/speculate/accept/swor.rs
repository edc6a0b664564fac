//! `swor`: multi-round verification of siblings drawn without replacement (Sequoia, arXiv 2402.12374; RRSw, arXiv
//! 2402.14160). Keep x_j with min(1, p(x_j)/q(x_j)), else p ← norm((p − q)+), q(x_j) ← 0 and q ← norm(q). Keeps no state.
//!
//! Independent draws and point masses may stand among them: each sibling is tested against what it was drawn from.

use super::residual::{Draft, Residual};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness, ProposalKind};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::NodeId;

/// This method.
pub static METHOD: Method = Method {
    name: "swor",
    paper: "Sequoia, arXiv 2402.12374",
    about: "sibling by sibling as multi-round, for draws without replacement: q loses what was rejected",
    needs: "p, q",
    options: &[],
    test: "accept::swor",
    make: Make::Accept(|_| Ok(Box::new(TopDown(Swor))), Exactness::SameDistribution),
};

/// The rule of [`TopDown`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Swor;

impl LocalSolver for Swor {
    const METHOD: &'static Method = &METHOD;
    const DRAWS: ProposalKind = ProposalKind::SampledWor;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        (0..siblings.len())
            .find(|&index| ratio_test(at, index, &siblings[index], &Draft::among(siblings, index), row, chance))
    }
}

#[cfg(test)]
mod tests {
    use super::super::multi_round::MultiRound;
    use super::super::testing::{Toy, law, token_law};
    use super::*;
    use ProposalKind::SampledWor;

    /// Law of the first token over two draws without replacement.
    fn first_token(rule: &mut dyn super::super::AcceptanceRule, toy: &Toy, seed: usize) -> [f64; 4] {
        let q = toy.q(seed);
        let mut sum = [0.0; 4];
        for a in (0..4).filter(|&a| q[a] > 0.0) {
            let rest: f64 = (0..4).filter(|&b| b != a).map(|b| q[b]).sum();
            let seconds: Vec<Option<usize>> = match rest > 0.0 {
                true => (0..4).filter(|&b| b != a && q[b] > 0.0).map(Some).collect(),
                false => vec![None],
            };
            for b in seconds {
                let weight = q[a] * b.map_or(1.0, |b| q[b] / rest);
                let drawn: Vec<_> = [Some(a), b].into_iter().flatten().map(|x| (x as u32, SampledWor)).collect();
                let tree = toy.siblings(&drawn, seed);
                let rows = toy.rows(&tree, seed);
                for (token, p) in token_law(&tree, &law(rule, &tree, &rows)).into_iter().enumerate() {
                    sum[token] += weight * p;
                }
            }
        }
        sum
    }

    #[test]
    fn draws_without_replacement_keep_p_and_an_unchanged_q_would_not() {
        let toy = Toy::new(5);
        let error = |law: [f64; 4], seed| {
            law.iter().zip(toy.p(seed).iter()).map(|(a, b): (&f64, &f64)| (a - b).abs()).fold(0.0, f64::max)
        };
        let mut worst_of_multi_round = 0.0f64;
        for seed in 0..20 {
            assert!(error(first_token(&mut TopDown(Swor), &toy, seed), seed) < 1e-12);
            let wrong = error(first_token(&mut TopDown(MultiRound), &toy, seed), seed);
            worst_of_multi_round = worst_of_multi_round.max(wrong);
        }
        assert!(worst_of_multi_round > 0.05, "{worst_of_multi_round}");
    }
}
