//! Weights: block formats against candle, an implementation from outside, and headers that are not what they should be.

#[path = "support/gguf.rs"]
#[expect(dead_code, reason = "only a part is used here")]
mod gguf;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor as CandleTensor};
use foredraft::error::{Error, Result};
use foredraft::store::{ByteSource, Bytes, LocalFuture, native::FileSource};
use foredraft::weights::decode::{decode_all, decode_block, f16_to_f32};
use foredraft::weights::format::{BLOCK, Format};
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
    let (layout, quants) = (format.layout(), &quants[before..]);
    let weights = decode_all(layout, quants, &scales);
    // Block by block it is the same, to the bit.
    for (block, weights) in weights.chunks_exact(BLOCK).enumerate() {
        let mut out = [0.0; BLOCK];
        decode_block(layout, quants, &scales, block, &mut out);
        assert_eq!(
            out.map(f32::to_bits).as_slice(),
            weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>(),
            "{format}"
        );
    }
    weights
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

/// A stream: its length is unknown, and it panics where asked to go back.
struct Stream {
    bytes: Vec<u8>,
    read_up_to: u64,
    /// Most bytes given at a time.
    most: usize,
}

impl ByteSource for Stream {
    fn name(&self) -> &str {
        "stream"
    }
    fn len_bytes(&self) -> Option<u64> {
        None
    }
    fn read(&mut self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        assert!(offset >= self.read_up_to, "went back from {} to {offset}", self.read_up_to);
        let start = (offset as usize).min(self.bytes.len());
        let end = start.saturating_add(len.min(self.most)).min(self.bytes.len());
        self.read_up_to = end as u64;
        Box::pin(std::future::ready(Ok(self.bytes[start..end].to_vec())))
    }
}

fn stream(bytes: &[u8]) -> Stream {
    Stream { bytes: bytes.to_vec(), read_up_to: 0, most: usize::MAX }
}

/// Reads the header from a file of known length, and from a stream, and asserts that both say the same.
fn header(bytes: &[u8]) -> Result<Gguf> {
    let of_stream = block_on(read_header(&mut stream(bytes)));
    let of_file = block_on(read_header(&mut Bytes { name: "file".to_owned(), bytes: bytes.to_vec() }));
    if let Ok(gguf) = &of_file {
        assert_eq!(gguf.tensors, of_stream.as_ref().unwrap().tensors);
    }
    of_file
}

fn model(name: &str) -> PathBuf {
    let folder = std::env::var_os("FOREDRAFT_TEST_MODELS").expect(
        "FOREDRAFT_TEST_MODELS is not set: it must name a folder with smollm2-135m-instruct.gguf and gemma-3-270m.gguf",
    );
    let path = PathBuf::from(folder).join(name);
    assert!(path.is_file(), "the test model {} is missing", path.display());
    path
}

#[test]
fn real_tensors_decode_as_in_candle() {
    let mut seen = std::collections::BTreeSet::new();
    for name in ["smollm2-135m-instruct.gguf", "gemma-3-270m.gguf"] {
        let mut source = FileSource::open(&model(name)).unwrap();
        let (mut reader, gguf) = block_on(GgufReader::open(&mut source)).unwrap();
        let mut per_format = std::collections::BTreeMap::new();
        for tensor in &gguf.tensors {
            let count: &mut u32 = per_format.entry(tensor.format.name()).or_default();
            *count += 1;
            // Every 40th tensor of a format: a build without optimisation must be done soon too.
            if *count % 40 != 1 {
                continue;
            }
            seen.insert(tensor.format.name());
            // From the middle on, a row at a time.
            let row_bytes = tensor.bytes / tensor.shape[..tensor.shape.len() - 1].iter().product::<u64>();
            let rows = tensor.bytes / row_bytes;
            let first = if rows == 1 { 0 } else { rows / 2 };
            for row in first..rows.min(first + 64) {
                let bytes = block_on(reader.read_tensor_piece(tensor, row * row_bytes, row_bytes as usize)).unwrap();
                assert_same(tensor.format, &ours(tensor.format, &bytes), &candle(tensor.format, &bytes));
            }
        }
    }
    let expected = ["F32", "Q4_1", "Q4_K", "Q5_0", "Q6_K", "Q8_0"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn headers_of_real_models_are_read() {
    let mut source = FileSource::open(&model("smollm2-135m-instruct.gguf")).unwrap();
    let smollm2 = block_on(read_header(&mut source)).unwrap();
    assert_eq!(smollm2.metadata.string("general.architecture").unwrap(), "llama");
    assert_eq!(smollm2.metadata.u32("llama.block_count").unwrap(), 30);
    assert_eq!(smollm2.metadata.strings("tokenizer.ggml.tokens").unwrap().len(), 49_152);
    assert_eq!(smollm2.tensors.len(), 272);
    let embedding = smollm2.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.shape.as_slice(), embedding.format), ([49_152, 576].as_slice(), Format::Q8_0));
    assert_eq!(smollm2.tensors.last().map(|last| last.offset + last.bytes), source.len_bytes());

    let mut source = FileSource::open(&model("gemma-3-270m.gguf")).unwrap();
    let gemma = block_on(read_header(&mut source)).unwrap();
    assert_eq!(gemma.metadata.string("general.architecture").unwrap(), "gemma3");
    assert_eq!(gemma.metadata.opt_floats("tokenizer.ggml.scores").unwrap().unwrap().len(), 262_144);
    assert_eq!(gemma.tensor("token_embd.weight").unwrap().shape, [262_144, 640]);
    assert_eq!(gemma.tensors.last().map(|last| last.offset + last.bytes), source.len_bytes());
}

#[test]
fn a_stream_gives_header_and_tensors_without_going_back() {
    let tensors = gguf::tiny_llama_tensors();
    let bytes = gguf::tiny_llama();
    for most in [1, 7, 4096, usize::MAX] {
        let mut source = Stream { most, ..stream(&bytes) };
        let (mut reader, header) = block_on(GgufReader::open(&mut source)).unwrap();
        assert_eq!(header.tensors.len(), tensors.len());
        for (index, (info, tensor)) in header.tensors.iter().zip(&tensors).enumerate() {
            assert_eq!((&info.name, &info.shape), (&tensor.name, &tensor.shape));
            // Some are skipped, some read in two pieces with a gap.
            if index % 3 == 0 {
                continue;
            }
            let half = tensor.data.len() / 2 / 4 * 4;
            let first = block_on(reader.read_tensor_piece(info, 0, half - 8)).unwrap();
            let second = block_on(reader.read_tensor_piece(info, half as u64, tensor.data.len() - half)).unwrap();
            assert_eq!((first.as_slice(), second.as_slice()), (&tensor.data[..half - 8], &tensor.data[half..]));
        }
        // Nothing is read twice, nor outside of a tensor.
        let last = header.tensors.last().unwrap();
        for (offset, len) in [(0, 4), (last.bytes, 1), (u64::MAX, 1), (0, usize::MAX)] {
            let outcome = block_on(reader.read_tensor_piece(last, offset, len));
            assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
        }
    }
}

#[test]
fn a_tensor_that_a_stream_does_not_hold_is_truncated() {
    let mut bytes = gguf::tiny_llama();
    bytes.truncate(bytes.len() - 100);
    let mut source = stream(&bytes);
    let (mut reader, header) = block_on(GgufReader::open(&mut source)).unwrap();
    let last = header.tensors.last().unwrap();
    match block_on(reader.read_tensor_piece(last, 0, last.bytes as usize)) {
        Err(Error::Truncated { needed, needed_bytes, found_bytes, .. }) => {
            assert!(needed.contains(&last.name));
            assert_eq!((needed_bytes, found_bytes), (last.offset + last.bytes, bytes.len() as u64));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = gguf::tiny_llama();
    let data_offset = header(&whole).unwrap().data_offset as usize;
    let end = header(&whole).unwrap().tensors.last().map(|last| (last.offset + last.bytes) as usize).unwrap();
    for cut in (0..data_offset + 40).chain(end - 40..end) {
        match header(&whole[..cut]) {
            Err(Error::NotGguf { found, .. }) => assert_eq!((cut, found.as_str()), (0, "nothing")),
            Err(Error::Truncated { needed_bytes, found_bytes, needed, .. }) => {
                assert!(found_bytes == cut as u64 && needed_bytes > found_bytes && !needed.is_empty(), "cut at {cut}");
            }
            other => panic!("cut at {cut}: {:?}", other.map(|gguf| gguf.tensors.len())),
        }
    }
}

#[test]
fn a_flipped_byte_never_panics() {
    // Any outcome but a panic is right: many a flip gives another valid file.
    let whole = gguf::tiny_llama();
    let data_offset = header(&whole).unwrap().data_offset as usize;
    let mut refused = 0;
    for at in 0..data_offset {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let outcome = block_on(read_header(&mut Bytes { name: "flipped".to_owned(), bytes }));
            if let Err(error) = outcome {
                refused += 1;
                let typed = ["bad_header", "truncated", "not_gguf", "unsupported_format"];
                assert!(typed.contains(&error.code()), "byte {at}: {error}");
            }
        }
    }
    assert!(refused > data_offset / 4, "only {refused} flips were noticed");
}

/// A file of one tensor, where nothing is wrong yet.
fn plain() -> (Vec<(&'static str, Value)>, Vec<Tensor>) {
    (vec![("a.key", Value::Uint(5))], vec![Tensor::f32("t", &[2, 4], &[0.0; 8])])
}

fn assert_bad(outcome: Result<Gguf>, field: &str, found: &str) {
    match outcome {
        Err(Error::BadHeader { field: in_field, found: value, .. }) => {
            assert!(in_field.contains(field) && value.contains(found), "{in_field}: {value}");
        }
        other => panic!("{field}: {:?}", other.map(|gguf| gguf.tensors)),
    }
}

#[test]
fn counts_that_cannot_be_are_refused_without_believing_them() {
    let (metadata, tensors) = plain();
    let whole = gguf::write(metadata, &tensors);
    let with = |at: usize, value: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        header(&bytes)
    };
    // The header: magic 0, version 4, tensors 8, pairs 16, key length 24, key 32, type 37, value 41,
    // name length 45, name 53, dimensions 54, shape 58, format 74, offset 78.
    assert!(matches!(with(0, b"GGML"), Err(Error::NotGguf { found, .. }) if found == "\"GGML\""));
    assert_bad(with(4, &1u32.to_le_bytes()), "version", "1");
    assert_bad(with(4, &4u32.to_le_bytes()), "version", "4");
    assert_bad(with(4, &3u32.to_be_bytes()), "version", "big-endian");
    assert!(with(4, &2u32.to_le_bytes()).is_ok());
    for huge in [u64::MAX, 1 << 62, 1 << 40] {
        let huge = huge.to_le_bytes();
        assert_bad(with(8, &huge), "tensor count", "");
        assert_bad(with(16, &huge), "metadata count", "");
        assert_bad(with(24, &huge), "length of metadata key 0", "");
        assert_bad(with(45, &huge), "length of name of tensor 0", "");
    }
    assert_bad(with(37, &13u32.to_le_bytes()), "a.key", "13");
    assert_bad(with(54, &0u32.to_le_bytes()), "dimensions of tensor t", "0");
    assert_bad(with(54, &5u32.to_le_bytes()), "dimensions of tensor t", "5");
    assert_bad(with(58, &0u64.to_le_bytes()), "shape of tensor t", "[2, 0]");
    assert_bad(with(58, &u64::MAX.to_le_bytes()), "shape of tensor t", "18446744073709551615");
    assert_bad(with(58, &(1u64 << 62).to_le_bytes()), "shape of tensor t", "4611686018427387904");
    assert!(
        matches!(with(58, &(1u64 << 40).to_le_bytes()), Err(Error::Truncated { needed, .. }) if needed == "tensor t")
    );
    assert_bad(with(78, &4u64.to_le_bytes()), "offset of tensor t", "4");
    assert_bad(with(78, &(u64::MAX - 31).to_le_bytes()), "offset of tensor t", "");
    assert!(matches!(with(78, &32u64.to_le_bytes()), Err(Error::Truncated { .. })));
    for (number, name) in [(10u32, "Q2_K"), (20, "IQ4_NL"), (24, "I8"), (4_000_000, "ggml type 4000000")] {
        match with(74, &number.to_le_bytes()) {
            Err(Error::UnsupportedFormat { tensor, found, supported }) => {
                assert_eq!((tensor.as_str(), found.as_str()), ("t", name));
                assert!(supported.contains("Q4_K") && supported.contains("BF16"));
            }
            other => panic!("{:?}", other.map(|gguf| gguf.tensors)),
        }
    }
    // A row of 4 weights is no whole block.
    assert_bad(with(74, &2u32.to_le_bytes()), "shape of tensor t", "[2, 4]");
}

#[test]
fn metadata_that_cannot_be_is_refused() {
    let with = |value: Value| gguf::write([("k", value)], &[]);
    // The value of the only key stands at 24 + 8 + 1 + 4; an array has its type there and its length 4 further.
    let at = 37;
    let mut nested = with(Value::Ints(vec![1]));
    nested[at..at + 4].copy_from_slice(&9u32.to_le_bytes());
    assert_bad(header(&nested), "k", "array of arrays");
    for (value, bytes) in [(Value::Ints(vec![1]), 4u64), (Value::Strings(vec![String::new()]), 8)] {
        let mut long = with(value);
        long[at + 4..at + 12].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_bad(header(&long), "length of k", "18446744073709551615");
        // A count that a file of this length has no room for, and a stream would only notice at its end.
        long[at + 4..at + 12].copy_from_slice(&1_000_000u64.to_le_bytes());
        match header(&long) {
            Err(Error::Truncated { needed_bytes, .. }) => assert_eq!(needed_bytes, at as u64 + 12 + 1_000_000 * bytes),
            other => panic!("{:?}", other.map(|gguf| gguf.metadata)),
        }
        assert!(matches!(block_on(read_header(&mut stream(&long))), Err(Error::Truncated { .. })));
    }
    let mut text = with(Value::String("abc".to_owned()));
    text[at + 8] = 0xff;
    assert_bad(header(&text), "k", "\\xff");
    text[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_bad(header(&text), "length of k", "1099511627776");
    let mut truth = with(Value::Bool(true));
    truth[at] = 2;
    assert_bad(header(&truth), "k", "2");
    assert_bad(header(&gguf::write([("k", Value::Uint(1)), ("k", Value::Uint(2))], &[])), "metadata", "k twice");
    for alignment in [0, 3, 48, 1 << 30] {
        let mut bytes = gguf::write([("general.alignment", Value::Uint(32))], &[]);
        let at = bytes.len() - 8;
        let at = bytes[..at + 8].windows(4).rposition(|four| four == 32u32.to_le_bytes()).unwrap_or(at);
        bytes[at..at + 4].copy_from_slice(&(alignment as u32).to_le_bytes());
        assert_bad(header(&bytes), "general.alignment", &alignment.to_string());
    }
}

#[test]
fn tensors_lie_apart_in_file_order_and_have_names_of_their_own() {
    let weights = [0.0; 8];
    let pair = |second: &str| {
        let tensors = [Tensor::f32("t", &[8], &weights), Tensor::f32(second, &[8], &weights)];
        gguf::write([], &tensors)
    };
    assert_bad(header(&pair("t")), "tensor names", "t twice");
    let whole = pair("u");
    // The infos stand at 24, 37 bytes each: an offset is the last 8.
    let offsets = |first: u64, second: u64| {
        let mut bytes = whole.clone();
        bytes[24 + 25..24 + 33].copy_from_slice(&first.to_le_bytes());
        bytes[24 + 33 + 25..24 + 66].copy_from_slice(&second.to_le_bytes());
        header(&bytes)
    };
    assert_bad(offsets(0, 0), "offset of tensor", "0");
    let swapped = offsets(32, 0).unwrap();
    assert_eq!(swapped.tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["u", "t"]);
    assert_eq!(swapped.tensors[0].offset, swapped.data_offset);
}

#[test]
fn all_kinds_of_metadata_are_read() {
    let values = [
        ("uint", Value::Uint(7)),
        ("long", Value::Uint(u64::MAX)),
        ("int", Value::Int(-7)),
        ("long_int", Value::Int(i64::MIN)),
        ("float", Value::Float(0.5)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("ä\u{1f600}".to_owned())),
        ("strings", Value::Strings(vec!["a".to_owned(), String::new()])),
        ("floats", Value::Floats(vec![1.5, -2.0])),
        ("ints", Value::Ints(vec![-1, 5])),
        ("long_ints", Value::Ints(vec![1 << 40])),
        ("none", Value::Ints(Vec::new())),
    ];
    let gguf = header(&gguf::write(values.clone(), &[])).unwrap();
    assert_eq!(gguf.metadata.values.len(), values.len());
    for (key, value) in &values {
        assert_eq!(gguf.metadata.values.get(*key), Some(value), "{key}");
    }
    // Small integers, which the writer does not write: u8, i8, u16 and i16, signed ones below zero.
    for (kind, bytes, expected) in [
        (0u32, vec![0xff], Value::Uint(255)),
        (1, vec![0xff], Value::Int(-1)),
        (2, vec![0xfe, 0xff], Value::Uint(65_534)),
        (3, vec![0xfe, 0xff], Value::Int(-2)),
        (12, 0.1f64.to_le_bytes().to_vec(), Value::Float(0.1)),
    ] {
        let mut file = gguf::write([("k", Value::Bool(true))], &[]);
        file.truncate(33);
        file.extend(kind.to_le_bytes());
        file.extend(bytes);
        file.resize(64, 0);
        assert_eq!(header(&file).unwrap().metadata.values.get("k"), Some(&expected));
    }
}
