//! `equal-growth`: the same number of leaves a step, the best anywhere in the tree (Yggdrasil; from secondary sources).
//!
//! Each step drafts below exactly W leaves, those of the largest path probability `Π â` at whatever depth, so that a device runs
//! passes of one width. Then the verify width is chosen: `argmax_n (1 + Σ survival of n nodes) / (Σ T_draft + T_verify(n + 1))`.
//! The published dynamic program picks the best subtree of n nodes; survival never rises along a path, so the n likeliest are
//! that subtree. Published: W 8, 8 steps, verify 64; here W 4. In place of its trained predictor of depth, drafting ends once no
//! leaf could still be among the nodes verified, or could pay for one more step. State: the costs of the round.

use super::dynamic::open;
use super::{Budget, Grow, TreeShape, fitting, most_nodes, verify_costs};
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{MAX_DRAFT_NODES, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "equal-growth",
    paper: "Yggdrasil",
    about: "the same number of leaves a step, the likeliest anywhere; then the width that pays best",
    needs: "",
    options: &[
        OptionSpec { key: "equal_growth_width", about: "leaves a step", default: 4.0, min: 1.0, max: 8.0 },
        OptionSpec { key: "equal_growth_steps", about: "steps at most", default: 15.0, min: 1.0, max: 31.0 },
    ],
    test: "shapes::equal_growth",
    make: Make::Tree(|setup| {
        Ok(Box::new(EqualGrowth::new(setup.count("equal_growth_width"), setup.count("equal_growth_steps"))))
    }),
};

/// The same width each step.
#[derive(Debug, Clone)]
pub struct EqualGrowth {
    width: usize,
    most_steps: usize,
    steps: usize,
    most_nodes: usize,
    /// What verifying so many nodes costs, the root included; empty before costs are known.
    verify_ms: Vec<f64>,
    step_ms: f64,
}

impl EqualGrowth {
    /// Leaves a step, and steps at most.
    pub fn new(width: usize, most_steps: usize) -> EqualGrowth {
        EqualGrowth { width, most_steps, steps: 0, most_nodes: MAX_DRAFT_NODES, verify_ms: Vec::new(), step_ms: 0.0 }
    }

    /// How many of the likeliest nodes to verify, and the tokens per millisecond that this promises.
    fn verified(&self, tree: &TokenTree, order: &[NodeId], budget: &Budget) -> (usize, f64) {
        let draft_ms = self.steps as f64 * self.step_ms;
        let mut expected = 1.0;
        let mut best = (0, f64::NEG_INFINITY);
        for (nodes, verify_ms) in self.verify_ms.iter().enumerate().take(budget.nodes.min(order.len()) + 1) {
            if nodes > 0 {
                expected += f64::from(tree.node(order[nodes - 1]).survival);
            }
            let rate = expected / (draft_ms + verify_ms).max(1e-9);
            // Of equals the larger.
            if rate >= best.1 {
                best = (nodes, rate);
            }
        }
        best
    }
}

impl TreeShape for EqualGrowth {
    fn name(&self) -> &'static str {
        "equal-growth"
    }

    fn begin(&mut self) {
        self.steps = 0;
    }

    fn plan(&mut self, signals: &Signals<'_>, budget: &Budget) {
        self.most_nodes = most_nodes(signals);
        self.verify_ms = verify_costs(signals.cost, budget.nodes);
        let drafter = signals.drafter.filter(|_| signals.on_device);
        self.step_ms = drafter.map_or(0.0, |drafter| signals.cost.draft_step_ms(drafter));
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        if self.steps == self.most_steps || budget.nodes == 0 {
            return None;
        }
        let mut leaves = vec![NodeId::ROOT];
        if tree.node(NodeId::ROOT).expanded {
            if open(tree, budget.nodes).is_empty() {
                return None;
            }
            let order = tree.by_survival();
            let (_, rate) = self.verified(tree, &order, budget);
            leaves = order;
            leaves.retain(|&id| !tree.node(id).expanded);
            leaves.truncate(self.width);
            // Children of a leaf are accepted at most as often as it is.
            let gain: f32 = leaves.iter().map(|&id| tree.node(id).survival).sum();
            if self.step_ms > 0.0 && f64::from(gain) < rate * self.step_ms {
                return None;
            }
        }
        self.steps += 1;
        fitting(leaves, self.width, tree, self.most_nodes)
    }

    fn prune(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Vec<NodeId>> {
        let mut order = tree.by_survival();
        let most = budget.nodes.min(order.len());
        let nodes = if self.verify_ms.is_empty() { most } else { self.verified(tree, &order, budget).0 };
        order.truncate(nodes);
        (nodes < tree.drafted()).then_some(order)
    }

    fn prunes(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::cost::CostModel;
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::shapes::testing::{Wide, grown};

    #[test]
    fn each_step_drafts_below_exactly_as_many_leaves_the_best_anywhere() {
        let mut depths = 0;
        for seed in 0..10 {
            let drafter = Wide { seed, ..Wide::new(4) };
            let (tree, steps) = grown(EqualGrowth::new(3, 15), vec![Box::new(drafter)], 15);
            assert!(steps.len() > 2 && tree.drafted() > 0);
            assert!(steps[1..].iter().all(|grow| grow.leaves.len() == 3), "{steps:?}");
            // Replays the steps: what was not chosen was no likelier than what was.
            let mut drafted = TokenTree::new(0);
            for grow in &steps {
                let chosen = |id: &NodeId| grow.leaves.contains(id);
                let survival = |id: NodeId| drafted.node(id).survival;
                let left_out = drafted.ids().filter(|id| !chosen(id) && !drafted.node(*id).expanded);
                let best_left = left_out.map(survival).fold(0.0, f32::max);
                assert!(grow.leaves.iter().all(|&id| survival(id) >= best_left), "seed {seed}");
                let depth = |id: &NodeId| drafted.node(*id).depth;
                depths += usize::from(grow.leaves.iter().map(depth).min() != grow.leaves.iter().map(depth).max());
                for &leaf in &grow.leaves {
                    drafted.set_expanded(leaf);
                    for (token, chance) in drafter.row(&drafted.path_tokens(leaf)).into_iter().take(grow.width) {
                        let stats = crate::speculate::tree::DraftStats::of_probability(chance);
                        let candidate = crate::speculate::tree::Candidate::new(token, stats);
                        let (node, _) = drafted.attach(leaf, &candidate, DrafterId(0)).expect("room");
                        drafted.set_estimate(node, stats.logq.exp());
                    }
                }
            }
        }
        assert!(depths > 5, "leaves of a step may lie at different depths: {depths}");
    }

    #[test]
    fn the_verify_width_is_the_best_of_all_subtrees() {
        let budget = Budget { nodes: 7 };
        for (seed, curve) in
            (0..8).flat_map(|seed| [(seed, [1.0, 1.1, 1.3, 1.7, 2.5]), (seed, [1.0, 1.9, 2.2, 4.0, 7.0])])
        {
            let tree = Wide { seed, ..Wide::new(3) }.best(0, 10);
            let cost = CostModel::of_curve(curve, &[]);
            let mut shape = EqualGrowth::new(4, 8);
            shape.verify_ms = (0..=budget.nodes).map(|nodes| cost.verify_ms(nodes + 1)).collect();
            let rate = |kept: &TokenTree| {
                let expected: f32 = kept.nodes().iter().map(|node| node.survival).sum();
                f64::from(expected) / cost.verify_ms(kept.nodes().len())
            };
            let subset = |mask: u32| tree.ids().skip(1).filter(|id| mask >> (id.0 - 1) & 1 == 1).collect::<Vec<_>>();
            let subsets = (0..1u32 << tree.drafted()).map(subset).filter(|kept| kept.len() <= budget.nodes);
            let best = subsets.map(|kept| rate(&tree.keep(&kept))).fold(0.0, f64::max);
            let kept = shape.prune(&tree, &budget).map_or_else(|| tree.clone(), |kept| tree.keep(&kept));
            assert!((rate(&kept) - best).abs() < 1e-6, "seed {seed}: {} of {best}", rate(&kept));
        }
    }
}
