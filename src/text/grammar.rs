//! Answers that a JSON schema allows: what a request asks a matcher of tokens. Natively the matcher is linked in, in the
//! browser it is a wasm of its own (`src/grammar`), which comes when a request first needs it.

use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use std::rc::Rc;

/// A text on its way through a schema.
pub trait Grammar {
    /// Whether a token may come next; one that ends the text where it is complete.
    fn allows(&mut self, token: u32) -> Result<bool>;
    /// A token comes next; not one that ends the text.
    fn advance(&mut self, token: u32) -> Result<()>;
    /// All tokens that may come next, bit `t % 32` of word `t / 32`; those beyond the last word may not.
    fn mask(&mut self) -> Result<Vec<u32>>;
    /// Bytes that have to come next, whatever comes after them: the first of them, as many as a draft needs.
    fn forced(&mut self) -> Result<Vec<u8>>;
    /// Whether nothing but the end can follow.
    fn complete(&self) -> Result<bool>;
}

/// Makes matchers for the tokens of one model.
pub trait Grammars {
    /// A matcher of a JSON schema, given as JSON.
    ///
    /// # Errors
    /// [`Error::Schema`] where it is not one, says what cannot be kept, or takes more than it may.
    fn grammar(&self, schema: &str) -> Result<Box<dyn Grammar>>;
}

/// Matchers for the tokens of a tokenizer. In the browser they have to be brought ([`crate::web`]).
#[cfg(target_arch = "wasm32")]
pub fn grammars(_: &Tokenizer) -> Result<Rc<dyn Grammars>> {
    Err(Error::Schema { reason: "the wasm of schemas was not loaded".to_owned() })
}

#[cfg(not(target_arch = "wasm32"))]
pub use linked::grammars;

#[cfg(not(target_arch = "wasm32"))]
mod linked {
    use super::{Error, Grammar, Grammars, Rc, Result, Tokenizer};
    use foredraft_grammar::{Matcher, Vocabulary};

    /// Matchers for the tokens of a tokenizer.
    pub fn grammars(tokenizer: &Tokenizer) -> Result<Rc<dyn Grammars>> {
        let tokens: Vec<&[u8]> = (0..tokenizer.vocabulary() as u32).map(|id| tokenizer.token_bytes(id)).collect();
        Ok(Rc::new(Linked(Vocabulary::new(&tokens, tokenizer.end_tokens()).map_err(refused)?)))
    }

    fn refused(reason: String) -> Error {
        Error::Schema { reason }
    }

    struct Linked(Vocabulary);

    impl Grammars for Linked {
        fn grammar(&self, schema: &str) -> Result<Box<dyn Grammar>> {
            Ok(Box::new(self.0.matcher(schema).map_err(refused)?))
        }
    }

    impl Grammar for Matcher {
        fn allows(&mut self, token: u32) -> Result<bool> {
            self.allows(token).map_err(refused)
        }

        fn advance(&mut self, token: u32) -> Result<()> {
            self.advance(token).map_err(refused)
        }

        fn mask(&mut self) -> Result<Vec<u32>> {
            self.mask().map_err(refused)
        }

        fn forced(&mut self) -> Result<Vec<u8>> {
            Ok(Matcher::forced(self).to_vec())
        }

        fn complete(&self) -> Result<bool> {
            Ok(self.complete())
        }
    }
}
