//! `grammar`: what the JSON schema of a request leaves no choice about (SGLang's jump-forward decoding, as a draft). Names of
//! properties, quotes and separators follow from the schema; their tokens are checked like any other draft, since a text can be
//! cut into tokens in more than one way and the target has its own. Without a schema it has nothing to offer.

use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, Rate, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "grammar",
    paper: "jump-forward decoding, Zheng et al. 2024 (SGLang)",
    about: "drafts what the request's JSON schema leaves no choice about; of `auto` wherever there is a schema",
    needs: "a JSON schema in the request",
    options: &[],
    test: "drafters::grammar",
    make: Make::Drafter(|_| Ok(Box::new(GrammarDrafter::default()))),
};

/// The drafter; it remembers how often the target cuts text as the tokenizer does.
pub struct GrammarDrafter {
    agrees: Rate,
}

impl Default for GrammarDrafter {
    fn default() -> Self {
        GrammarDrafter { agrees: Rate::new(0.9) }
    }
}

impl Drafter for GrammarDrafter {
    fn name(&self) -> &'static str {
        "grammar"
    }

    /// With the root this fills a pass.
    fn default_tokens(&self) -> usize {
        15
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| {
            let rest = context.forced.strip_prefix(tree.path_tokens(leaf).as_slice());
            let next = rest.and_then(|rest| rest.first());
            next.map(|&token| Candidate::new(token, self.agrees.stats()).at(1)).into_iter().collect()
        }))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        for (_, accepted) in outcome.judged_of(me) {
            self.agrees.learn(accepted);
        }
    }

    fn reset(&mut self) {
        *self = GrammarDrafter::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplingParams;
    use crate::speculate::accept::ProposalKind;
    use crate::speculate::chance::KeyedChance;
    use crate::speculate::tree::NodeId;
    use std::cell::RefCell;

    #[test]
    fn drafts_what_is_forced_and_nothing_else() {
        let (sampling, chance) = (SamplingParams::default(), RefCell::new(KeyedChance::new(0, 0)));
        let mut drafter = GrammarDrafter::default();
        let mut below = |forced: &[u32], path: &[u32]| {
            let draws = ProposalKind::Deterministic;
            let context = DraftContext { tokens: &[1], sampling: &sampling, draws, chance: &chance, forced };
            let tree = TokenTree::chain(1, path, DrafterId(0));
            let ask = Ask { leaves: &[NodeId(path.len() as u16)], width: 3, me: DrafterId(0) };
            match drafter.expand(&context, &tree, &ask) {
                Ok(Expansion::Ready(found)) => found[0].iter().map(|candidate| candidate.token).collect::<Vec<_>>(),
                _ => panic!("a host drafter answers at once"),
            }
        };
        assert_eq!(below(&[7, 8], &[]), [7]);
        assert_eq!(below(&[7, 8], &[7]), [8]);
        assert!(below(&[7, 8], &[7, 8]).is_empty() && below(&[7, 8], &[9]).is_empty() && below(&[], &[]).is_empty());
    }
}
