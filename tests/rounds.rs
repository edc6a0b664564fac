//! A thousand rounds of random accept and reject leave the KV cache and the logits as a fresh decode of the same tokens
//! would, bit for bit, on both executors.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/gguf.rs"]
mod gguf;

use engine::{DEVICES, bytes, load};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::error::Result;
use foredraft::plan::{MAX_NODES, Params, Submission};
use foredraft::sampling::SamplingParams;
use foredraft::speculate::Speculator;
use foredraft::speculate::drafters::model::DraftModel;
use foredraft::speculate::drafters::passes::Passes;
use foredraft::speculate::drafters::{Ask, DraftContext, Drafter, Expansion};
use foredraft::speculate::kv::KvView;
use foredraft::speculate::round::Parts;
use foredraft::speculate::shapes::{Budget, From, Grow, TreeShape};
use foredraft::speculate::target::ModelTarget;
use foredraft::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use futures_lite::future::block_on;

/// Knows what the target will say; errs now and then, and puts wrong siblings before and behind the right token.
struct Oracle {
    text: Vec<u32>,
    random: gguf::Random,
}

impl Oracle {
    fn candidates(
        &mut self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        leaf: NodeId,
        width: usize,
    ) -> Vec<Candidate> {
        let path = [context.tokens, &tree.path_tokens(leaf)].concat();
        let Some(&right) = self.text.get(path.len()) else { return Vec::new() };
        let right = if self.text.starts_with(&path) { right } else { 300 };
        let mut tokens: Vec<u32> = (1..width as u32).map(|step| (right + 7 * step) % 256).collect();
        let wrong = self.random.next().is_multiple_of(16);
        let at = self.random.next() as usize % width;
        tokens.insert(at, if wrong { (right + 1) % 256 } else { right % 256 });
        tokens.into_iter().map(|token| Candidate::new(token, DraftStats::of_probability(0.5))).collect()
    }
}

impl Drafter for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn default_tokens(&self) -> usize {
        MAX_NODES - 1
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(Expansion::Ready(ask.leaves.iter().map(|&leaf| self.candidates(context, tree, leaf, ask.width)).collect()))
    }
}

/// Grows leaves at random, one to three wide, up to a random size: chains, bushes, and nothing at all.
struct Bush {
    random: gguf::Random,
    size: usize,
    widest: usize,
}

impl TreeShape for Bush {
    fn name(&self) -> &'static str {
        "bush"
    }

    fn begin(&mut self) {
        self.size = self.random.next() as usize % MAX_NODES;
        self.widest = 1 + self.random.next() as usize % 3;
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        let left = self.size.min(budget.nodes).saturating_sub(tree.drafted());
        let open: Vec<NodeId> = tree.ids().filter(|&id| !tree.node(id).expanded).collect();
        if left == 0 || open.is_empty() {
            return None;
        }
        let width = (1 + self.random.next() as usize % self.widest).min(left);
        // The latest leaf more often than others, so that there are deep trees too.
        let at = match self.random.next() % 3 {
            0 => self.random.next() as usize % open.len(),
            _ => open.len() - 1,
        };
        Some(Grow::same(vec![open[at]], width, From::Any))
    }
}

fn tiny(device: DeviceChoice) -> Engine {
    let mut options = LoadOptions::new(bytes("tiny.gguf", gguf::tiny_llama()));
    options.device = device;
    load(options)
}

/// Everything the model left on the device after `tokens`: caches up to their length, and the last row of logits.
fn left_behind(engine: &Engine, len: usize) -> Vec<Vec<u32>> {
    let (target, executor) = (engine.target(), engine.executor());
    let config = &target.config;
    let row = config.head_dim / 2;
    let mut all = Vec::new();
    for &buffer in target.caches.iter().flatten() {
        let words = config.kv_heads * target.capacity() * row;
        let cache = block_on(executor.read(buffer, 0, words)).expect("read");
        all.extend(cache.chunks(target.capacity() * row).map(|head| head[..len * row].to_vec()));
    }
    all
}

fn rounds_on(device: DeviceChoice) {
    let (engine, fresh) = (tiny(device), tiny(device));
    let target = engine.target();
    let (mut rounds, mut accepted, mut drafted, mut scattered) = (0, 0, 0, 0);
    let mut seed = 0;
    while rounds < 1000 {
        seed += 1;
        let sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() };
        // What plain decoding says, one column at a time, on an engine of its own.
        let mut text = vec![65 + seed as u32 % 26, 66];
        fresh.target().kv.rollback(0);
        decode(&fresh, &text[..1]);
        let mut plain = Speculator::new(Parts::chains(Vec::new(), None), "off".to_owned());
        while text.len() < target.context {
            let target = on(&fresh);
            let round = plain.round(&target, &text, &sampling, usize::MAX);
            text.push(block_on(round).expect("round").verdict.next);
        }
        let drafters: Vec<Box<dyn Drafter>> = vec![Box::new(Oracle { text: text.clone(), random: gguf::Random(seed) })];
        let bush = Bush { random: gguf::Random(seed + 1000), size: 0, widest: 1 };
        let parts = Parts { shape: Box::new(bush), ..Parts::chains(drafters, None) };
        let mut speculator = Speculator::new(parts, "on".to_owned());
        let mut tokens = text[..2].to_vec();
        target.kv.rollback(0);
        decode(&engine, &tokens[..1]);
        while tokens.len() < text.len() {
            let max_new = text.len() - tokens.len();
            let target = on(&engine);
            let round = speculator.round(&target, &tokens, &sampling, max_new);
            let outcome = block_on(round).expect("round");
            scattered += u64::from(
                !outcome.tree.keep(&outcome.verdict.path).is_chain()
                    || outcome.verdict.path.iter().enumerate().any(|(at, node)| node.index() != at + 1),
            );
            tokens.extend(outcome.emitted());
        }
        assert_eq!(tokens, text, "seed {seed} on {device:?}");
        let len = text.len() - 1;
        assert_eq!(target.kv.len(), len, "the last token is not in the cache yet");
        assert!(
            left_behind(&engine, len) == left_behind(&fresh, len),
            "keys or values differ, seed {seed}, {device:?}"
        );
        assert!(logits(&engine, &text) == logits(&fresh, &text), "logits differ, seed {seed}, {device:?}");
        rounds += speculator.totals.rounds;
        accepted += speculator.totals.all.accepted;
        drafted += speculator.totals.all.drafted;
    }
    println!("{device:?}: {rounds} rounds, {accepted} of {drafted} drafts accepted, {scattered} scattered paths");
    assert!(scattered > 100, "{scattered} accepted paths that had to be moved together");
    assert!(accepted > 1000 && drafted - accepted > 1000, "{accepted} of {drafted}");
}

fn on(engine: &Engine) -> ModelTarget<'_> {
    ModelTarget { executor: engine.executor(), model: engine.target() }
}

/// Puts tokens into the cache one by one.
fn decode(engine: &Engine, tokens: &[u32]) {
    for &token in tokens {
        let runs = engine.target().pass(Params::chain(1, engine.target().kv.len(), 0), false);
        let submission = Submission { tokens: vec![(0, vec![token])], runs, read: (0, 1) };
        let ticket = engine.executor().submit(submission).expect("submit");
        block_on(engine.executor().finish(ticket)).expect("finish");
        engine.target().kv.extend(&[token]);
    }
}

/// The row of the last token, which is not in the cache yet.
fn logits(engine: &Engine, text: &[u32]) -> Vec<u32> {
    let (target, executor) = (engine.target(), engine.executor());
    let mut params = Params::chain(1, text.len() - 1, 0);
    params.logit_cols = 1;
    let runs = target.pass(params, false);
    let submission = Submission { tokens: vec![(0, vec![text[text.len() - 1]])], runs, read: (0, 1) };
    let ticket = executor.submit(submission).expect("submit");
    block_on(executor.finish(ticket)).expect("finish");
    block_on(executor.read(target.logits, 0, target.config.vocabulary)).expect("read")
}

/// Gives the first word to a drafter that is sometimes silent, so that the draft model behind it falls behind by a few
/// tokens, by several passes, and by more than a round may catch up.
struct Sometimes(Oracle);

impl Drafter for Sometimes {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn default_tokens(&self) -> usize {
        15
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        // Speaks for stretches of 96 tokens, then now and then.
        let stretch = (context.tokens.len() / 96).is_multiple_of(2);
        let speaks = tree.drafted() > 0 || stretch || self.0.random.next().is_multiple_of(3);
        if speaks {
            self.0.expand(context, tree, ask)
        } else {
            Ok(Expansion::Ready(vec![Vec::new(); ask.leaves.len()]))
        }
    }
}

/// A model that drafts for itself with the same noise is always right, unless its own cache is wrong.
fn self_draft_on(device: DeviceChoice) {
    let file = || bytes("tiny.gguf", gguf::tiny_llama_with_context(512));
    let mut options = LoadOptions::new(file());
    options.draft_model = Some(file());
    options.device = device;
    let engine = load(options);
    let target = engine.target();
    let sampling = SamplingParams { temperature: 0.8, seed: 3, ..SamplingParams::default() };
    let mut text = vec![70, 71];
    target.kv.rollback(0);
    decode(&engine, &text[..1]);
    let mut plain = Speculator::new(Parts::chains(Vec::new(), None), "off".to_owned());
    while text.len() < target.context {
        let on_device = on(&engine);
        let round = plain.round(&on_device, &text, &sampling, usize::MAX);
        text.push(block_on(round).expect("round").verdict.next);
    }
    let oracle = Sometimes(Oracle { text: text.clone(), random: gguf::Random(5) });
    let draft = std::rc::Rc::clone(engine.draft().expect("a draft model"));
    let drafters: Vec<Box<dyn Drafter>> =
        vec![Box::new(oracle), Box::new(DraftModel { name: "model", passes: Passes::new(draft, KvView::default()) })];
    let mut speculator = Speculator::new(Parts::chains(drafters, None), "on".to_owned());
    let mut tokens = text[..2].to_vec();
    target.kv.rollback(0);
    decode(&engine, &tokens[..1]);
    let (mut by_model, mut by_oracle) = (0, 0);
    while tokens.len() < text.len() {
        let max_new = text.len() - tokens.len();
        let on_device = on(&engine);
        let outcome = block_on(speculator.round(&on_device, &tokens, &sampling, max_new)).expect("round");
        match outcome.tree.nodes()[0].slots.first().map(|slot| slot.source.0) {
            Some(1) => {
                assert_eq!(outcome.verdict.path.len(), outcome.tree.drafted(), "at {} on {device:?}", tokens.len());
                by_model += outcome.tree.drafted();
            }
            Some(_) => by_oracle += outcome.tree.drafted(),
            None => {}
        }
        tokens.extend(outcome.emitted());
    }
    assert_eq!(tokens, text);
    assert!(by_model > 40 && by_oracle > 40, "{by_model} by the model, {by_oracle} by the oracle");
}

#[test]
fn a_draft_model_that_fell_behind_catches_up() {
    DEVICES.into_iter().for_each(self_draft_on);
}

#[test]
fn a_thousand_rounds_leave_no_trace() {
    DEVICES.into_iter().for_each(rounds_on);
}
