//! `cascade`: drafters in the order of the configuration; the first with something to offer drafts (SAM-Decoding, Hierarchy
//! Drafting). Keeps no state.

use super::{DraftSelector, DrafterInfo, Selection};
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method};

/// This method.
pub static METHOD: Method = Method {
    name: "cascade",
    paper: "SAM-Decoding, arXiv 2411.10666; Hierarchy Drafting, arXiv 2502.05609",
    about: "drafters in their order; the first with something to offer drafts",
    needs: "",
    options: &[],
    test: "select::cascade",
    make: Make::Select(|_| Ok(Box::new(Cascade))),
};

/// The order of the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cascade;

impl DraftSelector for Cascade {
    fn name(&self) -> &'static str {
        "cascade"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        Selection::First(drafters.iter().map(|drafter| drafter.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::select::Cascade;
    use crate::speculate::select::testing::{replay, simulated};

    #[test]
    fn the_next_drafter_fills_in_where_the_first_has_nothing() {
        // The first knows three of ten tokens and says nothing of the others; the second is worse and always there.
        let text = crate::speculate::shapes::testing::noise(3000);
        let first = |at| if at % 10 < 3 { 0.9 } else { -1.0 };
        let (alone, _) = replay(Cascade, vec![simulated(&text, 1, first)], &text);
        let (both, outcomes) = replay(Cascade, vec![simulated(&text, 1, first), simulated(&text, 2, |_| 0.5)], &text);
        assert!(both > alone + 0.3, "{both} of {alone}");
        for outcome in &outcomes {
            for node in &outcome.tree.nodes()[1..] {
                let known = (outcome.context_len + node.depth - 1) % 10 < 3;
                assert_eq!(node.source, Some(DrafterId(u8::from(!known))), "the first comes first");
            }
        }
    }
}
