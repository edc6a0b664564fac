//! wasm's simd128.

use super::{Dot, Rows};
use crate::weights::decode::Decode;
use crate::weights::format::BLOCK;
use std::arch::wasm32::{
    f32x4, f32x4_add, f32x4_convert_i32x4, f32x4_extract_lane, f32x4_mul, f32x4_splat, i16x8_load_extend_i8x8,
    i32x4_add, i32x4_dot_i16x8, v128,
};

pub(super) fn rows<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    crate::cpu::matvec::rows::<D>(input, first_row, products);
}

pub(super) fn rows_q8<D: Decode>(input: &Rows<'_>, first_row: usize, products: &mut [f32]) {
    crate::cpu::matvec::rows_q8::<D, Simd128>(input, first_row, products);
}

pub(super) use crate::cpu::attention::attention_chunk;

pub(super) fn name() -> &'static str {
    "simd128"
}

struct Simd128;

/// Bytes `8 i .. 8 i + 8` of a block as halves of words, for `i` in 0 to 3.
#[inline(always)]
fn extend(bytes: &[i8; BLOCK]) -> [v128; 4] {
    // SAFETY: 8 bytes are read from each of four places in 32.
    std::array::from_fn(|i| unsafe { i16x8_load_extend_i8x8(bytes.as_ptr().add(8 * i)) })
}

/// Four lanes: sums of pairs, of each eighth of a block.
impl Dot for Simd128 {
    type Lanes = v128;
    type Weights = [v128; 4];
    const ZERO: v128 = f32x4(0.0, 0.0, 0.0, 0.0);

    #[inline(always)]
    fn weights(bytes: &[i8; BLOCK]) -> [v128; 4] {
        extend(bytes)
    }

    #[inline(always)]
    fn add<const TWO: bool>(lanes: &mut v128, weights: [v128; 4], x: &[i8; BLOCK], factors: [f32; 2]) {
        let x = extend(x);
        let dot = |i: usize| i32x4_dot_i16x8(weights[i], x[i]);
        let halves = [i32x4_add(dot(0), dot(1)), i32x4_add(dot(2), dot(3))];
        if TWO {
            for (half, factor) in halves.into_iter().zip(factors) {
                *lanes = f32x4_add(*lanes, f32x4_mul(f32x4_splat(factor), f32x4_convert_i32x4(half)));
            }
        } else {
            let whole = f32x4_convert_i32x4(i32x4_add(halves[0], halves[1]));
            *lanes = f32x4_add(*lanes, f32x4_mul(f32x4_splat(factors[0]), whole));
        }
    }

    #[inline(always)]
    fn sum(lanes: v128) -> f32 {
        (f32x4_extract_lane::<0>(lanes) + f32x4_extract_lane::<2>(lanes))
            + (f32x4_extract_lane::<1>(lanes) + f32x4_extract_lane::<3>(lanes))
    }
}
