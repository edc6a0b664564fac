//! Twin of `shaders/rms_norm.wgsl`.

use super::Buffers;
use super::quantise::put;
use crate::plan::{BufferId, Columns, Params, Vector};

/// `out[c] (+)= x[c'] / sqrt(mean(x[c']^2) + eps) * weight`; sums in 8 lanes, merged in order.
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings, one by one")]
pub(super) fn rms_norm(
    x: BufferId,
    weight: BufferId,
    out: Vector,
    width: u32,
    eps: f32,
    add: bool,
    columns: Columns,
    params: &Params,
    buffers: &mut Buffers,
) {
    let width = width as usize;
    let (first, count) = match columns {
        Columns::All => (0, params.live_cols as usize),
        Columns::Logits => (params.logit_first as usize, params.logit_cols as usize),
    };
    let mut normed = vec![0.0f32; width];
    buffers.with_words(out.buffer(), |out_words, buffers| {
        let (x, weight) = (buffers.floats(x), buffers.floats(weight));
        for column in 0..count {
            let x = &x[(first + column) * width..][..width];
            let scale = inverse_rms(x, eps);
            for ((value, &x), &weight) in normed.iter_mut().zip(x).zip(weight) {
                *value = x * scale * weight;
            }
            if add {
                let before: &[f32] = bytemuck::cast_slice(&out_words[column * width..][..width]);
                normed.iter_mut().zip(before).for_each(|(value, before)| *value += before);
            }
            put(out, out_words, column, &normed);
        }
    });
}

/// `1 / sqrt(mean(x^2) + eps)`
pub(super) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    for eight in x.chunks(8) {
        for (lane, &value) in lanes.iter_mut().zip(eight) {
            *lane += value * value;
        }
    }
    let sum: f32 = lanes.iter().sum();
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}
