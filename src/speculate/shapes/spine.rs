//! `spine`: a copy as the spine, other guesses as branches (Goose; methods.md §4.3.1).
//!
//! The first drafter of the configuration copies a chain, the others branch off the root and the nodes of the chain:
//! `spine = min(copy, ⌊N · ratio⌋)`, `ratio = base(e) + conf · (1 - base(e))`. Of the rest, half goes to the root, half to the
//! spine's nodes as 1/i. Confidence comes from the length of the match; e is an average of the accepted share of the spine.
//! Goose extends its budget of 60 up to 100 where it is confident; here the length policy has set N, so only shares are kept:
//! a copy that is not sure takes a third of N at most, and 10 siblings of 60 nodes become N/6. What branches cannot use goes
//! back to the spine, while that is likely enough. Without a copy it is a tree of branches, without other drafters a chain.
//!
//! State: one average.

use super::{Budget, From, Grow, TreeShape};
use crate::speculate::drafters::DrafterId;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "spine",
    paper: "Goose",
    about: "a chain copied by the first drafter, with branches by the others",
    needs: "",
    options: &[],
    test: "shapes::spine",
    make: Make::Tree(|_| Ok(Box::new(Spine::default()))),
};

/// The drafter that copies.
const COPIES: DrafterId = DrafterId(0);
/// Share of a new round in the average.
const ALPHA: f32 = 0.3;
/// The average before anything is known.
const UNKNOWN: f32 = 0.5;
/// Above this confidence a copy may be long.
const SURE: f32 = 0.6;
/// Nodes of a copy that is not sure: one in three.
const UNSURE_SHARE: usize = 3;
/// Siblings at most: one in six nodes, fewer at depth.
const SIBLING_SHARE: usize = 6;
/// Deepest branch.
const MAX_BRANCH_DEPTH: usize = 6;
/// Branches less likely than this from their spine on are not grown.
const MIN_SCORE: f32 = 0.01;

/// A spine with branches.
#[derive(Debug, Clone)]
pub struct Spine {
    accepted: f32,
    /// The root and the nodes copied below it.
    spine: Vec<NodeId>,
    /// The copying drafter was asked below the end of the spine and has no more.
    dry: bool,
    asked_end: bool,
    /// Nodes that branches off each node of the spine may have; set once the spine stands.
    allotted: Vec<usize>,
}

impl Default for Spine {
    fn default() -> Self {
        Spine { accepted: UNKNOWN, spine: Vec::new(), dry: false, asked_end: false, allotted: Vec::new() }
    }
}

/// How sure a copy is: by the length of its match, else by what its drafter says.
fn confidence(tree: &TokenTree, first: NodeId) -> f32 {
    let stats = &tree.node(first).stats;
    match f32::from(stats.match_len) {
        0.0 => stats.logq.exp(),
        length if length >= 8.0 => (0.7 + 0.2 * (length - 8.0) / 12.0).min(0.9),
        length => 0.6 * length / 8.0,
    }
}

impl Spine {
    /// Nodes of the spine, of `nodes` in all.
    fn spine_len(&self, tree: &TokenTree, nodes: usize) -> usize {
        let Some(&first) = self.spine.get(1) else { return 1 };
        let base = match self.accepted {
            e if e < 0.2 => 0.15,
            e if e < 0.4 => 0.3,
            _ => 0.5,
        };
        let sure = confidence(tree, first);
        let length = (nodes as f32 * (base + sure * (1.0 - base))) as usize;
        let most = if sure > SURE { nodes } else { nodes / UNSURE_SHARE };
        length.min(most).max(1)
    }

    /// Takes in what the copying drafter gave below the end of the spine.
    fn follow(&mut self, tree: &TokenTree) {
        let copied = |id: &NodeId| {
            let node = tree.node(*id);
            node.source == Some(COPIES) || node.cursor_of(COPIES).is_some()
        };
        while let Some(next) = tree.node(self.end()).slots.iter().map(|slot| slot.child).find(copied) {
            self.spine.push(next);
            self.asked_end = false;
        }
        self.dry |= self.asked_end;
    }

    /// Asks the copying drafter for one more.
    fn copy(&mut self) -> Option<Grow> {
        self.asked_end = !self.dry;
        self.asked_end.then(|| Grow::same(vec![self.end()], 1, From::First))
    }

    fn end(&self) -> NodeId {
        self.spine[self.spine.len() - 1]
    }

    /// Half of `rest` to the root, half to the nodes of the spine in proportion to 1/i; all to a root that stands alone.
    fn allot(&mut self, rest: usize) {
        let nodes = self.spine.len() - 1;
        let root = if nodes == 0 { rest } else { rest.div_ceil(2) };
        let harmonic: f32 = (1..=nodes).map(|i| 1.0 / i as f32).sum();
        self.allotted = vec![root];
        let (mut share, mut given) = (0.0, 0);
        for i in 1..=nodes {
            share += (rest - root) as f32 / harmonic / i as f32;
            self.allotted.push((share.round() as usize).saturating_sub(given));
            given = given.max(share.round() as usize);
        }
    }

    /// Branches that leave the spine: the others are asked for one more than is wanted, since they may say what the spine says.
    fn branch(&self, mut left: usize, siblings: usize) -> Option<Grow> {
        let mut leaves = Vec::new();
        for (&anchor, &allotted) in self.spine.iter().zip(&self.allotted) {
            let copied = usize::from(anchor != self.end());
            let width = (allotted.min(siblings) + copied).min(left);
            if allotted > 0 && width > copied {
                leaves.push((anchor, width));
                left -= width;
            }
        }
        (!leaves.is_empty()).then(|| Grow::each(leaves, From::Others))
    }

    /// The next level of branches, the likeliest first; each within what its node of the spine has left, or, `pooled`, within
    /// what is left of all.
    fn lengthen(&self, tree: &TokenTree, mut left: usize, siblings: usize, pooled: bool) -> Option<Grow> {
        let mut remaining = self.allotted.clone();
        let mut open = Vec::new();
        for id in tree.by_survival().into_iter().filter(|id| !self.spine.contains(id)) {
            let anchored = std::iter::successors(Some(id), |&at| Some(tree.node(at).parent));
            let anchor =
                anchored.take(MAX_BRANCH_DEPTH + 1).find_map(|at| self.spine.iter().position(|&node| node == at));
            let Some(anchor) = anchor else { continue };
            if let Some(remaining) = remaining.get_mut(anchor) {
                *remaining = remaining.saturating_sub(1);
            }
            let above = tree.node(self.spine[anchor]);
            let (depth, score) = (tree.node(id).depth - above.depth, tree.node(id).survival / above.survival.max(1e-9));
            if !tree.node(id).expanded && depth < MAX_BRANCH_DEPTH && score >= MIN_SCORE {
                open.push((id, anchor, depth, score));
            }
        }
        let mut leaves = Vec::new();
        for (id, anchor, depth, score) in open {
            let own = remaining.get(anchor).copied().unwrap_or(0);
            let free = if pooled { left } else { own.min(left) };
            let width = ((free as f32 * score).ceil() as usize).min((siblings / (depth + 1)).max(1)).min(free);
            if width > 0 {
                left -= width;
                if let Some(remaining) = remaining.get_mut(anchor) {
                    *remaining = own.saturating_sub(width);
                }
                leaves.push((id, width));
            }
        }
        (!leaves.is_empty()).then(|| Grow::each(leaves, From::Others))
    }
}

impl TreeShape for Spine {
    fn name(&self) -> &'static str {
        "spine"
    }

    fn begin(&mut self) {
        *self = Spine { accepted: self.accepted, spine: vec![NodeId::ROOT], ..Spine::default() };
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        let left = budget.nodes.saturating_sub(tree.drafted());
        if left == 0 {
            return None;
        }
        let siblings = budget.nodes.div_ceil(SIBLING_SHARE).max(2);
        self.follow(tree);
        if self.allotted.is_empty() {
            if self.spine.len() <= self.spine_len(tree, budget.nodes)
                && let Some(grow) = self.copy()
            {
                return Some(grow);
            }
            self.allot(left);
            if let Some(grow) = self.branch(left, siblings) {
                return Some(grow);
            }
        }
        self.lengthen(tree, left, siblings, false)
            .or_else(|| if tree.node(self.end()).survival >= MIN_SCORE { self.copy() } else { None })
            .or_else(|| self.lengthen(tree, left, siblings, true))
    }

    fn adapts_width(&self) -> bool {
        true
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let tree = &outcome.tree;
        let copied = |id: &NodeId| tree.node(*id).source == Some(COPIES);
        let drafted = tree.ids().filter(copied).count();
        if drafted > 0 {
            let accepted = outcome.verdict.path.iter().filter(|id| copied(id)).count();
            self.accepted += ALPHA * (accepted as f32 / drafted as f32 - self.accepted);
        }
    }

    fn reset(&mut self) {
        *self = Spine::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::cost::CostModel;
    use crate::speculate::drafters::Drafter;
    use crate::speculate::shapes::testing::{Wide, grown, noise, replay, speculator};
    use crate::speculate::shapes::{Chain, Static};
    use crate::speculate::simulate::{SimulatedDrafter, SimulatedTarget};

    /// Right eight times in ten, but only where the text is a copy: eight of twelve tokens.
    fn copies(text: &[u32]) -> Box<dyn Drafter> {
        let alpha = |at| if at % 12 < 8 { 0.8 } else { -1.0 };
        Box::new(SimulatedDrafter { width: 1, ..SimulatedDrafter::new(text.to_vec(), alpha) })
    }

    fn adjacent(text: &[u32]) -> Box<dyn Drafter> {
        Box::new(SimulatedDrafter { seed: 9, ..SimulatedDrafter::new(text.to_vec(), |_| 0.15) })
    }

    #[test]
    fn beats_chains_and_balanced_trees_of_the_same_budget() {
        let text = noise(12_000);
        let both = || vec![copies(&text), adjacent(&text)];
        for nodes in [7, 15] {
            let (spine, _) = replay(speculator(Spine::default(), both(), nodes), &text);
            let (chain, _) = replay(speculator(Chain, vec![copies(&text)], nodes), &text);
            let (filled, _) = replay(speculator(Chain, both(), nodes), &text);
            let (balanced, _) = replay(speculator(Static::new(0.15), vec![adjacent(&text)], nodes), &text);
            let (mixed, _) = replay(speculator(Static::new(0.6), both(), nodes), &text);
            println!(
                "{nodes} nodes: spine {spine:.3} chain {chain:.3} filled {filled:.3} balanced {balanced:.3} mixed {mixed:.3}"
            );
            assert!(spine > 1.02 * chain.max(balanced), "{nodes} nodes: {spine} of {chain} and {balanced}");
            assert!(spine > filled.max(mixed), "{nodes} nodes: {spine} of {filled} and {mixed}");
        }
    }

    #[test]
    fn spends_its_budget_on_what_there_is() {
        let copier = || Box::new(Wide { first: 3.0, ..Wide::new(1) });
        let others = || Box::new(Wide { seed: 4, ..Wide::new(8) });
        let (tree, _) = grown(Spine::default(), vec![copier()], 15);
        assert!(tree.is_chain() && tree.drafted() == 15, "no branches: all of it is spine");
        let (tree, _) = grown(Spine::default(), vec![Box::new(Wide::new(0)), others()], 15);
        assert!(tree.drafted() == 15 && !tree.is_chain(), "no copy: all of it is branches");
        let (tree, steps) = grown(Spine::default(), vec![Box::new(Wide::new(1)), others()], 15);
        let spine = tree.nodes().iter().filter(|node| node.source == Some(COPIES)).count();
        assert!(tree.drafted() == 15 && (5..15).contains(&spine), "{spine}");
        assert!(tree.node(NodeId::ROOT).slots.len() > 1, "the root has branches");
        assert!(steps.iter().filter(|grow| grow.from == From::Others).count() <= MAX_BRANCH_DEPTH, "a pass a level");
        let (tree, _) = grown(Spine::default(), vec![Box::new(Wide::new(0)), Box::new(Wide::new(0))], 15);
        assert_eq!(tree.drafted(), 0);
    }

    #[test]
    fn copies_that_fail_get_shorter() {
        let text = noise(400);
        let mut lengths = Vec::new();
        for alpha in [0.02, 0.95] {
            let bad = SimulatedDrafter {
                width: 1,
                claims: |_, _| 0.1,
                ..SimulatedDrafter::new(text.clone(), move |_| alpha)
            };
            let mut speculator = speculator(Spine::default(), vec![Box::new(bad), adjacent(&text)], 15);
            let target = SimulatedTarget::new(text.clone(), CostModel::default(), 0.0);
            let outcomes = target.replay(&mut speculator, 1).expect("replay");
            let tree = &outcomes[outcomes.len() / 2].tree;
            lengths.push(tree.nodes().iter().filter(|node| node.source == Some(COPIES)).count());
        }
        assert!(lengths[0] + 1 < lengths[1], "{lengths:?}");
    }
}
