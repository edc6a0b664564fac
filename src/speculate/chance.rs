//! Where acceptance rules and sampled drafts get their randomness: through one trait, so that tests can walk every branch.
//!
//! Draws are keyed by (seed, round, node, slot, purpose) and never re-used. Keys by position alone, as `match` has them,
//! would bias a ratio rule from its second round on: a later decision has already looked at the noise (methods.md §3.5.7).

use crate::sampling::pcg4d;
use std::cell::RefCell;

/// What a draw decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// A drafter samples a candidate.
    Draft = 0,
    /// A rule keeps or rejects a slot.
    Accept = 1,
    /// A rule samples the token after the accepted path.
    Emit = 2,
}

/// Which draw of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The node whose row is looked at.
    pub node: u16,
    /// The slot below it; what has no slot uses 0.
    pub slot: u16,
    /// What it decides.
    pub purpose: Purpose,
}

impl Key {
    /// The draw of a slot of a node.
    pub fn new(node: super::tree::NodeId, slot: usize, purpose: Purpose) -> Key {
        Key { node: node.0, slot: slot as u16, purpose }
    }
}

/// Draws of one round.
pub trait Chance {
    /// True with probability `p`, which may lie outside 0 to 1 by rounding.
    fn bernoulli(&mut self, key: Key, p: f64) -> bool;
    /// An index with probability in proportion to its weight. Weights are not negative, and not all zero.
    fn categorical(&mut self, key: Key, weights: &[f64]) -> usize;
}

/// Counter-based draws: the same for the same seed, round and key, whatever was drawn before.
#[derive(Debug, Clone, Copy)]
pub struct KeyedChance {
    seed: u64,
    round: u32,
}

impl KeyedChance {
    /// The draws of a round of a request.
    pub fn new(seed: u64, round: u64) -> KeyedChance {
        KeyedChance { seed, round: round as u32 }
    }

    /// Uniform in the open unit interval, 53 bits.
    fn uniform(self, key: Key) -> f64 {
        let slot = u32::from(key.node) << 16 | u32::from(key.slot);
        // Apart from the keys of `sampling::gumbel`, whose first word is a token: the purpose is stirred in by a first pass.
        let keys = pcg4d([self.seed as u32, (self.seed >> 32) as u32, key.purpose as u32, 0x5bd1_e995]);
        let [high, low, ..] = pcg4d([keys[0] ^ slot, keys[1] ^ self.round, keys[2], keys[3]]);
        let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
        (bits as f64 + 0.5) / (1u64 << 53) as f64
    }
}

impl Chance for KeyedChance {
    fn bernoulli(&mut self, key: Key, p: f64) -> bool {
        self.uniform(key) < p
    }

    fn categorical(&mut self, key: Key, weights: &[f64]) -> usize {
        let total: f64 = weights.iter().sum();
        let mut left = self.uniform(key) * total;
        let mut last = 0;
        for (index, &weight) in weights.iter().enumerate() {
            if weight > 0.0 {
                last = index;
                if left < weight {
                    return index;
                }
                left -= weight;
            }
        }
        // Only rounding leads here.
        last
    }
}

/// A branch below this probability is not walked: rounding makes some that are not there.
const NO_BRANCH: f64 = 1e-12;

/// Every branch of what a run draws, one run at a time: for proofs by enumeration. A run that asks twice with one key before
/// [`Branches::next_round`] panics, since keyed draws would be the same there.
#[derive(Debug, Default)]
pub struct Branches {
    taken: Vec<Decision>,
    at: usize,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Decision {
    /// Branches of positive probability, the one that is being walked last.
    left: Vec<(usize, f64)>,
}

impl Branches {
    /// Calls `run` once for each sequence of decisions that it can come to; `seen` gets the probability and what `run` gave.
    pub fn walk<T>(mut run: impl FnMut(&RefCell<Branches>) -> T, mut seen: impl FnMut(f64, T)) {
        let branches = RefCell::new(Branches::default());
        loop {
            let value = run(&branches);
            let mut all = branches.borrow_mut();
            let probability =
                all.taken.iter().filter_map(|decision| decision.left.last()).map(|branch| branch.1).product();
            seen(probability, value);
            if !all.advance() {
                return;
            }
        }
    }

    /// Keys of the round before may come again.
    pub fn next_round(&mut self) {
        self.keys.clear();
    }

    /// A decision without a key.
    pub fn choose(&mut self, weights: &[f64]) -> usize {
        if self.at == self.taken.len() {
            let total: f64 = weights.iter().sum();
            let shares = weights.iter().map(|weight| weight / total).enumerate();
            let left: Vec<_> = shares.filter(|&(_, share)| share > NO_BRANCH).collect();
            assert!(!left.is_empty(), "nothing to choose from: {weights:?}");
            self.taken.push(Decision { left });
        }
        self.at += 1;
        self.taken[self.at - 1].left.last().map_or(0, |branch| branch.0)
    }

    fn advance(&mut self) -> bool {
        (self.at, self.keys) = (0, Vec::new());
        while let Some(mut last) = self.taken.pop() {
            last.left.pop();
            if !last.left.is_empty() {
                self.taken.push(last);
                return true;
            }
        }
        false
    }

    fn once(&mut self, key: Key) {
        assert!(!self.keys.contains(&key), "{key:?} twice in a round");
        self.keys.push(key);
    }
}

impl Chance for Branches {
    fn bernoulli(&mut self, key: Key, p: f64) -> bool {
        self.once(key);
        let p = p.clamp(0.0, 1.0);
        self.choose(&[1.0 - p, p]) == 1
    }

    fn categorical(&mut self, key: Key, weights: &[f64]) -> usize {
        self.once(key);
        self.choose(weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_their_weights_and_their_keys() {
        let key = |node, purpose| Key { node, slot: 0, purpose };
        let mut counts = [0; 3];
        for round in 0..100_000 {
            counts[KeyedChance::new(7, round).categorical(key(1, Purpose::Emit), &[1.0, 0.0, 3.0])] += 1;
        }
        assert_eq!(counts[1], 0, "a weight of zero is never drawn");
        assert!((f64::from(counts[0]) - 25_000.0).abs() < 4.0 * 137.0, "{counts:?}");
        let chance = KeyedChance::new(7, 3);
        let first = chance.uniform(key(1, Purpose::Accept));
        assert!(chance.uniform(key(1, Purpose::Emit)) != first && chance.uniform(key(2, Purpose::Accept)) != first);
        assert_eq!(chance.uniform(key(1, Purpose::Accept)), first, "the same key gives the same draw");
    }

    #[test]
    fn every_branch_is_walked_once() {
        let key = |slot| Key { node: 0, slot, purpose: Purpose::Accept };
        let mut all = Vec::new();
        let run = |chance: &RefCell<Branches>| {
            let mut chance = chance.borrow_mut();
            match chance.bernoulli(key(0), 0.25) {
                true => Some(chance.categorical(key(1), &[1.0, 0.0, 3.0])),
                false => None,
            }
        };
        Branches::walk(run, |probability, value| all.push((value, probability)));
        all.sort_by_key(|branch| branch.0);
        assert_eq!(all, [(None, 0.75), (Some(0), 0.0625), (Some(2), 0.1875)]);
    }

    #[test]
    #[should_panic(expected = "twice in a round")]
    fn a_key_that_comes_again_is_noticed() {
        let key = Key { node: 0, slot: 0, purpose: Purpose::Emit };
        let run = |chance: &RefCell<Branches>| {
            chance.borrow_mut().categorical(key, &[1.0, 1.0]);
            chance.borrow_mut().categorical(key, &[1.0, 1.0])
        };
        Branches::walk(run, |_, _| {});
    }
}
