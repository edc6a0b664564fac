//! Twin of `shaders/activation.wgsl`.

use super::Buffers;
use super::exp::exp;
use super::quantise::put;
use crate::plan::{BufferId, Gate, Params, Vector};
use crate::runtime::parallel_chunks;

/// `out[c][i] = gate(x[c][i]) * x[c][width + i]`
pub(super) fn activation(x: BufferId, out: Vector, width: u32, gate: Gate, params: &Params, buffers: &mut Buffers) {
    let width = width as usize;
    let column_words = out.words(width);
    buffers.with_words(out.buffer(), |words, buffers| {
        let x = buffers.floats(x);
        let words = &mut words[..params.live_cols as usize * column_words];
        parallel_chunks(words, column_words, |column, words| {
            let (gates, ups) = x[column * 2 * width..][..2 * width].split_at(width);
            let mut gated = vec![0.0f32; width];
            let each = gated.iter_mut().zip(gates).zip(ups);
            // A loop for each function, so that it is vectorised.
            match gate {
                Gate::Silu => each.for_each(|((value, &gate), &up)| *value = silu(gate) * up),
                Gate::GeluTanh => each.for_each(|((value, &gate), &up)| *value = gelu_tanh(gate) * up),
            }
            put(out, words, 0, &gated);
        });
    });
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // x * (1 + tanh(y)) / 2 = x / (1 + e^-2y)
    x / (1.0 + exp(-2.0 * 0.797_884_6 * (x + 0.044_715 * x * x * x)))
}
