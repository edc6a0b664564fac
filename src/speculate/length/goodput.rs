//! `goodput`: the draft that is worth most time (SmartSpec's goodput; methods.md §4.2.1). The default.
//!
//! Of n nodes, `gain(n) = 1 + Σ survival − R·T(n)` is largest, T the measured cost and R the tokens per millisecond of the
//! last rounds, plain decoding at least: the renewal-reward optimum, whose fixed point is the largest `(1 + Σ survival)/T`.
//! n = 0 is a plain step, so what does not pay is not verified.
//!
//! - *Host drafts* are free to make: all that there is room for is drafted and then cut by survival. Costs are a staircase, so
//!   in effect only the edges of buckets compete. One uncut draft at a time, the *shadow*, is followed to its end and scored
//!   by the text as it comes, verified or not: a drafter that is off is watched for nothing.
//! - *Device drafts* cost a step each: their number is chosen before by what is expected of the drafter at each depth. When
//!   none pays, one token is probed now and then, at most [`PROBE_SHARE`] of the time, unless not even right tokens would pay;
//!   a probe that is accepted is followed by another at once. A draft model has to read first what was written without it:
//!   where device drafters have lost [`LOST_SHARE`] of all time with that, they rest. A host draft gives way to a device
//!   drafter behind it that is expected to gain more.
//! - A *plain step submitted ahead*, before the one before it was read, takes less, and bars a draft in its round. It is taken
//!   where that saves more than what drafts gain that begin after a plain step, by the share of the plain steps that one
//!   follows. Drafters are asked all the same, to be verified the round after.
//! - What was *sampled* is never cut: `keep` sees deterministic trees only ([`crate::speculate::round`]), of which any part
//!   may be verified under any rule. Sampled drafts end by `plan` (the past) and `stop` (what was drawn so far, kept), which
//!   is a stopping time. Hence `looks_ahead` is false.
//!
//! The default estimator is `platt(tier)`: of all combinations it lost least against the best fixed length in simulation, since
//! classes of copies differ lastingly (`tier`) while their level moves with the text (the filter's bias). State: the
//! estimator's, one shadow, two sums, and two numbers a device drafter.

use super::probe::{PROBE_ROUNDS, Probe};
use super::{AcceptanceEstimator, LengthPolicy, MAX_DRAFTERS, Signals, estimate, estimator_of, place};
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::DrafterId;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, RoundOutcome, RoundTiming};
use crate::speculate::tree::{NodeId, TokenTree};

/// This method.
pub static METHOD: Method = Method {
    name: "goodput",
    paper: "SmartSpec, arXiv 2406.14066",
    about: "as many tokens as are worth their measured time, none where speculation does not pay",
    needs: "",
    options: &[],
    test: "length::goodput",
    make: Make::Length(|setup| {
        let estimator = estimator_of(setup, "platt(tier)")?;
        Ok(Box::new(Goodput::new(estimator, setup.config.num_speculative_tokens, Gain)))
    }),
};

/// Most of the time that probes of device drafters may take while they are off.
const PROBE_SHARE: f64 = 0.015;
/// Most of the time that device drafters may have lost, with all that draft models had to read first.
const LOST_SHARE: f64 = 0.03;
/// Most of the time that plain steps may cost which are taken to see what one takes.
const PLAIN_SHARE: f64 = 0.01;
/// A plain step is believed to be no more than this share too dear.
const PLAIN_DOUBT: f64 = 0.25;
/// Most of the time that host drafters may take while nothing of what they find is verified.
const IDLE_SHARE: f64 = 0.01;
/// What the last rounds but one count for in the rate, of the last.
const RATE_FADE: f64 = 0.95;
/// Share of a new observation in what drafts that begin after a plain step gain.
const BEGUN_ALPHA: f64 = 0.05;
/// Rounds without a draft after which speculation counts as off.
const OFF_ROUNDS: usize = 8;
/// Share of a new measurement of the host's drafting time.
const HOST_ALPHA: f64 = 0.1;

/// An uncut draft that is compared with the text as it comes.
struct Shadow {
    tree: TokenTree,
    at: NodeId,
    /// It was drafted for the round in flight.
    fresh: bool,
}

/// What was learned, and where the round in flight stands.
#[derive(Default)]
struct State {
    /// Tokens, modelled milliseconds and number of the last rounds.
    tokens: f64,
    ms: f64,
    rounds: f64,
    shadow: Option<Shadow>,
    probes: [Probe; MAX_DRAFTERS],
    /// What device drafters have lost, less what they have gained since, and what all rounds took.
    lost_ms: f64,
    all_ms: f64,
    plain: Probe,
    /// Where the round in flight was first asked for, and whether it is to be a plain step.
    asked_at: usize,
    plain_now: bool,
    /// The drafter that this round probes.
    probing: Option<DrafterId>,
    /// Modelled cost of the round in flight.
    round_ms: f64,
    /// What drafts gain that begin after a plain step, over all rounds after one, and whether the round in flight is one.
    begun_ms: f64,
    after_plain: bool,
    /// There is a draft for the round in flight that is worth it.
    wanted: bool,
    /// Modelled cost of a plain step now, of one that waits, and of the round in flight if it was submitted ahead.
    step_ms: f64,
    plain_ms: f64,
    ahead_ms: f64,
    /// Something was, or could have been, drafted in the round in flight.
    considered: bool,
    /// What host drafters take when they draft, and whether they did in the round in flight.
    host_ms: f64,
    host_drafted: bool,
    /// Rounds in which there was a draft to be had and none was verified, since the last that was.
    off: usize,
    /// What was last thought of the first token of a draft, and c(2).
    last: (f32, f64),
}

/// The policy.
pub struct Goodput<O = Gain> {
    estimator: Box<dyn AcceptanceEstimator>,
    cap: Option<usize>,
    objective: O,
    state: State,
}

/// What lengths are chosen by.
pub trait Objective {
    /// Name in configurations.
    fn name(&self) -> &'static str;
    /// Of drafts that are longer by 0, 1, … tokens, each with its survival, the length to take and what it is worth, more being
    /// better. `tokens` are expected without them, the bonus token included, `ms` is the whole cost, and `rate` the tokens per
    /// millisecond lately.
    fn pick(
        &self,
        tokens: f64,
        survival: &mut dyn Iterator<Item = f64>,
        ms: &dyn Fn(usize) -> f64,
        rate: f64,
    ) -> (usize, f64);
    /// Whether plain decoding is good enough, so that nothing need be tried.
    fn content(&self, _plain_ms: f64) -> bool {
        false
    }
}

/// Tokens, less what would have been written in the same time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gain;

impl Objective for Gain {
    fn name(&self) -> &'static str {
        "goodput"
    }

    fn pick(
        &self,
        mut tokens: f64,
        survival: &mut dyn Iterator<Item = f64>,
        ms: &dyn Fn(usize) -> f64,
        rate: f64,
    ) -> (usize, f64) {
        let mut best = (0, tokens - rate * ms(0));
        for (at, survival) in survival.enumerate() {
            tokens += survival;
            let gain = tokens - rate * ms(at + 1);
            if gain > best.1 {
                best = (at + 1, gain);
            }
        }
        best
    }
}

impl<O: Objective> Goodput<O> {
    /// With an estimator, `num_speculative_tokens` and what to go by.
    pub fn new(estimator: Box<dyn AcceptanceEstimator>, cap: Option<usize>, objective: O) -> Goodput<O> {
        Goodput { estimator, cap, objective, state: State::default() }
    }

    /// Whether plain steps are better submitted ahead of the last one's token.
    fn goes_ahead(&self, cost: &CostModel) -> bool {
        cost.saves_ahead() && cost.plain_ms() - cost.ahead_ms() > self.state.begun_ms
    }

    /// A plain step, as it is best taken.
    fn step_ms(&self, cost: &CostModel) -> f64 {
        if self.goes_ahead(cost) { cost.ahead_ms() } else { cost.plain_ms() }
    }

    /// Tokens per millisecond lately, or of plain decoding.
    fn rate(&self, cost: &CostModel) -> f64 {
        let plain = 1.0 / self.step_ms(cost);
        if self.state.ms > 0.0 { plain.max(self.state.tokens / self.state.ms) } else { plain }
    }

    /// Survival of a chain of a device drafter below a node, by depth.
    fn chain(&self, drafter: DrafterId, from: (f32, usize), most: usize) -> impl Iterator<Item = f64> + '_ {
        let (mut survival, depth) = (f64::from(from.0), from.1);
        (1..=most).map(move |step| {
            survival *= f64::from(self.estimator.expected(drafter, depth + step));
            survival
        })
    }

    /// Tokens that a device drafter should draft, and the gain.
    fn best_of_device(&self, drafter: DrafterId, most: usize, cost: &CostModel) -> (usize, f64) {
        let most = if self.is_spent(cost) { 0 } else { most };
        self.best_of(drafter, &mut self.chain(drafter, (1.0, 0), most), cost)
    }

    /// The same of given survival.
    fn best_of(&self, drafter: DrafterId, survival: &mut dyn Iterator<Item = f64>, cost: &CostModel) -> (usize, f64) {
        let ms = |tokens| if tokens == 0 { self.step_ms(cost) } else { cost.round_ms(drafter, tokens) };
        self.objective.pick(1.0, survival, &ms, self.rate(cost))
    }

    /// Whether device drafters have lost what they may lose.
    fn is_spent(&self, cost: &CostModel) -> bool {
        self.state.lost_ms > LOST_SHARE * self.state.all_ms + cost.plain_ms()
    }

    /// A round lately, or a plain step.
    fn mean_round_ms(&self, cost: &CostModel) -> f64 {
        if self.state.rounds > 0.0 { self.state.ms / self.state.rounds } else { cost.plain_ms() }
    }

    /// Whether a drafter that is not thought to pay should be tried all the same.
    fn probe_due(&mut self, drafter: DrafterId, most: usize, cost: &CostModel) -> bool {
        if self.is_spent(cost) || self.objective.content(cost.plain_ms()) {
            return false;
        }
        let lost_ms = cost.round_ms(drafter, 1) - 1.0 / self.rate(cost);
        let round_ms = self.mean_round_ms(cost);
        self.state.probes[place(Some(drafter))].is_due(lost_ms, PROBE_SHARE, round_ms)
            && self.best_of(drafter, &mut std::iter::repeat_n(1.0, most), cost).0 > 0
    }

    /// Whether to take a plain step although drafts are thought to pay: who never takes one does not learn that it was taken
    /// for dearer than it is.
    fn plain_due(&mut self, cost: &CostModel) -> bool {
        let lost_ms = cost.plain_ms() - 1.0 / self.rate(cost);
        let round_ms = self.mean_round_ms(cost);
        lost_ms < PLAIN_DOUBT * cost.plain_ms() && self.state.plain.is_due(lost_ms, PLAIN_SHARE, round_ms)
    }

    fn plan_device(&mut self, drafter: DrafterId, most: usize, cost: &CostModel) -> usize {
        self.state.last = (self.estimator.expected(drafter, 1), cost.c(2));
        let (mut tokens, _) = self.best_of_device(drafter, most, cost);
        if tokens > 0 {
            self.state.wanted = true;
            self.state.probes[place(Some(drafter))].waited = 0;
        } else if most > 0 && (self.state.probing == Some(drafter) || self.probe_due(drafter, most, cost)) {
            self.state.probing = Some(drafter);
            tokens = 1;
        }
        self.state.round_ms = cost.round_ms(drafter, tokens);
        tokens
    }

    /// Scores the shadow by what was written, but for the nodes that were verified.
    fn follow(&mut self, written: &[u32], verified: &[NodeId]) {
        let Some(mut shadow) = self.state.shadow.take() else { return };
        for &token in written {
            let mut next = None;
            let mut children: Vec<NodeId> = shadow.tree.node(shadow.at).slots.iter().map(|slot| slot.child).collect();
            children.dedup();
            for child in children {
                let node = shadow.tree.node(child);
                let accepted = node.token == Some(token);
                if !verified.contains(&node.drafted_as) {
                    self.estimator.learn(&shadow.tree, child, accepted);
                }
                next = next.or(accepted.then_some(child));
            }
            match next {
                Some(next) => shadow.at = next,
                None => return,
            }
        }
        let leaf = shadow.tree.node(shadow.at).slots.is_empty();
        self.state.shadow = (!leaf).then_some(Shadow { fresh: false, ..shadow });
    }
}

impl<O: Objective> LengthPolicy for Goodput<O> {
    fn name(&self) -> &'static str {
        self.objective.name()
    }

    fn needs(&self) -> Needs {
        self.estimator.needs()
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        let (cost, Some(drafter)) = (signals.cost, signals.drafter) else { return 0 };
        self.state.plain_ms = cost.plain_ms();
        self.state.round_ms = self.state.plain_ms;
        (self.state.step_ms, self.state.ahead_ms) = (self.step_ms(cost), cost.ahead_ms());
        if !cost.is_measured(1) {
            // Without knowing what a plain step takes, nobody can say what is slower.
            return 0;
        }
        if self.state.asked_at != signals.context_len {
            // One answer for all drafters of a round.
            self.state.asked_at = signals.context_len;
            self.state.plain_now = self.plain_due(cost);
        }
        if self.state.plain_now {
            return 0;
        }
        let most = self.cap.unwrap_or(signals.room).min(signals.room);
        if signals.on_device {
            self.state.considered = true;
            return self.plan_device(drafter, most, cost);
        }
        self.state.probing = None;
        if self.state.off >= OFF_ROUNDS {
            let pause = self.state.host_ms / (IDLE_SHARE * cost.plain_ms());
            if pause > 1.0 && !self.state.off.is_multiple_of(pause.ceil() as usize) {
                self.state.considered = true;
                return 0;
            }
        }
        self.state.host_drafted = true;
        most
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        estimate(&mut *self.estimator, tree, node)
    }

    /// For device drafts that come one by one: on while some further stretch is expected to gain.
    fn stop(&mut self, tree: &TokenTree, new: &[NodeId], signals: &Signals<'_>) -> bool {
        let (true, Some(drafter)) = (signals.on_device, signals.drafter) else { return false };
        let leaf = new.iter().map(|&id| tree.node(id)).max_by(|a, b| a.survival.total_cmp(&b.survival));
        let Some(leaf) = leaf else { return false };
        let (cost, nodes) = (signals.cost, tree.drafted());
        let most = self.cap.unwrap_or(signals.room).min(signals.room).saturating_sub(nodes);
        let step_ms = cost.draft_step_ms(drafter);
        let steps = tree.depth();
        let ms = |more: usize| cost.verify_ms(1 + nodes + more) + (steps + more) as f64 * step_ms;
        let tokens = tree.nodes().iter().map(|node| f64::from(node.survival)).sum();
        let mut survival = self.chain(drafter, (leaf.survival, leaf.depth), most);
        self.objective.pick(tokens, &mut survival, &ms, self.rate(cost)).0 == 0
    }

    fn keep(&mut self, tree: &TokenTree, signals: &Signals<'_>) -> usize {
        if !tree.is_deterministic() || tree.drafted() == 0 || self.state.probing.is_some() {
            return tree.drafted();
        }
        let cost = signals.cost;
        let order = tree.by_survival();
        let mut survival = order.iter().map(|&id| f64::from(tree.node(id).survival));
        let step_ms = self.step_ms(cost);
        let ms = |nodes: usize| if nodes == 0 { step_ms } else { cost.verify_ms(1 + nodes) };
        let (mut nodes, gain) = self.objective.pick(1.0, &mut survival, &ms, self.rate(cost));
        let most = self.cap.unwrap_or(signals.room).min(signals.room);
        if let Some(device) = signals.behind.filter(|_| nodes > 0) {
            let better = self.best_of_device(device, most, cost).1 > gain;
            if better || self.probe_due(device, most, cost) {
                nodes = 0;
                self.state.probing = (!better).then_some(device);
            }
        }
        self.state.wanted |= nodes > 0;
        self.state.considered = true;
        self.state.last = (tree.node(order[0]).a_hat, cost.c(2));
        self.state.round_ms = cost.verify_ms(1 + nodes);
        if signals.on_device {
            let steps = tree.depth() as f64;
            self.state.round_ms += signals.drafter.map_or(0.0, |drafter| steps * cost.draft_step_ms(drafter));
        } else if nodes > 0 || self.state.shadow.is_none() {
            // While nothing is verified the older shadow goes on: a run of right tokens counts once, as it would if it were.
            self.state.shadow = Some(Shadow { tree: tree.clone(), at: NodeId::ROOT, fresh: true });
        }
        nodes
    }

    fn ahead(&mut self, cost: &CostModel) -> bool {
        cost.is_measured(1) && self.goes_ahead(cost)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let written = outcome.emitted();
        let (drafted, ahead) = (outcome.tree.drafted() > 0, outcome.timing.ahead);
        if ahead {
            self.state.round_ms = self.state.ahead_ms;
        }
        // What a draft would have gained that could not be verified, the next one tells.
        let wanted = std::mem::take(&mut self.state.wanted);
        if self.state.after_plain && !(ahead && wanted) {
            let gain_ms = written.len() as f64 * self.state.step_ms - self.state.round_ms;
            self.state.begun_ms += BEGUN_ALPHA * (if drafted { gain_ms } else { 0.0 } - self.state.begun_ms);
        }
        self.state.after_plain = !drafted;
        self.state.tokens = RATE_FADE * self.state.tokens + written.len() as f64;
        self.state.ms = RATE_FADE * self.state.ms + self.state.round_ms;
        self.state.rounds = RATE_FADE * self.state.rounds + 1.0;
        for (node, accepted) in outcome.judged() {
            self.estimator.learn(&outcome.tree, node, accepted);
        }
        // Of a tree that was cut for this round the verified nodes are known by the numbers they were drafted with.
        let source = |tree: &TokenTree| tree.nodes().get(1).and_then(|node| node.source);
        let cut = |shadow: &Shadow| shadow.fresh && source(&shadow.tree) == source(&outcome.tree);
        let verified: Vec<NodeId> = match &self.state.shadow {
            Some(shadow) if cut(shadow) => outcome.tree.nodes().iter().map(|node| node.drafted_as).collect(),
            _ => Vec::new(),
        };
        self.follow(&written, &verified);
        self.estimator.observe(outcome);
        self.state.all_ms += self.state.round_ms;
        let RoundTiming { draft_ms, verify_ms, draft_steps, caught_up, .. } = outcome.timing;
        if draft_steps > 0 || caught_up {
            let ms = if caught_up { draft_ms + verify_ms } else { self.state.round_ms };
            let lost_ms = ms - written.len() as f64 * self.state.plain_ms;
            self.state.lost_ms = (self.state.lost_ms + lost_ms).max(0.0);
        }
        // A probe that was right, or could not be seen yet since its draft model only caught up, is followed by another at once.
        let again = ahead || caught_up && !drafted || !outcome.verdict.path.is_empty();
        if let Some(drafter) = self.state.probing.take().filter(|_| again) {
            let probe = &mut self.state.probes[place(Some(drafter))];
            probe.rounds = (probe.rounds / 2).max(PROBE_ROUNDS.0);
            probe.waited = probe.rounds;
        }
        if !drafted {
            self.state.plain.waited = 0;
        }
        if drafted {
            self.state.off = 0;
        } else if self.state.considered {
            self.state.off += 1;
        }
        if std::mem::take(&mut self.state.host_drafted) && outcome.timing.draft_steps == 0 {
            self.state.host_ms += HOST_ALPHA * (outcome.timing.draft_ms - self.state.host_ms);
        }
        self.state.considered = false;
    }

    fn reason(&self) -> Option<String> {
        let (acceptance, c) = self.state.last;
        let percent = 100.0 * acceptance;
        (self.state.off >= OFF_ROUNDS).then(|| format!("off: acceptance {percent:.0} % at c(2) = {c:.2} does not pay"))
    }

    fn reset(&mut self) {
        self.estimator.reset();
        self.state = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLAT, Kind, LINEAR, MEASURED, SOFTWARE, Trace, copied_text, speculator};
    use super::*;
    use crate::speculate::drafters::{Drafter, Ngram};
    use crate::speculate::outcome::{RoundTiming, Row, Verdict};
    use crate::speculate::simulate::{SimulatedDrafter, SimulatedTarget};
    use crate::speculate::target::Target;
    use crate::speculate::tree::{Candidate, DraftStats, Proposal};

    const KINDS: [Kind; 3] = [Kind::Host, Kind::Steps, Kind::Inner];
    const CURVES: [[f64; 5]; 3] = [MEASURED, LINEAR, FLAT];

    #[test]
    fn regret_against_the_best_fixed_length_is_small() {
        let alphas: [&'static dyn Fn(usize) -> f32; 4] = [&|_| 0.3, &|_| 0.6, &|_| 0.8, &|_| 0.95];
        for kind in KINDS {
            for curve in CURVES {
                for alpha in alphas {
                    for jitter in if curve == MEASURED { vec![0.0, 0.2] } else { vec![0.0] } {
                        let trace = Trace { jitter, ..Trace::new(kind, curve, alpha) };
                        let (best, rate) = trace.best_fixed(2000);
                        let regret = 1.0 - trace.replay("length=goodput", 2000).rate(0..2000) / rate;
                        assert!(regret <= 0.05, "{kind:?}, {curve:?}, {}: {regret} of {best}", alpha(0));
                    }
                }
            }
        }
    }

    #[test]
    fn plain_decoding_is_hardly_slower_where_nothing_is_accepted() {
        for kind in KINDS {
            for curve in CURVES {
                let rate = Trace::new(kind, curve, &|_| 0.0).replay("length=goodput", 2000).rate(0..2000);
                assert!(rate >= 0.98, "{kind:?}, {curve:?}: {rate}");
            }
        }
        // Random text, in which n-grams recur by chance.
        for curve in CURVES {
            let text = copied_text(1, 1e9, 1.0, 0.0, 2500);
            let target = SimulatedTarget::new(text, CostModel::of_curve(curve, &[]), 0.1);
            let mut speculator = speculator("length=goodput", vec![Box::new(Ngram::new(1, 4))]);
            target.rounds(&mut speculator, 500, 2000, |_| ()).expect("a replay");
            let rate = (target.text.len() - 500) as f64 / target.now_ms();
            assert!(rate >= 0.98, "{curve:?}: {rate}");
        }
    }

    #[test]
    fn plain_steps_go_ahead_where_that_saves_more_than_drafts_gain() {
        let none: &dyn Fn(usize) -> f32 = &|_| 0.0;
        let all: &dyn Fn(usize) -> f32 = &|_| 0.9;
        let some: &dyn Fn(usize) -> f32 = &|at| if (at / 100).is_multiple_of(2) { 0.9 } else { 0.0 };
        let rate = |trace: Trace<'_>, config: &str| {
            let replay = trace.replay(config, 2000);
            let ahead = replay.outcomes.iter().filter(|outcome| outcome.timing.ahead).count();
            let rounds = replay.outcomes.len();
            (replay.rate(0..rounds), ahead as f64 / rounds as f64)
        };
        for kind in KINDS {
            for curve in CURVES {
                let saving = |alpha, saved_ms, jitter| Trace { saved_ms, jitter, ..Trace::new(kind, curve, alpha) };
                for jitter in [0.0, 0.3] {
                    let (_, never) = rate(saving(none, 0.0, jitter), "length=goodput");
                    assert_eq!(never, 0.0, "nothing is saved");
                    let (ahead, often) = rate(saving(none, 0.3, jitter), "length=goodput");
                    assert!(ahead >= 0.97 / 0.7 && often > 0.9, "{kind:?}, {curve:?}: {ahead}, {often} of all");
                    for alpha in [all, some] {
                        let (waiting, _) = rate(saving(alpha, 0.0, jitter), "length=goodput");
                        let (ahead, often) = rate(saving(alpha, 0.3, jitter), "length=goodput");
                        let least = waiting.max(1.0 / 0.7);
                        assert!(ahead >= 0.94 * least, "{kind:?}, {curve:?}: {ahead} of {least}, {often} of all");
                    }
                }
            }
        }
    }

    #[test]
    fn a_saving_that_the_load_overrated_is_found_out() {
        let some: &dyn Fn(usize) -> f32 = &|_| 0.4;
        for kind in KINDS {
            let trace =
                |believed| Trace { believed_saved_ms: believed, jitter: 0.3, ..Trace::new(kind, MEASURED, some) };
            let rate = |believed| trace(believed).replay("length=goodput", 1000).rate(0..1000);
            let (knowing, misled) = (rate(None), rate(Some(0.4)));
            assert!(misled >= 0.95 * knowing, "{kind:?}: {misled} of {knowing}");
        }
    }

    #[test]
    fn a_new_regime_is_met_within_32_rounds() {
        for kind in [Kind::Host, Kind::Inner] {
            for (before, after) in [(0.0_f32, 0.9_f32), (0.1, 0.95), (0.9, 0.0), (0.8, 0.1)] {
                for change in [1000, 1013, 1027] {
                    let alpha = move |at: usize| if at < change { before } else { after };
                    let trace = Trace::new(kind, MEASURED, &alpha);
                    let replay = trace.replay("length=goodput", 2500);
                    let start =
                        replay.outcomes.iter().position(|outcome| outcome.context_len >= change).expect("so far");
                    let after = move |_: usize| after;
                    let (_, best) = Trace::new(kind, MEASURED, &after).best_fixed(2000);
                    let rate = replay.rate(start + 32..start + 1032);
                    assert!(rate >= 0.95 * best, "{kind:?}, {before} to {} at {change}: {rate} of {best}", after(0));
                }
            }
        }
    }

    #[test]
    fn a_plain_step_taken_for_dearer_than_it_is_is_found_out() {
        // Timed under load: two columns are thought to cost what one does, and really cost half as much again.
        for kind in KINDS {
            let trace = Trace::new(kind, LINEAR, &|_| 0.05);
            let rate = trace.replay_believing([1.5, 1.51, 2.5, 4.5, 8.5], "length=goodput", 500).rate(0..500);
            assert!(rate >= 0.95, "{kind:?}: {rate}");
        }
    }

    #[test]
    fn a_draft_model_that_does_not_pay_costs_little_with_all_that_it_has_to_read() {
        // Nearly as dear as the target, and cheaper ones that are hardly ever right.
        for (step_ms, alpha) in [(0.97, 0.9_f32), (0.97, 0.3), (0.3, 0.2), (0.3, 0.02), (0.1, 0.02)] {
            let alpha = move |_: usize| alpha;
            let trace = Trace { step_ms, feeds: true, ..Trace::new(Kind::Inner, SOFTWARE, &alpha) };
            for (rounds, least) in [(100, 0.96), (600, 0.93), (2000, 0.96)] {
                let rate = trace.replay_believing(SOFTWARE, "length=goodput", rounds).rate(0..rounds);
                assert!(rate >= least, "{step_ms}, {}, {rounds}: {rate}", alpha(0));
            }
        }
    }

    #[test]
    fn a_machine_that_is_now_faster_now_slower_does_not_make_poor_drafts_pay() {
        for kind in KINDS {
            // A device drafter is probed.
            let least = if kind == Kind::Host { 0.99 } else { 0.98 };
            for (alpha, seed) in [0.02_f32, 0.1].into_iter().flat_map(|alpha| (0..8).map(move |seed| (alpha, seed))) {
                let alpha = move |_: usize| alpha;
                let trace = Trace { jitter: 0.35, drift: 0.2, seed, ..Trace::new(kind, SOFTWARE, &alpha) };
                let rate = trace.replay_believing(SOFTWARE, "length=goodput", 600).mean_rate(&trace);
                assert!(rate >= least, "{kind:?}, {}, {seed}: {rate}", alpha(0));
            }
        }
    }

    #[test]
    fn no_estimator_loses_less_than_the_default_on_copied_text() {
        let rate = |estimator: &str| {
            let mut sum = 0.0;
            for (fresh, copied, edits) in [(6.0, 60.0, 0.02), (20.0, 12.0, 0.03), (60.0, 4.0, 0.1)] {
                for seed in 0..4 {
                    let text = copied_text(seed, fresh, copied, edits, 1500);
                    let target = SimulatedTarget::new(text, CostModel::of_curve(MEASURED, &[]), 0.1);
                    let config = format!("length=goodput,estimator={estimator}");
                    let mut speculator = speculator(&config, vec![Box::new(Ngram::new(2, 4))]);
                    target.rounds(&mut speculator, 500, usize::MAX, |_| ()).expect("a replay");
                    sum += 1000.0 / target.now_ms();
                }
            }
            sum
        };
        let own = rate("auto");
        for other in ["ema", "tier", "confidence", "platt(ema)", "platt(confidence)"] {
            let other_rate = rate(other);
            assert!(own >= 0.998 * other_rate, "{own}, {other} {other_rate}");
        }
    }

    #[test]
    fn a_poor_copy_gives_way_to_a_good_model() {
        let text: Vec<u32> = (0..20_000).map(|at| at % 9973).collect();
        let run = |alphas: [f32; 2]| {
            let drafters: Vec<Box<dyn Drafter>> = vec![
                Box::new(SimulatedDrafter { seed: 1, ..SimulatedDrafter::new(text.clone(), move |_| alphas[0]) }),
                Box::new(SimulatedDrafter {
                    on_device: true,
                    inner: true,
                    ..SimulatedDrafter::new(text.clone(), move |_| alphas[1])
                }),
            ];
            let mut speculator = speculator("length=goodput", drafters);
            let target = SimulatedTarget::new(text.clone(), CostModel::of_curve(FLAT, &[]), 0.05);
            let mut tokens = 0;
            let count = |outcome: RoundOutcome| tokens += outcome.verdict.path.len() + 1;
            target.rounds(&mut speculator, 1, 1000, count).expect("a replay");
            tokens as f64 / target.now_ms()
        };
        let (both, model, copy) = (run([0.4, 0.9]), run([0.0, 0.9]), run([0.4, 0.0]));
        assert!(both > 0.95 * model && model > 1.5 * copy, "{both}, {model} and {copy} alone");
        let (both, copy) = (run([0.9, 0.4]), run([0.9, 0.0]));
        assert!(both > 0.97 * copy, "{both}, {copy} alone");
    }

    fn goodput() -> Goodput {
        Goodput::new(Box::new(super::super::estimators::confidence::Confidence::default()), None, Gain)
    }

    #[test]
    fn what_was_sampled_is_never_cut() {
        let cost = CostModel::of_curve(LINEAR, &[]);
        let signals = super::super::testing::signals(&cost);
        let mut tree = TokenTree::new(0);
        let poor = Candidate::new(1, DraftStats::of_probability(0.01));
        tree.attach(NodeId::ROOT, &poor, DrafterId(0)).expect("room");
        tree.set_estimate(NodeId(1), 0.01);
        assert_eq!(goodput().keep(&tree, &signals), 0);
        let mut tree = TokenTree::new(0);
        let drawn = Candidate { proposal: Proposal::Sampled(std::rc::Rc::from([0.99, 0.01])), ..poor };
        tree.attach(NodeId::ROOT, &drawn, DrafterId(0)).expect("room");
        tree.set_estimate(NodeId(1), 0.01);
        assert_eq!(goodput().keep(&tree, &signals), 1);
        assert!(!goodput().looks_ahead());
    }

    #[test]
    fn a_probe_that_only_caught_up_is_made_again() {
        let cost = CostModel::of_curve(LINEAR, &[]);
        let mut policy = goodput();
        let mut rounds = |caught_up: bool, rounds: usize| -> Vec<usize> {
            let mut round = |context_len| {
                let base = super::super::testing::signals(&cost);
                let signals = Signals { context_len, on_device: true, drafter: Some(DrafterId(0)), ..base };
                let plan = policy.plan(&signals);
                policy.observe(&RoundOutcome {
                    context_len,
                    tree: TokenTree::new(0),
                    rows: vec![Row::of(2)],
                    verdict: Verdict { path: Vec::new(), next: 2 },
                    timing: RoundTiming { verify_ms: 1.0, caught_up: caught_up && plan > 0, ..RoundTiming::default() },
                });
                plan
            };
            (1..=rounds).map(&mut round).collect()
        };
        let (in_vain, behind) = (rounds(false, PROBE_ROUNDS.0 + 1), rounds(true, 20));
        assert_eq!(in_vain.iter().sum::<usize>(), 1, "{in_vain:?}");
        let first = behind.iter().position(|&plan| plan > 0).expect("a probe");
        assert!(first < 20 && behind[first..].iter().all(|&plan| plan == 1), "{behind:?}");
    }

    #[test]
    fn slow_host_drafters_rest_while_they_are_off_and_it_says_why() {
        let cost = CostModel::of_curve(LINEAR, &[]);
        let signals = super::super::testing::signals(&cost);
        let mut policy = goodput();
        let mut asked = 0;
        for round in 0..1000 {
            let plan = policy.plan(&signals);
            asked += usize::from(plan > 0);
            let mut draft_ms = 0.0;
            if plan > 0 {
                let mut tree = TokenTree::new(0);
                let poor = Candidate::new(1, DraftStats::of_probability(0.2));
                tree.attach(NodeId::ROOT, &poor, DrafterId(0)).expect("room");
                tree.set_estimate(NodeId(1), 0.2);
                assert_eq!(policy.keep(&tree, &signals), 0);
                // A tenth of a plain step.
                draft_ms = 0.1;
            }
            policy.observe(&RoundOutcome {
                context_len: round + 1,
                tree: TokenTree::new(0),
                rows: vec![Row::of(2)],
                verdict: Verdict { path: Vec::new(), next: 2 },
                timing: RoundTiming { draft_ms, verify_ms: 1.0, ..RoundTiming::default() },
            });
        }
        assert!((50..200).contains(&asked), "{asked} of 1000 rounds");
        assert_eq!(policy.reason().as_deref(), Some("off: acceptance 20 % at c(2) = 1.50 does not pay"));
        policy.reset();
        assert_eq!(policy.reason(), None);
    }
}
