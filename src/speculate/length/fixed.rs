//! `fixed`: the same number of tokens every round (Leviathan et al., arXiv 2211.17192). Keeps no state.

use super::{LengthPolicy, Signals};
use crate::speculate::methods::{Make, Method};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "fixed",
    paper: "Leviathan et al., arXiv 2211.17192",
    about: "the same number of tokens every round: num_speculative_tokens, else what the drafter says",
    needs: "",
    options: &[],
    test: "length::fixed",
    make: Make::Length(|setup| Ok(Box::new(Fixed(setup.config.num_speculative_tokens)))),
};

/// `num_speculative_tokens`, or each drafter's own number where it is not given.
#[derive(Debug, Clone, Copy)]
pub struct Fixed(pub Option<usize>);

impl LengthPolicy for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        self.0.unwrap_or(signals.default_tokens)
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        tree.node(node).stats.logq.exp()
    }
}
