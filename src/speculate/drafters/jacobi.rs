//! `jacobi`: fixed-point iteration on future positions (Lookahead's Jacobi branch, arXiv 2402.02057; MC-SJD,
//! arXiv 2510.24211). `guess'[i] = sample(row of guess[i - 1])`: the samples of the rows beyond the rejection are the next
//! round's draft; positions that nobody guessed yet start from a token of the context.
//!
//! This is the host's analogue for one text: under `match` every row of a position is sampled with the same Gumbel noise,
//! which is MC-SJD's Gumbel coupling, so a guess stays where its row hardly moved; its accept-and-redraw step is then the
//! walk of `match`. State: one window of guesses; how often fresh and refined ones were right.

use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, Rate, each_leaf};
use crate::error::Result;
use crate::sampling::pcg4d;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "jacobi",
    paper: "Lookahead decoding, arXiv 2402.02057; MC-SJD, arXiv 2510.24211",
    about: "the target's own samples beyond the rejection are the next guesses of their positions",
    needs: "",
    options: &[OptionSpec {
        key: "jacobi_window",
        about: "positions that are guessed",
        default: 7.0,
        min: 1.0,
        max: 31.0,
    }],
    test: "drafters::jacobi",
    make: Make::Drafter(|setup| Ok(Box::new(Jacobi::new(setup.count("jacobi_window"))))),
};

/// Cursors: what became of a guess is learned by kind.
const REFINED: u32 = 1;
const FRESH: u32 = 2;

/// Guesses of the next positions.
pub struct Jacobi {
    window: usize,
    /// Of the positions from `at` on.
    guesses: Vec<u32>,
    at: usize,
    refined: Rate,
    fresh: Rate,
}

impl Jacobi {
    /// Guesses for this many positions.
    pub fn new(window: usize) -> Jacobi {
        Jacobi { window, guesses: Vec::new(), at: 0, refined: Rate::new(0.2), fresh: Rate::new(0.05) }
    }

    fn guess(&self, context: &DraftContext<'_>, depth: usize) -> Option<Candidate> {
        if let Some(&token) = self.guesses.get(depth) {
            return Some(Candidate::new(token, self.refined.stats()).at(REFINED));
        }
        // Somewhere in the context, by a draw that depends on the position only.
        let position = context.tokens.len() + depth;
        let at = pcg4d([position as u32, 0x6a61_636f, 0, 0])[0] as usize % context.tokens.len();
        (depth < self.window).then(|| Candidate::new(context.tokens[at], self.fresh.stats()).at(FRESH))
    }
}

impl Drafter for Jacobi {
    fn name(&self) -> &'static str {
        "jacobi"
    }

    fn default_tokens(&self) -> usize {
        self.window
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        if self.at != context.tokens.len() {
            self.guesses.clear();
        }
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.guess(context, tree.node(leaf).depth).into_iter().collect()))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        let tree = &outcome.tree;
        for (node, accepted) in outcome.judged() {
            let node = tree.node(node);
            if node.source == Some(me) {
                if node.cursor == REFINED { self.refined.learn(accepted) } else { self.fresh.learn(accepted) }
            }
        }
        // Down the first branch below what was accepted, whoever drafted it.
        let mut at = outcome.verdict.path.last().copied().unwrap_or(NodeId::ROOT);
        self.guesses.clear();
        while let Some(slot) = tree.node(at).slots.first() {
            at = slot.child;
            self.guesses.extend(outcome.rows.get(at.index()).map(|row| row.sample));
        }
        self.at = outcome.context_len + outcome.verdict.path.len() + 1;
    }

    fn reset(&mut self) {
        *self = Jacobi::new(self.window);
    }
}
