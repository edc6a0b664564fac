//! Twin of `shaders/attention.wgsl`.

use super::exp::exp;
use super::{Buffers, simd};
use crate::plan::{AttentionShape, BufferId, KV_CHUNK, Params};
use crate::runtime::parallel_chunks;
use half::f16;
use std::cell::Cell;
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

thread_local! {
    /// Room for the keys and values of a chunk: to make it anew, and zero it, takes as long as to fill it.
    static DECODED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
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
        simd::halves_to_floats(&from[cache + slot * dim..][..to.len()], to);
    };
    let mut decoded = DECODED.take();
    decoded.resize(decoded.len().max(2 * KV_CHUNK * dim), 0.0);
    let (keys, values) = decoded.split_at_mut(KV_CHUNK * dim);
    let shared = params.base.clamp(start, start + KV_CHUNK as u32) - start;
    halves(input.keys, start as usize, &mut keys[..shared as usize * dim]);
    halves(input.values, start as usize, &mut values[..shared as usize * dim]);
    for (column, out) in out.chunks_exact_mut(per_kv * (dim + 4)).enumerate() {
        let position = params.base + params.depth(column);
        let seen = visible(shape, params, position).within(chunk as u32);
        for p in start + shared..(position + 1).min(start + KV_CHUNK as u32) {
            let (at, slot) = ((p - start) as usize * dim, params.slot(column, p) as usize);
            halves(input.keys, slot, &mut keys[at..at + dim]);
            halves(input.values, slot, &mut values[at..at + dim]);
        }
        for (head, out) in out.chunks_exact_mut(dim + 4).enumerate() {
            let query = &input.qkv[column * stride + (kv_head * per_kv + head) * dim..][..dim];
            let mut weights = [f32::NEG_INFINITY; KV_CHUNK];
            for seen in &seen {
                score(query, &keys[seen.start * dim..seen.end * dim], shape.scale, &mut weights[seen.clone()]);
            }
            let mut lanes = [f32::NEG_INFINITY; 8];
            for eight in weights.as_chunks::<8>().0 {
                lanes
                    .iter_mut()
                    .zip(eight)
                    .for_each(|(lane, &score)| *lane = if score > *lane { score } else { *lane });
            }
            let maximum = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
            // What is not seen weighs exactly nothing.
            let exp = |score: f32| if score == f32::NEG_INFINITY { 0.0 } else { exp(score - maximum) };
            weights.iter_mut().for_each(|weight| *weight = exp(*weight));
            let (weighted, sums) = out.split_at_mut(dim);
            for seen in &seen {
                add_weighted(&weights[seen.clone()], &values[seen.start * dim..seen.end * dim], weighted);
            }
            let mut lanes = [0.0f32; 8];
            for eight in weights.as_chunks::<8>().0 {
                lanes.iter_mut().zip(eight).for_each(|(lane, weight)| *lane += weight);
            }
            (sums[0], sums[1]) = (maximum, sum_of_eight(lanes));
        }
    }
    DECODED.set(decoded);
}

/// `scores[p] = scale * query . keys[p]`; each in 8 lanes, several positions at once.
#[inline(always)]
fn score(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    const AT_ONCE: usize = 4;
    let dim = query.len();
    let (many, one) = scores.as_chunks_mut::<AT_ONCE>();
    for (at, scores) in many.iter_mut().enumerate() {
        score_of::<AT_ONCE>(query, &keys[at * AT_ONCE * dim..][..AT_ONCE * dim], scale, scores);
    }
    let first = many.len() * AT_ONCE;
    for (at, score) in one.iter_mut().enumerate() {
        score_of::<1>(query, &keys[(first + at) * dim..][..dim], scale, std::array::from_mut(score));
    }
}

#[inline(always)]
fn score_of<const COUNT: usize>(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32; COUNT]) {
    let dim = query.len();
    let mut lanes = [[0.0f32; 8]; COUNT];
    let (eights, rest) = query.as_chunks::<8>();
    for (at, query) in eights.iter().enumerate() {
        for (p, lanes) in lanes.iter_mut().enumerate() {
            let keys: &[f32; 8] = keys[p * dim + 8 * at..].first_chunk().expect("a row of keys");
            for l in 0..8 {
                lanes[l] += query[l] * keys[l];
            }
        }
    }
    for (l, query) in rest.iter().enumerate() {
        for (p, lanes) in lanes.iter_mut().enumerate() {
            lanes[l] += query * keys[p * dim + 8 * eights.len() + l];
        }
    }
    for (score, lanes) in scores.iter_mut().zip(lanes) {
        *score = sum_of_eight(lanes) * scale;
    }
}

/// `out[i] += sum_p weights[p] * values[p][i]`, by ascending `p`; some elements at a time, whose sums stay in registers.
#[inline(always)]
fn add_weighted(weights: &[f32], values: &[f32], out: &mut [f32]) {
    let done = add_weighted_of::<32>(weights, values, 0, out);
    let done = add_weighted_of::<8>(weights, values, done, out);
    add_weighted_of::<1>(weights, values, done, out);
}

/// As many times `COUNT` elements from `first` on as there are; gives the first that is left.
#[inline(always)]
fn add_weighted_of<const COUNT: usize>(weights: &[f32], values: &[f32], first: usize, out: &mut [f32]) -> usize {
    let dim = out.len();
    let many = out[first..].as_chunks_mut::<COUNT>().0;
    for (at, out) in many.iter_mut().enumerate() {
        let mut sums = *out;
        for (weight, values) in weights.iter().zip(values.chunks_exact(dim)) {
            let values: &[f32; COUNT] = values[first + at * COUNT..].first_chunk().expect("a row of values");
            for i in 0..COUNT {
                sums[i] += weight * values[i];
            }
        }
        *out = sums;
    }
    first + many.len() * COUNT
}

#[inline(always)]
fn sum_of_eight(l: [f32; 8]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
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

    /// Visible positions of a chunk, counted from its start.
    #[inline(always)]
    fn within(&self, chunk: u32) -> [Range<usize>; 2] {
        let start = chunk * KV_CHUNK as u32;
        let at = |position: u32| position.saturating_sub(start).min(KV_CHUNK as u32) as usize;
        [&self.first, &self.second].map(|range| at(range.start)..at(range.end.max(range.start)))
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
