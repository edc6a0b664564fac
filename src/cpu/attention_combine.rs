//! Twin of `shaders/attention_combine.wgsl`.

use super::Buffers;
use super::attention::visible;
use super::exp::exp;
use super::quantise::put;
use crate::plan::{AttentionShape, BufferId, Params, Vector};

/// Merges the chunks of each head in ascending order.
pub(super) fn attention_combine(
    partial: BufferId,
    out: Vector,
    shape: &AttentionShape,
    params: &Params,
    buffers: &mut Buffers,
) {
    let (heads, dim) = (shape.heads as usize, shape.head_dim as usize);
    let row = shape.chunks() as usize * (dim + 4);
    let mut merged = vec![0.0f32; heads * dim];
    buffers.with_words(out.buffer(), |words, buffers| {
        let partial = buffers.floats(partial);
        for column in 0..params.live_cols as usize {
            let seen = visible(shape, params, params.base + params.depth(column));
            for head in 0..heads {
                let chunks = &partial[(column * heads + head) * row..][..row];
                let used = || seen.chunks().map(|chunk| &chunks[chunk as usize * (dim + 4)..][..dim + 4]);
                let maximum = used().fold(f32::NEG_INFINITY, |maximum, chunk| maximum.max(chunk[dim]));
                let out = &mut merged[head * dim..][..dim];
                out.fill(0.0);
                let mut sum = 0.0;
                for chunk in used() {
                    let factor = exp(chunk[dim] - maximum);
                    sum += chunk[dim + 1] * factor;
                    out.iter_mut().zip(chunk).for_each(|(out, value)| *out += value * factor);
                }
                out.iter_mut().for_each(|out| *out /= sum);
            }
            put(out, words, column, &merged);
        }
    });
}
