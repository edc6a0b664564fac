//! What a round gave: read by everything that learns.

use super::tree::{NodeId, TokenTree};

/// What came back of one row of the verify pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowStats {
    /// The target's sample at this node, drawn with the noise of its position.
    pub sample: u32,
}

/// What an acceptance rule decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted nodes from the root down.
    pub path: Vec<NodeId>,
    /// The token after them: correction or bonus.
    pub next: u32,
}

/// A finished round.
#[derive(Debug, Clone)]
pub struct RoundOutcome {
    /// What was drafted, all tokens known.
    pub tree: TokenTree,
    /// One a node.
    pub rows: Vec<RowStats>,
    /// What was kept.
    pub verdict: Verdict,
}

impl RoundOutcome {
    /// Tokens of the accepted nodes.
    pub fn accepted(&self) -> Vec<u32> {
        self.verdict.path.iter().filter_map(|&node| self.tree.node(node).token).collect()
    }
}

/// Totals over the rounds of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Passes of the target after prefill, those without a draft included.
    pub rounds: u64,
    /// Rounds that had a draft.
    pub drafted_rounds: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Of these, tokens accepted.
    pub accepted: u64,
    /// Drafted and accepted by depth, depth 1 first.
    pub by_depth: Vec<(u64, u64)>,
}

impl Totals {
    /// Adds a round.
    pub fn add(&mut self, outcome: &RoundOutcome) {
        self.rounds += 1;
        self.drafted_rounds += u64::from(outcome.tree.drafted() > 0);
        self.drafted += outcome.tree.drafted() as u64;
        self.accepted += outcome.verdict.path.len() as u64;
        for node in &outcome.tree.nodes()[1..] {
            if self.by_depth.len() < node.depth {
                self.by_depth.resize(node.depth, (0, 0));
            }
            self.by_depth[node.depth - 1].0 += 1;
        }
        for &node in &outcome.verdict.path {
            self.by_depth[outcome.tree.node(node).depth - 1].1 += 1;
        }
    }

    /// Accepted share of the drafted tokens; 0 where nothing was drafted.
    pub fn acceptance_rate(&self) -> f64 {
        if self.drafted == 0 { 0.0 } else { self.accepted as f64 / self.drafted as f64 }
    }

    /// `1 + accepted / rounds`: tokens a target pass gives, bonus token included.
    pub fn mean_acceptance_length(&self) -> f64 {
        if self.rounds == 0 { 1.0 } else { 1.0 + self.accepted as f64 / self.rounds as f64 }
    }
}
