//! From a file's blocks to a device's layout (`format.rs` has both), a few hundred MB a second and core.
//!
//! Nothing is re-quantised: quants keep their bits, scales keep their f16 bits. Q4_0 and Q5_0, which store no minimum,
//! get `-8 d` and `-16 d`, exact in f16 unless they overflow it, which is an error. Block formats are those of ggml:
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

use crate::error::{Error, Result};
use crate::weights::format::Format;
use half::f16;

/// Appends the blocks in `bytes`, a whole number of them, to `quants` and `scales` in the layout `format.layout()`.
/// `tensor` names the tensor in errors.
///
/// # Errors
/// `BadHeader` where `bytes` ends within a block, or a scale of Q4_0 or Q5_0 is too large for its minimum to be an f16.
pub fn repack(tensor: &str, format: Format, bytes: &[u8], quants: &mut Vec<u32>, scales: &mut Vec<u32>) -> Result<()> {
    // F16 and BF16 pack two weights a word; ask for whole words rather than pad in the middle of a tensor.
    let unit = format.block_bytes().max(4);
    if !bytes.len().is_multiple_of(unit) {
        return Err(Error::BadHeader {
            what: format!("tensor {tensor} ({format})"),
            field: "its number of bytes".to_owned(),
            found: bytes.len().to_string(),
            expected: format!("a multiple of {unit}"),
        });
    }
    let layout = format.layout();
    let weights = bytes.len() / format.block_bytes() * format.block_weights();
    quants.reserve(weights.div_ceil(crate::weights::format::BLOCK) * layout.quant_words());
    scales.reserve(layout.scale_words_for(weights));
    let largest = match format {
        Format::F32 | Format::F16 | Format::BF16 => {
            quants.extend(words(bytes));
            0.0
        }
        Format::Q4_0 => each::<18, 4, 1>(bytes, quants, scales, q4_0),
        Format::Q4_1 => each::<20, 4, 1>(bytes, quants, scales, q4_1),
        Format::Q5_0 => each::<22, 5, 1>(bytes, quants, scales, q5_0),
        Format::Q5_1 => each::<24, 5, 1>(bytes, quants, scales, q5_1),
        Format::Q8_0 => each::<34, 8, 1>(bytes, quants, scales, q8_0),
        Format::Q4_K => each::<144, 32, 5>(bytes, quants, scales, q4_k),
        Format::Q5_K => each::<176, 40, 5>(bytes, quants, scales, q5_k),
        Format::Q6_K => each::<210, 48, 5>(bytes, quants, scales, q6_k),
    };
    let (most, steps) = if format == Format::Q4_0 { (65504.0 / 8.0, 8) } else { (65504.0 / 16.0, 16) };
    if largest > most {
        return Err(Error::BadHeader {
            what: format!("tensor {tensor} ({format})"),
            field: "the largest scale of a block".to_owned(),
            found: largest.to_string(),
            expected: format!("at most {most}, so that {steps} times it is an f16"),
        });
    }
    Ok(())
}

/// Runs `block` over all blocks of `BYTES` bytes, each giving `Q` words of quants and `S` words of scales. Gives the
/// largest of what `block` gives: the magnitude of a scale that has yet to be checked, or 0.
#[inline(always)]
fn each<const BYTES: usize, const Q: usize, const S: usize>(
    bytes: &[u8],
    quants: &mut Vec<u32>,
    scales: &mut Vec<u32>,
    block: impl Fn(&[u8; BYTES], &mut [u32; Q], &mut [u32; S]) -> f32,
) -> f32 {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    debug_assert!(rest.is_empty(), "the caller checked that blocks are whole");
    let (quants_from, scales_from) = (quants.len(), scales.len());
    quants.resize(quants_from + blocks.len() * Q, 0);
    scales.resize(scales_from + blocks.len() * S, 0);
    let quants = quants[quants_from..].as_chunks_mut::<Q>().0;
    let scales = scales[scales_from..].as_chunks_mut::<S>().0;
    let mut largest = 0.0f32;
    for ((bytes, quants), scales) in blocks.iter().zip(quants).zip(scales) {
        largest = largest.max(block(bytes, quants, scales));
    }
    largest
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn half_word(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at]) | u32::from(bytes[at + 1]) << 8
}

/// `pack2x16float(d, -steps * d)` and the magnitude of `d`; an infinite minimum is caught by the caller.
#[inline(always)]
fn scale_and_middle(bytes: &[u8], steps: f32) -> (u32, f32) {
    let bits = half_word(bytes, 0);
    let scale = f16::from_bits(bits as u16).to_f32();
    let min = f16::from_f32(-steps * scale);
    (bits | u32::from(min.to_bits()) << 16, scale.abs())
}

fn q4_0(bytes: &[u8; 18], quants: &mut [u32; 4], scales: &mut [u32; 1]) -> f32 {
    let largest;
    (scales[0], largest) = scale_and_middle(bytes, 8.0);
    for (w, quant) in quants.iter_mut().enumerate() {
        *quant = word(bytes, 2 + 4 * w);
    }
    largest
}

fn q4_1(bytes: &[u8; 20], quants: &mut [u32; 4], scales: &mut [u32; 1]) -> f32 {
    scales[0] = word(bytes, 0);
    for (w, quant) in quants.iter_mut().enumerate() {
        *quant = word(bytes, 4 + 4 * w);
    }
    0.0
}

fn q5_0(bytes: &[u8; 22], quants: &mut [u32; 5], scales: &mut [u32; 1]) -> f32 {
    let largest;
    (scales[0], largest) = scale_and_middle(bytes, 16.0);
    q5(word(bytes, 2), &bytes[6..], quants);
    largest
}

fn q5_1(bytes: &[u8; 24], quants: &mut [u32; 5], scales: &mut [u32; 1]) -> f32 {
    scales[0] = word(bytes, 0);
    q5(word(bytes, 4), &bytes[8..], quants);
    0.0
}

#[inline(always)]
fn q5(high: u32, low: &[u8], quants: &mut [u32; 5]) {
    for (w, quant) in quants[..4].iter_mut().enumerate() {
        *quant = word(low, 4 * w);
    }
    // Bit e = 4 w + l of the file becomes bit 8 l + w.
    quants[4] = (0..8).fold(0, |bits, w| {
        let four = high >> (4 * w);
        bits | (four & 1 | (four & 2) << 7 | (four & 4) << 14 | (four & 8) << 21) << w
    });
}

fn q8_0(bytes: &[u8; 34], quants: &mut [u32; 8], scales: &mut [u32; 1]) -> f32 {
    scales[0] = half_word(bytes, 0);
    for (w, quant) in quants.iter_mut().enumerate() {
        *quant = word(bytes, 2 + 4 * w);
    }
    0.0
}

/// The 6-bit scales and minima of Q4_K and Q5_K, packed in 12 bytes, to `scale | min << 8` for each of 8 blocks.
#[inline(always)]
fn k_scales(bytes: &[u8], scales: &mut [u32; 5]) {
    scales[0] = word(bytes, 0);
    let packed = &bytes[4..16];
    let pair = |j: usize| -> u32 {
        let (scale, min) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
        };
        u32::from(scale) | u32::from(min) << 8
    };
    for j in 0..4 {
        scales[1 + j] = pair(2 * j) | pair(2 * j + 1) << 16;
    }
}

/// Nibbles of 64 weights, the low ones of block `2 n` and the high ones of block `2 n + 1`, as words of both blocks.
#[inline(always)]
fn split_nibbles(bytes: &[u8], first: &mut [u32], second: &mut [u32]) {
    for w in 0..4 {
        let (early, late) = (word(bytes, 4 * w), word(bytes, 16 + 4 * w));
        first[w] = early & 0x0f0f_0f0f | (late & 0x0f0f_0f0f) << 4;
        second[w] = early >> 4 & 0x0f0f_0f0f | late & 0xf0f0_f0f0;
    }
}

fn q4_k(bytes: &[u8; 144], quants: &mut [u32; 32], scales: &mut [u32; 5]) -> f32 {
    k_scales(bytes, scales);
    for (n, pair) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (first, second) = pair.split_at_mut(4);
        split_nibbles(&bytes[16 + 32 * n..], first, second);
    }
    0.0
}

fn q5_k(bytes: &[u8; 176], quants: &mut [u32; 40], scales: &mut [u32; 5]) -> f32 {
    k_scales(bytes, scales);
    for (n, pair) in quants.as_chunks_mut::<10>().0.iter_mut().enumerate() {
        let (first, second) = pair.split_at_mut(5);
        split_nibbles(&bytes[48 + 32 * n..], first, second);
        // Byte e of the file has the fifth bit of weight e of block b as its bit b.
        for (b, block) in [first, second].into_iter().enumerate() {
            block[4] = (0..8).fold(0, |bits, w| bits | (word(bytes, 16 + 4 * w) >> (2 * n + b) & 0x0101_0101) << w);
        }
    }
    0.0
}

fn q6_k(bytes: &[u8; 210], quants: &mut [u32; 48], scales: &mut [u32; 5]) -> f32 {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    scales[0] = half_word(rest, 16);
    for j in 0..4 {
        scales[1 + j] = word(rest, 4 * j);
    }
    // Each half of 128 weights: blocks 0 and 1 are the low nibbles of 32 bytes each, blocks 2 and 3 their high nibbles;
    // the two high bits of block b are bits 2 b of 32 shared bytes.
    for (n, four) in quants.as_chunks_mut::<24>().0.iter_mut().enumerate() {
        let (low, high) = (&low[64 * n..64 * n + 64], &high[32 * n..32 * n + 32]);
        for (b, block) in four.as_chunks_mut::<6>().0.iter_mut().enumerate() {
            let (from, shift) = (32 * (b % 2), 4 * (b / 2));
            let (nibbles, twos) = block.split_at_mut(4);
            for (w, quant) in nibbles.iter_mut().enumerate() {
                let early = word(low, from + 4 * w) >> shift & 0x0f0f_0f0f;
                let late = word(low, from + 16 + 4 * w) >> shift & 0x0f0f_0f0f;
                *quant = early | late << 4;
            }
            for (part, bits) in twos.iter_mut().enumerate() {
                *bits =
                    (0..4).fold(0, |all, w| all | (word(high, 16 * part + 4 * w) >> (2 * b) & 0x0303_0303) << (2 * w));
            }
        }
    }
    0.0
}
