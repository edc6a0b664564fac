//! What is kept of a draft. A rule says what it promises, by type.

mod match_samples;

pub use match_samples::Match;

use super::outcome::{RowStats, Verdict};
use super::tree::TokenTree;

/// What the text of a combination is worth against plain decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// The same tokens as plain decoding with the same seed.
    SameTokens,
}

/// Decides from the target's rows which nodes of a tree are kept.
pub trait AcceptanceRule {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// What it promises.
    fn exactness(&self) -> Exactness;
    /// `rows[i]` is the target's row at node `i`.
    fn verify(&mut self, tree: &TokenTree, rows: &[RowStats]) -> Verdict;
}
