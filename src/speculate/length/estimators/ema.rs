//! `ema`: how often a drafter was right at a depth, lately (SmartSpec's moving average, kept by depth).
//!
//! `â(drafter, depth) = (w·mean(drafter, depth) + κ·mean(drafter)) / (w + κ)`: depths that were seldom reached follow the
//! drafter as a whole. State: two numbers for each of [`MAX_DRAFTERS`] drafters and [`MAX_NODES`] depths.

use super::Mean;
use crate::plan::MAX_NODES;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::{AcceptanceEstimator, MAX_DRAFTERS, place};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "ema",
    paper: "SmartSpec, arXiv 2406.14066",
    about: "how often a drafter was right at a depth, lately",
    needs: "",
    options: &[OptionSpec {
        key: "ema_memory",
        about: "judged tokens that the average remembers",
        default: 32.0,
        min: 1.0,
        max: 4096.0,
    }],
    test: "length::estimators::ema",
    make: Make::Estimator(|setup| Ok(Box::new(Ema::new(setup.option("ema_memory") as f32)))),
};

/// What is expected of a drafter that was never judged.
const PRIOR: f32 = 0.6;
/// Judged tokens that the prior weighs as much as.
const PRIOR_STRENGTH: f32 = 2.0;
/// Judged tokens that the drafter as a whole weighs as much as, against one of its depths.
const DRAFTER_STRENGTH: f32 = 8.0;

/// Moving averages by drafter, and by drafter and depth.
#[derive(Debug)]
pub struct Ema {
    memory: f32,
    drafters: Vec<(Mean, [Mean; MAX_NODES])>,
}

impl Ema {
    /// Averages over the last `memory` judged tokens.
    pub fn new(memory: f32) -> Ema {
        Ema { memory, drafters: vec![<(Mean, [Mean; MAX_NODES])>::default(); MAX_DRAFTERS] }
    }
}

impl AcceptanceEstimator for Ema {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        let node = tree.node(node);
        self.expected(node.source.unwrap_or(DrafterId(0)), node.depth)
    }

    fn expected(&self, drafter: DrafterId, depth: usize) -> f32 {
        let (whole, depths) = &self.drafters[place(Some(drafter))];
        depths[depth.min(MAX_NODES) - 1].toward(whole.toward(PRIOR, PRIOR_STRENGTH), DRAFTER_STRENGTH)
    }

    fn learn(&mut self, tree: &TokenTree, node: NodeId, accepted: bool) {
        let node = tree.node(node);
        let (whole, depths) = &mut self.drafters[place(node.source)];
        let value = f32::from(u8::from(accepted));
        whole.add(value, self.memory);
        depths[node.depth.min(MAX_NODES) - 1].add(value, self.memory);
    }

    fn doubt(&mut self, drafter: Option<DrafterId>) {
        let (whole, depths) = &mut self.drafters[place(drafter)];
        whole.doubt();
        depths.iter_mut().for_each(Mean::doubt);
    }

    fn reset(&mut self) {
        *self = Ema::new(self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::estimator;
    use super::*;
    use crate::speculate::tree::{Candidate, DraftStats};

    /// Depth 1 is right always, depth 2 half the time; the other drafter is wrong always.
    #[test]
    fn rates_are_kept_by_drafter_and_depth_and_follow_the_last_tokens() {
        let mut ema = estimator("ema");
        let mut tree = TokenTree::new(0);
        let claim = |token| Candidate::new(token, DraftStats::of_probability(0.99));
        let (first, _) = tree.attach(NodeId::ROOT, &claim(1), DrafterId(0)).expect("room");
        let (second, _) = tree.attach(first, &claim(2), DrafterId(0)).expect("room");
        let (other, _) = tree.attach(NodeId::ROOT, &claim(3), DrafterId(1)).expect("room");
        for round in 0..200 {
            ema.learn(&tree, first, true);
            ema.learn(&tree, second, round % 2 == 0);
            ema.learn(&tree, other, false);
        }
        let rates = [first, second, other].map(|node| ema.a_hat(&tree, node));
        assert!(rates[0] > 0.9 && (rates[1] - 0.5).abs() < 0.12 && rates[2] < 0.05, "{rates:?}");
        assert_eq!(ema.expected(DrafterId(0), 2), rates[1], "whatever the draft claims");
        (0..32).for_each(|_| ema.learn(&tree, first, false));
        assert!(ema.a_hat(&tree, first) < 0.5, "the last tokens count: {}", ema.a_hat(&tree, first));
        ema.reset();
        assert_eq!(ema.expected(DrafterId(1), 1), PRIOR);
    }
}
