//! Which leaves of the tree grow, and how wide.

pub mod chain;
pub mod delayed;
pub mod dynamic;
pub mod equal_growth;
mod ranked;
pub mod sequoia;
pub mod spine;
pub mod static_tree;
#[cfg(test)]
pub(crate) mod testing;

pub use chain::Chain;
pub use delayed::Delayed;
pub use dynamic::Dynamic;
pub use equal_growth::EqualGrowth;
pub use sequoia::Sequoia;
pub use spine::Spine;
pub use static_tree::Static;

use super::cost::CostModel;
use super::length::Signals;
use super::outcome::RoundOutcome;
use super::tree::{MAX_DRAFT_NODES, NodeId, TokenTree};
use crate::plan::{MAX_COLUMNS, MAX_NODES};

/// What a round has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens that may be verified.
    pub nodes: usize,
}

/// Whom a shape asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Whoever the selector says.
    Any,
    /// The first drafter of the configuration: the one that copies.
    First,
    /// The others: the ones that branch.
    Others,
}

/// What to grow next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grow {
    /// Leaves; none of them expanded yet, or to be asked again of other drafters.
    pub leaves: Vec<NodeId>,
    /// Children wanted below each, at most.
    pub width: usize,
    /// Of leaves that want fewer than `width`, how many, leaf by leaf; empty where all want the same. Settled before they
    /// are drawn, so what a drafter offers beyond it may be left out, sampled or not.
    pub widths: Vec<usize>,
    /// Whom to ask.
    pub from: From,
}

impl Grow {
    /// The same number of children below each leaf.
    pub fn same(leaves: Vec<NodeId>, width: usize, from: From) -> Grow {
        Grow { leaves, width, widths: Vec::new(), from }
    }

    /// Leaves with the number of children of each.
    pub fn each(leaves: Vec<(NodeId, usize)>, from: From) -> Grow {
        let (leaves, widths): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
        Grow { width: widths.iter().copied().max().unwrap_or(0), leaves, widths, from }
    }

    /// Children wanted below the leaf at this place of the list.
    pub fn width_at(&self, leaf: usize) -> usize {
        self.widths.get(leaf).copied().unwrap_or(self.width)
    }
}

/// What it costs to verify 0 to `nodes` drafted nodes. A width of one pass that was never measured counts as no dearer than the
/// one below it, so that it is tried.
fn verify_costs(cost: &CostModel, nodes: usize) -> Vec<f64> {
    let mut costs = vec![cost.plain_ms()];
    for columns in 2..=nodes + 1 {
        let known = columns > MAX_COLUMNS || cost.is_measured(columns);
        costs.push(if known { cost.verify_ms(columns) } else { costs[columns - 2] });
    }
    costs
}

/// Nodes that a tree may have while it is drafted: a device knows the nodes of its own drafts by the bits of a mask.
fn most_nodes(signals: &Signals<'_>) -> usize {
    if signals.on_device { MAX_NODES } else { MAX_DRAFT_NODES }
}

/// As many of these leaves as have room for their children in a tree of at most `most` nodes.
fn fitting(mut leaves: Vec<NodeId>, width: usize, tree: &TokenTree, most: usize) -> Option<Grow> {
    let room = most.saturating_sub(tree.nodes().len());
    let width = width.min(room);
    leaves.truncate(room.checked_div(width).unwrap_or(0));
    (!leaves.is_empty()).then(|| Grow::same(leaves, width, From::Any))
}

/// Chooses what grows. It may look at what was drafted so far, sampled or not: growing node by node keeps every rule but
/// K-SEQ exact; what it must not do is drop what was sampled.
pub trait TreeShape {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// A round begins.
    fn begin(&mut self) {}
    /// What is known before the draft, costs among it; comes after [`TreeShape::begin`].
    fn plan(&mut self, _signals: &Signals<'_>, _budget: &Budget) {}
    /// What to grow next; `None` ends the draft. Leaves that are expanded and got no children stay leaves. Of sampled drafts
    /// the tree must never have more than `budget.nodes`: a round that finds more is an error.
    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow>;
    /// Of a finished tree that may have more than `budget.nodes` nodes, those to verify, or `None` for all. Only
    /// deterministic trees are pruned.
    fn prune(&mut self, _tree: &TokenTree, _budget: &Budget) -> Option<Vec<NodeId>> {
        None
    }
    /// Whether it drops drafted nodes; with sampled ones that breaks every rule that needs q.
    fn prunes(&self) -> bool {
        false
    }
    /// Whether the width of a node depends on what was drawn there before: K-SEQ must know it in advance.
    fn adapts_width(&self) -> bool {
        false
    }
    /// Whether it is one path, so that a device can draft it without the host.
    fn is_chain(&self) -> bool {
        false
    }
    /// Learns from a round.
    fn observe(&mut self, _outcome: &RoundOutcome) {}
    /// Forgets what was learned.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::testing::{MOST, Wide, grown, grown_by, speculator};
    use super::{Budget, From, Grow};
    use crate::error::Result;
    use crate::sampling::SamplingParams;
    use crate::speculate::config::SpeculationConfig;
    use crate::speculate::cost::CostModel;
    use crate::speculate::drafters::{Ask, DraftContext, Drafter, Expansion, each_leaf};
    use crate::speculate::methods::{Setup, names};
    use crate::speculate::simulate::SimulatedTarget;
    use crate::speculate::tree::{Candidate, DraftStats, NodeId, Proposal, TokenTree};
    use futures_lite::future::block_on;

    /// Draws the same token again and again.
    struct Repeats;

    impl Drafter for Repeats {
        fn name(&self) -> &'static str {
            "repeats"
        }

        fn default_tokens(&self) -> usize {
            4
        }

        fn expand(&mut self, _: &DraftContext<'_>, _: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
            let draw = |token: u32| Candidate {
                proposal: Proposal::Sampled([0.2; 5].into()),
                ..Candidate::new(token, DraftStats::of_probability(0.2))
            };
            Ok(each_leaf(ask, |_| [1, 1, 2, 1, 1, 3].map(draw).to_vec()))
        }
    }

    #[test]
    fn every_shape_ends_within_its_budget_whatever_is_on_offer() {
        let config = SpeculationConfig::default();
        for name in names("tree") {
            let shape = || Setup::new(&config).shape(name).expect(name);
            for nodes in [1, 2, 3, 7, MOST] {
                for width in [0, 1, 2, 9] {
                    let wide = |seed| -> Box<dyn Drafter> { Box::new(Wide { seed, ..Wide::new(width) }) };
                    let (tree, _) = grown_by(shape(), vec![wide(1)], nodes);
                    assert_eq!(tree.drafted() > 0, width > 0, "{name}, {nodes} nodes, {width} wide");
                    assert_eq!(shape().is_chain(), name == "chain");
                    grown_by(shape(), vec![wide(1), wide(2), wide(3)], nodes);
                }
                if !shape().prunes() {
                    // What was drawn may not be dropped, so it is never more than the budget.
                    let (tree, _) = grown_by(shape(), vec![Box::new(Repeats), Box::new(Repeats)], nodes);
                    assert!((1..=nodes).contains(&tree.drafted()), "{name}");
                }
            }
        }
    }

    /// Asks for six children of the root, whatever the budget.
    struct Boundless;

    impl super::TreeShape for Boundless {
        fn name(&self) -> &'static str {
            "boundless"
        }

        fn next(&mut self, tree: &TokenTree, _: &Budget) -> Option<Grow> {
            (tree.drafted() == 0).then(|| Grow::same(vec![NodeId::ROOT], 6, From::Any))
        }
    }

    #[test]
    fn a_sampled_tree_beyond_its_budget_is_an_error_and_another_is_cut() {
        let (tree, _) = grown(Boundless, vec![Box::new(Wide::new(6))], 2);
        assert_eq!(tree.drafted(), 2);
        let (tree, _) = grown(Boundless, vec![Box::new(Repeats)], 3);
        assert_eq!((tree.drafted(), tree.node(NodeId::ROOT).slots.len()), (3, 6), "three tokens, drawn six times");
        let target = SimulatedTarget::new(vec![0; 100], CostModel::default(), 0.1);
        let mut speculator = speculator(Boundless, vec![Box::new(Repeats)], 2);
        let round = block_on(speculator.round(&target, &[0; 10], &SamplingParams::default(), 90));
        let error = round.expect_err("more was drawn than is verified");
        assert!(error.code() == "inexact_speculation" && error.to_string().contains("tree=boundless"), "{error}");
    }
}
