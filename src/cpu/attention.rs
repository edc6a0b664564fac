//! Twin of `shaders/attention.wgsl`.

use super::Buffers;
use crate::plan::{AttentionShape, BufferId, KV_CHUNK, Params};
use crate::runtime::parallel_chunks;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Per (column, head, chunk): weighted values, maximum score, sum of `exp(score - maximum)`.
pub(super) fn attention(
    qkv: BufferId,
    k_cache: BufferId,
    v_cache: BufferId,
    partial: BufferId,
    shape: &AttentionShape,
    params: &Params,
    buffers: &mut Buffers,
) {
    let (heads, dim) = (shape.heads as usize, shape.head_dim as usize);
    let stride = (heads + 2 * shape.kv_heads as usize) * dim;
    let row = shape.chunks() as usize * (dim + 2);
    let live = params.live_cols as usize;
    buffers.with_floats(partial, |partial, buffers| {
        let (qkv, keys, values) = (buffers.floats(qkv), buffers.words(k_cache), buffers.words(v_cache));
        parallel_chunks(&mut partial[..live * heads * row], row, |index, partial| {
            let (column, head) = (index / heads, index % heads);
            let query = &qkv[column * stride + head * dim..][..dim];
            let cache = head / (heads / shape.kv_heads as usize) * shape.capacity as usize * dim / 2;
            let position = params.base + params.depth(column);
            let (first, last) = visible(shape, position);
            let halves = |words: &[u32], position: u32, out: &mut [f32]| {
                let at = cache + params.slot(column, position) as usize * dim / 2;
                let packed: &[f16] = bytemuck::cast_slice(&words[at..at + dim / 2]);
                packed.convert_to_f32_slice(out);
            };
            let mut vector = vec![0.0; dim];
            for chunk in first / KV_CHUNK as u32..=last / KV_CHUNK as u32 {
                let from = (chunk * KV_CHUNK as u32).max(first);
                let to = ((chunk + 1) * KV_CHUNK as u32 - 1).min(last);
                let mut scores = [0.0f32; KV_CHUNK];
                let mut maximum = f32::NEG_INFINITY;
                for position in from..=to {
                    halves(keys, position, &mut vector);
                    let score = dot(query, &vector) * shape.scale;
                    scores[(position - from) as usize] = score;
                    maximum = maximum.max(score);
                }
                let out = &mut partial[chunk as usize * (dim + 2)..][..dim + 2];
                out.fill(0.0);
                for position in from..=to {
                    let weight = (scores[(position - from) as usize] - maximum).exp();
                    halves(values, position, &mut vector);
                    out[..dim].iter_mut().zip(&vector).for_each(|(out, value)| *out += weight * value);
                    out[dim + 1] += weight;
                }
                out[dim] = maximum;
            }
        });
    });
}

/// First and last position that `position` sees.
pub(super) fn visible(shape: &AttentionShape, position: u32) -> (u32, u32) {
    let first = if shape.window == 0 { 0 } else { (position + 1).saturating_sub(shape.window) };
    (first, position)
}

/// In 8 lanes, merged in order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}
