//! `corpus`: copies from a text that the user supplies (REST, arXiv 2311.08252; NEST, arXiv 2405.19325, without its lossy
//! mixing; SpecAgent's pre-load, arXiv 2510.17925). The longest suffix of the last tokens that occurs in it; what follows
//! most often there is the draft, `count(child) / count(node)` its probability.
//!
//! State: the suffix array of the corpus, made once and shared; a draft's places, of one round.

use super::suffix_array::{DEPTH, Found, SuffixArray};
use super::{Ask, DraftContext, Drafter, Expansion, copied, each_leaf};
use crate::error::{Error, Result};
use crate::plan::MAX_NODES;
use crate::speculate::methods::{Make, Method, OptionSpec, Setup};
use crate::speculate::tree::{Candidate, NodeId, TokenTree};
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
            let stats = copied(child.range.len() as f32 / all as f32, found.len).matched(match_len);
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

#[cfg(test)]
mod tests {
    use super::super::testing::{chain, chain_below, children};
    use super::*;
    use crate::speculate::SpeculationConfig;
    use crate::speculate::memory::Memory;

    #[test]
    fn drafts_what_only_the_corpus_says() {
        let text = [1, 2, 3, 8, 1, 2, 4, 5, 9, 1, 2, 4, 6, 7, 1, 2, 4, 6];
        let (config, memory) = (SpeculationConfig::default(), Memory::new(100, 0));
        let setup = Setup { corpus: Some(&text), memory: Some(&memory), ..Setup::new(&config) };
        let mut corpus = Corpus::new(&setup).expect("there is one");
        assert_eq!(children(&mut corpus, &[50, 1, 2], 4), [4, 3], "by how often");
        assert_eq!(chain(&mut corpus, &[50, 1, 2], 5), [4, 6, 7, 1, 2]);
        assert!(children(&mut corpus, &[50, 2], 4).is_empty(), "one token is no match");
        let tree = chain_below(&mut corpus, &[50, 9], &[1], 1);
        assert_eq!(tree.path_tokens(NodeId(2)), [1, 2], "it goes on from what another drafted");
        assert!(Rc::ptr_eq(&corpus.index, &memory.corpus(&text)), "the same corpus is indexed once");
        assert!(!Rc::ptr_eq(&corpus.index, &memory.corpus(&text[1..])));
        let error = Corpus::new(&Setup::new(&config)).err().expect("there is none");
        assert!(error.to_string().contains("corpus=TEXT"), "{error}");
    }
}
