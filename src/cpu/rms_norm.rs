//! Twin of `shaders/rms_norm.wgsl`.

use super::Buffers;
use crate::plan::{BufferId, Columns, Params};

/// `out[c] (+)= x[c'] / sqrt(mean(x[c']^2) + eps) * weight`; sums in 8 lanes, merged in order.
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings, one by one")]
pub(super) fn rms_norm(
    x: BufferId,
    weight: BufferId,
    out: BufferId,
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
    buffers.with_floats(out, |out, buffers| {
        let (x, weight) = (buffers.floats(x), buffers.floats(weight));
        for column in 0..count {
            let x = &x[(first + column) * width..][..width];
            let scale = inverse_rms(x, eps);
            for ((out, &x), &weight) in out[column * width..][..width].iter_mut().zip(x).zip(weight) {
                let value = x * scale * weight;
                *out = if add { *out + value } else { value };
            }
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
