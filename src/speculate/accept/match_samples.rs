//! `match`: sample the target at the current node; where a child carries the sample, go there, else emit it and stop.
//!
//! Exact for any tree, since what is emitted is always the target's own sample; and with noise keyed by position it is the
//! very token that plain decoding would draw (Gumbel-max with shared noise; the same law as EAGLE's accept-with-p). No state.

use super::{AcceptanceRule, Chance, Exactness, ProposalKind};
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Row, Verdict};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "match",
    paper: "speculative sampling by coupling; Gumbel-max with position-keyed noise",
    about: "sample the target and walk while the sample is in the tree: the same tokens as plain decoding",
    needs: "",
    options: &[],
    test: "accept::match_samples",
    make: Make::Accept(|_| Ok(Box::new(Match)), Exactness::SameTokens),
};

/// The rule; it keeps no state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Match;

impl AcceptanceRule for Match {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn supports(&self, _: ProposalKind) -> bool {
        true
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[Row], _: &mut dyn Chance) -> Verdict {
        walk(tree, |node| rows[node.index()].sample)
    }
}

/// Goes down while a child carries the token that `next` gives for the node.
pub(super) fn walk(tree: &TokenTree, next: impl Fn(NodeId) -> u32) -> Verdict {
    let mut path = Vec::new();
    let mut at = NodeId::ROOT;
    loop {
        let token = next(at);
        match tree.child(at, token) {
            Some(slot) => {
                at = slot.child;
                path.push(at);
            }
            None => return Verdict { path, next: token },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::tree::{Candidate, DraftStats};

    fn verify(tree: &TokenTree, samples: &[u32]) -> Verdict {
        let rows: Vec<Row> = samples.iter().map(|&sample| Row::of(sample)).collect();
        Match.verify(tree, &rows, &mut KeyedChance::new(0, 0))
    }

    #[test]
    fn walks_while_the_sample_is_a_child() {
        let tree = TokenTree::chain(1, &[5, 6, 7], DrafterId(0));
        assert_eq!(verify(&tree, &[5, 6, 9, 8]), Verdict { path: vec![NodeId(1), NodeId(2)], next: 9 });
        assert_eq!(verify(&tree, &[4, 6, 7, 8]), Verdict { path: vec![], next: 4 });
        let all = verify(&tree, &[5, 6, 7, 8]);
        assert_eq!((all.path.len(), all.next), (3, 8), "a full draft earns the bonus token");
    }

    #[test]
    fn finds_the_sample_among_siblings() {
        let mut tree = TokenTree::new(1);
        let mut add = |parent, token| {
            let candidate = Candidate::new(token, DraftStats::of_probability(0.5));
            tree.attach(parent, &candidate, DrafterId(0)).expect("room").0
        };
        add(NodeId::ROOT, 5);
        let second = add(NodeId::ROOT, 6);
        add(second, 7);
        assert_eq!(verify(&tree, &[6, 0, 7, 9]), Verdict { path: vec![NodeId(2), NodeId(3)], next: 9 });
    }
}
