//! `sam`: SAM-Decoding (Hu et al., arXiv 2411.10666). The longest suffix of the last tokens that occurred earlier, by a suffix
//! automaton in constant time; the tokens after its *first* occurrence are the draft, after that of a shorter suffix where
//! too few tokens follow. The text so far is preferred to the corpus unless the match there is longer by `sam_bias`.
//!
//! State: an automaton of the context, bounded by it. The static side is a suffix array of the corpus: the same longest
//! matches in a tenth of the memory.

use super::automaton::{Automaton, Match};
use super::suffix_array::{DEPTH, SuffixArray};
use super::{Ask, DraftContext, Drafter, Expansion, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method, OptionSpec, Setup};
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
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

    fn candidate(&self, copy: Copy) -> Option<Candidate> {
        let text = match &self.corpus {
            Some(corpus) if copy.in_corpus => corpus.text(),
            _ => self.context.text(),
        };
        let stats = DraftStats::of_probability(0.9).matched(copy.match_len);
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
        for candidate in copies.into_iter().filter_map(|copy| self.candidate(copy)) {
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
