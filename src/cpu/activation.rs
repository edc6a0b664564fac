//! Twin of `shaders/activation.wgsl`.

use super::Buffers;
use super::quantise::put;
use crate::plan::{BufferId, Gate, Params, Vector};

/// `out[c][i] = gate(x[c][i]) * x[c][width + i]`
pub(super) fn activation(x: BufferId, out: Vector, width: u32, gate: Gate, params: &Params, buffers: &mut Buffers) {
    let width = width as usize;
    let mut gated = vec![0.0f32; width];
    buffers.with_words(out.buffer(), |words, buffers| {
        let x = buffers.floats(x);
        for column in 0..params.live_cols as usize {
            let (gates, ups) = x[column * 2 * width..][..2 * width].split_at(width);
            for ((value, &gate_value), &up) in gated.iter_mut().zip(gates).zip(ups) {
                *value = apply(gate, gate_value) * up;
            }
            put(out, words, column, &gated);
        }
    });
}

fn apply(gate: Gate, x: f32) -> f32 {
    match gate {
        Gate::Silu => x / (1.0 + (-x).exp()),
        // Beyond ±10 tanh is ±1; the bound keeps exp() finite where tanh is made of it.
        Gate::GeluTanh => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).clamp(-10.0, 10.0).tanh()),
    }
}
