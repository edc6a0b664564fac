//! `dynamic`: beams by cumulated probability, then the best nodes of all (EAGLE-2, arXiv 2406.16858, and EAGLE-3).
//!
//! Each level expands the k likeliest nodes of the level before, k children each; of all nodes the N of largest
//! `survival = Π â` are verified, N the budget. Published: N 60, k 10, depth 7; here k is 4 and N what a pass holds. A level
//! whose best node is not among the N best any more ends the draft: its children could not be either, since survival only
//! falls along a path. So a chain of sure copies may be as deep as the budget, while a device drafter pays for few passes.
//! Keeps no state.

use super::{Budget, Grow, TreeShape, fitting, most_nodes};
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{MAX_DRAFT_NODES, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "dynamic",
    paper: "EAGLE-2, arXiv 2406.16858",
    about: "children of the k likeliest leaves a level, then the likeliest nodes of all",
    needs: "",
    options: &[
        OptionSpec {
            key: "dynamic_width",
            about: "leaves a level, and children of each",
            default: 4.0,
            min: 1.0,
            max: 10.0,
        },
        OptionSpec { key: "dynamic_depth", about: "levels at most", default: 15.0, min: 1.0, max: 31.0 },
    ],
    test: "shapes::dynamic",
    make: Make::Tree(|setup| Ok(Box::new(Dynamic::new(setup.count("dynamic_width"), setup.count("dynamic_depth"))))),
};

/// Beams, then a global choice.
#[derive(Debug, Clone, Copy)]
pub struct Dynamic {
    width: usize,
    depth: usize,
    most_nodes: usize,
}

impl Dynamic {
    /// Leaves expanded a level, which is also the children of each, and levels at most.
    pub fn new(width: usize, depth: usize) -> Dynamic {
        Dynamic { width, depth, most_nodes: MAX_DRAFT_NODES }
    }
}

impl TreeShape for Dynamic {
    fn name(&self) -> &'static str {
        "dynamic"
    }

    fn plan(&mut self, signals: &Signals<'_>, _: &Budget) {
        self.most_nodes = most_nodes(signals);
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        let depth = tree.depth();
        if depth >= self.depth || budget.nodes == 0 {
            return None;
        }
        let mut beams = vec![NodeId::ROOT];
        if tree.node(NodeId::ROOT).expanded {
            beams = open(tree, budget.nodes);
            beams.retain(|&id| tree.node(id).depth == depth);
            beams.truncate(self.width);
        }
        fitting(beams, self.width, tree, self.most_nodes)
    }

    fn prune(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Vec<NodeId>> {
        (tree.drafted() > budget.nodes).then(|| tree.by_survival()[..budget.nodes].to_vec())
    }

    fn prunes(&self) -> bool {
        true
    }
}

/// Nodes that were not asked for children and whose children may be among the `nodes` likeliest, the likeliest first: those
/// that are among the first `nodes - 1` themselves.
pub(super) fn open(tree: &TokenTree, nodes: usize) -> Vec<NodeId> {
    let mut order = tree.by_survival();
    order.truncate(nodes.saturating_sub(1));
    order.retain(|&id| !tree.node(id).expanded);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::shapes::testing::{MOST, Wide, grown};

    fn dynamic(width: usize) -> Dynamic {
        Dynamic::new(width, 15)
    }

    #[test]
    fn takes_the_likeliest_nodes_of_all() {
        for (seed, nodes) in (0..20).flat_map(|seed| [(seed, 4), (seed, 7), (seed, 11), (seed, MOST)]) {
            let drafter = Wide { seed, ..Wide::new(4) };
            let total = |tree: &TokenTree| tree.nodes()[1..].iter().map(|node| node.survival).sum::<f32>();
            let best = total(&drafter.best(0, nodes));
            let (tree, _) = grown(dynamic(10), vec![Box::new(drafter)], nodes);
            assert_eq!(tree.drafted(), nodes);
            assert!((total(&tree) - best).abs() < 1e-4, "seed {seed}: {} of {best}", total(&tree));
            let (tree, _) = grown(dynamic(4), vec![Box::new(drafter)], nodes);
            // Of a wider tree four beams a level see less.
            let share = if nodes < MOST { 0.97 } else { 0.95 };
            assert!(total(&tree) > share * best, "four beams miss little: {} of {best}", total(&tree));
        }
    }

    #[test]
    fn a_sure_copy_becomes_a_chain_of_the_whole_budget() {
        let (tree, _) = grown(dynamic(4), vec![Box::new(Wide::new(1))], 15);
        assert!(tree.is_chain() && tree.drafted() == 15);
        let (tree, steps) = grown(dynamic(4), vec![Box::new(Wide::new(0))], 15);
        assert_eq!((tree.drafted(), steps.len()), (0, 1), "nothing on offer ends the draft");
    }
}
