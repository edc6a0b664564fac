//! Weights: block formats against candle, an implementation from outside, and headers that are not what they should be.

#[path = "support/gguf.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod gguf;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor as CandleTensor};
use foredraft::error::{Error, Result};
use foredraft::store::{ByteSource, Bytes, LocalFuture, native::FileSource};
use foredraft::weights::decode::{decode_all, f16_to_f32};
use foredraft::weights::format::Format;
use foredraft::weights::gguf::{Gguf, GgufReader, read_header};
use foredraft::weights::metadata::Value;
use foredraft::weights::repack::repack;
use futures_lite::future::block_on;
use gguf::{Random, Tensor};
use std::borrow::Cow;
use std::path::PathBuf;

/// What candle makes of the bytes of a tensor.
fn candle(format: Format, bytes: &[u8]) -> Vec<f32> {
    let kind = match format {
        Format::F32 => GgmlDType::F32,
        Format::F16 => GgmlDType::F16,
        Format::BF16 => GgmlDType::BF16,
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q4_K => GgmlDType::Q4K,
        Format::Q5_K => GgmlDType::Q5K,
        Format::Q6_K => GgmlDType::Q6K,
    };
    // candle casts the bytes in place, so they must be aligned.
    let mut aligned = vec![0u32; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut::<u32, u8>(&mut aligned)[..bytes.len()].copy_from_slice(bytes);
    let aligned = &bytemuck::cast_slice::<u32, u8>(&aligned)[..bytes.len()];
    let storage = QStorage::from_data(Cow::Borrowed(aligned), &Device::Cpu, kind).unwrap();
    let weights = bytes.len() / format.block_bytes() * format.block_weights();
    let tensor = QTensor::new(storage, weights).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

fn ours(format: Format, bytes: &[u8]) -> Vec<f32> {
    let (mut quants, mut scales) = (vec![7; 3 * format.layout().quant_words()], Vec::new());
    let before = quants.len();
    repack("t", format, bytes, &mut quants, &mut scales).unwrap();
    decode_all(format.layout(), &quants[before..], &scales)
}

/// Asserts equal numbers: the same bits, but for the sign of zero, which a sum `8 d - 8 d` does not keep.
fn assert_same(format: Format, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{format}");
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!(ours == theirs, "{format} weight {at}: {ours:e} by us, {theirs:e} by candle");
    }
}

/// Random blocks: every quant, every scale; the f16 fields finite, over their whole range but for what overflows.
fn random_blocks(format: Format, blocks: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..blocks * format.block_bytes()).map(|_| random.next() as u8).collect();
    let halves: &[usize] = match format {
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::F16 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q6_K => &[208],
        Format::BF16 | Format::F32 => &[],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            // Exponent at most 25: below 4096.
            if block[at + 1] & 0x7c > 25 << 2 {
                block[at + 1] &= 0x83;
            }
        }
        match format {
            Format::F32 => block[3] &= 0xbf,
            Format::BF16 => block[1] &= 0xbf,
            _ => {}
        }
    }
    bytes
}

#[test]
fn every_format_decodes_as_in_candle() {
    let mut random = Random(42);
    for format in Format::ALL {
        let blocks = 64 * 256 / format.block_weights();
        let bytes = random_blocks(format, blocks, &mut random);
        let weights = ours(format, &bytes);
        assert!(weights.iter().all(|weight| weight.is_finite()), "{format}");
        assert!(weights.iter().any(|weight| *weight < 0.0) && weights.iter().any(|weight| *weight > 0.0), "{format}");
        assert_same(format, &weights, &candle(format, &bytes));
    }
}

#[test]
fn quantised_by_candle_decodes_near_the_original() {
    // The test above would pass if both misread; this one starts from known weights.
    let mut random = Random(7);
    let original: Vec<f32> = (0..2048).map(|_| random.signed()).collect();
    let tensor = CandleTensor::from_vec(original.clone(), 2048, &Device::Cpu).unwrap();
    let cases = [
        (Format::Q4_0, GgmlDType::Q4_0, 0.14),
        (Format::Q4_1, GgmlDType::Q4_1, 0.08),
        (Format::Q5_0, GgmlDType::Q5_0, 0.07),
        (Format::Q5_1, GgmlDType::Q5_1, 0.04),
        (Format::Q8_0, GgmlDType::Q8_0, 0.005),
        (Format::Q4_K, GgmlDType::Q4K, 0.1),
        (Format::Q5_K, GgmlDType::Q5K, 0.05),
        (Format::Q6_K, GgmlDType::Q6K, 0.04),
    ];
    for (format, kind, tolerance) in cases {
        let quantised = QTensor::quantize(&tensor, kind).unwrap();
        let decoded = ours(format, &quantised.data().unwrap());
        for (ours, original) in decoded.iter().zip(&original) {
            assert!((ours - original).abs() <= tolerance, "{format}: {ours} for {original}");
        }
    }
}

#[test]
fn f16_decodes_exactly() {
    for bits in 0..=u16::MAX {
        let (ours, exact) = (f16_to_f32(u32::from(bits)), half::f16::from_bits(bits).to_f32());
        assert!(ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan()), "{bits:#06x}: {ours} {exact}");
    }
}

#[test]
fn a_scale_whose_minimum_overflows_is_refused() {
    for (format, most) in [(Format::Q4_0, 8188.0f32), (Format::Q5_0, 4094.0)] {
        for (scale, fits) in [(most, true), (-most, true), (most * 1.01, false), (-most * 1.01, false)] {
            let mut bytes = vec![0; 3 * format.block_bytes()];
            let at = format.block_bytes();
            bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
            let outcome = repack("blk.0.x", format, &bytes, &mut Vec::new(), &mut Vec::new());
            match outcome {
                Ok(()) => assert!(fits, "{format} {scale}"),
                Err(Error::BadHeader { what, .. }) => assert!(!fits && what.contains("blk.0.x"), "{format} {scale}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn bytes_that_end_within_a_block_are_refused() {
    for format in Format::ALL {
        let outcome = repack("t", format, &vec![0; format.block_bytes() * 4 + 1], &mut Vec::new(), &mut Vec::new());
        assert!(matches!(outcome, Err(Error::BadHeader { .. })), "{format}");
    }
}
