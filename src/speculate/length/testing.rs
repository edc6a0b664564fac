//! Replays of policies on simulated traces, for the tests of this folder.

use super::{AcceptanceEstimator, Signals, settle};
use crate::plan::{MAX_NODES, RowStats};
use crate::sampling::pcg4d;
use crate::speculate::SpeculationConfig;
use crate::speculate::accept::Match;
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::{Drafter, DrafterId};
use crate::speculate::methods::Setup;
use crate::speculate::outcome::{RoundOutcome, RoundTiming, Row, Verdict};
use crate::speculate::round::{Parts, Speculator};
use crate::speculate::select::Cascade;
use crate::speculate::shapes::Chain;
use crate::speculate::simulate::{SimulatedDrafter, SimulatedTarget};
use crate::speculate::target::Target;
use crate::speculate::tree::{Candidate, DraftStats, NodeId, TokenTree};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A weight-bound device as measured on an integrated GPU, one whose passes cost by the column, one that is nearly flat.
pub(crate) const MEASURED: [f64; 5] = [1.0, 1.14, 1.84, 2.75, 4.6];
/// A software adapter.
pub(crate) const SOFTWARE: [f64; 5] = [1.0, 1.22, 1.7, 2.65, 4.9];
pub(crate) const LINEAR: [f64; 5] = [1.0, 1.5, 2.5, 4.5, 8.5];
pub(crate) const FLAT: [f64; 5] = [1.0, 1.02, 1.05, 1.1, 1.2];

/// A speculator of a configuration, with the drafters given.
pub(crate) fn speculator(config: &str, drafters: Vec<Box<dyn Drafter>>) -> Speculator {
    bounded_speculator(config, drafters, None)
}

fn bounded_speculator(
    config: &str,
    drafters: Vec<Box<dyn Drafter>>,
    boundary: Option<&Rc<dyn Fn(u32) -> bool>>,
) -> Speculator {
    let config: SpeculationConfig = config.parse().expect("valid");
    let setup = Setup { boundary, ..Setup::new(&config) };
    let length = setup.stop_at(&config.stop_at, setup.length(&config.length).expect("a policy")).expect("a policy");
    let parts = Parts { drafters, length, shape: Box::new(Chain), rule: Box::new(Match), selector: Box::new(Cascade) };
    Speculator::new(parts, "on".to_owned())
}

/// An estimator of a configuration, by way of the registry.
pub(crate) fn estimator(name: &str) -> Box<dyn AcceptanceEstimator> {
    Setup::new(&SpeculationConfig::default()).estimator(name).expect("an estimator")
}

/// Where a draft comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For nothing.
    Host,
    /// A pass a token, each seen before the next.
    Steps,
    /// Passes inside the verify pass's submit.
    Inner,
}

/// A drafter of given acceptance by position.
#[derive(Clone, Copy)]
pub(crate) struct Trace<'a> {
    pub(crate) kind: Kind,
    pub(crate) curve: [f64; 5],
    pub(crate) step_ms: f64,
    /// The drafter has a cache of its own.
    pub(crate) feeds: bool,
    pub(crate) alpha: &'a dyn Fn(usize) -> f32,
    pub(crate) claims: fn(f32, bool) -> f32,
    pub(crate) jitter: f64,
    pub(crate) drift: f64,
    pub(crate) seed: u32,
    pub(crate) saved_ms: f64,
    /// What the load found of that, if it was wrong.
    pub(crate) believed_saved_ms: Option<f64>,
    pub(crate) boundary: Option<&'a Rc<dyn Fn(u32) -> bool>>,
}

/// Rounds of a replay, and the clock after each.
pub(crate) struct Replay {
    pub(crate) outcomes: Vec<RoundOutcome>,
    pub(crate) clock_ms: Vec<f64>,
}

impl<'a> Trace<'a> {
    /// A drafter that claims nothing of use.
    pub(crate) fn new(kind: Kind, curve: [f64; 5], alpha: &'a dyn Fn(usize) -> f32) -> Trace<'a> {
        Trace {
            kind,
            curve,
            step_ms: 0.1,
            feeds: false,
            alpha,
            claims: |_, _| 0.7,
            jitter: 0.0,
            drift: 0.0,
            seed: 0,
            saved_ms: 0.0,
            believed_saved_ms: None,
            boundary: None,
        }
    }

    /// `rounds` rounds of a policy, costs unknown to it at first.
    pub(crate) fn replay(&self, config: &str, rounds: usize) -> Replay {
        self.rounds(config, rounds, None)
    }

    /// The same, where a load has measured these passes, wrongly, and a first step was as it said.
    pub(crate) fn replay_believing(&self, passes_ms: [f64; 5], config: &str, rounds: usize) -> Replay {
        let mut cost = CostModel::of_load(passes_ms.map(Some));
        cost.observe(1, None, &RoundTiming { verify_ms: passes_ms[0], ..RoundTiming::default() });
        self.rounds(config, rounds, Some(cost))
    }

    fn rounds(&self, config: &str, rounds: usize, believed: Option<CostModel>) -> Replay {
        let text: Vec<u32> = (0..(rounds * 32 + 64) as u32).map(|at| at % 9973).collect();
        // The drafter is boxed for good, so it takes acceptance by value.
        let alphas: Vec<f32> = (0..text.len()).map(self.alpha).collect();
        let drafter = SimulatedDrafter {
            claims: self.claims,
            on_device: self.kind != Kind::Host,
            inner: self.kind == Kind::Inner,
            fed: self.feeds.then(Cell::default),
            ..SimulatedDrafter::new(text.clone(), move |at| alphas[at])
        };
        let mut speculator = bounded_speculator(config, vec![Box::new(drafter)], self.boundary);
        let believed = believed.unwrap_or_default().saving(self.believed_saved_ms.unwrap_or(self.saved_ms));
        speculator = speculator.with_cost(Rc::new(RefCell::new(believed)));
        let cost = CostModel::of_curve(self.curve, &[]).saving(self.saved_ms);
        let mut target = SimulatedTarget::new(text, cost, self.step_ms);
        (target.jitter, target.drift, target.seed) = (self.jitter, self.drift, self.seed);
        let (mut outcomes, mut clock_ms) = (Vec::new(), Vec::new());
        target
            .rounds(&mut speculator, 1, rounds, |outcome| {
                outcomes.push(outcome);
                clock_ms.push(target.now_ms());
            })
            .expect("a replay");
        Replay { outcomes, clock_ms }
    }

    /// Tokens per millisecond of fixed lengths, the ends of buckets among them.
    pub(crate) fn fixed_rates(&self, rounds: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let lengths = [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 19, 23, MAX_NODES - 1];
        lengths.into_iter().map(move |length| {
            let config = format!("length=fixed,num_speculative_tokens={length}");
            (length, self.replay(&config, rounds).rate(0..rounds))
        })
    }

    /// The best fixed length, and its rate.
    pub(crate) fn best_fixed(&self, rounds: usize) -> (usize, f64) {
        self.fixed_rates(rounds).max_by(|a, b| a.1.total_cmp(&b.1)).expect("some")
    }
}

impl Replay {
    /// Tokens per millisecond over some rounds.
    pub(crate) fn rate(&self, rounds: std::ops::Range<usize>) -> f64 {
        let tokens: usize = self.outcomes[rounds.clone()].iter().map(|outcome| outcome.verdict.path.len() + 1).sum();
        let start_ms = if rounds.start == 0 { 0.0 } else { self.clock_ms[rounds.start - 1] };
        tokens as f64 / (self.clock_ms[rounds.end - 1] - start_ms)
    }

    /// The same of all rounds, had each taken what `trace` costs on average.
    pub(crate) fn mean_rate(&self, trace: &Trace<'_>) -> f64 {
        let cost = CostModel::of_curve(trace.curve, &[]);
        let ms = |outcome: &RoundOutcome| {
            cost.verify_ms(outcome.tree.nodes().len()) + outcome.timing.draft_steps as f64 * trace.step_ms
        };
        let tokens: usize = self.outcomes.iter().map(|outcome| outcome.verdict.path.len() + 1).sum();
        tokens as f64 / self.outcomes.iter().map(ms).sum::<f64>()
    }

    /// Tokens drafted in each round.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.outcomes.iter().map(|outcome| outcome.tree.drafted()).collect()
    }

    /// The mean of these over some rounds.
    pub(crate) fn mean_length(&self, rounds: std::ops::Range<usize>) -> f64 {
        let count = rounds.len() as f64;
        self.lengths()[rounds].iter().sum::<usize>() as f64 / count
    }
}

/// Signals of a host drafter that may draft up to 15 tokens.
pub(crate) fn signals(cost: &CostModel) -> Signals<'_> {
    Signals {
        context_len: 1,
        max_new: 1000,
        drafter: Some(DrafterId(0)),
        on_device: false,
        behind: None,
        default_tokens: 4,
        room: 15,
        cost,
    }
}

/// A prompt of 500 tokens and text after it, in which fresh tokens (few are frequent) and copies from the prompt, with
/// edits, take turns; mean lengths of both, and the share of copied tokens that are edited.
pub(crate) fn copied_text(seed: u32, fresh: f64, copied: f64, edits: f64, tokens: usize) -> Vec<u32> {
    let uniform = |at: u32, which: u32| (f64::from(pcg4d([at, which, seed, 99])[0]) + 0.5) / 4_294_967_296.0;
    let token = |at: usize, which: u32| 2000.0_f64.powf(uniform(at as u32, which)) as u32;
    let mut text: Vec<u32> = (0..500).map(|at| token(at, 0)).collect();
    for turn in 0.. {
        if text.len() >= tokens {
            break;
        }
        for _ in 0..(-uniform(turn, 1).ln() * fresh).min(tokens as f64) as usize {
            text.push(token(text.len(), 2));
        }
        let start = (uniform(turn, 3) * 400.0) as usize;
        for at in 0..(-uniform(turn, 4).ln() * copied) as usize + 1 {
            let edited = uniform(text.len() as u32, 5) < edits;
            text.push(if edited { token(text.len(), 6) } else { text[(start + at) % text.len()] });
        }
    }
    text.truncate(tokens);
    text
}

/// Expected calibration error, in ten bins, of the estimates of all judged nodes but those of the first tenth.
pub(crate) fn calibration_error(trace: &Trace<'_>, estimator: &str, rounds: usize) -> f64 {
    // A policy that always drafts and never reads, so that all estimators see the same drafts.
    let replay = trace
        .replay(&format!("length=survival,survival_stop=1,num_speculative_tokens=3,estimator={estimator}"), rounds);
    let mut bins = [(0.0, 0.0, 0.0); 10];
    for outcome in &replay.outcomes[rounds / 10..] {
        for (node, accepted) in outcome.judged() {
            let a_hat = f64::from(outcome.tree.node(node).a_hat);
            let bin = &mut bins[((a_hat * 10.0) as usize).min(9)];
            *bin = (bin.0 + 1.0, bin.1 + a_hat, bin.2 + f64::from(u8::from(accepted)));
        }
    }
    let all: f64 = bins.iter().map(|bin| bin.0).sum();
    bins.iter().map(|bin| (bin.1 - bin.2).abs()).sum::<f64>() / all
}

/// Acceptance in stretches of sure and of doubtful tokens, with a doubtful one in between.
pub(crate) fn mixed(at: usize) -> f32 {
    match (at / 24 % 2, at % 11) {
        (0, 10) => 0.42,
        (0, _) => 0.985,
        (_, at) if at.is_multiple_of(3) => 0.7,
        _ => 0.25,
    }
}

/// A chain with the probabilities that its drafter claims.
fn chain(claims: &[f32]) -> TokenTree {
    let mut tree = TokenTree::new(0);
    for (at, &claim) in claims.iter().enumerate() {
        let candidate = Candidate::new(at as u32 + 1, DraftStats::of_probability(claim));
        tree.attach(NodeId(at as u16), &candidate, DrafterId(0)).expect("room");
    }
    tree
}

/// A round of a chain of which the first tokens were accepted, with the target's probability of each drafted token.
pub(crate) fn drafted_round(claims: &[f32], accepted: usize, p: f32) -> RoundOutcome {
    let tree = chain(claims);
    let rows = tree.ids().map(|node| {
        let drafted = u32::from(node.0) + 1;
        let sample = if node.index() < accepted { drafted } else { 1000 };
        let top = vec![(drafted, p.ln())];
        let stats = RowStats { entropy: 1.0, second_moment: 1.0, sample_logp: p.ln(), top, drawn: Vec::new() };
        Row { stats: Some(Rc::new(stats)), ..Row::of(sample) }
    });
    let rows = rows.collect();
    let path = (1..=accepted as u16).map(NodeId).collect();
    let verdict = Verdict { path, next: 1000 };
    RoundOutcome { context_len: 1, tree, rows, verdict, timing: RoundTiming::default() }
}

/// Tells an estimator of a round of a chain, accepted up to the first token that is wrong.
pub(crate) fn judged_chain(
    estimator: &mut dyn AcceptanceEstimator,
    tokens: usize,
    claim: f32,
    mut right: impl FnMut() -> bool,
) {
    let accepted = (0..tokens).take_while(|_| right()).count();
    settle(estimator, &drafted_round(&vec![claim; tokens], accepted, 0.5));
}
