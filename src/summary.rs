//! What a request gives: chunks while it runs, a summary at its end. The field names are those of the OpenAI API, vLLM and
//! llama.cpp where they have one.

use crate::plan::DeviceInfo;
use crate::speculate::Speculator;
use crate::speculate::accept::Exactness;
use crate::speculate::outcome::Tally;
use serde::Serialize;
use std::collections::BTreeMap;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Some text.
    Chunk(Chunk),
    /// The end; nothing comes after it.
    Done(Box<Summary>),
}

/// The tokens of one round and the text that is safe to show after them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Chunk {
    /// The pieces' texts, joined; in the last chunk also what was held back.
    pub text: String,
    /// In order.
    pub tokens: Vec<TokenPiece>,
    /// What was drafted to stand from the last token on, and was not kept: the first branch below the accepted ones.
    pub rejected: Vec<RejectedPiece>,
}

/// A drafted token that was not kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RejectedPiece {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// The drafter that proposed it.
    pub source: &'static str,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenPiece {
    /// Its id.
    pub id: u32,
    /// Text that became certain with it; may be empty (half a character, the beginning of a stop string).
    pub text: String,
    /// `target`, or the drafter that proposed it.
    pub source: &'static str,
    /// It was drafted and the target agreed.
    pub accepted: bool,
    /// How likely the target found it, where the request asked for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprob: Option<Logprob>,
}

/// How likely a token was, after bias, penalties and temperature and before truncation, and what was likelier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Logprob {
    /// The token itself.
    pub chosen: Likelihood,
    /// The likeliest tokens at its place, likeliest first, as many as the request asked for.
    pub top: Vec<Likelihood>,
}

/// One entry of OpenAI's `logprobs`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Likelihood {
    /// Its id.
    pub id: u32,
    /// Its text; halves of characters are replaced.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// `ln p`, at least -9999, which OpenAI writes for what is out of reach.
    pub logprob: f32,
}

/// Why a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
    /// The caller aborted.
    Abort,
}

/// All there is to say about a finished request.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Name of the model.
    pub model: String,
    /// Where it ran.
    pub device: DeviceInfo,
    /// The whole text.
    pub text: String,
    /// Its tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The end token that ended it, if one did; it is not among `tokens`.
    pub end_token: Option<u32>,
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
    /// What speculation did.
    pub speculation: SpeculationSummary,
    /// Messages that the sliding context left out.
    pub dropped_messages: usize,
    /// Tokens that were sampled anew among those that the schema allows, as it did not allow the first sample; 0 without one.
    pub redrawn_tokens: u64,
    /// What decides the bits, as far as this program can tell: build, device, driver, arithmetic, geometry.
    pub system_fingerprint: String,
}

/// OpenAI's `usage`.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "OpenAI's names")]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    pub prompt_tokens_details: PromptTokensDetails,
    pub completion_tokens_details: CompletionTokensDetails,
}

/// OpenAI's `usage.prompt_tokens_details`.
#[derive(Debug, Clone, Serialize)]
pub struct PromptTokensDetails {
    /// Prompt tokens that were in the KV cache already.
    pub cached_tokens: usize,
}

/// OpenAI's `usage.completion_tokens_details`.
#[derive(Debug, Clone, Serialize)]
pub struct CompletionTokensDetails {
    /// Emitted tokens that had been drafted.
    pub accepted_prediction_tokens: u64,
    /// Drafted tokens that the target did not confirm.
    pub rejected_prediction_tokens: u64,
}

/// Milliseconds, wall clock.
#[derive(Debug, Clone, Serialize)]
pub struct Timings {
    /// Loading the engine, before any request.
    pub load_ms: f64,
    /// The prompt's passes.
    pub prefill_ms: f64,
    /// The rounds.
    pub decode_ms: f64,
    /// Tokens of the rounds by `decode_ms`.
    pub tokens_per_second: f64,
    /// From the call to the first token.
    pub time_to_first_token_ms: f64,
}

/// Totals of speculation.
#[derive(Debug, Clone, Serialize)]
pub struct SpeculationSummary {
    /// Whether any drafter may be asked.
    pub active: bool,
    /// Why, or why not.
    pub reason: String,
    /// What the text is worth against plain decoding.
    pub exactness: Exactness,
    /// Passes of the target after prefill, those without a draft included.
    pub rounds: u64,
    /// Rounds that had a draft.
    pub drafted_rounds: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Of these, accepted.
    pub accepted: u64,
    /// `accepted / drafted`
    pub acceptance_rate: f64,
    /// `1 + accepted / rounds`
    pub mean_acceptance_length: f64,
    /// Drafted and accepted by depth in the tree: first the tokens right below the committed text. Of siblings at most one
    /// can be accepted.
    pub by_position: Vec<Tally>,
    /// Drafted and accepted by name of the drafter; those that drafted nothing are there too.
    pub by_drafter: BTreeMap<&'static str, Tally>,
    /// The most tokens a pass of this size can give on average by deterministic drafts (Pankratov and Alistarh's bound, up to
    /// O(1)), from the entropies of the target's rows; `None` where no method read them.
    pub bound: Option<f64>,
    /// MoESD's target efficiency `t(1) / t(γ + 1)`: a plain step's time over that of a verify pass, at the mean columns of
    /// the rounds that had a draft. 1 where checking is free. `None` where either was never measured on this engine.
    pub target_efficiency: Option<f64>,
    /// Milliseconds of the rounds that drafting took: the host's work, and passes of draft models with a submit of their own.
    pub draft_ms: f64,
    /// Milliseconds of the rounds that verify passes took, from submit to read-back; of a pass that was submitted before the
    /// round began, what was left of it.
    pub verify_ms: f64,
    /// Submits of work in the rounds, with the plain step that was submitted in vain where an answer ended unforeseen.
    pub submits: u64,
    /// Buffer maps in the rounds.
    pub maps: u64,
}

impl SpeculationSummary {
    /// What a speculator has to say, with the submits and maps that its executor counted.
    pub(crate) fn of(speculator: &Speculator, submits: u64, maps: u64) -> SpeculationSummary {
        let totals = &speculator.totals;
        let mut by_drafter = BTreeMap::<_, Tally>::new();
        for info in speculator.drafters() {
            let tally = totals.by_drafter.get(usize::from(info.id.0)).copied().unwrap_or_default();
            by_drafter.entry(info.name).or_default().add(tally);
        }
        let cost = speculator.cost.borrow();
        let columns = totals.mean_columns().map(|columns| columns.round() as usize);
        let measured = columns.filter(|&columns| cost.is_measured(1) && cost.is_measured(columns));
        SpeculationSummary {
            active: speculator.active(),
            reason: speculator.why(),
            exactness: speculator.exactness(),
            rounds: totals.rounds,
            drafted_rounds: totals.drafted_rounds,
            drafted: totals.all.drafted,
            accepted: totals.all.accepted,
            acceptance_rate: totals.acceptance_rate(),
            mean_acceptance_length: totals.mean_acceptance_length(),
            by_position: totals.by_depth.clone(),
            by_drafter,
            bound: totals.bound(),
            target_efficiency: measured.map(|columns| 1.0 / cost.c(columns)),
            draft_ms: totals.draft_ms,
            verify_ms: totals.verify_ms,
            submits,
            maps,
        }
    }
}
