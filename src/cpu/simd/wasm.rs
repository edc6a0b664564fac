//! wasm's simd128.

use super::{Dot, Rows};
use crate::weights::decode::Decode;
use crate::weights::format::BLOCK;
use std::arch::wasm32::{
    f32x4, f32x4_add, f32x4_convert_i32x4, f32x4_extract_lane, f32x4_mul, f32x4_splat, i16x8_load_extend_i8x8,
    i32x4_add, i32x4_dot_i16x8, i32x4_shuffle, v128,
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

impl Dot for Simd128 {
    type Lanes = [v128; 2];
    type Weights = [v128; 4];
    const ZERO: [v128; 2] = [f32x4(0.0, 0.0, 0.0, 0.0); 2];

    #[inline(always)]
    fn weights(bytes: &[i8; BLOCK]) -> [v128; 4] {
        extend(bytes)
    }

    #[inline(always)]
    fn add(lanes: &mut [v128; 2], weights: [v128; 4], x: &[i8; BLOCK], factors: [f32; 2]) {
        let x = extend(x);
        for half in 0..2 {
            // Sums of pairs; lane l of four is pairs 2 l and 2 l + 1.
            let a = i32x4_dot_i16x8(weights[2 * half], x[2 * half]);
            let b = i32x4_dot_i16x8(weights[2 * half + 1], x[2 * half + 1]);
            let fours = i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
            let products = f32x4_mul(f32x4_splat(factors[half]), f32x4_convert_i32x4(fours));
            lanes[half] = f32x4_add(lanes[half], products);
        }
    }

    #[inline(always)]
    fn to_array([a, b]: [v128; 2]) -> [f32; 8] {
        macro_rules! four {
            ($v:ident) => {
                [
                    f32x4_extract_lane::<0>($v),
                    f32x4_extract_lane::<1>($v),
                    f32x4_extract_lane::<2>($v),
                    f32x4_extract_lane::<3>($v),
                ]
            };
        }
        let ([p, q, r, s], [t, u, v, w]) = (four!(a), four!(b));
        [p, q, r, s, t, u, v, w]
    }
}
