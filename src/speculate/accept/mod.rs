//! What is kept of a draft. A rule says what it promises, by type.

pub mod adasd;
pub mod cactus;
pub mod easd;
pub mod fuzzy;
pub mod greedy;
pub mod kseq;
pub mod match_samples;
pub mod multi_round;
pub mod rejection;
pub mod residual;
pub mod swor;
#[cfg(test)]
pub(crate) mod testing;
pub mod top_down;
pub mod traversal;
pub mod typical;

pub use match_samples::Match;
pub use top_down::{LocalSolver, TopDown};
pub use traversal::Traversal;

use super::chance::Chance;
use super::methods::Method;
use super::outcome::{Needs, RoundOutcome, Row, Verdict};
use super::tree::{Proposal, TokenTree};

/// What the text of a combination is worth against plain decoding, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// The same tokens as plain decoding with the same seed.
    SameTokens,
    /// Other tokens than plain decoding with the same seed, of exactly the same distribution.
    SameDistribution,
    /// The same tokens at temperature 0; at other temperatures another text.
    GreedyOnly,
    /// Another distribution, within a stated bound of the target's.
    Bounded,
    /// Another distribution, without a bound.
    Heuristic,
}

impl Exactness {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Exactness::SameTokens => "same-tokens",
            Exactness::SameDistribution => "same-distribution",
            Exactness::GreedyOnly => "greedy-only",
            Exactness::Bounded => "bounded",
            Exactness::Heuristic => "heuristic",
        }
    }
}

/// Kinds of proposal, as rules speak of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalKind {
    /// Point masses.
    Deterministic,
    /// Independent draws from q.
    Sampled,
    /// Draws from q without replacement.
    SampledWor,
}

impl Proposal {
    /// Its kind.
    pub fn kind(&self) -> ProposalKind {
        match self {
            Proposal::Deterministic => ProposalKind::Deterministic,
            Proposal::Sampled(_) => ProposalKind::Sampled,
            Proposal::SampledWor(_) => ProposalKind::SampledWor,
        }
    }
}

/// Decides from the target's rows which nodes of a tree are kept.
pub trait AcceptanceRule {
    /// Its entry in the registry.
    fn method(&self) -> &'static Method;
    /// Name in configurations.
    fn name(&self) -> &'static str {
        self.method().name
    }
    /// What it promises; what the registry does not know as a rule promises nothing.
    fn exactness(&self) -> Exactness {
        self.method().exactness().unwrap_or(Exactness::Heuristic)
    }
    /// What it reads beyond the samples.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// Proposals for which its promise holds.
    fn supports(&self, proposal: ProposalKind) -> bool;
    /// How a drafter that can sample should draw for this rule.
    fn draws(&self) -> ProposalKind {
        ProposalKind::Deterministic
    }
    /// Whether it is exact only if the number of siblings was fixed before they were drawn.
    fn fixed_width(&self) -> bool {
        false
    }
    /// `rows[i]` is the target's row at node `i`.
    fn verify(&mut self, tree: &TokenTree, rows: &[Row], chance: &mut dyn Chance) -> Verdict;
    /// Learns from a round.
    fn observe(&mut self, _outcome: &RoundOutcome) {}
    /// Forgets what was learned.
    fn reset(&mut self) {}
}
