//! `recycling`: Token Recycling (Luo et al., arXiv 2408.08696). `table[token]` = the target's 8 likeliest successors the last
//! time it saw `token`; a draft is a walk through the table from the last token, wide where the shape wants it.
//!
//! Learns from every verified row, rejected ones included, those of the accepted path last. State: 32 bytes a token seen, of
//! at most [`MAX_TABLE_TOKENS`] ids; how often each rank was right, by depth.

use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, Rate, each_leaf};
use crate::error::Result;
use crate::plan::TOP;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{Candidate, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "recycling",
    paper: "Token Recycling, arXiv 2408.08696",
    about: "the target's likeliest successors of each token, as it last saw it",
    needs: "stats",
    options: &[],
    test: "drafters::recycling",
    make: Make::Drafter(|_| Ok(Box::new(Recycling::default()))),
};

/// Ids that have a row; the largest vocabularies have as many. 8 MB.
pub const MAX_TABLE_TOKENS: usize = 1 << 18;
const NONE: u32 = u32::MAX;
/// Depths that are told apart.
const DEPTHS: usize = 3;
/// Depth of the published tree.
const TOKENS: usize = 6;

/// Successors by token.
pub struct Recycling {
    table: Vec<[u32; TOP]>,
    /// By depth of the candidate, the deepest together, and rank.
    rates: [[Rate; TOP]; DEPTHS],
}

impl Default for Recycling {
    fn default() -> Self {
        // A successor is likelier to be right where its parent was.
        let first = [0.12, 0.35, 0.6];
        let prior = |depth: usize, rank| Rate::new(first[depth] * 0.5f32.powi(rank as i32));
        let rates = std::array::from_fn(|depth| std::array::from_fn(|rank| prior(depth, rank)));
        Recycling { table: Vec::new(), rates }
    }
}

impl Recycling {
    fn learn(&mut self, token: u32, successors: impl Iterator<Item = u32>) {
        let at = token as usize;
        if at >= MAX_TABLE_TOKENS {
            return;
        }
        if at >= self.table.len() {
            self.table.resize(at + 1, [NONE; TOP]);
        }
        let mut row = [NONE; TOP];
        row.iter_mut().zip(successors).for_each(|(place, token)| *place = token);
        self.table[at] = row;
    }

    fn candidates(&self, token: u32, depth: usize, width: usize) -> Vec<Candidate> {
        let row = self.table.get(token as usize).into_iter().flatten().take_while(|&&token| token != NONE).take(width);
        let depth = depth.min(DEPTHS - 1);
        let cursor = |rank: usize| (depth * TOP + rank + 1) as u32;
        let ranked = row.zip(&self.rates[depth]).enumerate();
        ranked.map(|(rank, (&token, rate))| Candidate::new(token, rate.stats()).at(cursor(rank))).collect()
    }
}

impl Drafter for Recycling {
    fn name(&self) -> &'static str {
        "recycling"
    }

    fn default_tokens(&self) -> usize {
        TOKENS
    }

    fn needs(&self) -> Needs {
        Needs { stats: true, ..Needs::default() }
    }

    fn expand(&mut self, _: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| {
            let node = tree.node(leaf);
            node.token.map_or_else(Vec::new, |token| self.candidates(token, node.depth, ask.width))
        }))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        let tree = &outcome.tree;
        for (cursor, accepted) in outcome.judged_of(me) {
            self.rates[(cursor - 1) / TOP][(cursor - 1) % TOP].learn(accepted);
        }
        let blind = outcome.rows.iter().all(|row| row.stats.is_none());
        let kept = |node: &NodeId| *node == NodeId::ROOT || outcome.verdict.path.contains(node);
        let rejected = tree.ids().filter(|node| !kept(node));
        for node in rejected.chain(tree.ids().filter(kept)) {
            let (Some(token), Some(row)) = (tree.node(node).token, outcome.rows.get(node.index())) else { continue };
            match row.stats.as_deref().filter(|stats| !stats.top.is_empty()) {
                Some(stats) => self.learn(token, stats.top.iter().map(|top| top.0)),
                None if !blind => {}
                None => {
                    // Nothing but samples is known: they go to the front.
                    let known = self.table.get(token as usize).copied().unwrap_or([NONE; TOP]);
                    let others = known.into_iter().filter(|&token| token != row.sample);
                    self.learn(token, std::iter::once(row.sample).chain(others));
                }
            }
        }
    }

    fn reset(&mut self) {
        *self = Recycling::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{replay, simulated};
    use super::*;
    use crate::plan::RowStats;
    use crate::sampling::pcg4d;
    use std::rc::Rc;

    /// A text that goes round 50 words, with a word of its own in every tenth place.
    fn repetitive() -> Vec<u32> {
        let noise = |at: u32| 1000 + pcg4d([at, 1, 2, 3])[0] % 1000;
        (0..1000).map(|at| if at % 10 == 9 { noise(at) } else { at % 50 }).collect()
    }

    #[test]
    fn repetition_pays_once_its_rows_were_seen() {
        let text = repetitive();
        let mut target = simulated(text.clone());
        let top = |at: usize| vec![(text.get(at + 1).copied().unwrap_or(0), -0.1), (7, -3.0)];
        let stats =
            |at| RowStats { entropy: 0.5, second_moment: 0.3, sample_logp: -0.1, top: top(at), drawn: Vec::new() };
        target.stats = (0..text.len()).map(|at| Some(Rc::new(stats(at)))).collect();
        let outcomes = replay(&target, Box::new(Recycling::default()), 1, TOKENS);
        let length = |from: usize, to: usize| {
            let rounds: Vec<_> = outcomes.iter().filter(|round| (from..to).contains(&round.context_len)).collect();
            rounds.iter().map(|round| round.verdict.path.len() + 1).sum::<usize>() as f64 / rounds.len() as f64
        };
        assert_eq!(length(0, 45), 1.0, "nothing is known at the start");
        println!("mean acceptance length after 200 tokens: {:.2}", length(200, 1000));
        assert!(length(200, 1000) > 1.3, "{}", length(200, 1000));
        target.stats.clear();
        let blind = replay(&target, Box::new(Recycling::default()), 1, TOKENS);
        assert!(blind.len() < 900, "the samples alone teach something: {} rounds", blind.len());
    }

    #[test]
    fn the_table_is_bounded_and_wide() {
        let mut recycling = Recycling::default();
        recycling.learn(5, [9, 8, 7].into_iter());
        recycling.learn(u32::MAX - 1, [1].into_iter());
        let tokens: Vec<u32> = recycling.candidates(5, 0, 8).iter().map(|candidate| candidate.token).collect();
        assert_eq!((tokens, recycling.table.len()), (vec![9, 8, 7], 6));
        assert!(recycling.candidates(4, 0, 8).is_empty() && recycling.candidates(u32::MAX, 1, 8).is_empty());
    }
}
