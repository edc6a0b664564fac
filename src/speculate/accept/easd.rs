//! `easd`: entropy-aware speculative decoding (EASD; reconstruction from the abstract, with the defaults of a third-party
//! implementation). After the ratio test kept x: if H(q) > τ_d, H(p) > τ_t and the N likeliest tokens of p and q overlap by
//! at least ρ, reject x and draw from p without x. Keeps no state.
//!
//! Not the target's distribution, on purpose: where both models are unsure in the same way, the token that both propose is
//! taken as a guess and struck out. Where either is sure it is speculative sampling.

use super::residual::{Draft, Residual, draft_entropy, entropy, likeliest};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::NodeId;

/// This method.
pub static METHOD: Method = Method {
    name: "easd",
    paper: "EASD (reconstruction from the abstract)",
    about: "changes the text on purpose: strikes out drafts of which both models are unsure in the same way",
    needs: "p, q",
    options: &[
        OptionSpec {
            key: "easd_draft_entropy",
            about: "entropy of q above which the draft is unsure, nats",
            default: 2.0,
            min: 0.0,
            max: 20.0,
        },
        OptionSpec {
            key: "easd_target_entropy",
            about: "entropy of p above which the target is unsure, nats",
            default: 2.0,
            min: 0.0,
            max: 20.0,
        },
        OptionSpec { key: "easd_top", about: "likeliest tokens that are compared", default: 5.0, min: 1.0, max: 64.0 },
        OptionSpec {
            key: "easd_overlap",
            about: "share of them that both must have",
            default: 0.6,
            min: 0.0,
            max: 1.0,
        },
    ],
    test: "accept::easd",
    make: Make::Accept(
        |setup| {
            Ok(Box::new(TopDown(Easd {
                draft_entropy: setup.option("easd_draft_entropy"),
                target_entropy: setup.option("easd_target_entropy"),
                top: setup.count("easd_top"),
                overlap: setup.option("easd_overlap"),
            })))
        },
        Exactness::Heuristic,
    ),
};

/// The rule of [`TopDown`] and its thresholds.
#[derive(Debug, Clone, Copy)]
pub struct Easd {
    /// Entropy of q above which the draft is unsure, nats.
    pub draft_entropy: f64,
    /// Entropy of p above which the target is unsure, nats.
    pub target_entropy: f64,
    /// Likeliest tokens that are compared.
    pub top: usize,
    /// Share of them that both must have.
    pub overlap: f64,
}

impl Easd {
    fn both_unsure(&self, p: &[f64], q: &Draft<'_>) -> bool {
        let Draft::Row { q: row, .. } = q else { return false };
        if draft_entropy(q) <= self.draft_entropy || entropy(p) <= self.target_entropy {
            return false;
        }
        let (ours, theirs) = (likeliest(p, self.top), likeliest(row, self.top));
        let shared = ours.iter().filter(|token| theirs.contains(token)).count();
        shared as f64 >= self.overlap * self.top as f64
    }
}

impl LocalSolver for Easd {
    const METHOD: &'static Method = &METHOD;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        for (index, sibling) in siblings.iter().enumerate() {
            let q = Draft::among(siblings, index);
            if !ratio_test(at, index, sibling, &q, row, chance) {
                continue;
            }
            if !self.both_unsure(row.row(), &q) {
                return Some(index);
            }
            row.restore();
            row.remove(sibling.token);
            return None;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::multi_round::MultiRound;
    use super::super::testing::{Toy, law, random_row, rows};
    use super::*;
    use crate::speculate::accept::ProposalKind::Sampled;

    const EAGER: Easd = Easd { draft_entropy: 0.5, target_entropy: 0.5, top: 2, overlap: 0.5 };

    #[test]
    fn where_either_is_sure_it_is_the_strict_rule() {
        let toy = Toy::new(16);
        let sure = Easd { draft_entropy: 2.0, target_entropy: 2.0, top: 5, overlap: 0.6 };
        for row in 0..30 {
            for x in (0..4).filter(|&x| toy.q(row)[x as usize] > 0.0) {
                let tree = toy.siblings(&[(x, Sampled)], row);
                let rows = toy.rows(&tree, row);
                // No row of four tokens has two nats of entropy.
                assert_eq!(law(&mut TopDown(sure), &tree, &rows), law(&mut TopDown(MultiRound), &tree, &rows));
            }
        }
    }

    #[test]
    fn where_both_are_unsure_the_draft_is_struck_out_once_and_never_comes_back() {
        let toy = Toy::new(17);
        let flat: crate::speculate::tree::Distribution = [0.4, 0.3, 0.2, 0.1].into();
        let mut struck = 0;
        for row in 0..30 {
            let q = toy.q(row);
            for x in (0..4).filter(|&x| q[x as usize] > 0.0) {
                let tree = toy.siblings(&[(x, Sampled)], row);
                let all = law(&mut TopDown(EAGER), &tree, &rows([flat.clone(), flat.clone()].into_iter()));
                if EAGER.both_unsure(&flat, &Draft::Row { q: &q, mass: 1.0 }) {
                    assert!(all.iter().all(|(verdict, _)| verdict.path.is_empty() && verdict.next != x), "{all:?}");
                    let total: f64 = all.iter().map(|branch| branch.1).sum();
                    assert!((total - 1.0).abs() < 1e-12, "one draw each, no loop");
                    struck += 1;
                } else {
                    assert!(all.iter().any(|(verdict, _)| !verdict.path.is_empty()));
                }
            }
        }
        assert!(struck > 20, "{struck}");
    }

    #[test]
    fn overlap_is_of_the_likeliest_tokens() {
        let (p, q) = (random_row([1, 0, 0], 4), random_row([1, 0, 0], 4));
        let unsure = Easd { draft_entropy: 0.0, target_entropy: 0.0, top: 1, overlap: 1.0 };
        assert_eq!(unsure.both_unsure(&p, &Draft::Row { q: &q, mass: 1.0 }), entropy(&p) > 0.0);
        assert!(!unsure.both_unsure(&[0.6, 0.4], &Draft::Row { q: &[0.4, 0.6], mass: 1.0 }));
        assert!(!unsure.both_unsure(&[0.6, 0.4], &Draft::Point(0)), "a point mass is sure");
    }
}
