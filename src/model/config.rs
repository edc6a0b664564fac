//! From GGUF metadata to the shape of a decoder. A further architecture is one more row of [`ARCHITECTURES`].

use crate::error::{Error, Result};
use crate::plan::{AttentionShape, Gate, RopePairs};
use crate::weights::gguf::Gguf;
use crate::weights::metadata::Metadata;

/// What distinguishes one architecture from another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// Order of rotated pairs in the file's query and key weights.
    pub pairs: RopePairs,
    /// Gate of the feed-forward part.
    pub gate: Gate,
    /// RMS norm of each query and key head before rotation.
    pub qk_norm: bool,
    /// RMS norm of what attention and feed-forward add to the stream.
    pub post_norms: bool,
    /// Embeddings are multiplied by `sqrt(width)`.
    pub scaled_embedding: bool,
    /// Every n-th layer sees all positions, the others a window; 0 where all see all.
    pub global_every: u32,
    /// Base of the rotation in layers with a window.
    pub local_rope_base: f32,
}

/// The architectures that are known.
pub const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "llama",
        pairs: RopePairs::Adjacent,
        gate: Gate::Silu,
        qk_norm: false,
        post_norms: false,
        scaled_embedding: false,
        global_every: 0,
        local_rope_base: 0.0,
    },
    // Gemma 3 technical report, arXiv 2503.19786: five local layers to one global, two bases.
    Architecture {
        name: "gemma3",
        pairs: RopePairs::Halves,
        gate: Gate::GeluTanh,
        qk_norm: true,
        post_norms: true,
        scaled_embedding: true,
        global_every: 6,
        local_rope_base: 10_000.0,
    },
];

/// Shape of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Row of [`ARCHITECTURES`].
    pub architecture: Architecture,
    /// Number of layers.
    pub layers: usize,
    /// Elements of the stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements inside the feed-forward part.
    pub feed_forward: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Epsilon of the norms.
    pub eps: f32,
    /// Base of the rotation.
    pub rope_base: f32,
    /// Positions are divided by this in layers that see everything.
    pub rope_factor: f32,
    /// Positions a local layer sees; 0 where there are none.
    pub window: usize,
}

impl ModelConfig {
    /// Reads and checks the shape.
    pub fn from_gguf(gguf: &Gguf) -> Result<ModelConfig> {
        let meta = &gguf.metadata;
        let name = meta.string("general.architecture")?;
        let architecture = ARCHITECTURES.into_iter().find(|known| known.name == name).ok_or_else(|| {
            let supported = ARCHITECTURES.map(|known| known.name).join(", ");
            Error::UnsupportedArchitecture { found: name.to_owned(), supported }
        })?;
        let key = |suffix: &str| format!("{name}.{suffix}");
        let size = |suffix: &str, most: usize| bounded(meta, &key(suffix), None, most);
        let size_or = |suffix: &str, default: usize, most| bounded(meta, &key(suffix), Some(default), most);
        let width = size("embedding_length", 1 << 16)?;
        let heads = size("attention.head_count", 1 << 10)?;
        let head_dim = size_or("attention.key_length", width / heads, 256)?;
        let float = |suffix: &str, default: f32| Ok::<f32, Error>(meta.opt_f32(&key(suffix))?.unwrap_or(default));
        let config = ModelConfig {
            architecture,
            layers: size("block_count", 1 << 10)?,
            width,
            heads,
            kv_heads: size_or("attention.head_count_kv", heads, heads)?,
            head_dim,
            feed_forward: size("feed_forward_length", 1 << 20)?,
            vocabulary: bounded(meta, &key("vocab_size"), Some(meta.strings("tokenizer.ggml.tokens")?.len()), 1 << 22)?,
            context: size("context_length", 1 << 24)?,
            eps: float("attention.layer_norm_rms_epsilon", 1e-5)?,
            rope_base: float("rope.freq_base", 10_000.0)?,
            rope_factor: linear_factor(meta, &key("rope.scaling.type"), &key("rope.scaling.factor"))?,
            window: if architecture.global_every > 0 { size("attention.sliding_window", 1 << 24)? } else { 0 },
        };
        config.check(meta, &key)?;
        Ok(config)
    }

    /// Sizes of attention where all positions are seen.
    pub fn attention_shape(&self, capacity: usize) -> AttentionShape {
        AttentionShape {
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            head_dim: self.head_dim as u32,
            capacity: capacity as u32,
            window: 0,
            scale: self.attention_scale(),
        }
    }

    /// Factor on attention's scores. Gemma 3 27B alone (62 layers) scales by what its heads would be if they shared the
    /// width evenly.
    fn attention_scale(&self) -> f32 {
        let even = self.architecture.name == "gemma3" && self.layers == 62;
        1.0 / (if even { self.width / self.heads } else { self.head_dim } as f32).sqrt()
    }

    fn check(&self, meta: &Metadata, key: &dyn Fn(&str) -> String) -> Result<()> {
        let wrong = |field: &str, found: String, expected: &str| {
            Err(Error::BadHeader { what: meta.what.clone(), field: key(field), found, expected: expected.to_owned() })
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of {} heads", self.heads);
            return wrong("attention.head_count_kv", self.kv_heads.to_string(), &expected);
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong("attention.key_length", self.head_dim.to_string(), "an even number");
        }
        let rotated = meta.opt_u32(&key("rope.dimension_count"))?.map_or(self.head_dim, |found| found as usize);
        if rotated != self.head_dim {
            return wrong("rope.dimension_count", rotated.to_string(), &format!("the head size, {}", self.head_dim));
        }
        let value_length = meta.opt_u32(&key("attention.value_length"))?.map_or(self.head_dim, |found| found as usize);
        if value_length != self.head_dim {
            let expected = format!("the head size, {}", self.head_dim);
            return wrong("attention.value_length", value_length.to_string(), &expected);
        }
        for (field, size) in [("embedding_length", self.width), ("feed_forward_length", self.feed_forward)] {
            if !size.is_multiple_of(32) {
                return wrong(field, size.to_string(), "a multiple of 32");
            }
        }
        if self.rope_base <= 0.0 {
            return wrong("rope.freq_base", self.rope_base.to_string(), "a positive number");
        }
        if self.eps < 0.0 {
            return wrong("attention.layer_norm_rms_epsilon", self.eps.to_string(), "0 or more");
        }
        let tokens = meta.strings("tokenizer.ggml.tokens")?.len();
        if tokens > self.vocabulary {
            return wrong("vocab_size", self.vocabulary.to_string(), &format!("at least its {tokens} tokens"));
        }
        Ok(())
    }

    /// Whether a layer sees only the last [`ModelConfig::window`] positions.
    pub fn is_local(&self, layer: usize) -> bool {
        let every = self.architecture.global_every as usize;
        every > 0 && !(layer + 1).is_multiple_of(every)
    }

    /// Rows of the query, key and value matrices.
    pub fn qkv_rows(&self) -> [usize; 3] {
        [self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim]
    }

    /// Factor on embeddings.
    pub fn embedding_scale(&self) -> f32 {
        if self.architecture.scaled_embedding { (self.width as f32).sqrt() } else { 1.0 }
    }
}

fn bounded(meta: &Metadata, key: &str, default: Option<usize>, most: usize) -> Result<usize> {
    let value = match (meta.opt_u32(key)?, default) {
        (Some(value), _) => value as usize,
        (None, Some(value)) => value,
        (None, None) => meta.u32(key)? as usize,
    };
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    let (what, field) = (meta.what.clone(), key.to_owned());
    Err(Error::BadHeader { what, field, found: value.to_string(), expected: format!("1 to {most}") })
}

fn linear_factor(meta: &Metadata, type_key: &str, factor_key: &str) -> Result<f32> {
    match meta.opt_string(type_key)? {
        Some("none") => return Ok(1.0),
        None | Some("linear") => {}
        Some(other) => {
            return Err(Error::BadHeader {
                what: meta.what.clone(),
                field: type_key.to_owned(),
                found: other.to_owned(),
                expected: "none or linear".to_owned(),
            });
        }
    }
    match meta.opt_f32(factor_key)? {
        None => Ok(1.0),
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => Err(Error::BadHeader {
            what: meta.what.clone(),
            field: factor_key.to_owned(),
            found: factor.to_string(),
            expected: "a positive number".to_owned(),
        }),
    }
}
