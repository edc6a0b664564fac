//! `model`: a smaller model of the same vocabulary drafts (Leviathan et al., arXiv 2211.17192).
//!
//! A chain that nobody has to see runs inside the target's submit: step i reads its token from `TOKENS` and its sampler
//! writes the next one there, so nothing is read back between steps. Trees, and policies that look at the draft, take a pass
//! with a submit and a map of its own a step. It samples as the target does, with the same noise, which makes the two agree
//! as often as possible. State: the draft's KV cache.

use super::passes::{Passes, Step};
use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, InnerDraft, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::TokenTree;
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "model",
    paper: "Leviathan et al., arXiv 2211.17192",
    about: "a smaller model of the same vocabulary, sampling with the target's noise",
    needs: "a draft model",
    options: &[],
    test: "tests/rounds.rs: a_draft_model_that_fell_behind_catches_up",
    make: Make::Drafter(|setup| {
        let passes = Passes::new(Rc::clone(setup.draft_model()?), setup.kv_view()?);
        Ok(Box::new(DraftModel { name: "model", passes }))
    }),
};

/// A draft model on the target's device.
pub struct DraftModel {
    /// Name in configurations.
    pub name: &'static str,
    /// The model.
    pub passes: Passes,
}

impl Drafter for DraftModel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn default_tokens(&self) -> usize {
        4
    }

    fn on_device(&self) -> bool {
        true
    }

    fn begin(&mut self, _: &DraftContext<'_>) {
        self.passes.begin();
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(match self.passes.expand(context, tree, ask, &[]) {
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
        let mut candidates = self.passes.candidates(context, tree, ask, words, logits);
        // A pass that only caught up has no rows.
        candidates.resize(ask.leaves.len(), Vec::new());
        Ok(Expansion::Ready(candidates))
    }

    fn record(&mut self, context: &DraftContext<'_>, count: usize) -> Result<Option<InnerDraft>> {
        Ok(self.passes.chain(context, count))
    }

    fn observe(&mut self, outcome: &RoundOutcome, _: DrafterId) {
        self.passes.observe(outcome);
    }

    fn reset(&mut self) {
        self.passes.reset();
    }
}
