//! `heuristic`: two tokens more after a draft that was accepted whole, one less after any other (Hugging Face's assisted
//! generation; the baseline of SVIP).
//!
//! `γ ← γ + 2` if all were accepted (at most 40), else `max(γ − 1, 1)`; rounds without a draft change nothing. Estimates, for
//! shapes that want them, are the draft's own probabilities. State: γ by drafter.

use super::{LengthPolicy, MAX_DRAFTERS, Signals, place};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "heuristic",
    paper: "assisted generation, Hugging Face 2023",
    about: "two tokens more after a draft that was accepted whole, one less after any other",
    needs: "",
    options: &[OptionSpec {
        key: "heuristic_start",
        about: "tokens of the first draft",
        default: 5.0,
        min: 1.0,
        max: 31.0,
    }],
    test: "length::heuristic",
    make: Make::Length(|setup| {
        let start = setup.count("heuristic_start");
        Ok(Box::new(Heuristic {
            start,
            lengths: [start; MAX_DRAFTERS],
            planned: 0,
            cap: setup.config.num_speculative_tokens,
        }))
    }),
};

/// Most tokens.
const MOST: usize = 40;

/// The policy.
#[derive(Debug)]
pub struct Heuristic {
    start: usize,
    lengths: [usize; MAX_DRAFTERS],
    /// The place that was planned by last: another drafter of the group may have filled in.
    planned: usize,
    cap: Option<usize>,
}

impl LengthPolicy for Heuristic {
    fn name(&self) -> &'static str {
        "heuristic"
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        self.planned = place(signals.drafter);
        let length = &mut self.lengths[self.planned];
        // What there is no room for cannot be accepted whole.
        *length = (*length).min(self.cap.unwrap_or(MOST)).max(1);
        (*length).min(signals.room)
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        tree.node(node).stats.logq.exp()
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        if outcome.tree.drafted() == 0 {
            return;
        }
        let length = &mut self.lengths[self.planned];
        *length = if outcome.verdict.path.len() == outcome.tree.depth() {
            (*length + 2).min(MOST)
        } else {
            (*length - 1).max(1)
        };
    }

    fn reset(&mut self) {
        self.lengths = [self.start; MAX_DRAFTERS];
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Kind, MEASURED, Trace, speculator};
    use crate::speculate::cost::CostModel;
    use crate::speculate::drafters::Drafter;
    use crate::speculate::drafters::automaton::tests::random;
    use crate::speculate::simulate::{SimulatedDrafter, SimulatedTarget};

    #[test]
    fn two_up_one_down() {
        let replay =
            Trace::new(Kind::Host, MEASURED, &|at| if at < 200 { 0.8 } else { 0.0 }).replay("length=heuristic", 200);
        let mut length = 5;
        for outcome in &replay.outcomes {
            assert_eq!(outcome.tree.drafted(), length.min(15));
            let whole = outcome.verdict.path.len() == outcome.tree.drafted();
            length = if whole { length + 2 } else { (length - 1).max(1) };
        }
        let lengths = replay.lengths();
        assert!(
            lengths.iter().any(|&length| length > 5) && lengths[180..].iter().all(|&length| length == 1),
            "{lengths:?}"
        );
    }

    #[test]
    fn learns_by_whom_it_planned_when_another_fills_in() {
        let text = random(300, 1 << 15, 1);
        let never: Box<dyn Drafter> = Box::new(SimulatedDrafter::new(text.clone(), |_| -1.0));
        let wrong: Box<dyn Drafter> = Box::new(SimulatedDrafter::new(text.clone(), |_| 0.0));
        let mut speculator = speculator("length=heuristic", vec![never, wrong]);
        let target = SimulatedTarget::new(text, CostModel::of_curve(MEASURED, &[]), 0.1);
        let outcomes = target.replay(&mut speculator, 200).expect("a replay");
        let lengths: Vec<usize> = outcomes.iter().map(|outcome| outcome.tree.drafted()).collect();
        assert_eq!((lengths[0], lengths[10]), (5, 1), "{lengths:?}");
    }
}
