//! `sam`: SAM-Decoding (Hu et al., arXiv 2411.10666). The longest suffix of the last tokens that occurred earlier, by a suffix
//! automaton in constant time; the tokens after its *first* occurrence are the draft, after that of a shorter suffix where
//! too few tokens follow. The text so far is preferred to the corpus unless the match there is longer by `sam_bias`.
//!
//! State: an automaton of the context, bounded by it. The static side is a suffix array of the corpus: the same longest
//! matches in a tenth of the memory.

use super::automaton::{Automaton, Match};
use super::suffix_array::{DEPTH, SuffixArray};
use super::{Ask, DraftContext, Drafter, Expansion, copied, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method, OptionSpec, Setup};
use crate::speculate::tree::{Candidate, NodeId, TokenTree};
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "sam",
    paper: "SAM-Decoding, arXiv 2411.10666",
    about: "copies what followed the first occurrence of the longest suffix of the last tokens, here or in the corpus",
    needs: "",
    options: &[
        OptionSpec {
            key: "sam_min_match",
            about: "shortest match that drafts, tokens",
            default: 1.0,
            min: 1.0,
            max: 64.0,
        },
        OptionSpec {
            key: "sam_bias",
            about: "tokens by which a match in the corpus must be longer than one in the text so far",
            default: 5.0,
            min: 0.0,
            max: 64.0,
        },
    ],
    test: "drafters::sam",
    make: Make::Drafter(|setup| Ok(Box::new(Sam::new(setup)))),
};

/// Tokens drafted where nothing else says. Published are 40; a pass verifies 15.
const TOKENS: usize = 15;
/// Shorter suffixes that are tried.
const MAX_CLIMBED: usize = 64;

/// Longest matches of the context and a corpus.
pub struct Sam {
    min_match: usize,
    bias: usize,
    context: Automaton,
    corpus: Option<Rc<SuffixArray>>,
}

/// A place to copy from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copy {
    in_corpus: bool,
    at: usize,
    match_len: usize,
}

impl Sam {
    /// With the options and the corpus of a setup.
    pub fn new(setup: &Setup<'_>) -> Sam {
        Sam {
            min_match: setup.count("sam_min_match"),
            bias: setup.count("sam_bias"),
            context: Automaton::new(false),
            corpus: setup.corpus_index(),
        }
    }

    /// Places after earlier occurrences of what stands at the end of `found`, the preferred one first.
    fn copies(&self, found: Match, last: impl FnOnce() -> Vec<u32>) -> Vec<Copy> {
        let text = self.context.text();
        let climb = std::iter::successors(Some(found), |found| self.context.shorter(found.state));
        let matches = climb.take(MAX_CLIMBED).take_while(|found| found.len as usize >= self.min_match.max(1));
        let mut copies: Vec<Copy> = matches
            .map(|found| Copy {
                in_corpus: false,
                at: self.context.continuation(found.state),
                match_len: found.len as usize,
            })
            .collect();
        // Near the end of the text too little follows: of a run, or of what was said just now.
        let enough = copies.iter().position(|copy| text.len() - copy.at >= TOKENS);
        let first = enough.or_else(|| (0..copies.len()).min_by_key(|&at| copies[at].at));
        if let Some(first) = first {
            copies[..=first].rotate_right(1);
        }
        if let Some(corpus) = &self.corpus {
            let found = corpus.longest_suffix(&last());
            let least = found.len.saturating_sub(self.bias);
            if found.len >= self.min_match && copies.first().is_none_or(|copy| copy.match_len < least) {
                copies.insert(0, Copy { in_corpus: true, at: corpus.first(&found) + found.len, match_len: found.len });
            }
        }
        copies
    }

    fn candidate(&self, copy: Copy, depth: usize) -> Option<Candidate> {
        let text = match &self.corpus {
            Some(corpus) if copy.in_corpus => corpus.text(),
            _ => self.context.text(),
        };
        let stats = copied(1.0, copy.match_len + depth).matched(copy.match_len);
        let cursor = (copy.at as u32 + 1) << 1 | u32::from(copy.in_corpus);
        text.get(copy.at).map(|&token| Candidate::new(token, stats).at(cursor))
    }

    fn candidates(&self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>, leaf: NodeId) -> Vec<Candidate> {
        let mut copies = Vec::new();
        if let Some(cursor) = ask.cursor(tree, leaf) {
            let match_len = usize::from(tree.node(leaf).stats.match_len);
            copies.push(Copy { in_corpus: cursor & 1 == 1, at: cursor >> 1, match_len });
        }
        if copies.is_empty() || ask.width > 1 {
            let path = tree.path_tokens(leaf);
            let found = path.iter().fold(self.context.repeated(), |at, &token| self.context.advance(at, token));
            copies.extend(self.copies(found, || context.tail(tree, leaf, DEPTH)));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        // What a copy drafted agrees with it; of a copy that begins here only what was matched does.
        let since = |index| if index == 0 && ask.cursor(tree, leaf).is_some() { tree.node(leaf).depth } else { 0 };
        for candidate in copies.into_iter().enumerate().filter_map(|(at, copy)| self.candidate(copy, since(at))) {
            if candidates.len() < ask.width && candidates.iter().all(|known| known.token != candidate.token) {
                candidates.push(candidate);
            }
        }
        candidates
    }
}

impl Drafter for Sam {
    fn name(&self) -> &'static str {
        "sam"
    }

    fn default_tokens(&self) -> usize {
        TOKENS
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        self.context.follow(context.tokens);
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, ask, leaf)))
    }

    fn reset(&mut self) {
        self.context = Automaton::new(false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::{longest_suffix, random};
    use super::super::testing::{chain, chain_below, children};
    use super::*;
    use crate::speculate::SpeculationConfig;

    fn sam(options: &str, corpus: Option<&[u32]>) -> Sam {
        let config: SpeculationConfig = format!("drafter=sam{options}").parse().expect("valid");
        Sam::new(&Setup { corpus, ..Setup::new(&config) })
    }

    #[test]
    fn drafts_what_follows_the_longest_suffix() {
        // The first four-gram (2, 3, 4, 5) is followed by 90; the longest suffix, (1, 2, 3, 4, 5), by 50.
        let mut tokens = vec![9, 2, 3, 4, 5, 90, 1, 2, 3, 4, 5, 50];
        tokens.extend(60..80);
        tokens.extend([1, 2, 3, 4, 5]);
        let mut alone = sam("", None);
        assert_eq!(chain(&mut alone, &tokens, 15), [&[50][..], &(60..74).collect::<Vec<_>>()].concat());
        assert_eq!(children(&mut alone, &tokens, 4), [50, 90], "shorter suffixes give alternatives");
        assert!(children(&mut sam(",sam_min_match=6", None), &tokens, 4).is_empty());
        let tree = chain_below(&mut alone, &tokens, &[90], 1);
        assert_eq!(tree.path_tokens(NodeId(2)), [90, 1], "it goes on from what another drafted");
        for seed in 0..20 {
            let text = random(80, 6, seed);
            let (_, at) = longest_suffix(&text);
            if at > 0 && text.len() - at >= TOKENS {
                assert_eq!(chain(&mut alone, &text, TOKENS), text[at..at + TOKENS], "{text:?}");
            }
        }
    }

    #[test]
    fn a_run_is_copied_from_where_enough_of_it_follows() {
        assert_eq!(chain(&mut sam("", None), &[4; 40], 15), [4; 15]);
        let tokens: Vec<u32> = (0..60).map(|at| at % 3).collect();
        assert_eq!(chain(&mut sam("", None), &tokens, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_corpus_must_match_by_more() {
        let corpus: Vec<u32> = (100..140).collect();
        let text = |matched: u32| -> Vec<u32> {
            let mut text = vec![139, 7, 8];
            text.extend(140 - 10 - matched..130);
            text.extend([139]);
            text
        };
        let mut both = sam("", Some(&corpus));
        assert_eq!(chain(&mut both, &text(4)[..text(4).len() - 1], 3), [130, 131, 132], "only the corpus matches");
        let here = [&[127, 128, 129, 66, 67, 68][..], &(110..130).collect::<Vec<_>>()].concat();
        assert_eq!(children(&mut both, &here, 1), [130], "20 tokens in the corpus, 3 here");
        let here = [&[127, 128, 129, 66, 67, 68][..], &(122..130).collect::<Vec<_>>()].concat();
        assert_eq!(children(&mut both, &here, 2), [66], "8 tokens are not more than 5 beyond 3");
    }
}
