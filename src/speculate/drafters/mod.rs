//! Where candidate tokens come from.

pub mod automaton;
pub mod corpus;
pub mod draws;
pub mod grammar;
pub mod hierarchy;
pub mod jacobi;
pub mod model;
pub mod nested;
pub mod ngram;
pub mod ouroboros;
pub mod passes;
pub mod recycling;
pub mod reuse;
pub mod sam;
pub mod self_exit;
pub mod suffix;
pub mod suffix_array;
pub mod suffix_store;

pub use model::DraftModel;
pub use ngram::Ngram;

use super::accept::ProposalKind;
use super::chance::Chance;
use super::outcome::{Needs, RoundOutcome};
use super::tree::{Candidate, DraftStats, NodeId, TokenTree};
use crate::error::{Error, Result};
use crate::plan::{BufferId, Params, PlanId, Submission};
use crate::sampling::SamplingParams;
use std::cell::RefCell;

/// A drafter of a speculator, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DrafterId(pub u8);

/// What a drafter may look at.
pub struct DraftContext<'a> {
    /// Every committed token; the last one is the root.
    pub tokens: &'a [u32],
    /// How the target samples; a draft model samples in the same way with the same noise.
    pub sampling: &'a SamplingParams,
    /// How a drafter that can sample is to draw, by the acceptance rule.
    pub draws: ProposalKind,
    /// For drafters that sample on the host.
    pub chance: &'a RefCell<dyn Chance + 'a>,
    /// What the request's grammar leaves no choice about, after the committed tokens.
    pub forced: &'a [u32],
}

impl DraftContext<'_> {
    /// The last `most` of the committed tokens and those on the path to `leaf`.
    pub fn tail(&self, tree: &TokenTree, leaf: NodeId, most: usize) -> Vec<u32> {
        let path = tree.path_tokens(leaf);
        let more = most.saturating_sub(path.len()).min(self.tokens.len());
        let all = [&self.tokens[self.tokens.len() - more..], &path].concat();
        all[all.len().saturating_sub(most)..].to_vec()
    }
}

/// Cursors from here on are those of a drafter that wraps another; the one inside does not see them.
pub(crate) const WRAPPER_CURSOR: u32 = 1 << 31;

/// What a shape asks of a drafter.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask<'a> {
    /// Nodes to grow.
    pub leaves: &'a [NodeId],
    /// Children wanted below each.
    pub width: usize,
    /// The place of the drafter that is asked.
    pub me: DrafterId,
}

impl Ask<'_> {
    /// Where this drafter stood after `node`; `None` where it did not offer it, or left no cursor.
    pub fn cursor(&self, tree: &TokenTree, node: NodeId) -> Option<usize> {
        let cursor = tree.node(node).cursor_of(self.me).filter(|&cursor| cursor < WRAPPER_CURSOR);
        cursor.map(|cursor| cursor as usize)
    }
}

/// A pass of a draft model that has to run before its candidates are known.
pub struct DraftPass {
    /// The work; it has a submit and a map of its own, which are counted.
    pub submission: Submission,
    /// Logits to read back after it: the buffer, and words. One more map.
    pub logits: Option<(BufferId, usize)>,
    /// The draft model was behind by more than a pass, which it ran too.
    pub caught_up: bool,
}

/// An answer to an [`Ask`].
pub enum Expansion {
    /// Candidates below each leaf, in the order of the leaves, best first; empty where there are none.
    Ready(Vec<Vec<Candidate>>),
    /// They come by [`Drafter::absorb`] once this has run.
    Pass(DraftPass),
}

/// A chain drafted inside the verify pass's submit.
pub struct InnerDraft {
    /// Tokens to be put into `TOKENS` (the draft's KV catches up as extra columns), the root last.
    pub inputs: Vec<u32>,
    /// Passes to run before the verify pass. They find `inputs` at `TOKENS[0]` and write the token at depth i to
    /// `TOKENS[inputs.len() - 1 + i]`.
    pub runs: Vec<(PlanId, Params)>,
    /// Tokens they draft; may be 0 where the draft model only catches up.
    pub tokens: usize,
    /// Passes that each wait for the one before.
    pub steps: usize,
    /// The draft model was behind by more than a pass, which it ran too.
    pub caught_up: bool,
}

/// A source of candidates. Every call is synchronous: a *host* drafter answers at once, a *device* drafter records passes.
pub trait Drafter {
    /// Name in configurations and statistics.
    fn name(&self) -> &'static str;
    /// Tokens it would draft this round where nothing else says; asked after [`Drafter::begin`].
    fn default_tokens(&self) -> usize;
    /// What it learns from beyond the samples.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// Whether its candidates cost passes of a model.
    fn on_device(&self) -> bool {
        false
    }
    /// A round begins: takes in what was committed since the last one.
    fn begin(&mut self, _context: &DraftContext<'_>) {}
    /// Candidates below leaves.
    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion>;
    /// Goes on after the pass that [`Drafter::expand`] recorded, with the words it wanted read and the logits.
    fn absorb(
        &mut self,
        _context: &DraftContext<'_>,
        _tree: &TokenTree,
        _ask: &Ask<'_>,
        _words: &[u32],
        _logits: &[f32],
    ) -> Result<Expansion> {
        Err(Error::Gpu { reason: format!("drafter {} recorded no pass", self.name()) })
    }
    /// A chain of up to `count` tokens to run inside the verify pass's submit; `None` where it cannot.
    fn record(&mut self, _context: &DraftContext<'_>, _count: usize) -> Result<Option<InnerDraft>> {
        Ok(None)
    }
    /// Learns from a round, whoever drafted it. `me` is its place in the configuration.
    fn observe(&mut self, _outcome: &RoundOutcome, _me: DrafterId) {}
    /// Forgets what it learned.
    fn reset(&mut self) {}
}

/// How often something came true, the recent more than the old: a probability that stays truthful.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(f32);

impl Rate {
    /// Share of a new observation.
    const ALPHA: f32 = 0.05;

    pub(crate) const fn new(prior: f32) -> Rate {
        Rate(prior)
    }

    pub(crate) fn learn(&mut self, came_true: bool) {
        self.0 += Rate::ALPHA * (f32::from(u8::from(came_true)) - self.0);
    }

    pub(crate) fn stats(self) -> DraftStats {
        DraftStats::of_probability(self.0)
    }
}

/// What a copy is worth: `share` of the places that match go on in this way, and `matched` tokens agree so far, those drafted
/// since included. `share · m² / (m² + 4)` is what SmolLM2's own answers to the development prompts say, within a tenth.
pub(crate) fn copied(share: f32, matched: usize) -> DraftStats {
    let square = (matched * matched) as f32;
    DraftStats::of_probability(share * square / (square + 4.0))
}

/// Candidates below each leaf by a function of the leaf: what most host drafters come down to.
pub(crate) fn each_leaf(ask: &Ask<'_>, mut candidates: impl FnMut(NodeId) -> Vec<Candidate>) -> Expansion {
    Expansion::Ready(
        ask.leaves
            .iter()
            .map(|&leaf| {
                let mut found = candidates(leaf);
                found.truncate(ask.width);
                found
            })
            .collect(),
    )
}

#[cfg(test)]
pub(crate) mod testing {
    //! Drafters on given tokens, without a target or with a recorded one.

    use super::*;
    use crate::speculate::accept::Match;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::cost::CostModel;
    use crate::speculate::length::Fixed;
    use crate::speculate::round::{Parts, Speculator};
    use crate::speculate::select::Cascade;
    use crate::speculate::shapes::Chain;
    use crate::speculate::simulate::SimulatedTarget;

    /// What is below the end of a path of drafted tokens, after a round has begun.
    pub(crate) fn with<T>(tokens: &[u32], look: impl FnOnce(&DraftContext<'_>) -> T) -> T {
        let (sampling, chance) = (SamplingParams::default(), RefCell::new(KeyedChance::new(0, 0)));
        let draws = ProposalKind::Deterministic;
        look(&DraftContext { tokens, sampling: &sampling, draws, chance: &chance, forced: &[] })
    }

    fn ready(expansion: Result<Expansion>) -> Vec<Candidate> {
        match expansion {
            Ok(Expansion::Ready(mut found)) => found.swap_remove(0),
            _ => panic!("a host drafter answers at once"),
        }
    }

    /// The candidates below the root.
    pub(crate) fn children(drafter: &mut dyn Drafter, tokens: &[u32], width: usize) -> Vec<u32> {
        with(tokens, |context| {
            drafter.begin(context);
            let tree = TokenTree::new(tokens[tokens.len() - 1]);
            let ask = Ask { leaves: &[NodeId::ROOT], width, me: DrafterId(0) };
            ready(drafter.expand(context, &tree, &ask)).into_iter().map(|candidate| candidate.token).collect()
        })
    }

    /// The chain that a drafter drafts below `led`, which another one drafted.
    pub(crate) fn chain_below(drafter: &mut dyn Drafter, tokens: &[u32], led: &[u32], most: usize) -> TokenTree {
        with(tokens, |context| {
            drafter.begin(context);
            let mut tree = TokenTree::chain(tokens[tokens.len() - 1], led, DrafterId(9));
            while tree.drafted() < led.len() + most {
                let at = NodeId(tree.drafted() as u16);
                let ask = Ask { leaves: &[at], width: 1, me: DrafterId(0) };
                let found = ready(drafter.expand(context, &tree, &ask));
                if found.first().and_then(|candidate| tree.attach(at, candidate, DrafterId(0))).is_none() {
                    break;
                }
            }
            tree
        })
    }

    /// The chain that a drafter drafts alone.
    pub(crate) fn chain(drafter: &mut dyn Drafter, tokens: &[u32], most: usize) -> Vec<u32> {
        let tree = chain_below(drafter, tokens, &[], most);
        tree.path_tokens(NodeId(tree.drafted() as u16))
    }

    /// A target that writes this text.
    pub(crate) fn simulated(text: Vec<u32>) -> SimulatedTarget {
        SimulatedTarget::new(text, CostModel::of_curve([1.0; 5], &[]), 0.0)
    }

    /// A speculator of one drafter, by chains of a fixed length and `match`.
    pub(crate) fn speculator(drafter: Box<dyn Drafter>, length: Option<usize>) -> Speculator {
        let parts = Parts {
            drafters: vec![drafter],
            length: Box::new(Fixed(length)),
            shape: Box::new(Chain),
            rule: Box::new(Match),
            selector: Box::new(Cascade),
        };
        Speculator::new(parts, "on".to_owned())
    }

    /// Replays a text from its `prompt` tokens on by chains of a fixed length.
    pub(crate) fn replay(
        target: &SimulatedTarget,
        drafter: Box<dyn Drafter>,
        prompt: usize,
        length: usize,
    ) -> Vec<RoundOutcome> {
        target.replay(&mut speculator(drafter, Some(length)), prompt).expect("replay")
    }
}
