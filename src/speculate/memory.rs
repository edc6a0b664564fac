//! What outlives a request: stores that the requests of an engine share.

use super::drafters::suffix_array::SuffixArray;
use super::drafters::suffix_store::{STORE_TOKENS, SuffixStore};
use std::cell::RefCell;
use std::rc::Rc;

/// Tokens of the prompt's end that are stored with an answer, so that its beginning can be found; texts on privacy
/// name them.
const LEAD_IN: usize = 16;

/// Shared stores. Their owner decides whether and where they are saved.
#[derive(Debug)]
pub struct Memory {
    /// Finished answers.
    pub suffix: Rc<RefCell<SuffixStore>>,
    /// The index of the corpus that was used last: most requests bring the same.
    corpus: RefCell<Option<Rc<SuffixArray>>>,
}

impl Memory {
    /// Empty stores for a model of this vocabulary and tokenizer, by its
    /// [`fingerprint`](super::drafters::suffix_store::fingerprint).
    pub fn new(vocabulary: usize, tokenizer: u64) -> Memory {
        let store = SuffixStore::new(vocabulary, tokenizer, STORE_TOKENS);
        Memory { suffix: Rc::new(RefCell::new(store)), corpus: RefCell::new(None) }
    }

    /// A request is over, be it aborted: what was said after `prompt` tokens, and what led to it, joins the finished answers.
    pub fn remember(&self, tokens: &[u32], prompt: usize) {
        if tokens.len() > prompt {
            self.suffix.borrow_mut().add(&tokens[prompt.saturating_sub(LEAD_IN)..]);
        }
    }

    /// The index of a text, built where it is another text than last time.
    pub fn corpus(&self, tokens: &[u32]) -> Rc<SuffixArray> {
        let mut held = self.corpus.borrow_mut();
        if let Some(index) = held.as_ref().filter(|index| index.text() == tokens) {
            return Rc::clone(index);
        }
        let index = Rc::new(SuffixArray::new(tokens.to_vec()));
        *held = Some(Rc::clone(&index));
        index
    }
}
