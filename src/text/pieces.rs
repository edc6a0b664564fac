//! How byte-level models cut a text into the pieces within which tokens are merged (`tokenizer.ggml.pre`).

use crate::error::{Error, Result};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};

/// GPT-2's own expression.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// One way of cutting. The expressions are those that the models' authors published with their tokenizers.
struct Style {
    /// Names that files use.
    names: &'static [&'static str],
    /// Applied one after the other, each within the pieces of the one before.
    expressions: &'static [&'static str],
    /// A piece that is a token whole is that token, whatever merging would make of it.
    whole_pieces: bool,
    /// Whether a text begins with BOS where the file does not say.
    add_bos: bool,
}

const STYLES: [Style; 6] = [
    Style {
        names: &["gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"],
        expressions: &[GPT2],
        whole_pieces: false,
        add_bos: false,
    },
    Style {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        expressions: &[r"\p{N}", GPT2],
        whole_pieces: false,
        add_bos: false,
    },
    Style {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_pieces: true,
        add_bos: true,
    },
    Style {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
        expressions: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_pieces: false,
        add_bos: false,
    },
    Style {
        names: &["tekken"],
        expressions: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_pieces: true,
        add_bos: true,
    },
    Style {
        names: &["default"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        whole_pieces: false,
        add_bos: false,
    },
];

/// Cuts texts into pieces and writes their bytes in GPT-2's alphabet.
pub(super) struct Pieces {
    splits: Vec<Split>,
    style: &'static Style,
}

impl Pieces {
    /// By the name in the file.
    pub(super) fn new(name: &str) -> Result<Pieces> {
        let style = STYLES.iter().find(|style| style.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = STYLES.iter().flat_map(|style| style.names).copied().collect();
            Error::Tokenizer { reason: format!("tokenizer.ggml.pre is {name:?}, expected one of {}", known.join(", ")) }
        })?;
        let split = |expression: &&str| {
            Split::new(SplitPattern::Regex((*expression).to_owned()), SplitDelimiterBehavior::Isolated, false)
                .map_err(|reason| Error::Tokenizer { reason: format!("tokenizer.ggml.pre {name:?}: {reason}") })
        };
        Ok(Pieces { splits: style.expressions.iter().map(split).collect::<Result<_>>()?, style })
    }

    /// See [`Style::whole_pieces`].
    pub(super) fn whole_pieces(&self) -> bool {
        self.style.whole_pieces
    }

    /// See [`Style::add_bos`].
    pub(super) fn add_bos(&self) -> bool {
        self.style.add_bos
    }

    /// Calls `each` with every piece of `text` in turn.
    pub(super) fn each(&self, text: &str, mut each: impl FnMut(&str) -> tokenizers::Result<()>) -> Result<()> {
        let mut run = || {
            let mut pieces = PreTokenizedString::from(text);
            for split in &self.splits {
                split.pre_tokenize(&mut pieces)?;
            }
            ByteLevel::new(false, false, false).pre_tokenize(&mut pieces)?;
            for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                each(piece)?;
            }
            Ok(())
        };
        run().map_err(|reason: tokenizers::Error| Error::Tokenizer { reason: reason.to_string() })
    }
}
