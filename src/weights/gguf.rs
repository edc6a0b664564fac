//! The GGUF container, v2 and v3, read in order: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Offsets asked of the source never go back, so a file, an HTTP range reader and a plain stream are read alike. Nothing
//! is allocated on the word of a count: memory grows with the bytes that have arrived.

use crate::error::{Error, Result};
use crate::store::ByteSource;
use crate::weights::format::{Format, ggml_type_name};
use crate::weights::metadata::{Metadata, Value};
use std::collections::HashSet;

/// Bytes asked of the source at a time while the length of the header is not known.
const PIECE_BYTES: usize = 1 << 20;
/// Limits far above every real file (a 262k vocabulary with its scores takes about 8 MiB) and far below what hurts.
const MAX_HEADER_BYTES: u64 = 128 << 20;
const MAX_STRING_BYTES: u64 = 16 << 20;
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_PAIRS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 17;
const MAX_ARRAY: u64 = 1 << 24;
const MAX_DIMENSIONS: u32 = 4;
const MAX_ALIGNMENT: u32 = 1 << 20;

/// Where a tensor lies in its file, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, slowest first: (rows, cols) of a matrix; 1 to 4 of them.
    pub shape: Vec<u64>,
    /// Block format.
    pub format: Format,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in the file, a whole number of blocks.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The header of a file.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// The file, for messages.
    pub what: String,
    /// Version of the container, 2 or 3.
    pub version: u32,
    /// All metadata.
    pub metadata: Metadata,
    /// All tensors, in the order in which they lie in the file.
    pub tensors: Vec<TensorInfo>,
    /// Where tensor data begins, from the start of the file.
    pub data_offset: u64,
}

impl Gguf {
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// Reads a header and nothing else. What the source gave beyond it is dropped: to go on to the tensors, use
/// [`GgufReader::open`].
pub async fn read_header(source: &mut dyn ByteSource) -> Result<Gguf> {
    Ok(GgufReader::open(source).await?.1)
}

/// Reads a file from front to back: the header, then pieces of tensors at offsets that never go back.
pub struct GgufReader<'a> {
    source: &'a mut dyn ByteSource,
    what: String,
    len_bytes: Option<u64>,
    /// Bytes `buffer_at ..` of the file that have arrived; those before `taken` are done with.
    buffer: Vec<u8>,
    buffer_at: u64,
    taken: usize,
}

impl<'a> GgufReader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// `NotGguf`, `Truncated` (also where the file's length is known and a tensor does not fit), `BadHeader`,
    /// `UnsupportedFormat`, and the source's own.
    pub async fn open(source: &'a mut dyn ByteSource) -> Result<(GgufReader<'a>, Gguf)> {
        let what = source.name().to_owned();
        let len_bytes = source.len_bytes();
        let mut reader = GgufReader { source, what, len_bytes, buffer: Vec::new(), buffer_at: 0, taken: 0 };
        let gguf = reader.header().await?;
        Ok((reader, gguf))
    }

    /// Bytes `offset_in_tensor .. offset_in_tensor + len` of a tensor. Neither tensors nor offsets may go back.
    ///
    /// # Errors
    /// `Truncated` where the source ends before; `Io` where the piece lies outside of the tensor or behind an earlier one.
    pub async fn read_tensor_piece(
        &mut self,
        tensor: &TensorInfo,
        offset_in_tensor: u64,
        len: usize,
    ) -> Result<Vec<u8>> {
        let end = offset_in_tensor.checked_add(len as u64);
        if end.is_none_or(|end| end > tensor.bytes) {
            let reason = format!("{len} bytes at {offset_in_tensor} were asked of its {} bytes", tensor.bytes);
            return Err(Error::Io { what: format!("{}: tensor {}", self.what, tensor.name), reason });
        }
        let start = tensor.offset + offset_in_tensor;
        let at = self.position();
        let Some(skip) = start.checked_sub(at) else {
            let reason = format!("byte {start} was asked for, and the file has been read up to {at}");
            return Err(Error::Io { what: format!("{}: tensor {}", self.what, tensor.name), reason });
        };
        self.skip(skip);
        let mut piece = self.take_buffered(len);
        while piece.len() < len {
            let more = self.source.read(self.buffer_at, len - piece.len()).await?;
            if more.is_empty() {
                return Err(Error::Truncated {
                    what: self.what.clone(),
                    needed: format!("tensor {}", tensor.name),
                    needed_bytes: tensor.offset + tensor.bytes,
                    found_bytes: self.len_bytes.unwrap_or(self.buffer_at),
                });
            }
            self.buffer_at += more.len() as u64;
            if piece.is_empty() {
                piece = more;
            } else {
                piece.extend_from_slice(&more);
            }
        }
        Ok(piece)
    }

    /// The next byte of the file that has not been taken.
    fn position(&self) -> u64 {
        self.buffer_at + self.taken as u64
    }

    /// Passes over bytes, buffered or not.
    fn skip(&mut self, bytes: u64) {
        match usize::try_from(bytes) {
            Ok(skip) if skip < self.buffer.len() - self.taken => self.taken += skip,
            _ => {
                self.buffer_at = self.position() + bytes;
                self.taken = 0;
                self.buffer = Vec::new();
            }
        }
    }

    /// Takes up to `len` bytes from the buffer, which is let go once it is empty.
    fn take_buffered(&mut self, len: usize) -> Vec<u8> {
        let end = self.buffer.len().min(self.taken.saturating_add(len));
        let piece = self.buffer[self.taken..end].to_vec();
        self.skip(piece.len() as u64);
        piece
    }

    /// Waits until `bytes` more bytes are buffered. `field` says what for.
    async fn need(&mut self, bytes: u64, field: &str) -> Result<()> {
        if bytes <= (self.buffer.len() - self.taken) as u64 {
            return Ok(());
        }
        let end = self.position().saturating_add(bytes);
        let truncated = |found_bytes| Error::Truncated {
            what: self.what.clone(),
            needed: field.to_owned(),
            needed_bytes: end,
            found_bytes,
        };
        if let Some(len_bytes) = self.len_bytes.filter(|len| end > *len) {
            return Err(truncated(len_bytes));
        }
        if end > MAX_HEADER_BYTES {
            let found = format!("more than {MAX_HEADER_BYTES} bytes, with {field}");
            return Err(self.bad("the header", found, format!("at most {MAX_HEADER_BYTES} bytes")));
        }
        self.buffer.drain(..self.taken);
        self.buffer_at += self.taken as u64;
        self.taken = 0;
        while (self.buffer.len() as u64) < bytes {
            let at = self.buffer_at + self.buffer.len() as u64;
            let more = self.source.read(at, PIECE_BYTES).await?;
            if more.is_empty() {
                return Err(Error::Truncated {
                    what: self.what.clone(),
                    needed: field.to_owned(),
                    needed_bytes: end,
                    found_bytes: at,
                });
            }
            self.buffer.extend_from_slice(&more);
        }
        Ok(())
    }

    /// Takes `N` bytes.
    async fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        self.need(N as u64, field).await?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[self.taken..self.taken + N]);
        self.taken += N;
        Ok(bytes)
    }

    async fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field).await?))
    }

    async fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field).await?))
    }

    /// A count or length, checked against a limit.
    async fn count(&mut self, field: &str, most: u64) -> Result<u64> {
        let found = self.u64(field).await?;
        if found > most {
            return Err(self.bad(field, found, format!("at most {most}")));
        }
        Ok(found)
    }

    async fn string(&mut self, field: &str, most: u64) -> Result<String> {
        let len = self.u64(field).await?;
        if len > most {
            return Err(self.bad(&format!("length of {field}"), len, format!("at most {most} bytes")));
        }
        self.need(len, field).await?;
        let bytes = &self.buffer[self.taken..self.taken + len as usize];
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(self.bad(field, bytes.escape_ascii(), "UTF-8"));
        };
        let text = text.to_owned();
        self.taken += len as usize;
        Ok(text)
    }

    fn bad(&self, field: &str, found: impl std::fmt::Display, expected: impl Into<String>) -> Error {
        let mut found = found.to_string();
        if let Some((cut, _)) = found.char_indices().nth(200) {
            found.truncate(cut);
            found.push('…');
        }
        Error::BadHeader { what: self.what.clone(), field: field.to_owned(), found, expected: expected.into() }
    }

    async fn header(&mut self) -> Result<Gguf> {
        self.magic().await?;
        let version = self.u32("version").await?;
        if !(2..=3).contains(&version) {
            let big_endian = if version.swap_bytes() <= 3 { " (a file in big-endian byte order)" } else { "" };
            return Err(self.bad("version", format!("{version}{big_endian}"), "2 or 3"));
        }
        let tensors = self.count("tensor count", MAX_TENSORS).await?;
        let pairs = self.count("metadata count", MAX_PAIRS).await?;
        let mut metadata = Metadata { what: self.what.clone(), ..Metadata::default() };
        for index in 0..pairs {
            let key = self.string(&format!("metadata key {index}"), MAX_KEY_BYTES).await?;
            let value = self.value(&key).await?;
            if metadata.values.insert(key.clone(), value).is_some() {
                return Err(self.bad("metadata", format!("{key} twice"), "every key once"));
            }
        }
        let alignment = metadata.opt_u32("general.alignment")?.unwrap_or(32);
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(self.bad("general.alignment", alignment, format!("a power of two up to {MAX_ALIGNMENT}")));
        }
        let mut infos = Vec::new();
        let mut names = HashSet::new();
        for index in 0..tensors {
            let info = self.tensor_info(index, u64::from(alignment)).await?;
            if !names.insert(info.name.clone()) {
                return Err(self.bad("tensor names", format!("{} twice", info.name), "every name once"));
            }
            infos.push(info);
        }
        let data_offset = self.position().next_multiple_of(u64::from(alignment));
        self.place(&mut infos, data_offset)?;
        Ok(Gguf { what: self.what.clone(), version, metadata, tensors: infos, data_offset })
    }

    async fn magic(&mut self) -> Result<()> {
        const MAGIC: &[u8] = b"GGUF";
        // Not by `need`: what is wrong with a short file is told by its first bytes, not by its length.
        while self.buffer.len() < MAGIC.len() {
            let more = self.source.read(self.buffer.len() as u64, PIECE_BYTES).await?;
            if more.is_empty() {
                break;
            }
            self.buffer.extend_from_slice(&more);
        }
        let start = &self.buffer[..self.buffer.len().min(MAGIC.len())];
        if start.is_empty() || !MAGIC.starts_with(start) {
            let found = if start.is_empty() { "nothing".to_owned() } else { format!("\"{}\"", start.escape_ascii()) };
            return Err(Error::NotGguf { what: self.what.clone(), found });
        }
        self.array::<4>("the magic \"GGUF\"").await.map(|_| ())
    }

    /// One tensor info; its offset is still that from the start of the data.
    async fn tensor_info(&mut self, index: u64, alignment: u64) -> Result<TensorInfo> {
        let name = self.string(&format!("name of tensor {index}"), MAX_KEY_BYTES).await?;
        let field = |what: &str| format!("{what} of tensor {name}");
        let dimensions = self.u32(&field("number of dimensions")).await?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.bad(&field("number of dimensions"), dimensions, format!("1 to {MAX_DIMENSIONS}")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64(&field("shape")).await?);
        }
        shape.reverse();
        let number = self.u32(&field("format")).await?;
        let offset = self.u64(&field("offset")).await?;
        let Some(format) = Format::from_ggml_type(number) else {
            return Err(Error::UnsupportedFormat {
                tensor: name,
                found: ggml_type_name(number),
                supported: Format::supported(),
            });
        };
        let weights = shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension));
        let (block_weights, block_bytes) = (format.block_weights() as u64, format.block_bytes() as u64);
        let bytes = weights.filter(|&weights| weights > 0).and_then(|n| (n / block_weights).checked_mul(block_bytes));
        let Some(bytes) = bytes else {
            let found = format!("{shape:?}");
            return Err(self.bad(&field("shape"), found, "dimensions of at least 1 whose product fits 64 bits"));
        };
        let cols = shape[shape.len() - 1];
        if !cols.is_multiple_of(block_weights) {
            let expected = format!("rows of a multiple of {block_weights} weights, the blocks of {format}");
            return Err(self.bad(&field("shape"), format!("{shape:?}"), expected));
        }
        if !offset.is_multiple_of(alignment) {
            return Err(self.bad(&field("offset"), offset, format!("a multiple of the alignment, {alignment}")));
        }
        Ok(TensorInfo { name, shape, format, offset, bytes })
    }

    /// Makes offsets absolute, sorts by them, and checks that tensors lie apart and within the file.
    fn place(&self, tensors: &mut [TensorInfo], data_offset: u64) -> Result<()> {
        for tensor in tensors.iter_mut() {
            let absolute = tensor.offset.checked_add(data_offset);
            let Some(absolute) = absolute.filter(|offset| offset.checked_add(tensor.bytes).is_some()) else {
                let field = format!("offset of tensor {}", tensor.name);
                return Err(self.bad(&field, tensor.offset, "an end that fits 64 bits"));
            };
            tensor.offset = absolute;
        }
        tensors.sort_by_key(|tensor| tensor.offset);
        for pair in tensors.windows(2) {
            let end = pair[0].offset + pair[0].bytes;
            if end > pair[1].offset {
                let field = format!("offset of tensor {}", pair[1].name);
                let expected = format!("at least {}, where tensor {} ends", end - data_offset, pair[0].name);
                return Err(self.bad(&field, pair[1].offset - data_offset, expected));
            }
        }
        let past = |tensor: &&TensorInfo| self.len_bytes.is_some_and(|len| tensor.offset + tensor.bytes > len);
        if let Some(tensor) = tensors.iter().find(past) {
            return Err(Error::Truncated {
                what: self.what.clone(),
                needed: format!("tensor {}", tensor.name),
                needed_bytes: tensor.offset + tensor.bytes,
                found_bytes: self.len_bytes.unwrap_or(0),
            });
        }
        Ok(())
    }

    async fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(&format!("type of {key}")).await?;
        match kind {
            8 => Ok(Value::String(self.string(key, MAX_STRING_BYTES).await?)),
            9 => self.array_value(key).await,
            _ => {
                let bytes = self.scalar_bytes(key, kind)?;
                self.need(bytes as u64, key).await?;
                self.scalar(key, kind)
            }
        }
    }

    async fn array_value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(&format!("element type of {key}")).await?;
        if kind == 9 {
            return Err(self.bad(key, "an array of arrays", "an array of numbers, bools or strings"));
        }
        let string = kind == 8;
        let element_bytes = if string { 8 } else { self.scalar_bytes(key, kind)? };
        let count = self.count(&format!("length of {key}"), MAX_ARRAY).await?;
        if string {
            // Each has at least its length: a count that the file has no room for is refused before any is read.
            self.check_room(count * 8, key)?;
            let mut strings = Vec::new();
            for _ in 0..count {
                strings.push(self.string(key, MAX_STRING_BYTES).await?);
            }
            return Ok(Value::Strings(strings));
        }
        self.check_room(count * element_bytes as u64, key)?;
        let (mut floats, mut ints) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.need(element_bytes as u64, key).await?;
            match self.scalar(key, kind)? {
                Value::Float(value) => floats.push(value as f32),
                Value::Int(value) => ints.push(value),
                Value::Bool(value) => ints.push(i64::from(value)),
                Value::Uint(value) => match i64::try_from(value) {
                    Ok(value) => ints.push(value),
                    Err(_) => return Err(self.bad(key, value, "integers below 2^63")),
                },
                _ => return Err(self.bad(key, "strings", "numbers")),
            }
        }
        Ok(if matches!(kind, 6 | 12) { Value::Floats(floats) } else { Value::Ints(ints) })
    }

    /// Where the file's length is known: whether `bytes` more bytes can be there.
    fn check_room(&self, bytes: u64, field: &str) -> Result<()> {
        let needed_bytes = self.position().saturating_add(bytes);
        match self.len_bytes {
            Some(found_bytes) if needed_bytes > found_bytes => {
                Err(Error::Truncated { what: self.what.clone(), needed: field.to_owned(), needed_bytes, found_bytes })
            }
            _ => Ok(()),
        }
    }

    fn scalar_bytes(&self, key: &str, kind: u32) -> Result<usize> {
        match kind {
            0 | 1 | 7 => Ok(1),
            2 | 3 => Ok(2),
            4..=6 => Ok(4),
            10..=12 => Ok(8),
            _ => Err(self.bad(&format!("type of {key}"), kind, "0 to 12")),
        }
    }

    /// A number or bool whose bytes are buffered.
    fn scalar(&mut self, key: &str, kind: u32) -> Result<Value> {
        let len = self.scalar_bytes(key, kind)?;
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&self.buffer[self.taken..self.taken + len]);
        self.taken += len;
        let bits = u64::from_le_bytes(bytes);
        let signed = (bits << (64 - 8 * len)).cast_signed() >> (64 - 8 * len);
        Ok(match kind {
            0 | 2 | 4 | 10 => Value::Uint(bits),
            1 | 3 | 5 | 11 => Value::Int(signed),
            6 => Value::Float(f64::from(f32::from_bits(bits as u32))),
            12 => Value::Float(f64::from_bits(bits)),
            _ if bits <= 1 => Value::Bool(bits == 1),
            _ => return Err(self.bad(key, bits, "a bool, 0 or 1")),
        })
    }
}
