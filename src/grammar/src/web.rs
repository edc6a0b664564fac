//! The same for JavaScript.

use wasm_bindgen::prelude::*;

/// The tokens of a model; see [`crate::Vocabulary`].
#[wasm_bindgen]
pub struct Vocabulary(crate::Vocabulary);

#[wasm_bindgen]
impl Vocabulary {
    /// `bytes` are those of all tokens, one after the other, and `lengths` how many each has; `ends` end a text.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8], lengths: &[u32], ends: &[u32]) -> Result<Vocabulary, JsError> {
        let mut rest = bytes;
        let mut tokens = Vec::with_capacity(lengths.len());
        for &length in lengths {
            let (token, more) = rest
                .split_at_checked(length as usize)
                .ok_or_else(|| JsError::new("the bytes of tokens are cut short"))?;
            tokens.push(token);
            rest = more;
        }
        crate::Vocabulary::new(&tokens, ends).map(Vocabulary).map_err(thrown)
    }

    /// A text that the JSON schema allows, from its beginning.
    pub fn matcher(&self, schema: &str) -> Result<Matcher, JsError> {
        self.0.matcher(schema).map(Matcher).map_err(thrown)
    }
}

/// A text on its way through a schema; see [`crate::Matcher`].
#[wasm_bindgen]
pub struct Matcher(crate::Matcher);

#[wasm_bindgen]
impl Matcher {
    /// Whether the token may come next.
    pub fn allows(&mut self, token: u32) -> Result<bool, JsError> {
        self.0.allows(token).map_err(thrown)
    }

    /// The token comes next.
    pub fn advance(&mut self, token: u32) -> Result<(), JsError> {
        self.0.advance(token).map_err(thrown)
    }

    /// All tokens that may come next, a bit each.
    pub fn mask(&mut self) -> Result<Vec<u32>, JsError> {
        self.0.mask().map_err(thrown)
    }

    /// Bytes that have to come next.
    pub fn forced(&self) -> Vec<u8> {
        self.0.forced().to_vec()
    }

    /// Whether nothing but the end can follow.
    pub fn complete(&self) -> bool {
        self.0.complete()
    }
}

fn thrown(reason: String) -> JsError {
    JsError::new(&reason)
}
