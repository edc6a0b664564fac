//! Bytes of tokens to text, whole characters only.

/// Collects the bytes of tokens and gives out whole UTF-8 characters. However the bytes are cut, the pieces add up to
/// `String::from_utf8_lossy` of them all: each maximal part that is not UTF-8 becomes one U+FFFD.
///
/// A continuation keeps its leading space: only the text of a whole sequence has one to lose, and
/// [`Tokenizer::decode`](super::tokenizer::Tokenizer::decode) sees to it.
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    /// The beginning of a character, at most 3 bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// With nothing held back.
    pub fn new() -> Detokenizer {
        Detokenizer::default()
    }

    /// Takes bytes, gives out all characters that are complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    // Valid by the line above; lossy decoding of valid text changes nothing.
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(wrong) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[wrong..];
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        text
    }

    /// Bytes held back, 0 to 3.
    pub fn held_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Ends the text: what is held back will not be completed and becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}
