//! `hedge`: every drafter is scored on the verified tokens, drafted or not (HedgeSpec, "Not-a-Bandit": full information).
//!
//! Each round every host drafter says what it would draft. Once the tokens are known, its gain is the speed it would have had,
//! `s_i = (accepted + 1) · t(1) / t(drafted + 1)`, in plain steps; the gains of rounds whose tokens are not known yet wait.
//! Hedge: `w_i ∝ exp(η Σ s_i / s_max)`, `η = sqrt(8 ln N / T)`. Gains fade with a horizon of T rounds, since the best drafter
//! changes along a text. The first drafter is drawn from w by a hash of the position, the rest follow by weight and fill in.
//! A device drafter is not replayed: it is tried at times, and between these its last speed counts as its gain.
//!
//! State: a number a drafter, and drafts that wait, at most [`MAX_WAITING`]. Reconstruction from secondary sources.

use super::{DraftSelector, DrafterInfo, Selection};
use crate::sampling::pcg4d;
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::Signals;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use std::collections::VecDeque;

/// This method.
pub static METHOD: Method = Method {
    name: "hedge",
    paper: "HedgeSpec, Not-a-Bandit",
    about: "all host drafters scored on the verified tokens, in tokens per millisecond; the best goes first",
    needs: "",
    options: &[OptionSpec {
        key: "hedge_horizon",
        about: "rounds after which a gain counts for a third",
        default: 50.0,
        min: 4.0,
        max: 10_000.0,
    }],
    test: "select::hedge",
    make: Make::Select(|setup| Ok(Box::new(Hedge::new(setup.option("hedge_horizon"))))),
};

/// Rounds that may wait for their tokens; each round brings at least one, and no draft is longer.
const MAX_WAITING: usize = 32;
/// Rounds after which a device drafter is tried again.
const TRY_AGAIN: u64 = 64;

/// Drafts of a round whose tokens are not all known.
#[derive(Debug, Clone)]
struct Waiting {
    context_len: usize,
    drafts: Vec<(DrafterId, Vec<u32>)>,
}

/// What is known of a device drafter.
#[derive(Debug, Clone, Copy)]
struct Tried {
    round: u64,
    speed: f64,
}

/// Weights by full information.
#[derive(Debug, Clone, Default)]
pub struct Hedge {
    horizon: f64,
    /// Faded sums of speeds, by drafter.
    gains: Vec<f64>,
    tried: Vec<Option<Tried>>,
    /// The largest speed that a draft could have had so far: the scale of gains.
    fastest: f64,
    rounds: u64,
    waiting: VecDeque<Waiting>,
    /// Tokens verified since the oldest draft that waits, and the position of the first of them.
    known: VecDeque<u32>,
    known_from: usize,
    cost: CostModel,
}

impl Hedge {
    /// Gains fade over so many rounds.
    pub fn new(horizon: f64) -> Hedge {
        Hedge { horizon, fastest: 1.0, ..Hedge::default() }
    }

    /// Weights of the drafters; they sum to 1.
    pub fn weights(&self) -> Vec<f64> {
        let eta = (8.0 * (self.gains.len().max(2) as f64).ln() / self.horizon).sqrt();
        let most = self.gains.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = self.gains.iter().map(|gain| (eta * (gain - most) / self.fastest).exp());
        let weights: Vec<f64> = weights.collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    fn speed(&self, drafted: usize, accepted: usize) -> f64 {
        let ms = self.cost.verify_ms(drafted + 1) + if drafted > 0 { self.cost.host_draft_ms() } else { 0.0 };
        (accepted + 1) as f64 * self.cost.plain_ms() / ms.max(1e-9)
    }

    /// Scores rounds from the oldest on, as far as their tokens are known.
    fn settle(&mut self) {
        while let Some(round) = self.waiting.front() {
            let skip = round.context_len - self.known_from;
            let known = self.known.iter().skip(skip);
            let accepted: Vec<(DrafterId, usize, usize)> = round
                .drafts
                .iter()
                .map(|(id, draft)| {
                    (*id, draft.len(), draft.iter().zip(known.clone()).take_while(|(a, b)| a == b).count())
                })
                .collect();
            // A draft that was right so far needs more tokens, if it has more.
            let enough = self.known.len().saturating_sub(skip);
            if accepted.iter().any(|&(_, drafted, accepted)| accepted == enough && drafted > enough) {
                break;
            }
            self.waiting.pop_front();
            let fade = 1.0 - 1.0 / self.horizon;
            for (id, gain) in self.gains.iter_mut().enumerate() {
                *gain = *gain * fade + self.tried[id].map_or(0.0, |tried| tried.speed);
            }
            for (id, drafted, accepted) in accepted {
                self.fastest = self.fastest.max(self.speed(drafted, drafted));
                self.gains[usize::from(id.0)] += self.speed(drafted, accepted);
            }
        }
        let needed = self.waiting.front().map_or(self.known_from + self.known.len(), |round| round.context_len);
        while self.known_from < needed {
            self.known.pop_front();
            self.known_from += 1;
        }
    }
}

impl DraftSelector for Hedge {
    fn name(&self) -> &'static str {
        "hedge"
    }

    fn select(&mut self, signals: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        self.rounds += 1;
        self.cost = signals.cost.clone();
        self.gains.resize(drafters.len(), 0.0);
        self.tried.resize(drafters.len(), None);
        let weights = self.weights();
        let mut order: Vec<usize> = (0..drafters.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let stale = |tried: Option<Tried>| tried.is_none_or(|tried| self.rounds - tried.round >= TRY_AGAIN);
        let untried = drafters.iter().position(|info| info.on_device && stale(self.tried[usize::from(info.id.0)]));
        let first = untried.unwrap_or_else(|| {
            let mut left = f64::from(pcg4d([signals.context_len as u32, 0x4ed6_e5ec, 0, 0])[0]) / 4_294_967_296.0;
            let drawn = (0..weights.len()).find(|&id| {
                left -= weights[id];
                left < 0.0
            });
            drawn.unwrap_or(order[0])
        });
        order.retain(|&id| id != first);
        order.insert(0, first);
        Selection::First(order.into_iter().map(|id| drafters[id].id).collect())
    }

    fn wants_all_drafts(&self) -> bool {
        true
    }

    fn drafts(&mut self, context_len: usize, drafts: &[(DrafterId, Vec<u32>)]) {
        if self.known_from + self.known.len() != context_len {
            // Another text, or a part of it that was not seen.
            self.waiting.clear();
            self.known.clear();
            self.known_from = context_len;
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { context_len, drafts: drafts.to_vec() });
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        if self.known_from + self.known.len() == outcome.context_len {
            self.known.extend(outcome.emitted());
        }
        let drafter = outcome.tree.nodes().get(1).and_then(|node| node.source);
        if let Some(id) = drafter.filter(|_| outcome.timing.draft_steps > 0) {
            let steps_ms = outcome.timing.draft_steps as f64 * self.cost.draft_step_ms(id);
            let ms = self.cost.verify_ms(outcome.tree.nodes().len()) + steps_ms;
            let speed = (outcome.verdict.path.len() + 1) as f64 * self.cost.plain_ms() / ms.max(1e-9);
            let tried = self.tried.get_mut(usize::from(id.0));
            if let Some(tried) = tried {
                let known = tried.map_or(speed, |tried| tried.speed);
                *tried = Some(Tried { round: self.rounds, speed: known + 0.2 * (speed - known) });
            }
        }
        self.settle();
    }

    fn reset(&mut self) {
        *self = Hedge::new(self.horizon);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::speculate::drafters::Drafter;
    use crate::speculate::select::testing::{picks, replay, simulated};
    use crate::speculate::shapes::testing::noise;

    /// Three drafters; the best of them changes at a position.
    fn drafters(text: &[u32], change: usize) -> Vec<Box<dyn Drafter>> {
        let alpha = move |before, after| move |at| if at < change { before } else { after };
        vec![
            simulated(text, 1, alpha(0.3, 0.3)),
            simulated(text, 2, alpha(0.8, 0.4)),
            simulated(text, 3, alpha(0.2, 0.8)),
        ]
    }

    /// Rounds whose pick was not the best, before the change and after it; and the rounds it took until 45 of every 50 picks were
    /// the new best.
    pub(crate) fn trace(selector: impl DraftSelector + 'static, text: &[u32], change: usize) -> (usize, usize, usize) {
        let (_, outcomes) = replay(selector, drafters(text, change), text);
        let at = outcomes.iter().position(|outcome| outcome.context_len >= change).unwrap_or(outcomes.len());
        let picks = picks(&outcomes);
        let wrong =
            |picks: &[Option<DrafterId>], best| picks.iter().filter(|&&pick| pick != Some(DrafterId(best))).count();
        let found = picks[at..].windows(50).rposition(|window| wrong(window, 2) > 5).map_or(0, |at| at + 1);
        (wrong(&picks[..at], 1), wrong(&picks[at..], 2), found)
    }

    #[test]
    fn finds_the_new_best_within_fifty_rounds_and_regret_is_sublinear() {
        // The best writes 3.36 tokens a round: the change comes at round 500.
        let long = noise(20_000);
        let (before, after, found) = trace(Hedge::new(50.0), &long, 1700);
        println!("hedge: {before} wrong picks before, {after} after, new best found after {found} rounds");
        assert!(found <= 50, "{found}");
        let (_, early, _) = trace(Hedge::new(50.0), &long[..5000], 1700);
        assert!(after < 2 * early && before < 60, "five times the rounds, {after} wrong picks against {early}");
    }

    #[test]
    fn prefers_speed_to_tokens() {
        // The second is right less often, but in shorter drafts: with columns dear it is faster.
        let text = noise(4000);
        let mut hedge = Hedge::new(50.0);
        hedge.cost = CostModel::of_curve([1.0, 1.6, 2.4, 4.5, 9.0], &[]);
        hedge.gains = vec![0.0; 2];
        hedge.tried = vec![None; 2];
        for at in (10..2000).step_by(2) {
            let draft = |len: usize, right: usize| (0..len).map(|i| text[at + i] + u32::from(i >= right)).collect();
            hedge.drafts(at, &[(DrafterId(0), draft(7, 2)), (DrafterId(1), draft(1, 1))]);
            hedge.known.extend(&text[at..at + 2]);
            hedge.settle();
        }
        assert!(hedge.weights()[1] > 0.9 && hedge.waiting.len() < 8, "{:?}", hedge.weights());
    }
}
