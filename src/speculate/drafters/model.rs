//! `model`: a smaller model of the same vocabulary drafts a chain (Leviathan et al., arXiv 2211.17192).
//!
//! It runs inside the target's submit: step i reads its token from `TOKENS` and its sampler writes the next one there, so
//! nothing is read back between steps. It samples as the target does, with the same noise, which makes the two agree as
//! often as possible. State: the draft's KV cache; tokens it has not seen yet are extra columns of the first step.

use super::{Draft, DraftContext, Drafter};
use crate::error::Result;
use crate::model::Model;
use crate::plan::{MAX_COLUMNS, Params};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{NodeId, Proposal, TokenTree};
use std::rc::Rc;

/// Passes that a round may spend on catching up before it drafts.
const MAX_CATCH_UP_PASSES: usize = 4;

/// A draft model on the target's device.
pub struct DraftModel {
    model: Rc<Model>,
    /// Tokens that the round in flight puts into the cache; they count once it is over.
    fed: Vec<u32>,
}

impl DraftModel {
    /// `model` lives on the executor of the target.
    pub fn new(model: Rc<Model>) -> DraftModel {
        DraftModel { model, fed: Vec::new() }
    }
}

impl Drafter for DraftModel {
    fn name(&self) -> &'static str {
        "model"
    }

    fn default_tokens(&self) -> usize {
        4
    }

    fn draft(&mut self, context: &DraftContext<'_>, budget: usize) -> Result<Option<Draft>> {
        let tokens = context.tokens;
        // The draft's cache may be shorter than the target's; the slots of a round must be there too.
        let budget = budget.min(self.model.capacity().saturating_sub(tokens.len()));
        if budget == 0 {
            return Ok(None);
        }
        let base = self.model.kv.keep_prefix(tokens, tokens.len() - 1);
        let pending = &tokens[base..];
        let root = tokens[tokens.len() - 1];
        if pending.len() > MAX_CATCH_UP_PASSES * MAX_COLUMNS {
            // Others drafted for long: this round only catches up, in passes that ride along with a plain step.
            let pending = &pending[..MAX_CATCH_UP_PASSES * MAX_COLUMNS];
            let runs = self.model.feed(base, pending.len());
            self.fed = pending.to_vec();
            return Ok(Some(Draft { tree: TokenTree::new(root), inputs: [pending, &[root]].concat(), runs }));
        }
        // The last pass of the pending tokens ends with the root and is the first step of the draft.
        let last_pass = (pending.len() - 1) / MAX_COLUMNS * MAX_COLUMNS;
        let mut runs = self.model.feed(base, last_pass);
        let mut params = Params::chain(pending.len() - last_pass, base + last_pass, last_pass);
        params.logit_first = params.live_cols - 1;
        params.logit_cols = 1;
        params.sample_at = pending.len() as u32;
        runs.extend(self.model.pass(params.sampled(context.sampling), true));
        let mut tree = TokenTree::new(root);
        let mut at = NodeId::ROOT;
        for step in 0..budget {
            if step > 0 {
                let index = pending.len() + step - 1;
                let mut params = Params::chain(1, base + index, index);
                params.logit_cols = 1;
                params.sample_at = index as u32 + 1;
                runs.extend(self.model.pass(params.sampled(context.sampling), true));
            }
            // Shared noise makes the draft a function of the prefix and the seed.
            match tree.add(at, None, Proposal::Deterministic, self.name()) {
                Some(child) => at = child,
                None => break,
            }
        }
        self.fed = pending.to_vec();
        Ok(Some(Draft { tree, inputs: pending.to_vec(), runs }))
    }

    /// Accepted tokens that this model drafted and was fed are in its cache already: all but its last draft.
    fn observe(&mut self, outcome: &RoundOutcome) {
        self.model.kv.extend(&std::mem::take(&mut self.fed));
        let drafted = outcome.tree.drafted();
        let mine = outcome.tree.node(NodeId::ROOT).slots.iter().any(|slot| slot.source == self.name());
        if mine && drafted > 0 {
            let accepted = outcome.accepted();
            self.model.kv.extend(&accepted[..accepted.len().min(drafted - 1)]);
        }
    }
}
