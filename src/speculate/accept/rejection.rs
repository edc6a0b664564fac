//! `rejection`: speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). Keep x ~ q with
//! probability min(1, p(x)/q(x)), else draw from norm((p − q)+). Keeps no state.
//!
//! A rule for chains: of siblings it looks at the first only. A point mass is kept with p(x).

use super::residual::{Draft, Residual};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::NodeId;

/// This method.
pub static METHOD: Method = Method {
    name: "rejection",
    paper: "Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318",
    about: "keep x with min(1, p/q), else draw from (p - q)+; looks at the first of siblings only",
    needs: "p, q",
    options: &[],
    test: "accept::rejection",
    make: Make::Accept(|_| Ok(Box::new(TopDown(Rejection))), Exactness::SameDistribution),
};

/// The rule of [`TopDown`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Rejection;

impl LocalSolver for Rejection {
    const METHOD: &'static Method = &METHOD;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        let first = siblings.first()?;
        ratio_test(at, 0, first, &Draft::alone(first), row, chance).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, law, mean_length};
    use super::*;
    use crate::speculate::accept::ProposalKind;

    #[test]
    fn keeps_the_overlap_of_p_and_q_and_no_more() {
        let toy = Toy::new(1);
        for seed in 0..20 {
            let (p, q) = (toy.p(seed), toy.q(seed));
            let overlap: f64 = p.iter().zip(q.iter()).map(|(p, q)| p.min(*q)).sum();
            let drafts = (0..q.len() as u32).filter(|&x| q[x as usize] > 0.0);
            let length: f64 = drafts
                .map(|x| {
                    let tree = toy.siblings(&[(x, ProposalKind::Sampled)], seed);
                    q[x as usize] * mean_length(&mut TopDown(Rejection), &tree, &toy.rows(&tree, seed))
                })
                .sum();
            assert!((length - 1.0 - overlap).abs() < 1e-12, "1 + sum of min(p, q): {length}, {overlap}");
        }
    }

    #[test]
    fn what_is_rejected_never_comes_back() {
        let toy = Toy::new(2);
        for seed in 0..20 {
            let q = toy.q(seed);
            let x = (0..4).find(|&x| q[x as usize] > 0.0).expect("some token");
            let tree = toy.siblings(&[(x, ProposalKind::Sampled)], seed);
            for (verdict, _) in law(&mut TopDown(Rejection), &tree, &toy.rows(&tree, seed)) {
                assert!(!verdict.path.is_empty() || verdict.next != x);
            }
        }
    }
}
