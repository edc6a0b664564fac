//! `entropy`: the draft's entropy bounds how far it can be from the target (SVIP).
//!
//! By Pinsker `TV ≤ sqrt(KL/2)`; with a cross-entropy in a fixed proportion to the draft's entropy H that gives
//! `â = 1 − sqrt(c·H)`, c = 0.15, and SVIP's stop `sqrt(c·H) > 0.3` is `â < 0.7` (`length=threshold`). State: a mean of `â` by
//! drafter, for drafts that are not seen in advance.

use super::Mean;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::{AcceptanceEstimator, MAX_DRAFTERS, place};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{Node, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "entropy",
    paper: "SVIP, arXiv 2411.18462",
    about: "1 - sqrt(c H) with H the draft's entropy",
    needs: "",
    options: &[OptionSpec {
        key: "entropy_scale",
        about: "c in 1 - sqrt(c H), per nat",
        default: 0.15,
        min: 0.0,
        max: 10.0,
    }],
    test: "length::estimators::entropy",
    make: Make::Estimator(|setup| Ok(Box::new(Entropy::new(setup.option("entropy_scale") as f32)))),
};

/// Tokens that the mean of a drafter remembers.
const MEMORY: f32 = 64.0;
/// What is expected of a drafter that has drafted nothing yet.
const PRIOR: f32 = 0.7;

/// One less the bound on the distance.
#[derive(Debug)]
pub struct Entropy {
    scale: f32,
    means: [Mean; MAX_DRAFTERS],
}

impl Entropy {
    /// With c.
    pub fn new(scale: f32) -> Entropy {
        Entropy { scale, means: Default::default() }
    }

    fn of(&self, node: &Node) -> f32 {
        (1.0 - (self.scale * node.stats.entropy).max(0.0).sqrt()).max(0.0)
    }
}

impl AcceptanceEstimator for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        self.of(tree.node(node))
    }

    fn expected(&self, drafter: DrafterId, _: usize) -> f32 {
        self.means[place(Some(drafter))].toward(PRIOR, 1.0)
    }

    fn reads_drafts(&self) -> bool {
        true
    }

    fn threshold(&self) -> f32 {
        0.7
    }

    fn learn(&mut self, tree: &TokenTree, node: NodeId, _: bool) {
        let node = tree.node(node);
        let value = self.of(node);
        self.means[place(node.source)].add(value, MEMORY);
    }

    fn reset(&mut self) {
        *self = Entropy::new(self.scale);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Kind, Trace, mixed};

    const CURVE: [f64; 5] = [1.0, 1.05, 1.1, 1.2, 1.4];

    #[test]
    fn stops_where_the_published_rule_stops() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Steps, CURVE, &mixed) };
        for outcome in &trace.replay("length=threshold,estimator=entropy", 300).outcomes {
            let entropies: Vec<f32> = outcome.tree.nodes()[1..].iter().map(|node| node.stats.entropy).collect();
            let stop = entropies.iter().position(|&h| (0.15 * h).sqrt() > 0.3).map_or(15, |at| at + 1);
            assert_eq!(entropies.len(), stop, "{entropies:?}");
        }
    }

    #[test]
    fn beats_every_fixed_length_where_entropy_varies() {
        let trace = Trace { claims: |alpha, _| alpha, step_ms: 0.3, ..Trace::new(Kind::Steps, CURVE, &mixed) };
        let (best, rate) = trace.best_fixed(1500);
        let own = trace.replay("length=threshold,estimator=entropy", 1500).rate(0..1500);
        assert!(own > 1.05 * rate, "{own}, fixed {best} gives {rate}");
    }
}
