//! How much to draft; 0 means a plain step.
//!
//! Nearly all published policies are an *estimator* of P(accepted | parent accepted) and a *rule* that turns estimates into
//! "stop", "how many" or "which"; [`LengthPolicy`] is what the round sees of both. Estimators stand in [`estimators`];
//! a policy that uses one takes the one that the configuration names, or its own choice where that says `auto`.

pub mod adasd;
pub mod chunked;
pub mod estimators;
pub mod fixed;
pub mod goodput;
pub mod heuristic;
pub mod long_tail;
pub mod preverify;
pub(super) mod probe;
pub mod slo;
pub mod stopping;
pub mod survival;
pub mod syntax;
#[cfg(test)]
pub(crate) mod testing;
pub mod thompson;
pub mod threshold;

pub use fixed::Fixed;
pub use goodput::Goodput;

use super::cost::CostModel;
use super::drafters::DrafterId;
use super::methods::Setup;
use super::outcome::{Needs, RoundOutcome};
use super::tree::{NodeId, TokenTree};
use crate::error::Result;

/// Drafters that are kept apart by what learns; any beyond them share the last place.
pub const MAX_DRAFTERS: usize = 16;

/// What a policy may know before a round.
pub struct Signals<'a> {
    /// Tokens committed.
    pub context_len: usize,
    /// Tokens that may still be written.
    pub max_new: usize,
    /// Who would draft first, if anybody may.
    pub drafter: Option<DrafterId>,
    /// Whether that costs passes of a model.
    pub on_device: bool,
    /// A device drafter that is asked next if nothing comes of this draft.
    pub behind: Option<DrafterId>,
    /// What its drafter would draft.
    pub default_tokens: usize,
    /// Most tokens that the round has room for.
    pub room: usize,
    /// What things cost on this device.
    pub cost: &'a CostModel,
}

/// How likely a drafted node is to be accepted if its parent is.
pub trait AcceptanceEstimator {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// What it learns from beyond the samples.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// P(accepted | parent accepted) of a node, from its features and what was learned.
    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32;
    /// The same before anything is drafted: of the next token of a drafter, at a depth.
    fn expected(&self, drafter: DrafterId, depth: usize) -> f32;
    /// Whether it looks at what this round's draft says of its tokens; if not, [`AcceptanceEstimator::expected`] is all that
    /// it knows of a device draft.
    fn reads_drafts(&self) -> bool {
        false
    }
    /// The published threshold below which drafting stops by this estimate.
    fn threshold(&self) -> f32 {
        0.5
    }
    /// Learns the fate of a node whose parent was accepted (or is the root), verified or known from the text that followed.
    fn learn(&mut self, _tree: &TokenTree, _node: NodeId, _accepted: bool) {}
    /// The acceptance of a drafter is no longer what it was: what was learned of it should count for little.
    fn doubt(&mut self, _drafter: Option<DrafterId>) {}
    /// A round is over: learns what is not the fate of one node. [`AcceptanceEstimator::learn`] was called before.
    fn observe(&mut self, _outcome: &RoundOutcome) {}
    /// Forgets what was learned.
    fn reset(&mut self) {}
}

/// Decides how much to draft.
pub trait LengthPolicy {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// What it learns from beyond the samples.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// Most tokens to draft in the coming round, 0 for a plain step. Past rounds and the prefix only.
    fn plan(&mut self, signals: &Signals<'_>) -> usize;
    /// P(accepted | parent accepted) of a node that was just attached.
    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32;
    /// Whether to stop drafting, after `new` nodes were attached; they are kept whatever it says.
    fn stop(&mut self, _tree: &TokenTree, _new: &[NodeId], _signals: &Signals<'_>) -> bool {
        false
    }
    /// Of a finished deterministic tree, how many nodes to verify, the likeliest first.
    fn keep(&mut self, tree: &TokenTree, _signals: &Signals<'_>) -> usize {
        tree.drafted()
    }
    /// Whether the draft may be cut by looking at what was drafted after the cut ([`LengthPolicy::keep`]); then only rules
    /// that need no q are exact with it.
    fn looks_ahead(&self) -> bool {
        false
    }
    /// Whether [`LengthPolicy::stop`] must see the tokens of this round: device drafts then come in submits of their own.
    fn reads_drafts(&self) -> bool {
        false
    }
    /// Of a round that is a plain step, whether the next is to be one too whatever could be drafted then, so that it can be
    /// submitted before this one is read.
    fn ahead(&mut self, _cost: &CostModel) -> bool {
        false
    }
    /// Learns from a round.
    fn observe(&mut self, _outcome: &RoundOutcome) {}
    /// Why it drafts nothing, where it has decided so.
    fn reason(&self) -> Option<String> {
        None
    }
    /// Forgets what was learned.
    fn reset(&mut self) {}
}

/// The place of a drafter in tables of [`MAX_DRAFTERS`].
pub(crate) fn place(drafter: Option<DrafterId>) -> usize {
    drafter.map_or(0, |drafter| usize::from(drafter.0).min(MAX_DRAFTERS - 1))
}

/// The estimator that the configuration names, or a policy's own choice.
pub(crate) fn estimator_of(setup: &Setup<'_>, own: &str) -> Result<Box<dyn AcceptanceEstimator>> {
    setup.estimator(if setup.config.estimator == "auto" { own } else { &setup.config.estimator })
}

/// What an estimator thinks of a node, its token known or not.
pub(crate) fn estimate(estimator: &mut dyn AcceptanceEstimator, tree: &TokenTree, node: NodeId) -> f32 {
    let known = tree.node(node);
    match (known.token, known.source) {
        (None, Some(drafter)) => estimator.expected(drafter, known.depth),
        _ => estimator.a_hat(tree, node),
    }
}

/// Tells an estimator what a round says of its nodes, then of itself.
pub(crate) fn settle(estimator: &mut dyn AcceptanceEstimator, outcome: &RoundOutcome) {
    for (node, accepted) in outcome.judged() {
        estimator.learn(&outcome.tree, node, accepted);
    }
    estimator.observe(outcome);
}
