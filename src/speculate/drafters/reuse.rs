//! `reuse`, `reuse(inner)`: rejected tails re-aligned (SpecASR's draft recycling, arXiv 2507.18181; FailFast's draft reuse,
//! arXiv 2512.20573). What was drafted after the rejected token is kept; where the end of the new text, drafts included, is
//! found in it again, what followed there is drafted without asking anybody.
//!
//! Where nothing is found yet, the target either *inserted* a token before the tail or *replaced* its first one; the guess
//! that was right more often comes first, insertion until something is known. With an inner drafter that is a guess of last
//! resort, unless the inner one costs passes of a model. State: the tail of the last draft, at most 255 tokens; two rates.

use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, InnerDraft, Rate, WRAPPER_CURSOR};
use crate::error::Result;
use crate::speculate::accept::ProposalKind;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "reuse",
    paper: "SpecASR, arXiv 2507.18181; FailFast, arXiv 2512.20573",
    about: "what was drafted after a rejected token, where the text meets it again; `reuse(inner)` asks another drafter else",
    needs: "",
    options: &[],
    test: "drafters::reuse",
    make: Make::Drafter(|setup| {
        let inner = setup.inner.map(|name| setup.drafter(name)).transpose()?;
        Ok(Box::new(Reuse::new(inner)))
    }),
};

/// Tokens drafted where nothing else says.
const TOKENS: usize = 15;

/// The rejected tail, and the drafter around which this stands.
pub struct Reuse {
    inner: Option<Box<dyn Drafter>>,
    /// The rejected token and what was drafted after it.
    tail: Vec<u32>,
    /// Tokens committed when the tail was rejected.
    at: usize,
    inserted: Rate,
    replaced: Rate,
    found: Rate,
    /// What has to be filled in once the inner drafter's pass has run: leaves that this one answered itself.
    answered: Vec<Vec<Candidate>>,
}

impl Reuse {
    /// Around another drafter, or alone.
    pub fn new(inner: Option<Box<dyn Drafter>>) -> Reuse {
        Reuse {
            inner,
            tail: Vec::new(),
            at: 0,
            inserted: Rate::new(0.3),
            replaced: Rate::new(0.3),
            found: Rate::new(0.5),
            answered: Vec::new(),
        }
    }

    fn take(&self, at: usize, stats: DraftStats) -> Option<Candidate> {
        let token = *self.tail.get(at)?;
        Some(Candidate::new(token, stats).at(WRAPPER_CURSOR | (at as u32 + 1)))
    }

    /// Goes on in the tail, from where a draft stands in it or where the end of the text is found in it.
    fn aligned(&self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>, leaf: NodeId) -> Option<Candidate> {
        let node = tree.node(leaf);
        if node.source == Some(ask.me) && node.cursor >= WRAPPER_CURSOR {
            return self.take((node.cursor - WRAPPER_CURSOR) as usize, node.stats);
        }
        // What was said since the rejection, its correction included.
        let new = context.tokens.len() + 1 - self.at.min(context.tokens.len()) + node.depth;
        let end = context.tail(tree, leaf, new);
        let matched =
            |at: usize| self.tail[..at].iter().rev().zip(end.iter().rev()).take_while(|(a, b)| a == b).count();
        // The longest match; of equals the first, since drafts run ahead more often than they fall behind.
        let (len, at) =
            (1..self.tail.len()).map(|at| (matched(at), at)).max_by_key(|&(len, at)| (len, usize::MAX - at))?;
        if len < self.evidence() { None } else { self.take(at, self.found.stats().matched(len)) }
    }

    /// Tokens that must agree: more where a drafter inside costs nothing and may know better.
    fn evidence(&self) -> usize {
        if self.inner.is_some() && !self.on_device() { 3 } else { 1 }
    }

    /// What the tail would say if the target inserted a token, or replaced one.
    fn guessed(&self, context: &DraftContext<'_>, leaf: NodeId) -> Vec<Candidate> {
        if leaf != NodeId::ROOT || self.at != context.tokens.len() {
            return Vec::new();
        }
        let mut guesses = vec![self.take(0, self.inserted.stats()), self.take(1, self.replaced.stats())];
        if self.replaced.stats().logq > self.inserted.stats().logq {
            guesses.swap(0, 1);
        }
        let mut guesses: Vec<Candidate> = guesses.into_iter().flatten().collect();
        guesses.dedup_by_key(|candidate| candidate.token);
        guesses
    }

    /// Puts what the inner drafter found between what was found in the tail; its passes may still be under way.
    fn merge(&mut self, context: &DraftContext<'_>, ask: &Ask<'_>, expansion: Expansion) -> Expansion {
        let Expansion::Ready(found) = expansion else { return expansion };
        let mut found = found.into_iter();
        let mut answered = std::mem::take(&mut self.answered);
        for (&leaf, candidates) in ask.leaves.iter().zip(&mut answered) {
            if candidates.is_empty() {
                *candidates = found.next().unwrap_or_default();
            }
            if candidates.is_empty() && context.draws == ProposalKind::Deterministic {
                *candidates = self.guessed(context, leaf);
            }
            candidates.truncate(ask.width);
        }
        Expansion::Ready(answered)
    }

    /// The question without the leaves that are answered.
    fn open<'a>(&self, ask: &Ask<'a>, leaves: &'a mut Vec<NodeId>) -> Ask<'a> {
        let open = ask.leaves.iter().zip(&self.answered).filter(|(_, answer)| answer.is_empty());
        *leaves = open.map(|(&leaf, _)| leaf).collect();
        Ask { leaves, width: ask.width, me: ask.me }
    }
}

impl Drafter for Reuse {
    fn name(&self) -> &'static str {
        "reuse"
    }

    fn default_tokens(&self) -> usize {
        let inner = self.inner.as_ref().map_or(TOKENS, |inner| inner.default_tokens());
        // Also where the inner one has nothing.
        inner.max(self.tail.len().min(TOKENS))
    }

    fn needs(&self) -> Needs {
        self.inner.as_ref().map_or_else(Needs::default, |inner| inner.needs())
    }

    fn on_device(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.on_device())
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        if context.tokens.len() < self.at {
            self.tail.clear();
        }
        if let Some(inner) = &mut self.inner {
            inner.begin(context);
        }
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        // What is sampled must come from the inner drafter alone.
        let reuses = context.draws == ProposalKind::Deterministic;
        let free = self.inner.is_none() || self.on_device();
        let answer = |leaf: &NodeId| -> Vec<Candidate> {
            let aligned = self.aligned(context, tree, ask, *leaf).filter(|_| reuses);
            let guessed = || if free && reuses { self.guessed(context, *leaf) } else { Vec::new() };
            aligned.map_or_else(guessed, |candidate| vec![candidate])
        };
        self.answered = ask.leaves.iter().map(answer).collect();
        let mut leaves = Vec::new();
        let open = self.open(ask, &mut leaves);
        let expansion = match &mut self.inner {
            Some(inner) if !open.leaves.is_empty() => inner.expand(context, tree, &open)?,
            _ => Expansion::Ready(Vec::new()),
        };
        Ok(self.merge(context, ask, expansion))
    }

    fn absorb(
        &mut self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        words: &[u32],
        logits: &[f32],
    ) -> Result<Expansion> {
        let mut leaves = Vec::new();
        let open = self.open(ask, &mut leaves);
        let expansion = match &mut self.inner {
            Some(inner) => inner.absorb(context, tree, &open, words, logits)?,
            None => Expansion::Ready(Vec::new()),
        };
        Ok(self.merge(context, ask, expansion))
    }

    fn record(&mut self, context: &DraftContext<'_>, count: usize) -> Result<Option<InnerDraft>> {
        // With a tail that goes on here no pass of a model is needed: the draft is grown on the host.
        if self.tail.len() > 1 && self.at == context.tokens.len() && context.draws == ProposalKind::Deterministic {
            return Ok(None);
        }
        self.inner.as_mut().map_or(Ok(None), |inner| inner.record(context, count))
    }

    fn observe(&mut self, outcome: &RoundOutcome, me: DrafterId) {
        let emitted = outcome.emitted();
        if self.at == outcome.context_len && self.tail.len() > 1 {
            // Whoever drafted: the text itself says what would have been right.
            self.inserted.learn(emitted[0] == self.tail[0]);
            self.replaced.learn(emitted[0] == self.tail[1]);
        }
        for (node, accepted) in outcome.judged() {
            let node = outcome.tree.node(node);
            if node.source == Some(me) && node.cursor >= WRAPPER_CURSOR && node.stats.match_len > 0 {
                self.found.learn(accepted);
            }
        }
        let tree = &outcome.tree;
        let mut at = outcome.verdict.path.last().copied().unwrap_or(NodeId::ROOT);
        if tree.drafted() > 0 {
            self.tail.clear();
            self.at = outcome.context_len + emitted.len();
            while let Some(slot) = tree.node(at).slots.first() {
                at = slot.child;
                self.tail.extend(tree.node(at).token);
            }
        }
        if let Some(inner) = &mut self.inner {
            inner.observe(outcome, me);
        }
    }

    fn reset(&mut self) {
        let inner = self.inner.take().map(|mut inner| {
            inner.reset();
            inner
        });
        *self = Reuse::new(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ngram;
    use super::super::testing::{chain, chain_below, children, replay, simulated};
    use super::*;
    use crate::speculate::SpeculationConfig;
    use crate::speculate::methods::Setup;
    use crate::speculate::outcome::{RoundTiming, Row, Verdict};

    /// A round that accepted `accepted` of a draft and then wrote `next`.
    fn rejected(reuse: &mut Reuse, context_len: usize, draft: &[u32], accepted: u16, next: u32) {
        let tree = TokenTree::chain(0, draft, DrafterId(1));
        let rows = vec![Row::of(0); tree.nodes().len()];
        let verdict = Verdict { path: (1..=accepted).map(NodeId).collect(), next };
        let outcome = RoundOutcome { context_len, tree, rows, verdict, timing: RoundTiming::default() };
        reuse.observe(&outcome, DrafterId(0));
    }

    #[test]
    fn a_tail_is_accepted_when_the_target_inserts_a_token() {
        let mut reuse = Reuse::new(None);
        rejected(&mut reuse, 1, &[1, 2, 3, 4, 5, 6], 2, 50);
        assert_eq!(chain(&mut reuse, &[0, 1, 2, 50], 9), [3, 4, 5, 6], "all of it, without another drafter");
        assert_eq!(children(&mut reuse, &[0, 1, 2, 50], 3), [3, 4], "or the token was replaced");
        // A token was left out: the text is met later in the tail.
        rejected(&mut reuse, 4, &[3, 4, 5, 6, 7], 0, 5);
        assert_eq!(chain(&mut reuse, &[0, 1, 2, 50, 5], 9), [6, 7]);
        // Somebody else drafts into it.
        rejected(&mut reuse, 5, &[20, 21, 22, 23], 0, 9);
        assert_eq!(chain_below(&mut reuse, &[0, 1, 2, 50, 5, 9], &[60, 21], 9).drafted(), 4);
        // A text that never comes back to it: nothing is drafted.
        assert!(chain(&mut reuse, &[0, 1, 2, 50, 5, 9, 8, 8], 9).is_empty());
    }

    #[test]
    fn what_was_right_more_often_comes_first() {
        let mut reuse = Reuse::new(None);
        for at in 0..5 {
            rejected(&mut reuse, 10 + 2 * at, &[1, 2, 3], 0, 50);
            rejected(&mut reuse, 11 + 2 * at, &[1, 2, 3], 0, 2);
        }
        rejected(&mut reuse, 30, &[1, 2, 3], 0, 50);
        assert_eq!(children(&mut reuse, &[9; 31], 2), [2, 1], "replaced, not inserted");
    }

    #[test]
    fn around_another_drafter_it_fills_its_gaps() {
        // A passage of 30 tokens comes again with a new token after every fifth: prompt lookup loses its place each time.
        let passage: Vec<u32> = (100..130).collect();
        let mut text = passage.clone();
        for (at, token) in (0u32..).zip(&passage) {
            text.push(*token);
            if at % 5 == 4 {
                text.push(1000 + at);
            }
        }
        let target = simulated(text);
        let passes = |drafter: Box<dyn Drafter>| replay(&target, drafter, 31, 15).len();
        let alone = passes(Box::new(Ngram::new(2, 4)));
        let reused = passes(Box::new(Reuse::new(Some(Box::new(Ngram::new(2, 4))))));
        println!("{alone} passes alone, {reused} with reuse");
        assert!(reused * 10 < alone * 7, "{reused} passes against {alone}");
    }

    #[test]
    fn goes_around_drafters_that_learn_by_cursor() {
        let config = SpeculationConfig::default();
        // A passage again and again, with a token left out or doubled now and then.
        let text: Vec<u32> = (0..900).flat_map(|at| vec![at % 30; [1, 1, 1, 0, 1, 1, 2][at as usize % 7]]).collect();
        for inner in ["hierarchy", "recycling"] {
            let drafter = Setup::new(&config).drafter(&format!("reuse({inner})")).expect(inner);
            let outcomes = replay(&simulated(text.clone()), drafter, 31, 7);
            let nodes = outcomes.iter().flat_map(|outcome| &outcome.tree.nodes()[1..]);
            let (reused, own): (Vec<_>, Vec<_>) = nodes.partition(|node| node.cursor >= WRAPPER_CURSOR);
            assert!(!reused.is_empty() && !own.is_empty(), "{inner}: {} reused, {} its own", reused.len(), own.len());
        }
    }
}
