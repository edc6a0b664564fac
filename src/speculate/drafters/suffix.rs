//! `suffix`: SuffixDecoding (Oliaro et al., arXiv 2411.04975). For every suffix of the last tokens that occurs elsewhere, the
//! most frequent continuation of at most `⌊match_len · factor + offset⌋` tokens while `Π count(child) / count(node)` stays
//! above `min_prob`; the suffix whose continuation has the largest sum of these probabilities drafts.
//!
//! State: a counted automaton of this request (bounded by the context). The shared store of finished answers
//! ([`SuffixStore`], bounded) is only read. The published trees of depth 64 are read off the automata: the same counts, in
//! constant time and space a token.

use super::automaton::{Automaton, Match};
use super::suffix_store::SuffixStore;
use super::{Ask, DraftContext, Drafter, Expansion, copied, each_leaf};
use crate::error::Result;
use crate::plan::MAX_NODES;
use crate::speculate::methods::{Make, Method, OptionSpec, Setup};
use crate::speculate::tree::{Candidate, NodeId, TokenTree};
use std::cell::RefCell;
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "suffix",
    paper: "SuffixDecoding, arXiv 2411.04975; the window of DAS, arXiv 2511.13841",
    about: "copies the most frequent continuation of the suffix that scores best, from this request and finished answers",
    needs: "",
    options: &[
        OptionSpec {
            key: "suffix_factor",
            about: "tokens to draft per matched token",
            default: 1.0,
            min: 0.0,
            max: 16.0,
        },
        OptionSpec { key: "suffix_offset", about: "tokens to draft beyond that", default: 0.0, min: -16.0, max: 31.0 },
        OptionSpec {
            key: "suffix_min_prob",
            about: "share of the matches that must go on in the same way",
            default: 0.1,
            min: 0.0,
            max: 1.0,
        },
        OptionSpec { key: "suffix_depth", about: "longest match, tokens", default: 64.0, min: 1.0, max: 64.0 },
        OptionSpec {
            key: "suffix_store",
            about: "1: earlier answers are copied from, and this one joins them; 0: neither, with any drafter",
            default: 1.0,
            min: 0.0,
            max: 1.0,
        },
    ],
    test: "drafters::suffix",
    make: Make::Drafter(|setup| Ok(Box::new(Suffix::new(setup)))),
};

/// Where continuations are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Request,
    Store,
}

/// A match that may draft.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Start {
    source: Source,
    found: Match,
    /// Occurrences with a continuation.
    occurrences: u32,
    /// Tokens that the published rule drafts.
    tokens: usize,
    score: f32,
}

/// Continuations by frequency.
pub struct Suffix {
    factor: f32,
    offset: f32,
    min_prob: f32,
    depth: u32,
    request: Automaton,
    store: Option<Rc<RefCell<SuffixStore>>>,
    start: Option<Start>,
    /// Where the nodes of this round's draft stand, by cursor: the match, the state, and the tokens since the match.
    places: Vec<(Start, u32, usize)>,
}

impl Suffix {
    /// With the options and the shared store of a setup.
    pub fn new(setup: &Setup<'_>) -> Suffix {
        Suffix {
            factor: setup.option("suffix_factor") as f32,
            offset: setup.option("suffix_offset") as f32,
            min_prob: setup.option("suffix_min_prob") as f32,
            depth: setup.count("suffix_depth") as u32,
            request: Automaton::new(true),
            store: setup.store(),
            start: None,
            places: Vec::new(),
        }
    }

    /// The best match among the suffixes of `request` and of `store`; `own` occurrences of each suffix of the request are its
    /// own end, which nothing follows.
    fn choose(&self, request: Match, own: u32, store: Match) -> Option<Start> {
        let mut best: Option<Start> = None;
        for (source, found, own) in [(Source::Request, request, own), (Source::Store, store, 0)] {
            self.look(source, |automaton| {
                let mut next = Some(automaton.cut(found, self.depth));
                // Of the substrings of a state the longest has the largest budget and the same continuations.
                while let Some(found) = next.filter(|found| found.len > 0) {
                    next = automaton.shorter(found.state);
                    let start = self.score(automaton, source, found, own);
                    // Of equals the longer match, and this request before the store.
                    if start.tokens > 0 && best.is_none_or(|best| start.score > best.score) {
                        best = Some(start);
                    }
                }
            });
        }
        best
    }

    fn score(&self, automaton: &Automaton, source: Source, found: Match, own: u32) -> Start {
        let occurrences = automaton.occurrences(found.state).saturating_sub(own);
        let budget = (found.len as f32 * self.factor + self.offset).max(0.0) as usize;
        let mut start = Start { source, found, occurrences, tokens: 0, score: 0.0 };
        let mut at = found.state;
        while start.tokens < budget.min(MAX_NODES - 1) {
            let Some((_, state)) = automaton.likeliest(at) else { break };
            let share = automaton.occurrences(state) as f32 / occurrences.max(1) as f32;
            if share < self.min_prob {
                break;
            }
            (start.tokens, start.score, at) = (start.tokens + 1, start.score + share, state);
        }
        start
    }

    fn look<T>(&self, source: Source, read: impl FnOnce(&Automaton) -> T) -> Option<T> {
        match (source, &self.store) {
            (Source::Request, _) => Some(read(&self.request)),
            (Source::Store, Some(store)) => Some(read(store.borrow().automaton())),
            (Source::Store, None) => None,
        }
    }

    /// The longest suffix of `tokens` in the store.
    fn in_store(&self, tokens: impl Iterator<Item = u32>) -> Match {
        let advance = |automaton: &Automaton| tokens.fold(Match::default(), |at, token| automaton.advance(at, token));
        self.look(Source::Store, advance).unwrap_or_default()
    }

    /// What follows a leaf of this drafter's where it stands; where that ends, or somebody else drafted the leaf, what
    /// follows the text and the draft together. The published rule ends there: only who asks for more than
    /// [`Drafter::default_tokens`] gets more.
    fn below(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>, leaf: NodeId) -> Vec<Candidate> {
        let standing = match ask.cursor(tree, leaf) {
            Some(cursor) => self.places.get(cursor - 1).copied(),
            None if leaf == NodeId::ROOT => self.start.map(|start| (start, start.found.state, 0)),
            None => None,
        };
        let go_on = |(start, state, since)| self.candidates(start, state, since, ask.width);
        let candidates = standing.map_or_else(Vec::new, go_on);
        if !candidates.is_empty() || leaf == NodeId::ROOT {
            return candidates;
        }
        let path = tree.path_tokens(leaf);
        let request = path.iter().fold(self.request.suffix(), |at, &token| self.request.advance(at, token));
        let store = self.in_store(context.tail(tree, leaf, self.depth as usize).into_iter());
        let start = self.choose(request, 0, store);
        start.map_or_else(Vec::new, |start| self.candidates(start, start.found.state, 0, ask.width))
    }

    /// What follows a match `since` tokens later.
    fn candidates(&mut self, start: Start, state: u32, since: usize, width: usize) -> Vec<Candidate> {
        let read = |automaton: &Automaton| {
            let here = if state == start.found.state { start.occurrences } else { automaton.occurrences(state) };
            let counted = |(token, child)| (token, child, automaton.occurrences(child));
            (here, automaton.children(state, width).into_iter().map(counted).collect::<Vec<_>>())
        };
        let Some((here, children)) = self.look(start.source, read) else { return Vec::new() };
        let share = |count: u32| count as f32 / start.occurrences.max(1) as f32;
        let likely = children.into_iter().filter(|&(.., count)| share(count) >= self.min_prob);
        let candidates = likely.map(|(token, child, count)| {
            self.places.push((start, child, since + 1));
            let matched = start.found.len as usize;
            // The score goes by counts, as published; what a policy is told is what came true.
            let stats = copied(count as f32 / here.max(1) as f32, matched + since).matched(matched);
            Candidate::new(token, stats).at(self.places.len() as u32)
        });
        candidates.collect()
    }
}

impl Drafter for Suffix {
    fn name(&self) -> &'static str {
        "suffix"
    }

    fn default_tokens(&self) -> usize {
        self.start.map_or(0, |start| start.tokens)
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        self.request.follow(context.tokens);
        self.places.clear();
        let last = &context.tokens[context.tokens.len().saturating_sub(self.depth as usize)..];
        self.start = self.choose(self.request.suffix(), 1, self.in_store(last.iter().copied()));
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.below(context, tree, ask, leaf)))
    }

    fn reset(&mut self) {
        (self.request, self.start) = (Automaton::new(true), None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::random;
    use super::super::testing::{chain, chain_below, children, replay, simulated, speculator};
    use super::*;
    use crate::speculate::SpeculationConfig;
    use crate::speculate::memory::Memory;
    use crate::speculate::simulate::SimulatedTarget;

    fn suffix(options: &str, memory: Option<&Memory>) -> Suffix {
        let config: SpeculationConfig = format!("drafter=suffix{options}").parse().expect("valid");
        Suffix::new(&Setup { memory, ..Setup::new(&config) })
    }

    #[test]
    fn frequency_decides_and_the_match_sets_the_length() {
        let tokens = [1, 2, 9, 5, 1, 2, 3, 4, 1, 2, 3, 4, 6, 1, 2];
        let mut alone = suffix("", None);
        assert_eq!(children(&mut alone, &tokens, 1), [3], "twice 3, first and last of all but once 9");
        assert_eq!(alone.default_tokens(), 2, "two tokens matched");
        assert_eq!(children(&mut alone, &tokens, 3), [3, 9]);
        assert_eq!(chain(&mut alone, &tokens, 2), [3, 4]);
        let mut longer = suffix(",suffix_factor=2,suffix_offset=1,suffix_min_prob=0.6", None);
        assert_eq!(children(&mut longer, &tokens, 3), [3], "9 is too rare");
        assert_eq!(longer.default_tokens(), 2, "two of three matches go on with 3, 4; then they part");
        let tree = chain_below(&mut alone, &tokens, &[3], 2);
        assert_eq!(tree.node(NodeId(2)).token, Some(4), "it goes on from what another drafted");
        assert_eq!(tree.node(NodeId(2)).stats.match_len, 3);
    }

    #[test]
    fn random_text_drafts_nothing() {
        let text = random(400, 1 << 20, 1);
        let target = simulated(text);
        let mut alone = speculator(Box::new(suffix("", None)), None);
        target.replay(&mut alone, 1).expect("replay");
        assert_eq!((alone.totals.rounds, alone.totals.all.drafted), (399, 0));
    }

    fn passes(target: &SimulatedTarget, memory: &Memory, prompt: usize) -> u64 {
        let mut speculator = speculator(Box::new(suffix("", Some(memory))), None);
        target.replay(&mut speculator, prompt).expect("replay");
        memory.remember(&target.text, prompt);
        speculator.totals.rounds
    }

    #[test]
    fn a_chat_that_is_replayed_comes_from_the_store() {
        let memory = Memory::new(1 << 20, 0);
        let target = simulated(random(300, 1 << 20, 2));
        assert_eq!(passes(&target, &memory, 40), 260);
        assert_eq!(memory.suffix.borrow().tokens(), 260 + 16, "the answer, and what leads to it");
        let second = 260.0 / passes(&target, &memory, 40) as f64;
        assert!(second >= 5.0, "mean acceptance length {second}");
        // The store on its own: another drafter of the same engine, after saving and loading.
        let saved = memory.suffix.borrow().save();
        let loaded = Memory::new(1 << 20, 0);
        loaded.suffix.borrow_mut().load(&saved).expect("valid");
        assert!(260.0 / passes(&target, &loaded, 40) as f64 >= 5.0);
    }

    #[test]
    fn another_conversation_is_noticed_and_the_store_is_only_read() {
        let memory = Memory::new(1 << 20, 0);
        let (first, second) = (random(60, 1 << 20, 3), random(50, 1 << 20, 4));
        memory.remember(&first, 40);
        memory.remember(&second, 50);
        let mut shared = suffix("", Some(&memory));
        assert_eq!(children(&mut shared, &first[..40], 1), first[40..41]);
        assert!(children(&mut shared, &second, 1).is_empty());
        assert_eq!(shared.request.text(), second);
        shared.reset();
        assert!(shared.request.text().is_empty());
        drop(shared);
        let held: Vec<Vec<u32>> = memory.suffix.borrow().conversations().map(<[u32]>::to_vec).collect();
        assert_eq!(held, [first[24..].to_vec()], "the answer with what leads to it; there was no second one");
    }

    #[test]
    fn a_long_run_costs_no_more_than_a_short_one() {
        // Every suffix of a run occurs earlier: only what is counted may be looked at.
        let outcomes = replay(&simulated(vec![7; 20_000]), Box::new(suffix("", None)), 16, 15);
        assert!(outcomes.len() < 20_000 / 14, "{} rounds", outcomes.len());
    }
}
