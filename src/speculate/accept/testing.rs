//! Small rows and trees for the rules' own tests, and the exact law of a verdict.

use super::{AcceptanceRule, ProposalKind};
use crate::sampling::pcg4d;
use crate::speculate::chance::Branches;
use crate::speculate::drafters::DrafterId;
use crate::speculate::outcome::{Row, Verdict};
use crate::speculate::tree::{Candidate, Distribution, DraftStats, NodeId, Proposal, TokenTree};

/// Random rows over four tokens, some of them with zeros.
pub(crate) struct Toy {
    p: Vec<Distribution>,
    q: Vec<Distribution>,
}

impl Toy {
    pub(crate) fn new(seed: u32) -> Toy {
        let rows = |which: u32| (0..64).map(|row| random_row([seed, which, row], 4).into()).collect();
        Toy { p: rows(0), q: rows(1) }
    }

    /// A row of the target.
    pub(crate) fn p(&self, row: usize) -> Distribution {
        self.p[row % 64].clone()
    }

    /// A row of the draft.
    pub(crate) fn q(&self, row: usize) -> Distribution {
        self.q[row % 64].clone()
    }

    fn candidate(&self, token: u32, kind: ProposalKind, row: usize) -> Candidate {
        let proposal = match kind {
            ProposalKind::Deterministic => Proposal::Deterministic,
            ProposalKind::Sampled => Proposal::Sampled(self.q(row)),
            ProposalKind::SampledWor => Proposal::SampledWor(self.q(row)),
        };
        Candidate { proposal, ..Candidate::new(token, DraftStats::of_probability(0.5)) }
    }

    /// Siblings below the root, drawn from q of this row.
    pub(crate) fn siblings(&self, drawn: &[(u32, ProposalKind)], row: usize) -> TokenTree {
        let mut tree = TokenTree::new(0);
        for &(token, kind) in drawn {
            tree.attach(NodeId::ROOT, &self.candidate(token, kind, row), DrafterId(0));
        }
        tree
    }

    /// A chain, node i drawn from q of row `row + i`.
    pub(crate) fn chain(&self, drawn: &[(u32, ProposalKind)], row: usize) -> TokenTree {
        let mut tree = TokenTree::new(0);
        let mut at = NodeId::ROOT;
        for (depth, &(token, kind)) in drawn.iter().enumerate() {
            at = tree.attach(at, &self.candidate(token, kind, row + depth), DrafterId(0)).expect("room").0;
        }
        tree
    }

    /// The target's rows: of the root `row`, of node i `row + i`.
    pub(crate) fn rows(&self, tree: &TokenTree, row: usize) -> Vec<Row> {
        rows(tree.ids().map(|id| self.p(row + id.index())))
    }
}

/// Rows with a sample that tests can tell from draws.
pub(crate) fn rows(all: impl Iterator<Item = Distribution>) -> Vec<Row> {
    all.map(|p| Row { p: Some(p), ..Row::of(99) }).collect()
}

/// A random distribution; two in five tokens have no probability.
pub(crate) fn random_row(seed: [u32; 3], size: usize) -> Vec<f64> {
    let draw = |token: usize, which: u32| {
        let bits = pcg4d([seed[0], seed[1] << 8 | which, seed[2], token as u32])[0];
        (f64::from(bits) + 0.5) / 4_294_967_296.0
    };
    let some = pcg4d([seed[0], seed[1], seed[2], 999])[0] as usize % size;
    let weight = |token: usize| if draw(token, 0) < 0.4 && token != some { 0.0 } else { -draw(token, 1).ln() };
    let weights: Vec<f64> = (0..size).map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// Every verdict with its probability.
pub(crate) fn law(rule: &mut dyn AcceptanceRule, tree: &TokenTree, rows: &[Row]) -> Vec<(Verdict, f64)> {
    let mut all = Vec::new();
    Branches::walk(|chance| rule.verify(tree, rows, &mut *chance.borrow_mut()), |p, verdict| all.push((verdict, p)));
    all
}

/// Expected number of tokens of a verdict.
pub(crate) fn mean_length(rule: &mut dyn AcceptanceRule, tree: &TokenTree, rows: &[Row]) -> f64 {
    law(rule, tree, rows).iter().map(|(verdict, p)| p * (verdict.path.len() + 1) as f64).sum()
}

/// Law of the first token.
pub(crate) fn token_law(tree: &TokenTree, law: &[(Verdict, f64)]) -> [f64; 4] {
    let mut sum = [0.0; 4];
    for (verdict, p) in law {
        let first = verdict.path.first().and_then(|&node| tree.node(node).token).unwrap_or(verdict.next);
        sum[first as usize] += p;
    }
    sum
}
