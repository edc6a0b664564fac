//! What a round gave: read by everything that learns.

use super::drafters::{DrafterId, WRAPPER_CURSOR};
use super::tree::{Distribution, Node, NodeId, TokenTree};
use crate::plan::RowStats;
use std::rc::Rc;

/// What of the target's rows is wanted beyond the samples. Each costs something, so it is asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Likeliest tokens and entropy of the target's rows: one more kernel, the same submit and map.
    pub stats: bool,
    /// Whole rows of p: one more map.
    pub p: bool,
    /// Drafts carry whole rows of q, and are sampled from them on the host: a submit and a map a draft step.
    pub q: bool,
}

impl Needs {
    /// All that either wants.
    pub fn and(self, other: Needs) -> Needs {
        Needs { stats: self.stats || other.stats, p: self.p || other.p, q: self.q || other.q }
    }
}

/// What came back of one row of the verify pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The target's sample at this node, drawn with the noise of its position.
    pub sample: u32,
    /// Statistics, where needed.
    pub stats: Option<Rc<RowStats>>,
    /// The distribution after processors, temperature and truncation, where needed.
    pub p: Option<Distribution>,
}

impl Row {
    /// A sample and nothing else.
    pub fn of(sample: u32) -> Row {
        Row { sample, stats: None, p: None }
    }
}

/// What an acceptance rule decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted nodes from the root down.
    pub path: Vec<NodeId>,
    /// The token after them: correction or bonus.
    pub next: u32,
}

/// Where the time of a round went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RoundTiming {
    /// Drafting: host work, and passes of draft models that had a submit of their own.
    pub draft_ms: f64,
    /// The verify pass, with the draft steps that ran inside its submit.
    pub verify_ms: f64,
    /// Passes of draft models.
    pub draft_steps: usize,
    /// Those of them that ran inside the verify pass's submit.
    pub inner_steps: usize,
    /// A draft model caught up on the way: these times say nothing of what rounds cost.
    pub caught_up: bool,
    /// A plain step that was submitted before the last round was read: it was waited for only in part.
    pub ahead: bool,
    /// The next step was submitted before this one was read: it ran, or was made, while this one was waited for.
    pub followed: bool,
}

/// A finished round.
#[derive(Debug, Clone)]
pub struct RoundOutcome {
    /// Tokens committed before the round, the root included.
    pub context_len: usize,
    /// What was drafted, all tokens known.
    pub tree: TokenTree,
    /// One a node, rejected ones included.
    pub rows: Vec<Row>,
    /// What was kept.
    pub verdict: Verdict,
    /// Times.
    pub timing: RoundTiming,
}

impl RoundOutcome {
    /// Tokens of the accepted nodes.
    pub fn accepted(&self) -> Vec<u32> {
        self.verdict.path.iter().filter_map(|&node| self.tree.node(node).token).collect()
    }

    /// Tokens the round wrote: the accepted ones, then the next.
    pub fn emitted(&self) -> Vec<u32> {
        let mut tokens = self.accepted();
        tokens.push(self.verdict.next);
        tokens
    }

    /// Nodes whose parent was accepted (or is the root), with whether they were accepted themselves: the only nodes whose
    /// fate says something about P(accepted | parent accepted).
    pub fn judged(&self) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let kept = |node: NodeId| node == NodeId::ROOT || self.verdict.path.contains(&node);
        self.tree.ids().skip(1).filter(move |&id| kept(self.tree.node(id).parent)).map(move |id| (id, kept(id)))
    }

    /// Of those, the ones that this drafter offered, by its own cursors: what a drafter around it added, or drafted by a model
    /// instead, is not among them.
    pub fn judged_of(&self, me: DrafterId) -> impl Iterator<Item = (usize, bool)> + '_ {
        let own = move |node: &Node| node.source == Some(me) && (1..WRAPPER_CURSOR).contains(&node.cursor);
        let judged = self.judged().map(|(id, accepted)| (self.tree.node(id), accepted));
        judged.filter(move |(node, _)| own(node)).map(|(node, accepted)| (node.cursor as usize, accepted))
    }
}

/// Drafted and accepted of one drafter, or of one depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Tokens drafted.
    pub drafted: u64,
    /// Of these, accepted.
    pub accepted: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: Tally) {
        self.drafted += other.drafted;
        self.accepted += other.accepted;
    }
}

/// Totals over the rounds of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Passes of the target after prefill, those without a draft included.
    pub rounds: u64,
    /// Rounds that had a draft.
    pub drafted_rounds: u64,
    /// Tokens drafted and accepted.
    pub all: Tally,
    /// By depth, depth 1 first.
    pub by_depth: Vec<Tally>,
    /// By drafter, in the order of the configuration.
    pub by_drafter: Vec<Tally>,
    /// Sums over target rows with statistics of H(p) and Σ p ln² p, and their number: for the bound of
    /// Pankratov and Alistarh.
    pub moments: (f64, f64, u64),
    /// Nodes of the verify passes, roots included.
    pub verified: u64,
    /// Milliseconds of drafting.
    pub draft_ms: f64,
    /// Milliseconds of verify passes.
    pub verify_ms: f64,
}

impl Totals {
    /// Adds a round.
    pub fn add(&mut self, outcome: &RoundOutcome) {
        let tree = &outcome.tree;
        self.rounds += 1;
        self.drafted_rounds += u64::from(tree.drafted() > 0);
        self.verified += tree.nodes().len() as u64;
        self.draft_ms += outcome.timing.draft_ms;
        self.verify_ms += outcome.timing.verify_ms;
        for id in tree.ids().skip(1) {
            let node = tree.node(id);
            let accepted = outcome.verdict.path.contains(&id);
            let drafter = node.source.unwrap_or(DrafterId(0)).0 as usize;
            for (tallies, at) in [(&mut self.by_depth, node.depth - 1), (&mut self.by_drafter, drafter)] {
                if tallies.len() <= at {
                    tallies.resize(at + 1, Tally::default());
                }
                tallies[at].drafted += 1;
                tallies[at].accepted += u64::from(accepted);
            }
            self.all.drafted += 1;
            self.all.accepted += u64::from(accepted);
        }
        for stats in outcome.rows.iter().filter_map(|row| row.stats.as_deref()) {
            self.moments.0 += f64::from(stats.entropy);
            self.moments.1 += f64::from(stats.second_moment);
            self.moments.2 += 1;
        }
    }

    /// Accepted share of the drafted tokens; 0 where nothing was drafted.
    pub fn acceptance_rate(&self) -> f64 {
        if self.all.drafted == 0 { 0.0 } else { self.all.accepted as f64 / self.all.drafted as f64 }
    }

    /// `1 + accepted / rounds`: tokens a target pass gives, bonus token included.
    pub fn mean_acceptance_length(&self) -> f64 {
        if self.rounds == 0 { 1.0 } else { 1.0 + self.all.accepted as f64 / self.rounds as f64 }
    }

    /// Columns that a pass with a draft verified on average, the root included; `None` where nothing was drafted.
    pub fn mean_columns(&self) -> Option<f64> {
        let plain = self.rounds - self.drafted_rounds;
        (self.drafted_rounds > 0).then(|| (self.verified - plain) as f64 / self.drafted_rounds as f64)
    }

    /// The most tokens a pass over this many nodes can give on average by deterministic drafts, up to O(1):
    /// `(μ + μ₂) ln P / μ²` with μ the mean of H(p), μ₂ that of Σ p ln² p and P the mean number of nodes (Pankratov and
    /// Alistarh, "Optimal speculative decoding": the bound of the branching process). `None` without row statistics.
    pub fn bound(&self) -> Option<f64> {
        let (entropy, second, rows) = self.moments;
        if rows == 0 || entropy <= 0.0 {
            return None;
        }
        let (mu, mu2) = (entropy / rows as f64, second / rows as f64);
        let nodes = (self.verified as f64 / self.rounds as f64).max(1.0);
        Some((mu + mu2) * nodes.ln() / (mu * mu))
    }
}
