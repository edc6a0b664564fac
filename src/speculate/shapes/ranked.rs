//! Shapes that are settled before the round: how many children a node gets depends on its ranks among siblings alone, so
//! they suit sampled drafts and every rule. Grown level by level: a device drafter needs one pass a level.

use super::{From, Grow};
use crate::speculate::tree::TokenTree;

/// A tree of places; 0 is the root, and parents come before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranked {
    /// Places below each place, the best sibling first.
    pub(super) below: Vec<Vec<usize>>,
}

impl Ranked {
    /// Only a root.
    pub(super) fn root() -> Ranked {
        Ranked { below: vec![Vec::new()] }
    }

    /// Adds the next sibling below a place.
    pub(super) fn push(&mut self, parent: usize) -> usize {
        let place = self.below.len();
        self.below[parent].push(place);
        self.below.push(Vec::new());
        place
    }

    /// The `nodes` likeliest places below the root, at most `depth` deep, where the k-th sibling is the accepted one with
    /// probability `chances[k]`, which must not increase. Smaller trees are parts of larger ones.
    pub(super) fn likeliest(chances: &[f64], nodes: usize, depth: usize) -> Ranked {
        let mut tree = Ranked::root();
        // Places with their depth and the probability that they are reached.
        let mut reached = vec![(0, 1.0)];
        for _ in 0..nodes {
            let next = (0..reached.len()).filter(|&at| reached[at].0 < depth);
            let next = next.filter_map(|at| Some((at, reached[at].1 * chances.get(tree.below[at].len())?)));
            // Of equals the first: the shallower, and the better sibling.
            let best = next.fold(None, |best: Option<(usize, f64)>, next| match best {
                Some(best) if best.1 >= next.1 => Some(best),
                _ => Some(next),
            });
            let Some((parent, chance)) = best.filter(|best| best.1 > 0.0) else { break };
            tree.push(parent);
            reached.push((reached[parent].0 + 1, chance));
        }
        tree
    }

    /// Places below the root.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.below.len() - 1
    }

    /// The next level of `tree`: its nodes that have a place with children and were not asked yet. A node whose drafter offered
    /// fewer siblings simply has no such places.
    pub(super) fn grow(&self, tree: &TokenTree) -> Option<Grow> {
        let mut places: Vec<Option<usize>> = vec![None; tree.nodes().len()];
        places[0] = Some(0);
        let mut leaves = Vec::new();
        for id in tree.ids() {
            let (Some(place), node) = (places[id.index()], tree.node(id)) else { continue };
            let below = self.below.get(place).map_or(&[][..], Vec::as_slice);
            for (slot, &place) in node.slots.iter().zip(below) {
                places[slot.child.index()].get_or_insert(place);
            }
            if !node.expanded && !below.is_empty() {
                leaves.push((id, below.len()));
            }
        }
        (!leaves.is_empty()).then(|| Grow::each(leaves, From::Any))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_places_are_nested_and_few() {
        let chances = [0.6, 0.2, 0.05];
        let tree = Ranked::likeliest(&chances, 5, 9);
        // .6, .36, .216, .2 (second child of the root), .1296
        assert_eq!(tree.below, [vec![1, 4], vec![2], vec![3], vec![5], vec![], vec![]]);
        assert_eq!(Ranked::likeliest(&chances, 4, 9).below[0], [1, 4]);
        assert_eq!(Ranked::likeliest(&chances, 99, 1).nodes(), 3, "one level has as many as there are siblings");
    }
}
