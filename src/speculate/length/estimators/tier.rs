//! `tier`: how often such a copy was right: by drafter, length of the match, place among its siblings, and depth (the source
//! tiers of Goose, the match lengths of SAM-Decoding and SuffixDecoding, with measured rates for their constants).
//!
//! A chain of averages, each drawn to the one before it: the claim of the drafter and Goose's confidence by match length
//! (`0.6·n/8`, from 8 tokens on `0.7 + 0.2·(n-8)/12`, at most 0.9), the drafter, its tier, the tier at this depth. State: two
//! numbers a cell, `MAX_DRAFTERS × (1 + TIERS × RANKS × (1 + DEPTHS))` cells.

use super::Mean;
use crate::speculate::drafters::DrafterId;
use crate::speculate::length::{AcceptanceEstimator, MAX_DRAFTERS, place};
use crate::speculate::methods::{Make, Method, OptionSpec};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "tier",
    paper: "Goose, arXiv 2604.02047; SAM-Decoding, arXiv 2411.10666",
    about: "how often copies of that drafter, match length and depth were right",
    needs: "",
    options: &[OptionSpec {
        key: "tier_memory",
        about: "judged tokens that an average remembers",
        default: 128.0,
        min: 1.0,
        max: 4096.0,
    }],
    test: "length::estimators::tier",
    make: Make::Estimator(|setup| Ok(Box::new(Tier::new(setup.option("tier_memory") as f32)))),
};

/// Longest match of each tier but the last.
const TIER_ENDS: [u16; 7] = [0, 1, 2, 3, 4, 7, 15];
const TIERS: usize = TIER_ENDS.len() + 1;
/// Deepest depth of each class but the last.
const DEPTH_ENDS: [usize; 5] = [1, 2, 4, 8, 16];
const DEPTHS: usize = DEPTH_ENDS.len() + 1;
/// First candidate, second, any other.
const RANKS: usize = 3;
/// Judged tokens that an average of the class above weighs as much as.
const STRENGTH: f32 = 4.0;

#[derive(Debug, Clone, Copy, Default)]
struct Class {
    whole: Mean,
    depths: [Mean; DEPTHS],
}

#[derive(Debug, Clone, Default)]
struct Source {
    whole: Mean,
    tiers: [[Class; RANKS]; TIERS],
    /// Tier, rank and prior of its last judged node: what is expected of the next one.
    last: Option<Features>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
struct Features {
    tier: usize,
    rank: usize,
    prior: f32,
}

/// Rates by class of copy.
#[derive(Debug)]
pub struct Tier {
    memory: f32,
    sources: Vec<Source>,
}

impl Tier {
    /// Averages over the last `memory` judged tokens of each class.
    pub fn new(memory: f32) -> Tier {
        Tier { memory, sources: vec![Source::default(); MAX_DRAFTERS] }
    }

    fn rate(&self, source: &Source, of: Features, depth: usize) -> f32 {
        let class = &source.tiers[of.tier][of.rank];
        let whole = source.whole.toward(of.prior, STRENGTH);
        class.depths[depth_class(depth)].toward(class.whole.toward(whole, STRENGTH), STRENGTH)
    }
}

fn depth_class(depth: usize) -> usize {
    DEPTH_ENDS.iter().position(|&end| depth <= end).unwrap_or(DEPTHS - 1)
}

/// What Goose thinks of a match of that many tokens; of no match nothing.
fn goose(match_len: u16) -> f32 {
    match f32::from(match_len) {
        0.0 => 0.5,
        n if n >= 8.0 => (0.7 + 0.2 * (n - 8.0) / 12.0).min(0.9),
        n => 0.6 * n / 8.0,
    }
}

fn features(tree: &TokenTree, node: NodeId) -> Features {
    let known = tree.node(node);
    let slots = &tree.node(known.parent).slots;
    let rank = slots.iter().position(|slot| slot.child == node).unwrap_or(0).min(RANKS - 1);
    let matched = known.stats.match_len;
    let tier = TIER_ENDS.iter().position(|&end| matched <= end).unwrap_or(TIERS - 1);
    Features { tier, rank, prior: (known.stats.logq.exp() + goose(matched)) / 2.0 }
}

impl AcceptanceEstimator for Tier {
    fn name(&self) -> &'static str {
        "tier"
    }

    fn a_hat(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        let known = tree.node(node);
        self.rate(&self.sources[place(known.source)], features(tree, node), known.depth)
    }

    fn expected(&self, drafter: DrafterId, depth: usize) -> f32 {
        let source = &self.sources[place(Some(drafter))];
        self.rate(source, source.last.unwrap_or(Features { tier: 0, rank: 0, prior: 0.7 }), depth)
    }

    fn learn(&mut self, tree: &TokenTree, node: NodeId, accepted: bool) {
        let known = tree.node(node);
        let of = features(tree, node);
        let source = &mut self.sources[place(known.source)];
        let value = f32::from(u8::from(accepted));
        source.last = Some(of);
        source.whole.add(value, self.memory);
        let class = &mut source.tiers[of.tier][of.rank];
        class.whole.add(value, self.memory);
        class.depths[depth_class(known.depth)].add(value, self.memory);
    }

    fn doubt(&mut self, drafter: Option<DrafterId>) {
        let source = &mut self.sources[place(drafter)];
        source.whole.doubt();
        for class in source.tiers.iter_mut().flatten() {
            class.whole.doubt();
            class.depths.iter_mut().for_each(Mean::doubt);
        }
    }

    fn reset(&mut self) {
        *self = Tier::new(self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::estimator;
    use super::*;
    use crate::speculate::tree::{Candidate, DraftStats};

    #[test]
    fn short_and_long_matches_have_rates_of_their_own() {
        let mut tier = estimator("tier");
        let mut tree = TokenTree::new(0);
        let mut copy = |token, matched| {
            let stats = DraftStats::of_probability(0.9).matched(matched);
            tree.attach(NodeId::ROOT, &Candidate::new(token, stats), DrafterId(0)).expect("room").0
        };
        let (long, short) = (copy(1, 20), copy(2, 2));
        let before = [long, short].map(|node| tier.a_hat(&tree, node));
        assert!(before[0] > before[1] + 0.2, "Goose's confidence at first: {before:?}");
        // Here it is the other way round; the second candidate of a node is another class than the first.
        for round in 0..300 {
            tier.learn(&tree, long, round % 5 == 0);
            tier.learn(&tree, short, round % 5 != 0);
        }
        let after = [long, short].map(|node| tier.a_hat(&tree, node));
        assert!((after[0] - 0.2).abs() < 0.05 && (after[1] - 0.8).abs() < 0.05, "{after:?}");
        // Failures of the one class say nothing of the other.
        (0..40).for_each(|_| tier.learn(&tree, short, false));
        let kept = tier.a_hat(&tree, long);
        assert!((kept - after[0]).abs() < 0.02, "{kept}, before {}", after[0]);
        tier.doubt(Some(DrafterId(0)));
        (0..24).for_each(|_| tier.learn(&tree, long, true));
        assert!(tier.a_hat(&tree, long) > 0.6, "what is in doubt is soon forgotten: {}", tier.a_hat(&tree, long));
    }
}
