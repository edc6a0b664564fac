//! Which leaves of the tree grow, and how wide.

pub mod chain;

pub use chain::Chain;

use super::outcome::RoundOutcome;
use super::tree::{NodeId, TokenTree};

/// What a round has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens that may be verified.
    pub nodes: usize,
    /// Tokens of context, for shapes that look at the place in the text.
    pub context_len: usize,
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
    /// Children wanted below each.
    pub width: usize,
    /// Whom to ask.
    pub from: From,
}

/// Chooses what grows. It may look at what was drafted so far, sampled or not: growing node by node keeps every rule but
/// K-SEQ exact; what it must not do is drop what was sampled.
pub trait TreeShape {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// A round begins.
    fn begin(&mut self) {}
    /// What to grow next; `None` ends the draft. Leaves that are expanded and got no children stay leaves.
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
