//! Decodes blocks of every layout to f32: the CPU twin of `shaders/shared/layout_*.wgsl`.
//!
//! Each layout is a type, so that loops over a matrix are compiled once for each, the decoder inlined and vectorised for
//! whatever the caller is compiled for. Products are rounded before they are summed, on every processor alike.

use crate::weights::format::{BLOCK, Layout};

/// Decoder of one layout.
pub trait Decode {
    /// The layout.
    const LAYOUT: Layout;

    /// Decodes block `block` of the matrix, or rows, that `quants` and `scales` hold from their start: weight `e` of the
    /// block goes to `out[e]`. Panics where the block is outside of them.
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]);
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

/// Decodes block `block` of a layout that is known only at run time; loops should be generic over [`Decode`] instead.
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

/// Decodes all blocks of `quants`, in order: whole tensors of one layout, for tables and tests.
pub fn decode_all(layout: Layout, quants: &[u32], scales: &[u32]) -> Vec<f32> {
    let blocks = quants.len() / layout.quant_words();
    let mut weights = vec![0.0; blocks * BLOCK];
    for (block, out) in weights.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        decode_block(layout, quants, scales, block, out);
    }
    weights
}

/// Words `block * N ..` as an array: the one bounds check of a block.
#[inline(always)]
fn at<const N: usize>(words: &[u32], block: usize) -> &[u32; N] {
    &words.as_chunks::<N>().0[block]
}

/// An f16 as f32, exactly, without a branch or a call; subnormals, infinities and NaN too.
#[inline(always)]
pub fn f16_to_f32(bits: u32) -> f32 {
    let (exponent, magnitude) = (bits & 0x7c00, (bits & 0x7fff) << 13);
    let normal = magnitude + (112 << 23);
    let special = magnitude | 0x7f80_0000;
    // As a multiple of 2^-24, where multiplying a subnormal f32 would be slow on some processors.
    let subnormal = ((bits & 0x3ff) as f32 * (1.0 / 16_777_216.0)).to_bits();
    let finite = if exponent == 0 { subnormal } else { normal };
    let all = if exponent == 0x7c00 { special } else { finite };
    f32::from_bits(all | (bits & 0x8000) << 16)
}

/// The low and the high half of a word, both f16.
#[inline(always)]
fn two_halves(word: u32) -> (f32, f32) {
    (f16_to_f32(word & 0xffff), f16_to_f32(word >> 16))
}

/// Bytes `4 w + l` hold byte `l` of word `w`.
#[inline(always)]
fn bytes<const WORDS: usize, const BYTES: usize>(words: &[u32; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (four, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *four = word.to_le_bytes();
    }
    bytes
}

/// 4-bit quants in natural order.
#[inline(always)]
fn nibbles(words: &[u32; 4]) -> [u8; BLOCK] {
    let packed: [u8; 16] = bytes(words);
    let mut quants = [0; BLOCK];
    for e in 0..16 {
        quants[e] = packed[e] & 15;
        quants[16 + e] = packed[e] >> 4;
    }
    quants
}

/// 5-bit quants in natural order.
#[inline(always)]
fn five_bits(words: &[u32; 5]) -> [u8; BLOCK] {
    let mut quants = nibbles(&[words[0], words[1], words[2], words[3]]);
    let mut spread = [0u32; 8];
    for (w, four) in spread.iter_mut().enumerate() {
        *four = (words[4] >> w & 0x0101_0101) << 4;
    }
    let high: [u8; BLOCK] = bytes(&spread);
    for e in 0..BLOCK {
        quants[e] |= high[e];
    }
    quants
}

/// 6-bit quants in natural order.
#[inline(always)]
fn six_bits(words: &[u32; 6]) -> [u8; BLOCK] {
    let mut quants = nibbles(&[words[0], words[1], words[2], words[3]]);
    let mut spread = [0u32; 8];
    for (w, four) in spread.iter_mut().enumerate() {
        *four = (words[4 + w / 4] >> (2 * (w % 4)) & 0x0303_0303) << 4;
    }
    let high: [u8; BLOCK] = bytes(&spread);
    for e in 0..BLOCK {
        quants[e] |= high[e];
    }
    quants
}

#[inline(always)]
fn scale_and_add(quants: &[u8; BLOCK], scale: f32, min: f32, out: &mut [f32; BLOCK]) {
    for e in 0..BLOCK {
        out[e] = f32::from(quants[e]) * scale + min;
    }
}

/// Scale and minimum of block `block` of a layout with the scales of [`Layout::Q4K`].
#[inline(always)]
fn k_scale_and_min(scales: &[u32], block: usize) -> (f32, f32) {
    let words: &[u32; 5] = at(scales, block / 8);
    let (d, dmin) = two_halves(words[0]);
    let pair = words[1 + block % 8 / 2] >> (16 * (block % 2));
    (d * (pair & 0xff) as f32, -(dmin * (pair >> 8 & 0xff) as f32))
}

impl Decode for Q4 {
    const LAYOUT: Layout = Layout::Q4;
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let (scale, min) = two_halves(scales[block]);
        scale_and_add(&nibbles(at(quants, block)), scale, min, out);
    }
}

impl Decode for Q5 {
    const LAYOUT: Layout = Layout::Q5;
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let (scale, min) = two_halves(scales[block]);
        scale_and_add(&five_bits(at(quants, block)), scale, min, out);
    }
}

impl Decode for Q8 {
    const LAYOUT: Layout = Layout::Q8;
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let scale = f16_to_f32(scales[block] & 0xffff);
        let quants: [u8; BLOCK] = bytes(at::<8>(quants, block));
        for e in 0..BLOCK {
            out[e] = f32::from(quants[e].cast_signed()) * scale;
        }
    }
}

impl Decode for Q4K {
    const LAYOUT: Layout = Layout::Q4K;
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let (scale, min) = k_scale_and_min(scales, block);
        scale_and_add(&nibbles(at(quants, block)), scale, min, out);
    }
}

impl Decode for Q5K {
    const LAYOUT: Layout = Layout::Q5K;
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let (scale, min) = k_scale_and_min(scales, block);
        scale_and_add(&five_bits(at(quants, block)), scale, min, out);
    }
}

impl Decode for Q6K {
    const LAYOUT: Layout = Layout::Q6K;
    #[inline(always)]
    fn block(quants: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let words: &[u32; 5] = at(scales, block / 8);
        let d = f16_to_f32(words[0] & 0xffff);
        let pair = words[1 + block % 8 / 2] >> (16 * (block % 2));
        let first = d * f32::from(pair as u8 as i8);
        let second = d * f32::from((pair >> 8) as u8 as i8);
        let quants = six_bits(at(quants, block));
        for e in 0..16 {
            out[e] = f32::from(quants[e] as i8 - 32) * first;
            out[16 + e] = f32::from(quants[16 + e] as i8 - 32) * second;
        }
    }
}

impl Decode for F16 {
    const LAYOUT: Layout = Layout::F16;
    #[inline(always)]
    fn block(quants: &[u32], _scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let words: &[u32; 16] = at(quants, block);
        for e in 0..BLOCK {
            out[e] = f16_to_f32(words[e / 2] >> (16 * (e % 2)) & 0xffff);
        }
    }
}

impl Decode for BF16 {
    const LAYOUT: Layout = Layout::BF16;
    #[inline(always)]
    fn block(quants: &[u32], _scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let words: &[u32; 16] = at(quants, block);
        for e in 0..BLOCK {
            out[e] = f32::from_bits(words[e / 2] >> (16 * (e % 2)) << 16);
        }
    }
}

impl Decode for F32 {
    const LAYOUT: Layout = Layout::F32;
    #[inline(always)]
    fn block(quants: &[u32], _scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
        let words: &[u32; BLOCK] = at(quants, block);
        for e in 0..BLOCK {
            out[e] = f32::from_bits(words[e]);
        }
    }
}
