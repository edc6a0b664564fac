//! Twin of `shaders/attention.wgsl`.

use super::{Buffers, simd};
use crate::plan::{AttentionShape, BufferId, KV_CHUNK, Params};
use crate::runtime::parallel_chunks;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// Per (column, head, chunk): weighted values, maximum score, sum of `exp(score - maximum)`, two words of nothing.
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
    let per_kv = heads / shape.kv_heads as usize;
    let rows = params.live_cols as usize * per_kv;
    let end = (0..params.live_cols as usize).map(|column| params.base + params.depth(column) + 1).max().unwrap_or(0);
    let chunks = end.div_ceil(KV_CHUNK as u32) as usize;
    buffers.with_floats(partial, |partial, buffers| {
        let input = Input {
            qkv: buffers.floats(qkv),
            keys: bytemuck::cast_slice(buffers.words(k_cache)),
            values: bytemuck::cast_slice(buffers.words(v_cache)),
            shape,
            params,
        };
        // A task is a chunk of a KV head with all rows that read it; they are put in their places afterwards.
        let mut merged = vec![0.0f32; shape.kv_heads as usize * chunks * rows * (dim + 4)];
        parallel_chunks(&mut merged, rows * (dim + 4), |task, out| {
            simd::attention_chunk(&input, task / chunks, task % chunks, out);
        });
        for (at, row) in merged.chunks_exact(dim + 4).enumerate() {
            let (kv_head, chunk, row_at) = (at / rows / chunks, at / rows % chunks, at % rows);
            let (column, head) = (row_at / per_kv, kv_head * per_kv + row_at % per_kv);
            let to = ((column * heads + head) * shape.chunks() as usize + chunk) * (dim + 4);
            partial[to..to + dim + 4].copy_from_slice(row);
        }
    });
}

/// What a chunk is computed from.
pub(super) struct Input<'a> {
    /// (columns, heads + 2 kv_heads, head_dim)
    qkv: &'a [f32],
    /// (kv_heads, capacity, head_dim)
    keys: &'a [f16],
    /// (kv_heads, capacity, head_dim)
    values: &'a [f16],
    shape: &'a AttentionShape,
    params: &'a Params,
}

/// One chunk of one KV head for all rows, `(columns * heads / kv_heads, head_dim + 4)`: what they share is decoded once.
#[inline(always)]
pub(super) fn attention_chunk(input: &Input<'_>, kv_head: usize, chunk: usize, out: &mut [f32]) {
    let Input { shape, params, .. } = input;
    let (heads, dim) = (shape.heads as usize, shape.head_dim as usize);
    let per_kv = heads / shape.kv_heads as usize;
    let stride = (heads + 2 * shape.kv_heads as usize) * dim;
    let start = (chunk * KV_CHUNK) as u32;
    let cache = kv_head * shape.capacity as usize * dim;
    let halves = |from: &[f16], slot: usize, to: &mut [f32]| {
        from[cache + slot * dim..][..to.len()].convert_to_f32_slice(to);
    };
    let mut keys = vec![0.0f32; KV_CHUNK * dim];
    let mut values = vec![0.0f32; KV_CHUNK * dim];
    let shared = params.base.clamp(start, start + KV_CHUNK as u32) - start;
    halves(input.keys, start as usize, &mut keys[..shared as usize * dim]);
    halves(input.values, start as usize, &mut values[..shared as usize * dim]);
    for (column, out) in out.chunks_exact_mut(per_kv * (dim + 4)).enumerate() {
        let position = params.base + params.depth(column);
        let seen = visible(shape, params, position);
        for p in start + shared..(position + 1).min(start + KV_CHUNK as u32) {
            let (at, slot) = ((p - start) as usize * dim, params.slot(column, p) as usize);
            halves(input.keys, slot, &mut keys[at..at + dim]);
            halves(input.values, slot, &mut values[at..at + dim]);
        }
        for (head, out) in out.chunks_exact_mut(dim + 4).enumerate() {
            let query = &input.qkv[column * stride + (kv_head * per_kv + head) * dim..][..dim];
            let mut scores = [0.0f32; KV_CHUNK];
            let mut maximum = f32::NEG_INFINITY;
            for p in seen.within(chunk as u32) {
                let at = (p - start) as usize;
                scores[at] = dot(query, &keys[at * dim..][..dim]) * shape.scale;
                maximum = maximum.max(scores[at]);
            }
            for p in seen.within(chunk as u32) {
                let at = (p - start) as usize;
                let weight = (scores[at] - maximum).exp();
                out.iter_mut().zip(&values[at * dim..][..dim]).for_each(|(out, value)| *out += weight * value);
                out[dim + 1] += weight;
            }
            out[dim] = maximum;
        }
    }
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
    #[inline(always)]
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
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}
