//! Token trees on a model, straight over its executor: wide trees in several passes, any nodes in any order, and the
//! compaction of what was accepted leave what a decode token by token leaves, bit for bit, on both executors. And models
//! that exit early.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/gguf.rs"]
#[expect(dead_code, reason = "shared with tests/rounds.rs")]
mod gguf;

use engine::{DEVICES, bytes, load};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::model::Model;
use foredraft::plan::{MAX_COLUMNS, MAX_NODES, Params, PlanId, ROW_STATS_WORDS, RowStats, Submission, TOKENS_WORDS};
use foredraft::sampling::SamplingParams;
use futures_lite::future::block_on;

/// Where in `TOKENS` samples and statistics of a round go, by node.
const SAMPLES: usize = 64;
const STATS: usize = 128;
const _: () = assert!(STATS + MAX_NODES * ROW_STATS_WORDS <= TOKENS_WORDS);

fn tiny(device: DeviceChoice) -> Engine {
    let mut options = LoadOptions::new(bytes("tiny.gguf", gguf::tiny_llama_with_context(192)));
    options.device = device;
    load(options)
}

fn submit(engine: &Engine, tokens: &[u32], runs: Vec<(PlanId, Params)>, read: (usize, usize)) -> Vec<u32> {
    let executor = engine.executor();
    let ticket = executor.submit(Submission { tokens: vec![(0, tokens.to_vec())], runs, read }).expect("submit");
    block_on(executor.finish(ticket)).expect("finish")
}

/// Samples and statistics by row: what the next tokens are, and every bit that the rows of logits come down to.
type Rows = Vec<(u32, Vec<u32>)>;

/// Runs passes of one tree in one submission, each with the head on all its columns, and gives the rows by node.
fn run_tree(
    engine: &Engine,
    tokens: &[u32],
    passes: &[Params],
    sampling: &SamplingParams,
    compact: Option<(PlanId, Params)>,
) -> Rows {
    let target = engine.target();
    let mut runs = Vec::from_iter(compact);
    let mut at = 0;
    let mut nodes: Vec<u32> = Vec::new();
    for pass in passes {
        let mut params = pass.sampled(sampling);
        params.logit_cols = params.live_cols;
        params.sample_at = (SAMPLES + at) as u32;
        params.stats_at = (STATS + at * ROW_STATS_WORDS) as u32;
        runs.extend(target.pass(params, true));
        runs.push(target.stats(params));
        nodes.extend(pass.nodes.iter().take(pass.live_cols as usize));
        at += pass.live_cols as usize;
    }
    let words = submit(engine, tokens, runs, (SAMPLES, STATS - SAMPLES + at * ROW_STATS_WORDS));
    let mut rows: Rows = vec![(0, Vec::new()); tokens.len()];
    for (index, &node) in nodes.iter().enumerate() {
        let stats = &words[STATS - SAMPLES + index * ROW_STATS_WORDS..][..ROW_STATS_WORDS];
        rows[node as usize] = (words[index], stats.to_vec());
    }
    rows
}

struct Tree {
    tokens: Vec<u32>,
    ancestors: Vec<u32>,
}

fn below(random: &mut gguf::Random, end: usize) -> usize {
    (random.next() >> 32) as usize % end
}

impl Tree {
    /// Bushy or narrow, up to `most` nodes.
    fn random(random: &mut gguf::Random, root: u32, most: usize) -> Tree {
        let nodes = 1 + below(random, most);
        let reach = 1 + below(random, 6);
        let mut tree = Tree { tokens: vec![root], ancestors: vec![1] };
        for node in 1..nodes {
            let parent = node - 1 - below(random, node.min(reach));
            tree.tokens.push(below(random, 259) as u32);
            tree.ancestors.push(tree.ancestors[parent] | 1 << node);
        }
        tree
    }

    /// Passes over all nodes, ancestors first or together, in two passes or in any cut and order.
    fn passes(&self, random: &mut gguf::Random, base: usize) -> Vec<Params> {
        let mut left: Vec<usize> = (0..self.tokens.len()).collect();
        let cut = below(random, 3) == 0;
        let mut passes = Vec::new();
        while !left.is_empty() {
            let most = if cut { 1 + below(random, MAX_COLUMNS) } else { MAX_COLUMNS };
            let mut nodes: Vec<usize> = left.drain(..most.min(left.len())).collect();
            for i in 0..nodes.len() {
                let other = i + below(random, nodes.len() - i);
                nodes.swap(i, other);
            }
            passes.push(Params::tree(&nodes, &self.ancestors, base, 0));
        }
        passes
    }
}

/// Keys, values and history of the first `len` slots.
fn left_behind(engine: &Engine, len: usize) -> Vec<Vec<u32>> {
    let (target, executor) = (engine.target(), engine.executor());
    let row = target.config.head_dim / 2;
    let mut all = vec![block_on(executor.read(target.history, 0, len)).expect("read")];
    for &buffer in target.caches.iter().flatten() {
        let words = target.config.kv_heads * target.capacity() * row;
        let cache = block_on(executor.read(buffer, 0, words)).expect("read");
        all.extend(cache.chunks(target.capacity() * row).map(|head| head[..len * row].to_vec()));
    }
    all
}

fn trees_on(device: DeviceChoice) {
    let (engine, fresh) = (tiny(device), tiny(device));
    let target = engine.target();
    let (mut rounds, mut wide, mut moved) = (0, 0, 0);
    for seed in 0..4 {
        let mut random = gguf::Random(seed);
        // Penalties make every sample depend on the history.
        let sampling = SamplingParams {
            temperature: if seed == 0 { 0.0 } else { 0.9 },
            repeat_penalty: 1.3,
            frequency_penalty: 0.2,
            repeat_last_n: 40,
            seed,
            ..SamplingParams::default()
        };
        let (mut base, mut root, mut compact) = (0, 65 + seed as u32, None);
        while base < target.context {
            let tree = Tree::random(&mut random, root, MAX_NODES);
            let passes = tree.passes(&mut random, base);
            // Compaction of the round before is this one's first step.
            let rows = run_tree(&engine, &tree.tokens, &passes, &sampling, compact.take());
            let deepest_first = below(&mut random, 2) == 0;
            let accepted = match deepest_first {
                true => (0..tree.tokens.len()).max_by_key(|&node| tree.ancestors[node].count_ones()).unwrap_or(0),
                false => below(&mut random, tree.tokens.len()),
            };
            let mut path: Vec<usize> =
                (0..tree.tokens.len()).filter(|&node| tree.ancestors[accepted] >> node & 1 == 1).collect();
            path.truncate(target.context - base);
            for (depth, &node) in path.iter().enumerate() {
                let alone = Params::chain(1, base + depth, 0);
                let row = run_tree(&fresh, &tree.tokens[node..=node], &[alone], &sampling, None);
                assert!(
                    row[0] == rows[node],
                    "seed {seed} on {device:?}: node {node} at {base} of {:b}: {:?} and {:?}",
                    tree.ancestors[node],
                    RowStats::from_words(&row[0].1),
                    RowStats::from_words(&rows[node].1)
                );
            }
            let last = path[path.len() - 1];
            compact = target.compact(base, tree.ancestors[last]);
            base += path.len();
            root = rows[last].0;
            rounds += 1;
            wide += usize::from(tree.tokens.len() > MAX_COLUMNS);
            moved += usize::from(compact.is_some());
        }
        submit(&engine, &[], Vec::from_iter(compact), (0, 1));
        assert!(left_behind(&engine, base) == left_behind(&fresh, base), "seed {seed}, {device:?}");
        assert!(logits(&engine, target, root, base) == logits(&fresh, fresh.target(), root, base), "{device:?}");
    }
    println!("{device:?}: {rounds} rounds, {wide} in more than one pass, {moved} compacted");
    assert!(wide > 20 && moved > 20 && rounds > moved, "{wide} wide, {moved} moved of {rounds}");
}

/// The row of one token at `base`, not processed.
fn logits(engine: &Engine, model: &Model, token: u32, base: usize) -> Vec<u32> {
    chain_logits(engine, model, Params::chain(1, base, 0), &[token])
}

/// The row of the last token of a chain.
fn chain_logits(engine: &Engine, model: &Model, mut params: Params, tokens: &[u32]) -> Vec<u32> {
    (params.logit_first, params.logit_cols) = (params.live_cols - 1, 1);
    submit(engine, tokens, model.pass(params, false), (0, 1));
    let before = engine.executor().counters();
    let row = block_on(model.rows(engine.executor(), 1)).expect("rows");
    let after = engine.executor().counters();
    assert_eq!((after.submits, after.maps), (before.submits + 1, before.maps + 1), "reading rows is counted");
    assert_eq!(row.len(), model.config.vocabulary);
    row.into_iter().map(f32::to_bits).collect()
}

#[test]
fn trees_in_any_passes_and_compacted_leave_what_a_chain_leaves() {
    DEVICES.into_iter().for_each(trees_on);
}

#[test]
fn a_path_that_lies_right_needs_no_compaction() {
    let engine = tiny(DeviceChoice::Cpu);
    for mask in [0b1, 0b11, 0b1111, u32::MAX] {
        assert!(engine.target().compact(5, mask).is_none(), "{mask:#b}");
    }
    for mask in [0b101, 0b1011, 1 << 31 | 1] {
        assert!(engine.target().compact(5, mask).is_some(), "{mask:#b}");
    }
    assert_eq!(engine.target().capacity(), engine.target().context + MAX_NODES);
}

const TEXT: [u32; 11] = [72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100];

fn exit_on(device: DeviceChoice) {
    let (engine, fresh) = (tiny(device), tiny(device));
    let (target, executor) = (engine.target(), engine.executor());
    let allocated = executor.counters().allocated_bytes;
    let mark = executor.mark();
    let all = target.exit_after(gguf::tiny::LAYERS as usize, executor).expect("all layers");
    let early = target.exit_after(1, executor).expect("one layer");
    let early_alone = fresh.target().exit_after(1, fresh.executor()).expect("one layer");
    for layers in [0, gguf::tiny::LAYERS as usize + 1] {
        let error = target.exit_after(layers, executor).err().expect("refused");
        assert_eq!(error.code(), "bad_option", "{error}");
    }
    assert_eq!(executor.counters().allocated_bytes, allocated, "an exit has no buffers");
    assert_eq!((early.config.layers, early.caches.len(), early.memory.total_bytes), (1, 1, 0));

    // The early model alone: it fills the first layer's cache as the whole model does, and no other.
    let last = TEXT.len() - 1;
    let chain = Params::chain(TEXT.len(), 0, 0);
    let early_row = chain_logits(&fresh, &early_alone, chain, &TEXT);
    let only_early = left_behind(&fresh, TEXT.len());
    let whole_row = chain_logits(&engine, target, chain, &TEXT);
    let whole = left_behind(&engine, TEXT.len());
    // The history, then keys and values of the one KV head by layer.
    assert!(only_early[..3] == whole[..3], "the first layer's keys and values are the same on {device:?}");
    assert!(only_early[3..].iter().flatten().all(|&word| word == 0) && whole[3..] != only_early[3..], "{device:?}");
    assert!(early_row != whole_row, "one layer of two says something else");
    assert!(chain_logits(&engine, &all, chain, &TEXT) == whole_row, "all layers are the model on {device:?}");

    // On top of what the whole model left in the caches, the early one goes on as if it had seen everything itself.
    assert!(logits(&engine, &early, TEXT[last], last) == early_row, "{device:?}");
    assert!(left_behind(&engine, TEXT.len()) == whole, "what both compute is equal, the rest is left alone");
    assert!(target.kv.is_empty() && early.kv.is_empty());
    early.kv.extend(&TEXT);
    assert_eq!(target.kv.len(), TEXT.len(), "what the shared caches hold is noted once");
    target.kv.rollback(0);

    // A view that sees all changes nothing, a narrow one does.
    let view = |sink, window| {
        let mut params = Params::chain(1, last, 0);
        (params.view_sink, params.view_window) = (sink, window);
        chain_logits(&engine, &early, params, &TEXT[last..])
    };
    assert!(view(0, 1000) == early_row && view(6, 5) == early_row, "{device:?}");
    assert!(view(1, 3) != early_row, "{device:?}");

    executor.release(mark);
    assert!(logits(&engine, target, TEXT[last], last) == whole_row, "the model outlives its exits");
}

#[test]
fn a_model_that_exits_early_shares_everything_but_its_plans() {
    DEVICES.into_iter().for_each(exit_on);
}
