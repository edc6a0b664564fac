//! Which drafters are asked in a round, and what is made of their answers.

pub mod bandit;
pub mod cascade;
pub mod ensemble;
pub mod fusion;
mod heard;
pub mod hedge;
pub mod suffix_score;
#[cfg(test)]
pub(crate) mod testing;
pub mod vote;

pub use bandit::Bandit;
pub use cascade::Cascade;
pub use ensemble::Ensemble;
pub use fusion::Fusion;
pub use hedge::Hedge;
pub use suffix_score::SuffixScore;
pub use vote::Vote;

use super::drafters::DrafterId;
use super::length::Signals;
use super::outcome::{Needs, RoundOutcome};
use super::tree::{Candidate, NodeId, TokenTree};

/// What a selector may know of a drafter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrafterInfo {
    /// Its place in the configuration.
    pub id: DrafterId,
    /// Its name.
    pub name: &'static str,
    /// Whether it costs passes of a model.
    pub on_device: bool,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// In this order; the first that offers something below a leaf is taken.
    First(Vec<DrafterId>),
    /// In this order, each on its own; the first whose finished draft is worth verifying is taken whole.
    Alone(Vec<DrafterId>),
    /// All of these at every leaf; [`DraftSelector::combine`] makes one answer of theirs.
    All(Vec<DrafterId>),
}

/// What one drafter offers below one leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Who.
    pub drafter: DrafterId,
    /// Best first; may be empty.
    pub candidates: Vec<Candidate>,
}

/// Chooses among drafters. It may look at past rounds, the prefix and deterministic drafts, never at what was sampled this
/// round (methods.md §3.5.4).
pub trait DraftSelector {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// What it learns from beyond the samples.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// Who is asked this round.
    fn select(&mut self, signals: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection;
    /// One answer of several, at most `width` tokens, each with its drafter. Where drafters agree on one, all of them may be
    /// given: each then goes on from its own place below it.
    fn combine(
        &mut self,
        _tree: &TokenTree,
        _leaf: NodeId,
        offers: Vec<Offer>,
        width: usize,
    ) -> Vec<(DrafterId, Candidate)> {
        let first = offers.into_iter().find(|offer| !offer.candidates.is_empty());
        first.map_or_else(Vec::new, |offer| {
            offer.candidates.into_iter().take(width).map(|c| (offer.drafter, c)).collect()
        })
    }
    /// Whether a finished deterministic draft is worth verifying; if not, its drafters are left out and the rest of the
    /// selection is asked.
    fn accepts(&mut self, _tree: &TokenTree) -> bool {
        true
    }
    /// Whether it wants to see a chain of every host drafter each round, chosen or not ([`DraftSelector::drafts`]).
    fn wants_all_drafts(&self) -> bool {
        false
    }
    /// Chains that the host drafters would have drafted at this prefix.
    fn drafts(&mut self, _context_len: usize, _drafts: &[(DrafterId, Vec<u32>)]) {}
    /// Whether it chooses by looking at this round's drafts; with sampled ones that breaks every rule that needs q.
    fn looks_at_drafts(&self) -> bool {
        false
    }
    /// Learns from a round.
    fn observe(&mut self, _outcome: &RoundOutcome) {}
    /// Forgets what was learned.
    fn reset(&mut self) {}
}
