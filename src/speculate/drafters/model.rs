//! `model`: a smaller model of the same vocabulary drafts a chain (Leviathan et al., arXiv 2211.17192).
//!
//! It runs inside the target's submit: step i reads its token from `TOKENS` and its sampler writes the next one there, so
//! nothing is read back between steps. It samples as the target does, with the same noise, which makes the two agree as
//! often as possible. State: the draft's KV cache; tokens it has not seen yet are extra columns of the first step.

use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, InnerDraft, each_leaf};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::{MAX_COLUMNS, Params};
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
    test: "drafters::model",
    make: Make::Drafter(|setup| match setup.draft {
        Some(model) => Ok(Box::new(DraftModel::new(Rc::clone(model)))),
        None => Err(Error::BadOption {
            name: "speculation.drafter".to_owned(),
            found: "model".to_owned(),
            expected: "a draft model to be loaded".to_owned(),
        }),
    }),
};

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

    fn on_device(&self) -> bool {
        true
    }

    fn expand(&mut self, _: &DraftContext<'_>, _: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |_| Vec::new()))
    }

    fn record(&mut self, context: &DraftContext<'_>, count: usize) -> Result<Option<InnerDraft>> {
        let tokens = context.tokens;
        // The draft's cache may be shorter than the target's; the slots of a round must be there too.
        let count = count.min(self.model.capacity().saturating_sub(tokens.len()));
        if count == 0 {
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
            return Ok(Some(InnerDraft { inputs: [pending, &[root]].concat(), runs, tokens: 0, steps: 0 }));
        }
        // The last pass of the pending tokens ends with the root and is the first step of the draft.
        let last_pass = (pending.len() - 1) / MAX_COLUMNS * MAX_COLUMNS;
        let mut runs = self.model.feed(base, last_pass);
        let mut params = Params::chain(pending.len() - last_pass, base + last_pass, last_pass);
        params.logit_first = params.live_cols - 1;
        params.logit_cols = 1;
        params.sample_at = pending.len() as u32;
        runs.extend(self.model.pass(params.sampled(context.sampling), true));
        for step in 1..count {
            let index = pending.len() + step - 1;
            let mut params = Params::chain(1, base + index, index);
            params.logit_cols = 1;
            params.sample_at = index as u32 + 1;
            runs.extend(self.model.pass(params.sampled(context.sampling), true));
        }
        self.fed = pending.to_vec();
        // Shared noise makes the draft a function of the prefix and the seed.
        Ok(Some(InnerDraft { inputs: pending.to_vec(), runs, tokens: count, steps: count }))
    }

    /// Accepted tokens that this model drafted and was fed are in its cache already: all but its last draft.
    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        self.model.kv.extend(&std::mem::take(&mut self.fed));
        let tree = &outcome.tree;
        if tree.nodes().get(1).is_some_and(|node| node.source == Some(me)) {
            let accepted = outcome.accepted();
            self.model.kv.extend(&accepted[..accepted.len().min(tree.drafted() - 1)]);
        }
    }
}
