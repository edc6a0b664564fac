//! How a drafter that can sample draws candidates from its own row for a ratio rule: through the keyed
//! [`Chance`](crate::speculate::chance::Chance), as many as were asked for, none of them left out (methods.md §3.5).

use super::{Ask, DraftContext};
use crate::speculate::accept::ProposalKind;
use crate::speculate::accept::residual::same_draw;
use crate::speculate::chance::{Key, Purpose};
use crate::speculate::tree::{Distribution, NodeId, Proposal, TokenTree};

impl Ask<'_> {
    /// The key of this drafter's next draw but `index` below a leaf. Drafters that draw below the same leaf, and a leaf that
    /// is asked again, get other keys: one draw made twice would not be independent.
    pub fn draw_key(&self, tree: &TokenTree, leaf: NodeId, index: usize) -> Key {
        let before = tree.node(leaf).slots.iter().filter(|slot| slot.source == self.me).count();
        Key::new(leaf, usize::from(self.me.0) << 8 | (before + index), Purpose::Draft)
    }
}

/// Draws `ask.width` tokens from q below a leaf, with replacement or without as the rule wants; fewer where q has no more.
/// Siblings drawn without replacement in an earlier ask are drawn on from only if they share this very q.
pub fn draw(
    context: &DraftContext<'_>,
    tree: &TokenTree,
    ask: &Ask<'_>,
    leaf: NodeId,
    q: &Distribution,
) -> Vec<(u32, Proposal)> {
    let without = context.draws == ProposalKind::SampledWor;
    let proposal = if without { Proposal::SampledWor(q.clone()) } else { Proposal::Sampled(q.clone()) };
    // Copied only where something is taken out.
    let mut rest: Option<Vec<f64>> = None;
    let earlier = tree.node(leaf).slots.iter().filter(|slot| without && same_draw(&slot.proposal, &proposal));
    for token in earlier.filter_map(|slot| tree.node(slot.child).token) {
        rest.get_or_insert_with(|| q.to_vec())[token as usize] = 0.0;
    }
    let mut drawn = Vec::with_capacity(ask.width);
    for index in 0..ask.width {
        let left = rest.as_deref().unwrap_or(q);
        if !left.iter().any(|&weight| weight > 0.0) {
            break;
        }
        let token = context.chance.borrow_mut().categorical(ask.draw_key(tree, leaf, index), left);
        if without {
            rest.get_or_insert_with(|| q.to_vec())[token] = 0.0;
        }
        drawn.push((token as u32, proposal.clone()));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplingParams;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::drafters::DrafterId;
    use crate::speculate::tree::{Candidate, DraftStats};
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn a_leaf_asked_again_draws_on() {
        let chance = RefCell::new(KeyedChance::new(1, 0));
        let sampling = SamplingParams::default();
        let draws = ProposalKind::SampledWor;
        let context = DraftContext { tokens: &[0], sampling: &sampling, draws, chance: &chance, forced: &[] };
        let q: Distribution = Rc::from([0.25, 0.25, 0.0, 0.5]);
        let mut tree = TokenTree::new(0);
        let ask = Ask { leaves: &[NodeId::ROOT], width: 1, me: DrafterId(1) };
        let mut seen = Vec::new();
        for _ in 0..4 {
            for (token, proposal) in draw(&context, &tree, &ask, NodeId::ROOT, &q) {
                let candidate = Candidate { proposal, ..Candidate::new(token, DraftStats::of_probability(0.5)) };
                tree.attach(NodeId::ROOT, &candidate, ask.me);
                seen.push(token);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 3], "each token once, and then there are no more");
        let other = Ask { me: DrafterId(0), ..ask.clone() };
        assert_ne!(ask.draw_key(&tree, NodeId::ROOT, 0), other.draw_key(&tree, NodeId::ROOT, 3));
    }
}
