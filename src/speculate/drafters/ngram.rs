//! `ngram`: prompt lookup (Saxena 2023; vLLM's `[ngram]`). The longest n-gram of the last tokens, n from `max` down to
//! `min`, that occurred earlier; the tokens after its first occurrence are the draft. Keeps no state.

use super::{Ask, DraftContext, Drafter, Expansion, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};

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
        Ok(Box::new(Ngram { min, max: max.max(min) }))
    }),
};

/// Prompt lookup with n-grams of `min ..= max` tokens.
#[derive(Debug, Clone, Copy)]
pub struct Ngram {
    /// Shortest n-gram that counts as a match.
    pub min: usize,
    /// Longest n-gram that is tried.
    pub max: usize,
}

impl Ngram {
    /// A match and where its continuation begins.
    fn lookup(&self, tokens: &[u32]) -> Option<(usize, usize)> {
        (self.min..=self.max).rev().find_map(|n| Some((n, lookup(tokens, n)?)))
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

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        let copied = |at: usize, n: usize| {
            let stats = DraftStats::of_probability(0.9).matched(n);
            context.tokens.get(at).map(|&token| Candidate::new(token, stats).at(at as u32 + 1))
        };
        Ok(each_leaf(ask, |leaf| {
            // A copy goes on where it stands; only the root looks anew, and what others drafted is not looked up.
            let next = match leaf {
                NodeId::ROOT => self.lookup(context.tokens).and_then(|(n, at)| copied(at, n)),
                _ => ask.cursor(tree, leaf).and_then(|at| copied(at, usize::from(tree.node(leaf).stats.match_len))),
            };
            next.into_iter().collect()
        }))
    }
}

/// Where the tokens after the first earlier occurrence of the last `n` begin.
fn lookup(tokens: &[u32], n: usize) -> Option<usize> {
    let start = tokens.len().checked_sub(n)?;
    let pattern = &tokens[start..];
    let at = tokens[..tokens.len() - 1].windows(n).position(|window| window == pattern)?;
    Some(at + n)
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn finds_what_followed_the_first_occurrence() {
        let tokens = [1, 2, 3, 4, 1, 2, 9, 1, 2];
        assert_eq!(lookup(&tokens, 2), Some(2));
        assert_eq!(lookup(&tokens, 3), None, "(9, 1, 2) occurs once");
        assert_eq!(lookup(&[7], 1), None);
        assert_eq!(lookup(&[7, 7], 1), Some(1), "a run may overlap itself");
    }
}
