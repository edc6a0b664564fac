//! `delayed`: a trunk, then K branches (dynamic delayed tree expansion; methods.md §4.3.2, the training-free rule).
//!
//! Siblings are wasted where the first guess is nearly always right. So the trunk grows one child a step until the survival
//! predicted for the next token, `survival(tip) · e[depth + 1]`, falls below a threshold; there K children are drawn, and each
//! goes on as a chain until the budget is spent. `e[d]` is the average acceptance of first guesses at depth d. The paper picks
//! trunk, K and lengths with a trained network instead. The number of children is settled before any of them is drawn.
//!
//! State: an average for each of [`MAX_DEPTH`] depths.

use super::{Budget, From, Grow, TreeShape};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "delayed",
    paper: "dynamic delayed tree expansion, the rule without training",
    about: "a chain that branches where its predicted survival falls below a threshold",
    needs: "",
    options: &[
        OptionSpec { key: "delayed_branches", about: "branches", default: 3.0, min: 1.0, max: 8.0 },
        OptionSpec {
            key: "delayed_survival",
            about: "survival below which it branches",
            default: 0.5,
            min: 0.0,
            max: 1.0,
        },
    ],
    test: "shapes::delayed",
    make: Make::Tree(|setup| {
        Ok(Box::new(Delayed::new(setup.count("delayed_branches"), setup.option("delayed_survival") as f32)))
    }),
};

/// Depths that are told apart.
const MAX_DEPTH: usize = 31;
/// Acceptance before anything is known.
const UNKNOWN: f32 = 0.7;
/// Share of a new outcome in an average.
const ALPHA: f32 = 0.05;

/// A trunk, then branches.
#[derive(Debug, Clone, Copy)]
pub struct Delayed {
    branches: usize,
    threshold: f32,
    expected: [f32; MAX_DEPTH],
    branched: bool,
}

impl Delayed {
    /// Branches below this predicted survival; 1 branches at the root.
    pub fn new(branches: usize, threshold: f32) -> Delayed {
        Delayed { branches, threshold, expected: [UNKNOWN; MAX_DEPTH], branched: false }
    }
}

impl TreeShape for Delayed {
    fn name(&self) -> &'static str {
        "delayed"
    }

    fn begin(&mut self) {
        self.branched = false;
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        let left = budget.nodes.saturating_sub(tree.drafted());
        if self.branched {
            let mut tips: Vec<NodeId> = tree.by_survival();
            tips.retain(|&id| !tree.node(id).expanded);
            tips.truncate(left);
            return (!tips.is_empty()).then(|| Grow::same(tips, 1, From::Any));
        }
        let tip = tree.ids().next_back()?;
        let node = tree.node(tip);
        if node.expanded || left == 0 {
            return None;
        }
        let predicted = node.survival * self.expected[node.depth.min(MAX_DEPTH - 1)];
        self.branched = predicted < self.threshold;
        let width = if self.branched { self.branches.min(left) } else { 1 };
        Some(Grow::same(vec![tip], width, From::Any))
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let tree = &outcome.tree;
        for (id, accepted) in outcome.judged() {
            let node = tree.node(id);
            if tree.node(node.parent).slots.first().is_some_and(|slot| slot.child == id) {
                let expected = &mut self.expected[(node.depth - 1).min(MAX_DEPTH - 1)];
                *expected += ALPHA * (f32::from(u8::from(accepted)) - *expected);
            }
        }
    }

    fn reset(&mut self) {
        *self = Delayed::new(self.branches, self.threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::drafters::Drafter;
    use crate::speculate::shapes::Chain;
    use crate::speculate::shapes::testing::{Wide, grown, noise, replay, speculator};
    use crate::speculate::simulate::SimulatedDrafter;

    #[test]
    fn beats_branching_at_the_root_where_the_draft_is_sure_at_first_and_not_deeper() {
        let text = noise(8000);
        let drafter = || -> Vec<Box<dyn Drafter>> {
            let fades = |depth| if depth <= 3 { 1.0 } else { 0.4 };
            vec![Box::new(SimulatedDrafter { fades, ..SimulatedDrafter::new(text.clone(), |_| 0.95) })]
        };
        for nodes in [9, 15] {
            let (delayed, _) = replay(speculator(Delayed::new(3, 0.5), drafter(), nodes), &text);
            let (root, _) = replay(speculator(Delayed::new(3, 1.0), drafter(), nodes), &text);
            let (chain, _) = replay(speculator(Chain, drafter(), nodes), &text);
            println!("{nodes} nodes: delayed {delayed:.3} root {root:.3} chain {chain:.3}");
            assert!(delayed > 1.03 * root.max(chain), "{nodes} nodes: {delayed} of {root} and {chain}");
        }
    }

    #[test]
    fn has_one_place_where_it_branches_and_fills_its_budget() {
        let (tree, _) = grown(Delayed::new(3, 0.5), vec![Box::new(Wide::new(8))], 15);
        let wide = tree.nodes().iter().filter(|node| node.slots.len() > 1);
        assert_eq!((wide.count(), tree.drafted()), (1, 15));
        let (tree, _) = grown(Delayed::new(3, 0.5), vec![Box::new(Wide::new(1))], 15);
        assert!(tree.is_chain() && tree.drafted() == 15, "a drafter of chains goes on");
    }
}
