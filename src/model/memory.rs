//! How much memory a model takes, worked out before anything is loaded.

use super::config::ModelConfig;
use super::decoder::input_words;
use super::tensors::{MatrixSpec, Tensors, VectorSpec, specify};
use crate::error::{Error, Result};
use crate::plan::{Executor, KV_CHUNK, MAX_COLUMNS, MAX_NODES};
use crate::weights::gguf::Gguf;

/// Bytes by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    /// Matrices and vectors, as they lie on the device.
    pub weights_bytes: u64,
    /// Keys and values of the whole context and the widest tree.
    pub kv_bytes: u64,
    /// Activations of the widest pass, logits, attention's partial sums, rotation tables.
    pub activations_bytes: u64,
    /// The sum.
    pub total_bytes: u64,
    /// The largest single buffer apart from matrices, which are split where they must be.
    pub largest_buffer_bytes: u64,
    /// Tokens of context this is for.
    pub context_tokens: usize,
}

impl MemoryPlan {
    /// Of one model at a context length.
    pub fn new(config: &ModelConfig, tensors: &Tensors<MatrixSpec, VectorSpec>, context: usize) -> MemoryPlan {
        let columns = MAX_COLUMNS as u64;
        let capacity = (context + MAX_NODES) as u64;
        let layer_bytes = tensors.layers.iter().map(|layer| {
            let matrices = layer.qkv.iter().chain(&layer.gate_up).chain([&layer.attn_output, &layer.down]);
            let vectors = [Some(&layer.attn_norm), Some(&layer.ffn_norm), layer.qk_norm.as_ref()];
            let post = [layer.post_attn_norm.as_ref(), layer.post_ffn_norm.as_ref()];
            let floats: usize = vectors.into_iter().chain(post).flatten().map(VectorSpec::floats).sum();
            matrices.map(MatrixSpec::bytes).sum::<u64>() + 4 * floats as u64
        });
        let head = tensors.head.as_ref().map_or(0, MatrixSpec::bytes);
        let weights_bytes = tensors.embedding.bytes() + head + layer_bytes.sum::<u64>() + 4 * config.width as u64;
        let cache = (config.kv_heads * config.head_dim * 2) as u64 * capacity;
        let kv_bytes = 2 * cache * config.layers as u64;
        let [q, k, v] = config.qkv_rows();
        let widths = config.width + 2 * config.feed_forward;
        let inputs = [config.width, q, config.feed_forward, q + k + v].map(|width| 4 * input_words(width) as u64);
        let partial =
            columns * config.heads as u64 * capacity.div_ceil(KV_CHUNK as u64) * (config.head_dim as u64 + 4) * 4;
        let logits = columns * config.vocabulary as u64 * 4;
        let rope = capacity * config.head_dim as u64 * 4 * if config.window > 0 { 2 } else { 1 };
        let activations_bytes =
            columns * widths as u64 * 4 + inputs.iter().sum::<u64>() + partial + logits + rope + capacity * 4;
        MemoryPlan {
            weights_bytes,
            kv_bytes,
            activations_bytes,
            total_bytes: weights_bytes + kv_bytes + activations_bytes,
            largest_buffer_bytes: cache.max(partial).max(logits).max(rope),
            context_tokens: context,
        }
    }

    /// Of a model that has no buffers of its own.
    pub(super) const fn nothing(context: usize) -> MemoryPlan {
        MemoryPlan {
            weights_bytes: 0,
            kv_bytes: 0,
            activations_bytes: 0,
            total_bytes: 0,
            largest_buffer_bytes: 0,
            context_tokens: context,
        }
    }

    /// Of the model in a file.
    pub fn of(gguf: &Gguf, context: usize) -> Result<MemoryPlan> {
        let config = ModelConfig::from_gguf(gguf)?;
        let tensors = specify(&config, gguf)?;
        Ok(MemoryPlan::new(&config, &tensors, context.min(config.context)))
    }

    /// Refuses models, target and draft, that the device cannot hold together.
    pub fn check(plans: &[MemoryPlan], executor: &dyn Executor) -> Result<()> {
        let limits = executor.limits();
        let named: Vec<String> = plans.iter().map(MemoryPlan::to_string).collect();
        let refuse = |limit: String| {
            let plan = format!("{}; {limit}", named.join(", and the draft model "));
            Err(Error::OutOfMemory { device: executor.device().name, plan })
        };
        let largest = plans.iter().map(|plan| plan.largest_buffer_bytes).max().unwrap_or(0);
        if largest > limits.max_binding_bytes {
            let most = limits.max_binding_bytes;
            return refuse(format!("one buffer needs {largest} bytes and the device binds at most {most}"));
        }
        let total: u64 = plans.iter().map(|plan| plan.total_bytes).sum();
        match limits.memory_bytes {
            Some(most) if total > most => refuse(format!("{total} bytes, and the device has {most}")),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "weights {:.1} MiB + KV of {} tokens {:.1} MiB + activations {:.1} MiB = {:.1} MiB",
            mib(self.weights_bytes),
            self.context_tokens,
            mib(self.kv_bytes),
            mib(self.activations_bytes),
            mib(self.total_bytes)
        )
    }
}
