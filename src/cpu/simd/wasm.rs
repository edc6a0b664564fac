//! wasm's simd128.

use super::Simd;
use crate::cpu::matvec::{self, Block, Operand, Rows};
use crate::weights::decode::Decode;
use half::f16;
use std::arch::wasm32::{
    f32x4_add, f32x4_convert_i32x4, f32x4_mul, f32x4_neg, f32x4_splat, i16x8_shl, i16x8_shr, i32x4, i32x4_add,
    i32x4_dot_i16x8, i32x4_shl, i32x4_shr, i32x4_splat, u16x8_shr, u32x4_shr, u32x4_splat, v128, v128_and, v128_load,
    v128_or,
};

/// Rows at a time.
pub(in crate::cpu) const LANES: usize = 4;
/// Four elements of a quantised vector as 16 bits each: the first and the third, the second and the fourth.
pub(in crate::cpu) type Quad = [i32; 2];

pub(in crate::cpu) fn quad(word: u32) -> Quad {
    let byte = |at: u32| i32::from((word >> (8 * at)) as u8 as i8);
    [byte(0) & 0xffff | byte(2) << 16, byte(1) & 0xffff | byte(3) << 16]
}

/// Every half as a float, exactly if it is finite: where its bits go, times what the biases of the exponents differ by.
#[inline(always)]
pub(in crate::cpu) fn halves_to_floats(from: &[f16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        let bits = i32::from(from.to_bits().cast_signed()).cast_unsigned();
        *to = f32::from_bits(bits << 13 & 0x8fff_e000) * f32::from_bits((127 + 112) << 23);
    }
}

pub(super) fn rows<D: Decode, X: Operand>(input: &Rows<'_, X>, first_row: usize, products: &mut [f32]) {
    matvec::rows::<D, Simd128, X>(input, first_row, products);
}

pub(in crate::cpu) use crate::cpu::attention::attention_chunk;

pub(in crate::cpu) fn name() -> &'static str {
    "simd128"
}

struct Simd128;

impl Simd for Simd128 {
    type Int = v128;
    type Float = v128;
    /// Bytes 0 and 2, and bytes 1 and 3, as 16 bits.
    type Weights = [v128; 2];
    const ZERO: v128 = i32x4(0, 0, 0, 0);

    #[inline(always)]
    fn load(words: &[u32; LANES]) -> v128 {
        // SAFETY: 16 bytes are read.
        unsafe { v128_load(words.as_ptr().cast()) }
    }
    #[inline(always)]
    fn int(value: i32) -> v128 {
        i32x4_splat(value)
    }
    #[inline(always)]
    fn add(a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }
    #[inline(always)]
    fn and(a: v128, mask: u32) -> v128 {
        v128_and(a, u32x4_splat(mask))
    }
    #[inline(always)]
    fn or(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }
    #[inline(always)]
    fn shl(a: v128, by: u32) -> v128 {
        i32x4_shl(a, by)
    }
    #[inline(always)]
    fn shr(a: v128, by: u32) -> v128 {
        u32x4_shr(a, by)
    }
    #[inline(always)]
    fn sar(a: v128, by: u32) -> v128 {
        i32x4_shr(a, by)
    }
    #[inline(always)]
    fn float(a: v128) -> v128 {
        f32x4_convert_i32x4(a)
    }
    #[inline(always)]
    fn bits(a: v128) -> v128 {
        a
    }
    #[inline(always)]
    fn splat(value: f32) -> v128 {
        f32x4_splat(value)
    }
    #[inline(always)]
    fn plus(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    fn mul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    fn negate(a: v128) -> v128 {
        f32x4_neg(a)
    }
    #[inline(always)]
    fn store(a: v128) -> [f32; LANES] {
        // SAFETY: both are four floats, lane 0 first.
        unsafe { std::mem::transmute::<v128, [f32; LANES]>(a) }
    }

    #[inline(always)]
    fn weights<const MOST: i32>(bytes: v128) -> [v128; 2] {
        match MOST {
            128 => [i16x8_shr(i16x8_shl(bytes, 8), 8), i16x8_shr(bytes, 8)],
            _ => [v128_and(bytes, u32x4_splat(0x00ff_00ff)), u16x8_shr(bytes, 8)],
        }
    }

    #[inline(always)]
    fn dot<const MOST: i32, const HALF: usize>(weights: &[[v128; 2]; 4], x: &Block) -> v128 {
        let product =
            |at: usize, pair: usize| i32x4_dot_i16x8(weights[at][pair], i32x4_splat(x.quads[4 * HALF + at][pair]));
        let quad = |at: usize| i32x4_add(product(at, 0), product(at, 1));
        i32x4_add(i32x4_add(quad(0), quad(1)), i32x4_add(quad(2), quad(3)))
    }
}
