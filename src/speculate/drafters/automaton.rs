//! A suffix automaton that grows token by token (Blumer et al. 1985): all substrings of a text, with how often each occurs.
//!
//! It takes amortised constant time and at most two states a token. Counts are those of a suffix tree of depth
//! [`COUNTED`]: `count(w·t) / count(w)` is the share of `t` after `w`, which is what SuffixDecoding reads off its tree.
//! Bounded by whoever owns it. Copying it is copying plain vectors.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Longest substring whose occurrences are counted; the work of a token is bounded by it.
pub const COUNTED: usize = 96;
/// Edges of a state that are looked at for its likeliest children.
const MAX_SCANNED: usize = 256;
const NONE: u32 = u32::MAX;

/// Stands between texts that do not continue each other; no token has this id.
pub const SEPARATOR: u32 = u32::MAX;

/// A substring: the state that holds it, and its length. The empty one by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Match {
    /// Its state; 0 is the root.
    pub state: u32,
    /// Its tokens.
    pub len: u32,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Tokens of the longest substring it holds; the shortest has one more than that of `link`.
    len: u32,
    link: u32,
    edges: u32,
    /// The edge to the child that occurs most often.
    best: u32,
    count: u32,
    /// Where its substrings end for the first time.
    first: u32,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    token: u32,
    to: u32,
    next: u32,
}

/// The automaton of a text.
#[derive(Debug, Clone)]
pub struct Automaton {
    text: Vec<u32>,
    states: Vec<State>,
    edges: Vec<Edge>,
    /// Edge by (state, token). Only looked up, never walked, so its order shows nowhere.
    index: HashMap<u64, u32, BuildHasherDefault<Mix>>,
    /// Holds the whole text.
    last: u32,
    /// The longest suffix that is counted.
    suffix: Match,
    /// Whether occurrences are counted.
    counts: bool,
    /// Steps taken, for tests of its cost.
    work: u64,
}

impl Automaton {
    /// Of an empty text; `counts` occurrences or not.
    pub fn new(counts: bool) -> Automaton {
        let root = State { len: 0, link: NONE, edges: NONE, best: NONE, count: 0, first: 0 };
        Automaton {
            text: Vec::new(),
            states: vec![root],
            edges: Vec::new(),
            index: HashMap::default(),
            last: 0,
            suffix: Match::default(),
            counts,
            work: 0,
        }
    }

    /// Its text.
    pub fn text(&self) -> &[u32] {
        &self.text
    }

    /// Whether `tokens` go on from the text. That is seen by the end of what is held, not by all of it: a draft is a guess, and
    /// looking at everything each round would not be constant time.
    pub fn begins(&self, tokens: &[u32]) -> bool {
        const LOOKED_AT: usize = 32;
        let from = self.text.len().saturating_sub(LOOKED_AT);
        tokens.get(from..self.text.len()) == Some(&self.text[from..])
    }

    /// Makes `tokens` the text: appends what is new, or starts over if this is another text.
    pub fn follow(&mut self, tokens: &[u32]) {
        if !self.begins(tokens) {
            *self = Automaton::new(self.counts);
        }
        tokens[self.text.len()..].iter().for_each(|&token| self.push(token));
    }

    /// Appends a token.
    pub fn push(&mut self, token: u32) {
        let position = self.text.len() as u32;
        self.text.push(token);
        let new = self.states.len() as u32;
        let len = self.states[self.last as usize].len + 1;
        self.states.push(State { len, link: 0, edges: NONE, best: NONE, count: 0, first: position });
        let mut at = self.last;
        let below = loop {
            if at == NONE {
                break None;
            }
            self.work += 1;
            if let Some(edge) = self.edge(at, token) {
                break Some(self.edges[edge as usize].to);
            }
            self.add_edge(at, token, new);
            at = self.states[at as usize].link;
        };
        self.states[new as usize].link = match below {
            None => 0,
            Some(to) if self.states[to as usize].len == self.states[at as usize].len + 1 => to,
            Some(to) => self.split(at, token, to),
        };
        self.last = new;
        if self.counts {
            self.count(token);
        }
    }

    /// The shorter substrings of `state` get a state of their own.
    fn split(&mut self, mut at: u32, token: u32, state: u32) -> u32 {
        let copy = self.states.len() as u32;
        let original = self.states[state as usize];
        self.states.push(State { len: self.states[at as usize].len + 1, edges: NONE, best: NONE, ..original });
        let mut edge = original.edges;
        while edge != NONE {
            self.work += 1;
            let Edge { token, to, next } = self.edges[edge as usize];
            let made = self.add_edge(copy, token, to);
            if edge == original.best {
                self.states[copy as usize].best = made;
            }
            edge = next;
        }
        while at != NONE {
            self.work += 1;
            match self.edge(at, token) {
                Some(edge) if self.edges[edge as usize].to == state => self.edges[edge as usize].to = copy,
                _ => break,
            }
            at = self.states[at as usize].link;
        }
        self.states[state as usize].link = copy;
        copy
    }

    /// Every suffix of at most [`COUNTED`] tokens has occurred once more.
    fn count(&mut self, token: u32) {
        let before = self.settle(self.suffix);
        self.suffix = self.advance(before, token);
        let mut at = self.suffix.state;
        while at != NONE {
            self.work += 1;
            self.states[at as usize].count += 1;
            at = self.states[at as usize].link;
        }
        let mut at = before.state;
        while at != NONE {
            self.work += 1;
            if let Some(edge) = self.edge(at, token) {
                let best = self.states[at as usize].best;
                // Of equals the later one: texts move on.
                if best == NONE || self.edge_count(edge) >= self.edge_count(best) {
                    self.states[at as usize].best = edge;
                }
            }
            at = self.states[at as usize].link;
        }
    }

    /// The state that holds a substring may have been split since; also cuts it to what is counted.
    fn settle(&self, found: Match) -> Match {
        self.cut(found, COUNTED as u32)
    }

    /// The end of a substring, of at most `most` tokens.
    pub fn cut(&self, mut found: Match, most: u32) -> Match {
        found.len = found.len.min(most);
        while let Some(shorter) = self.shorter(found.state).filter(|shorter| shorter.len >= found.len) {
            found.state = shorter.state;
        }
        found
    }

    /// The longest suffix of `found·token` that occurs, cut to what is counted.
    pub fn advance(&self, mut found: Match, token: u32) -> Match {
        loop {
            if let Some(edge) = self.edge(found.state, token) {
                let next = Match { state: self.edges[edge as usize].to, len: found.len + 1 };
                return self.settle(next);
            }
            match self.shorter(found.state) {
                Some(shorter) => found = shorter,
                None => return Match::default(),
            }
        }
    }

    /// The longest suffix that occurs at more places than the substrings of `state`; `None` of the root.
    pub fn shorter(&self, state: u32) -> Option<Match> {
        let link = self.states[state as usize].link;
        (link != NONE).then(|| Match { state: link, len: self.states[link as usize].len })
    }

    /// The longest suffix of the text that occurs earlier in it too; empty if there is none.
    pub fn repeated(&self) -> Match {
        self.shorter(self.last).unwrap_or_default()
    }

    /// The longest counted suffix of the text. It may occur nowhere else.
    pub fn suffix(&self) -> Match {
        self.suffix
    }

    /// How often its substrings of at most [`COUNTED`] tokens occur.
    pub fn occurrences(&self, state: u32) -> u32 {
        self.states[state as usize].count
    }

    /// Index after the first occurrence of the substrings of a state: where their continuation begins.
    pub fn continuation(&self, state: u32) -> usize {
        self.states[state as usize].first as usize + 1
    }

    /// What follows most often: the token and the state it leads to. `None` where nothing follows, or a text ends.
    pub fn likeliest(&self, state: u32) -> Option<(u32, u32)> {
        let edge = self.edges.get(self.states[state as usize].best as usize)?;
        (edge.token != SEPARATOR).then_some((edge.token, edge.to))
    }

    /// What follows, most frequent first, at most `most`.
    pub fn children(&self, state: u32, most: usize) -> Vec<(u32, u32)> {
        let Some(best) = self.likeliest(state) else { return Vec::new() };
        let mut rest: Vec<Edge> = Vec::new();
        let mut edge = self.states[state as usize].edges;
        for _ in 0..if most > 1 { MAX_SCANNED } else { 0 } {
            let Some(&found) = self.edges.get(edge as usize) else { break };
            edge = found.next;
            if found.token != best.0 && found.token != SEPARATOR {
                rest.push(found);
            }
        }
        // The latest edge comes first in the list, and stays first of equals.
        rest.sort_by_key(|edge| std::cmp::Reverse(self.occurrences(edge.to)));
        let rest = rest.into_iter().map(|edge| (edge.token, edge.to));
        std::iter::once(best).chain(rest).take(most).collect()
    }

    fn edge(&self, state: u32, token: u32) -> Option<u32> {
        self.index.get(&key(state, token)).copied()
    }

    fn edge_count(&self, edge: u32) -> u32 {
        self.occurrences(self.edges[edge as usize].to)
    }

    fn add_edge(&mut self, state: u32, token: u32, to: u32) -> u32 {
        let edge = self.edges.len() as u32;
        let next = std::mem::replace(&mut self.states[state as usize].edges, edge);
        self.edges.push(Edge { token, to, next });
        self.index.insert(key(state, token), edge);
        edge
    }
}

fn key(state: u32, token: u32) -> u64 {
    u64::from(state) << 32 | u64::from(token)
}

/// Mixes the one word of a key; the same on every machine and in every run.
#[derive(Debug, Default, Clone)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sampling::pcg4d;

    /// Random tokens of a small alphabet.
    pub(crate) fn random(count: usize, alphabet: u32, seed: u32) -> Vec<u32> {
        (0..count as u32).map(|at| pcg4d([at, seed, 1, 2])[0] % alphabet).collect()
    }

    /// The longest suffix that occurs earlier, and where its first occurrence's continuation begins.
    pub(crate) fn longest_suffix(text: &[u32]) -> (usize, usize) {
        let found = (1..text.len()).rev().find_map(|len| {
            let pattern = &text[text.len() - len..];
            let at = text[..text.len() - 1].windows(len).position(|window| window == pattern)?;
            Some((len, at + len))
        });
        found.unwrap_or((0, 0))
    }

    #[test]
    fn finds_and_counts_what_a_search_finds() {
        for (alphabet, seed) in [(2, 1), (3, 2), (8, 3), (50, 4), (1, 5)] {
            let text = random(160, alphabet, seed);
            let mut automaton = Automaton::new(true);
            for at in 0..text.len() {
                automaton.push(text[at]);
                let text = &text[..=at];
                let (len, next) = longest_suffix(text);
                let found = automaton.repeated();
                assert_eq!(found.len as usize, len, "{text:?}");
                assert!(len == 0 || automaton.continuation(found.state) == next, "{text:?}");
                // Every suffix and its likeliest child are counted as a search counts them.
                let mut at = automaton.suffix();
                while at.len > 0 {
                    let pattern = &text[text.len() - at.len as usize..];
                    let count = |pattern: &[u32]| text.windows(pattern.len()).filter(|w| *w == pattern).count() as u32;
                    assert_eq!(automaton.occurrences(at.state), count(pattern), "{pattern:?} in {text:?}");
                    let children = automaton.children(at.state, 99);
                    for &(token, state) in &children {
                        let longer = [pattern, &[token]].concat();
                        if longer.len() <= COUNTED {
                            assert_eq!(automaton.occurrences(state), count(&longer), "{longer:?} in {text:?}");
                        }
                    }
                    if at.len < COUNTED as u32 {
                        let most = children.iter().map(|child| automaton.occurrences(child.1)).max();
                        let best = automaton.likeliest(at.state).map(|best| automaton.occurrences(best.1));
                        assert_eq!(best, most);
                        assert_eq!(children.len() as u32 > 0, count(pattern) > 1, "{pattern:?} in {text:?}");
                    }
                    at = automaton.shorter(at.state).expect("not the root");
                }
            }
        }
    }

    #[test]
    fn a_token_costs_the_same_at_the_end_of_a_hundred_thousand() {
        let noise = random(100_000, 5_000, 7);
        let words = (0..100_000u32).map(|at| pcg4d([at / 7 % 900, at % 7, 3, 4])[0] % 2_000).collect();
        let texts = [("noise", noise), ("words", words), ("one token", vec![5; 100_000])];
        for (name, text) in texts {
            let mut automaton = Automaton::new(true);
            let mut work = |range: std::ops::Range<usize>| {
                let before = automaton.work;
                text[range].iter().for_each(|&token| automaton.push(token));
                (automaton.work - before) as f64 / 10_000.0
            };
            let (first, rest) = (work(0..10_000), (1..10).map(|at| work(at * 10_000..(at + 1) * 10_000)));
            for later in rest {
                assert!(later < first * 1.5 + 8.0, "{name}: {first} steps a token at first, {later} later");
            }
            assert!(automaton.states.len() <= 2 * text.len() && automaton.edges.len() <= 3 * text.len(), "{name}");
        }
    }

    #[test]
    fn another_text_is_noticed() {
        let mut automaton = Automaton::new(false);
        automaton.follow(&[1, 2, 3]);
        automaton.follow(&[1, 2, 3, 1, 2]);
        assert_eq!((automaton.repeated().len, automaton.text().len()), (2, 5));
        automaton.follow(&[9, 8, 3, 1, 2, 3]);
        assert_eq!(automaton.text(), [9, 8, 3, 1, 2, 3]);
        automaton.follow(&[9]);
        assert_eq!(automaton.text(), [9], "a shorter text is another one");
    }
}
