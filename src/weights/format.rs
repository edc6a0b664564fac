//! Block formats: what they are called in a file, and the aligned layout they get on a device. One table, both executors.
//!
//! On a device a matrix is two arrays of `u32`, row after row: *quants*, the same number of words for every block of
//! 32 weights, and *scales*. Within a block, weight `e = 4*w + l` (`w` in 0..8, `l` in 0..4) lives so that one word
//! operation gives the four weights of a `vec4`:
//! - low nibbles: word `w % 4`, byte `l`, bits `4*(w / 4) ..+4` (GGUF's own order of Q4_0 and Q4_1);
//! - a fifth bit (Q5*): word 4, byte `l`, bit `w`;
//! - two high bits (Q6_K): word `4 + w / 4`, byte `l`, bits `2*(w % 4) ..+2`;
//! - bytes (Q8): word `w`, byte `l`; halves (F16, BF16): word `2*w + l/2`, half `l % 2`; F32: word `e`.

/// Weights in a block.
pub const BLOCK: usize = 32;

/// A tensor's format in a GGUF file, numbered as ggml does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are ggml's")]
#[expect(non_camel_case_types, reason = "the names are ggml's")]
pub enum Format {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    BF16,
}

/// How a matrix lies on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// 4-bit quants, one word `pack2x16float(scale, min)` a block: `w = scale * q + min` (Q4_0, Q4_1).
    Q4,
    /// 5-bit quants, one word `pack2x16float(scale, min)` a block (Q5_0, Q5_1).
    Q5,
    /// Signed bytes, one word `pack2x16float(scale, 0)` a block (Q8_0).
    Q8,
    /// 4-bit quants; five words a 256 weights: `pack2x16float(d, dmin)`, then per 32 weights a half-word
    /// `scale | min << 8` (6-bit numbers): `w = d * scale * q - dmin * min`.
    Q4K,
    /// 5-bit quants, scales as `Q4K`.
    Q5K,
    /// 6-bit quants; five words a 256 weights: `pack2x16float(d, 0)`, then one signed byte per 16 weights:
    /// `w = d * scale * (q - 32)`.
    Q6K,
    /// Halves.
    F16,
    /// bfloat16: the upper halves of f32.
    BF16,
    /// Floats.
    F32,
}

impl Layout {
    /// All layouts, for tests and self-tests.
    pub const ALL: [Layout; 9] = [
        Layout::Q4,
        Layout::Q5,
        Layout::Q8,
        Layout::Q4K,
        Layout::Q5K,
        Layout::Q6K,
        Layout::F16,
        Layout::BF16,
        Layout::F32,
    ];

    /// Name, also the `#define` that selects its decoder in WGSL.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Q4 => "Q4",
            Layout::Q5 => "Q5",
            Layout::Q8 => "Q8",
            Layout::Q4K => "Q4K",
            Layout::Q5K => "Q5K",
            Layout::Q6K => "Q6K",
            Layout::F16 => "F16",
            Layout::BF16 => "BF16",
            Layout::F32 => "F32",
        }
    }

    /// Words of quants a block of 32 weights.
    pub const fn quant_words(self) -> usize {
        match self {
            Layout::Q4 | Layout::Q4K => 4,
            Layout::Q5 | Layout::Q5K => 5,
            Layout::Q6K => 6,
            Layout::Q8 => 8,
            Layout::F16 | Layout::BF16 => 16,
            Layout::F32 => 32,
        }
    }

    /// Words of scales, and the number of blocks that share them; `(0, 1)` where there are none.
    pub const fn scale_words(self) -> (usize, usize) {
        match self {
            Layout::Q4 | Layout::Q5 | Layout::Q8 => (1, 1),
            Layout::Q4K | Layout::Q5K | Layout::Q6K => (5, 8),
            Layout::F16 | Layout::BF16 | Layout::F32 => (0, 1),
        }
    }

    /// Words of quants of `weights` weights (a whole number of rows).
    pub const fn quant_words_for(self, weights: usize) -> usize {
        weights / BLOCK * self.quant_words()
    }

    /// Words of scales of `weights` weights.
    pub const fn scale_words_for(self, weights: usize) -> usize {
        let (words, blocks) = self.scale_words();
        weights / BLOCK / blocks * words
    }
}
