//! `traversal`: Traversal Verification (arXiv 2505.12398); on a chain it is block verification (Sun et al., arXiv
//! 2403.10444). Depth first, deepest first: a node is a leaf once all its siblings below were rejected, and is then kept,
//! with its whole path, with probability π. Keeps no state.
//!
//! π(root) = 1, π(child) = min(1, π(a) p_a(x)/q_a(x)). Where a child is rejected, its parent b becomes
//! r = (π(b) p_b − q_b)+, s = Σ r, π(b) ← s/(s + 1 − π(b)), p_b ← r/s, and q_b loses the token if it was drawn without
//! replacement. The token after the path is drawn from what is left of its last node's row. Point masses have q = δ_x.
//!
//! Never shorter on average than the top-down rules on the same tree, and exact for all that they are exact for.

use super::residual::{Draft, Residual};
use super::top_down::{ALL_PROPOSALS, Sibling, emit, siblings, whole_row};
use super::{AcceptanceRule, Chance, Exactness, ProposalKind};
use crate::speculate::chance::{Key, Purpose};
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, Row, Verdict};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "traversal",
    paper: "Traversal Verification, arXiv 2505.12398; block verification, arXiv 2403.10444",
    about: "whole paths are kept or rejected from their ends up: the longest drafts of the ratio rules",
    needs: "p, q",
    options: &[],
    test: "accept::traversal",
    make: Make::Accept(|_| Ok(Box::new(Traversal)), Exactness::SameDistribution),
};

/// The rule; it keeps no state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traversal;

/// A node on the path that is looked at.
struct Visit<'a> {
    node: NodeId,
    siblings: Vec<Sibling<'a>>,
    /// The first of them that was not rejected yet.
    next: usize,
    /// π
    keep: f64,
    row: Residual<'a>,
}

impl<'a> Visit<'a> {
    fn new(tree: &'a TokenTree, rows: &'a [Row], node: NodeId, keep: f64) -> Visit<'a> {
        Visit { node, siblings: siblings(tree, node), next: 0, keep, row: Residual::of(whole_row(rows, node)) }
    }

    /// The next sibling below is rejected.
    fn reject(&mut self) {
        let left = self.row.subtract(self.keep, &Draft::among(&self.siblings, self.next));
        let all = left + 1.0 - self.keep;
        if all > 0.0 {
            self.keep = left / all;
        }
        self.next += 1;
    }
}

impl AcceptanceRule for Traversal {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn needs(&self) -> Needs {
        Needs { p: true, q: true, ..Needs::default() }
    }

    fn supports(&self, proposal: ProposalKind) -> bool {
        ALL_PROPOSALS.contains(&proposal)
    }

    fn draws(&self) -> ProposalKind {
        ProposalKind::SampledWor
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[Row], chance: &mut dyn Chance) -> Verdict {
        let mut visited = vec![false; tree.nodes().len()];
        let mut at = Visit::new(tree, rows, NodeId::ROOT, 1.0);
        let mut above: Vec<Visit<'_>> = Vec::new();
        loop {
            if let Some(&Sibling { token, child, .. }) = at.siblings.get(at.next) {
                let keep = Draft::among(&at.siblings, at.next).ratio(token, at.keep * at.row.prob(token));
                // Nothing is left of a token that was rejected, so its second draw falls; as does all below a node that
                // cannot be kept.
                if keep > 0.0 && !std::mem::replace(&mut visited[child.index()], true) {
                    above.push(std::mem::replace(&mut at, Visit::new(tree, rows, child, keep)));
                } else {
                    at.reject();
                }
                continue;
            }
            match above.pop() {
                Some(mut parent) if !chance.bernoulli(Key::new(at.node, 0, Purpose::Accept), at.keep) => {
                    parent.reject();
                    at = parent;
                }
                parent => {
                    let path = above.iter().chain(&parent).chain([&at]).map(|visit| visit.node).skip(1).collect();
                    return Verdict { path, next: emit(at.node, &at.row, chance) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rejection::Rejection;
    use super::super::swor::Swor;
    use super::super::testing::{Toy, law, mean_length};
    use super::super::top_down::TopDown;
    use super::*;
    use ProposalKind::{Sampled, SampledWor};

    /// Block verification by its own formula: the law of the number of drafts that are kept.
    fn block_law(toy: &Toy, drawn: &[(u32, ProposalKind)], row: usize) -> Vec<f64> {
        let mut keep = 1.0;
        let mut stops = vec![1.0];
        for (depth, &(token, _)) in drawn.iter().enumerate() {
            let (p, q) = (toy.p(row + depth), toy.q(row + depth));
            let left: f64 = p.iter().zip(q.iter()).map(|(p, q)| (keep * p - q).max(0.0)).sum();
            stops[depth] = if depth == 0 { 1.0 } else { left / (left + 1.0 - keep) };
            keep = f64::min(1.0, keep * p[token as usize] / q[token as usize]);
            stops.push(keep);
        }
        let mut longer = 1.0;
        let mut law = vec![0.0; stops.len()];
        for (length, &stop) in stops.iter().enumerate().rev() {
            let stop = if stop.is_nan() { 0.0 } else { stop };
            law[length] = longer * stop;
            longer *= 1.0 - stop;
        }
        law
    }

    fn drawn_chains(toy: &Toy, row: usize) -> Vec<(Vec<(u32, ProposalKind)>, f64)> {
        let all = (0..64usize).map(|code| [code / 16, code / 4 % 4, code % 4]);
        all.map(|tokens| {
            let weight = tokens.iter().enumerate().map(|(depth, &token)| toy.q(row + depth)[token]).product();
            (tokens.map(|token| (token as u32, Sampled)).to_vec(), weight)
        })
        .filter(|&(_, weight)| weight > 0.0)
        .collect()
    }

    #[test]
    fn on_a_chain_it_is_block_verification() {
        let toy = Toy::new(8);
        let (mut traversal, mut tokenwise) = (0.0, 0.0);
        for row in (0..40).step_by(4) {
            for (drawn, weight) in drawn_chains(&toy, row) {
                let tree = toy.chain(&drawn, row);
                let rows = toy.rows(&tree, row);
                let mut lengths = vec![0.0; drawn.len() + 1];
                for (verdict, p) in law(&mut Traversal, &tree, &rows) {
                    lengths[verdict.path.len()] += p;
                }
                for (ours, theirs) in lengths.iter().zip(block_law(&toy, &drawn, row)) {
                    assert!((ours - theirs).abs() < 1e-11, "{lengths:?}: {drawn:?} at {row}");
                }
                traversal += weight * mean_length(&mut Traversal, &tree, &rows);
                tokenwise += weight * mean_length(&mut TopDown(Rejection), &tree, &rows);
            }
        }
        assert!(traversal > tokenwise + 0.01, "longer than token by token: {traversal}, {tokenwise}");
    }

    #[test]
    fn no_drawn_pair_of_siblings_is_worse_than_top_down() {
        let toy = Toy::new(9);
        for row in 0..30 {
            let q = toy.q(row);
            for (a, b) in (0..16).map(|pair| (pair / 4, pair % 4)).filter(|&(a, b)| a != b && q[a] * q[b] > 0.0) {
                let tree = toy.siblings(&[(a as u32, SampledWor), (b as u32, SampledWor)], row);
                let rows = toy.rows(&tree, row);
                let (ours, theirs) =
                    (mean_length(&mut Traversal, &tree, &rows), mean_length(&mut TopDown(Swor), &tree, &rows));
                assert!((ours - theirs).abs() < 1e-12, "at one level they are the same rule: {ours}, {theirs}");
            }
        }
    }
}
