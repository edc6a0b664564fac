//! One round: draft, verify, accept, commit, in one submit and one map.

use super::accept::{AcceptanceRule, Exactness, Match};
use super::config::SpeculationConfig;
use super::drafters::{Draft, DraftContext, DraftModel, Drafter, Ngram};
use super::length::{Fixed, LengthPolicy};
use super::outcome::{RoundOutcome, RowStats, Totals};
use super::tree::{NodeId, TokenTree};
use crate::error::Result;
use crate::model::Model;
use crate::plan::{Executor, MAX_COLUMNS, Submission};
use crate::sampling::SamplingParams;
use std::rc::Rc;

/// Drafters, length and rule of one request, and what they have seen.
pub struct Speculator {
    drafters: Vec<Box<dyn Drafter>>,
    length: Box<dyn LengthPolicy>,
    rule: Box<dyn AcceptanceRule>,
    /// Totals of the request.
    pub totals: Totals,
    /// Why speculation is on or off.
    pub reason: String,
}

impl Speculator {
    /// Puts the configured parts together. `draft` is the loaded draft model, if any.
    pub fn new(config: &SpeculationConfig, draft: Option<&Rc<Model>>) -> Result<Speculator> {
        let mut drafters: Vec<Box<dyn Drafter>> = Vec::new();
        for name in config.drafters(draft.is_some())? {
            match draft {
                Some(model) if name == "model" => drafters.push(Box::new(DraftModel::new(Rc::clone(model)))),
                _ => drafters.push(Box::new(Ngram { min: config.prompt_lookup_min, max: config.prompt_lookup_max })),
            }
        }
        let names: Vec<_> = drafters.iter().map(|drafter| drafter.name()).collect();
        let reason = match () {
            () if config.num_speculative_tokens == Some(0) => "off: num_speculative_tokens is 0".to_owned(),
            () if drafters.is_empty() => "off: as configured".to_owned(),
            () => format!("on: drafts by {}", names.join(", then ")),
        };
        Ok(Speculator::with_parts(drafters, Box::new(Fixed(config.num_speculative_tokens)), reason))
    }

    /// A speculator of given parts: what a method's test needs, and what [`Speculator::new`] comes down to.
    pub fn with_parts(drafters: Vec<Box<dyn Drafter>>, length: Box<dyn LengthPolicy>, reason: String) -> Speculator {
        Speculator { drafters, length, rule: Box::new(Match), totals: Totals::default(), reason }
    }

    /// Whether anything can be drafted.
    pub fn active(&self) -> bool {
        self.drafters.iter().any(|drafter| self.length.budget(drafter.default_tokens()) > 0)
    }

    /// Whether a drafter of that name may be asked.
    pub fn drafts_by(&self, name: &str) -> bool {
        self.active() && self.drafters.iter().any(|drafter| drafter.name() == name)
    }

    /// What the text is worth against plain decoding.
    pub fn exactness(&self) -> Exactness {
        self.rule.exactness()
    }

    /// Runs one round. `tokens` are all committed tokens, of which the target's KV cache holds all but the last; at most
    /// `max_new` tokens are of use. Gives the outcome; the caller commits `outcome.accepted()` and `outcome.verdict.next`.
    pub async fn round(
        &mut self,
        executor: &dyn Executor,
        target: &Model,
        tokens: &[u32],
        sampling: &SamplingParams,
        max_new: usize,
    ) -> Result<RoundOutcome> {
        let base = tokens.len() - 1;
        let root = tokens[base];
        assert_eq!(target.kv.len(), base, "the cache holds all committed tokens but the last");
        // A draft beyond the last wanted token is lost work; one beyond the cache has no slot.
        let most = (max_new - 1).min(MAX_COLUMNS - 1).min(target.capacity() - tokens.len());
        let draft = match self.draft(tokens, sampling, most)? {
            Some(draft) => draft,
            None => Draft::host(TokenTree::new(root), root),
        };
        let Draft { mut tree, mut inputs, mut runs } = draft;
        let (first, nodes) = (inputs.len(), tree.nodes().len());
        let mut params = tree.params(base, first - 1);
        params.logit_cols = nodes as u32;
        params.sample_at = (first - 1 + nodes) as u32;
        runs.extend(target.pass(params.sampled(sampling), true));
        let on_device = tree.nodes()[1..].iter().any(|node| node.token.is_none());
        if !on_device {
            inputs.extend(tree.nodes()[1..].iter().filter_map(|node| node.token));
        }
        let read = (first, tree.drafted() + nodes);
        let ticket = executor.submit(Submission { tokens: vec![(0, inputs)], runs, read })?;
        let words = executor.finish(ticket).await?;
        let (drafted, samples) = words.split_at(tree.drafted());
        if on_device {
            for (index, &token) in drafted.iter().enumerate() {
                tree.set_token(NodeId(index as u16 + 1), token);
            }
        }
        let rows: Vec<RowStats> = samples.iter().map(|&sample| RowStats { sample }).collect();
        let verdict = self.rule.verify(&tree, &rows);
        let outcome = RoundOutcome { tree, rows, verdict };
        target.kv.extend(&[root]);
        target.kv.extend(&outcome.accepted());
        self.totals.add(&outcome);
        self.length.observe(&outcome);
        self.drafters.iter_mut().for_each(|drafter| drafter.observe(&outcome));
        Ok(outcome)
    }

    /// The first drafter in order that has something to propose.
    fn draft(&mut self, tokens: &[u32], sampling: &SamplingParams, most: usize) -> Result<Option<Draft>> {
        let context = DraftContext { tokens, sampling };
        for drafter in &mut self.drafters {
            let budget = self.length.budget(drafter.default_tokens()).min(most);
            if budget == 0 {
                continue;
            }
            if let Some(draft) = drafter.draft(&context, budget)? {
                return Ok(Some(draft));
            }
        }
        Ok(None)
    }
}
