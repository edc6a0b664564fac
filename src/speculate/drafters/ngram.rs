//! `ngram`: prompt lookup (Saxena 2023; vLLM's `[ngram]`). The longest n-gram of the last tokens, n from `max` down to
//! `min`, that occurred earlier; the tokens after its first occurrence are the draft. Keeps no state.

use super::{Draft, DraftContext, Drafter};
use crate::error::Result;
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::TokenTree;

/// Prompt lookup with n-grams of `min ..= max` tokens.
#[derive(Debug, Clone, Copy)]
pub struct Ngram {
    /// Shortest n-gram that counts as a match.
    pub min: usize,
    /// Longest n-gram that is tried.
    pub max: usize,
}

impl Drafter for Ngram {
    fn name(&self) -> &'static str {
        "ngram"
    }

    /// With the root this fills a bucket of 8 columns.
    fn default_tokens(&self) -> usize {
        7
    }

    fn draft(&mut self, context: &DraftContext<'_>, budget: usize) -> Result<Option<Draft>> {
        let tokens = context.tokens;
        let Some(&root) = tokens.last() else { return Ok(None) };
        let found = (self.min..=self.max).rev().find_map(|n| lookup(tokens, n, budget));
        Ok(found.map(|draft| Draft::host(TokenTree::chain(root, draft, self.name()), root)))
    }

    fn observe(&mut self, _: &RoundOutcome) {}
}

/// Up to `budget` tokens after the first earlier occurrence of the last `n`.
fn lookup(tokens: &[u32], n: usize, budget: usize) -> Option<&[u32]> {
    let start = tokens.len().checked_sub(n)?;
    let pattern = &tokens[start..];
    let at = tokens[..tokens.len() - 1].windows(n).position(|window| window == pattern)?;
    let from = at + n;
    let draft = &tokens[from..tokens.len().min(from + budget)];
    (!draft.is_empty()).then_some(draft)
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn copies_what_followed_the_first_occurrence() {
        let tokens = [1, 2, 3, 4, 1, 2, 9, 1, 2];
        assert_eq!(lookup(&tokens, 2, 3), Some(&[3, 4, 1][..]));
        assert_eq!(lookup(&tokens, 3, 3), None, "(9, 1, 2) occurs once");
        assert_eq!(lookup(&tokens[..6], 2, 8), Some(&[3, 4, 1, 2][..]), "the draft ends with the text");
        assert_eq!(lookup(&[7], 1, 4), None);
        assert_eq!(lookup(&[7, 7], 1, 4), Some(&[7][..]), "a run may overlap itself");
    }
}
