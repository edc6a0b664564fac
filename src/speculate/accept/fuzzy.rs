//! `fuzzy`: fuzzy speculative decoding (arXiv 2502.20704). Keep a draft if D(p, q) ≤ T, whatever its token; else the strict
//! ratio test. Keeps no state. Reconstruction from descriptions of the paper: its code was not read.
//!
//! Lossy: where the two models agree closely enough the draft's sample stands for the target's, so the text follows q there.
//! D is the Jensen–Shannon divergence (default), Kullback–Leibler, total variation, or the gap |p(x) − q(x)| of the drafted
//! token. `fuzzy_strict=0` is the paper's first form: a row that is too far apart rejects outright, and the target samples.

use super::residual::{Draft, Residual, jensen_shannon, kullback_leibler, total_variation};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::NodeId;

/// This method.
pub static METHOD: Method = Method {
    name: "fuzzy",
    paper: "Fuzzy Speculative Decoding, arXiv 2502.20704",
    about: "lossy: keep drafts where the two rows are close, whatever the token",
    needs: "p, q",
    options: &[
        OptionSpec {
            key: "fuzzy_threshold",
            about: "largest divergence at which drafts are kept; nats, or a share for total variation and gap",
            default: 0.3,
            min: 0.0,
            max: 100.0,
        },
        OptionSpec {
            key: "fuzzy_divergence",
            about: "0 Jensen-Shannon, 1 Kullback-Leibler, 2 total variation, 3 gap at the drafted token",
            default: 0.0,
            min: 0.0,
            max: 3.0,
        },
        OptionSpec {
            key: "fuzzy_strict",
            about: "1: drafts that are too far apart take the ratio test; 0: they are rejected",
            default: 1.0,
            min: 0.0,
            max: 1.0,
        },
    ],
    test: "accept::fuzzy",
    make: Make::Accept(
        |setup| {
            Ok(Box::new(TopDown(Fuzzy {
                threshold: setup.option("fuzzy_threshold"),
                divergence: match setup.count("fuzzy_divergence") {
                    0 => Divergence::JensenShannon,
                    1 => Divergence::KullbackLeibler,
                    2 => Divergence::TotalVariation,
                    _ => Divergence::Gap,
                },
                strict: setup.option("fuzzy_strict") > 0.0,
            })))
        },
        Exactness::Heuristic,
    ),
};

/// How far two rows are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// 0 to ln 2.
    JensenShannon,
    /// Of p from q.
    KullbackLeibler,
    /// 0 to 1.
    TotalVariation,
    /// |p(x) − q(x)| of the drafted token.
    Gap,
}

impl Divergence {
    fn of(self, p: &[f64], q: &Draft<'_>, token: u32) -> f64 {
        match self {
            Divergence::JensenShannon => jensen_shannon(p, q),
            Divergence::KullbackLeibler => kullback_leibler(p, q),
            Divergence::TotalVariation => total_variation(p, q),
            Divergence::Gap => (p.get(token as usize).copied().unwrap_or(0.0) - q.prob(token)).abs(),
        }
    }
}

/// The rule of [`TopDown`].
#[derive(Debug, Clone, Copy)]
pub struct Fuzzy {
    /// Largest divergence at which drafts are kept.
    pub threshold: f64,
    /// Which divergence.
    pub divergence: Divergence,
    /// Whether what is too far apart takes the ratio test.
    pub strict: bool,
}

impl LocalSolver for Fuzzy {
    const METHOD: &'static Method = &METHOD;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        (0..siblings.len()).find(|&index| {
            let (sibling, q) = (&siblings[index], Draft::among(siblings, index));
            self.divergence.of(row.row(), &q, sibling.token) <= self.threshold
                || (self.strict && ratio_test(at, index, sibling, &q, row, chance))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::multi_round::MultiRound;
    use super::super::testing::{Toy, law, mean_length, rows};
    use super::*;
    use crate::speculate::accept::ProposalKind::Sampled;

    const ALL: [Divergence; 4] =
        [Divergence::JensenShannon, Divergence::KullbackLeibler, Divergence::TotalVariation, Divergence::Gap];

    fn kept(rule: Fuzzy, toy: &Toy) -> f64 {
        let drafts = (0..40).flat_map(|row| (0..4).map(move |x| (row, x)));
        drafts
            .filter(|&(row, x)| toy.q(row)[x as usize] > 0.0)
            .map(|(row, x)| {
                let tree = toy.siblings(&[(x, Sampled)], row);
                toy.q(row)[x as usize] * (mean_length(&mut TopDown(rule), &tree, &toy.rows(&tree, row)) - 1.0)
            })
            .sum()
    }

    #[test]
    fn a_higher_threshold_keeps_more_up_to_all() {
        let toy = Toy::new(13);
        for divergence in ALL {
            for strict in [false, true] {
                let all =
                    [0.0, 0.1, 0.3, 0.6, 100.0].map(|threshold| kept(Fuzzy { threshold, divergence, strict }, &toy));
                assert!(all.windows(2).all(|pair| pair[1] >= pair[0] - 1e-12), "{divergence:?}: {all:?}");
                assert!(all[3] > all[0] + 0.5, "{divergence:?}: {all:?}");
            }
        }
        let rule = Fuzzy { threshold: 1.0, divergence: Divergence::JensenShannon, strict: true };
        assert!((kept(rule, &toy) - 40.0).abs() < 1e-9, "no divergence exceeds ln 2");
    }

    #[test]
    fn a_threshold_of_0_is_the_strict_rule_and_equal_rows_are_always_kept() {
        let toy = Toy::new(14);
        let rule = Fuzzy { threshold: 0.0, divergence: Divergence::JensenShannon, strict: true };
        for row in 0..30 {
            for x in (0..4).filter(|&x| toy.q(row)[x as usize] > 0.0) {
                let tree = toy.siblings(&[(x, Sampled)], row);
                let strict = law(&mut TopDown(MultiRound), &tree, &toy.rows(&tree, row));
                assert_eq!(law(&mut TopDown(rule), &tree, &toy.rows(&tree, row)), strict);
                let same = rows([toy.q(row), toy.q(row)].into_iter());
                for divergence in ALL {
                    let rule = Fuzzy { threshold: 0.0, divergence, strict: false };
                    assert!(mean_length(&mut TopDown(rule), &tree, &same) > 2.0 - 1e-12);
                }
            }
        }
    }
}
