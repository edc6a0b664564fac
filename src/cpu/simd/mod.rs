//! The inner loops, compiled for what the machine has. Each gives the same bits on every machine that runs it and for any
//! number of columns: the order of operations is in the source and Rust never contracts or reorders floats.

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
use scalar as imp;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use wasm as imp;
#[cfg(target_arch = "x86_64")]
use x86 as imp;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use imp::{LANES, Quad, attention_chunk, halves_to_floats, name, quad};

use super::matvec::{Block, Operand, Rows};
use crate::weights::decode;
use crate::weights::format::Layout;

/// Words of [`LANES`] rows at a time. Everything is to be inlined into a function that is compiled for the instructions it
/// uses.
pub(super) trait Simd {
    /// 32 bits a lane.
    type Int: Copy;
    /// A float a lane.
    type Float: Copy;
    /// Four quants a lane, made ready.
    type Weights: Copy;
    /// Zeros.
    const ZERO: Self::Int;
    /// A word a lane.
    fn load(words: &[u32; LANES]) -> Self::Int;
    /// The same number in every lane.
    fn int(value: i32) -> Self::Int;
    /// `a + b`
    fn add(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a & mask`
    fn and(a: Self::Int, mask: u32) -> Self::Int;
    /// `a | b`
    fn or(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a << by`
    fn shl(a: Self::Int, by: u32) -> Self::Int;
    /// `a >> by`, zeros from above.
    fn shr(a: Self::Int, by: u32) -> Self::Int;
    /// `a >> by`, the sign from above.
    fn sar(a: Self::Int, by: u32) -> Self::Int;
    /// The numbers as floats.
    fn float(a: Self::Int) -> Self::Float;
    /// The bits as floats.
    fn bits(a: Self::Int) -> Self::Float;
    /// The same float in every lane.
    fn splat(value: f32) -> Self::Float;
    /// `a + b`
    fn plus(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b`
    fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `-a`
    fn negate(a: Self::Float) -> Self::Float;
    /// The lanes.
    fn store(a: Self::Float) -> [f32; LANES];
    /// Makes bytes ready: signed ones where `MOST` is 128, else 0 to `MOST`.
    fn weights<const MOST: i32>(bytes: Self::Int) -> Self::Weights;
    /// Sums of the products with quads `4 HALF ..` of a block.
    fn dot<const MOST: i32, const HALF: usize>(weights: &[Self::Weights; 4], x: &Block) -> Self::Int;

    /// The f16 in the low half of each word, exactly if it is finite; scales of sound files are.
    #[inline(always)]
    fn low_half(a: Self::Int) -> Self::Float {
        Self::high_half(Self::shl(a, 16))
    }

    /// The f16 in the high half of each word.
    #[inline(always)]
    fn high_half(a: Self::Int) -> Self::Float {
        // Sign, exponent and fraction go to their places, and 2^112 is what the biases differ by; that works for subnormals too.
        Self::mul(Self::bits(Self::and(Self::sar(a, 3), 0x8fff_e000)), Self::splat(f32::from_bits((127 + 112) << 23)))
    }
}

/// Rows `first_row ..` of a product.
pub(super) fn rows<X: Operand>(input: &Rows<'_, X>, first_row: usize, products: &mut [f32]) {
    let rows = match input.part.layout {
        Layout::Q4 => imp::rows::<decode::Q4, X>,
        Layout::Q5 => imp::rows::<decode::Q5, X>,
        Layout::Q8 => imp::rows::<decode::Q8, X>,
        Layout::Q4K => imp::rows::<decode::Q4K, X>,
        Layout::Q5K => imp::rows::<decode::Q5K, X>,
        Layout::Q6K => imp::rows::<decode::Q6K, X>,
        Layout::F16 => imp::rows::<decode::F16, X>,
        Layout::BF16 => imp::rows::<decode::BF16, X>,
        Layout::F32 => imp::rows::<decode::F32, X>,
    };
    rows(input, first_row, products);
}
