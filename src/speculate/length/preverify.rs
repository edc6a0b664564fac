//! `preverify`: drafts block by block while each block scores well, more strictly from block to block (PACER's rule with any
//! estimator in place of its trained layer; reconstruction from the abstract, the numbers are ours).
//!
//! The score of a block of b = 4 tokens is the mean of `â`; drafting goes on while `score ≥ t·gʲ` for block j = 0, 1, …, with
//! t = 0.6 and g = 1.1. The block that failed is kept, without which sampled drafts would be biased. State: the estimator's.

use super::chunked::deepest_path;
use super::stopping::{StopRule, Stopping};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "preverify",
    paper: "PACER, reconstruction from the abstract",
    about: "block after block while each scores above a threshold that rises",
    needs: "",
    options: &[
        OptionSpec { key: "preverify_block", about: "tokens of a block", default: 4.0, min: 1.0, max: 31.0 },
        OptionSpec {
            key: "preverify_threshold",
            about: "score that the first block must reach",
            default: 0.6,
            min: 0.0,
            max: 1.0,
        },
        OptionSpec {
            key: "preverify_growth",
            about: "threshold of a block over that of the one before",
            default: 1.1,
            min: 1.0,
            max: 4.0,
        },
    ],
    test: "length::preverify",
    make: Make::Length(|setup| {
        let rule = Preverify {
            block: setup.count("preverify_block"),
            threshold: setup.option("preverify_threshold") as f32,
            growth: setup.option("preverify_growth") as f32,
        };
        Ok(Box::new(Stopping::new(setup, "platt(confidence)", |_| rule)?))
    }),
};

/// The rule.
#[derive(Debug, Clone, Copy)]
pub struct Preverify {
    /// Tokens of a block.
    pub block: usize,
    /// Score that the first block must reach.
    pub threshold: f32,
    /// Threshold of a block over that of the one before.
    pub growth: f32,
}

impl StopRule for Preverify {
    fn name(&self) -> &'static str {
        "preverify"
    }

    fn stops(&self, tree: &TokenTree, new: &[NodeId]) -> bool {
        let path = deepest_path(tree, new);
        if path.is_empty() || !path.len().is_multiple_of(self.block) {
            return false;
        }
        let block = &path[path.len() - self.block..];
        let score = block.iter().map(|&node| tree.node(node).a_hat).sum::<f32>() / self.block as f32;
        let before = path.len() / self.block - 1;
        score < self.threshold * self.growth.powi(before as i32)
    }

    fn most(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Kind, MEASURED, Trace, mixed};

    #[test]
    fn the_failing_block_is_kept_and_later_blocks_must_score_more() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Steps, MEASURED, &mixed) };
        let config = "length=preverify,estimator=confidence,preverify_block=3,preverify_growth=1.25";
        let replay = trace.replay(config, 600);
        let mut late = 0;
        for outcome in &replay.outcomes {
            let claims: Vec<f32> = outcome.tree.nodes()[1..].iter().map(|node| node.stats.logq.exp()).collect();
            let score = |block: &[f32]| block.iter().sum::<f32>() / 3.0;
            let blocks = claims.chunks(3).enumerate();
            let fails = |&(at, block): &(usize, &[f32])| score(block) < 0.6 * 1.25_f32.powi(at as i32) - 1e-4;
            let failing = blocks.clone().find(fails).map_or(15, |(at, _)| 3 * (at + 1));
            assert_eq!(claims.len(), failing, "{claims:?}");
            late += usize::from(failing > 3 && failing < 15 && score(&claims[failing - 3..]) >= 0.6);
        }
        assert!(late > 0, "some block would have done as the first one");
    }
}
