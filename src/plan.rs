//! The vocabulary of steps, and `Plan`: a recorded list of them. No backend in it.
//!
//! A plan is recorded once per (model, column bucket) and replayed; what changes from run to run stands in [`Params`],
//! which every kernel reads. *Columns* are the tokens of one pass, at most [`MAX_COLUMNS`]. Activations are `f32`,
//! column after column: element `i` of column `c` is `buffer[c * stride + i]`. Buffers hold `u32` words or `f32`.
//!
//! A column `c` is the node `nodes[c]` of a token tree of up to [`MAX_NODES`] nodes, node 0 its root; a pass may run any of
//! them whose ancestors ran before or run with it. The KV slot of node `n` is `base + n`, and its token stands at
//! `TOKENS[token_at + n]`. `ancestors[c]` is a bit mask over the nodes with the column's own bit set; parents have smaller
//! numbers than their children, so the n-th set bit is the ancestor at depth n. The *position* of a column is
//! `base + depth(c)`, where `depth(c) = count_ones(ancestors[c]) - 1`. A chain has `nodes[c] = c`, `ancestors[c] =
//! (2 << c) - 1` and slot == position.

use crate::error::Result;
use crate::runtime::now_ms;
use crate::sampling::{MAX_PENALTY_TOKENS, SamplingParams};
use crate::store::LocalFuture;
use crate::weights::format::Layout;

/// Columns of one pass.
pub const MAX_COLUMNS: usize = 16;
/// Nodes of a token tree, its root included; a tree of more than [`MAX_COLUMNS`] takes several passes.
pub const MAX_NODES: usize = 32;
/// The widths for which plans are recorded. A pass uses the smallest that holds its columns.
pub const COLUMN_BUCKETS: [usize; 5] = [1, 2, 4, 8, 16];
/// Positions whose attention is summed by one workgroup: fixed, so that sums do not depend on the columns in flight.
pub const KV_CHUNK: usize = 64;
/// Words in [`BufferId::TOKENS`]; inputs, samples and row statistics share it.
pub const TOKENS_WORDS: usize = 4096;
/// Tokens in each list of a row's statistics.
pub const TOP: usize = 8;
/// Words that [`Step::RowStats`] writes for a column; [`RowStats`] reads them.
pub const ROW_STATS_WORDS: usize = 3 + 4 * TOP;

/// Rows of a matrix are written in multiples of this, apart from the last: devices may keep them together.
pub const ROW_UNIT: usize = 32;

/// A buffer of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferId(pub u32);

impl BufferId {
    /// `u32` tokens of the round: inputs and samples, at offsets given by [`Params`]. Every executor owns one.
    pub const TOKENS: BufferId = BufferId(0);
    /// Logit bias: `(token, f32 bits)` pairs, `params.bias_count` of them.
    pub const BIAS: BufferId = BufferId(1);
}

/// A prepared plan of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(pub u32);

/// Rows `first_row .. first_row + rows` of a matrix, in buffers that one binding can hold.
#[derive(Debug, Clone, Copy)]
pub struct MatrixPart {
    /// Layout of both arrays.
    pub layout: Layout,
    /// (rows, cols/32, layout.quant_words()) words
    pub quants: BufferId,
    /// (rows, cols/32/blocks, words) by layout.scale_words(); one unused word where there are none
    pub scales: BufferId,
    /// Row of the whole matrix that row 0 of this part is.
    pub first_row: u32,
    /// Rows in this part.
    pub rows: u32,
    /// Weights in a row, a multiple of 32.
    pub cols: u32,
}

/// Which columns a step works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Columns {
    /// Columns `0 .. live_cols` of the pass.
    All,
    /// The columns whose logits are wanted, `0 .. logit_cols`, counted from `logit_first` of the pass.
    Logits,
}

/// Order of the rotated pairs in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: GGUF's `llama`.
    Adjacent,
    /// `(i, i + rope_dim/2)`: GGUF's `gemma3`, `qwen2`, …
    Halves,
}

/// Gate function of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// `x * sigmoid(x)`
    Silu,
    /// `0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`
    GeluTanh,
}

/// A vector a column, as matrices take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vector {
    /// (columns, width) f32
    F32(BufferId),
    /// (columns, width/32, [`Q8_WORDS`]) blocks of 32 elements as signed bytes: `x = scale * q`. Words 0 to 7 are the bytes in
    /// their order, word 8 is the scale, `max |x| / 127`, word 9 the sum of the bytes times the scale, both f32 bits; the
    /// other two are not used. Blocks without an element of 2^-100 and more are zeros.
    Q8(BufferId),
}

impl Vector {
    /// The buffer.
    pub const fn buffer(self) -> BufferId {
        match self {
            Vector::F32(buffer) | Vector::Q8(buffer) => buffer,
        }
    }

    /// Words of a column of `width` elements.
    pub const fn words(self, width: usize) -> usize {
        match self {
            Vector::F32(_) => width,
            Vector::Q8(_) => width / 32 * Q8_WORDS,
        }
    }
}

/// Words of a block of 32 elements in a [`Vector::Q8`]: what three loads of four words bring.
pub const Q8_WORDS: usize = 12;

/// Words that any device binds as a uniform; a buffer that matrices read their input from has at least these.
pub const UNIFORM_WORDS: usize = 16_384;

/// How the products of quantised matrices are computed: frozen at load, one for every number of columns. Matrices of floats
/// are always multiplied with floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// Weights are decoded to f32, vectors are f32.
    F32,
    /// Vectors are quantised to signed bytes, so that the products of a block are integers and their sum is exact.
    Q8,
}

impl Arithmetic {
    /// Name in options and fingerprints.
    pub const fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Q8 => "q8",
        }
    }
}

/// One kernel call. Kernel file, pipeline, CPU twin and test carry the variant's name in snake case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// `out[c] = scale * weight[token]`, `history[base + n] = token` for `token = TOKENS[token_at + n]` of the column's node
    /// `n`, where the token's row is in this part; other columns are left alone.
    Embed {
        /// (vocabulary, width)
        weight: MatrixPart,
        /// (capacity) u32: tokens by KV slot
        history: BufferId,
        /// (columns, width) f32
        out: BufferId,
        /// Factor on every element.
        scale: f32,
    },
    /// `out[c] = x[c'] / sqrt(mean(x[c']^2) + eps) * weight`, or `out[c] += …` where `add`. `c'` is `c`, or
    /// `logit_first + c` for [`Columns::Logits`]. `x` and `out` differ.
    RmsNorm {
        /// (columns, width) f32
        x: BufferId,
        /// (width) f32
        weight: BufferId,
        /// `width` elements a column
        out: Vector,
        /// Elements of a column, a multiple of 32.
        width: u32,
        /// Added to the mean square.
        eps: f32,
        /// Add to `out`, which is f32, instead of writing it.
        add: bool,
        /// Which columns.
        columns: Columns,
    },
    /// `out[c][out_offset + first_row + r] = sum_k weight[r][k] * x[c][k]`, or `+=` where `add`.
    Matvec {
        /// (rows, cols)
        weight: MatrixPart,
        /// `cols` elements a column; floats where the matrix is of floats
        x: Vector,
        /// (columns, out_stride) f32
        out: BufferId,
        /// Row of `out` that row 0 of the matrix is.
        out_offset: u32,
        /// Elements of a column of `out`.
        out_stride: u32,
        /// Add to `out` instead of writing it.
        add: bool,
        /// Which columns.
        columns: Columns,
    },
    /// Per column: optional RMS norm of each query and key head, rotation of both by the column's position, then the
    /// rotated queries back into `qkv`, keys and values as packed halves into the cache at the slot of the column's node.
    RopeKv {
        /// (columns, (heads + 2*kv_heads) * head_dim) f32: queries, keys, values
        qkv: BufferId,
        /// (kv_heads, capacity, head_dim/2) packed halves
        k_cache: BufferId,
        /// (kv_heads, capacity, head_dim/2) packed halves
        v_cache: BufferId,
        /// (capacity, head_dim/2, 2) f32: cosine and sine of every position and pair
        rope: BufferId,
        /// (2, head_dim) f32: norm weights of queries, then of keys
        qk_norm: Option<BufferId>,
        /// Sizes.
        shape: AttentionShape,
        /// Which elements rotate together.
        pairs: RopePairs,
        /// Of the head norms.
        eps: f32,
    },
    /// Attention of one chunk of [`KV_CHUNK`] positions: for chunk `j`, head `h`, column `c` the maximum score, the sum of
    /// `exp(score - max)` and the so weighted sum of values. Positions run in path order (slots for `p < base`, then the
    /// column's ancestors by depth), so a tree sums as a chain does. What is visible is decided by the window of the layer and
    /// the view of the pass; chunks with nothing visible are skipped.
    Attention {
        /// (columns, (heads + 2*kv_heads) * head_dim) f32, queries rotated
        qkv: BufferId,
        /// (kv_heads, capacity, head_dim/2) packed halves
        k_cache: BufferId,
        /// (kv_heads, capacity, head_dim/2) packed halves
        v_cache: BufferId,
        /// (columns, heads, chunks, head_dim + 4) f32: weighted values, maximum, sum, nothing
        partial: BufferId,
        /// Sizes.
        shape: AttentionShape,
    },
    /// Merges the chunks of each head in ascending order: `out[c][h*head_dim + i]`.
    AttentionCombine {
        /// (columns, heads, chunks, head_dim + 4) f32
        partial: BufferId,
        /// `heads * head_dim` elements a column, a multiple of 32
        out: Vector,
        /// Sizes.
        shape: AttentionShape,
    },
    /// `out[c][i] = gate(x[c][i]) * x[c][width + i]`
    Activation {
        /// (columns, 2*width) f32: gate, up
        x: BufferId,
        /// `width` elements a column
        out: Vector,
        /// Elements of a column of `out`, a multiple of 32.
        width: u32,
        /// The function.
        gate: Gate,
    },
    /// Samples one token a logit column, in the fixed order of [`crate::sampling`], and writes it to
    /// `TOKENS[sample_at + c]`. Changes the logits in place.
    Sample {
        /// (columns, vocabulary) f32
        logits: BufferId,
        /// (capacity) u32: tokens by KV slot
        history: BufferId,
        /// Tokens in the vocabulary.
        vocabulary: u32,
    },
    /// Statistics of the logit columns as [`Step::Sample`] left them, after bias, penalties and temperature and before any
    /// truncation: [`ROW_STATS_WORDS`] words a column, to `TOKENS[stats_at + c * ROW_STATS_WORDS]`. Words 0 to 2: entropy,
    /// second moment, `ln p` of the sample at `TOKENS[sample_at + c]`, as f32 bits. Then [`TOP`] pairs (token, `ln p`) by
    /// falling logit, then [`TOP`] by falling `logit + gumbel`, the lowest id first among equals; at temperature 0 the lists
    /// are equal. Tokens of probability 0 are not listed; a place without a token has `u32::MAX` and `-inf`.
    RowStats {
        /// (columns, vocabulary) f32
        logits: BufferId,
        /// Tokens in the vocabulary.
        vocabulary: u32,
    },
    /// Makes a path of a tree contiguous: `buffer[r][base + n] = buffer[r][base + node]` for its node at each depth `n >= 1`.
    /// `ancestors[0]` is the path, the mask of its last node, and the run has one column. Not to be run twice.
    Compact {
        /// (rows, capacity, words) u32: keys or values, or with a row of one word the history
        buffer: BufferId,
        /// Rows.
        rows: u32,
        /// KV slots.
        capacity: u32,
        /// Words of a slot.
        words: u32,
    },
}

impl Step {
    /// Kernel, and for a matrix its size and layout: steps of one label cost the same.
    pub fn label(&self) -> String {
        match self {
            Step::Embed { .. } => "embed".to_owned(),
            Step::RmsNorm { .. } => "rms_norm".to_owned(),
            Step::Matvec { weight, .. } => format!("matvec {} x {} {}", weight.rows, weight.cols, weight.layout.name()),
            Step::RopeKv { .. } => "rope_kv".to_owned(),
            Step::Attention { .. } => "attention".to_owned(),
            Step::AttentionCombine { .. } => "attention_combine".to_owned(),
            Step::Activation { .. } => "activation".to_owned(),
            Step::Sample { .. } => "sample".to_owned(),
            Step::RowStats { .. } => "row_stats".to_owned(),
            Step::Compact { .. } => "compact".to_owned(),
        }
    }
}

/// Sizes of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; query head `h` reads `h / (heads / kv_heads)`.
    pub kv_heads: u32,
    /// Elements of a head, a multiple of 16, at most 256.
    pub head_dim: u32,
    /// KV slots.
    pub capacity: u32,
    /// A position sees only the last `window` positions, itself included; 0 means all.
    pub window: u32,
    /// Factor on the scores.
    pub scale: f32,
}

impl AttentionShape {
    /// Chunks that the partial buffer has room for.
    pub const fn chunks(&self) -> u32 {
        self.capacity.div_ceil(KV_CHUNK as u32)
    }
}

/// A recorded pass.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// For messages: which model, which part, how many columns.
    pub label: String,
    /// Columns the matrix kernels compute, one of [`COLUMN_BUCKETS`].
    pub bucket: usize,
    /// In order; each sees the writes of those before it.
    pub steps: Vec<Step>,
}

/// What changes from run to run: 256 bytes, the uniform of every kernel. The order of the fields is that of
/// `shaders/shared/params.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Params {
    /// Tokens in this pass, 1 to 16.
    pub live_cols: u32,
    /// KV slot and position of the tree's root: what is below is one path. Column `c` writes slot `base + nodes[c]`.
    pub base: u32,
    /// Where in `TOKENS` the tokens of the tree stand, node by node.
    pub token_at: u32,
    /// First column whose logits are wanted.
    pub logit_first: u32,
    /// Number of columns whose logits are wanted.
    pub logit_cols: u32,
    /// Where in `TOKENS` the samples go.
    pub sample_at: u32,
    /// Seed of the noise.
    pub seed: [u32; 2],
    /// 0 takes the largest logit and draws no noise.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 1 changes nothing.
    pub repeat_penalty: f32,
    /// 0 changes nothing.
    pub presence_penalty: f32,
    /// 0 changes nothing.
    pub frequency_penalty: f32,
    /// Last tokens that the penalties look at, 0 to [`MAX_PENALTY_TOKENS`].
    pub penalty_last_n: u32,
    /// Pairs in `BIAS`.
    pub bias_count: u32,
    /// Where in `TOKENS` the row statistics go.
    pub stats_at: u32,
    /// Positions at the start that every column sees where `view_window` is not 0.
    pub view_sink: u32,
    /// Of the others a column at position `p` sees those above `p - view_window`, on top of the layer's own window; 0 sees
    /// all. StreamingLLM (arXiv 2309.17453) without its renumbering of positions.
    pub view_window: u32,
    /// Room to grow; zero.
    pub reserved: [u32; 12],
    /// Ancestor masks over nodes, by column; see the module's head.
    pub ancestors: [u32; 16],
    /// Nodes of the tree, by column.
    pub nodes: [u32; 16],
}

const _: () = assert!(size_of::<Params>() == 256, "one uniform slot");

impl Params {
    /// A pass over a chain of `live_cols` tokens at `TOKENS[token_at..]`, no logits wanted, greedy.
    pub fn chain(live_cols: usize, base: usize, token_at: usize) -> Params {
        assert!((1..=MAX_COLUMNS).contains(&live_cols), "a pass has 1 to 16 columns");
        let mut ancestors = [0; 16];
        for (column, mask) in ancestors.iter_mut().enumerate().take(live_cols) {
            *mask = (2u32 << column) - 1;
        }
        Params {
            live_cols: live_cols as u32,
            base: base as u32,
            token_at: token_at as u32,
            top_p: 1.0,
            repeat_penalty: 1.0,
            ancestors,
            nodes: std::array::from_fn(|column| column as u32),
            ..bytemuck::Zeroable::zeroed()
        }
    }

    /// The same over the tokens at `TOKENS[0..]`, every column sampled: samples stand behind the tokens.
    pub fn sampled_chain(live_cols: usize, base: usize) -> Params {
        let (logit_cols, sample_at) = (live_cols as u32, live_cols as u32);
        Params { logit_cols, sample_at, ..Params::chain(live_cols, base, 0) }
    }

    /// A pass over some nodes of a tree, in this order; `ancestors` are the masks of all its nodes, by node. No logits wanted,
    /// greedy.
    pub fn tree(nodes: &[usize], ancestors: &[u32], base: usize, token_at: usize) -> Params {
        let mut params = Params::chain(nodes.len(), base, token_at);
        for (column, &node) in nodes.iter().enumerate() {
            params.nodes[column] = node as u32;
            params.ancestors[column] = ancestors[node];
        }
        params
    }

    /// The same pass with these sampling options.
    pub fn sampled(self, options: &SamplingParams) -> Params {
        debug_assert!(options.repeat_last_n as usize <= MAX_PENALTY_TOKENS, "validated before");
        Params {
            seed: [options.seed as u32, (options.seed >> 32) as u32],
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            repeat_penalty: options.repeat_penalty,
            presence_penalty: options.presence_penalty,
            frequency_penalty: options.frequency_penalty,
            penalty_last_n: options.repeat_last_n,
            bias_count: options.logit_bias.len() as u32,
            ..self
        }
    }

    /// Depth of a column in its tree; the root has 0.
    pub fn depth(&self, column: usize) -> u32 {
        self.ancestors[column].count_ones() - 1
    }

    /// KV slot of the token at `position` on the path to `column`.
    pub fn slot(&self, column: usize, position: u32) -> u32 {
        if position < self.base {
            return position;
        }
        self.base + node_at(self.ancestors[column], position - self.base)
    }

    /// KV slot that a column writes.
    pub fn own_slot(&self, column: usize) -> u32 {
        self.base + self.nodes[column]
    }
}

/// The node at a depth of the path that a mask over nodes is: its `depth`-th set bit.
pub fn node_at(mut mask: u32, depth: u32) -> u32 {
    for _ in 0..depth {
        mask &= mask - 1;
    }
    mask.trailing_zeros()
}

/// What a target or draft says of one row: the words of [`Step::RowStats`]. Logarithms are natural; probabilities are those
/// after bias, penalties and temperature and before truncation.
#[derive(Debug, Clone, PartialEq)]
pub struct RowStats {
    /// `-sum p ln p`, in nats.
    pub entropy: f32,
    /// `sum p (ln p)^2`: less the square of the entropy, the variance of the surprise.
    pub second_moment: f32,
    /// `ln p` of the token that was sampled.
    pub sample_logp: f32,
    /// The likeliest tokens with their `ln p`, likeliest first.
    pub top: Vec<(u32, f32)>,
    /// Tokens with their `ln p` by falling logit + noise: what the sampler would take first, second, … without truncation.
    pub drawn: Vec<(u32, f32)>,
}

impl RowStats {
    /// From the [`ROW_STATS_WORDS`] words of a column.
    pub fn from_words(words: &[u32]) -> RowStats {
        let pairs = |words: &[u32]| {
            let pairs = words.chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1])));
            pairs.filter(|&(token, _)| token != u32::MAX).collect()
        };
        let [entropy, second_moment, sample_logp] = [0, 1, 2].map(|word| f32::from_bits(words[word]));
        let (top, drawn) = words[3..ROW_STATS_WORDS].split_at(2 * TOP);
        RowStats { entropy, second_moment, sample_logp, top: pairs(top), drawn: pairs(drawn) }
    }
}

/// One unit of work: plans run in order in one pass, then some words of `TOKENS` come back.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// Words written to `TOKENS` before the runs: (offset, tokens).
    pub tokens: Vec<(usize, Vec<u32>)>,
    /// Plans with their params.
    pub runs: Vec<(PlanId, Params)>,
    /// Words of `TOKENS` to read back: (offset, count); a count of 0 reads nothing and needs no map.
    pub read: (usize, usize),
}

/// Work in flight.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// Which of the two executors this is, and what it runs on.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DeviceInfo {
    /// `gpu` or `cpu`.
    pub kind: &'static str,
    /// Adapter or processor name.
    pub name: String,
    /// A GPU in software.
    pub software: bool,
}

/// What an executor can hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest buffer that a kernel can be given, in bytes.
    pub max_binding_bytes: u64,
    /// Memory there is, in bytes, where it is known.
    pub memory_bytes: Option<u64>,
}

/// Work counted since the executor was made; keep-alive submits of the poller are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Submits of work.
    pub submits: u64,
    /// Buffer maps.
    pub maps: u64,
    /// Bytes allocated and not freed.
    pub allocated_bytes: u64,
}

/// Rows of a matrix that fit into one binding, whole units of them where there are more.
pub fn rows_per_part(layout: Layout, rows: usize, cols: usize, max_binding_bytes: u64) -> usize {
    let row_bytes = 4 * layout.quant_words_for(cols).max(layout.scale_words_for(cols)) as u64;
    let most = usize::try_from(max_binding_bytes / row_bytes.max(1)).unwrap_or(usize::MAX);
    if most >= rows { rows } else { (most / ROW_UNIT * ROW_UNIT).max(1) }
}

/// Room for a matrix in two buffers, quants and scales.
pub fn alloc_matrix_in_buffers(
    executor: &(impl Executor + ?Sized),
    label: &str,
    layout: Layout,
    rows: usize,
    cols: usize,
) -> Result<[BufferId; 2]> {
    let quants = executor.alloc(&format!("{label} quants"), layout.quant_words_for(rows * cols))?;
    Ok([quants, executor.alloc(&format!("{label} scales"), layout.scale_words_for(rows * cols).max(1))?])
}

/// Writes rows from `row` of a part that lies in two buffers.
pub fn write_matrix_in_buffers(
    executor: &(impl Executor + ?Sized),
    part: &MatrixPart,
    row: usize,
    quants: &[u32],
    scales: &[u32],
) -> Result<()> {
    let weights = row * part.cols as usize;
    executor.write(part.quants, part.layout.quant_words_for(weights), quants)?;
    match scales {
        [] => Ok(()),
        scales => executor.write(part.scales, part.layout.scale_words_for(weights), scales),
    }
}

/// Milliseconds of a submission, from submit to read-back.
pub async fn time_ms(executor: &dyn Executor, submission: Submission) -> Result<f64> {
    let start = now_ms();
    let ticket = executor.submit(submission)?;
    executor.finish(ticket).await?;
    Ok(now_ms() - start)
}

/// The shortest of three submissions that do nothing.
pub async fn round_trip_ms(executor: &dyn Executor) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min(time_ms(executor, Submission { read: (0, 1), ..Submission::default() }).await?);
    }
    Ok(best)
}

/// Runs plans. Methods take `&self`; callers see to it that only one submission chain is in flight: of plain steps the next may
/// be submitted before the last is finished, and be given up.
pub trait Executor {
    /// What this runs on.
    fn device(&self) -> DeviceInfo;
    /// What it can hold.
    fn limits(&self) -> Limits;
    /// A zeroed buffer of `words` words. Fails with `OutOfMemory` where the device refuses.
    fn alloc(&self, label: &str, words: usize) -> Result<BufferId>;
    /// Writes words at an offset in words. The data is taken over before this returns.
    fn write(&self, buffer: BufferId, offset: usize, words: &[u32]) -> Result<()>;
    /// Room for a matrix, quants and scales, in whatever memory the device reads it fastest from; it is filled by
    /// [`Executor::write_matrix`] only.
    fn alloc_matrix(&self, label: &str, layout: Layout, rows: usize, cols: usize) -> Result<[BufferId; 2]> {
        alloc_matrix_in_buffers(self, label, layout, rows, cols)
    }
    /// Writes rows of a matrix from `row` of this part on. Rows come in multiples of [`ROW_UNIT`], apart from the last.
    fn write_matrix(&self, part: &MatrixPart, row: usize, quants: &[u32], scales: &[u32]) -> Result<()> {
        write_matrix_in_buffers(self, part, row, quants, scales)
    }
    /// Reads words back: for tests and tools; costs a submit and a map.
    fn read(&self, buffer: BufferId, offset: usize, words: usize) -> LocalFuture<'_, Result<Vec<u32>>>;
    /// Frees buffers and drops plans made after `mark` (a value of [`Executor::mark`]).
    fn release(&self, mark: (u32, u32));
    /// Buffers and plans that exist now.
    fn mark(&self) -> (u32, u32);
    /// Checks a plan against its buffers and makes it ready to run.
    fn prepare(&self, plan: Plan) -> Result<PlanId>;
    /// Queues a submission.
    fn submit(&self, submission: Submission) -> Result<Ticket>;
    /// Waits for a submission and gives the words it was asked to read back. Submissions that were made before and that
    /// nobody has waited for are over then, and their words are lost.
    fn finish(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>>;
    /// Whether submissions run while nobody waits for them, so that one that is made before the last was read saves time.
    fn is_asynchronous(&self) -> bool {
        false
    }
    /// Submits, maps, bytes.
    fn counters(&self) -> Counters;
    /// How quantised matrices are multiplied.
    fn arithmetic(&self) -> Arithmetic;
    /// What was frozen at load and decides the bits: device, build, arithmetic, geometry.
    fn fingerprint(&self) -> String;
}
