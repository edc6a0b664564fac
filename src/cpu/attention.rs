//! Twin of `shaders/attention.wgsl`.

use super::Buffers;
use crate::plan::{AttentionShape, BufferId, KV_CHUNK, Params};
use crate::runtime::parallel_chunks;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

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
            let seen = visible(shape, params, position);
            let halves = |words: &[u32], position: u32, out: &mut [f32]| {
                let at = cache + params.slot(column, position) as usize * dim / 2;
                let packed: &[f16] = bytemuck::cast_slice(&words[at..at + dim / 2]);
                packed.convert_to_f32_slice(out);
            };
            let mut vector = vec![0.0; dim];
            for chunk in seen.chunks() {
                let start = chunk * KV_CHUNK as u32;
                let mut scores = [0.0f32; KV_CHUNK];
                let mut maximum = f32::NEG_INFINITY;
                for position in seen.within(chunk) {
                    halves(keys, position, &mut vector);
                    let score = dot(query, &vector) * shape.scale;
                    scores[(position - start) as usize] = score;
                    maximum = maximum.max(score);
                }
                let out = &mut partial[chunk as usize * (dim + 2)..][..dim + 2];
                out.fill(0.0);
                for position in seen.within(chunk) {
                    let weight = (scores[(position - start) as usize] - maximum).exp();
                    halves(values, position, &mut vector);
                    out[..dim].iter_mut().zip(&vector).for_each(|(out, value)| *out += weight * value);
                    out[dim + 1] += weight;
                }
                out[dim] = maximum;
            }
        });
    });
}

/// The positions that a column sees: two ranges, the second one after the first or empty.
pub(super) struct Seen {
    first: Range<u32>,
    second: Range<u32>,
}

impl Seen {
    /// Chunks with a visible position, ascending.
    pub(super) fn chunks(&self) -> impl Iterator<Item = u32> {
        let chunks = |range: &Range<u32>| match range.is_empty() {
            true => 0..0,
            false => range.start / KV_CHUNK as u32..range.end.div_ceil(KV_CHUNK as u32),
        };
        let (first, second) = (chunks(&self.first), chunks(&self.second));
        let second = second.start.max(first.end)..second.end;
        first.chain(second)
    }

    /// Visible positions of a chunk, ascending.
    fn within(&self, chunk: u32) -> impl Iterator<Item = u32> {
        let (start, end) = (chunk * KV_CHUNK as u32, (chunk + 1) * KV_CHUNK as u32);
        let part = |range: &Range<u32>| range.start.max(start)..range.end.min(end);
        part(&self.first).chain(part(&self.second))
    }
}

/// What a column at `position` sees, by the window of the layer and the view of the pass.
pub(super) fn visible(shape: &AttentionShape, params: &Params, position: u32) -> Seen {
    let end = position + 1;
    let start = if shape.window == 0 { 0 } else { end.saturating_sub(shape.window) };
    if params.view_window == 0 {
        return Seen { first: start..end, second: end..end };
    }
    let resume = start.max(end.saturating_sub(params.view_window));
    Seen { first: start..params.view_sink.clamp(start, resume), second: resume..end }
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
