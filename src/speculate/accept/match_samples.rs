//! `match`: sample the target at the current node; where a child carries the sample, go there, else emit it and stop.
//!
//! Exact for any tree, since what is emitted is always the target's own sample; and with noise keyed by position it is the
//! very token that plain decoding would draw (Gumbel-max with shared noise; the same law as EAGLE's accept-with-p).

use super::{AcceptanceRule, Exactness};
use crate::speculate::outcome::{RowStats, Verdict};
use crate::speculate::tree::{NodeId, TokenTree};

/// The rule; it keeps no state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Match;

impl AcceptanceRule for Match {
    fn name(&self) -> &'static str {
        "match"
    }

    fn exactness(&self) -> Exactness {
        Exactness::SameTokens
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[RowStats]) -> Verdict {
        let mut path = Vec::new();
        let mut at = NodeId::ROOT;
        loop {
            let next = rows[at.0 as usize].sample;
            match tree.child(at, next) {
                Some(slot) => {
                    at = slot.child;
                    path.push(at);
                }
                None => return Verdict { path, next },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::tree::Proposal;

    fn rows(samples: &[u32]) -> Vec<RowStats> {
        samples.iter().map(|&sample| RowStats { sample }).collect()
    }

    #[test]
    fn walks_while_the_sample_is_a_child() {
        let tree = TokenTree::chain(1, &[5, 6, 7], "test");
        let verdict = Match.verify(&tree, &rows(&[5, 6, 9, 8]));
        assert_eq!(verdict, Verdict { path: vec![NodeId(1), NodeId(2)], next: 9 });
        assert_eq!(Match.verify(&tree, &rows(&[4, 6, 7, 8])), Verdict { path: vec![], next: 4 });
        let all = Match.verify(&tree, &rows(&[5, 6, 7, 8]));
        assert_eq!((all.path.len(), all.next), (3, 8), "a full draft earns the bonus token");
    }

    #[test]
    fn finds_the_sample_among_siblings() {
        let mut tree = TokenTree::new(1);
        let mut add = |parent, token| tree.add(parent, Some(token), Proposal::Deterministic, "test");
        add(NodeId::ROOT, 5);
        let second = add(NodeId::ROOT, 6).expect("room");
        add(second, 7);
        assert_eq!(Match.verify(&tree, &rows(&[6, 0, 7, 9])), Verdict { path: vec![NodeId(2), NodeId(3)], next: 9 });
        assert_eq!(tree.params(10, 0).ancestors[..4], [0b1, 0b11, 0b101, 0b1101]);
    }
}
