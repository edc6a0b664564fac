//! `adasd`: the acceptance half of AdaSD (arXiv 2512.11280): a draft that fails the strict ratio test is kept all the same if
//! the Jensen–Shannon distance of p and q is at most (D_a + D_r)/2, the middle of the running means of accepted and rejected
//! drafts. Reconstruction from the abstract; the stop threshold is the length policy of the same name.
//!
//! Lossy: where the models are as close as they usually are at accepted drafts, the text follows q. Classes are those of
//! the strict test, not of the verdict, or each forgiven draft would raise the threshold that forgave it. Until each class
//! has 8 samples the rule is strict. State: two means of at most 256 samples' weight each.

use super::residual::{Draft, Residual, jensen_shannon};
use super::top_down::{LocalSolver, Sibling, TopDown, ratio_test};
use super::{Chance, Exactness};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::NodeId;

/// Samples of each class before the threshold counts.
const WARM_UP: u32 = 8;
/// Samples that a mean remembers.
const MEMORY: u32 = 256;

/// This method.
pub static METHOD: Method = Method {
    name: "adasd",
    paper: "AdaSD, arXiv 2512.11280 (reconstruction from the abstract)",
    about: "lossy: forgive a failed ratio test where p and q are as close as at accepted drafts; thresholds learn",
    needs: "p, q",
    options: &[],
    test: "accept::adasd",
    make: Make::Accept(|_| Ok(Box::new(TopDown(AdaSd::default()))), Exactness::Heuristic),
};

/// The rule of [`TopDown`], and what it has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdaSd {
    accepted: Mean,
    rejected: Mean,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    mean: f64,
    samples: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.samples = (self.samples + 1).min(MEMORY);
        self.mean += (value - self.mean) / f64::from(self.samples);
    }
}

impl AdaSd {
    /// The largest distance that is forgiven, once enough was seen.
    pub fn threshold(&self) -> Option<f64> {
        let warm = self.accepted.samples >= WARM_UP && self.rejected.samples >= WARM_UP;
        warm.then_some(0.5 * (self.accepted.mean + self.rejected.mean))
    }
}

/// The square root of the divergence over its maximum, 0 to 1.
fn distance(p: &[f64], q: &Draft<'_>) -> f64 {
    (jensen_shannon(p, q) / std::f64::consts::LN_2).sqrt()
}

impl LocalSolver for AdaSd {
    const METHOD: &'static Method = &METHOD;

    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize> {
        (0..siblings.len()).find(|&index| {
            let q = Draft::among(siblings, index);
            let distance = distance(row.row(), &q);
            let forgiven = self.threshold().is_some_and(|most| distance <= most);
            let strict = ratio_test(at, index, &siblings[index], &q, row, chance);
            if strict { &mut self.accepted } else { &mut self.rejected }.add(distance);
            strict || forgiven
        })
    }

    fn reset(&mut self) {
        *self = AdaSd::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::AcceptanceRule;
    use super::super::testing::{Toy, rows};
    use super::*;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::outcome::Row;
    use crate::speculate::tree::{Candidate, Distribution, DraftStats, Proposal, TokenTree};

    /// One sampled draft of token x.
    fn round(rule: &mut TopDown<AdaSd>, p: &Distribution, q: &Distribution, x: u32, round: u64) -> bool {
        let mut tree = TokenTree::new(0);
        let candidate =
            Candidate { proposal: Proposal::Sampled(q.clone()), ..Candidate::new(x, DraftStats::of_probability(0.5)) };
        tree.attach(NodeId::ROOT, &candidate, DrafterId(0));
        let rows: Vec<Row> = rows([p.clone(), p.clone()].into_iter());
        !rule.verify(&tree, &rows, &mut KeyedChance::new(3, round)).path.is_empty()
    }

    #[test]
    fn equal_rows_are_never_rejected_and_disjoint_ones_always() {
        let toy = Toy::new(15);
        let mut rule = TopDown(AdaSd::default());
        for at in 0..200 {
            let q = toy.q(at);
            let x = (0..4).find(|&x| q[x as usize] > 0.0).expect("some token");
            assert!(round(&mut rule, &q, &q, x, at as u64));
        }
        let mut rule = TopDown(AdaSd::default());
        let (p, q): (Distribution, Distribution) = ([0.5, 0.5, 0.0, 0.0].into(), [0.0, 0.0, 0.5, 0.5].into());
        assert!((0..200).all(|at| !round(&mut rule, &p, &q, 2, at)));
    }

    #[test]
    fn forgives_what_is_close_once_it_has_seen_both_classes() {
        let p: Distribution = [0.5, 0.5, 0.0, 0.0].into();
        let far: Distribution = [0.0, 0.0, 0.5, 0.5].into();
        let close: Distribution = [0.45, 0.45, 0.1, 0.0].into();
        let mut rule = TopDown(AdaSd::default());
        assert!(!round(&mut rule, &p, &close, 2, 0), "strict at first: p(2) is 0");
        for at in 1..20 {
            round(&mut rule, &p, &p, 0, at);
            round(&mut rule, &p, &far, 2, at);
        }
        let threshold = rule.0.threshold().expect("warm");
        assert!((0.4..0.6).contains(&threshold), "between 0 and 1: {threshold}");
        assert!(round(&mut rule, &p, &close, 2, 50) && !round(&mut rule, &p, &far, 2, 51));
        rule.reset();
        assert!(rule.0.threshold().is_none() && !round(&mut rule, &p, &close, 2, 52));
    }
}
