//! How long a draft would best have been, were the text known: the bar for length policies.
//!
//! Drafts are those of the configuration; of each, what is worth most time is verified, as in
//! [`crate::speculate::length::goodput`] with survival replaced by what the text says.

use crate::speculate::cost::CostModel;
use crate::speculate::length::{LengthPolicy, Signals};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{NodeId, TokenTree};
use std::rc::Rc;

/// Knows the text.
pub(super) struct Oracle {
    /// What a draft is made by: shapes ask it how likely nodes are.
    pub(super) inner: Box<dyn LengthPolicy>,
    /// Prompt and answer.
    pub(super) text: Rc<[u32]>,
    /// What passes cost.
    pub(super) cost: CostModel,
    /// Tokens per millisecond that the whole text can have: what time is worth.
    pub(super) rate: f64,
}

impl LengthPolicy for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        signals.room
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        self.inner.estimate(tree, node)
    }

    fn keep(&mut self, tree: &TokenTree, signals: &Signals<'_>) -> usize {
        let mut right = vec![false; tree.nodes().len()];
        right[NodeId::ROOT.index()] = true;
        let mut accepted = 0;
        let mut best = (0, 1.0 - self.rate * self.cost.plain_ms());
        for (at, id) in tree.by_survival().into_iter().enumerate() {
            let node = tree.node(id);
            let wanted = self.text.get(signals.context_len + node.depth - 1).copied();
            right[id.index()] = right[node.parent.index()] && node.token == wanted;
            accepted += usize::from(right[id.index()]);
            let gain = (1 + accepted) as f64 - self.rate * self.cost.verify_ms(at + 2);
            if gain > best.1 {
                best = (at + 1, gain);
            }
        }
        best.0
    }

    fn looks_ahead(&self) -> bool {
        true
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        self.inner.observe(outcome);
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}
