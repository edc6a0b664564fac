//! `static`: a fixed list of paths (Medusa, arXiv 2401.10774; Token Recycling, arXiv 2408.08696).
//!
//! Published lists have 60 to 80 nodes, found by greedy search over measured acceptance. A verify pass here holds far fewer,
//! so the list is derived the same way from an expected positional acceptance, [`EXPECTED`]: the N nodes of largest
//! `Π a[rank]`, N the budget. Lists of smaller budgets are parts of larger ones. It is fixed: it never learns (`sequoia`
//! does) and never adapts to the draft. Keeps no state but the list.

use super::ranked::Ranked;
use super::{Budget, Grow, TreeShape};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::TokenTree;

/// This method.
pub static METHOD: Method = Method {
    name: "static",
    paper: "Medusa, arXiv 2401.10774; Token Recycling, arXiv 2408.08696",
    about: "a fixed list of paths, the likeliest for an expected acceptance by rank",
    needs: "",
    options: &[OptionSpec {
        key: "static_first",
        about: "expected acceptance of the first sibling; the others keep their proportions",
        default: 0.6,
        min: 0.05,
        max: 0.95,
    }],
    test: "shapes::static_tree",
    make: Make::Tree(|setup| Ok(Box::new(Static::new(setup.option("static_first"))))),
};

/// Expected acceptance of siblings by rank: a decent drafter is right six times in ten, and half of what is left lies in its
/// next few guesses, each about half as likely as the one before.
pub(super) const EXPECTED: [f64; 6] = [0.6, 0.12, 0.06, 0.03, 0.015, 0.0075];
/// Deepest path of the list.
const MAX_DEPTH: usize = 8;

/// A fixed list.
#[derive(Debug, Clone)]
pub struct Static {
    chances: Vec<f64>,
    list: Ranked,
    nodes: usize,
}

impl Static {
    /// A list for drafters whose first guess is right with this probability.
    pub fn new(first: f64) -> Static {
        let rest = (1.0 - first) / (1.0 - EXPECTED[0]);
        let mut chances = vec![first];
        chances.extend(EXPECTED[1..].iter().map(|chance| (chance * rest).min(first)));
        Static { chances, list: Ranked::root(), nodes: 0 }
    }
}

impl TreeShape for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        if self.nodes != budget.nodes {
            self.nodes = budget.nodes;
            self.list = Ranked::likeliest(&self.chances, budget.nodes, MAX_DEPTH);
        }
        self.list.grow(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::shapes::testing::{MOST, Wide, grown};
    use crate::speculate::tree::NodeId;

    #[test]
    fn is_a_tree_of_exactly_the_budget_in_one_pass_a_level() {
        for nodes in 1..=MOST {
            let (tree, steps) = grown(Static::new(0.6), vec![Box::new(Wide::new(8))], nodes);
            assert_eq!(tree.drafted(), nodes, "a drafter with enough to offer fills the budget");
            assert_eq!(steps.len(), tree.depth(), "one pass a level");
        }
        let (tree, _) = grown(Static::new(0.6), vec![Box::new(Wide::new(8))], 15);
        assert!(tree.node(NodeId::ROOT).slots.len() >= 3 && tree.depth() >= 4 && !tree.is_chain());
    }

    #[test]
    fn asks_for_the_same_widths_whatever_was_drawn_and_ends_with_what_there_is() {
        // The probabilities that drafters claim do not matter.
        let asked = |drafter: Wide| grown(Static::new(0.6), vec![Box::new(drafter)], 15).1;
        assert_eq!(asked(Wide::new(8)), asked(Wide { first: 0.1, ..Wide::new(8) }));
        let (tree, _) = grown(Static::new(0.6), vec![Box::new(Wide::new(1))], 15);
        assert!(tree.is_chain() && (3..=8).contains(&tree.drafted()), "of a drafter of chains it takes the first path");
    }
}
