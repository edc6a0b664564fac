//! `chunked`: drafts chunk after chunk while every token of a chunk is sure (FailFast).
//!
//! After each chunk of N = 10 tokens go on if all of them have `â ≥ 0.45`, at most 60 tokens; the chunk that failed is kept
//! whole, which makes the stop a stopping time. Chunks are levels of depth, so a tree is looked at chunk by chunk too. State:
//! the estimator's.

use super::stopping::{StopRule, Stopping};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "chunked",
    paper: "FailFast, arXiv 2512.20573",
    about: "chunks of tokens, as long as every token of the last one is sure",
    needs: "",
    options: &[
        OptionSpec { key: "chunk_tokens", about: "tokens of a chunk", default: 10.0, min: 1.0, max: 31.0 },
        OptionSpec {
            key: "chunk_confidence",
            about: "estimate that every token of a chunk must reach",
            default: 0.45,
            min: 0.0,
            max: 1.0,
        },
    ],
    test: "length::chunked",
    make: Make::Length(|setup| {
        let rule = Chunked { tokens: setup.count("chunk_tokens"), least: setup.option("chunk_confidence") as f32 };
        Ok(Box::new(Stopping::new(setup, "confidence", |_| rule)?))
    }),
};

/// Most tokens.
const MOST: usize = 60;

/// The rule.
#[derive(Debug, Clone, Copy)]
pub struct Chunked {
    /// Tokens of a chunk.
    pub tokens: usize,
    /// What each must reach.
    pub least: f32,
}

/// The path of the deepest of some nodes from the root down to it.
pub(super) fn deepest_path(tree: &TokenTree, new: &[NodeId]) -> Vec<NodeId> {
    let deepest = new.iter().max_by_key(|&&node| (tree.node(node).depth, std::cmp::Reverse(node)));
    deepest.map_or_else(Vec::new, |&node| tree.path(node))
}

impl StopRule for Chunked {
    fn name(&self) -> &'static str {
        "chunked"
    }

    fn stops(&self, tree: &TokenTree, new: &[NodeId]) -> bool {
        let path = deepest_path(tree, new);
        let ends = !path.is_empty() && path.len().is_multiple_of(self.tokens);
        ends && path[path.len() - self.tokens..].iter().any(|&node| tree.node(node).a_hat < self.least)
    }

    fn most(&self) -> usize {
        MOST
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Kind, MEASURED, Trace, mixed};

    #[test]
    fn the_failing_chunk_is_kept_whole() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Steps, MEASURED, &mixed) };
        let replay = trace.replay("length=chunked,chunk_tokens=4", 400);
        for outcome in &replay.outcomes {
            let claims: Vec<f32> = outcome.tree.nodes()[1..].iter().map(|node| node.stats.logq.exp()).collect();
            let failing = claims.chunks(4).position(|chunk| chunk.iter().any(|&claim| claim < 0.45));
            let expected = failing.map_or(15, |chunk| (4 * (chunk + 1)).min(15));
            assert_eq!(claims.len(), expected, "{claims:?}");
        }
        let lengths = replay.lengths();
        assert!([4, 8, 12].iter().all(|length| lengths.contains(length)), "{lengths:?}");
    }
}
