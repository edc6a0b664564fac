//! Twin of `shaders/rope_kv.wgsl`.

use super::Buffers;
use super::rms_norm::inverse_rms;
use crate::plan::{AttentionShape, BufferId, Params, RopePairs};
use half::f16;

/// The buffers of the step.
pub(super) struct Tensors {
    /// (columns, (heads + 2*kv_heads) * head_dim) f32
    pub(super) qkv: BufferId,
    /// (kv_heads, capacity, head_dim/2) packed halves
    pub(super) k_cache: BufferId,
    /// (kv_heads, capacity, head_dim/2) packed halves
    pub(super) v_cache: BufferId,
    /// (capacity, head_dim/2, 2) f32
    pub(super) rope: BufferId,
}

/// Norm and rotation of queries and keys; keys and values go into the cache.
pub(super) fn rope_kv(
    tensors: &Tensors,
    qk_norm: Option<BufferId>,
    shape: &AttentionShape,
    pairs: RopePairs,
    eps: f32,
    params: &Params,
    buffers: &mut Buffers,
) {
    let (heads, kv_heads, dim) = (shape.heads as usize, shape.kv_heads as usize, shape.head_dim as usize);
    let stride = (heads + 2 * kv_heads) * dim;
    for column in 0..params.live_cols as usize {
        let position = (params.base + params.depth(column)) as usize;
        let slot = params.own_slot(column) as usize;
        for head in 0..heads + 2 * kv_heads {
            let start = column * stride + head * dim;
            let mut vector = buffers.floats(tensors.qkv)[start..start + dim].to_vec();
            if head < heads + kv_heads {
                if let Some(norm) = qk_norm {
                    let row = usize::from(head >= heads) * dim;
                    let weight = &buffers.floats(norm)[row..row + dim];
                    let scale = inverse_rms(&vector, eps);
                    vector.iter_mut().zip(weight).for_each(|(value, weight)| *value = *value * scale * weight);
                }
                rotate(&mut vector, &buffers.floats(tensors.rope)[position * dim..][..dim], pairs);
            }
            if head < heads {
                buffers.with_floats(tensors.qkv, |qkv, _| qkv[start..start + dim].copy_from_slice(&vector));
                continue;
            }
            let (cache, kv_head) = match head - heads {
                kv_head if kv_head < kv_heads => (tensors.k_cache, kv_head),
                other => (tensors.v_cache, other - kv_heads),
            };
            let at = (kv_head * shape.capacity as usize + slot) * dim / 2;
            let packed: Vec<u32> = vector.chunks_exact(2).map(|pair| pack(pair[0], pair[1])).collect();
            buffers.write(cache, at, &packed);
        }
    }
}

/// `table` holds (cos, sin) of each pair.
fn rotate(vector: &mut [f32], table: &[f32], pairs: RopePairs) {
    let half = vector.len() / 2;
    for i in 0..half {
        let (a, b) = match pairs {
            RopePairs::Adjacent => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (cos, sin) = (table[2 * i], table[2 * i + 1]);
        let (x, y) = (vector[a], vector[b]);
        vector[a] = x * cos - y * sin;
        vector[b] = x * sin + y * cos;
    }
}

fn pack(low: f32, high: f32) -> u32 {
    u32::from(f16::from_f32(low).to_bits()) | u32::from(f16::from_f32(high).to_bits()) << 16
}
