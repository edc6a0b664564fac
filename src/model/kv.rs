//! Which tokens a model's KV cache holds. The cache itself has a fixed capacity; rollback sets a length.

use std::cell::RefCell;

/// Tokens whose keys and values are in the cache, position by position.
#[derive(Debug, Default)]
pub struct KvTokens {
    tokens: RefCell<Vec<u32>>,
}

impl KvTokens {
    /// Number of tokens held.
    pub fn len(&self) -> usize {
        self.tokens.borrow().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the longest common prefix with `tokens`, at most `most` of it, and gives its length.
    pub fn keep_prefix(&self, tokens: &[u32], most: usize) -> usize {
        let mut held = self.tokens.borrow_mut();
        let common = held.iter().zip(tokens).take(most).take_while(|(a, b)| a == b).count();
        held.truncate(common);
        common
    }

    /// Notes that the tokens after the held ones are in the cache now.
    pub fn extend(&self, tokens: &[u32]) {
        self.tokens.borrow_mut().extend_from_slice(tokens);
    }

    /// Forgets all but the first `len` tokens.
    pub fn rollback(&self, len: usize) {
        self.tokens.borrow_mut().truncate(len);
    }
}
