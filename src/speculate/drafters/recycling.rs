//! `recycling`: Token Recycling (Luo et al., arXiv 2408.08696). `table[token]` = the target's 8 likeliest successors the last
//! time it saw `token`; a draft is a walk through the table from the last token, wide where the shape wants it.
//!
//! Learns from every verified row, rejected ones included, those of the accepted path last. State: 32 bytes a token seen, of
//! at most [`MAX_TABLE_TOKENS`] ids; how often each rank was right.

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
/// Depth of the published tree.
const TOKENS: usize = 6;

/// Successors by token.
pub struct Recycling {
    table: Vec<[u32; TOP]>,
    ranks: [Rate; TOP],
}

impl Default for Recycling {
    fn default() -> Self {
        let prior = |rank: i32| Rate::new(0.3 * 0.5f32.powi(rank));
        Recycling { table: Vec::new(), ranks: std::array::from_fn(|rank| prior(rank as i32)) }
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

    fn candidates(&self, token: u32, width: usize) -> Vec<Candidate> {
        let row = self.table.get(token as usize).into_iter().flatten().take_while(|&&token| token != NONE).take(width);
        let ranked = row.zip(&self.ranks).enumerate();
        ranked.map(|(rank, (&token, rate))| Candidate::new(token, rate.stats()).at(rank as u32 + 1)).collect()
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
            tree.node(leaf).token.map_or_else(Vec::new, |token| self.candidates(token, ask.width))
        }))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        let tree = &outcome.tree;
        for (node, accepted) in outcome.judged() {
            let node = tree.node(node);
            if let Some(rank) =
                self.ranks.get_mut((node.cursor as usize).wrapping_sub(1)).filter(|_| node.source == Some(me))
            {
                rank.learn(accepted);
            }
        }
        let kept = |node: &NodeId| *node == NodeId::ROOT || outcome.verdict.path.contains(node);
        let rejected = tree.ids().filter(|node| !kept(node));
        for node in rejected.chain(tree.ids().filter(kept)) {
            let (Some(token), Some(row)) = (tree.node(node).token, outcome.rows.get(node.index())) else { continue };
            match row.stats.as_deref().filter(|stats| !stats.top.is_empty()) {
                Some(stats) => self.learn(token, stats.top.iter().map(|top| top.0)),
                None => {
                    // Only the sample is known: it goes to the front.
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
