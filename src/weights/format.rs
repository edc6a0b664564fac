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

impl Format {
    /// All formats, in ggml's order.
    pub const ALL: [Format; 11] = [
        Format::F32,
        Format::F16,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
        Format::Q4_K,
        Format::Q5_K,
        Format::Q6_K,
        Format::BF16,
    ];

    /// What this crate knows of a format: ggml's name and number, weights and bytes of one block in the file, and the
    /// layout on a device. The one table.
    const fn facts(self) -> (&'static str, u32, usize, usize, Layout) {
        match self {
            Format::F32 => ("F32", 0, 1, 4, Layout::F32),
            Format::F16 => ("F16", 1, 1, 2, Layout::F16),
            Format::Q4_0 => ("Q4_0", 2, 32, 18, Layout::Q4),
            Format::Q4_1 => ("Q4_1", 3, 32, 20, Layout::Q4),
            Format::Q5_0 => ("Q5_0", 6, 32, 22, Layout::Q5),
            Format::Q5_1 => ("Q5_1", 7, 32, 24, Layout::Q5),
            Format::Q8_0 => ("Q8_0", 8, 32, 34, Layout::Q8),
            Format::Q4_K => ("Q4_K", 12, 256, 144, Layout::Q4K),
            Format::Q5_K => ("Q5_K", 13, 256, 176, Layout::Q5K),
            Format::Q6_K => ("Q6_K", 14, 256, 210, Layout::Q6K),
            Format::BF16 => ("BF16", 30, 1, 2, Layout::BF16),
        }
    }

    /// ggml's name.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// ggml's number, as it stands in a file.
    pub const fn ggml_type(self) -> u32 {
        self.facts().1
    }

    /// Weights in one block of the file: a row holds a whole number of blocks.
    pub const fn block_weights(self) -> usize {
        self.facts().2
    }

    /// Bytes of one block of the file.
    pub const fn block_bytes(self) -> usize {
        self.facts().3
    }

    /// How weights of this format lie on a device.
    pub const fn layout(self) -> Layout {
        self.facts().4
    }

    /// The format with ggml's number.
    pub fn from_ggml_type(number: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.ggml_type() == number)
    }

    /// Names of all formats, joined, for messages.
    pub fn supported() -> String {
        Format::ALL.map(Format::name).join(", ")
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// ggml's name of a type number, whether or not this crate can use it; the number itself where ggml has none.
pub fn ggml_type_name(number: u32) -> String {
    const OTHERS: [(u32, &str); 30] = [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (31, "Q4_0_4_4"),
        (32, "Q4_0_4_8"),
        (33, "Q4_0_8_8"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (36, "IQ4_NL_4_4"),
        (37, "IQ4_NL_4_8"),
        (38, "IQ4_NL_8_8"),
        (39, "MXFP4"),
        (40, "NVFP4"),
    ];
    if let Some(format) = Format::from_ggml_type(number) {
        return format.name().to_owned();
    }
    let known = OTHERS.iter().find(|(other, _)| *other == number);
    known.map_or_else(|| format!("ggml type {number}"), |(_, name)| (*name).to_owned())
}

/// How a matrix lies on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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

    /// Whether weights are integers times factors, so that they can be multiplied with quantised vectors.
    pub const fn is_quantised(self) -> bool {
        !matches!(self, Layout::F16 | Layout::BF16 | Layout::F32)
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
