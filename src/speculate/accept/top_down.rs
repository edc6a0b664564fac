//! The frame of the multi-round family: from the root down, a local solver looks at one node's row and its siblings, and
//! either keeps one of them or leaves what is left of the row, from which the next token is drawn.
//!
//! A walk is exact if each solver is: given that a sibling is kept, its subtree was drafted below that very token, and
//! nothing of it was looked at before (methods.md §4.1.4).

use super::residual::{Draft, Residual};
use super::{AcceptanceRule, Chance, ProposalKind};
use crate::speculate::chance::{Key, Purpose};
use crate::speculate::methods::Method;
use crate::speculate::outcome::{Needs, Row, Verdict};
use crate::speculate::tree::{NodeId, Proposal, TokenTree};

/// A candidate as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Sibling<'a> {
    /// Its token.
    pub token: u32,
    /// Its node; a token that was drawn twice has one node and two siblings.
    pub child: NodeId,
    /// How it was made.
    pub proposal: &'a Proposal,
}

/// Every kind of proposal.
pub const ALL_PROPOSALS: &[ProposalKind] =
    &[ProposalKind::Deterministic, ProposalKind::Sampled, ProposalKind::SampledWor];

/// Decides at one node.
pub trait LocalSolver {
    /// Its entry in the registry.
    const METHOD: &'static Method;
    /// Proposals for which its promise holds.
    const SUPPORTS: &'static [ProposalKind] = ALL_PROPOSALS;
    /// How drafters that can sample should draw.
    const DRAWS: ProposalKind = ProposalKind::Sampled;
    /// Whether the number of siblings must be known before they are drawn.
    const FIXED_WIDTH: bool = false;
    /// Which sibling is kept; `None` if none is, and then the next token is drawn from what `row` is left as.
    fn solve(
        &mut self,
        at: NodeId,
        siblings: &[Sibling<'_>],
        row: &mut Residual<'_>,
        chance: &mut dyn Chance,
    ) -> Option<usize>;
    /// Forgets what was learned.
    fn reset(&mut self) {}
}

/// The rule of a local solver.
#[derive(Debug, Clone, Copy, Default)]
pub struct TopDown<S>(pub S);

impl<S: LocalSolver> AcceptanceRule for TopDown<S> {
    fn method(&self) -> &'static Method {
        S::METHOD
    }

    fn needs(&self) -> Needs {
        Needs { p: true, q: true, ..Needs::default() }
    }

    fn supports(&self, proposal: ProposalKind) -> bool {
        S::SUPPORTS.contains(&proposal)
    }

    fn draws(&self) -> ProposalKind {
        S::DRAWS
    }

    fn fixed_width(&self) -> bool {
        S::FIXED_WIDTH
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[Row], chance: &mut dyn Chance) -> Verdict {
        let mut path = Vec::new();
        let mut at = NodeId::ROOT;
        loop {
            let siblings = siblings(tree, at);
            let mut row = Residual::of(whole_row(rows, at));
            match self.0.solve(at, &siblings, &mut row, chance) {
                Some(kept) => {
                    at = siblings[kept].child;
                    path.push(at);
                }
                None => return Verdict { path, next: emit(at, &row, chance) },
            }
        }
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

/// The candidates below a node, in draft order.
pub(super) fn siblings(tree: &TokenTree, at: NodeId) -> Vec<Sibling<'_>> {
    let slots = tree.node(at).slots.iter();
    let sibling = |slot: &'_ crate::speculate::tree::Slot| tree.node(slot.child).token.map(|token| (token, slot.child));
    slots
        .filter_map(|slot| sibling(slot).map(|(token, child)| Sibling { token, child, proposal: &slot.proposal }))
        .collect()
}

/// The target's row at a node.
///
/// # Panics
/// Where it is not there although the rule declares [`Needs::p`].
pub(super) fn whole_row(rows: &[Row], at: NodeId) -> &[f64] {
    rows[at.index()].p.as_deref().unwrap_or_else(|| panic!("node {}: the rule asked for whole rows", at.0))
}

/// Draws the token after the accepted path.
pub(super) fn emit(at: NodeId, row: &Residual<'_>, chance: &mut dyn Chance) -> u32 {
    chance.categorical(Key::new(at, 0, Purpose::Emit), row.weights()) as u32
}

/// The ratio test of one sibling: kept with probability `min(1, p(x)/q(x))`; if not, `norm((p − q)+)` is left of the row.
/// For a point mass that is: kept with p(x), else x is taken out.
pub(super) fn ratio_test(
    at: NodeId,
    index: usize,
    sibling: &Sibling<'_>,
    q: &Draft<'_>,
    row: &mut Residual<'_>,
    chance: &mut dyn Chance,
) -> bool {
    let ratio = q.ratio(sibling.token, row.prob(sibling.token));
    let kept = chance.bernoulli(Key::new(at, index, Purpose::Accept), ratio);
    if !kept {
        row.subtract(1.0, q);
    }
    kept
}
