//! Twin of `shaders/attention_combine.wgsl`.

use super::Buffers;
use super::attention::visible;
use crate::plan::{AttentionShape, BufferId, Params};

/// Merges the chunks of each head in ascending order.
pub(super) fn attention_combine(
    partial: BufferId,
    out: BufferId,
    shape: &AttentionShape,
    params: &Params,
    buffers: &mut Buffers,
) {
    let (heads, dim) = (shape.heads as usize, shape.head_dim as usize);
    let row = shape.chunks() as usize * (dim + 2);
    buffers.with_floats(out, |out, buffers| {
        let partial = buffers.floats(partial);
        for column in 0..params.live_cols as usize {
            let seen = visible(shape, params, params.base + params.depth(column));
            for head in 0..heads {
                let chunks = &partial[(column * heads + head) * row..][..row];
                let used = || seen.chunks().map(|chunk| &chunks[chunk as usize * (dim + 2)..][..dim + 2]);
                let maximum = used().fold(f32::NEG_INFINITY, |maximum, chunk| maximum.max(chunk[dim]));
                let out = &mut out[(column * heads + head) * dim..][..dim];
                out.fill(0.0);
                let mut sum = 0.0;
                for chunk in used() {
                    let factor = (chunk[dim] - maximum).exp();
                    sum += chunk[dim + 1] * factor;
                    out.iter_mut().zip(chunk).for_each(|(out, value)| *out += value * factor);
                }
                out.iter_mut().for_each(|out| *out /= sum);
            }
        }
    });
}
