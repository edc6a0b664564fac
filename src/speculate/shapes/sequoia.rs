//! `sequoia`: the tree of the most expected tokens for a measured acceptance by rank (Sequoia, arXiv 2402.12374).
//!
//! `a_k` = P(the k-th sibling is the accepted one | parent accepted). `T[l][m]`, the most tokens expected of a tree of m nodes
//! that is at most l deep, root included, is `1 + G[l][1][m - 1]`, with `G[l][k][n] = max_s a_k · T[l - 1][s] + G[l][k + 1][n - s]`
//! over the nodes s that the k-th child's subtree gets. Of all (m, l) the one with the least `(l · t_draft + t_verify(m)) / T[l][m]`
//! is drafted. The shape is settled before the round, so it suits sampled drafts. A sibling that was asked for and not offered
//! counts as wrong: for a drafter of chains the tree becomes a chain.
//!
//! State: faded counts of [`RANKS`] ranks, and the tables made from them.

use super::ranked::Ranked;
use super::static_tree::EXPECTED;
use super::{Budget, Grow, TreeShape, verify_costs};
use crate::plan::MAX_NODES;
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "sequoia",
    paper: "Sequoia, arXiv 2402.12374",
    about: "the best shape for the acceptance by rank, measured as it goes",
    needs: "",
    options: &[],
    test: "shapes::sequoia",
    make: Make::Tree(|_| Ok(Box::new(Sequoia::default()))),
};

/// Siblings that are told apart.
const RANKS: usize = EXPECTED.len();
/// Weight of what is expected before anything is known, in outcomes.
const PRIOR_WEIGHT: f64 = 6.0;
/// What is left of the counts after a round.
const FADE: f64 = 0.995;
/// A change of a rank's acceptance that makes new tables worth while.
const MOVED: f64 = 0.02;

/// The best shape by what was measured.
#[derive(Debug, Clone, Default)]
pub struct Sequoia {
    /// Of each rank, how often a sibling was asked for below an accepted node, and accepted.
    seen: [f64; RANKS],
    right: [f64; RANKS],
    tables: Option<Tables>,
    shape: Ranked,
    planned: bool,
    /// Nodes whose drafters offered fewer siblings than asked: offered, asked.
    short: Vec<(NodeId, usize, usize)>,
    asked: Vec<(NodeId, usize)>,
}

/// The dynamic program over trees of up to [`MAX_NODES`] nodes.
#[derive(Debug, Clone)]
struct Tables {
    chances: [f64; RANKS],
    /// `expected[l][m]`, m the nodes below the root.
    expected: Vec<Vec<f64>>,
    /// `share[l][k][n]`: nodes of the k-th child's subtree where n are left for it and its later siblings.
    share: Vec<Vec<Vec<usize>>>,
}

impl Tables {
    /// For acceptances that do not increase, trees of up to `most` nodes below the root.
    fn new(chances: [f64; RANKS], most: usize) -> Tables {
        let mut tables = Tables { chances, expected: vec![vec![1.0; most + 1]], share: vec![Vec::new()] };
        for depth in 1..=most {
            let below = &tables.expected[depth - 1];
            // Best of the siblings from rank k on, n nodes among them.
            let mut later = vec![0.0; most + 1];
            let mut shares = vec![vec![0; most + 1]; RANKS];
            for rank in (0..RANKS).rev() {
                let mut best = vec![0.0; most + 1];
                for nodes in 1..=most {
                    for share in 1..=nodes {
                        let value = chances[rank] * below[share - 1] + later[nodes - share];
                        if value > best[nodes] {
                            (best[nodes], shares[rank][nodes]) = (value, share);
                        }
                    }
                }
                later = best;
            }
            tables.expected.push(later.iter().map(|value| 1.0 + value).collect());
            tables.share.push(shares);
        }
        tables
    }

    /// The best tree of `nodes` nodes below the root, at most `depth` deep.
    fn tree(&self, nodes: usize, depth: usize) -> Ranked {
        let mut tree = Ranked::root();
        let mut open = vec![(0, nodes, depth)];
        while let Some((place, mut nodes, depth)) = open.pop() {
            for shares in &self.share[depth] {
                let share = shares[nodes];
                if share == 0 {
                    break;
                }
                open.push((tree.push(place), share - 1, depth - 1));
                nodes -= share;
            }
        }
        tree
    }
}

impl Sequoia {
    /// Acceptance by rank, made not to increase.
    fn chances(&self) -> [f64; RANKS] {
        let mut least = 1.0;
        std::array::from_fn(|rank| {
            let chance = (self.right[rank] + PRIOR_WEIGHT * EXPECTED[rank]) / (self.seen[rank] + PRIOR_WEIGHT);
            least = chance.min(least);
            least
        })
    }

    /// Chooses nodes and depth by what they cost.
    fn choose(&mut self, verify_ms: &[f64], step_ms: f64) {
        let nodes = (verify_ms.len() - 1).min(MAX_NODES - 1);
        let chances = self.chances();
        let moved = |tables: &Tables| tables.chances.iter().zip(&chances).any(|(a, b)| (a - b).abs() > MOVED);
        if self.tables.as_ref().is_none_or(moved) {
            self.tables = Some(Tables::new(chances, MAX_NODES - 1));
        }
        let Some(tables) = &self.tables else { return };
        let mut best = (f64::INFINITY, 0, 0);
        let deepest = if step_ms > 0.0 { 1 } else { nodes };
        for (nodes, depth) in
            (1..=nodes).flat_map(|nodes| (deepest.min(nodes)..=nodes).map(move |depth| (nodes, depth)))
        {
            let ms = (depth as f64 * step_ms + verify_ms[nodes]) / tables.expected[depth][nodes];
            if ms < best.0 {
                best = (ms, nodes, depth);
            }
        }
        self.shape = tables.tree(best.1, best.2);
        self.planned = true;
    }
}

impl TreeShape for Sequoia {
    fn name(&self) -> &'static str {
        "sequoia"
    }

    fn begin(&mut self) {
        self.planned = false;
        self.short.clear();
        self.asked.clear();
    }

    fn plan(&mut self, signals: &Signals<'_>, budget: &Budget) {
        let drafter = signals.drafter.filter(|_| signals.on_device);
        let step_ms = drafter.map_or(0.0, |drafter| signals.cost.draft_step_ms(drafter));
        self.choose(&verify_costs(signals.cost, budget.nodes), step_ms);
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        if !self.planned {
            self.choose(&vec![1.0; budget.nodes + 1], 0.0);
        }
        let offered = |id: NodeId| tree.node(id).slots.len();
        self.short.extend(
            self.asked.drain(..).filter(|asked| offered(asked.0) < asked.1).map(|(id, n)| (id, offered(id), n)),
        );
        let grow = self.shape.grow(tree)?;
        self.asked = grow.leaves.iter().enumerate().map(|(at, &id)| (id, grow.width_at(at))).collect();
        Some(grow)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        for count in self.seen.iter_mut().chain(&mut self.right) {
            *count *= FADE;
        }
        let tree = &outcome.tree;
        for (id, accepted) in outcome.judged() {
            let rank = tree.node(tree.node(id).parent).slots.iter().position(|slot| slot.child == id).unwrap_or(0);
            if rank < RANKS {
                self.seen[rank] += 1.0;
                self.right[rank] += f64::from(u8::from(accepted));
            }
        }
        let kept =
            |id: NodeId| id == NodeId::ROOT || outcome.verdict.path.iter().any(|&at| tree.node(at).drafted_as == id);
        for (_, offered, asked) in self.short.drain(..).filter(|short| kept(short.0)) {
            self.seen[offered..asked.min(RANKS).max(offered)].iter_mut().for_each(|seen| *seen += 1.0);
        }
    }

    fn reset(&mut self) {
        *self = Sequoia::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::drafters::Drafter;
    use crate::speculate::shapes::testing::{noise, replay, speculator};
    use crate::speculate::shapes::{Chain, Static};
    use crate::speculate::simulate::SimulatedDrafter;

    /// Expected tokens of a tree, and its depth.
    fn value(tree: &Ranked, chances: &[f64]) -> (f64, usize) {
        let mut reached = vec![(0.0, 0); tree.below.len()];
        reached[0] = (1.0, 0);
        // Parents may come after children of other nodes, but never after their own.
        for (place, below) in tree.below.iter().enumerate() {
            for (rank, &child) in below.iter().enumerate() {
                reached[child] = (reached[place].0 * chances.get(rank).copied().unwrap_or(0.0), reached[place].1 + 1);
            }
        }
        (reached.iter().map(|node| node.0).sum(), reached.iter().map(|node| node.1).max().unwrap_or(0))
    }

    #[test]
    fn finds_what_brute_force_finds() {
        for chances in [EXPECTED, [0.9, 0.05, 0.01, 0.0, 0.0, 0.0], [0.3, 0.25, 0.2, 0.1, 0.05, 0.05], [0.5; RANKS]] {
            let tables = Tables::new(chances, 15);
            // All trees: every order in which nodes can be added.
            let mut trees = vec![Ranked::root()];
            for nodes in 1..=8 {
                trees = trees
                    .iter()
                    .flat_map(|tree| {
                        (0..tree.below.len()).map(|parent| {
                            let mut tree = tree.clone();
                            tree.push(parent);
                            tree
                        })
                    })
                    .collect();
                for depth in 1..=nodes {
                    let values = trees.iter().map(|tree| value(tree, &chances)).filter(|value| value.1 <= depth);
                    let best = values.map(|value| value.0).fold(0.0, f64::max);
                    let tree = tables.tree(nodes, depth);
                    assert!((tables.expected[depth][nodes] - best).abs() < 1e-12, "{chances:?} {nodes} {depth}");
                    assert!((value(&tree, &chances).0 - best).abs() < 1e-12 && value(&tree, &chances).1 <= depth);
                }
            }
            // With no limit of depth it is the tree of the likeliest places.
            let likeliest = value(&Ranked::likeliest(&chances, 15, 15), &chances).0;
            assert!((tables.expected[15][15] - likeliest).abs() < 1e-12);
        }
    }

    #[test]
    fn costs_decide_depth_and_width() {
        let mut shape = Sequoia::default();
        let size = |shape: &Sequoia| (shape.shape.nodes(), value(&shape.shape, &EXPECTED).1);
        let cheap: Vec<f64> = (0..16).map(|nodes| 1.0 + 0.01 * f64::from(nodes)).collect();
        shape.choose(&cheap, 0.0);
        let (nodes, free) = size(&shape);
        assert_eq!(nodes, 15, "cheap columns are used");
        shape.choose(&cheap, 0.5);
        assert!(size(&shape).1 < free, "dear draft steps make it flat: {:?} of {free}", size(&shape));
        shape.choose(&(1..17).map(f64::from).collect::<Vec<_>>(), 0.0);
        assert_eq!(size(&shape).0, 1, "dear columns make it small");
    }

    #[test]
    fn learns_the_shape_that_suits_the_drafter() {
        let text = noise(6000);
        let drafter = |alpha: f32, width| -> Vec<Box<dyn Drafter>> {
            vec![Box::new(SimulatedDrafter { width, ..SimulatedDrafter::new(text.clone(), move |_| alpha) })]
        };
        for (alpha, width) in [(0.9, 1), (0.85, 8), (0.3, 8)] {
            let drafters = || drafter(alpha, width);
            let (sequoia, speed) = replay(speculator(Sequoia::default(), drafters(), 15), &text);
            let (chain, chain_speed) = replay(speculator(Chain, drafters(), 15), &text);
            let (fixed, fixed_speed) = replay(speculator(Static::new(0.6), drafters(), 15), &text);
            println!(
                "alpha {alpha} width {width}: sequoia {sequoia:.3} chain {chain:.3} static {fixed:.3} tokens a round"
            );
            println!("    {speed:.3} {chain_speed:.3} {fixed_speed:.3} tokens a plain step");
            assert!(speed > 0.98 * chain_speed.max(fixed_speed), "{speed} of {chain_speed} and {fixed_speed}");
        }
    }
}
