//! Records one forward pass for every architecture, once per column bucket, and keeps what a model has on its device.

use super::config::ModelConfig;
use super::kv::KvTokens;
use super::loader::{Placement, rope_table};
use super::memory::MemoryPlan;
use super::tensors::{Layer, Matrix, Tensors, specify};
use crate::error::{Error, Result};
use crate::plan::{
    Arithmetic, AttentionShape, BufferId, COLUMN_BUCKETS, Columns, Executor, MAX_COLUMNS, MAX_NODES, Params, Plan,
    PlanId, Step, UNIFORM_WORDS, Vector,
};
use crate::weights::format::BLOCK;
use crate::weights::gguf::{Gguf, GgufReader};
use std::cell::Cell;
use std::rc::Rc;

/// A model that is ready to run.
pub struct Model {
    /// Its shape.
    pub config: ModelConfig,
    /// Tokens of context; the cache has room for the widest tree beyond them.
    pub context: usize,
    /// What it takes.
    pub memory: MemoryPlan,
    /// Tokens in its KV cache.
    pub kv: Rc<KvTokens>,
    /// (columns, vocabulary) f32 of the last pass with a head.
    pub logits: BufferId,
    /// Keys and values by layer: (kv_heads, capacity, head_dim/2) packed halves.
    pub caches: Vec<[BufferId; 2]>,
    /// (capacity) u32: tokens by KV slot.
    pub history: BufferId,
    /// Embedding and layers by column bucket.
    bodies: [PlanId; COLUMN_BUCKETS.len()],
    /// What comes after the layers, which a model that exits early shares.
    ends: Ends,
    recorder: Rc<Recorder>,
    tensors: Rc<Tensors<Matrix, BufferId>>,
    /// An accepted path that is still scattered: slot of its root, mask of its last node.
    pending: Rc<Cell<Option<(usize, u32)>>>,
}

/// The plans of a model that do not depend on the number of layers.
#[derive(Clone, Copy)]
struct Ends {
    /// Final norm and head by column bucket.
    heads: [PlanId; COLUMN_BUCKETS.len()],
    sample: PlanId,
    row_stats: PlanId,
    compact: PlanId,
}

impl Model {
    /// Loads a model whose header was read and whose memory plan was checked. `context` is cut to what the model was
    /// trained for. `progress` gets the number
    /// of bytes of the file that are done.
    pub async fn load(
        gguf: &Gguf,
        reader: &mut GgufReader<'_>,
        executor: &dyn Executor,
        context: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Model> {
        let config = ModelConfig::from_gguf(gguf)?;
        let specs = specify(&config, gguf)?;
        let context = context.min(config.context);
        let memory = MemoryPlan::new(&config, &specs, context);
        let mark = executor.mark();
        let loaded = async {
            let mut placement = Placement::new(executor);
            let tensors = placement.tensors(&specs)?;
            // What the device cannot hold or run is refused before the weights are fetched.
            let model = Model::record(config, tensors, context, memory, executor)?;
            // In a browser a buffer that could not be made is told of later: at the latest with this answer.
            executor.read(BufferId::TOKENS, 0, 1).await?;
            placement.fill(reader, &gguf.tensors, progress).await?;
            model.recorder.write_rotation(model.tensors.rope_freqs, executor).await?;
            Ok(model)
        };
        let loaded = loaded.await;
        if loaded.is_err() {
            executor.release(mark);
        }
        loaded.map_err(|error| match error {
            // The device said which buffer it could not make; the caller wants to know what the whole model takes.
            Error::OutOfMemory { device, plan } => {
                Error::OutOfMemory { device, plan: format!("{memory}; failed at {plan}") }
            }
            other => other,
        })
    }

    fn record(
        config: ModelConfig,
        tensors: Tensors<Matrix, BufferId>,
        context: usize,
        memory: MemoryPlan,
        executor: &dyn Executor,
    ) -> Result<Model> {
        let recorder = Recorder::new(&config, context + MAX_NODES, executor)?;
        let bodies = by_bucket(executor, "body", || recorder.body(&tensors, config.layers))?;
        let plan = |label: &str, bucket, step| executor.prepare(Plan { label: label.to_owned(), bucket, steps: step });
        let ends = Ends {
            heads: by_bucket(executor, "head", || recorder.head(&tensors))?,
            sample: plan("sample", MAX_COLUMNS, vec![recorder.sample()])?,
            row_stats: plan("row statistics", MAX_COLUMNS, vec![recorder.row_stats()])?,
            compact: plan("compact", 1, recorder.compact())?,
        };
        Ok(Model {
            config,
            context,
            memory,
            kv: Rc::default(),
            logits: recorder.logits,
            caches: recorder.caches.clone(),
            history: recorder.history,
            bodies,
            ends,
            recorder: Rc::new(recorder),
            tensors: Rc::new(tensors),
            pending: Rc::default(),
        })
    }

    /// The same model with only its first `layers` layers before the final norm and the head: a drafter without weights of
    /// its own (Draft & Verify, arXiv 2309.08168, keeps other layers). It shares weights, activations, logits, history,
    /// caches and what is known of them, so what either model put into its layers both have, and a path that is still
    /// scattered is moved together by whichever runs first; it costs plans and no buffer.
    /// Fails where there are fewer layers. The plans live after those of the whole model: an [`Executor::release`] to a
    /// mark taken before this call drops them and nothing that is shared.
    pub fn exit_after(&self, layers: usize, executor: &dyn Executor) -> Result<Model> {
        if layers == 0 || layers > self.config.layers {
            let expected = format!("1 to {}", self.config.layers);
            return Err(Error::BadOption { name: "exit layer".to_owned(), found: layers.to_string(), expected });
        }
        let mark = executor.mark();
        let label = format!("body of {layers} layers");
        let bodies = by_bucket(executor, &label, || self.recorder.body(&self.tensors, layers));
        if bodies.is_err() {
            executor.release(mark);
        }
        Ok(Model {
            config: ModelConfig { layers, ..self.config.clone() },
            context: self.context,
            memory: MemoryPlan::nothing(self.context),
            kv: Rc::clone(&self.kv),
            logits: self.logits,
            caches: self.caches[..layers].to_vec(),
            history: self.history,
            bodies: bodies?,
            ends: self.ends,
            recorder: Rc::clone(&self.recorder),
            tensors: Rc::clone(&self.tensors),
            pending: Rc::clone(&self.pending),
        })
    }

    /// Slots of the KV cache.
    pub fn capacity(&self) -> usize {
        self.context + MAX_NODES
    }

    /// Notes that of a tree rooted at slot `base` the path of this mask was accepted: its keys and values are moved together
    /// before the next pass.
    pub fn accept_path(&self, base: usize, mask: u32) {
        self.pending.set((mask & mask.wrapping_add(1) != 0).then_some((base, mask)));
    }

    /// The run that moves what [`Model::accept_path`] noted; it must come before any other pass. `None` where there is
    /// nothing to move, or it was rolled back meanwhile.
    pub fn take_pending(&self) -> Option<(PlanId, Params)> {
        let (base, mask) = self.pending.take().filter(|&(base, _)| self.kv.len() > base + 1)?;
        self.compact(base, mask)
    }

    /// Passes that bring the `count` tokens at `TOKENS[0..]` into the cache from slot `base` on; no logits.
    pub fn feed(&self, base: usize, count: usize) -> Vec<(PlanId, Params)> {
        let starts = (0..count).step_by(MAX_COLUMNS);
        starts.flat_map(|at| self.pass(Params::chain(MAX_COLUMNS.min(count - at), base + at, at), false)).collect()
    }

    /// One pass: layers, then for `params.logit_cols` columns the head, then the sampler if `sample`.
    pub fn pass(&self, params: Params, sample: bool) -> Vec<(PlanId, Params)> {
        let bucket = |columns: u32| COLUMN_BUCKETS.iter().position(|&bucket| bucket >= columns as usize).unwrap_or(0);
        let mut runs = vec![(self.bodies[bucket(params.live_cols)], params)];
        if params.logit_cols > 0 {
            runs.push((self.ends.heads[bucket(params.logit_cols)], params));
            if sample {
                runs.push((self.ends.sample, params));
            }
        }
        runs
    }

    /// The steps of a pass whose columns are all sampled, in order: for measuring where its time goes.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.recorder.body(&self.tensors, self.config.layers);
        steps.extend(self.recorder.head(&self.tensors));
        steps.push(self.recorder.sample());
        steps
    }

    /// Statistics of the rows that a pass sampled, to be run after it with its params: to `TOKENS[params.stats_at..]`.
    pub fn stats(&self, params: Params) -> (PlanId, Params) {
        (self.ends.row_stats, params)
    }

    /// Makes an accepted path contiguous in all caches and the history: `base` is the slot of the round's root, `mask` that
    /// of the path's last node. `None` where it lies so already. Run it once, before anything else uses the slots.
    pub fn compact(&self, base: usize, mask: u32) -> Option<(PlanId, Params)> {
        assert!(mask & 1 == 1, "a path starts at the root");
        let mut params = Params::chain(1, base, 0);
        (params.ancestors[0], params.nodes[0]) = (mask, mask.ilog2());
        (mask & mask.wrapping_add(1) != 0).then_some((self.ends.compact, params))
    }

    /// The first `columns` rows of logits as the last pass left them, (columns, vocabulary): a submit and a map.
    pub async fn rows(&self, executor: &dyn Executor, columns: usize) -> Result<Vec<f32>> {
        let words = executor.read(self.logits, 0, columns * self.config.vocabulary).await?;
        Ok(words.into_iter().map(f32::from_bits).collect())
    }

    /// One of these rows, (vocabulary): a submit and a map.
    pub async fn row(&self, executor: &dyn Executor, column: usize) -> Result<Vec<f32>> {
        let size = self.config.vocabulary;
        let words = executor.read(self.logits, column * size, size).await?;
        Ok(words.into_iter().map(f32::from_bits).collect())
    }
}

/// A plan for each column bucket.
fn by_bucket(
    executor: &dyn Executor,
    part: &str,
    steps: impl Fn() -> Vec<Step>,
) -> Result<[PlanId; COLUMN_BUCKETS.len()]> {
    let mut plans = [PlanId(0); COLUMN_BUCKETS.len()];
    for (plan, &bucket) in plans.iter_mut().zip(&COLUMN_BUCKETS) {
        *plan = executor.prepare(Plan { label: format!("{part}, {bucket} columns"), bucket, steps: steps() })?;
    }
    Ok(plans)
}

/// Words of a buffer that matrices take `width` elements a column from: enough to be bound as a uniform.
pub(super) const fn input_words(width: usize) -> usize {
    if MAX_COLUMNS * width > UNIFORM_WORDS { MAX_COLUMNS * width } else { UNIFORM_WORDS }
}

/// Buffers of a pass, and the steps over them.
struct Recorder {
    config: ModelConfig,
    arithmetic: Arithmetic,
    /// (columns, width) f32: the residual stream
    x: BufferId,
    /// (columns, width): normed input of a matrix, or what is added through a post-norm
    h: BufferId,
    /// (columns, (heads + 2*kv_heads) * head_dim) f32
    qkv: BufferId,
    /// (columns, heads, chunks, head_dim + 4) f32
    partial: BufferId,
    /// (columns, heads * head_dim)
    attended: BufferId,
    /// (columns, 2 * feed_forward) f32
    gate_up: BufferId,
    /// (columns, feed_forward)
    inner: BufferId,
    /// (columns, vocabulary) f32
    logits: BufferId,
    /// (capacity) u32: tokens by KV slot
    history: BufferId,
    /// (capacity, head_dim/2, 2) f32: global, local
    rope: [BufferId; 2],
    /// Keys and values by layer: (kv_heads, capacity, head_dim/2) packed halves
    caches: Vec<[BufferId; 2]>,
    shape: AttentionShape,
}

impl Recorder {
    fn new(config: &ModelConfig, capacity: usize, executor: &dyn Executor) -> Result<Recorder> {
        let columns = |label: &str, width: usize| executor.alloc(label, MAX_COLUMNS * width);
        let input = |label: &str, width: usize| executor.alloc(label, input_words(width));
        let [q, k, v] = config.qkv_rows();
        let shape = config.attention_shape(capacity);
        let rotation = || executor.alloc("rotation", capacity * config.head_dim);
        let global = rotation()?;
        let local = if config.window > 0 { rotation()? } else { global };
        let cache_words = config.kv_heads * capacity * config.head_dim / 2;
        let caches = (0..config.layers)
            .map(|_| Ok([executor.alloc("keys", cache_words)?, executor.alloc("values", cache_words)?]))
            .collect::<Result<_>>()?;
        Ok(Recorder {
            config: config.clone(),
            arithmetic: executor.arithmetic(),
            x: columns("stream", config.width)?,
            h: input("normed", config.width)?,
            qkv: input("qkv", q + k + v)?,
            partial: columns("attention partials", config.heads * shape.chunks() as usize * (config.head_dim + 4))?,
            attended: input("attended", q)?,
            gate_up: columns("gate and up", 2 * config.feed_forward)?,
            inner: input("inner", config.feed_forward)?,
            logits: columns("logits", config.vocabulary)?,
            history: executor.alloc("history", capacity)?,
            rope: [global, local],
            caches,
            shape,
        })
    }

    /// Writes the rotation tables; `divisors` of the frequencies come with the weights.
    async fn write_rotation(&self, divisors: Option<BufferId>, executor: &dyn Executor) -> Result<()> {
        let Recorder { config, shape, rope: [global, local], .. } = self;
        let divisors = match divisors {
            Some(buffer) => Some(executor.read(buffer, 0, config.head_dim / 2).await?),
            None => None,
        };
        let divisors = divisors.as_deref().map(bytemuck::cast_slice::<u32, f32>);
        executor.write(*global, 0, &rope_table(config, false, shape.capacity as usize, divisors))?;
        if local != global {
            executor.write(*local, 0, &rope_table(config, true, shape.capacity as usize, None))?;
        }
        Ok(())
    }

    /// Embedding and the first `layers` layers.
    fn body(&self, tensors: &Tensors<Matrix, BufferId>, layers: usize) -> Vec<Step> {
        let scale = self.config.embedding_scale();
        let embed = |&weight| Step::Embed { weight, history: self.history, out: self.x, scale };
        let mut steps: Vec<Step> = tensors.embedding.iter().map(embed).collect();
        for (index, layer) in tensors.layers.iter().enumerate().take(layers) {
            self.attention(&mut steps, index, layer);
            self.feed_forward(&mut steps, layer);
        }
        steps
    }

    fn attention(&self, steps: &mut Vec<Step>, index: usize, layer: &Layer<Matrix, BufferId>) {
        let local = self.config.is_local(index);
        let shape = AttentionShape { window: if local { self.config.window as u32 } else { 0 }, ..self.shape };
        let [k_cache, v_cache] = self.caches[index];
        let h = self.vector(self.h, &layer.qkv);
        steps.push(self.norm(self.x, layer.attn_norm, h, false));
        self.product(steps, &layer.qkv, h, self.qkv, false);
        steps.push(Step::RopeKv {
            qkv: self.qkv,
            k_cache,
            v_cache,
            rope: self.rope[usize::from(local)],
            qk_norm: layer.qk_norm,
            shape,
            pairs: self.config.architecture.pairs,
            eps: self.config.eps,
        });
        steps.push(Step::Attention { qkv: self.qkv, k_cache, v_cache, partial: self.partial, shape });
        let attended = match shape.head_dim.is_multiple_of(BLOCK as u32) {
            true => self.vector(self.attended, std::slice::from_ref(&layer.attn_output)),
            // A block would belong to two heads.
            false => Vector::F32(self.attended),
        };
        steps.push(Step::AttentionCombine { partial: self.partial, out: attended, shape });
        self.add_to_stream(steps, &layer.attn_output, attended, layer.post_attn_norm);
    }

    fn feed_forward(&self, steps: &mut Vec<Step>, layer: &Layer<Matrix, BufferId>) {
        let h = self.vector(self.h, &layer.gate_up);
        let inner = self.vector(self.inner, std::slice::from_ref(&layer.down));
        steps.push(self.norm(self.x, layer.ffn_norm, h, false));
        self.product(steps, &layer.gate_up, h, self.gate_up, false);
        steps.push(Step::Activation {
            x: self.gate_up,
            out: inner,
            width: self.config.feed_forward as u32,
            gate: self.config.architecture.gate,
        });
        self.add_to_stream(steps, &layer.down, inner, layer.post_ffn_norm);
    }

    /// Adds `matrix * input` to the stream, through a norm where the architecture has one there.
    fn add_to_stream(&self, steps: &mut Vec<Step>, matrix: &Matrix, input: Vector, post_norm: Option<BufferId>) {
        let group = std::slice::from_ref(matrix);
        match post_norm {
            None => self.product(steps, group, input, self.x, true),
            Some(weight) => {
                self.product(steps, group, input, self.h, false);
                steps.push(self.norm(self.h, weight, Vector::F32(self.x), true));
            }
        }
    }

    /// What `matrices` take from a buffer: quantised where that is the arithmetic and all of them can.
    fn vector(&self, buffer: BufferId, matrices: &[Matrix]) -> Vector {
        let quantised = matrices.iter().flatten().all(|part| part.layout.is_quantised());
        if self.arithmetic == Arithmetic::Q8 && quantised { Vector::Q8(buffer) } else { Vector::F32(buffer) }
    }

    fn norm(&self, x: BufferId, weight: BufferId, out: Vector, add: bool) -> Step {
        let (width, eps) = (self.config.width as u32, self.config.eps);
        Step::RmsNorm { x, weight, out, width, eps, add, columns: Columns::All }
    }

    /// `out = [group] * x`, the matrices of the group one below the other.
    fn product(&self, steps: &mut Vec<Step>, group: &[Matrix], x: Vector, out: BufferId, add: bool) {
        let rows = |matrix: &Matrix| matrix.iter().map(|part| part.rows).sum::<u32>();
        let out_stride = group.iter().map(rows).sum();
        let mut out_offset = 0;
        for matrix in group {
            for &weight in matrix {
                steps.push(Step::Matvec { weight, x, out, out_offset, out_stride, add, columns: Columns::All });
            }
            out_offset += rows(matrix);
        }
    }

    fn head(&self, tensors: &Tensors<Matrix, BufferId>) -> Vec<Step> {
        let (width, eps) = (self.config.width as u32, self.config.eps);
        let columns = Columns::Logits;
        let head = tensors.head.as_ref().unwrap_or(&tensors.embedding);
        let h = self.vector(self.h, std::slice::from_ref(head));
        let norm = Step::RmsNorm { x: self.x, weight: tensors.output_norm, out: h, width, eps, add: false, columns };
        let out_stride = self.config.vocabulary as u32;
        let product =
            |&weight| Step::Matvec { weight, x: h, out: self.logits, out_offset: 0, out_stride, add: false, columns };
        std::iter::once(norm).chain(head.iter().map(product)).collect()
    }

    fn sample(&self) -> Step {
        Step::Sample { logits: self.logits, history: self.history, vocabulary: self.config.vocabulary as u32 }
    }

    fn row_stats(&self) -> Step {
        Step::RowStats { logits: self.logits, vocabulary: self.config.vocabulary as u32 }
    }

    /// Everything that a tree scatters over the slots of its nodes.
    fn compact(&self) -> Vec<Step> {
        let AttentionShape { kv_heads, capacity, head_dim, .. } = self.shape;
        let cache = |&buffer| Step::Compact { buffer, rows: kv_heads, capacity, words: head_dim / 2 };
        let history = Step::Compact { buffer: self.history, rows: 1, capacity, words: 1 };
        self.caches.iter().flatten().map(cache).chain([history]).collect()
    }
}
