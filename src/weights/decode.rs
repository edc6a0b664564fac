//! Decodes blocks of every layout to f32: the CPU twin of `shaders/shared/layouts.wgsl`.
//!
//! Each layout is a type, so that loops over a matrix are compiled once for each. Products are rounded before they are
//! summed, on every processor alike.

use crate::weights::format::{BLOCK, Layout};

/// Decoder of one layout.
pub trait Decode {
    /// The layout.
    const LAYOUT: Layout;

    /// The two factors of block `block`: see [`Decode::weights`].
    fn factors(scales: &[u32], block: usize) -> (f32, f32);

    /// Decodes the quants of block `block` with its factors: what a quant is multiplied with and what is added to the
    /// product; in [`Q6K`] what the first and the last 16 quants are multiplied with.
    fn weights(quants: &[u32], block: usize, factors: (f32, f32), out: &mut [f32; BLOCK]);

    /// Decodes block `block` of the matrix, or rows, that `quants` and `scales` hold from their start: weight `e` of the
    /// block goes to `out[e]`. Panics where the block is outside of them.
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        Self::weights(quants, block, Self::factors(scales, block), out);
    }
}

/// [`Layout::Q4`]
pub struct Q4;
/// [`Layout::Q5`]
pub struct Q5;
/// [`Layout::Q8`]
pub struct Q8;
/// [`Layout::Q4K`]
pub struct Q4K;
/// [`Layout::Q5K`]
pub struct Q5K;
/// [`Layout::Q6K`]
pub struct Q6K;
/// [`Layout::F16`]
pub struct F16;
/// [`Layout::BF16`]
pub struct BF16;
/// [`Layout::F32`]
pub struct F32;

/// Decodes block `block` of a layout that is known only at run time.
#[inline]
pub fn decode_block(layout: Layout, quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
    match layout {
        Layout::Q4 => Q4::block(quants, scales, block, out),
        Layout::Q5 => Q5::block(quants, scales, block, out),
        Layout::Q8 => Q8::block(quants, scales, block, out),
        Layout::Q4K => Q4K::block(quants, scales, block, out),
        Layout::Q5K => Q5K::block(quants, scales, block, out),
        Layout::Q6K => Q6K::block(quants, scales, block, out),
        Layout::F16 => F16::block(quants, scales, block, out),
        Layout::BF16 => BF16::block(quants, scales, block, out),
        Layout::F32 => F32::block(quants, scales, block, out),
    }
}

/// Decodes all blocks of `quants`, in order: whole tensors, for tables and tests.
pub fn decode_all(layout: Layout, quants: &[u32], scales: &[u32]) -> Vec<f32> {
    let mut weights = vec![0.0; quants.len() / layout.quant_words() * BLOCK];
    for (block, out) in weights.as_chunks_mut().0.iter_mut().enumerate() {
        decode_block(layout, quants, scales, block, out);
    }
    weights
}

/// 2^-100: a block of smaller elements is one of zeros, since 127 over its largest might be infinite.
pub const LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// Quantises 32 elements of a vector for products with quantised weights: the first ten words of a block of
/// `plan::Vector::Q8`.
pub fn quantise(values: &[f32; BLOCK], words: &mut [u32]) {
    // In lanes, and without the function that `max` is on some machines.
    let mut lanes = [0.0f32; 8];
    for eight in values.as_chunks::<8>().0 {
        lanes
            .iter_mut()
            .zip(eight)
            .for_each(|(lane, value)| *lane = if value.abs() > *lane { value.abs() } else { *lane });
    }
    let largest = lanes.into_iter().fold(0.0, |largest, lane| if lane > largest { lane } else { largest });
    let largest = if largest < LEAST { 0.0 } else { largest };
    let scale = largest / 127.0;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    // Rounds to the nearest integer, ties to even, and leaves it in the low bits: a loop without calls.
    const ROUND: f32 = 12_582_912.0;
    let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut words[..8]);
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (value * inverse + ROUND).to_bits() as i8;
    }
    let sum: i32 = bytes.iter().map(|&byte| i32::from(byte)).sum();
    words[8] = scale.to_bits();
    words[9] = (scale * sum as f32).to_bits();
}

/// Words `block * N ..` as an array: the one bounds check of a block.
#[inline(always)]
fn at<const N: usize>(words: &[u32], block: usize) -> &[u32; N] {
    &words.as_chunks::<N>().0[block]
}

/// An f16 as f32, exactly, without a branch or a call; subnormals, infinities and NaN too.
#[inline(always)]
pub fn f16_to_f32(bits: u32) -> f32 {
    let exponent = bits & 0x7c00;
    let subnormal = u32::from(exponent == 0);
    let special = u32::from(exponent == 0x7c00);
    // The exponent moves from bias 15 to 127. A subnormal gets a leading one and loses it again by a subtraction; a
    // special exponent goes on to 255.
    let moved = ((bits & 0x7fff) << 13) + (112 << 23) + (subnormal << 23) + special * (112 << 23);
    let leading_one = f32::from_bits(subnormal * (113 << 23));
    f32::from_bits((f32::from_bits(moved) - leading_one).to_bits() | (bits & 0x8000) << 16)
}

/// The low and the high half of a word, both f16.
#[inline(always)]
fn two_halves(word: u32) -> (f32, f32) {
    (f16_to_f32(word & 0xffff), f16_to_f32(word >> 16))
}

// Words are looked at as bytes and halves in place.
const _: () = assert!(cfg!(target_endian = "little"), "layouts are little-endian");

/// 4-bit quants in natural order.
#[inline(always)]
fn nibbles(words: &[u32]) -> [i32; BLOCK] {
    // In place: a copy of the words would be taken apart with shifts.
    let bytes: &[u8] = &bytemuck::cast_slice(words)[..16];
    let mut quants = [0; BLOCK];
    let (low, high) = quants.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = i32::from(byte & 15);
        *high = i32::from(byte >> 4);
    }
    quants
}

/// 5-bit quants in natural order.
#[inline(always)]
fn five_bits(words: &[u32; 5]) -> [i32; BLOCK] {
    /// Which bit of the fifth word belongs to weight `e = 4 w + l`.
    const BITS: [u32; BLOCK] = {
        let mut bits = [0; BLOCK];
        let mut e = 0;
        while e < BLOCK {
            bits[e] = (8 * (e % 4) + e / 4) as u32;
            e += 1;
        }
        bits
    };
    let mut quants = nibbles(words);
    for e in 0..BLOCK {
        quants[e] |= ((words[4] >> BITS[e] & 1) << 4).cast_signed();
    }
    quants
}

/// 6-bit quants in natural order.
#[inline(always)]
fn six_bits(words: &[u32; 6]) -> [i32; BLOCK] {
    /// Where the two bits of weight `e = 4 w + l` stand in their word.
    const SHIFTS: [u32; 16] = {
        let mut shifts = [0; 16];
        let mut e = 0;
        while e < 16 {
            shifts[e] = (8 * (e % 4) + 2 * (e / 4)) as u32;
            e += 1;
        }
        shifts
    };
    let mut quants = nibbles(words);
    for e in 0..16 {
        quants[e] |= ((words[4] >> SHIFTS[e] & 3) << 4).cast_signed();
        quants[16 + e] |= ((words[5] >> SHIFTS[e] & 3) << 4).cast_signed();
    }
    quants
}

#[inline(always)]
fn scale_and_add(quants: &[i32; BLOCK], (scale, min): (f32, f32), out: &mut [f32; BLOCK]) {
    for (out, &quant) in out.iter_mut().zip(quants) {
        *out = quant as f32 * scale + min;
    }
}

/// `d * scale` and `-dmin * min` of block `j` of the 8 that share `words`, as in [`Layout::Q4K`].
#[inline(always)]
fn k_factors((d, dmin): (f32, f32), words: &[u32; 5], j: usize) -> (f32, f32) {
    let pair = words[1 + j / 2] >> (16 * (j % 2));
    (d * (pair & 0xff).cast_signed() as f32, -dmin * (pair >> 8 & 0xff).cast_signed() as f32)
}

/// `d * scale` of both halves of block `j` of the 8 that share `words`, as in [`Layout::Q6K`].
#[inline(always)]
fn q6k_factors(d: f32, words: &[u32; 5], j: usize) -> (f32, f32) {
    let pair = words[1 + j / 2] >> (16 * (j % 2));
    (d * f32::from(pair as u8 as i8), d * f32::from((pair >> 8) as u8 as i8))
}

impl Decode for Q4 {
    const LAYOUT: Layout = Layout::Q4;
    #[inline(always)]
    fn factors(scales: &[u32], block: usize) -> (f32, f32) {
        two_halves(scales[block])
    }
    #[inline(always)]
    fn weights(quants: &[u32], block: usize, factors: (f32, f32), out: &mut [f32; BLOCK]) {
        scale_and_add(&nibbles(at::<4>(quants, block)), factors, out);
    }
}

impl Decode for Q5 {
    const LAYOUT: Layout = Layout::Q5;
    #[inline(always)]
    fn factors(scales: &[u32], block: usize) -> (f32, f32) {
        Q4::factors(scales, block)
    }
    #[inline(always)]
    fn weights(quants: &[u32], block: usize, factors: (f32, f32), out: &mut [f32; BLOCK]) {
        scale_and_add(&five_bits(at(quants, block)), factors, out);
    }
}

impl Decode for Q8 {
    const LAYOUT: Layout = Layout::Q8;
    #[inline(always)]
    fn factors(scales: &[u32], block: usize) -> (f32, f32) {
        (f16_to_f32(scales[block] & 0xffff), 0.0)
    }
    #[inline(always)]
    fn weights(quants: &[u32], block: usize, (scale, _): (f32, f32), out: &mut [f32; BLOCK]) {
        let bytes: &[i8; BLOCK] = bytemuck::cast_ref(at::<8>(quants, block));
        for (out, &quant) in out.iter_mut().zip(bytes) {
            *out = f32::from(quant) * scale;
        }
    }
}

impl Decode for Q4K {
    const LAYOUT: Layout = Layout::Q4K;
    #[inline(always)]
    fn factors(scales: &[u32], block: usize) -> (f32, f32) {
        let words: &[u32; 5] = at(scales, block / 8);
        k_factors(two_halves(words[0]), words, block % 8)
    }
    #[inline(always)]
    fn weights(quants: &[u32], block: usize, factors: (f32, f32), out: &mut [f32; BLOCK]) {
        Q4::weights(quants, block, factors, out);
    }
}

impl Decode for Q5K {
    const LAYOUT: Layout = Layout::Q5K;
    #[inline(always)]
    fn factors(scales: &[u32], block: usize) -> (f32, f32) {
        Q4K::factors(scales, block)
    }
    #[inline(always)]
    fn weights(quants: &[u32], block: usize, factors: (f32, f32), out: &mut [f32; BLOCK]) {
        Q5::weights(quants, block, factors, out);
    }
}

impl Decode for Q6K {
    const LAYOUT: Layout = Layout::Q6K;
    #[inline(always)]
    fn factors(scales: &[u32], block: usize) -> (f32, f32) {
        let words: &[u32; 5] = at(scales, block / 8);
        q6k_factors(f16_to_f32(words[0] & 0xffff), words, block % 8)
    }
    #[inline(always)]
    fn weights(quants: &[u32], block: usize, (first, second): (f32, f32), out: &mut [f32; BLOCK]) {
        let quants = six_bits(at(quants, block));
        for e in 0..16 {
            out[e] = (quants[e] - 32) as f32 * first;
            out[16 + e] = (quants[16 + e] - 32) as f32 * second;
        }
    }
}

/// Layouts that store weights as floats have no factors.
macro_rules! float_layout {
    ($name:ident, $kind:ty, $words:literal, $decode:expr) => {
        impl Decode for $name {
            const LAYOUT: Layout = Layout::$name;
            #[inline(always)]
            fn factors(_scales: &[u32], _block: usize) -> (f32, f32) {
                (1.0, 0.0)
            }
            #[inline(always)]
            fn weights(quants: &[u32], block: usize, _factors: (f32, f32), out: &mut [f32; BLOCK]) {
                let stored: &[$kind; BLOCK] = bytemuck::cast_ref(at::<$words>(quants, block));
                for (out, &bits) in out.iter_mut().zip(stored) {
                    *out = $decode(bits);
                }
            }
        }
    };
}

float_layout!(F16, u16, 16, |bits| f16_to_f32(u32::from(bits)));
float_layout!(BF16, u16, 16, |bits| f32::from_bits(u32::from(bits) << 16));
float_layout!(F32, u32, 32, f32::from_bits);
