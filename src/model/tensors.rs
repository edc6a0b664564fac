//! Which tensors an architecture has, which of them share a matrix on the device, and where each one's rows go.

use super::config::ModelConfig;
use super::loader::floats;
use crate::error::{Error, Result};
use crate::plan::MatrixPart;
use crate::weights::format::{BLOCK, Layout};
use crate::weights::gguf::{Gguf, TensorInfo};
use std::collections::HashMap;

/// A matrix of the model: rows of one or more tensors of equal layout, one below the other.
#[derive(Debug, Clone)]
pub struct MatrixSpec {
    /// Tensors with their number of rows, in order.
    pub tensors: Vec<(String, usize)>,
    /// Layout on the device.
    pub layout: Layout,
    /// Rows in all.
    pub rows: usize,
    /// Weights in a row.
    pub cols: usize,
}

impl MatrixSpec {
    /// Bytes of both arrays on the device.
    pub fn bytes(&self) -> u64 {
        let weights = self.rows * self.cols;
        4 * (self.layout.quant_words_for(weights) + self.layout.scale_words_for(weights)) as u64
    }
}

/// A group of rows that is computed into one output: one matrix, or several where the formats differ.
pub type Group<T> = Vec<T>;

/// Everything of one layer; `M` is a matrix, `V` a vector.
#[derive(Debug, Clone)]
pub struct Layer<M, V> {
    /// Norm before attention.
    pub attn_norm: V,
    /// Queries, keys, values.
    pub qkv: Group<M>,
    /// Norm weights of queries, then keys.
    pub qk_norm: Option<V>,
    /// Output projection.
    pub attn_output: M,
    /// Norm of what attention adds.
    pub post_attn_norm: Option<V>,
    /// Norm before the feed-forward part.
    pub ffn_norm: V,
    /// Gate and up.
    pub gate_up: Group<M>,
    /// Down.
    pub down: M,
    /// Norm of what the feed-forward part adds.
    pub post_ffn_norm: Option<V>,
}

/// Everything of a model.
#[derive(Debug, Clone)]
pub struct Tensors<M, V> {
    /// (vocabulary, width); also the head where that is tied.
    pub embedding: M,
    /// (vocabulary, width), where the file has one.
    pub head: Option<M>,
    /// Norm before the head.
    pub output_norm: V,
    /// In order.
    pub layers: Vec<Layer<M, V>>,
    /// Divisors of the rotation's frequencies (Llama 3.1).
    pub rope_freqs: Option<V>,
}

impl<V> Tensors<MatrixSpec, V> {
    /// Layout, rows and columns of the matrices that vectors are multiplied with; an embedding that is no head is only read.
    pub fn multiplied(&self) -> Vec<(Layout, usize, usize)> {
        let of_layer = self.layers.iter().flat_map(|layer| {
            let Layer { qkv, attn_output, gate_up, down, .. } = layer;
            qkv.iter().chain(gate_up).chain([attn_output, down])
        });
        let all = of_layer.chain([self.head.as_ref().unwrap_or(&self.embedding)]);
        all.map(|matrix| (matrix.layout, matrix.rows, matrix.cols)).collect()
    }
}

/// A vector of the model: `f32` values of one or more tensors, one after the other.
#[derive(Debug, Clone)]
pub struct VectorSpec {
    /// Tensors with their lengths, in order.
    pub tensors: Vec<(String, usize)>,
}

impl VectorSpec {
    /// Elements in all.
    pub fn floats(&self) -> usize {
        self.tensors.iter().map(|(_, len)| len).sum()
    }
}

/// A matrix on a device.
pub type Matrix = Vec<MatrixPart>;

/// The tensors a file must have by its configuration, checked against those it has.
pub fn specify(config: &ModelConfig, gguf: &Gguf) -> Result<Tensors<MatrixSpec, VectorSpec>> {
    let mut files = Files { by_name: HashMap::new() };
    for tensor in &gguf.tensors {
        files.by_name.insert(&tensor.name, (tensor, false));
    }
    let (width, inner) = (config.width, config.feed_forward);
    let [q, k, v] = config.qkv_rows();
    let tensors = Tensors {
        embedding: files.matrix("token_embd.weight", config.vocabulary, width)?,
        head: match files.by_name.contains_key("output.weight") {
            true => Some(files.matrix("output.weight", config.vocabulary, width)?),
            false => None,
        },
        output_norm: files.vector(&[("output_norm.weight".to_owned(), width)])?,
        rope_freqs: match files.by_name.contains_key("rope_freqs.weight") {
            true => Some(files.vector(&[("rope_freqs.weight".to_owned(), config.head_dim / 2)])?),
            false => None,
        },
        layers: (0..config.layers)
            .map(|layer| {
                let name = |suffix: &str| format!("blk.{layer}.{suffix}.weight");
                let optional = |files: &mut Files<'_>, wanted: bool, parts: &[(&str, usize)]| {
                    let parts: Vec<_> = parts.iter().map(|&(suffix, len)| (name(suffix), len)).collect();
                    wanted.then(|| files.vector(&parts)).transpose()
                };
                let (dim, post) = (config.head_dim, config.architecture.post_norms);
                Ok(Layer {
                    attn_norm: files.vector(&[(name("attn_norm"), width)])?,
                    qkv: files.group(&[(name("attn_q"), q), (name("attn_k"), k), (name("attn_v"), v)], width)?,
                    qk_norm: optional(
                        &mut files,
                        config.architecture.qk_norm,
                        &[("attn_q_norm", dim), ("attn_k_norm", dim)],
                    )?,
                    attn_output: files.matrix(&name("attn_output"), width, q)?,
                    post_attn_norm: optional(&mut files, post, &[("post_attention_norm", width)])?,
                    ffn_norm: files.vector(&[(name("ffn_norm"), width)])?,
                    gate_up: files.group(&[(name("ffn_gate"), inner), (name("ffn_up"), inner)], width)?,
                    down: files.matrix(&name("ffn_down"), width, inner)?,
                    post_ffn_norm: optional(&mut files, post, &[("post_ffw_norm", width)])?,
                })
            })
            .collect::<Result<_>>()?,
    };
    files.all_used(&gguf.what)?;
    Ok(tensors)
}

/// Refuses a matrix whose weights cannot be counted: wasm counts to 2^32.
fn counted(tensor: &str, rows: usize, cols: usize) -> Result<()> {
    if rows.checked_mul(cols).is_none() {
        let (found, expected) = (format!("[{rows}, {cols}]"), format!("at most {} weights in a matrix", usize::MAX));
        return Err(Error::TensorShape { tensor: tensor.to_owned(), found, expected });
    }
    Ok(())
}

struct Files<'a> {
    by_name: HashMap<&'a str, (&'a TensorInfo, bool)>,
}

impl Files<'_> {
    fn find(&mut self, name: &str, expected: &[u64]) -> Result<&TensorInfo> {
        let (tensor, used) = self
            .by_name
            .get_mut(name)
            .ok_or_else(|| Error::MissingTensor { tensor: name.to_owned(), expected: format!("{expected:?}") })?;
        *used = true;
        if tensor.shape != expected {
            return Err(Error::TensorShape {
                tensor: name.to_owned(),
                found: format!("{:?}", tensor.shape),
                expected: format!("{expected:?}"),
            });
        }
        Ok(tensor)
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<MatrixSpec> {
        let layout = self.find(name, &[rows as u64, cols as u64])?.format.layout();
        if !cols.is_multiple_of(BLOCK) {
            let expected = format!("rows of a multiple of {BLOCK}");
            let (tensor, found) = (name.to_owned(), format!("[{rows}, {cols}]"));
            return Err(Error::TensorShape { tensor, found, expected });
        }
        counted(name, rows, cols)?;
        Ok(MatrixSpec { tensors: vec![(name.to_owned(), rows)], layout, rows, cols })
    }

    /// Neighbours of equal layout become one matrix.
    fn group(&mut self, parts: &[(String, usize)], cols: usize) -> Result<Group<MatrixSpec>> {
        let mut group: Group<MatrixSpec> = Vec::new();
        for (name, rows) in parts {
            let next = self.matrix(name, *rows, cols)?;
            match group.last_mut() {
                Some(last) if last.layout == next.layout => {
                    last.rows += next.rows;
                    counted(name, last.rows, cols)?;
                    last.tensors.extend(next.tensors);
                }
                _ => group.push(next),
            }
        }
        Ok(group)
    }

    fn vector(&mut self, parts: &[(String, usize)]) -> Result<VectorSpec> {
        for (name, len) in parts {
            floats(self.find(name, &[*len as u64])?, &[], &mut Vec::new())?;
        }
        Ok(VectorSpec { tensors: parts.to_vec() })
    }

    /// A tensor that nothing reads (a bias, say) would silently change what the model computes.
    fn all_used(&self, what: &str) -> Result<()> {
        let mut unused: Vec<_> = self.by_name.iter().filter(|(_, (_, used))| !used).map(|(name, _)| *name).collect();
        unused.sort_unstable();
        match unused.first() {
            None => Ok(()),
            Some(name) => Err(Error::BadHeader {
                what: what.to_owned(),
                field: format!("tensor {name}"),
                found: "present".to_owned(),
                expected: "no tensor that the architecture does not use".to_owned(),
            }),
        }
    }
}
