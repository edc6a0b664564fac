//! `ouroboros`: phrases lengthen the drafts of a draft model for free (Ouroboros, arXiv 2402.13720).
//!
//! The draft model drafts γ tokens; then phrases that followed the last of them before are attached, several side by side
//! where the shape is wide, so one target pass can accept draft and phrase. Phrases are point masses. Here the model drafts its
//! γ tokens as one chain pass; the paper's lookahead inside the draft model is left out.
//! State: a pool of phrases by their first token, filled from committed text, [`MAX_KEYS`] keys of [`PHRASES`] each.

use super::passes::Passes;
use super::{Ask, DraftContext, Drafter, DrafterId, Expansion, each_leaf};
use crate::error::Result;
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use std::collections::BTreeMap;
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "ouroboros",
    paper: "Ouroboros, arXiv 2402.13720",
    about: "a draft model's chain, lengthened by phrases that followed its last token before",
    needs: "a draft model",
    options: &[OptionSpec {
        key: "ouroboros_gamma",
        about: "tokens that the model drafts before phrases follow",
        default: 4.0,
        min: 1.0,
        max: 15.0,
    }],
    test: "tests/drafting.rs: phrases_lengthen_the_drafts_of_a_model",
    make: Make::Drafter(|setup| {
        let passes = Passes::new(Rc::clone(setup.draft_model()?), setup.kv_view()?);
        let gamma = setup.count("ouroboros_gamma");
        Ok(Box::new(Ouroboros { passes, gamma, chain: Vec::new(), pool: Pool::default() }))
    }),
};

/// Keys of the pool at most; the key that was written longest ago goes first.
const MAX_KEYS: usize = 4096;
/// Phrases a key; the newest first.
const PHRASES: usize = 3;
/// Tokens of a phrase, its key not counted.
const PHRASE_TOKENS: usize = 6;

/// Phrases by their first token.
#[derive(Debug, Default)]
pub struct Pool {
    phrases: BTreeMap<u32, Entry>,
    /// Committed tokens that were taken in.
    seen: usize,
    clock: u64,
}

#[derive(Debug, Default)]
struct Entry {
    written: u64,
    phrases: Vec<Vec<u32>>,
}

impl Pool {
    /// Takes in the phrases that are complete in the committed tokens.
    pub fn learn(&mut self, tokens: &[u32]) {
        if self.seen > tokens.len() {
            *self = Pool::default();
        }
        let complete = tokens.len().saturating_sub(PHRASE_TOKENS);
        for at in self.seen..complete {
            self.clock += 1;
            let phrase = tokens[at + 1..at + 1 + PHRASE_TOKENS].to_vec();
            let entry = self.phrases.entry(tokens[at]).or_default();
            entry.written = self.clock;
            entry.phrases.retain(|known| *known != phrase);
            entry.phrases.insert(0, phrase);
            entry.phrases.truncate(PHRASES);
            if self.phrases.len() > MAX_KEYS {
                let oldest = self.phrases.iter().min_by_key(|(_, entry)| entry.written).map(|(&key, _)| key);
                oldest.and_then(|key| self.phrases.remove(&key));
            }
        }
        self.seen = self.seen.max(complete);
    }

    /// Phrases that began with a token, the newest first.
    pub fn phrases(&self, key: u32) -> &[Vec<u32>] {
        self.phrases.get(&key).map_or(&[], |entry| &entry.phrases)
    }
}

/// A draft model and its phrases.
pub struct Ouroboros {
    passes: Passes,
    gamma: usize,
    /// Tokens of the model's chain that are not handed out yet, last first.
    chain: Vec<u32>,
    pool: Pool,
}

/// A phrase and a place in it as a cursor: phrase + 1 in the high half.
fn cursor(phrase: usize, at: usize) -> u32 {
    ((phrase as u32 + 1) << 16) | at as u32
}

impl Ouroboros {
    /// What the model's chain says below a leaf that stands in it: others may have gone on otherwise.
    fn chained(&self, tree: &TokenTree, leaf: NodeId) -> Option<Candidate> {
        let next = self.chain.strip_prefix(&tree.path_tokens(leaf)[..])?.first();
        next.map(|&token| Candidate::new(token, DraftStats::of_probability(0.7)))
    }

    /// Tokens that go on below a leaf by phrases: new ones where the model's chain ends, else the one that is under way.
    fn phrase(&self, tree: &TokenTree, ask: &Ask<'_>, leaf: NodeId) -> Vec<Candidate> {
        let stats = DraftStats::of_probability(0.4);
        match ask.cursor(tree, leaf) {
            Some(place) => {
                // The key of a phrase is the node it hangs from.
                let (phrase, at) = ((place >> 16) - 1, place & 0xffff);
                let path = tree.path(leaf);
                let key = path.len().checked_sub(at + 1).and_then(|key| tree.node(path[key]).token);
                let next = key.and_then(|key| self.pool.phrases(key).get(phrase)?.get(at).copied());
                next.map(|token| Candidate::new(token, stats).at(cursor(phrase, at + 1))).into_iter().collect()
            }
            None => {
                let Some(key) = tree.node(leaf).token else { return Vec::new() };
                let mut found: Vec<Candidate> = Vec::new();
                for (index, phrase) in self.pool.phrases(key).iter().enumerate() {
                    if !found.iter().any(|candidate| candidate.token == phrase[0]) {
                        found.push(Candidate::new(phrase[0], stats).at(cursor(index, 1)));
                    }
                }
                found
            }
        }
    }
}

impl Drafter for Ouroboros {
    fn name(&self) -> &'static str {
        "ouroboros"
    }

    fn default_tokens(&self) -> usize {
        self.gamma + PHRASE_TOKENS
    }

    fn on_device(&self) -> bool {
        true
    }

    fn begin(&mut self, context: &DraftContext<'_>) {
        self.passes.begin();
        self.chain.clear();
        self.pool.learn(context.tokens);
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        if tree.drafted() == 0 {
            return Ok(match self.passes.chain_pass(context, self.gamma) {
                Some(pass) => Expansion::Pass(pass),
                None => each_leaf(ask, |_| Vec::new()),
            });
        }
        Ok(each_leaf(ask, |leaf| match self.chained(tree, leaf) {
            Some(next) => vec![next],
            None => self.phrase(tree, ask, leaf),
        }))
    }

    fn absorb(
        &mut self,
        _: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        words: &[u32],
        _: &[f32],
    ) -> Result<Expansion> {
        self.chain = words.to_vec();
        // The model has run all but the last.
        self.passes.ran(NodeId::ROOT, 1, &words[..words.len().saturating_sub(1)]);
        Ok(each_leaf(ask, |leaf| self.chained(tree, leaf).into_iter().collect()))
    }

    fn observe(&mut self, outcome: &RoundOutcome, _: DrafterId) {
        self.passes.observe(outcome);
    }

    fn reset(&mut self) {
        self.passes.reset();
        self.pool = Pool::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_the_newest_phrases_of_a_key_and_stays_small() {
        let mut pool = Pool::default();
        let tokens: Vec<u32> = (0..4u32).flat_map(|turn| [9, turn, 11, 12, 13, 14, 15]).collect();
        pool.learn(&tokens);
        assert_eq!(pool.phrases(9).len(), PHRASES);
        assert_eq!(pool.phrases(9)[0][..2], [3, 11], "the newest first");
        pool.learn(&tokens);
        assert_eq!(pool.seen, tokens.len() - PHRASE_TOKENS, "nothing is learned twice");
        let many: Vec<u32> = (0..3 * MAX_KEYS as u32).collect();
        pool.learn(&many);
        assert_eq!(pool.phrases.len(), MAX_KEYS);
        assert!(pool.phrases(0).is_empty(), "the oldest went first");
    }
}
