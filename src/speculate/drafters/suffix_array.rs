//! A suffix array (Manber and Myers 1990) of a text that does not change: longest matches and what follows them, at 8 bytes
//! a token, a tenth of what an automaton takes.
//!
//! Suffixes are compared by their first [`DEPTH`] tokens, which bounds the work of sorting a text that repeats itself.

use std::cmp::Ordering;
use std::ops::Range;

/// Longest match that is told from a longer one.
pub const DEPTH: usize = 64;
/// Places of a match that are looked at for what follows.
const MAX_LOOKED_AT: usize = 64;

/// A text and the order of its suffixes.
#[derive(Debug, Clone)]
pub struct SuffixArray {
    text: Vec<u32>,
    order: Vec<u32>,
}

/// Where a pattern occurs: a range of suffixes that begin with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Of the sorted suffixes.
    pub range: Range<usize>,
    /// Tokens of the pattern.
    pub len: usize,
}

impl SuffixArray {
    /// Sorts the suffixes of a text.
    pub fn new(text: Vec<u32>) -> SuffixArray {
        let mut order: Vec<u32> = (0..text.len() as u32).collect();
        let head = |at: u32| &text[at as usize..text.len().min(at as usize + DEPTH)];
        order.sort_unstable_by(|&a, &b| head(a).cmp(head(b)).then(a.cmp(&b)));
        SuffixArray { text, order }
    }

    /// The text.
    pub fn text(&self) -> &[u32] {
        &self.text
    }

    /// The longest suffix of `tokens` that occurs, of at most [`DEPTH`] tokens.
    pub fn longest_suffix(&self, tokens: &[u32]) -> Found {
        let (mut best, mut least) = (Found { range: 0..self.order.len(), len: 0 }, 1);
        let mut most = tokens.len().min(DEPTH);
        // If a suffix occurs, all shorter ones do.
        while least <= most {
            let len = (least + most) / 2;
            let found = self.find(&tokens[tokens.len() - len..]);
            if found.range.is_empty() {
                most = len - 1;
            } else {
                (best, least) = (found, len + 1);
            }
        }
        best
    }

    /// Where a pattern of at most [`DEPTH`] tokens occurs.
    pub fn find(&self, pattern: &[u32]) -> Found {
        let compare = |&at: &u32| {
            let at = at as usize;
            self.text[at..self.text.len().min(at + pattern.len())].cmp(pattern)
        };
        let from = self.order.partition_point(|at| compare(at) == Ordering::Less);
        let len = self.order[from..].partition_point(|at| compare(at) == Ordering::Equal);
        Found { range: from..from + len, len: pattern.len() }
    }

    /// What follows, most frequent first, at most `most`: the token, and where the pattern occurs with it. Of a pattern that
    /// occurs very often some places are looked at, evenly spread, and so the rarest followers may be missed.
    pub fn children(&self, found: &Found, most: usize) -> Vec<(u32, Found)> {
        if found.len >= DEPTH {
            // Beyond the sorted depth the order says nothing: follow one place.
            let next = found.range.clone().next().and_then(|place| self.after(place, found.len));
            let one = found.range.start..found.range.start + 1;
            return next.map(|token| (token, Found { range: one, len: found.len + 1 })).into_iter().collect();
        }
        let step = found.range.len().div_ceil(MAX_LOOKED_AT).max(1);
        let mut children: Vec<(u32, Found)> = Vec::new();
        let mut place = found.range.start;
        while place < found.range.end {
            let Some(token) = self.after(place, found.len) else {
                // The text's end sorts first.
                place += 1;
                continue;
            };
            let before = children.last().map_or(found.range.start, |(_, child)| child.range.end);
            let same = |ordering: Ordering| {
                move |&at: &u32| {
                    self.text.get(at as usize + found.len).map_or(Ordering::Less, |t| t.cmp(&token)) < ordering
                }
            };
            let from = before + self.order[before..found.range.end].partition_point(same(Ordering::Equal));
            let to = from + self.order[from..found.range.end].partition_point(same(Ordering::Greater));
            children.push((token, Found { range: from..to, len: found.len + 1 }));
            place = to.max(place + step);
        }
        children.sort_by_key(|(_, child)| std::cmp::Reverse(child.range.len()));
        children.truncate(most);
        children
    }

    /// Where a match occurs first, of the places that are looked at.
    pub fn first(&self, found: &Found) -> usize {
        let places = &self.order[found.range.clone()];
        places.iter().take(MAX_LOOKED_AT).min().map_or(0, |&at| at as usize)
    }

    fn after(&self, place: usize, len: usize) -> Option<u32> {
        self.text.get(self.order[place] as usize + len).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::automaton::tests::random;
    use super::*;

    #[test]
    fn finds_what_a_search_finds() {
        for (alphabet, seed) in [(2, 1), (5, 2), (40, 3), (1, 4)] {
            let text = random(300, alphabet, seed);
            let index = SuffixArray::new(text.clone());
            for at in 0..60 {
                let mut query = random(12, alphabet + 1, 100 + at);
                query.extend(&text[at as usize * 3..at as usize * 3 + 5]);
                let count = |pattern: &[u32]| text.windows(pattern.len()).filter(|window| *window == pattern).count();
                let len = (1..=query.len()).rev().find(|&len| count(&query[query.len() - len..]) > 0).unwrap_or(0);
                let found = index.longest_suffix(&query);
                assert_eq!((found.len, found.range.len()), (len, count(&query[query.len() - len..])));
                let children = index.children(&found, 99);
                let mut total = 0;
                for (token, child) in &children {
                    let longer = [&query[query.len() - len..], &[*token]].concat();
                    assert_eq!(child.range.len(), count(&longer));
                    total += child.range.len();
                }
                assert!(found.range.len() - total <= 1, "only the place at the text's end has no child");
                assert!(children.windows(2).all(|pair| pair[0].1.range.len() >= pair[1].1.range.len()));
            }
        }
        assert_eq!(SuffixArray::new(Vec::new()).longest_suffix(&[1, 2]).len, 0);
    }

    #[test]
    fn a_text_that_repeats_itself_is_sorted_in_bounded_work() {
        let index = SuffixArray::new(vec![3; 50_000]);
        let found = index.longest_suffix(&[3; 100]);
        assert_eq!(found.len, DEPTH);
        assert_eq!(index.children(&found, 2)[0].0, 3);
    }
}
