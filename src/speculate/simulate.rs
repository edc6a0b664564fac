//! Rounds without a model: a recorded text and a cost curve stand for the target, so that every drafter can be replayed on
//! real text and every policy has deterministic tests.
//!
//! With `match` a replay gives exactly the rounds that the engine would make on this text, for drafters that learn from
//! committed tokens only. Rows of rejected branches are not in a recording; here they say what the text says at their
//! position, and have no statistics. What learns from the samples of rejected rows (`jacobi`) must be measured on a model.

use super::cost::CostModel;
use super::drafters::{Ask, DraftContext, DraftPass, Drafter, Expansion, each_leaf};
use super::outcome::{RoundOutcome, Row};
use super::round::Speculator;
use super::target::{Job, Target, Verified};
use super::tree::{Candidate, DraftStats, NodeId, TokenTree};
use crate::error::Result;
use crate::plan::{MAX_NODES, RowStats, Submission};
use crate::sampling::{SamplingParams, pcg4d};
use crate::store::LocalFuture;
use futures_lite::future::block_on;
use std::cell::Cell;
use std::rc::Rc;

/// A text that the target is known to write.
pub struct SimulatedTarget {
    /// Prompt and answer.
    pub text: Vec<u32>,
    /// Statistics of the row after each token of the text, where they were recorded.
    pub stats: Vec<Option<Rc<RowStats>>>,
    /// What passes cost; it is also the clock.
    pub cost: CostModel,
    /// What a pass of a draft model costs.
    pub draft_step_ms: f64,
    clock_ms: Cell<f64>,
}

impl SimulatedTarget {
    /// A text, and costs.
    pub fn new(text: Vec<u32>, cost: CostModel, draft_step_ms: f64) -> SimulatedTarget {
        SimulatedTarget { text, stats: Vec::new(), cost, draft_step_ms, clock_ms: Cell::new(0.0) }
    }

    fn spend(&self, ms: f64) {
        self.clock_ms.set(self.clock_ms.get() + ms);
    }

    /// Writes the text from `prompt` tokens on; gives the outcomes. The clock tells what it took.
    pub fn replay(&self, speculator: &mut Speculator, prompt: usize) -> Result<Vec<RoundOutcome>> {
        let mut at = prompt;
        let mut outcomes = Vec::new();
        let sampling = SamplingParams::default();
        while at < self.text.len() {
            let left = self.text.len() - at;
            let outcome = block_on(speculator.round(self, &self.text[..at], &sampling, left))?;
            at += outcome.verdict.path.len() + 1;
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }
}

impl Target for SimulatedTarget {
    fn room(&self, _: usize) -> usize {
        MAX_NODES - 1
    }

    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        self.spend(self.cost.verify_ms(job.tree.nodes().len()));
        let mut recorded = vec![true];
        let rows = job.tree.nodes().iter().enumerate().map(|(index, node)| {
            let position = job.tokens.len() - 1 + node.depth;
            let sample = self.text.get(position + 1).copied().unwrap_or(0);
            if index > 0 {
                recorded.push(recorded[node.parent.index()] && node.token == self.text.get(position).copied());
            }
            Row { stats: self.stats.get(position).cloned().flatten().filter(|_| recorded[index]), ..Row::of(sample) }
        });
        let rows = rows.collect();
        Box::pin(async move { Ok(Verified { drafted: Vec::new(), rows }) })
    }

    fn draft<'a>(&'a self, _: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        self.spend(self.draft_step_ms);
        Box::pin(async { Ok((Vec::new(), Vec::new())) })
    }

    fn commit(&self, _: &[u32], _: &TokenTree, _: &[NodeId]) {}

    fn now_ms(&self) -> f64 {
        self.clock_ms.get()
    }
}

/// A drafter that knows the text and errs on purpose: right with probability `alpha(position)`, the same every time.
pub struct SimulatedDrafter<F> {
    /// The text of the target.
    pub text: Vec<u32>,
    /// P(right) of the token at a position.
    pub alpha: F,
    /// The probability it claims for a token at a position, given whether it is right.
    pub claims: fn(f32, bool) -> f32,
    /// Whether a step costs a pass.
    pub on_device: bool,
    /// Tells drafters apart.
    pub seed: u32,
}

impl<F: Fn(usize) -> f32> SimulatedDrafter<F> {
    /// A host drafter that claims what is true on average.
    pub fn new(text: Vec<u32>, alpha: F) -> SimulatedDrafter<F> {
        SimulatedDrafter { text, alpha, claims: |alpha, _| alpha, on_device: false, seed: 0 }
    }

    fn candidates(&self, context: &DraftContext<'_>, tree: &TokenTree, leaf: NodeId, width: usize) -> Vec<Candidate> {
        let position = context.tokens.len() + tree.node(leaf).depth;
        let Some(&right) = self.text.get(position) else { return Vec::new() };
        let draw = |which: u32| pcg4d([position as u32, self.seed, which, 77])[0] as f32 / 4_294_967_296.0;
        let alpha = (self.alpha)(position);
        let first = if draw(0) < alpha { right } else { right ^ 1 << 16 };
        let stats = DraftStats::of_probability((self.claims)(alpha, first == right));
        let mut all = vec![Candidate::new(first, stats)];
        for sibling in 1..width as u32 {
            // A second guess is right half as often as the first one would have been.
            let token = if first != right && draw(sibling) < alpha / 2.0 { right } else { right ^ (sibling + 1) << 16 };
            all.push(Candidate::new(token, DraftStats::of_probability(alpha * (1.0 - alpha) / 2.0)));
        }
        all
    }
}

impl<F: Fn(usize) -> f32> Drafter for SimulatedDrafter<F> {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn default_tokens(&self) -> usize {
        4
    }

    fn on_device(&self) -> bool {
        self.on_device
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        if self.on_device {
            return Ok(Expansion::Pass(DraftPass { submission: Submission::default(), logits: None }));
        }
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, leaf, ask.width)))
    }

    fn absorb(
        &mut self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        _: &[u32],
        _: &[f32],
    ) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, leaf, ask.width)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::accept::Match;
    use crate::speculate::length::Fixed;
    use crate::speculate::round::Parts;
    use crate::speculate::select::Cascade;
    use crate::speculate::shapes::Chain;

    fn speculator(drafter: Box<dyn Drafter>, length: usize) -> Speculator {
        let parts = Parts {
            drafters: vec![drafter],
            length: Box::new(Fixed(Some(length))),
            shape: Box::new(Chain),
            rule: Box::new(Match),
            selector: Box::new(Cascade),
        };
        Speculator::new(parts, "on".to_owned())
    }

    #[test]
    fn fixed_drafts_have_the_expected_length_and_cost() {
        let text: Vec<u32> = (0..4001).map(|at| at % 97).collect();
        let cost = CostModel::of_curve([1.0, 1.25, 1.5, 2.0, 4.0], &[]);
        for on_device in [false, true] {
            let target = SimulatedTarget::new(text.clone(), cost.clone(), 0.1);
            let drafter = SimulatedDrafter { on_device, ..SimulatedDrafter::new(text.clone(), |_| 0.8) };
            let mut speculator = speculator(Box::new(drafter), 3);
            let outcomes = target.replay(&mut speculator, 1).expect("replay");
            // (1 - 0.8^4) / (1 - 0.8)
            let length = speculator.totals.mean_acceptance_length();
            assert!((length - 2.952).abs() < 0.1, "{length}");
            let round_ms = target.now_ms() / outcomes.len() as f64;
            let expected = if on_device { 1.5 + 0.3 } else { 1.5 };
            assert!((round_ms - expected).abs() < 0.01, "{round_ms}");
            let written: Vec<u32> = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
            assert_eq!(written, text[1..]);
        }
    }
}
