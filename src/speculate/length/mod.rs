//! How much to draft; 0 means a plain step.

mod fixed;

pub use fixed::Fixed;

use super::outcome::RoundOutcome;

/// Decides the number of tokens to draft in the next round.
pub trait LengthPolicy {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// Tokens to draft, at most 15; 0 for a plain step. `default` is what the drafter would like.
    fn budget(&self, default: usize) -> usize;
    /// Learns from a round.
    fn observe(&mut self, outcome: &RoundOutcome);
}
