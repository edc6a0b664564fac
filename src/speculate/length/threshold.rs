//! `threshold`: stops at the first token that is in doubt (Hugging Face's assisted generation and Kangaroo with
//! `estimator=confidence`, SVIP with `estimator=entropy`).
//!
//! Stop if `â < threshold`; the token is kept, so any acceptance rule stays exact. Where `threshold` is 0 the estimator's
//! published one holds: 0.4 for `confidence`, 0.7 for `entropy`, 0.5 for the rest. State: the estimator's.

use super::stopping::{StopRule, Stopping};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "threshold",
    paper: "assisted generation, Hugging Face 2023; SVIP, arXiv 2411.18462",
    about: "stops at the first token that is in doubt",
    needs: "",
    options: &[OptionSpec {
        key: "threshold",
        about: "estimate below which drafting stops; 0 for the estimator's published one",
        default: 0.0,
        min: 0.0,
        max: 1.0,
    }],
    test: "length::threshold",
    make: Make::Length(|setup| {
        let given = setup.option("threshold") as f32;
        let rule = Stopping::new(setup, "confidence", |estimator| Threshold {
            least: if given > 0.0 { given } else { estimator.threshold() },
        })?;
        Ok(Box::new(rule))
    }),
};

/// Most tokens: what SVIP allows.
const MOST: usize = 40;

/// The rule.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// The least estimate with which drafting goes on.
    pub least: f32,
}

impl StopRule for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn stops(&self, tree: &TokenTree, new: &[NodeId]) -> bool {
        new.iter().all(|&node| tree.node(node).a_hat < self.least)
    }

    fn most(&self) -> usize {
        MOST
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Kind, MEASURED, Trace, mixed};

    #[test]
    fn stops_after_the_first_doubtful_token_and_keeps_it() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Steps, MEASURED, &mixed) };
        for (config, least) in [("length=threshold", 0.4), ("length=threshold,threshold=0.9", 0.9)] {
            for outcome in &trace.replay(config, 300).outcomes {
                let claims: Vec<f32> = outcome.tree.nodes()[1..].iter().map(|node| node.stats.logq.exp()).collect();
                let (last, before) = claims.split_last().expect("one token at least");
                assert!(before.iter().all(|&claim| claim >= least), "{least}: {claims:?}");
                assert!(*last < least || claims.len() == 15, "{least}: {claims:?}");
            }
        }
    }
}
