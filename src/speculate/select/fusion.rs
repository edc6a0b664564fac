//! `fusion`: at each depth the most confident drafter's token, fed to all (CoSine; reconstruction from the abstract).
//!
//! `argmax_i c_i · q_i(x)`: every drafter is asked below every leaf, whoever proposed it, and the tokens are taken in the order of
//! their confidence. What drafters claim is not comparable, so each claim is scaled by how far that drafter's claims held:
//! `c_i = (right + 1) / (claimed + 1)`, faded, over its first guesses where the target spoke.
//!
//! State: two sums a drafter.

use super::heard::{Heard, Merged, merged};
use super::{DraftSelector, DrafterInfo, Offer, Selection};
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "fusion",
    paper: "CoSine, arXiv 2503.10325",
    about: "at each depth the token of the most confident drafter, fed to all",
    needs: "",
    options: &[],
    test: "select::fusion",
    make: Make::Select(|_| Ok(Box::new(Fusion::default()))),
};

/// What is left of the sums after a verified token.
const FADE: f32 = 0.99;

/// What a drafter claimed and how much of it was right.
#[derive(Debug, Clone, Copy, Default)]
struct Claims {
    claimed: f32,
    right: f32,
}

/// The most confident first.
#[derive(Debug, Clone, Default)]
pub struct Fusion {
    claims: Vec<Claims>,
    heard: Heard,
}

impl DraftSelector for Fusion {
    fn name(&self) -> &'static str {
        "fusion"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        self.claims.resize(drafters.len(), Claims::default());
        self.heard.clear();
        Selection::All(drafters.iter().map(|drafter| drafter.id).collect())
    }

    fn combine(
        &mut self,
        _: &TokenTree,
        leaf: NodeId,
        offers: Vec<Offer>,
        width: usize,
    ) -> Vec<(DrafterId, Candidate)> {
        self.heard.note(leaf, &offers);
        let scale = |id: DrafterId| {
            let claims = self.claims[usize::from(id.0)];
            (claims.right + 1.0) / (claims.claimed + 1.0)
        };
        let confidence = |voices: &[(DrafterId, f32)]| voices.iter().map(|(id, q)| scale(*id) * q).fold(0.0, f32::max);
        merged(offers, width, confidence).into_iter().flat_map(Merged::scored).collect()
    }

    fn looks_at_drafts(&self) -> bool {
        true
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        for (said, token) in self.heard.judged(outcome) {
            for said in said {
                if let (Some(&(first, q)), Some(claims)) =
                    (said.tokens.first(), self.claims.get_mut(usize::from(said.drafter.0)))
                {
                    claims.claimed = FADE * claims.claimed + q;
                    claims.right = FADE * claims.right + f32::from(u8::from(first == token));
                }
            }
        }
    }

    fn reset(&mut self) {
        *self = Fusion::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::drafters::Drafter;
    use crate::speculate::select::Cascade;
    use crate::speculate::select::testing::{holds_what_each_alone_gets, replay, simulated};
    use crate::speculate::shapes::testing::noise;
    use crate::speculate::simulate::SimulatedDrafter;

    #[test]
    fn the_merged_tree_holds_what_each_alone_would_get() {
        holds_what_each_alone_gets(Fusion::default);
    }

    #[test]
    fn each_token_comes_from_who_is_sure_of_it() {
        // Experts of even and odd places that know which are theirs: only token by token are they good together.
        let text = noise(6000);
        let expert = |seed: u32| simulated(&text, seed, move |at| if at as u32 % 2 == seed { 0.9 } else { 0.3 });
        let (fused, _) = replay(Fusion::default(), vec![expert(0), expert(1)], &text);
        let (cascade, _) = replay(Cascade, vec![expert(0), expert(1)], &text);
        println!("fusion {fused:.3} cascade {cascade:.3}");
        assert!(fused > 1.4 * cascade, "{fused} of {cascade}");
        // A third that is always sure and seldom right is found out.
        let liar: Box<dyn Drafter> =
            Box::new(SimulatedDrafter { seed: 7, claims: |_, _| 0.99, ..SimulatedDrafter::new(text.clone(), |_| 0.1) });
        let (with_liar, _) = replay(Fusion::default(), vec![liar, expert(0), expert(1)], &text);
        println!("with a liar {with_liar:.3}");
        assert!(with_liar > 0.95 * fused, "{with_liar} of {fused}");
    }
}
