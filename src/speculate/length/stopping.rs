//! Policies that draft on until an estimate says stop: an estimator and a [`StopRule`].
//!
//! The token at which drafting stops is kept, so the length is a stopping time and every acceptance rule stays exact
//! (methods.md §3.5.2). Device drafts come in submits of their own where the estimator must see them; where it goes by the
//! past alone, the length is worked out before from what is expected of each depth, and one submit does.

use super::{AcceptanceEstimator, LengthPolicy, Signals, estimate, estimator_of, settle};
use crate::error::Result;
use crate::speculate::methods::Setup;
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{NodeId, TokenTree};

/// When to stop. Pure.
pub trait StopRule {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// Whether to stop after `new` nodes, whose estimates stand in the tree.
    fn stops(&self, tree: &TokenTree, new: &[NodeId]) -> bool;
    /// Most tokens by this rule, where `num_speculative_tokens` says nothing.
    fn most(&self) -> usize;
}

/// A policy of an estimator and a rule.
pub struct Stopping<R> {
    rule: R,
    estimator: Box<dyn AcceptanceEstimator>,
    cap: Option<usize>,
}

impl<R: StopRule> Stopping<R> {
    /// With the estimator that is configured, or `own`; the rule may ask it for its threshold.
    pub fn new(setup: &Setup<'_>, own: &str, rule: impl FnOnce(&dyn AcceptanceEstimator) -> R) -> Result<Stopping<R>> {
        let estimator = estimator_of(setup, own)?;
        Ok(Stopping { rule: rule(&*estimator), estimator, cap: setup.config.num_speculative_tokens })
    }
}

impl<R: StopRule> LengthPolicy for Stopping<R> {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn needs(&self) -> Needs {
        self.estimator.needs()
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        let most = self.cap.unwrap_or(self.rule.most()).min(signals.room);
        let Some(drafter) = signals.drafter.filter(|_| signals.on_device && !self.estimator.reads_drafts()) else {
            return most;
        };
        let mut tree = TokenTree::new(0);
        let mut at = NodeId::ROOT;
        while tree.drafted() < most {
            let Some(node) = tree.attach_unknown(at, drafter) else { break };
            let expected = self.estimator.expected(drafter, tree.node(node).depth);
            tree.set_estimate(node, expected);
            if self.rule.stops(&tree, &[node]) {
                break;
            }
            at = node;
        }
        tree.drafted()
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        estimate(&mut *self.estimator, tree, node)
    }

    fn stop(&mut self, tree: &TokenTree, new: &[NodeId], _: &Signals<'_>) -> bool {
        self.rule.stops(tree, new)
    }

    fn reads_drafts(&self) -> bool {
        self.estimator.reads_drafts()
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        settle(&mut *self.estimator, outcome);
    }

    fn reset(&mut self) {
        self.estimator.reset();
    }
}
