//! Rounds without a model: a recorded text and a cost curve stand for the target, so that every drafter can be replayed on
//! real text and every policy has deterministic tests.
//!
//! With `match` a replay gives exactly the rounds that the engine would make on this text, for drafters that learn from
//! committed tokens only. Rows of rejected branches are not in a recording; here they say what the text says at their
//! position, and have no statistics; what learns from the samples of rejected rows (`jacobi`) must be measured on a model. A
//! [`ToyTarget`] computes its rows instead.

use super::cost::CostModel;
use super::drafters::passes::MAX_CATCH_UP_PASSES;
use super::drafters::{Ask, DraftContext, DraftPass, Drafter, DrafterId, Expansion, InnerDraft, each_leaf};
use super::outcome::{Needs, RoundOutcome, Row};
use super::round::Speculator;
use super::target::{Ahead, Job, Target, Verified};
use super::tree::{Candidate, DraftStats, NodeId, TokenTree};
use crate::error::Result;
use crate::plan::{MAX_COLUMNS, MAX_NODES, Params, PlanId, RowStats, Submission, TOP, Ticket};
use crate::sampling::{SamplingParams, distribution, gumbel, pcg4d, threshold};
use crate::store::LocalFuture;
use futures_lite::future::block_on;
use std::cell::Cell;
use std::rc::Rc;

/// A text that the target is known to write.
pub struct SimulatedTarget {
    /// Prompt and answer.
    pub text: Vec<u32>,
    /// Statistics of the row after each token of the text, where they were recorded.
    pub stats: Vec<Option<Rc<RowStats>>>,
    /// What passes cost; it is also the clock.
    pub cost: CostModel,
    /// What a pass of a draft model costs.
    pub draft_step_ms: f64,
    /// How far the time of a pass may lie from the mean, as a share of it, to either side together.
    pub jitter: f64,
    /// How far the pace of everything wanders over some fifty passes, as a share: other work on the machine.
    pub drift: f64,
    /// Tells devices apart that jitter and wander.
    pub seed: u32,
    /// The logarithm of the pace, by `drift`, and passes so far.
    pace: Cell<(f64, u32)>,
    clock_ms: Cell<f64>,
}

impl SimulatedTarget {
    /// A text, and costs.
    pub fn new(text: Vec<u32>, cost: CostModel, draft_step_ms: f64) -> SimulatedTarget {
        let (pace, clock_ms) = (Cell::default(), Cell::default());
        SimulatedTarget {
            text,
            stats: Vec::new(),
            cost,
            draft_step_ms,
            jitter: 0.0,
            drift: 0.0,
            seed: 0,
            pace,
            clock_ms,
        }
    }

    fn spend(&self, ms: f64) {
        let (pace, passes) = self.pace.get();
        let [walk, noise, ..] = pcg4d([passes, self.seed, 5, 55]).map(|word| f64::from(word) / 4_294_967_296.0 - 0.5);
        // Uniform steps of variance 1 / 12; those of fifty passes wander by 1.
        let pace = 0.98 * pace + (12.0 * (1.0 - 0.98 * 0.98_f64)).sqrt() * walk;
        self.pace.set((pace, passes + 1));
        let ms = ms * (self.drift * pace).exp() * (1.0 + self.jitter * noise);
        self.clock_ms.set(self.clock_ms.get() + ms);
    }

    /// Writes the text from `prompt` tokens on; gives the outcomes. The clock tells what it took.
    pub fn replay(&self, speculator: &mut Speculator, prompt: usize) -> Result<Vec<RoundOutcome>> {
        let mut outcomes = Vec::new();
        self.rounds(speculator, prompt, usize::MAX, |outcome| outcomes.push(outcome))?;
        Ok(outcomes)
    }

    /// The same for so many rounds at most; shows each outcome, with the clock as it is then.
    pub fn rounds(
        &self,
        speculator: &mut Speculator,
        prompt: usize,
        rounds: usize,
        mut each: impl FnMut(RoundOutcome),
    ) -> Result<()> {
        let sampling = SamplingParams::default();
        let mut at = prompt;
        for _ in 0..rounds {
            if at >= self.text.len() {
                break;
            }
            let left = self.text.len() - at;
            let outcome = block_on(speculator.round(self, &self.text[..at], &sampling, left))?;
            at += outcome.verdict.path.len() + 1;
            each(outcome);
        }
        Ok(())
    }
}

impl Target for SimulatedTarget {
    fn room(&self, _: usize) -> usize {
        MAX_NODES - 1
    }

    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        let (drafted, steps) = job.inner.map_or((Vec::new(), 0.0), |inner| {
            let caught_up = inner.runs.len() as f64 * self.cost.c(MAX_COLUMNS);
            (inner.inputs[1..].to_vec(), inner.steps as f64 + caught_up)
        });
        let verify_ms = match job.submitted {
            Some(_) => self.cost.ahead_ms(),
            None => self.cost.verify_ms(job.tree.nodes().len()) + steps * self.draft_step_ms,
        };
        let ahead = job.ahead.then_some(Ahead { base: job.tokens.len(), sample_at: 0, ticket: Ticket(0) });
        self.spend(verify_ms);
        let mut recorded = vec![true];
        let rows = job.tree.nodes().iter().enumerate().map(|(index, node)| {
            let position = job.tokens.len() - 1 + node.depth;
            let sample = self.text.get(position + 1).copied().unwrap_or(0);
            if index > 0 {
                recorded.push(recorded[node.parent.index()] && node.token == self.text.get(position).copied());
            }
            Row { stats: self.stats.get(position).cloned().flatten().filter(|_| recorded[index]), ..Row::of(sample) }
        });
        let rows = rows.collect();
        Box::pin(async move { Ok(Verified { drafted, rows, ahead }) })
    }

    fn draft<'a>(&'a self, _: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        self.spend(self.draft_step_ms);
        Box::pin(async { Ok((Vec::new(), Vec::new())) })
    }

    fn commit(&self, _: &[u32], _: &TokenTree, _: &[NodeId]) {}

    fn now_ms(&self) -> f64 {
        self.clock_ms.get()
    }
}

/// A drafter that knows the text and errs on purpose: right with probability `alpha(position)`, the same every time.
pub struct SimulatedDrafter<F> {
    /// The text of the target.
    pub text: Vec<u32>,
    /// P(right) of the token at a position; below 0 it has nothing to offer there.
    pub alpha: F,
    /// What is left of that at a depth of the tree, 1 the first: draft models err more the further they are ahead.
    pub fades: fn(usize) -> f32,
    /// Children it offers at most.
    pub width: usize,
    /// Which bit its wrong guesses have set: by default drafters err in the same way.
    pub wrong: u32,
    /// The probability it claims for a token at a position, given whether it is right.
    pub claims: fn(f32, bool) -> f32,
    /// Whether a step costs a pass.
    pub on_device: bool,
    /// Whether a chain runs inside the verify pass's submit, so that nothing is known of its tokens before.
    pub inner: bool,
    /// Tokens that its own cache holds, where it has one: to bring in more than a pass holds takes passes.
    pub fed: Option<Cell<usize>>,
    /// Tells drafters apart.
    pub seed: u32,
}

impl<F: Fn(usize) -> f32> SimulatedDrafter<F> {
    /// A host drafter that claims what is true on average.
    pub fn new(text: Vec<u32>, alpha: F) -> SimulatedDrafter<F> {
        SimulatedDrafter {
            text,
            alpha,
            fades: |_| 1.0,
            width: usize::MAX,
            wrong: 16,
            claims: |alpha, _| alpha,
            on_device: false,
            inner: false,
            fed: None,
            seed: 0,
        }
    }
}

impl<F: Fn(usize) -> f32> Stepwise for SimulatedDrafter<F> {
    const NAME: &'static str = "simulated";

    fn takes_passes(&self) -> bool {
        self.on_device
    }

    fn runs_inside(&self) -> bool {
        self.inner
    }

    fn catch_up(&self, known: usize) -> (usize, bool) {
        let Some(fed) = &self.fed else { return (0, true) };
        let pending = known - fed.get();
        let read = pending.min(MAX_CATCH_UP_PASSES * MAX_COLUMNS);
        fed.set(fed.get() + read);
        (read / MAX_COLUMNS, read == pending)
    }

    fn candidates(&self, context: &DraftContext<'_>, tree: &TokenTree, leaf: NodeId, width: usize) -> Vec<Candidate> {
        let position = context.tokens.len() + tree.node(leaf).depth;
        let Some(&right) = self.text.get(position) else { return Vec::new() };
        let draw = |which: u32| pcg4d([position as u32, self.seed, which, 77])[0] as f32 / 4_294_967_296.0;
        let alpha = (self.alpha)(position) * (self.fades)(tree.node(leaf).depth + 1);
        if alpha < 0.0 {
            return Vec::new();
        }
        let first = if draw(0) < alpha { right } else { right ^ 1 << self.wrong };
        let stats = DraftStats::of_probability((self.claims)(alpha, first == right));
        let mut all = vec![Candidate::new(first, stats)];
        for sibling in 1..width.min(self.width) as u32 {
            // A second guess is right half as often as the first one would have been.
            let token =
                if first != right && draw(sibling) < alpha / 2.0 { right } else { right ^ (sibling + 1) << self.wrong };
            all.push(Candidate::new(token, DraftStats::of_probability(alpha * (1.0 - alpha) / 2.0)));
        }
        all
    }
}

/// A drafter whose candidates are a function of the path: given at once, after a pass that costs time, or as a chain inside
/// the verify pass's submit.
pub trait Stepwise {
    /// Name in statistics.
    const NAME: &'static str;
    /// Whether a step costs a pass.
    fn takes_passes(&self) -> bool;
    /// Whether a chain runs inside the verify pass's submit.
    fn runs_inside(&self) -> bool {
        false
    }
    /// Brings what is known into its cache; gives the passes of [`MAX_COLUMNS`] columns that this takes, and whether it is done.
    fn catch_up(&self, _known: usize) -> (usize, bool) {
        (0, true)
    }
    /// What it offers below a leaf, best first.
    fn candidates(&self, context: &DraftContext<'_>, tree: &TokenTree, leaf: NodeId, width: usize) -> Vec<Candidate>;
}

impl<S: Stepwise> Drafter for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn default_tokens(&self) -> usize {
        4
    }

    fn on_device(&self) -> bool {
        self.takes_passes()
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        if self.takes_passes() {
            return Ok(Expansion::Pass(DraftPass {
                submission: Submission::default(),
                logits: None,
                caught_up: false,
            }));
        }
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, leaf, ask.width)))
    }

    fn absorb(
        &mut self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        _: &[u32],
        _: &[f32],
    ) -> Result<Expansion> {
        Ok(each_leaf(ask, |leaf| self.candidates(context, tree, leaf, ask.width)))
    }

    fn record(&mut self, context: &DraftContext<'_>, count: usize) -> Result<Option<InnerDraft>> {
        if !self.runs_inside() {
            return Ok(None);
        }
        let (passes, done) = self.catch_up(context.tokens.len() - 1);
        let count = if done { count } else { 0 };
        // There is no device: the drafts travel behind the root, and the simulated target reads them there.
        let root = context.tokens[context.tokens.len() - 1];
        let (mut tree, mut at, mut inputs) = (TokenTree::new(root), NodeId::ROOT, vec![root]);
        while tree.drafted() < count {
            let next = self.candidates(context, &tree, at, 1).into_iter().next();
            let Some((child, _)) = next.as_ref().and_then(|next| tree.attach(at, next, DrafterId(0))) else { break };
            inputs.extend(tree.node(child).token);
            at = child;
        }
        let tokens = tree.drafted();
        // What a recorded pass does is of no account here, how many there are is.
        let runs = vec![(PlanId(0), Params::chain(MAX_COLUMNS, 0, 0)); passes];
        let caught_up = passes > 0;
        Ok((tokens > 0 || caught_up).then_some(InnerDraft { inputs, runs, tokens, steps: tokens, caught_up }))
    }
}

/// A toy language model: its row is a function of the last two tokens. Its text is repetitive, as code and records are, and its
/// contexts reach from nearly certain to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToyModel {
    /// Tokens there are, 16 to 65,536.
    pub vocabulary: u32,
    /// Tells models apart.
    pub seed: u32,
}

impl ToyModel {
    /// Logits after `before, last`.
    pub fn logits(&self, before: u32, last: u32) -> Vec<f32> {
        // Few kinds of context, so that they come back within a short text.
        let [first, step, kind, _] = pcg4d([before % 4, last, self.seed, 91]);
        let sharpness = [0.3, 1.2, 4.0, 8.0][kind as usize >> 30];
        let mut logits = vec![-9.0; self.vocabulary as usize];
        for rank in (0..6).rev() {
            let token = first.wrapping_add(rank * (step | 1)) % self.vocabulary;
            logits[token as usize] = -sharpness * rank as f32;
        }
        logits
    }

    /// The row after `path`, whose end is the last token, with the sample that plain decoding draws there.
    fn row(&self, path: &[u32], sampling: &SamplingParams, needs: Needs) -> Row {
        let (mut logits, noisy) = self.scores(path, path.len(), sampling);
        let sample = noisy[0].0;
        let stats = needs.stats.then(|| Rc::new(row_stats(&logits, &noisy)));
        if sampling.temperature > 0.0 {
            logits.iter_mut().for_each(|logit| *logit /= sampling.temperature);
        }
        Row { sample, stats, p: needs.p.then(|| distribution(&logits, sampling).into()) }
    }

    /// Logits after a path, of which the last two tokens matter, and the tokens by what sampling makes of them at `position`,
    /// best first: the first is the sample.
    fn scores(&self, path: &[u32], position: usize, sampling: &SamplingParams) -> (Vec<f32>, Vec<(u32, f32)>) {
        let last = path[path.len() - 1];
        let before = path.len().checked_sub(2).map_or(0, |at| path[at]);
        let logits = self.logits(before, last);
        let seed = [sampling.seed as u32, (sampling.seed >> 32) as u32];
        let warm = sampling.temperature > 0.0;
        let scaled: Vec<f32> =
            logits.iter().map(|logit| if warm { logit / sampling.temperature } else { *logit }).collect();
        let least = threshold(&scaled, sampling.top_k, sampling.top_p, sampling.min_p);
        let score = |(token, &logit): (usize, &f32)| {
            let noise = if warm { gumbel(seed, position as u32, token as u32) } else { 0.0 };
            (token as u32, if logit < least { f32::NEG_INFINITY } else { logit + noise })
        };
        let mut noisy: Vec<(u32, f32)> = scaled.iter().enumerate().map(score).collect();
        noisy.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        (logits, noisy)
    }
}

/// ln of probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    logits.iter().map(|logit| logit - most - total.ln()).collect()
}

/// Statistics as the kernel gives them.
fn row_stats(logits: &[f32], noisy: &[(u32, f32)]) -> RowStats {
    let logp = log_softmax(logits);
    let moment = |power: i32| logp.iter().map(|l| l.exp() * l.abs().powi(power)).sum::<f32>();
    let mut ranked: Vec<(u32, f32)> = (0..).zip(logp.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.truncate(TOP);
    let drawn = noisy.iter().take(TOP).map(|&(token, _)| (token, logp[token as usize])).collect();
    RowStats {
        entropy: moment(1),
        second_moment: moment(2),
        sample_logp: logp[noisy[0].0 as usize],
        top: ranked,
        drawn,
    }
}

/// A target that computes: rows of branches that are wrong are real rows, as a model's are.
pub struct ToyTarget {
    /// Its model.
    pub model: ToyModel,
    /// What passes cost; it is also the clock.
    pub cost: CostModel,
    /// What a pass of a draft model costs.
    pub draft_step_ms: f64,
    clock_ms: Cell<f64>,
}

impl ToyTarget {
    /// A model, and costs.
    pub fn new(model: ToyModel, cost: CostModel, draft_step_ms: f64) -> ToyTarget {
        ToyTarget { model, cost, draft_step_ms, clock_ms: Cell::new(0.0) }
    }

    /// `prompt` and the `count` tokens that plain decoding writes after it.
    pub fn plain(&self, prompt: &[u32], count: usize, sampling: &SamplingParams) -> Vec<u32> {
        let mut text = prompt.to_vec();
        for _ in 0..count {
            text.push(self.model.scores(&text, text.len(), sampling).1[0].0);
        }
        text
    }

    /// The same by rounds, and their outcomes.
    pub fn write(
        &self,
        speculator: &mut Speculator,
        prompt: &[u32],
        count: usize,
        sampling: &SamplingParams,
    ) -> Result<(Vec<u32>, Vec<RoundOutcome>)> {
        let mut text = prompt.to_vec();
        let mut outcomes = Vec::new();
        while text.len() < prompt.len() + count {
            let left = prompt.len() + count - text.len();
            let outcome = block_on(speculator.round(self, &text, sampling, left))?;
            text.extend(outcome.emitted());
            outcomes.push(outcome);
        }
        Ok((text, outcomes))
    }
}

impl Target for ToyTarget {
    fn room(&self, _: usize) -> usize {
        MAX_NODES - 1
    }

    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        self.clock_ms.set(self.clock_ms.get() + self.cost.verify_ms(job.tree.nodes().len()));
        let rows = job.tree.ids().map(|node| {
            let path = [job.tokens, &job.tree.path_tokens(node)].concat();
            self.model.row(&path, job.sampling, job.needs)
        });
        let rows = rows.collect();
        Box::pin(async move { Ok(Verified { rows, ..Verified::default() }) })
    }

    fn draft<'a>(&'a self, _: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        self.clock_ms.set(self.clock_ms.get() + self.draft_step_ms);
        Box::pin(async { Ok((Vec::new(), Vec::new())) })
    }

    fn commit(&self, _: &[u32], _: &TokenTree, _: &[NodeId]) {}

    fn now_ms(&self) -> f64 {
        self.clock_ms.get()
    }
}

/// A draft model for [`ToyTarget`]: the target's own row for a share of all contexts, another model's for the rest. It samples
/// with the target's noise; its next guesses are the runners-up.
pub struct ToyDrafter {
    /// The target's model.
    pub model: ToyModel,
    /// Share of contexts in which it is as good as the target.
    pub knows: f32,
    /// Whether a step costs a pass.
    pub on_device: bool,
    /// Tells drafters apart.
    pub seed: u32,
}

impl Stepwise for ToyDrafter {
    const NAME: &'static str = "toy";

    fn takes_passes(&self) -> bool {
        self.on_device
    }

    fn candidates(&self, context: &DraftContext<'_>, tree: &TokenTree, leaf: NodeId, width: usize) -> Vec<Candidate> {
        let path = context.tail(tree, leaf, 2);
        let last = path[path.len() - 1];
        let knows = pcg4d([last, self.seed, 17, 0])[0] as f32 / 4_294_967_296.0 < self.knows;
        let model = if knows {
            self.model
        } else {
            ToyModel { seed: self.model.seed.wrapping_add(self.seed + 1), ..self.model }
        };
        let position = context.tokens.len() + tree.node(leaf).depth;
        let (logits, noisy) = model.scores(&path, position, context.sampling);
        let stats = row_stats(&logits, &noisy);
        let logp = log_softmax(&logits);
        let chance = |rank: usize| stats.top.get(rank).map_or(0.0, |top| top.1.exp());
        let candidate = |&(token, _): &(u32, f32)| {
            let logq = logp[token as usize];
            let (top1, margin) = (chance(0), chance(0) - chance(1));
            Candidate::new(token, DraftStats { logq, top1, margin, entropy: stats.entropy, match_len: 0 })
        };
        noisy.iter().filter(|noisy| noisy.1.is_finite()).take(width).map(candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::accept::Match;
    use crate::speculate::length::Fixed;
    use crate::speculate::round::Parts;
    use crate::speculate::select::Cascade;
    use crate::speculate::shapes::Chain;

    fn speculator(drafter: Box<dyn Drafter>, length: usize) -> Speculator {
        let parts = Parts {
            drafters: vec![drafter],
            length: Box::new(Fixed(Some(length))),
            shape: Box::new(Chain),
            rule: Box::new(Match),
            selector: Box::new(Cascade),
        };
        Speculator::new(parts, "on".to_owned())
    }

    #[test]
    fn fixed_drafts_have_the_expected_length_and_cost() {
        let text: Vec<u32> = (0..4001).map(|at| at % 97).collect();
        let cost = CostModel::of_curve([1.0, 1.25, 1.5, 2.0, 4.0], &[]);
        for on_device in [false, true] {
            let target = SimulatedTarget::new(text.clone(), cost.clone(), 0.1);
            let drafter = SimulatedDrafter { on_device, ..SimulatedDrafter::new(text.clone(), |_| 0.8) };
            let mut speculator = speculator(Box::new(drafter), 3);
            let outcomes = target.replay(&mut speculator, 1).expect("replay");
            // (1 - 0.8^4) / (1 - 0.8)
            let length = speculator.totals.mean_acceptance_length();
            assert!((length - 2.952).abs() < 0.1, "{length}");
            let round_ms = target.now_ms() / outcomes.len() as f64;
            let expected = if on_device { 1.5 + 0.3 } else { 1.5 };
            assert!((round_ms - expected).abs() < 0.01, "{round_ms}");
            let written: Vec<u32> = outcomes.iter().flat_map(RoundOutcome::emitted).collect();
            assert_eq!(written, text[1..]);
        }
    }

    #[test]
    fn the_toy_writes_its_plain_text_by_rounds_too() {
        let target = ToyTarget::new(ToyModel { vocabulary: 64, seed: 3 }, CostModel::default(), 0.1);
        for (temperature, on_device) in [(0.0, false), (0.8, false), (0.8, true)] {
            let sampling = SamplingParams { temperature, top_k: 20, seed: 5, ..SamplingParams::default() };
            let plain = target.plain(&[1, 2, 3], 400, &sampling);
            let drafter = ToyDrafter { model: target.model, knows: 0.7, on_device, seed: 1 };
            let mut speculator = speculator(Box::new(drafter), 4);
            let (text, outcomes) = target.write(&mut speculator, &[1, 2, 3], 400, &sampling).expect("rounds");
            assert_eq!(text, plain);
            let rate = speculator.totals.acceptance_rate();
            assert!((0.4..0.9).contains(&rate), "{rate}");
            // Every kind of row: p is where samples come from, and branches that are wrong have rows of their own.
            let tree = &outcomes[0].tree;
            let needs = Needs { stats: true, p: true, q: false };
            let job = Job::new(&text[..3], tree, &sampling, needs);
            for row in block_on(target.verify(job)).expect("rows").rows {
                let (p, stats) = (row.p.expect("p"), row.stats.expect("stats"));
                assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-6 && p[row.sample as usize] > 0.0);
                assert!(stats.top.len() == TOP && stats.drawn[0].0 == row.sample && stats.entropy >= 0.0);
            }
        }
    }
}
