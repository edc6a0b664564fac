//! `chain`: one child a step (Leviathan et al., arXiv 2211.17192). Keeps no state.

use super::{Budget, From, Grow, TreeShape};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::TokenTree;

/// This method.
pub static METHOD: Method = Method {
    name: "chain",
    paper: "Leviathan et al., arXiv 2211.17192",
    about: "one child a step",
    needs: "",
    options: &[],
    test: "shapes::chain",
    make: Make::Tree(|_| Ok(Box::new(Chain))),
};

/// One path.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain;

impl TreeShape for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        let last = tree.ids().next_back()?;
        let grows = tree.drafted() < budget.nodes && !tree.node(last).expanded;
        grows.then(|| Grow::same(vec![last], 1, From::Any))
    }

    fn is_chain(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::shapes::testing::{Wide, grown};

    #[test]
    fn is_one_path_of_the_budget() {
        for nodes in [1, 4, 15] {
            let (tree, steps) = grown(Chain, vec![Box::new(Wide::new(8))], nodes);
            assert!(tree.is_chain() && tree.drafted() == nodes && steps.len() == nodes);
        }
    }
}
