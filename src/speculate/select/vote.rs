//! `vote`: drafters vote for nodes of a merged tree (Minions, arXiv 2402.15678).
//!
//! Every drafter is asked at every leaf. A token weighs `Σ w_i` of the drafters that offer it; the heaviest come first, and what
//! few of those who spoke stand for counts as less likely: `q = max q_i · Σ w_for / Σ w_spoken`. Where drafters agree they share a
//! node, and each goes on below it from its own place, so with a shape of branches the merged tree holds what each alone would
//! get. Where the target spoke, each drafter that was wrong has its weight times β, down to [`LEAST`]; the largest is kept at 1.
//!
//! State: a weight a drafter. From secondary sources.

use super::heard::{Heard, merged};
use super::{DraftSelector, DrafterInfo, Offer, Selection};
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "vote",
    paper: "Minions, arXiv 2402.15678",
    about: "a tree merged of all drafters, the tokens of the heaviest vote first",
    needs: "",
    options: &[OptionSpec {
        key: "vote_decrease",
        about: "factor on the weight of a drafter that was wrong",
        default: 0.9,
        min: 0.1,
        max: 1.0,
    }],
    test: "select::vote",
    make: Make::Select(|setup| Ok(Box::new(Vote::new(setup.option("vote_decrease") as f32)))),
};

/// The least weight: a drafter that was wrong for long can come back.
const LEAST: f32 = 0.05;

/// Weighted votes.
#[derive(Debug, Clone)]
pub struct Vote {
    decrease: f32,
    weights: Vec<f32>,
    heard: Heard,
}

impl Vote {
    /// The weight of a drafter that was wrong is multiplied by `decrease`.
    pub fn new(decrease: f32) -> Vote {
        Vote { decrease, weights: Vec::new(), heard: Heard::default() }
    }
}

impl DraftSelector for Vote {
    fn name(&self) -> &'static str {
        "vote"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        self.weights.resize(drafters.len(), 1.0);
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
        let weight = |id: DrafterId| self.weights[usize::from(id.0)];
        let spoken: f32 = offers.iter().map(|offer| weight(offer.drafter)).sum();
        // Votes first; of equal votes the more probable.
        let votes = |voices: &[(DrafterId, f32)]| {
            let most = voices.iter().map(|voice| voice.1).fold(0.0, f32::max);
            voices.iter().map(|voice| weight(voice.0)).sum::<f32>() + 1e-3 * most
        };
        let tokens = merged(offers, width, votes).into_iter();
        tokens
            .flat_map(|token| {
                let votes: f32 = token.voices.iter().map(|voice| weight(voice.0)).sum();
                let most = token.voices[0].1.stats.logq.exp();
                token.with_probability(most * votes / spoken)
            })
            .collect()
    }

    fn looks_at_drafts(&self) -> bool {
        true
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        for (said, token) in self.heard.judged(outcome) {
            for said in said {
                // A drafter stands for its first guess.
                if said.tokens.first().is_some_and(|first| first.0 != token) {
                    let weight = &mut self.weights[usize::from(said.drafter.0)];
                    *weight = (*weight * self.decrease).max(LEAST);
                }
            }
            let most = self.weights.iter().copied().fold(LEAST, f32::max);
            self.weights.iter_mut().for_each(|weight| *weight /= most);
        }
    }

    fn reset(&mut self) {
        *self = Vote::new(self.decrease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::select::Cascade;
    use crate::speculate::select::testing::{holds_what_each_alone_gets, replay, simulated};
    use crate::speculate::shapes::testing::noise;

    #[test]
    fn the_merged_tree_holds_what_each_alone_would_get() {
        holds_what_each_alone_gets(|| Vote::new(0.9));
    }

    #[test]
    fn the_majority_is_right_more_often_than_each_of_it() {
        let text = noise(6000);
        let one = |seed| simulated(&text, seed, |_| 0.6);
        // Wrong guesses differ between the three, so two that agree are right.
        let differ = |seed: u32| {
            let drafter = crate::speculate::simulate::SimulatedDrafter {
                seed,
                wrong: 20 + seed,
                ..crate::speculate::simulate::SimulatedDrafter::new(text.clone(), |_| 0.6)
            };
            Box::new(drafter) as Box<dyn crate::speculate::drafters::Drafter>
        };
        let (vote, _) = replay(Vote::new(1.0), vec![differ(1), differ(2), differ(3)], &text);
        let (alone, _) = replay(Cascade, vec![one(1)], &text);
        println!("vote {vote:.3} alone {alone:.3}");
        assert!(vote > 1.1 * alone, "{vote} of {alone}");
    }

    #[test]
    fn who_is_wrong_loses_weight_and_can_win_it_back() {
        let text = noise(4000);
        let change = |before, after| move |at| if at < 2000 { before } else { after };
        let drafters = vec![simulated(&text, 1, change(0.2, 0.9)), simulated(&text, 2, change(0.9, 0.2))];
        let (vote, outcomes) = replay(Vote::new(0.9), drafters, &text);
        let first = |range: std::ops::Range<usize>| {
            let rounds: Vec<_> = outcomes.iter().filter(|outcome| range.contains(&outcome.context_len)).collect();
            let first = rounds.iter().filter(|round| round.tree.node(NodeId(1)).source == Some(DrafterId(0))).count();
            first as f64 / rounds.len() as f64
        };
        println!("vote {vote:.3}; the first leads in {:.2}, then {:.2} of rounds", first(200..2000), first(2200..4000));
        assert!(first(200..2000) < 0.35 && first(2200..4000) > 0.65);
    }
}
