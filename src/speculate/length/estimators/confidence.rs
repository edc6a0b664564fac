//! `confidence`: the draft's own probability of its token (Hugging Face assisted generation stops below 0.4; Kangaroo and
//! FailFast use the same number, which in a greedy draft is the largest of its row).
//!
//! `â = q(x)`. State: a mean of q by drafter, which speaks for drafts that are not seen in advance.

use super::Mean;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::{AcceptanceEstimator, MAX_DRAFTERS, place};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "confidence",
    paper: "assisted generation, Hugging Face 2023; Kangaroo, arXiv 2404.18911",
    about: "the draft's own probability of its token",
    needs: "",
    options: &[],
    test: "length::estimators::confidence",
    make: Make::Estimator(|_| Ok(Box::new(Confidence::default()))),
};

/// Tokens that the mean of a drafter remembers.
const MEMORY: f32 = 64.0;
/// What is expected of a drafter that has drafted nothing yet.
const PRIOR: f32 = 0.7;

/// q of the token.
#[derive(Debug, Default)]
pub struct Confidence {
    means: [Mean; MAX_DRAFTERS],
}

impl AcceptanceEstimator for Confidence {
    fn name(&self) -> &'static str {
        "confidence"
    }

    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        tree.node(node).stats.logq.exp()
    }

    fn expected(&self, drafter: DrafterId, _: usize) -> f32 {
        self.means[place(Some(drafter))].toward(PRIOR, 1.0)
    }

    fn reads_drafts(&self) -> bool {
        true
    }

    fn threshold(&self) -> f32 {
        0.4
    }

    fn learn(&mut self, tree: &TokenTree, node: NodeId, _: bool) {
        let node = tree.node(node);
        self.means[place(node.source)].add(node.stats.logq.exp(), MEMORY);
    }

    fn reset(&mut self) {
        *self = Confidence::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{FLAT, Kind, Trace, calibration_error, mixed};

    #[test]
    fn is_what_the_draft_says() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Host, FLAT, &mixed) };
        let replay = trace.replay("length=survival,estimator=confidence", 50);
        for node in replay.outcomes.iter().flat_map(|outcome| &outcome.tree.nodes()[1..]) {
            assert!((node.a_hat - node.stats.logq.exp()).abs() < 1e-6);
        }
        // Right from the first token on where the draft is honest, and never where it is not.
        let honest = calibration_error(&trace, "confidence", 2000);
        let boastful = calibration_error(&Trace { claims: |_, _| 0.99, ..trace }, "confidence", 2000);
        assert!(honest < 0.03 && boastful > 0.2, "{honest} {boastful}");
    }
}
