//! `kseq`: K-SEQ of SpecTr (Sun et al., arXiv 2310.15141). Of k independent draws, keep x with min(1, p(x)/(ρ q(x))); after
//! all k draw from ∝ (p − min(p/ρ, q) · p_acc/β)+, where β = Σ min(p/ρ, q), p_acc = 1 − (1 − β)^k and ρ in [1, k] is the
//! least with p_acc ≤ ρ β. Keeps no state.
//!
//! k must not depend on what was drawn, so shapes of adaptive width are refused. Draws of one q form a group; groups of other
//! drafters and point masses are solved one after the other, each on what the ones before left.

use super::residual::{Draft, Residual, same_draw};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness, ProposalKind};
use crate::speculate::chance::{Key, Purpose};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::{NodeId, Proposal};

/// Bisections of ρ; each end is safe to use from above, so more would only lengthen drafts in the twelfth digit.
const BISECTIONS: usize = 40;

/// This method.
pub static METHOD: Method = Method {
    name: "kseq",
    paper: "SpecTr, arXiv 2310.15141",
    about: "all k siblings with one scaled ratio min(1, p/(rho q)); for independent draws of a fixed number",
    needs: "p, q",
    options: &[],
    test: "accept::kseq",
    make: Make::Accept(|_| Ok(Box::new(TopDown(KSeq))), Exactness::SameDistribution),
};

/// The rule of [`TopDown`].
#[derive(Debug, Clone, Copy, Default)]
pub struct KSeq;

impl LocalSolver for KSeq {
    const METHOD: &'static Method = &METHOD;
    const SUPPORTS: &'static [ProposalKind] = &[ProposalKind::Deterministic, ProposalKind::Sampled];
    const FIXED_WIDTH: bool = true;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        for (first, sibling) in siblings.iter().enumerate() {
            let Proposal::Sampled(q) = sibling.proposal else {
                if ratio_test(at, first, sibling, &Draft::alone(sibling), row, chance) {
                    return Some(first);
                }
                continue;
            };
            let together = |index: &usize| same_draw(siblings[*index].proposal, sibling.proposal);
            if (0..first).any(|earlier| together(&earlier)) {
                continue;
            }
            let group: Vec<usize> = (first..siblings.len()).filter(together).collect();
            let Scale { rho, share } = Scale::of(row, q, group.len());
            for index in group {
                let token = siblings[index].token;
                let ratio = Draft::alone(&siblings[index]).ratio(token, row.prob(token) / rho);
                if chance.bernoulli(Key::new(at, index, Purpose::Accept), ratio) {
                    return Some(index);
                }
            }
            row.update(|token, p| p - (p / rho).min(q.get(token).copied().unwrap_or(0.0)) * share);
        }
        None
    }
}

/// ρ, and what of `min(p/ρ, q)` the group keeps in all: p_acc/β.
struct Scale {
    rho: f64,
    share: f64,
}

impl Scale {
    fn of(row: &Residual<'_>, q: &[f64], count: usize) -> Scale {
        let k = count as i32;
        // Only where both are positive is anything kept; after truncation that is a handful of tokens.
        let both: Vec<(f64, f64)> = (q.iter().enumerate().filter(|&(_, &q)| q > 0.0))
            .map(|(token, &q)| (row.prob(token as u32), q))
            .filter(|&(p, _)| p > 0.0)
            .collect();
        let beta = |rho: f64| both.iter().map(|&(p, q)| (p / rho).min(q)).sum::<f64>().min(1.0);
        let kept = |beta: f64| 1.0 - (1.0 - beta).powi(k);
        let safe = |rho: f64| kept(beta(rho)) <= rho * beta(rho);
        let (mut low, mut high) = (1.0, count as f64);
        if safe(low) {
            high = low;
        }
        for _ in 0..if high > low { BISECTIONS } else { 0 } {
            let middle = 0.5 * (low + high);
            if safe(middle) { high = middle } else { low = middle }
        }
        let beta = beta(high);
        // Where nothing can be kept, the limit; it is multiplied by 0.
        let share = if beta > 0.0 { kept(beta) / beta } else { count as f64 };
        Scale { rho: high, share }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, mean_length};
    use super::*;
    use ProposalKind::Sampled;

    #[test]
    fn keeps_one_of_k_draws_with_the_probability_of_the_paper() {
        let toy = Toy::new(6);
        for seed in 0..20 {
            let (p, q) = (toy.p(seed), toy.q(seed));
            let Scale { rho, .. } = Scale::of(&Residual::of(&p), &q, 2);
            let beta: f64 = p.iter().zip(q.iter()).map(|(p, q)| (p / rho).min(*q)).sum();
            let kept = 1.0 - (1.0 - beta) * (1.0 - beta);
            assert!((1.0..=2.0).contains(&rho) && kept <= rho * beta + 1e-12);
            assert!(rho < 1.0 + 1e-9 || kept > rho * beta - 1e-9, "no larger than it must be: {rho}");
            let mut length = 0.0;
            for (a, b) in (0..16).map(|pair| (pair / 4, pair % 4)).filter(|&(a, b)| q[a] * q[b] > 0.0) {
                let tree = toy.siblings(&[(a as u32, Sampled), (b as u32, Sampled)], seed);
                length += q[a] * q[b] * mean_length(&mut TopDown(KSeq), &tree, &toy.rows(&tree, seed));
            }
            assert!((length - 1.0 - kept).abs() < 1e-12, "{length}, {kept}");
        }
    }

    #[test]
    fn one_draw_is_the_plain_ratio_test() {
        let toy = Toy::new(7);
        for seed in 0..20 {
            let Scale { rho, share } = Scale::of(&Residual::of(&toy.p(seed)), &toy.q(seed), 1);
            assert!(rho == 1.0 && (share - 1.0).abs() < 1e-12);
        }
    }
}
