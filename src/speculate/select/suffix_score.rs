//! `suffix-score`: a draft is taken if enough of it is expected to be accepted (SuffixDecoding, arXiv 2411.04975).
//!
//! Drafters in their order, each on its own; the draft of one is verified if `Σ survival > τ` over its nodes, else the next is
//! asked. The last is taken whatever it says, and so are device drafters: their drafts may be sampled, and what was sampled
//! must not be looked at before it is chosen. Keeps no state beyond the round.

use super::{DraftSelector, DrafterInfo, Selection};
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::TokenTree;

/// This method.
pub static METHOD: Method = Method {
    name: "suffix-score",
    paper: "SuffixDecoding, arXiv 2411.04975",
    about: "the first draft of which more than a threshold is expected to be accepted, else the last drafter's",
    needs: "",
    options: &[OptionSpec {
        key: "suffix_score_threshold",
        about: "tokens expected to be accepted",
        default: 2.0,
        min: 0.0,
        max: 31.0,
    }],
    test: "select::suffix_score",
    make: Make::Select(|setup| Ok(Box::new(SuffixScore::new(setup.option("suffix_score_threshold") as f32)))),
};

/// A gate on the score of a draft.
#[derive(Debug, Clone)]
pub struct SuffixScore {
    threshold: f32,
    /// Those whose drafts must pass the gate.
    gated: Vec<DrafterInfo>,
}

impl SuffixScore {
    /// Drafts need more than this many expected tokens.
    pub fn new(threshold: f32) -> SuffixScore {
        SuffixScore { threshold, gated: Vec::new() }
    }
}

impl DraftSelector for SuffixScore {
    fn name(&self) -> &'static str {
        "suffix-score"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        let last = drafters.len().saturating_sub(1);
        self.gated = drafters[..last].iter().copied().filter(|info| !info.on_device).collect();
        Selection::Alone(drafters.iter().map(|drafter| drafter.id).collect())
    }

    fn accepts(&mut self, tree: &TokenTree) -> bool {
        let source = tree.nodes().get(1).and_then(|node| node.source);
        let gated = self.gated.iter().any(|info| Some(info.id) == source);
        !gated || tree.nodes()[1..].iter().map(|node| node.survival).sum::<f32>() > self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::drafters::{Drafter, DrafterId};
    use crate::speculate::select::Cascade;
    use crate::speculate::select::testing::{picks, replay, simulated};
    use crate::speculate::shapes::testing::noise;

    #[test]
    fn a_draft_that_promises_little_gives_way() {
        // The first is good in one half of the text, and knows when; the second is middling everywhere.
        let text = noise(4000);
        let good = |at: usize| at % 40 < 20;
        let drafters = || -> Vec<Box<dyn Drafter>> {
            let first = move |at| if good(at) { 0.95 } else { 0.2 };
            vec![simulated(&text, 1, first), simulated(&text, 2, |_| 0.6)]
        };
        let (gated, outcomes) = replay(SuffixScore::new(2.0), drafters(), &text);
        let (cascade, _) = replay(Cascade, drafters(), &text);
        println!("suffix-score {gated:.3} cascade {cascade:.3}");
        assert!(gated > 1.05 * cascade, "{gated} of {cascade}");
        for (outcome, pick) in outcomes.iter().zip(picks(&outcomes)) {
            // Drafts of four tokens: wholly inside a stretch the first passes the gate, or not.
            let at = outcome.context_len;
            if outcome.tree.drafted() == 4 && good(at) == good(at + 3) {
                assert_eq!(pick, Some(DrafterId(u8::from(!good(at)))), "at {at}");
            }
        }
        let (ungated, _) = replay(SuffixScore::new(0.0), drafters(), &text);
        assert_eq!(ungated, cascade, "a threshold of 0 lets everything pass");
    }
}
