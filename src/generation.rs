//! One request: prompt to tokens, prefill, rounds, and a stream of events.

use crate::engine::Core;
use crate::error::{Error, Result};
use crate::plan::{BufferId, Counters, RowStats, TOP};
use crate::runtime;
use crate::sampling::SamplingParams;
use crate::session::prefill;
use crate::speculate::accept::Exactness;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::syntax::ends_fragment;
use crate::speculate::methods::{Setup, needs_draft_model};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::target::ModelTarget;
use crate::speculate::tree::NodeId;
use crate::speculate::{Constraint, SpeculationConfig, Speculator};
use crate::store::LocalFuture;
use crate::summary::{
    Chunk, CompletionTokensDetails, Event, FinishReason, Likelihood, Logprob, PromptTokensDetails, RejectedPiece,
    SpeculationSummary, Summary, Timings, TokenPiece, Usage,
};
use crate::text::detokenizer::Detokenizer;
use crate::text::sliding;
use crate::text::stop::StopMatcher;
use futures_lite::Stream;
use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// OpenAI messages, rendered by the model's chat template.
    Messages(serde_json::Value),
    /// Text as it is.
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<u32>),
}

/// What to do with a conversation that does not fit the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContextOverflow {
    /// Refuse it, with the numbers.
    #[default]
    Error,
    /// Leave out the oldest turns, system messages apart, until there is room for it and for an answer; a quarter of the
    /// context at a time, so that most turns find the conversation in the cache.
    Slide,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// OpenAI's `tools`, for the chat template.
    pub tools: Option<serde_json::Value>,
    /// A JSON schema, as JSON, that the answer has to keep to: it is JSON on one line, and ends where the schema does.
    pub schema: Option<String>,
    /// Where messages do not fit.
    pub context_overflow: ContextOverflow,
    /// Tells how likely each token was, and this many of the likeliest at its place, at most [`TOP`].
    pub logprobs: Option<usize>,
    /// Tokens to make at most; what the context holds where not given.
    pub max_tokens: Option<usize>,
    /// How to sample.
    pub sampling: SamplingParams,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// How to speculate, where not as the engine was configured.
    pub speculation: Option<SpeculationConfig>,
}

impl Request {
    /// A prompt, all else by default.
    pub fn new(prompt: Prompt) -> Request {
        Request {
            prompt,
            tools: None,
            schema: None,
            context_overflow: ContextOverflow::Error,
            logprobs: None,
            max_tokens: None,
            sampling: SamplingParams::default(),
            stop: Vec::new(),
            speculation: None,
        }
    }
}

/// Aborts a generation or a bench from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Rc<Cell<bool>>);

impl CancelHandle {
    /// It ends after the work in flight, a generation with `finish_reason: "abort"`, a bench with [`Error::Aborted`].
    pub fn cancel(&self) {
        self.0.set(true);
    }

    /// An error where it was cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.get() { Err(Error::Aborted) } else { Ok(()) }
    }
}

/// A running request: a stream of events that ends with [`Event::Done`] or an error. Dropping it ends it.
pub struct Generation {
    cancel: CancelHandle,
    state: Option<Box<State>>,
    step: Option<Step>,
}

type Step = LocalFuture<'static, (Box<State>, Option<Result<Event>>)>;

impl Generation {
    pub(crate) fn new(core: Rc<Core>, request: Request, cancel: CancelHandle) -> Generation {
        let phase = Phase::Waiting(core, Box::new(request), cancel.clone());
        Generation { cancel, state: Some(Box::new(State { phase, events: VecDeque::new() })), step: None }
    }

    /// A handle that aborts this generation.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        futures_lite::StreamExt::next(self).await
    }

    /// Runs to the end and gives the summary.
    pub async fn finish(mut self) -> Result<Summary> {
        loop {
            match self.next().await {
                Some(Ok(Event::Done(summary))) => return Ok(*summary),
                Some(Ok(Event::Chunk(_))) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Aborted),
            }
        }
    }
}

impl Stream for Generation {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        let mut step = match (self.step.take(), self.state.take()) {
            (Some(step), _) => step,
            (None, Some(state)) => Box::pin(state.advance()),
            (None, None) => return Poll::Ready(None),
        };
        match step.as_mut().poll(context) {
            Poll::Pending => {
                self.step = Some(step);
                Poll::Pending
            }
            Poll::Ready((state, event)) => {
                self.state = Some(state);
                Poll::Ready(event)
            }
        }
    }
}

struct State {
    phase: Phase,
    events: VecDeque<Event>,
}

enum Phase {
    Waiting(Rc<Core>, Box<Request>, CancelHandle),
    Running(Box<Running>),
    Over,
}

impl State {
    /// Works until there is an event, an error or the end.
    async fn advance(mut self: Box<Self>) -> (Box<Self>, Option<Result<Event>>) {
        loop {
            if let Some(event) = self.events.pop_front() {
                return (self, Some(Ok(event)));
            }
            let result = match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return (self, None),
                Phase::Waiting(core, request, cancel) => Running::start(core, *request, cancel).await,
                Phase::Running(running) => running.round(&mut self.events).await,
            };
            match result {
                Ok(phase) => self.phase = phase,
                Err(error) => return (self, Some(Err(error))),
            }
        }
    }
}

/// Holds the engine's one KV cache.
pub(crate) struct Busy(Rc<Core>);

impl Busy {
    pub(crate) fn take(core: &Rc<Core>) -> Result<Busy> {
        if core.busy.replace(true) {
            return Err(Error::Busy);
        }
        Ok(Busy(Rc::clone(core)))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}

struct Running {
    busy: Busy,
    cancel: CancelHandle,
    sampling: SamplingParams,
    speculator: Speculator,
    /// Whether the answer joins those that drafters copy from.
    teaches: bool,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    /// Prompt and answer; the KV cache holds all but the last.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    cached_tokens: usize,
    dropped_messages: usize,
    max_tokens: usize,
    logprobs: Option<usize>,
    text: String,
    accepted: u64,
    end_token: Option<u32>,
    start_ms: f64,
    decode_start_ms: f64,
    first_token_ms: Option<f64>,
    counters: Counters,
}

impl Running {
    async fn start(core: Rc<Core>, request: Request, cancel: CancelHandle) -> Result<Phase> {
        let start_ms = runtime::now_ms();
        let busy = Busy::take(&core)?;
        request.sampling.validate(core.target.config.vocabulary)?;
        let config = request.speculation.as_ref().unwrap_or(&core.speculation);
        let exit = core.exit_model(config)?;
        let corpus = core.corpus_tokens(config)?;
        let texts = Rc::clone(&core);
        let boundary: Rc<dyn Fn(u32) -> bool> = Rc::new(move |token| ends_fragment(&texts.tokenizer.decode(&[token])));
        let setup = Setup {
            draft: core.draft.as_ref(),
            exit: exit.as_ref(),
            corpus: corpus.as_deref(),
            memory: Some(&core.memory),
            schema: request.schema.is_some(),
            boundary: Some(&boundary),
            ..Setup::new(config)
        };
        let mut speculator = config.speculator(setup)?.with_cost(Rc::clone(&core.cost));
        // Steps are known by the places of their drafters; a schema brings one more.
        let names = config.drafters(core.draft.is_some())?;
        let needs_draft = speculator.active() && names.iter().any(|name| needs_draft_model(name));
        let drafters = (names, request.schema.is_some(), config.exit_layers(core.target.config.layers));
        if speculator.active() && core.drafters.replace(drafters.clone()) != drafters {
            core.cost.borrow_mut().forget_drafters();
        }
        let teaches = speculator.active() && setup.store().is_some();
        if let Some(top) = request.logprobs {
            speculator = with_logprobs(speculator, top, request.sampling.temperature)?;
        }
        if let Some(schema) = &request.schema {
            own_samples(&speculator, "response_format", request.sampling.temperature)?;
            speculator = speculator.with_constraint(constraint(&core, schema)?);
        }
        let context = core.target.context;
        let (tokens, dropped_messages) = fitting_tokens(&core, &request, context)?;
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if tokens.len() > context {
            return Err(Error::PromptTooLong { prompt_tokens: tokens.len(), context_tokens: context });
        }
        // The last token's own row gives one more token than there are free positions.
        let room = context - tokens.len() + 1;
        let max_tokens = request.max_tokens.unwrap_or(room).min(room);
        if max_tokens == 0 {
            let (name, found, expected) = ("max_tokens".to_owned(), "0".to_owned(), "at least 1".to_owned());
            return Err(Error::BadOption { name, found, expected });
        }
        let stop = StopMatcher::new(request.stop)?;
        core.executor().write(BufferId::BIAS, 0, &request.sampling.bias_words())?;
        let prompt = &tokens[..tokens.len() - 1];
        let mut running = Running {
            busy,
            cancel,
            sampling: request.sampling,
            detokenizer: Detokenizer::new(),
            stop,
            prompt_tokens: tokens.len(),
            cached_tokens: 0,
            dropped_messages,
            max_tokens,
            logprobs: request.logprobs,
            text: String::new(),
            accepted: 0,
            end_token: None,
            start_ms,
            decode_start_ms: start_ms,
            first_token_ms: None,
            counters: Counters::default(),
            speculator,
            teaches,
            tokens: tokens.clone(),
        };
        let mut draft = core.draft.as_deref().filter(|_| needs_draft);
        if let Some(model) = draft.filter(|model| prompt.len() > model.context) {
            let reason = &mut running.speculator.reason;
            reason.push_str(&format!(
                "; not by the draft model: the prompt exceeds its context of {} tokens",
                model.context
            ));
            draft = None;
        }
        let models = [Some(&core.target), draft];
        for (index, model) in models.into_iter().flatten().enumerate() {
            match prefill(core.executor(), model, prompt, &running.cancel).await {
                Ok(cached) if index == 0 => running.cached_tokens = cached,
                Ok(_) => {}
                Err(Error::Aborted) => break,
                Err(error) => {
                    core.forget_caches();
                    return Err(error);
                }
            }
        }
        running.counters = core.executor().counters();
        running.decode_start_ms = runtime::now_ms();
        Ok(Phase::Running(Box::new(running)))
    }

    async fn round(mut self: Box<Self>, events: &mut VecDeque<Event>) -> Result<Phase> {
        if self.cancel.check().is_err() {
            return Ok(self.end(FinishReason::Abort, Chunk::default(), events));
        }
        let core = Rc::clone(&self.busy.0);
        let left = self.max_tokens - (self.tokens.len() - self.prompt_tokens);
        let target = ModelTarget { executor: core.executor(), model: &core.target };
        let outcome = self.speculator.round(&target, &self.tokens, &self.sampling, left).await;
        let outcome = outcome.inspect_err(|_| core.forget_caches())?;
        self.first_token_ms.get_or_insert_with(runtime::now_ms);
        let mut chunk = Chunk { rejected: rejected(&outcome, &self.speculator, &core), ..Chunk::default() };
        let ended = self.speculator.constraint().is_some_and(Constraint::ended);
        let mut emitted = emitted(&outcome, &self.speculator).into_iter().peekable();
        while let Some(Emitted { token, source, accepted, stats }) = emitted.next() {
            if core.tokenizer.is_end(token) {
                self.end_token = Some(token);
                return Ok(self.end(FinishReason::Stop, chunk, events));
            }
            self.tokens.push(token);
            self.accepted += u64::from(accepted);
            let pushed = self.stop.push(&self.detokenizer.push(core.tokenizer.token_bytes(token)));
            let logprob = self.logprobs.zip(stats).map(|(top, stats)| logprob(&core, token, stats, top));
            chunk.tokens.push(TokenPiece { id: token, text: pushed.emit.clone(), source, accepted, logprob });
            chunk.text.push_str(&pushed.emit);
            if pushed.stopped || ended && emitted.peek().is_none() {
                return Ok(self.end(FinishReason::Stop, chunk, events));
            }
            if self.tokens.len() - self.prompt_tokens == self.max_tokens {
                return Ok(self.end(FinishReason::Length, chunk, events));
            }
        }
        self.text.push_str(&chunk.text);
        events.push_back(Event::Chunk(chunk));
        Ok(Phase::Running(self))
    }

    /// Gives out what was held back, then the summary.
    fn end(mut self: Box<Self>, finish_reason: FinishReason, mut chunk: Chunk, events: &mut VecDeque<Event>) -> Phase {
        let core = &self.busy.0;
        let end_ms = runtime::now_ms();
        // After a stop string both give nothing.
        chunk.text.push_str(&self.stop.push(&self.detokenizer.finish()).emit);
        chunk.text.push_str(&self.stop.finish());
        self.text.push_str(&chunk.text);
        if chunk != Chunk::default() {
            events.push_back(Event::Chunk(chunk));
        }
        let tokens = self.tokens[self.prompt_tokens..].to_vec();
        let drafts = self.speculator.totals.all;
        let counters = core.executor().counters();
        let decode_ms = end_ms - self.decode_start_ms;
        let summary = Summary {
            model: core.name.clone(),
            device: core.executor().device(),
            finish_reason,
            end_token: self.end_token,
            usage: Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: tokens.len(),
                total_tokens: self.prompt_tokens + tokens.len(),
                prompt_tokens_details: PromptTokensDetails { cached_tokens: self.cached_tokens },
                completion_tokens_details: CompletionTokensDetails {
                    accepted_prediction_tokens: self.accepted,
                    rejected_prediction_tokens: drafts.drafted - drafts.accepted,
                },
            },
            timings: Timings {
                load_ms: core.load_ms,
                prefill_ms: self.decode_start_ms - self.start_ms,
                decode_ms,
                tokens_per_second: tokens.len() as f64 / decode_ms.max(1e-3) * 1e3,
                time_to_first_token_ms: self.first_token_ms.unwrap_or(end_ms) - self.start_ms,
            },
            speculation: SpeculationSummary::of(
                &self.speculator,
                counters.submits - self.counters.submits,
                counters.maps - self.counters.maps,
            ),
            dropped_messages: self.dropped_messages,
            redrawn_tokens: self.speculator.constraint().map_or(0, Constraint::redrawn),
            system_fingerprint: core.executor().fingerprint(),
            text: std::mem::take(&mut self.text),
            tokens,
        };
        if self.teaches {
            self.tokens.extend(self.end_token);
            core.memory.remember(&self.tokens, self.prompt_tokens);
        }
        events.push_back(Event::Done(Box::new(summary)));
        Phase::Over
    }
}

/// A token of a round.
struct Emitted<'a> {
    token: u32,
    /// Who made it.
    source: &'static str,
    /// Whether it was a draft.
    accepted: bool,
    /// The target's row that it was drawn from.
    stats: Option<&'a RowStats>,
}

/// Tokens of a round in order.
fn emitted<'a>(outcome: &'a RoundOutcome, speculator: &Speculator) -> Vec<Emitted<'a>> {
    let name = |id: DrafterId| speculator.drafters()[usize::from(id.0)].name;
    let stats = |node: NodeId| outcome.rows.get(usize::from(node.0)).and_then(|row| row.stats.as_deref());
    let path = outcome.verdict.path.iter().map(|&node| outcome.tree.node(node));
    let drafted = path.filter_map(|node| {
        Some(Emitted { token: node.token?, source: name(node.source?), accepted: true, stats: stats(node.parent) })
    });
    let last = outcome.verdict.path.last().copied().unwrap_or(NodeId::ROOT);
    let next = Emitted { token: outcome.verdict.next, source: "target", accepted: false, stats: stats(last) };
    drafted.chain(std::iter::once(next)).collect()
}

/// A schema that an answer keeps to from its first token on.
fn constraint(core: &Rc<Core>, schema: &str) -> Result<Constraint> {
    let texts = Rc::clone(core);
    let tokenize = move |bytes: &[u8]| {
        // What is forced may end within a character.
        let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        texts.tokenizer.encode_continuation(text)
    };
    Ok(Constraint::new(core.grammar(schema)?, Rc::new(tokenize), core.tokenizer.end_tokens().to_vec()))
}

/// Refuses rules whose tokens are not the target's own samples, for what speaks of those.
fn own_samples(speculator: &Speculator, name: &str, temperature: f32) -> Result<()> {
    match speculator.exactness() {
        Exactness::SameTokens => Ok(()),
        Exactness::GreedyOnly if temperature == 0.0 => Ok(()),
        other => Err(Error::BadOption {
            name: name.to_owned(),
            found: format!("asked for with an acceptance rule that is {}", other.name()),
            expected: "accept=match, whose tokens are the target's own samples".to_owned(),
        }),
    }
}

/// A speculator that brings back what logprobs are made of. A row tells the likelihood of its own sample, so only rules
/// whose tokens are the target's samples can have them.
fn with_logprobs(speculator: Speculator, top: usize, temperature: f32) -> Result<Speculator> {
    if top > TOP {
        let (name, found, expected) = ("top_logprobs".to_owned(), top.to_string(), format!("0 to {TOP}"));
        return Err(Error::BadOption { name, found, expected });
    }
    own_samples(&speculator, "logprobs", temperature)?;
    Ok(speculator.with_stats())
}

fn logprob(core: &Core, token: u32, stats: &RowStats, top: usize) -> Logprob {
    let of = |id: u32, logprob: f32| {
        let bytes = core.tokenizer.token_bytes(id).to_vec();
        Likelihood { id, token: String::from_utf8_lossy(&bytes).into_owned(), bytes, logprob: logprob.max(-9999.0) }
    };
    Logprob {
        chosen: of(token, stats.sample_logp),
        top: stats.top.iter().take(top).map(|&(id, logprob)| of(id, logprob)).collect(),
    }
}

/// Tokens of a request's prompt, and how many messages had to go for it.
fn fitting_tokens(core: &Core, request: &Request, context: usize) -> Result<(Vec<u32>, usize)> {
    let tools = request.tools.as_ref();
    let tokens = prompt_tokens(core, &request.prompt, tools)?;
    if request.context_overflow == ContextOverflow::Error {
        return Ok((tokens, 0));
    }
    let Prompt::Messages(messages) = &request.prompt else {
        return Err(Error::BadOption {
            name: "context_overflow".to_owned(),
            found: "slide for a prompt without messages".to_owned(),
            expected: "messages, whose oldest turns can go".to_owned(),
        });
    };
    // Room for the answer, but no more than half of what there is: the conversation is worth something too.
    let answer = request.max_tokens.unwrap_or(context / 4).min(context / 2);
    let excess = (tokens.len() + answer).saturating_sub(context + 1);
    // A quarter of the context at a time: what begins anew is read anew, so until that room is full again the same turns go.
    let block = context.div_ceil(4);
    let most = tokens.len().saturating_sub(excess.div_ceil(block) * block);
    if tokens.len() <= most {
        return Ok((tokens, 0));
    }
    let without = |turns: usize| {
        let (messages, dropped) = sliding::without_oldest_turns(messages, turns);
        Ok::<_, Error>((prompt_tokens(core, &Prompt::Messages(messages), tools)?, dropped))
    };
    // Halving, since each look renders and tokenizes all that is left. Without `turns` turns it fits, or is as short as it gets.
    let (mut fewest, mut turns) = (1, sliding::old_turns(messages));
    let mut found = without(turns)?;
    while fewest < turns {
        let middle = usize::midpoint(fewest, turns);
        let longer = without(middle)?;
        if longer.0.len() > most {
            fewest = middle + 1;
        } else {
            (turns, found) = (middle, longer);
        }
    }
    Ok(found)
}

/// The drafted tokens of a round from where the target no longer agreed, along the first branch; empty where it agreed to all.
fn rejected(outcome: &RoundOutcome, speculator: &Speculator, core: &Core) -> Vec<RejectedPiece> {
    let tree = &outcome.tree;
    let below = |node: NodeId| tree.node(node).slots.first().map(|slot| slot.child);
    let last = outcome.verdict.path.last().copied().unwrap_or(NodeId::ROOT);
    let piece = |node: NodeId| {
        let (id, source) = (tree.node(node).token?, tree.node(node).source?);
        let source = speculator.drafters()[usize::from(source.0)].name;
        let text = String::from_utf8_lossy(core.tokenizer.token_bytes(id)).into_owned();
        Some(RejectedPiece { id, text, source })
    };
    std::iter::successors(below(last), |&node| below(node)).map_while(piece).collect()
}

/// Template and tokenizer; the begin token where the model wants one and the template has not written it.
pub(crate) fn prompt_tokens(core: &Core, prompt: &Prompt, tools: Option<&serde_json::Value>) -> Result<Vec<u32>> {
    let tokenizer = &core.tokenizer;
    let text_of = |token: Option<u32>| token.map_or("", |token| tokenizer.token_text(token));
    let text = match prompt {
        Prompt::Tokens(tokens) => {
            let size = core.target.config.vocabulary;
            return match tokens.iter().find(|&&token| token as usize >= size) {
                None => Ok(tokens.clone()),
                Some(token) => Err(Error::BadOption {
                    name: "prompt token".to_owned(),
                    found: token.to_string(),
                    expected: format!("below {size}"),
                }),
            };
        }
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => {
            let template = core.template.as_ref().ok_or_else(|| Error::Template {
                reason: "the model has none: it continues raw text (--raw, or completions.create)".to_owned(),
            })?;
            template.render(messages, tools, true, text_of(tokenizer.bos()), text_of(tokenizer.eos()))?
        }
    };
    if text.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    let mut tokens = tokenizer.encode(&text, true)?;
    if let Some(bos) = tokenizer.bos().filter(|bos| tokenizer.add_bos() && tokens.first() != Some(bos)) {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}
