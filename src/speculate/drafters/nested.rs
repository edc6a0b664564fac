//! `nested`: a drafter for the drafter (TriForce, arXiv 2404.11912: small drafts for middle, middle drafts for target).
//!
//! A cheap host drafter guesses a chain; the draft model checks it in one pass, as a target would by `match`; what it agrees
//! with and its own next token are the draft. So the draft model takes a pass for several tokens instead of one each, and its
//! tokens are exactly those that `model` would draft. `nested` alone takes `ngram` inside, `nested(suffix)` another host
//! drafter. With `kv=window` the model looks at sinks and a window only, which is TriForce's middle tier.
//! State: the draft's KV cache and the inner drafter's own.

use super::passes::{Passes, Step, drawn};
use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, each_leaf};
use crate::error::{Error, Result};
use crate::plan::MAX_COLUMNS;
use crate::speculate::accept::ProposalKind;
use crate::speculate::chance::KeyedChance;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{Candidate, NodeId, TokenTree};
use std::cell::RefCell;
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "nested",
    paper: "TriForce, arXiv 2404.11912",
    about: "a host drafter (ngram unless named in brackets) drafts for the draft model, which drafts for the target",
    needs: "a draft model",
    options: &[],
    test: "tests/drafting.rs: a_nested_draft_takes_fewer_passes",
    make: Make::Drafter(|setup| {
        let passes = Passes::new(Rc::clone(setup.draft_model()?), setup.kv_view()?);
        let inner = setup.drafter(setup.inner.unwrap_or("ngram"))?;
        if inner.on_device() {
            return Err(Error::BadOption {
                name: "speculation.drafter".to_owned(),
                found: format!("nested({})", inner.name()),
                expected: "a host drafter in the brackets, such as nested(ngram)".to_owned(),
            });
        }
        Ok(Box::new(Nested { passes, inner, guess: Vec::new(), ready: Vec::new(), path: Vec::new() }))
    }),
};

/// Tokens that the inner drafter guesses at most: a pass of 8 columns with the leaf.
const MAX_GUESS: usize = 7;

/// A draft model with a drafter of its own.
pub struct Nested {
    passes: Passes,
    inner: Box<dyn Drafter>,
    /// What the pass in flight checks.
    guess: Vec<u32>,
    /// Checked tokens that come below this path, last first.
    ready: Vec<Candidate>,
    path: Vec<u32>,
}

impl Nested {
    /// A chain by the inner drafter below the path to a leaf.
    fn guess(&mut self, context: &DraftContext<'_>, tree: &TokenTree, leaf: NodeId) -> Result<Vec<u32>> {
        // All of it: the inner drafter may find its match anywhere.
        let tokens = [context.tokens, &tree.path_tokens(leaf)].concat();
        // Point masses: nothing is drawn here.
        let chance = RefCell::new(KeyedChance::new(0, 0));
        let (sampling, draws) = (context.sampling, ProposalKind::Deterministic);
        let context = DraftContext { tokens: &tokens, sampling, draws, chance: &chance, forced: &[] };
        self.inner.begin(&context);
        let mut chain = TokenTree::new(tokens[tokens.len() - 1]);
        let mut at = NodeId::ROOT;
        while chain.drafted() < MAX_GUESS {
            let ask = Ask { leaves: &[at], width: 1, me: DrafterId(0) };
            let Expansion::Ready(found) = self.inner.expand(&context, &chain, &ask)? else { break };
            let child = found.first().and_then(|found| found.first()).and_then(|c| chain.attach(at, c, DrafterId(0)));
            match child {
                Some((child, _)) => at = child,
                None => break,
            }
        }
        Ok(chain.path_tokens(at))
    }
}

impl Drafter for Nested {
    fn name(&self) -> &'static str {
        "nested"
    }

    fn default_tokens(&self) -> usize {
        7
    }

    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn on_device(&self) -> bool {
        true
    }

    fn begin(&mut self, _: &DraftContext<'_>) {
        self.passes.begin();
        self.ready.clear();
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        let last = tree.nodes().len() - 1;
        let in_order = ask.leaves == [NodeId(last as u16)] && ask.width == 1;
        // Others may have gone on where the checked tokens would.
        let goes_on = in_order && tree.path_tokens(ask.leaves[0]) == self.path;
        if let Some(next) = self.ready.pop().filter(|_| goes_on) {
            self.path.push(next.token);
            return Ok(Expansion::Ready(vec![vec![next]]));
        }
        self.ready.clear();
        // Only a chain can be run ahead: its next nodes get the next numbers. Who wants q wants every token drawn from it.
        let guesses = in_order && context.draws == ProposalKind::Deterministic;
        self.guess = if guesses { self.guess(context, tree, ask.leaves[0])? } else { Vec::new() };
        let room = self.passes.room(context.tokens.len(), MAX_COLUMNS).saturating_sub(last);
        self.guess.truncate(room);
        Ok(match self.passes.expand(context, tree, ask, &self.guess) {
            Step::Pass(pass) | Step::CatchUp(pass) => Expansion::Pass(pass),
            Step::None => each_leaf(ask, |_| Vec::new()),
        })
    }

    fn absorb(
        &mut self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        words: &[u32],
        logits: &[f32],
    ) -> Result<Expansion> {
        if self.guess.is_empty() {
            let mut candidates = self.passes.candidates(context, tree, ask, words, logits);
            candidates.resize(ask.leaves.len(), Vec::new());
            return Ok(Expansion::Ready(candidates));
        }
        let rows = Passes::rows(words);
        let mut checked = Vec::new();
        for (at, (sample, row)) in rows.iter().enumerate() {
            checked.extend(drawn(*sample, row, 1));
            if self.guess.get(at) != Some(sample) {
                break;
            }
        }
        // The model ran what it agreed with; its own last token it has not seen yet.
        let agreed: Vec<u32> = checked.iter().map(|candidate| candidate.token).collect();
        let agreed = &agreed[..agreed.len().saturating_sub(1)];
        self.passes.ran(ask.leaves[0], tree.nodes().len(), agreed);
        checked.reverse();
        self.ready = checked;
        let next = self.ready.pop();
        self.path = tree.path_tokens(ask.leaves[0]);
        self.path.extend(next.as_ref().map(|next| next.token));
        Ok(Expansion::Ready(vec![next.into_iter().collect()]))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        self.passes.observe(outcome);
        self.inner.observe(outcome, me);
    }

    fn reset(&mut self) {
        self.passes.reset();
        self.inner.reset();
        self.ready.clear();
    }
}
