//! Text to tokens, built from a GGUF file's metadata on the `tokenizers` crate.

use super::detokenizer::Detokenizer;
use super::merges;
use super::pieces::Pieces;
use super::vocabulary::{Family, Kind, META_SPACE, Vocabulary};
use crate::error::{Error, Result};
use crate::weights::metadata::Metadata;
use std::collections::HashMap;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

/// A model's tokenizer.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: BPE,
    /// Byte-level models only.
    pieces: Option<Pieces>,
    specials: Specials,
    add_bos: bool,
    add_space_prefix: bool,
}

impl Tokenizer {
    /// From the keys `tokenizer.ggml.*` (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>).
    ///
    /// # Errors
    /// [`Error::BadHeader`] names the key that is missing or wrong; [`Error::Tokenizer`] a model or pre-tokenizer that
    /// is not known.
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer> {
        let vocabulary = Vocabulary::from_metadata(metadata)?;
        let pieces = match vocabulary.family() {
            Family::ByteLevel => Some(Pieces::new(metadata.opt_string("tokenizer.ggml.pre")?.unwrap_or("default"))?),
            Family::SentencePiece => None,
        };
        let model = merges::model(metadata, &vocabulary, pieces.as_ref().is_some_and(Pieces::whole_pieces))?;
        let add_bos = metadata.opt_bool("tokenizer.ggml.add_bos_token")?;
        let add_bos = add_bos.unwrap_or_else(|| pieces.as_ref().is_none_or(Pieces::add_bos));
        let add_space_prefix = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Tokenizer {
            specials: Specials::new(&vocabulary),
            add_bos: add_bos && vocabulary.bos().is_some(),
            add_space_prefix: add_space_prefix && vocabulary.family() == Family::SentencePiece,
            vocabulary,
            model,
            pieces,
        })
    }

    /// The tokens of `text`; BOS is not added (see [`Tokenizer::add_bos`]).
    ///
    /// With `parse_special` the texts of control tokens become these tokens, as a rendered chat template needs it;
    /// without, no text becomes a control token.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 1);
        let mut start = 0;
        let mut at_start = true;
        while let Some(found) = self.specials.next(text, start, parse_special) {
            self.encode_plain(&text[start..found.start], at_start, &mut tokens)?;
            tokens.push(found.id);
            start = found.end;
            at_start = true;
        }
        self.encode_plain(&text[start..], at_start, &mut tokens)?;
        Ok(tokens)
    }

    /// The tokens of `text` where it goes on after another: no text becomes a control token, and no space is put before it.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_plain(text, false, &mut tokens)?;
        Ok(tokens)
    }

    /// Tokens of a stretch without special tokens; `at_start` of the text or right after a special token.
    fn encode_plain(&self, text: &str, at_start: bool, tokens: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let mut push = |piece: &str| -> tokenizers::Result<()> {
            tokens.extend(self.model.tokenize(piece)?.iter().map(|token| token.id));
            Ok(())
        };
        match &self.pieces {
            Some(pieces) => pieces.each(text, push),
            None => {
                let mut escaped = String::with_capacity(text.len() + text.len() / 2);
                if at_start && self.add_space_prefix {
                    escaped.push(META_SPACE);
                }
                escaped.extend(text.chars().map(|c| if c == ' ' { META_SPACE } else { c }));
                push(&escaped).map_err(|reason| Error::Tokenizer { reason: reason.to_string() })
            }
        }
    }

    /// The text of a whole sequence: control tokens add nothing, and the space that [`Tokenizer::encode`] puts before a
    /// text (SentencePiece with `add_space_prefix`) is taken away again. A *continuation* of a prompt has no such space;
    /// stream it through [`Detokenizer`] and [`Tokenizer::token_bytes`].
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut detokenizer = Detokenizer::new();
        let mut text = String::new();
        let mut strip = self.add_space_prefix;
        for &token in tokens {
            let mut bytes = self.token_bytes(token);
            if strip && !bytes.is_empty() {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
                strip = false;
            }
            text.push_str(&detokenizer.push(bytes));
        }
        text.push_str(&detokenizer.finish());
        text
    }

    /// Begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.vocabulary.bos()
    }

    /// Ends a text; [`Tokenizer::end_tokens`] has all of them.
    pub fn eos(&self) -> Option<u32> {
        self.vocabulary.eos()
    }

    /// Whether a text is to begin with [`Tokenizer::bos`]. A rendered chat template may have it already.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether a token ends a text or a turn.
    pub fn is_end(&self, id: u32) -> bool {
        self.end_tokens().contains(&id)
    }

    /// Every token that ends a text or a turn, ascending: eos, eot, eom, and the usual ones by their texts.
    pub fn end_tokens(&self) -> &[u32] {
        self.vocabulary.end_tokens()
    }

    /// Number of tokens.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary.len()
    }

    /// The bytes that a token adds to a text, not always whole characters; empty for control tokens and for ids beyond
    /// the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// A token's text as in the file; empty for ids beyond the vocabulary.
    pub fn token_text(&self, id: u32) -> &str {
        self.vocabulary.text(id)
    }

    /// The first difference that keeps a draft model from drafting for this one, with both values.
    pub fn difference(&self, draft: &Tokenizer) -> Option<String> {
        self.vocabulary.difference(&draft.vocabulary)
    }
}

/// Finds tokens that are matched as they stand, before anything is merged: the leftmost, the longest among those.
struct Specials {
    ids: HashMap<String, (u32, Kind)>,
    /// Lengths in bytes of those that begin with this byte, longest first.
    lengths: Vec<Vec<usize>>,
}

/// A special token in a text.
struct Found {
    start: usize,
    end: usize,
    id: u32,
}

impl Specials {
    fn new(vocabulary: &Vocabulary) -> Specials {
        let mut ids = HashMap::new();
        let mut lengths = vec![Vec::new(); 256];
        for (id, text, kind) in vocabulary.iter() {
            if !matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined) {
                continue;
            }
            // Some converters write the spaces of user-defined tokens as spaces, some as SentencePiece does.
            let text = match (vocabulary.family(), kind) {
                (Family::SentencePiece, Kind::UserDefined) => text.replace(META_SPACE, " "),
                _ => text.to_owned(),
            };
            if let Some(&first) = text.as_bytes().first() {
                lengths[first as usize].push(text.len());
                ids.entry(text).or_insert((id, kind));
            }
        }
        for list in &mut lengths {
            list.sort_unstable_by(|a, b| b.cmp(a));
            list.dedup();
        }
        Specials { ids, lengths }
    }

    fn next(&self, text: &str, from: usize, parse_special: bool) -> Option<Found> {
        for (start, &first) in text.as_bytes().iter().enumerate().skip(from) {
            for &length in &self.lengths[first as usize] {
                let end = start + length;
                let Some(&(id, kind)) = text.get(start..end).and_then(|part| self.ids.get(part)) else { continue };
                if parse_special || kind == Kind::UserDefined {
                    return Some(Found { start, end, id });
                }
            }
        }
        None
    }
}
