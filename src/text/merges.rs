//! The merge table: read from the file (byte-level), or rebuilt from scores (SentencePiece).

use super::vocabulary::{Family, Kind, Vocabulary};
use crate::error::{Error, Result};
use crate::weights::metadata::Metadata;
use std::collections::HashMap;
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};

/// Looking for the splits of a token costs its length squared; no real vocabulary comes near this sum.
const MAX_SPLIT_WORK: usize = 1 << 30;
/// Text of all rebuilt merges; Gemma's quarter of a million tokens make a tenth of it.
const MAX_MERGE_BYTES: usize = 64 << 20;

/// The BPE model. It knows only tokens that text can become, so no text becomes a control token.
pub(super) fn model(metadata: &Metadata, vocabulary: &Vocabulary, whole_pieces: bool) -> Result<BPE> {
    let builder = match vocabulary.family() {
        Family::ByteLevel => {
            let made = |kind| matches!(kind, Kind::Normal | Kind::UserDefined);
            let merges = from_file(metadata, vocabulary, made)?;
            BpeBuilder::new().vocab_and_merges(known(vocabulary, made), merges).ignore_merges(whole_pieces)
        }
        Family::SentencePiece => {
            let merges = from_scores(metadata, vocabulary)?;
            let mut known = known(vocabulary, |kind| matches!(kind, Kind::Normal | Kind::Byte));
            let mut builder = BpeBuilder::new().byte_fallback(true).fuse_unk(true).cache_capacity(0);
            if let Some(id) = vocabulary.unknown() {
                known.insert(vocabulary.text(id).to_owned(), id);
                builder = builder.unk_token(vocabulary.text(id).to_owned());
            }
            builder.vocab_and_merges(known, merges)
        }
    };
    builder.build().map_err(|reason| Error::Tokenizer { reason: reason.to_string() })
}

fn known(vocabulary: &Vocabulary, keep: impl Fn(Kind) -> bool) -> Vocab {
    vocabulary.iter().filter(|&(_, _, kind)| keep(kind)).map(|(id, text, _)| (text.to_owned(), id)).collect()
}

/// `tokenizer.ggml.merges`, "left right" in order of rank. Those of special tokens are left out.
fn from_file(metadata: &Metadata, vocabulary: &Vocabulary, made: impl Fn(Kind) -> bool) -> Result<Merges> {
    const KEY: &str = "tokenizer.ggml.merges";
    let kinds: HashMap<&str, Kind> = vocabulary.iter().map(|(_, text, kind)| (text, kind)).collect();
    let lines = metadata.strings(KEY)?;
    let mut merges = Merges::with_capacity(lines.len());
    for (rank, line) in lines.iter().enumerate() {
        let bad = |expected: String| Error::BadHeader {
            what: metadata.what.clone(),
            field: format!("{KEY}[{rank}]"),
            found: format!("{line:?}"),
            expected,
        };
        let (left, right) = line.split_once(' ').ok_or_else(|| bad("two tokens with a space between".to_owned()))?;
        let mut all_made = true;
        for token in [left, right, &[left, right].concat()] {
            let kind = kinds.get(token).ok_or_else(|| bad(format!("tokens of the vocabulary, not {token:?}")))?;
            all_made &= made(*kind);
        }
        if all_made {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}

/// SentencePiece merges the adjacent pair whose *result* has the highest score, the leftmost among equals. As a table:
/// every split of every token into two tokens, ranked by the score of the whole.
fn from_scores(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Merges> {
    const KEY: &str = "tokenizer.ggml.scores";
    let bad = |found: String, expected: String| Error::BadHeader {
        what: metadata.what.clone(),
        field: KEY.to_owned(),
        found,
        expected,
    };
    let scores = metadata.opt_floats(KEY)?.ok_or_else(|| bad("missing".to_owned(), "an array of floats".to_owned()))?;
    if scores.len() != vocabulary.len() {
        return Err(bad(format!("{} entries", scores.len()), format!("{} as tokens", vocabulary.len())));
    }
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(bad(format!("NaN for token {id}"), "numbers".to_owned()));
    }
    let mut tokens: Vec<(u32, &str)> =
        vocabulary.iter().filter(|&(_, _, kind)| kind == Kind::Normal).map(|(id, text, _)| (id, text)).collect();
    let work = tokens.iter().fold(0usize, |sum, (_, text)| sum.saturating_add(text.len().saturating_mul(text.len())));
    if work > MAX_SPLIT_WORK {
        return Err(Error::Tokenizer {
            reason: format!(
                "its tokens are too long: the squares of their lengths add up to {work}, expected at most {MAX_SPLIT_WORK}"
            ),
        });
    }
    // The sort is stable, so equal scores stay in order of their ids.
    tokens.sort_by(|a, b| scores[b.0 as usize].total_cmp(&scores[a.0 as usize]));
    let known: std::collections::HashSet<&str> = tokens.iter().map(|&(_, text)| text).collect();
    let mut merges = Merges::new();
    let mut bytes = 0;
    for (_, text) in &tokens {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if known.contains(left) && known.contains(right) {
                bytes += text.len();
                if bytes > MAX_MERGE_BYTES {
                    let reason = format!("its merges take more than {MAX_MERGE_BYTES} bytes, more than any real one's");
                    return Err(Error::Tokenizer { reason });
                }
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
    }
    Ok(merges)
}
