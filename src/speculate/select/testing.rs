//! What tests of selectors share: replays of a text by simulated drafters.

use super::{Cascade, DraftSelector};
use crate::error::Result;
use crate::sampling::SamplingParams;
use crate::speculate::accept::Match;
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::{Ask, DraftContext, Drafter, DrafterId, Expansion, each_leaf};
use crate::speculate::length::Fixed;
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::round::{Parts, Speculator};
use crate::speculate::shapes::{Chain, Dynamic, TreeShape};
use crate::speculate::simulate::{SimulatedDrafter, SimulatedTarget};
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use futures_lite::future::block_on;

/// A host drafter of chains that is right with probability `alpha(position)`.
pub(crate) fn simulated(text: &[u32], seed: u32, alpha: impl Fn(usize) -> f32 + 'static) -> Box<dyn Drafter> {
    Box::new(SimulatedDrafter { seed, ..SimulatedDrafter::new(text.to_vec(), alpha) })
}

/// Drafters, a shape and a selector, with drafts of four tokens.
pub(crate) fn speculator(
    selector: impl DraftSelector + 'static,
    shape: impl TreeShape + 'static,
    drafters: Vec<Box<dyn Drafter>>,
    nodes: usize,
) -> Speculator {
    let parts = Parts {
        drafters,
        length: Box::new(Fixed(Some(nodes))),
        shape: Box::new(shape),
        rule: Box::new(Match),
        selector: Box::new(selector),
    };
    Speculator::new(parts, "on".to_owned())
}

/// Mean acceptance length of a replay of `text` by chains of four tokens, and its rounds.
pub(crate) fn replay(
    selector: impl DraftSelector + 'static,
    drafters: Vec<Box<dyn Drafter>>,
    text: &[u32],
) -> (f64, Vec<RoundOutcome>) {
    let mut speculator = speculator(selector, Chain, drafters, 4);
    let outcomes = rounds(&mut speculator, text);
    (speculator.totals.mean_acceptance_length(), outcomes)
}

/// The rounds of a replay.
pub(crate) fn rounds(speculator: &mut Speculator, text: &[u32]) -> Vec<RoundOutcome> {
    let target = SimulatedTarget::new(text.to_vec(), CostModel::of_curve([1.0, 1.1, 1.2, 1.4, 1.8], &[]), 0.1);
    let outcomes = target.replay(speculator, 1).expect("replay");
    let written: Vec<u32> = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
    assert_eq!(written, text[1..], "the text is the target's");
    outcomes
}

/// Who drafted the rounds' first tokens.
pub(crate) fn picks(outcomes: &[RoundOutcome]) -> Vec<Option<DrafterId>> {
    outcomes.iter().map(|outcome| outcome.tree.nodes().get(1).and_then(|node| node.source)).collect()
}

/// Copies that go on from where they stand only: it keeps a cursor, as prompt lookup does, and its copy errs at every
/// `errs`-th position.
struct Copier {
    text: Vec<u32>,
    errs: usize,
}

impl Drafter for Copier {
    fn name(&self) -> &'static str {
        "copier"
    }

    fn default_tokens(&self) -> usize {
        4
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| {
            let start = (leaf == NodeId::ROOT).then_some(context.tokens.len());
            let Some(at) = start.or_else(|| ask.cursor(tree, leaf)) else { return Vec::new() };
            let wrong = 5000 * self.errs as u32 * u32::from(at % self.errs == 0);
            let token = self.text.get(at).map(|token| token + wrong);
            token
                .map(|token| Candidate::new(token, DraftStats::of_probability(0.8)).at(at as u32 + 1))
                .into_iter()
                .collect()
        }))
    }
}

/// At every place of a text the merged tree of two copiers, in a budget of both their drafts, has both their chains in it, and so
/// accepts as much as the better of the two.
pub(crate) fn holds_what_each_alone_gets<S: DraftSelector + 'static>(selector: impl Fn() -> S) {
    let text = crate::speculate::shapes::testing::noise(300);
    let copier = |errs| -> Box<dyn Drafter> { Box::new(Copier { text: text.clone(), errs }) };
    let target = SimulatedTarget::new(text.clone(), CostModel::default(), 0.1);
    let sampling = SamplingParams::default();
    let round = |speculator: &mut Speculator, at: usize| {
        block_on(speculator.round(&target, &text[..at], &sampling, text.len() - at)).expect("round")
    };
    let dynamic = || Dynamic::new(4, 4);
    let mut merged = speculator(selector(), dynamic(), vec![copier(5), copier(3)], 8);
    let mut first = speculator(Cascade, dynamic(), vec![copier(5)], 4);
    let mut second = speculator(Cascade, dynamic(), vec![copier(3)], 4);
    let mut both_live = 0;
    for at in 10..200 {
        let (merged, first, second) = (round(&mut merged, at), round(&mut first, at), round(&mut second, at));
        for alone in [&first, &second] {
            let end = NodeId(alone.tree.drafted() as u16);
            let path = alone.tree.path_tokens(end);
            let mut node = NodeId::ROOT;
            for token in path {
                node = merged
                    .tree
                    .child(node, token)
                    .unwrap_or_else(|| panic!("{token} of a chain is missing at {at}"))
                    .child;
            }
            assert!(merged.verdict.path.len() >= alone.verdict.path.len());
        }
        let sources = |id: u8| merged.tree.nodes().iter().any(|node| node.source == Some(DrafterId(id)));
        both_live += usize::from(sources(0) && sources(1));
    }
    assert!(both_live > 50, "{both_live} rounds had nodes of both");
}
