//! How much to draft; 0 means a plain step.
//!
//! Nearly all published policies are an *estimator* of P(accepted | parent accepted) and a *rule* that turns estimates into
//! "stop", "how many" or "which"; [`LengthPolicy`] is what the round sees of both.

pub mod fixed;

pub use fixed::Fixed;

use super::cost::CostModel;
use super::drafters::DrafterId;
use super::outcome::{Needs, RoundOutcome};
use super::tree::{NodeId, TokenTree};

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
    /// Whether more drafters may fill in behind it, so that it is not known yet who will draft.
    pub cascade: bool,
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
    /// Learns from a round.
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
    /// Learns from a round.
    fn observe(&mut self, _outcome: &RoundOutcome) {}
    /// Forgets what was learned.
    fn reset(&mut self) {}
}
