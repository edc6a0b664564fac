//! What every drafter said below the leaves of this round, kept until the target has spoken: how selectors that merge drafters
//! learn. Bounded by the nodes of a drafted tree.

use super::Offer;
use crate::speculate::drafters::DrafterId;
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, MAX_DRAFT_NODES, NodeId};

/// What a drafter offered below a leaf: tokens with the probability that it gave them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said {
    pub(super) drafter: DrafterId,
    pub(super) tokens: Vec<(u32, f32)>,
}

/// The offers of a round, leaf by leaf.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Vec<(NodeId, Vec<Said>)>);

impl Heard {
    /// A round begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes what was offered below a leaf.
    pub(super) fn note(&mut self, leaf: NodeId, offers: &[Offer]) {
        if self.0.len() < MAX_DRAFT_NODES {
            let said = |offer: &Offer| Said {
                drafter: offer.drafter,
                tokens: offer.candidates.iter().map(|c| (c.token, c.stats.logq.exp())).collect(),
            };
            self.0.push((leaf, offers.iter().map(said).collect()));
        }
    }

    /// What was said where the target spoke, at the root and below accepted nodes, with the token that it wrote there.
    pub(super) fn judged(&self, outcome: &RoundOutcome) -> Vec<(&[Said], u32)> {
        let path = outcome.verdict.path.iter().map(|&id| outcome.tree.node(id).drafted_as);
        let spoken = std::iter::once(NodeId::ROOT).chain(path).zip(outcome.emitted());
        let said = |(node, token)| self.0.iter().find(|heard| heard.0 == node).map(|heard| (&heard.1[..], token));
        spoken.filter_map(said).collect()
    }
}

/// Candidates of all drafters by token, best first by `score`, at most `width` tokens. Whoever offered a token is in its list,
/// the one whose candidate stands for it first.
pub(super) fn merged(
    offers: Vec<Offer>,
    width: usize,
    mut score: impl FnMut(&[(DrafterId, f32)]) -> f32,
) -> Vec<Merged> {
    let mut tokens: Vec<Merged> = Vec::new();
    for offer in offers {
        for candidate in offer.candidates {
            match tokens.iter_mut().find(|merged| merged.voices[0].1.token == candidate.token) {
                Some(merged) => merged.voices.push((offer.drafter, candidate)),
                None => tokens.push(Merged { score: 0.0, voices: vec![(offer.drafter, candidate)] }),
            }
        }
    }
    for merged in &mut tokens {
        merged.voices.sort_by(|a, b| b.1.stats.logq.total_cmp(&a.1.stats.logq));
        let voices: Vec<(DrafterId, f32)> = merged.voices.iter().map(|(id, c)| (*id, c.stats.logq.exp())).collect();
        merged.score = score(&voices);
    }
    // Of equals the one that was offered first.
    tokens.sort_by(|a, b| b.score.total_cmp(&a.score));
    tokens.truncate(width);
    tokens
}

/// A token with all who offered it.
pub(super) struct Merged {
    pub(super) score: f32,
    pub(super) voices: Vec<(DrafterId, Candidate)>,
}

impl Merged {
    /// All who offered it, its score as the probability.
    pub(super) fn scored(self) -> Vec<(DrafterId, Candidate)> {
        let q = self.score;
        self.with_probability(q)
    }

    /// All who offered it, each with its own place, and with a probability that they agree on.
    pub(super) fn with_probability(self, q: f32) -> Vec<(DrafterId, Candidate)> {
        let mut voices = self.voices;
        for (_, candidate) in &mut voices {
            candidate.stats.logq = q.clamp(1e-6, 1.0).ln();
        }
        voices
    }
}
