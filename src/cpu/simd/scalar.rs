//! Plain Rust: what the compiler makes of the target's own features, such as neon.

use super::{Dot, sum_of_eight};
use crate::weights::format::BLOCK;

pub(super) struct Scalar;

/// Eight lanes of four neighbours, as AVX2 has them.
impl Dot for Scalar {
    type Lanes = [f32; 8];
    type Weights = [i8; BLOCK];
    const ZERO: [f32; 8] = [0.0; 8];

    #[inline(always)]
    fn weights(bytes: &[i8; BLOCK]) -> [i8; BLOCK] {
        *bytes
    }

    #[inline(always)]
    fn add<const TWO: bool>(lanes: &mut [f32; 8], weights: [i8; BLOCK], x: &[i8; BLOCK], factors: [f32; 2]) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            let sum: i32 = (4 * l..4 * l + 4).map(|e| i32::from(weights[e]) * i32::from(x[e])).sum();
            *lane += factors[l / 4] * sum as f32;
        }
    }

    #[inline(always)]
    fn sum(lanes: [f32; 8]) -> f32 {
        sum_of_eight(lanes)
    }
}

/// Where nothing better is known.
#[cfg(not(target_arch = "x86_64"))]
mod entry {
    use super::Scalar;
    use crate::cpu::simd::Rows;
    use crate::weights::decode::Decode;

    pub(in crate::cpu::simd) fn rows<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
        crate::cpu::matvec::rows::<D>(input, first_row, products);
    }

    pub(in crate::cpu::simd) fn rows_q8<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
        crate::cpu::matvec::rows_q8::<D, Scalar>(input, first_row, products);
    }

    pub(in crate::cpu::simd) use crate::cpu::attention::attention_chunk;

    pub(in crate::cpu::simd) fn name() -> &'static str {
        if cfg!(target_feature = "neon") { "neon" } else { "scalar" }
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub(super) use entry::{attention_chunk, name, rows, rows_q8};
