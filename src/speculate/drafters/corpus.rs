//! `corpus`: copies from a text that the user supplies (REST, arXiv 2311.08252; NEST, arXiv 2405.19325, without its lossy
//! mixing; SpecAgent's pre-load, arXiv 2510.17925). The longest suffix of the last tokens that occurs in it; what follows
//! most often there is the draft, `count(child) / count(node)` its probability.
//!
//! State: the suffix array of the corpus, made once and shared; a draft's places, of one round.

use super::suffix_array::{DEPTH, Found, SuffixArray};
use super::{Ask, DraftContext, Drafter, Expansion, each_leaf};
use crate::error::{Error, Result};
use crate::plan::MAX_NODES;
use crate::speculate::methods::{Make, Method, OptionSpec, Setup};
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "corpus",
    paper: "REST, arXiv 2311.08252; NEST, arXiv 2405.19325; SpecAgent, arXiv 2510.17925",
    about: "copies what most often follows the longest suffix of the last tokens in a text of the user's",
    needs: "corpus=TEXT",
    options: &[OptionSpec {
        key: "corpus_min_match",
        about: "shortest match that drafts, tokens",
        default: 2.0,
        min: 1.0,
        max: 64.0,
    }],
    test: "drafters::corpus",
    make: Make::Drafter(|setup| Ok(Box::new(Corpus::new(setup)?))),
};

/// Tokens drafted where nothing else says: what fills a pass.
const TOKENS: usize = 15;

/// Continuations in a fixed text.
pub struct Corpus {
    index: Rc<SuffixArray>,
    min_match: usize,
    /// Where drafted nodes stand, by cursor, with the length of the match that drafted them.
    places: Vec<(Found, usize)>,
}

impl Corpus {
    /// An error where there is no corpus.
    pub fn new(setup: &Setup<'_>) -> Result<Corpus> {
        let index = setup.corpus_index().ok_or_else(|| Error::BadOption {
            name: "speculation.drafter".to_owned(),
            found: "corpus".to_owned(),
            expected: "a text to copy from: corpus=TEXT".to_owned(),
        })?;
        Ok(Corpus { index, min_match: setup.count("corpus_min_match"), places: Vec::new() })
    }

    fn candidates(
        &mut self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        leaf: NodeId,
    ) -> Vec<Candidate> {
        let (found, match_len) = match ask.cursor(tree, leaf).and_then(|cursor| self.places.get(cursor - 1)) {
            Some(place) => place.clone(),
            None => {
                let found = self.index.longest_suffix(&context.tail(tree, leaf, DEPTH));
                let match_len = found.len;
                (found, match_len)
            }
        };
        if match_len < self.min_match {
            return Vec::new();
        }
        let all = found.range.len();
        let children = self.index.children(&found, ask.width).into_iter().map(|(token, child)| {
            let stats = DraftStats::of_probability(child.range.len() as f32 / all as f32).matched(match_len);
            self.places.push((child, match_len));
            Candidate::new(token, stats).at(self.places.len() as u32)
        });
        children.collect()
    }
}

impl Drafter for Corpus {
    fn name(&self) -> &'static str {
        "corpus"
    }

    fn default_tokens(&self) -> usize {
        TOKENS.min(MAX_NODES - 1)
    }

    fn begin(&mut self, _: &DraftContext<'_>) {
        self.places.clear();
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, ask, leaf)))
    }
}
