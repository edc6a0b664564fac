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
        for (cursor, accepted) in outcome.judged_of(me) {
            if cursor == REFINED as usize { self.refined.learn(accepted) } else { self.fresh.learn(accepted) }
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

#[cfg(test)]
mod tests {
    use super::super::testing::speculator;
    use super::*;
    use crate::sampling::SamplingParams;
    use crate::speculate::drafters::DraftPass;
    use crate::speculate::outcome::Row;
    use crate::speculate::target::{Job, Target, Verified};
    use crate::store::LocalFuture;
    use futures_lite::future::block_on;

    /// A target that writes a refrain: what follows depends on the token before and, as in a model that knows its place in a
    /// pattern, on the position.
    struct Refrain;

    impl Refrain {
        fn next(token: u32, position: usize) -> u32 {
            if position.is_multiple_of(4) { (token + 1) % 8 } else { position as u32 % 4 + 10 }
        }
    }

    impl Target for Refrain {
        fn room(&self, _: usize) -> usize {
            31
        }

        fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
            let row = |node: &crate::speculate::tree::Node| {
                Row::of(Refrain::next(node.token.unwrap_or(0), job.tokens.len() + node.depth))
            };
            let rows = job.tree.nodes().iter().map(row).collect();
            Box::pin(async { Ok(Verified { rows, ..Verified::default() }) })
        }

        fn draft<'a>(&'a self, _: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
            Box::pin(async { Ok(Default::default()) })
        }

        fn commit(&self, _: &[u32], _: &TokenTree, _: &[NodeId]) {}
    }

    #[test]
    fn repetitive_text_takes_fewer_passes_than_tokens() {
        let mut speculator = speculator(Box::new(Jacobi::new(7)), None);
        let mut tokens = vec![3, 11, 12, 13];
        let mut plain = tokens.clone();
        while tokens.len() < 400 {
            let outcome =
                block_on(speculator.round(&Refrain, &tokens, &SamplingParams::default(), 100)).expect("round");
            tokens.extend(outcome.emitted());
        }
        while plain.len() < tokens.len() {
            plain.push(Refrain::next(plain[plain.len() - 1], plain.len()));
        }
        assert_eq!(tokens, plain, "the same text");
        let length = (tokens.len() - 4) as f64 / speculator.totals.rounds as f64;
        println!("{length:.2} tokens a pass");
        // Guesses that were never refined are right one time in eight at best: about 1.1.
        assert!(length > 2.0, "{length} tokens a pass");
    }

    #[test]
    fn samples_beyond_the_rejection_are_the_next_guesses() {
        use super::super::testing::chain;
        use crate::speculate::outcome::{RoundTiming, Verdict};
        let mut jacobi = Jacobi::new(4);
        let tree = TokenTree::chain(1, &[2, 9, 9, 9], DrafterId(3));
        let rows = [2, 3, 4, 5, 6].map(Row::of).to_vec();
        let verdict = Verdict { path: vec![NodeId(1)], next: 3 };
        let outcome = RoundOutcome { context_len: 1, tree, rows, verdict, timing: RoundTiming::default() };
        jacobi.observe(&outcome, DrafterId(0));
        assert_eq!(chain(&mut jacobi, &[1, 2, 3], 3), [4, 5, 6]);
        assert_eq!(chain(&mut jacobi, &[1, 2, 3], 9).len(), 4, "and one that nobody guessed yet");
        assert_ne!(chain(&mut jacobi, &[7, 7, 7, 7], 3), [4, 5, 6], "guesses are of their positions");
    }
}
