//! `survival`: stops once the whole draft is likely to break (SpecDec++, whose theorem makes this the best rule for a fixed
//! cost ratio).
//!
//! Stop if `1 - Π â > h` on the best new path, `h = 0.3`, after 2 tokens at least and 20 at most. Its trained head is
//! `platt(confidence)` here: the same features, calibrated online. State: the estimator's.

use super::stopping::{StopRule, Stopping};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "survival",
    paper: "SpecDec++, arXiv 2405.19715",
    about: "stops once the whole draft is likely to break",
    needs: "",
    options: &[
        OptionSpec {
            key: "survival_stop",
            about: "P(the draft breaks) above which drafting stops",
            default: 0.3,
            min: 0.0,
            max: 1.0,
        },
        OptionSpec { key: "survival_min", about: "fewest tokens of a draft", default: 2.0, min: 1.0, max: 31.0 },
        OptionSpec { key: "survival_max", about: "most tokens of a draft", default: 20.0, min: 1.0, max: 31.0 },
    ],
    test: "length::survival",
    make: Make::Length(|setup| {
        let rule = Survival {
            stop: setup.option("survival_stop") as f32,
            least: setup.count("survival_min"),
            most: setup.count("survival_max"),
        };
        Ok(Box::new(Stopping::new(setup, "platt(confidence)", |_| rule)?))
    }),
};

/// The rule.
#[derive(Debug, Clone, Copy)]
pub struct Survival {
    /// P(the draft breaks) above which drafting stops.
    pub stop: f32,
    /// Fewest tokens.
    pub least: usize,
    /// Most tokens.
    pub most: usize,
}

impl StopRule for Survival {
    fn name(&self) -> &'static str {
        "survival"
    }

    fn stops(&self, tree: &TokenTree, new: &[NodeId]) -> bool {
        let best = new.iter().map(|&node| tree.node(node).survival).fold(0.0, f32::max);
        tree.depth() >= self.least && 1.0 - best > self.stop
    }

    fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Kind, MEASURED, Trace, mixed};

    #[test]
    fn stops_once_the_draft_is_likelier_to_break_than_allowed() {
        let trace = Trace { claims: |alpha, _| alpha, ..Trace::new(Kind::Steps, MEASURED, &mixed) };
        for outcome in &trace.replay("length=survival,estimator=confidence", 300).outcomes {
            let survival: Vec<f32> = outcome.tree.nodes()[1..].iter().map(|node| node.survival).collect();
            let broken = survival.iter().position(|&survival| 1.0 - survival > 0.3).map_or(15, |at| at + 1);
            assert_eq!(survival.len(), broken.max(2), "{survival:?}");
        }
    }

    /// methods.md §4.2.2: calibrated estimates, and goodput at least that of the best fixed length less 2 %.
    #[test]
    fn it_keeps_up_with_the_best_fixed_length() {
        let claims = |alpha: f32, _: bool| alpha.sqrt();
        let trace = Trace { claims, step_ms: 0.3, ..Trace::new(Kind::Steps, [1.0, 1.05, 1.1, 1.2, 1.4], &mixed) };
        let (best, rate) = trace.best_fixed(1500);
        let own = trace.replay("length=survival", 1500).rate(0..1500);
        assert!(own > 0.98 * rate, "{own}, fixed {best} gives {rate}");
    }
}
