//! `long-tail(X)`: the longer an answer is expected to go on, the more X may draft (DAS, whose budgets grow with the expected
//! length of a rollout; known to us at second hand).
//!
//! X has room for `short + (room − short)·min(1, remainder/512)` tokens. The remainder is that of a heavy tail, whose best
//! guess is as much again as was written so far, and at most what is still allowed. An answer that may end soon is not spent
//! on. State: where the answer began, and that of X.

use super::{LengthPolicy, Signals};
use crate::speculate::cost::CostModel;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "long-tail",
    paper: "DAS, arXiv 2511.13841",
    about: "long-tail(X): X may draft the more, the longer the answer is expected to go on",
    needs: "",
    options: &[
        OptionSpec {
            key: "long_tail_short",
            about: "tokens that may be drafted at first",
            default: 4.0,
            min: 0.0,
            max: 31.0,
        },
        OptionSpec {
            key: "long_tail_tokens",
            about: "expected remainder, in tokens, from which there is no limit",
            default: 512.0,
            min: 1.0,
            max: 1e6,
        },
    ],
    test: "length::long_tail",
    make: Make::Length(|setup| {
        Ok(Box::new(LongTail {
            inner: setup.length(setup.inner.unwrap_or("goodput"))?,
            short: setup.count("long_tail_short"),
            tokens: setup.count("long_tail_tokens"),
            start: None,
        }))
    }),
};

/// The policy around another.
pub struct LongTail {
    inner: Box<dyn LengthPolicy>,
    short: usize,
    tokens: usize,
    start: Option<usize>,
}

impl LongTail {
    /// What the inner policy is told.
    fn within<'a>(&mut self, signals: &Signals<'a>) -> Signals<'a> {
        let start = *self.start.get_or_insert(signals.context_len);
        let remainder = signals.context_len.saturating_sub(start).min(signals.max_new).min(self.tokens);
        let more = signals.room.saturating_sub(self.short) * remainder / self.tokens;
        let room = signals.room.min(self.short + more);
        Signals { room, default_tokens: signals.default_tokens.min(room), ..*signals }
    }
}

impl LengthPolicy for LongTail {
    fn name(&self) -> &'static str {
        "long-tail"
    }

    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        let within = self.within(signals);
        self.inner.plan(&within).min(within.room)
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        self.inner.estimate(tree, node)
    }

    fn stop(&mut self, tree: &TokenTree, new: &[NodeId], signals: &Signals<'_>) -> bool {
        let within = self.within(signals);
        self.inner.stop(tree, new, &within)
    }

    fn keep(&mut self, tree: &TokenTree, signals: &Signals<'_>) -> usize {
        let within = self.within(signals);
        self.inner.keep(tree, &within)
    }

    fn looks_ahead(&self) -> bool {
        self.inner.looks_ahead()
    }

    fn reads_drafts(&self) -> bool {
        self.inner.reads_drafts()
    }

    fn ahead(&mut self, cost: &CostModel) -> bool {
        self.inner.ahead(cost)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        self.inner.observe(outcome);
    }

    fn reason(&self) -> Option<String> {
        self.inner.reason()
    }

    fn reset(&mut self) {
        self.inner.reset();
        self.start = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLAT, Kind, Trace};

    #[test]
    fn budgets_grow_with_the_expected_remainder() {
        let trace = Trace::new(Kind::Host, FLAT, &|_| 0.95);
        for inner in ["goodput", "fixed,num_speculative_tokens=31"] {
            let (policy, rest) = inner.split_once(',').map_or((inner, ""), |(policy, rest)| (policy, rest));
            let config = format!("length=long-tail({policy})");
            let config = if rest.is_empty() { config } else { format!("{config},{rest}") };
            let replay = trace.replay(&config, 400);
            for outcome in &replay.outcomes {
                let written = outcome.context_len - 1;
                let room = 4 + 27 * written.min(512) / 512;
                assert!(outcome.tree.drafted() <= room, "{inner}: {} after {written}", outcome.tree.drafted());
            }
            assert!(replay.mean_length(300..400) > 14.5, "{inner}: {}", replay.mean_length(300..400));
        }
    }
}
