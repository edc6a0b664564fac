//! The tokens of a model: their texts, the bytes that each adds to a text, and which of them are special.

use crate::error::{Error, Result};
use crate::weights::metadata::Metadata;
use std::collections::HashMap;

/// The space of SentencePiece.
pub(super) const META_SPACE: char = '\u{2581}';

/// Texts of tokens that end a turn whatever the file's ids say: many files name only one of several.
const END_TEXTS: [&str; 11] = [
    "<|im_end|>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot|>",
    "<|return|>",
    "<turn|>",
    "<EOT>",
];

/// `tokenizer.ggml.model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `gpt2`: byte-level BPE; texts are in GPT-2's alphabet of printable characters, one a byte.
    ByteLevel,
    /// `llama`: SentencePiece BPE; texts are plain, with `▁` for a space.
    SentencePiece,
}

/// `tokenizer.ggml.token_type`, numbered as in the file from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Made by merging.
    Normal,
    /// Stands for what cannot be encoded.
    Unknown,
    /// Structure, never part of a user's text.
    Control,
    /// Matched in a text before anything is merged.
    UserDefined,
    /// Never made.
    Unused,
    /// One byte, `<0xAB>`.
    Byte,
}

impl Kind {
    fn from_number(number: i64) -> Option<Kind> {
        Some(match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// Many short byte strings in one allocation.
#[derive(Debug, Default)]
struct Arena<T> {
    all: T,
    ends: Vec<u32>,
}

impl<T> Arena<T> {
    fn range(&self, index: u32) -> Option<std::ops::Range<usize>> {
        let index = index as usize;
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(start..end)
    }
}

/// The tokens of a model, with their special roles.
#[derive(Debug)]
pub struct Vocabulary {
    family: Family,
    texts: Arena<String>,
    bytes: Arena<Vec<u8>>,
    kinds: Vec<Kind>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    end_tokens: Vec<u32>,
}

fn bad(metadata: &Metadata, field: &str, found: impl ToString, expected: impl ToString) -> Error {
    Error::BadHeader {
        what: metadata.what.clone(),
        field: field.to_owned(),
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.{model,tokens,token_type,*_token_id}`.
    ///
    /// # Errors
    /// [`Error::BadHeader`] with the key: a missing or empty vocabulary, arrays of unequal length, an unknown token
    /// type, an id beyond the vocabulary, the same text twice. [`Error::Tokenizer`]: another model than `gpt2`, `llama`.
    pub fn from_metadata(metadata: &Metadata) -> Result<Vocabulary> {
        let family = match metadata.string("tokenizer.ggml.model")? {
            "gpt2" => Family::ByteLevel,
            "llama" => Family::SentencePiece,
            other => {
                return Err(Error::Tokenizer {
                    reason: format!("tokenizer.ggml.model is {other:?}, expected \"gpt2\" or \"llama\""),
                });
            }
        };
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        let ids = index(metadata, tokens)?;
        let mut kinds = kinds(metadata, tokens)?;

        let id = |key: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{key}_token_id");
            match metadata.opt_u32(&key)? {
                Some(id) if id as usize >= tokens.len() => {
                    Err(bad(metadata, &key, id, format!("an id below {}", tokens.len())))
                }
                id => Ok(id),
            }
        };
        // What a SentencePiece file leaves out are that library's own defaults.
        let usual =
            |id: u32| (family == Family::SentencePiece).then_some(id).filter(|&id| (id as usize) < tokens.len());
        let bos = id("bos")?.or_else(|| usual(1));
        let eos = id("eos")?.or_else(|| usual(2));
        let unknown = id("unknown")?.or_else(|| usual(0));

        let mut end_tokens: Vec<u32> = [eos, id("eot")?, id("eom")?].into_iter().flatten().collect();
        end_tokens.extend(END_TEXTS.iter().filter_map(|text| ids.get(text)));
        end_tokens.sort_unstable();
        end_tokens.dedup();
        // Files without token types call everything normal; these never are.
        for id in end_tokens.iter().copied().chain(bos) {
            if kinds[id as usize] == Kind::Normal {
                kinds[id as usize] = Kind::Control;
            }
        }

        let mut vocabulary = Vocabulary {
            family,
            texts: Arena::default(),
            bytes: Arena::default(),
            kinds,
            bos,
            eos,
            unknown,
            end_tokens,
        };
        vocabulary.fill(metadata, tokens)?;
        Ok(vocabulary)
    }

    fn fill(&mut self, metadata: &Metadata, tokens: &[String]) -> Result<()> {
        let total_bytes: usize = tokens.iter().map(String::len).sum();
        if u32::try_from(total_bytes).is_err() {
            return Err(bad(metadata, "tokenizer.ggml.tokens", format!("{total_bytes} bytes"), "below 4 GiB"));
        }
        self.texts.all.reserve_exact(total_bytes);
        self.texts.ends.reserve_exact(tokens.len());
        self.bytes.all.reserve(total_bytes);
        self.bytes.ends.reserve_exact(tokens.len());
        let alphabet = byte_of_char();
        for (id, text) in tokens.iter().enumerate() {
            self.texts.all.push_str(text);
            self.texts.ends.push(self.texts.all.len() as u32);
            let out = &mut self.bytes.all;
            match (self.kinds[id], self.family) {
                (Kind::Control | Kind::Unknown | Kind::Unused, _) => {}
                (Kind::Byte, _) => out.push(byte_token(text).ok_or_else(|| {
                    bad(metadata, &format!("tokenizer.ggml.tokens[{id}]"), format!("{text:?}"), "<0x00> to <0xFF>")
                })?),
                (_, Family::SentencePiece) => {
                    let mut parts = text.split(META_SPACE);
                    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
                    for part in parts {
                        out.push(b' ');
                        out.extend_from_slice(part.as_bytes());
                    }
                }
                // Added tokens stand in the file as they are; so does what is not in the alphabet.
                (Kind::UserDefined, Family::ByteLevel) => out.extend_from_slice(text.as_bytes()),
                (Kind::Normal, Family::ByteLevel) => {
                    let start = out.len();
                    for c in text.chars() {
                        match alphabet.get(&c) {
                            Some(&byte) => out.push(byte),
                            None => {
                                out.truncate(start);
                                out.extend_from_slice(text.as_bytes());
                                break;
                            }
                        }
                    }
                }
            }
            self.bytes.ends.push(out.len() as u32);
        }
        Ok(())
    }

    /// How texts and bytes go together.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Never: a vocabulary without tokens is refused.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// A token's text as in the file; empty beyond the vocabulary.
    pub fn text(&self, id: u32) -> &str {
        self.texts.range(id).map_or("", |range| &self.texts.all[range])
    }

    /// The bytes that a token adds to a text; empty for control tokens and beyond the vocabulary.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.range(id).map_or(&[], |range| &self.bytes.all[range])
    }

    /// A token's kind; [`Kind::Unused`] beyond the vocabulary.
    pub fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Tokens in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        (0u32..).zip(&self.kinds).map(|(id, &kind)| (id, self.text(id), kind))
    }

    /// Begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Stands for what cannot be encoded.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Every token that ends a text or a turn, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The first difference that keeps `draft` from drafting for `self`, with both values.
    pub fn difference(&self, draft: &Vocabulary) -> Option<String> {
        if self.len() != draft.len() {
            return Some(format!("{} tokens in the target, {} in the draft", self.len(), draft.len()));
        }
        for (name, target, draft) in [("bos", self.bos, draft.bos), ("eos", self.eos, draft.eos)] {
            if target != draft {
                let show = |id: Option<u32>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
                return Some(format!("{name} is {} in the target, {} in the draft", show(target), show(draft)));
            }
        }
        self.iter().zip(draft.iter()).find(|((_, target, _), (_, draft, _))| target != draft).map(
            |((id, target, _), (_, draft, _))| {
                format!("token {id} is {target:?} in the target, {draft:?} in the draft")
            },
        )
    }
}

/// Ids by text.
fn index<'a>(metadata: &Metadata, tokens: &'a [String]) -> Result<HashMap<&'a str, u32>> {
    const KEY: &str = "tokenizer.ggml.tokens";
    if tokens.is_empty() {
        return Err(bad(metadata, KEY, "empty", "at least one token"));
    }
    if u32::try_from(tokens.len()).is_err() {
        return Err(bad(metadata, KEY, format!("{} tokens", tokens.len()), "below 2^32"));
    }
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, text) in (0u32..).zip(tokens) {
        if let Some(first) = ids.insert(text.as_str(), id) {
            return Err(bad(
                metadata,
                &format!("{KEY}[{id}]"),
                format!("{text:?}, as token {first}"),
                "each text once",
            ));
        }
    }
    Ok(ids)
}

fn kinds(metadata: &Metadata, tokens: &[String]) -> Result<Vec<Kind>> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(numbers) = metadata.opt_ints(KEY)? else {
        return Ok(vec![Kind::Normal; tokens.len()]);
    };
    if numbers.len() != tokens.len() {
        return Err(bad(metadata, KEY, format!("{} entries", numbers.len()), format!("{} as tokens", tokens.len())));
    }
    let read = |(id, &number)| {
        Kind::from_number(number).ok_or_else(|| bad(metadata, &format!("{KEY}[{id}]"), number, "1 to 6"))
    };
    numbers.iter().enumerate().map(read).collect()
}

/// `<0xAB>` as its byte.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's alphabet, character to byte: printable Latin-1 stands for itself, the rest for `U+0100` on in order.
fn byte_of_char() -> HashMap<char, u8> {
    let mut moved = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => {
                let c = char::from_u32(moved).unwrap_or(char::REPLACEMENT_CHARACTER);
                moved += 1;
                (c, byte)
            }
        })
        .collect()
}
