//! `hierarchy`: Hierarchy Drafting (Cho et al., arXiv 2502.05609). Keyed by the last 2 tokens, up to 7 guesses of 4 tokens each
//! are filled from the pool of highest temporal locality first: this context, then the model's own history, then a corpus.
//!
//! Guesses are branches of the tree where the shape is wide enough; a chain takes the first. State: of the context the
//! places of the 7 most recent different phrases a key (bounded by [`MAX_CONTEXT_TOKENS`]); history is the shared store of
//! finished answers, the corpus a suffix array; how often each pool was right.

use super::automaton::Match;
use super::suffix_array::SuffixArray;
use super::suffix_store::SuffixStore;
use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, Rate, copied, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method, OptionSpec, Setup};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, NodeId, TokenTree};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "hierarchy",
    paper: "Hierarchy Drafting, arXiv 2502.05609",
    about: "phrases after the last two tokens: from this context, then finished answers, then the corpus",
    needs: "",
    options: &[OptionSpec { key: "hierarchy_guesses", about: "guesses a round", default: 7.0, min: 1.0, max: 31.0 }],
    test: "drafters::hierarchy",
    make: Make::Drafter(|setup| Ok(Box::new(Hierarchy::new(setup)))),
};

/// Tokens of a key.
const KEY: usize = 2;
/// Tokens of a guess.
const PHRASE: usize = 4;
/// Tokens of context whose phrases are kept; beyond it the older half is forgotten.
pub const MAX_CONTEXT_TOKENS: usize = 1 << 17;
/// In order of temporal locality.
const POOLS: usize = 3;

/// A phrase, and the pool it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guess {
    tokens: Vec<u32>,
    pool: usize,
}

/// As a copy of that many matched tokens.
fn priors() -> [[Rate; PHRASE]; POOLS] {
    [std::array::from_fn(|inside| Rate::new(copied(1.0, KEY + inside).logq.exp())); POOLS]
}

/// Three pools of phrases.
pub struct Hierarchy {
    guesses: usize,
    text: Vec<u32>,
    /// Where the phrases after a key begin, the most recent last.
    places: BTreeMap<[u32; KEY], VecDeque<u32>>,
    history: Option<Rc<RefCell<SuffixStore>>>,
    corpus: Option<Rc<SuffixArray>>,
    /// By pool and place in the phrase.
    rates: [[Rate; PHRASE]; POOLS],
}

impl Hierarchy {
    /// With the stores of a setup.
    pub fn new(setup: &Setup<'_>) -> Hierarchy {
        Hierarchy {
            guesses: setup.count("hierarchy_guesses"),
            text: Vec::new(),
            places: BTreeMap::new(),
            history: setup.store(),
            corpus: setup.corpus_index(),
            rates: priors(),
        }
    }

    fn push(&mut self, token: u32) {
        self.text.push(token);
        let Some(start) = self.text.len().checked_sub(KEY + PHRASE) else { return };
        let (at, phrase) = (start + KEY, &self.text[start + KEY..]);
        let key = [self.text[start], self.text[start + 1]];
        let places = self.places.entry(key).or_default();
        places.retain(|&place| &self.text[place as usize..][..PHRASE] != phrase);
        places.push_back(at as u32);
        if places.len() > self.guesses {
            places.pop_front();
        }
    }

    /// The guesses after `tokens`, those of the first pool first.
    fn guesses(&self, tokens: &[u32]) -> Vec<Guess> {
        let Some(&key) = tokens.last_chunk::<KEY>() else { return Vec::new() };
        let mut guesses: Vec<Guess> = Vec::new();
        let mut add = |tokens: Vec<u32>, pool| {
            if guesses.len() < self.guesses && !tokens.is_empty() && guesses.iter().all(|known| known.tokens != tokens)
            {
                guesses.push(Guess { tokens, pool });
            }
        };
        for &place in self.places.get(&key).into_iter().flatten().rev() {
            add(self.text[place as usize..][..PHRASE].to_vec(), 0);
        }
        if let Some(history) = &self.history {
            let history = history.borrow();
            let automaton = history.automaton();
            let found = key.iter().fold(Match::default(), |found, &token| automaton.advance(found, token));
            let children =
                if found.len as usize >= KEY { automaton.children(found.state, self.guesses) } else { Vec::new() };
            for (token, state) in children {
                let mut tokens = vec![token];
                let mut at = state;
                while let Some((token, state)) = automaton.likeliest(at).filter(|_| tokens.len() < PHRASE) {
                    tokens.push(token);
                    at = state;
                }
                add(tokens, 1);
            }
        }
        if let Some(corpus) = &self.corpus {
            for (_, found) in corpus.children(&corpus.find(&key), self.guesses) {
                let at = corpus.first(&found) + KEY;
                add(corpus.text()[at..corpus.text().len().min(at + PHRASE)].to_vec(), 2);
            }
        }
        guesses
    }

    fn candidates(&self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>, leaf: NodeId) -> Vec<Candidate> {
        let path = context.tail(tree, leaf, KEY + PHRASE);
        // Tokens of a guess that led here: the phrase goes on, or the next key is looked up.
        let inside = ask.cursor(tree, leaf).map_or(0, |cursor| cursor / POOLS);
        for inside in [inside, 0] {
            let (before, led) = path.split_at(path.len() - inside);
            let mut candidates: Vec<Candidate> = Vec::new();
            for guess in self.guesses(before).iter().filter(|guess| guess.tokens.starts_with(led)) {
                if let Some(&token) = guess.tokens.get(inside)
                    && candidates.len() < ask.width
                    && candidates.iter().all(|known| known.token != token)
                {
                    let cursor = (inside + 1) * POOLS + guess.pool;
                    let stats = self.rates[guess.pool][inside].stats().matched(KEY);
                    candidates.push(Candidate::new(token, stats).at(cursor as u32));
                }
            }
            if !candidates.is_empty() {
                return candidates;
            }
        }
        Vec::new()
    }
}

impl Drafter for Hierarchy {
    fn name(&self) -> &'static str {
        "hierarchy"
    }

    fn default_tokens(&self) -> usize {
        PHRASE
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        let held = self.text.len();
        let from = held.saturating_sub(32);
        if context.tokens.get(from..held) != Some(&self.text[from..]) {
            self.text.clear();
            self.places.clear();
        }
        context.tokens[self.text.len()..].iter().for_each(|&token| self.push(token));
        if self.places.len() > MAX_CONTEXT_TOKENS {
            let half = (self.text.len() / 2) as u32;
            self.places.retain(|_, places| {
                places.retain(|&place| place >= half);
                !places.is_empty()
            });
        }
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, ask, leaf)))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        for (cursor, accepted) in outcome.judged_of(me) {
            self.rates[cursor % POOLS][cursor / POOLS - 1].learn(accepted);
        }
    }

    fn reset(&mut self) {
        self.text.clear();
        self.places.clear();
        self.rates = priors();
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::random;
    use super::super::testing::{chain, children};
    use super::*;
    use crate::speculate::SpeculationConfig;
    use crate::speculate::memory::Memory;

    /// Phrases after (1, 2) that begin with these tokens.
    fn phrases(firsts: std::ops::Range<u32>) -> Vec<u32> {
        firsts.flat_map(|first| [1, 2, first, first + 100, first + 200, first + 300]).collect()
    }

    #[test]
    fn the_nearest_pool_is_used_up_before_the_next() {
        let config = SpeculationConfig::default();
        let (memory, corpus) = (Memory::new(10_000, 0), phrases(30..40));
        memory.suffix.borrow_mut().add(&phrases(20..22));
        let setup = Setup { corpus: Some(&corpus), memory: Some(&memory), ..Setup::new(&config) };
        let mut hierarchy = Hierarchy::new(&setup);
        let context = [phrases(10..13), vec![1, 2]].concat();
        let found = children(&mut hierarchy, &context, 31);
        assert_eq!(found[..3], [12, 11, 10], "of this context the most recent first");
        assert!(found[3..5].iter().all(|token| (20..22).contains(token)), "then finished answers: {found:?}");
        assert!(
            found.len() == 7 && found[5..].iter().all(|token| (30..40).contains(token)),
            "then the corpus: {found:?}"
        );
        assert_eq!(children(&mut hierarchy, &context, 2), [12, 11]);
        let more = [phrases(10..19), vec![1, 2]].concat();
        let found = children(&mut hierarchy, &more, 31);
        assert_eq!(found, [18, 17, 16, 15, 14, 13, 12], "a context that has enough leaves no room");
        assert_eq!(chain(&mut hierarchy, &more, 4), [18, 118, 218, 318]);
        assert_eq!(chain(&mut hierarchy, &more, 15).len(), 4, "nothing follows (218, 318)");
        let again = [phrases(11..12), phrases(10..12), vec![1, 2]].concat();
        assert_eq!(chain(&mut hierarchy, &again, 6), [11, 111, 211, 311, 1, 2], "then the next key is looked up");
    }

    #[test]
    fn a_phrase_counts_once_and_the_pool_is_bounded() {
        let config = SpeculationConfig::default();
        let mut hierarchy = Hierarchy::new(&Setup::new(&config));
        let context = [phrases(10..12), phrases(10..11).repeat(9), vec![1, 2]].concat();
        assert_eq!(children(&mut hierarchy, &context, 31), [10, 11]);
        children(&mut hierarchy, &random(MAX_CONTEXT_TOKENS + 5_000, 1 << 20, 1), 1);
        assert!(hierarchy.places.len() <= MAX_CONTEXT_TOKENS);
    }
}
