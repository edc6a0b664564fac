//! `greedy`: walk while the target's likeliest token is a child (Stern et al., arXiv 1811.03115). Keeps no state.
//!
//! At temperature 0 the same tokens as plain decoding. At any other temperature what is written is the greedy text all the
//! same, not a sample: what changes is that nothing is drawn. Equals go to the lowest id, as in the sampler.

use super::match_samples::walk;
use super::{AcceptanceRule, Chance, Exactness, ProposalKind};
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, Row, Verdict};
use crate::speculate::tree::TokenTree;

/// This method.
pub static METHOD: Method = Method {
    name: "greedy",
    paper: "blockwise parallel decoding, arXiv 1811.03115",
    about: "walk while the likeliest token is in the tree; above temperature 0 it writes the greedy text too",
    needs: "stats",
    options: &[],
    test: "accept::greedy",
    make: Make::Accept(|_| Ok(Box::new(Greedy)), Exactness::GreedyOnly),
};

/// The rule; it keeps no state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Greedy;

impl AcceptanceRule for Greedy {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn needs(&self) -> Needs {
        Needs { stats: true, ..Needs::default() }
    }

    fn supports(&self, _: ProposalKind) -> bool {
        true
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[Row], _: &mut dyn Chance) -> Verdict {
        walk(tree, |node| {
            let row = &rows[node.index()];
            row.stats.as_ref().and_then(|stats| stats.top.first()).map_or(row.sample, |&(token, _)| token)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RowStats;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::tree::NodeId;
    use std::rc::Rc;

    #[test]
    fn follows_the_likeliest_token_and_not_the_sample() {
        let row = |likeliest: u32, sample: u32| {
            let top = vec![(likeliest, -0.5), (sample, -1.0)];
            let stats = RowStats { entropy: 1.0, second_moment: 1.0, sample_logp: -1.0, top, drawn: Vec::new() };
            Row { stats: Some(Rc::new(stats)), ..Row::of(sample) }
        };
        let tree = TokenTree::chain(1, &[5, 6], DrafterId(0));
        let verdict = Greedy.verify(&tree, &[row(5, 8), row(6, 8), row(7, 8)], &mut KeyedChance::new(0, 0));
        assert_eq!(verdict, Verdict { path: vec![NodeId(1), NodeId(2)], next: 7 });
        let verdict = Greedy.verify(&tree, &[row(5, 5), row(9, 6), row(7, 8)], &mut KeyedChance::new(0, 0));
        assert_eq!(verdict, Verdict { path: vec![NodeId(1)], next: 9 });
    }
}
