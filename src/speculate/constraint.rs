//! Samples that a grammar allows, with the drafts of any drafter.
//!
//! The grammar is optimistic: at each node the token is the target's own sample where the grammar allows it, else the sample
//! of the same row, with the same noise, among the tokens that it allows. Both are functions of (row, seed, position, tokens
//! so far), so the tokens are the same with any draft and with none. Without truncation the result is exactly masked
//! sampling: where the argmax of logit + noise over all tokens is allowed, it is the argmax over the allowed ones. With
//! truncation the sample is tried among the tokens that it keeps of all, then among those that it keeps of the allowed ones.
//!
//! A row that has to be sampled anew is read back, one more map; where the grammar leaves one token it is not.

use super::outcome::{Row, Verdict};
use super::target::Target;
use super::tree::{NodeId, TokenTree};
use crate::cpu;
use crate::error::{Error, Result};
use crate::plan::{Params, RowStats};
use crate::sampling::SamplingParams;
use crate::text::grammar::Grammar;
use std::rc::Rc;

/// Tokens of bytes that are known before they are written.
pub type Tokenize = Rc<dyn Fn(&[u8]) -> Result<Vec<u32>>>;

/// A grammar and how far its text has come.
pub struct Constraint {
    grammar: Box<dyn Grammar>,
    tokenize: Tokenize,
    /// Tokens that end a text.
    ends: Vec<u32>,
    ended: bool,
    redrawn: u64,
}

/// The rows of a round, by what they were made from.
pub(super) struct Rows<'a> {
    pub(super) target: &'a dyn Target,
    pub(super) tree: &'a TokenTree,
    /// Tokens committed before the round.
    pub(super) context_len: usize,
    pub(super) sampling: &'a SamplingParams,
}

impl Constraint {
    /// A grammar at its beginning.
    pub fn new(grammar: Box<dyn Grammar>, tokenize: Tokenize, ends: Vec<u32>) -> Constraint {
        Constraint { grammar, tokenize, ends, ended: false, redrawn: 0 }
    }

    /// Whether the text is complete and nothing can follow.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Tokens that were sampled anew, as the grammar did not allow the first sample.
    pub fn redrawn(&self) -> u64 {
        self.redrawn
    }

    /// Tokens that most likely come next, as nothing else can: a text has more than one way to be cut into tokens.
    pub(super) fn forced(&mut self) -> Result<Vec<u32>> {
        let bytes = self.grammar.forced()?;
        if bytes.is_empty() { Ok(Vec::new()) } else { (self.tokenize)(&bytes) }
    }

    /// Goes down while a child carries the token of its row, as `match` does; the grammar comes along. Rows that it
    /// has sampled anew say so.
    pub(super) async fn walk(&mut self, of: &Rows<'_>, rows: &mut [Row]) -> Result<Verdict> {
        let mut path = Vec::new();
        let mut at = NodeId::ROOT;
        loop {
            let row = &mut rows[at.index()];
            if !self.grammar.allows(row.sample)? {
                self.redrawn += 1;
                self.redraw(of, at, row).await?;
            }
            let token = row.sample;
            if self.ends.contains(&token) {
                return Ok(Verdict { path, next: token });
            }
            self.grammar.advance(token)?;
            self.ended = self.grammar.complete()?;
            match of.tree.child(at, token).filter(|_| !self.ended) {
                Some(slot) => {
                    at = slot.child;
                    path.push(at);
                }
                None => return Ok(Verdict { path, next: token }),
            }
        }
    }

    async fn redraw(&mut self, of: &Rows<'_>, node: NodeId, row: &mut Row) -> Result<()> {
        let mask = self.grammar.mask()?;
        let mut allowed = mask.iter().enumerate().flat_map(|(word, &bits)| {
            (0..32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| 32 * word as u32 + bit)
        });
        let Some(first) = allowed.next() else {
            return Err(Error::Schema { reason: "no token of the model can go on".to_owned() });
        };
        if allowed.next().is_none() && row.stats.is_none() {
            row.sample = first;
            return Ok(());
        }
        let logits = of.target.logits(node).await?;
        let position = of.context_len + of.tree.node(node).depth;
        row.sample = draw(&logits, &mask, first, position as u32, of.sampling);
        if let Some(stats) = &mut row.stats {
            Rc::make_mut(stats).sample_logp = log_probability(&logits, row.sample);
        }
        Ok(())
    }
}

/// Steps 4 to 6 of [`crate::sampling`] among the tokens of a mask, on a row that step 3 has left; `first` of them where none
/// has any probability.
fn draw(logits: &[f32], mask: &[u32], first: u32, position: u32, sampling: &SamplingParams) -> u32 {
    let allows = |token: usize| mask.get(token / 32).is_some_and(|bits| bits >> (token % 32) & 1 == 1);
    let keep =
        |(token, &logit): (usize, &f32)| if allows(token) && !logit.is_nan() { logit } else { f32::NEG_INFINITY };
    let masked: Vec<f32> = logits.iter().enumerate().map(keep).collect();
    let token = cpu::draw(&masked, position, &Params::chain(1, 0, 0).sampled(sampling));
    if allows(token as usize) { token } else { first }
}

fn log_probability(logits: &[f32], token: u32) -> f32 {
    // Greedy: nothing is drawn.
    RowStats::from_words(&cpu::statistics(logits, token, 0, &Params::chain(1, 0, 0))).sample_logp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{distribution, gumbel};

    /// Sampling from all and, where that is not allowed, from the allowed with the same noise: the law of p under the mask.
    #[test]
    fn the_second_draw_keeps_the_masked_distribution() {
        let logits = [1.0f32, 0.2, -0.5, 0.9, -1.5, 0.0];
        let mask = [0b101110u32];
        let mut counts = [0u32; 6];
        const DRAWS: u32 = 60_000;
        for seed in 0..DRAWS {
            let sampling = SamplingParams { temperature: 1.0, seed: u64::from(seed), ..SamplingParams::default() };
            let noisy = |token: u32| logits[token as usize] + gumbel([seed, 0], 9, token);
            let all = (0..6).max_by(|&a, &b| noisy(a).total_cmp(&noisy(b))).expect("six");
            let token = if mask[0] >> all & 1 == 1 { all } else { draw(&logits, &mask, 1, 9, &sampling) };
            counts[token as usize] += 1;
        }
        let masked = logits.map(f64::from);
        let weight = |token: usize| if mask[0] >> token & 1 == 1 { masked[token].exp() } else { 0.0 };
        let total: f64 = (0..6).map(weight).sum();
        for (token, &count) in counts.iter().enumerate() {
            let (found, expected) = (f64::from(count) / f64::from(DRAWS), weight(token) / total);
            let error = (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
            assert!((found - expected).abs() <= 5.0 * error, "token {token}: {found}, expected {expected}");
        }
    }

    #[test]
    fn greedy_takes_the_best_that_is_allowed_and_truncation_counts_only_those() {
        let logits = [5.0f32, f32::NAN, 3.0, 4.0, 1.0];
        let greedy = SamplingParams::default();
        assert_eq!(draw(&logits, &[0b11110], 1, 0, &greedy), 3);
        assert_eq!(draw(&logits, &[0b10110], 1, 0, &greedy), 2);
        assert_eq!(draw(&logits, &[0b00010], 1, 0, &greedy), 1, "without probability, the first that is allowed");
        for seed in 0..50 {
            let top = SamplingParams { temperature: 1.0, top_k: 1, seed, ..SamplingParams::default() };
            assert_eq!(draw(&logits, &[0b11100], 2, 3, &top), 3, "top-k 1 of the allowed tokens");
        }
    }

    #[test]
    fn the_logarithm_is_that_of_the_whole_row() {
        let logits = [1.0f32, 0.5, -2.0];
        let all = distribution(&logits, &SamplingParams { temperature: 1.0, ..SamplingParams::default() });
        for (token, p) in all.iter().enumerate() {
            assert!((f64::from(log_probability(&logits, token as u32)) - p.ln()).abs() < 1e-6);
        }
    }
}
