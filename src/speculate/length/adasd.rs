//! `adasd`: stops where the draft's entropy is nearer to that of rejected tokens than to that of accepted ones (the stopping
//! half of AdaSD; reconstruction from the abstract, no hyperparameters).
//!
//! Stop if `H(q) > (E_a + E_r)/2`, the mean entropies of accepted and of rejected tokens so far; the token is kept. Until
//! there are 8 of each it drafts what the drafter says. Drafters that say the same of every token are never stopped by it.
//! State: two means and their numbers.

use super::{LengthPolicy, Signals};
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "adasd",
    paper: "AdaSD, reconstruction from the abstract",
    about: "stops where the draft's entropy is more like that of rejected tokens than of accepted ones",
    needs: "",
    options: &[],
    test: "length::adasd",
    make: Make::Length(|setup| Ok(Box::new(Adasd { cap: setup.config.num_speculative_tokens, ..Adasd::default() }))),
};

/// Tokens of each kind before it decides.
const SAMPLES: u32 = 8;

/// The policy.
#[derive(Debug, Default)]
pub struct Adasd {
    cap: Option<usize>,
    /// Mean entropy and number of rejected tokens, and of accepted ones.
    means: [(f32, u32); 2],
}

impl Adasd {
    fn threshold(&self) -> Option<f32> {
        let [rejected, accepted] = self.means;
        (rejected.1.min(accepted.1) >= SAMPLES).then_some((rejected.0 + accepted.0) / 2.0)
    }
}

impl LengthPolicy for Adasd {
    fn name(&self) -> &'static str {
        "adasd"
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        let uncapped = if self.threshold().is_some() { signals.room } else { signals.default_tokens };
        self.cap.unwrap_or(uncapped).min(signals.room)
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        tree.node(node).stats.logq.exp()
    }

    fn stop(&mut self, tree: &TokenTree, new: &[NodeId], _: &Signals<'_>) -> bool {
        let doubtful = |threshold: f32| new.iter().all(|&node| tree.node(node).stats.entropy > threshold);
        self.threshold().is_some_and(doubtful)
    }

    fn reads_drafts(&self) -> bool {
        true
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        for (node, accepted) in outcome.judged() {
            let (mean, count) = &mut self.means[usize::from(accepted)];
            *count = count.saturating_add(1);
            *mean += (outcome.tree.node(node).stats.entropy - *mean) / *count as f32;
        }
    }

    fn reset(&mut self) {
        *self = Adasd { cap: self.cap, ..Adasd::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Kind, MEASURED, Trace, mixed};

    #[test]
    fn it_learns_to_tell_easy_tokens_from_hard_ones() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Steps, MEASURED, &mixed) };
        let replay = trace.replay("length=adasd", 400);
        assert!(replay.lengths()[..4].iter().all(|&length| length == 4), "at first what the drafter says");
        for outcome in &replay.outcomes[100..] {
            let entropies: Vec<f32> = outcome.tree.nodes()[1..].iter().map(|node| node.stats.entropy).collect();
            // Of sure tokens it is 0.08 nats, of all others more than 0.5.
            let hard = entropies.iter().position(|&entropy| entropy > 0.4).map_or(15, |at| at + 1);
            assert_eq!(entropies.len(), hard, "{entropies:?}");
        }
    }
}
