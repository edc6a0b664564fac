//! `ngram`: prompt lookup (Saxena 2023; vLLM's `[ngram]`). The longest n-gram of the last tokens, n from `max` down to
//! `min`, that occurred earlier; the tokens after its first occurrence are the draft.
//!
//! State: an automaton of the context, bounded by it, which knows where every n-gram occurred first: a lookup costs the same
//! however long the context is.

use super::automaton::{Automaton, Match};
use super::{Ask, DraftContext, Drafter, Expansion, copied, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{Candidate, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "ngram",
    paper: "prompt lookup decoding, Saxena 2023",
    about: "copies what followed the first earlier occurrence of the longest n-gram of the last tokens",
    needs: "",
    options: &[
        OptionSpec { key: "prompt_lookup_min", about: "shortest n-gram, tokens", default: 2.0, min: 1.0, max: 64.0 },
        OptionSpec { key: "prompt_lookup_max", about: "longest n-gram, tokens", default: 4.0, min: 1.0, max: 64.0 },
    ],
    test: "drafters::ngram",
    make: Make::Drafter(|setup| {
        let (min, max) = (setup.count("prompt_lookup_min"), setup.count("prompt_lookup_max"));
        Ok(Box::new(Ngram::new(min, max)))
    }),
};

/// Prompt lookup with n-grams of some lengths.
pub struct Ngram {
    min: usize,
    max: usize,
    context: Automaton,
    /// The last `max` tokens.
    last: Match,
}

impl Ngram {
    /// N-grams of `min` to `max` tokens; `min` alone if it is the larger.
    pub fn new(min: usize, max: usize) -> Ngram {
        Ngram { min, max: max.max(min), context: Automaton::new(false), last: Match::default() }
    }

    fn follow(&mut self, tokens: &[u32]) {
        if !self.context.begins(tokens) {
            (self.context, self.last) = (Automaton::new(false), Match::default());
        }
        for &token in &tokens[self.context.text().len()..] {
            self.context.push(token);
            let last = self.context.advance(self.context.cut(self.last, self.max as u32), token);
            self.last = self.context.cut(last, self.max as u32);
        }
    }

    /// A match and where its continuation begins.
    fn lookup(&self) -> Option<(usize, usize)> {
        let end = self.context.text().len();
        let mut found = self.last;
        while found.len as usize >= self.min {
            let at = self.context.continuation(found.state);
            if at < end {
                return Some((found.len as usize, at));
            }
            found = self.context.shorter(found.state)?;
        }
        None
    }
}

impl Drafter for Ngram {
    fn name(&self) -> &'static str {
        "ngram"
    }

    /// With the root this fills a bucket of 8 columns.
    fn default_tokens(&self) -> usize {
        7
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        self.follow(context.tokens);
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        let take = |at: usize, n: usize, depth: usize| {
            let stats = copied(1.0, n + depth).matched(n);
            context.tokens.get(at).map(|&token| Candidate::new(token, stats).at(at as u32 + 1))
        };
        Ok(each_leaf(ask, |leaf| {
            // A copy goes on where it stands; only the root looks anew, and what others drafted is not looked up.
            let node = tree.node(leaf);
            let next = match leaf {
                NodeId::ROOT => self.lookup().and_then(|(n, at)| take(at, n, 0)),
                _ => ask.cursor(tree, leaf).and_then(|at| take(at, usize::from(node.stats.match_len), node.depth)),
            };
            next.into_iter().collect()
        }))
    }

    fn reset(&mut self) {
        *self = Ngram::new(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::random;
    use super::*;

    /// The same by a search of the whole text.
    fn search(tokens: &[u32], min: usize, max: usize) -> Option<(usize, usize)> {
        (min..=max.min(tokens.len())).rev().find_map(|n| {
            let pattern = &tokens[tokens.len() - n..];
            let at = tokens[..tokens.len() - 1].windows(n).position(|window| window == pattern)?;
            Some((n, at + n))
        })
    }

    #[test]
    fn finds_what_followed_the_first_occurrence() {
        let lookup = |tokens: &[u32], min, max| {
            let mut ngram = Ngram::new(min, max);
            ngram.follow(tokens);
            ngram.lookup()
        };
        let tokens = [1, 2, 3, 4, 1, 2, 9, 1, 2];
        assert_eq!(lookup(&tokens, 2, 2), Some((2, 2)));
        assert_eq!(lookup(&tokens, 3, 3), None, "(9, 1, 2) occurs once");
        assert_eq!(lookup(&[7], 1, 4), None);
        assert_eq!(lookup(&[7, 7], 1, 4), Some((1, 1)), "a run may overlap itself");
        for (alphabet, seed) in [(1, 1), (2, 2), (4, 3), (20, 4)] {
            let text = random(200, alphabet, seed);
            let mut ngram = Ngram::new(2, 4);
            for end in 1..=text.len() {
                ngram.follow(&text[..end]);
                assert_eq!(ngram.lookup(), search(&text[..end], 2, 4), "{:?}", &text[..end]);
            }
        }
    }
}
