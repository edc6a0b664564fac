//! Where candidate tokens come from.

mod model;
mod ngram;

pub use model::DraftModel;
pub use ngram::Ngram;

use super::outcome::RoundOutcome;
use super::tree::TokenTree;
use crate::error::Result;
use crate::plan::{Params, PlanId};
use crate::sampling::SamplingParams;

/// What a drafter may look at.
pub struct DraftContext<'a> {
    /// Every committed token; the last one is the root.
    pub tokens: &'a [u32],
    /// How the target samples; a draft model samples in the same way with the same noise.
    pub sampling: &'a SamplingParams,
}

/// A draft: a tree now, or work for the device that ends in one.
pub struct Draft {
    /// Nodes whose token is not known yet are filled in by `runs`.
    pub tree: TokenTree,
    /// Tokens to be put before the root in `TOKENS` (the draft's KV catches up as extra columns), the root included.
    pub inputs: Vec<u32>,
    /// Passes to run before the verify pass. They find `inputs` at `TOKENS[0]` and write node `i` of the tree to
    /// `TOKENS[inputs.len() - 1 + i]`.
    pub runs: Vec<(PlanId, Params)>,
}

impl Draft {
    /// A draft that needs nothing of the device.
    pub fn host(tree: TokenTree, root: u32) -> Draft {
        Draft { tree, inputs: vec![root], runs: Vec::new() }
    }
}

/// A source of candidates. Expansion is synchronous: a *host* drafter gives a tree, a *device* drafter records steps.
pub trait Drafter {
    /// Name in configurations and statistics.
    fn name(&self) -> &'static str;
    /// Tokens it drafts where the configuration does not say.
    fn default_tokens(&self) -> usize;
    /// Up to `budget` tokens; `None` where it has nothing to propose, so that the next drafter is asked.
    fn draft(&mut self, context: &DraftContext<'_>, budget: usize) -> Result<Option<Draft>>;
    /// Learns from a round, whoever drafted it.
    fn observe(&mut self, outcome: &RoundOutcome);
}
