//! `fixed`: the same number of tokens every round (Leviathan et al., arXiv 2211.17192). Keeps no state.

use super::LengthPolicy;
use crate::speculate::outcome::RoundOutcome;

/// `num_speculative_tokens`, or each drafter's own number where it is not given.
#[derive(Debug, Clone, Copy)]
pub struct Fixed(pub Option<usize>);

impl LengthPolicy for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn budget(&self, default: usize) -> usize {
        self.0.unwrap_or(default)
    }

    fn observe(&mut self, _: &RoundOutcome) {}
}
