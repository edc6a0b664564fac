//! Plain Rust: what the compiler makes of the target's own features, such as neon.

use super::Simd;
use crate::cpu::matvec::Block;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rows at a time.
pub(in crate::cpu) const LANES: usize = 8;
/// Four elements of a quantised vector: signed bytes.
pub(in crate::cpu) type Quad = u32;

pub(in crate::cpu) fn quad(word: u32) -> Quad {
    word
}

/// Every half as a float.
#[inline(always)]
pub(in crate::cpu) fn halves_to_floats(from: &[f16], to: &mut [f32]) {
    from.convert_to_f32_slice(to);
}

pub(super) struct Scalar;

#[inline(always)]
fn both<A: Copy, B: Copy>(a: [A; LANES], b: [A; LANES], work: impl Fn(A, A) -> B) -> [B; LANES] {
    std::array::from_fn(|lane| work(a[lane], b[lane]))
}

impl Simd for Scalar {
    type Int = [u32; LANES];
    type Float = [f32; LANES];
    type Weights = [u32; LANES];
    const ZERO: [u32; LANES] = [0; LANES];

    #[inline(always)]
    fn load(words: &[u32; LANES]) -> [u32; LANES] {
        *words
    }
    #[inline(always)]
    fn int(value: i32) -> [u32; LANES] {
        [value.cast_unsigned(); LANES]
    }
    #[inline(always)]
    fn add(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        both(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    fn and(a: [u32; LANES], mask: u32) -> [u32; LANES] {
        a.map(|a| a & mask)
    }
    #[inline(always)]
    fn or(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        both(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn shl(a: [u32; LANES], by: u32) -> [u32; LANES] {
        a.map(|a| a << by)
    }
    #[inline(always)]
    fn shr(a: [u32; LANES], by: u32) -> [u32; LANES] {
        a.map(|a| a >> by)
    }
    #[inline(always)]
    fn sar(a: [u32; LANES], by: u32) -> [u32; LANES] {
        a.map(|a| (a.cast_signed() >> by).cast_unsigned())
    }
    #[inline(always)]
    fn float(a: [u32; LANES]) -> [f32; LANES] {
        a.map(|a| a.cast_signed() as f32)
    }
    #[inline(always)]
    fn bits(a: [u32; LANES]) -> [f32; LANES] {
        a.map(f32::from_bits)
    }
    #[inline(always)]
    fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    fn plus(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn negate(a: [f32; LANES]) -> [f32; LANES] {
        a.map(|a| -a)
    }
    #[inline(always)]
    fn store(a: [f32; LANES]) -> [f32; LANES] {
        a
    }
    #[inline(always)]
    fn weights<const MOST: i32>(bytes: [u32; LANES]) -> [u32; LANES] {
        bytes
    }
    #[inline(always)]
    fn dot<const MOST: i32, const HALF: usize>(weights: &[[u32; LANES]; 4], x: &Block) -> [u32; LANES] {
        // Signed bytes are right for all: others are below 128.
        let product = |weights: u32, x: u32| -> i32 {
            let [weights, x] = [weights, x].map(|word| word.to_le_bytes().map(|byte| i32::from(byte.cast_signed())));
            (weights[0] * x[0] + weights[1] * x[1]) + (weights[2] * x[2] + weights[3] * x[3])
        };
        std::array::from_fn(|lane| {
            (0..4).map(|at| product(weights[at][lane], x.quads[4 * HALF + at])).sum::<i32>().cast_unsigned()
        })
    }
}

/// Where nothing better is known.
#[cfg(not(target_arch = "x86_64"))]
mod entry {
    use super::Scalar;
    use crate::cpu::matvec::{self, Operand, Rows};
    use crate::weights::decode::Decode;

    pub(in crate::cpu::simd) fn rows<D: Decode, X: Operand>(
        input: &Rows<'_, X>,
        first_row: usize,
        products: &mut [f32],
    ) {
        matvec::rows::<D, Scalar, X>(input, first_row, products);
    }

    pub(in crate::cpu) use crate::cpu::attention::attention_chunk;

    pub(in crate::cpu) fn name() -> &'static str {
        if cfg!(target_feature = "neon") { "neon" } else { "scalar" }
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::cpu::simd) use entry::rows;
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::cpu) use entry::{attention_chunk, name};
