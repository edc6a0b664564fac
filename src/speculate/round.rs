//! One round: draft, verify, accept, commit. With `match` that is one submit and one map.

use super::accept::{AcceptanceRule, Exactness, Match, ProposalKind};
use super::chance::{Chance, KeyedChance};
use super::constraint::{Constraint, Rows};
use super::cost::CostModel;
use super::drafters::{Ask, DraftContext, Drafter, DrafterId, Expansion, InnerDraft};
use super::length::probe::Probe;
use super::length::{Fixed, LengthPolicy, Signals};
use super::outcome::{Needs, RoundOutcome, RoundTiming, Totals};
use super::select::{Cascade, DraftSelector, DrafterInfo, Offer, Selection};
use super::shapes::{Budget, Chain, From, TreeShape};
use super::target::{Ahead, Job, Target};
use super::tree::{Candidate, NodeId, TokenTree};
use crate::error::{Error, Result};
use crate::plan::{MAX_COLUMNS, MAX_NODES};
use crate::sampling::SamplingParams;
use std::cell::RefCell;
use std::rc::Rc;

/// The parts of a speculator.
pub struct Parts {
    /// Where candidates come from; their places are their [`DrafterId`]s.
    pub drafters: Vec<Box<dyn Drafter>>,
    /// How much to draft.
    pub length: Box<dyn LengthPolicy>,
    /// Which leaves grow.
    pub shape: Box<dyn TreeShape>,
    /// What is kept.
    pub rule: Box<dyn AcceptanceRule>,
    /// Which drafters are asked.
    pub selector: Box<dyn DraftSelector>,
}

impl Parts {
    /// Chains of up to `tokens` (where not given, what each drafter says), `match`, drafters asked in their order.
    pub fn chains(drafters: Vec<Box<dyn Drafter>>, tokens: Option<usize>) -> Parts {
        Parts {
            drafters,
            length: Box::new(Fixed(tokens)),
            shape: Box::new(Chain),
            rule: Box::new(Match),
            selector: Box::new(Cascade),
        }
    }
}

/// Drafters, length, shape, rule and selector of one request, and what they have seen.
pub struct Speculator {
    parts: Parts,
    needs: Needs,
    constraint: Option<Constraint>,
    infos: Vec<DrafterInfo>,
    /// The next round, where it was submitted ahead.
    submitted: Option<Ahead>,
    waits: Waits,
    /// A draft model caught up in a pass of its own since the round began.
    caught_up: bool,
    /// Costs of this device; shared by the requests of an engine.
    pub cost: Rc<RefCell<CostModel>>,
    /// Totals of the request.
    pub totals: Totals,
    /// Why speculation is on or off.
    pub reason: String,
}

/// Rounds before a step waits at first although going ahead is thought to pay. What is found outlives the answer.
const WAIT_ROUNDS: usize = 16;
/// Most of the time that such steps may cost.
const WAIT_SHARE: f64 = 0.0025;

/// When steps wait that could go ahead: who never waits does not learn that it saves less than was thought.
struct Waits {
    probe: Probe,
    /// The next step waits too: the one before it was not followed, and so it alone shows what a step takes.
    again: bool,
}

impl Waits {
    /// Counts a step that could go ahead.
    fn is_due(&mut self, cost: &CostModel) -> bool {
        if std::mem::take(&mut self.again) {
            return true;
        }
        let lost_ms = 2.0 * (cost.plain_ms() - cost.ahead_ms());
        self.again = self.probe.is_due(lost_ms, WAIT_SHARE, cost.ahead_ms());
        self.again
    }
}

/// A drafted tree, and the steps that fill it in where a device drafts it inside the verify pass's submit.
struct Drafted {
    tree: TokenTree,
    inner: Option<InnerDraft>,
    steps: usize,
    /// A draft model would have been run, had the round not been submitted yet.
    barred: bool,
}

impl Drafted {
    /// A plain step.
    fn nothing(context: &DraftContext<'_>) -> Drafted {
        Drafted { tree: TokenTree::new(context.tokens[context.tokens.len() - 1]), inner: None, steps: 0, barred: false }
    }
}

impl Speculator {
    /// A speculator of given parts, whose combination was checked ([`super::contract`]).
    pub fn new(parts: Parts, reason: String) -> Speculator {
        let mut needs = parts.rule.needs().and(parts.length.needs()).and(parts.selector.needs());
        for drafter in &parts.drafters {
            needs = needs.and(drafter.needs());
        }
        let infos = parts.drafters.iter().enumerate().map(|(index, drafter)| DrafterInfo {
            id: DrafterId(index as u8),
            name: drafter.name(),
            on_device: drafter.on_device(),
        });
        let infos = infos.collect();
        Speculator {
            parts,
            needs,
            constraint: None,
            infos,
            submitted: None,
            caught_up: false,
            waits: Waits { probe: Probe::after(WAIT_ROUNDS), again: false },
            cost: Rc::default(),
            totals: Totals::default(),
            reason,
        }
    }

    /// Shares the costs that others measured on this device.
    pub fn with_cost(self, cost: Rc<RefCell<CostModel>>) -> Speculator {
        Speculator { cost, ..self }
    }

    /// Brings back the statistics of every row, whether or not a part wants them.
    pub fn with_stats(mut self) -> Speculator {
        self.needs.stats = true;
        self
    }

    /// Keeps to a grammar. Its rule must give the target's own samples: the walk through the tree is that of `match`.
    pub fn with_constraint(mut self, constraint: Constraint) -> Speculator {
        self.constraint = Some(constraint);
        self
    }

    /// The grammar it keeps to, and how far that is.
    pub fn constraint(&self) -> Option<&Constraint> {
        self.constraint.as_ref()
    }

    /// Puts another length policy in place of its own, which it may ask: for replays that know more.
    pub(crate) fn map_length(mut self, map: impl FnOnce(Box<dyn LengthPolicy>) -> Box<dyn LengthPolicy>) -> Speculator {
        self.parts.length = map(self.parts.length);
        self
    }

    /// Whether anything can be drafted.
    pub fn active(&self) -> bool {
        !self.parts.drafters.is_empty()
    }

    /// Drafters, in the order of their [`DrafterId`]s.
    pub fn drafters(&self) -> &[DrafterInfo] {
        &self.infos
    }

    /// Why speculation is on or off, by the length policy where that has decided so.
    pub fn why(&self) -> String {
        self.parts.length.reason().filter(|_| self.active()).unwrap_or_else(|| self.reason.clone())
    }

    /// Its parts, for reports.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What it reads of the target's rows beyond the samples.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// What the text is worth against plain decoding.
    pub fn exactness(&self) -> Exactness {
        self.parts.rule.exactness()
    }

    /// Forgets everything that was learned, totals included.
    pub fn reset(&mut self) {
        self.parts.drafters.iter_mut().for_each(|drafter| drafter.reset());
        self.parts.rule.reset();
        self.parts.length.reset();
        self.parts.shape.reset();
        self.parts.selector.reset();
        self.submitted = None;
        self.totals = Totals::default();
    }

    /// Runs one round with keyed randomness. `tokens` are all committed tokens; at most `max_new` more are of use. Gives the
    /// outcome; the caller commits `outcome.emitted()`.
    pub async fn round(
        &mut self,
        target: &dyn Target,
        tokens: &[u32],
        sampling: &SamplingParams,
        max_new: usize,
    ) -> Result<RoundOutcome> {
        let chance = RefCell::new(KeyedChance::new(sampling.seed, self.totals.rounds));
        self.round_with(target, tokens, sampling, max_new, &chance).await
    }

    /// The same with any source of randomness: tests walk every branch.
    pub async fn round_with(
        &mut self,
        target: &dyn Target,
        tokens: &[u32],
        sampling: &SamplingParams,
        max_new: usize,
        chance: &RefCell<dyn Chance + '_>,
    ) -> Result<RoundOutcome> {
        let start_ms = target.now_ms();
        // A draft beyond the last wanted token is lost work; one beyond the cache has no slot. Whole rows come back from one
        // pass only.
        let widest = if self.needs.p || self.constraint.is_some() { MAX_COLUMNS } else { MAX_NODES };
        let room = (max_new - 1).min(widest - 1).min(target.room(tokens.len()));
        let draws = if self.needs.q { self.parts.rule.draws() } else { ProposalKind::Deterministic };
        let asked = self.infos.iter().any(|drafter| drafter.name == "grammar");
        let forced = match &mut self.constraint {
            Some(constraint) if room > 0 && asked => constraint.forced()?,
            _ => Vec::new(),
        };
        let context = DraftContext { tokens, sampling, draws, chance, forced: &forced };
        let submitted = self.submitted.take().filter(|step| step.base + 1 == tokens.len());
        let mut drafted = self.draft(target, &context, room, max_new, submitted.is_some()).await?;
        let none = drafted.tree.drafted() == 0 && drafted.inner.is_none() && !drafted.barred;
        if submitted.is_some() {
            drafted = Drafted::nothing(&context);
        }
        let Drafted { mut tree, inner, steps, .. } = drafted;
        let drafted_ms = target.now_ms();
        let inner_steps = inner.as_ref().map_or(0, |inner| inner.steps);
        let caught_up = std::mem::take(&mut self.caught_up) || inner.as_ref().is_some_and(|inner| inner.caught_up);
        let was_ahead = submitted.is_some();
        let ahead = none && max_new > 1 && self.goes_ahead();
        let job = Job { inner, submitted, ahead, ..Job::new(tokens, &tree, sampling, self.needs) };
        let verified = target.verify(job).await?;
        self.submitted = verified.ahead;
        // Sampling again is no part of what a pass costs.
        let verified_ms = target.now_ms();
        for (index, &token) in verified.drafted.iter().enumerate() {
            tree.set_token(NodeId(index as u16 + 1), token);
        }
        let mut rows = verified.rows;
        let verdict = match &mut self.constraint {
            Some(constraint) => {
                let of = Rows { target, tree: &tree, context_len: tokens.len(), sampling };
                constraint.walk(&of, &mut rows).await?
            }
            None => self.parts.rule.verify(&tree, &rows, &mut *chance.borrow_mut()),
        };
        let timing = RoundTiming {
            draft_ms: drafted_ms - start_ms,
            verify_ms: verified_ms - drafted_ms,
            draft_steps: steps + inner_steps,
            inner_steps,
            caught_up,
            ahead: was_ahead,
            followed: self.submitted.is_some(),
        };
        let outcome = RoundOutcome { context_len: tokens.len(), tree, rows, verdict, timing };
        target.commit(tokens, &outcome.tree, &outcome.verdict.path);
        self.observe(&outcome);
        Ok(outcome)
    }

    /// Whether the step after a plain one may be submitted before that is read: its token has to be the sample that the device
    /// drew, and no draft is to be missed.
    fn goes_ahead(&mut self) -> bool {
        let sampled_there = self.exactness() == Exactness::SameTokens && !self.needs.p && self.constraint.is_none();
        if !sampled_there {
            return false;
        }
        let active = self.active();
        let cost = self.cost.borrow();
        let pays = if active { self.parts.length.ahead(&cost) } else { cost.saves_ahead() };
        pays && !self.waits.is_due(&cost)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        let tree = &outcome.tree;
        let drafter = tree.nodes().get(1).and_then(|node| node.source);
        if !outcome.timing.caught_up {
            self.cost.borrow_mut().observe(tree.nodes().len(), drafter, &outcome.timing);
        }
        self.totals.add(outcome);
        self.parts.rule.observe(outcome);
        self.parts.length.observe(outcome);
        self.parts.shape.observe(outcome);
        self.parts.selector.observe(outcome);
        for (index, drafter) in self.parts.drafters.iter_mut().enumerate() {
            drafter.observe(outcome, DrafterId(index as u8));
        }
    }

    /// Asks the drafters that the selector says for a tree. A round that was `submitted` ahead verifies none: it only shows
    /// whether there is one, and no draft model runs for it.
    async fn draft(
        &mut self,
        target: &dyn Target,
        context: &DraftContext<'_>,
        room: usize,
        max_new: usize,
        submitted: bool,
    ) -> Result<Drafted> {
        if self.parts.drafters.is_empty() || room == 0 {
            return Ok(Drafted::nothing(context));
        }
        self.parts.drafters.iter_mut().for_each(|drafter| drafter.begin(context));
        let cost = self.cost.borrow().clone();
        let mut signals = Signals {
            context_len: context.tokens.len(),
            max_new,
            drafter: None,
            on_device: false,
            behind: None,
            default_tokens: 0,
            room,
            cost: &cost,
        };
        if self.parts.selector.wants_all_drafts() {
            let drafts = self.all_drafts(context, room)?;
            self.parts.selector.drafts(context.tokens.len(), &drafts);
        }
        let selection = self.parts.selector.select(&signals, &self.infos);
        let mut steps = 0;
        let groups = groups(&selection, &self.infos);
        let on_device = |id: &DrafterId| self.infos[usize::from(id.0)].on_device;
        let devices: Vec<Option<DrafterId>> =
            groups.iter().map(|group| group.iter().copied().find(|id| on_device(id))).collect();
        for (at, group) in groups.into_iter().enumerate() {
            // Of a mixed group the device drafter is the one that costs.
            signals.drafter = devices[at].or_else(|| group.first().copied());
            signals.on_device = devices[at].is_some();
            signals.behind = devices[at + 1..].iter().find_map(|&device| device);
            let defaults = group.iter().map(|&id| self.parts.drafters[usize::from(id.0)].default_tokens());
            signals.default_tokens = defaults.max().unwrap_or(0).min(room);
            let nodes = self.parts.length.plan(&signals).min(room);
            if nodes == 0 {
                continue;
            }
            if submitted && signals.on_device {
                return Ok(Drafted { barred: true, ..Drafted::nothing(context) });
            }
            if let Some(drafted) = self.record(context, &group, nodes)? {
                return Ok(drafted);
            }
            let budget = Budget { nodes };
            let all = matches!(selection, Selection::All(_));
            let (tree, more) = self.grow(target, context, &group, all, &budget, &signals).await?;
            steps += more;
            let tree = self.cut(tree, &budget, &signals)?;
            // A sampled draft is verified whatever it says.
            if tree.drafted() > 0 && (!tree.is_deterministic() || self.parts.selector.accepts(&tree)) {
                return Ok(Drafted { tree, steps, ..Drafted::nothing(context) });
            }
        }
        Ok(Drafted { steps, ..Drafted::nothing(context) })
    }

    /// A chain by one device drafter inside the verify pass's submit, where nobody has to see it before.
    fn record(&mut self, context: &DraftContext<'_>, group: &[DrafterId], nodes: usize) -> Result<Option<Drafted>> {
        let &[id] = group else { return Ok(None) };
        let reads = self.parts.length.reads_drafts() || self.parts.selector.looks_at_drafts();
        if !self.parts.shape.is_chain() || reads || context.draws != ProposalKind::Deterministic {
            return Ok(None);
        }
        let Some(inner) = self.parts.drafters[usize::from(id.0)].record(context, nodes)? else { return Ok(None) };
        let mut tree = TokenTree::new(context.tokens[context.tokens.len() - 1]);
        let mut at = NodeId::ROOT;
        for _ in 0..inner.tokens {
            if let Some(child) = tree.attach_unknown(at, id) {
                let a_hat = self.parts.length.estimate(&tree, child);
                tree.set_estimate(child, a_hat);
                at = child;
            }
        }
        Ok(Some(Drafted { tree, inner: Some(inner), ..Drafted::nothing(context) }))
    }

    /// Grows a tree as the shape says until it or the length policy has enough. Gives also the passes of draft models.
    async fn grow(
        &mut self,
        target: &dyn Target,
        context: &DraftContext<'_>,
        group: &[DrafterId],
        all: bool,
        budget: &Budget,
        signals: &Signals<'_>,
    ) -> Result<(TokenTree, usize)> {
        let mut tree = TokenTree::new(context.tokens[context.tokens.len() - 1]);
        let mut steps = 0;
        self.parts.shape.begin();
        self.parts.shape.plan(signals, budget);
        while let Some(grow) = self.parts.shape.next(&tree, budget) {
            let asked: Vec<DrafterId> = match grow.from {
                From::Any => group.to_vec(),
                From::First => group.iter().copied().filter(|id| id.0 == 0).collect(),
                From::Others => group.iter().copied().filter(|id| id.0 != 0).collect(),
            };
            let mut offers: Vec<Vec<Offer>> = grow.leaves.iter().map(|_| Vec::new()).collect();
            for &drafter in &asked {
                let open: Vec<usize> = (0..grow.leaves.len()).filter(|&at| all || offers[at].is_empty()).collect();
                if open.is_empty() {
                    break;
                }
                let leaves: Vec<NodeId> = open.iter().map(|&at| grow.leaves[at]).collect();
                let ask = Ask { leaves: &leaves, width: grow.width, me: drafter };
                let (found, passes) = self.ask(target, context, &tree, &ask).await?;
                steps += passes;
                for (at, candidates) in open.into_iter().zip(found) {
                    if !candidates.is_empty() {
                        offers[at].push(Offer { drafter, candidates });
                    }
                }
            }
            let mut new = Vec::new();
            for (at, (&leaf, offers)) in grow.leaves.iter().zip(offers).enumerate() {
                tree.set_expanded(leaf);
                for (drafter, candidate) in self.parts.selector.combine(&tree, leaf, offers, grow.width_at(at)) {
                    new.extend(self.attach(&mut tree, leaf, drafter, &candidate));
                }
            }
            if !new.is_empty() && self.parts.length.stop(&tree, &new, signals) {
                break;
            }
        }
        Ok((tree, steps))
    }

    fn attach(
        &mut self,
        tree: &mut TokenTree,
        leaf: NodeId,
        drafter: DrafterId,
        candidate: &Candidate,
    ) -> Option<NodeId> {
        let (node, new) = tree.attach(leaf, candidate, drafter)?;
        if new {
            let a_hat = self.parts.length.estimate(tree, node);
            tree.set_estimate(node, a_hat);
        }
        new.then_some(node)
    }

    /// Candidates of one drafter, and the passes it took.
    async fn ask(
        &mut self,
        target: &dyn Target,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
    ) -> Result<(Vec<Vec<Candidate>>, usize)> {
        let drafter = &mut self.parts.drafters[usize::from(ask.me.0)];
        let mut expansion = drafter.expand(context, tree, ask)?;
        let mut passes = 0;
        loop {
            match expansion {
                Expansion::Ready(candidates) => return Ok((candidates, passes)),
                Expansion::Pass(pass) => {
                    let (start_ms, caught_up) = (target.now_ms(), pass.caught_up);
                    let (words, logits) = target.draft(pass).await?;
                    passes += 1;
                    match caught_up {
                        true => self.caught_up = true,
                        false => self.cost.borrow_mut().observe_step(ask.me, target.now_ms() - start_ms),
                    }
                    expansion = drafter.absorb(context, tree, ask, &words, &logits)?;
                }
            }
        }
    }

    /// What of a deterministic tree is verified: the shape's choice, then the length policy's, within the budget. A sampled
    /// one is verified as it was drawn, so a shape that draws more than the budget is an error.
    fn cut(&mut self, tree: TokenTree, budget: &Budget, signals: &Signals<'_>) -> Result<TokenTree> {
        if !tree.is_deterministic() {
            if tree.drafted() <= budget.nodes {
                return Ok(tree);
            }
            return Err(Error::Inexact {
                combination: format!("tree={} with sampled drafts", self.parts.shape.name()),
                reason: format!("it drew {} nodes for a budget of {}", tree.drafted(), budget.nodes),
                remedy: "use accept=match, or another shape (tree=chain, static, delayed)".to_owned(),
            });
        }
        let tree = match self.parts.shape.prune(&tree, budget) {
            Some(kept) => tree.keep(&kept),
            None => tree,
        };
        let keep = self.parts.length.keep(&tree, signals).min(budget.nodes);
        Ok(if keep >= tree.drafted() { tree } else { tree.keep(&tree.by_survival()[..keep]) })
    }

    /// The chain that each host drafter would draft.
    fn all_drafts(&mut self, context: &DraftContext<'_>, room: usize) -> Result<Vec<(DrafterId, Vec<u32>)>> {
        let mut drafts = Vec::new();
        for info in self.infos.iter().filter(|info| !info.on_device) {
            let drafter = &mut self.parts.drafters[usize::from(info.id.0)];
            let mut tree = TokenTree::new(context.tokens[context.tokens.len() - 1]);
            let mut at = NodeId::ROOT;
            while tree.drafted() < room.min(drafter.default_tokens()) {
                let ask = Ask { leaves: &[at], width: 1, me: info.id };
                let Expansion::Ready(found) = drafter.expand(context, &tree, &ask)? else { break };
                let child = found.first().and_then(|found| found.first()).and_then(|c| tree.attach(at, c, info.id));
                match child {
                    Some((child, _)) => at = child,
                    None => break,
                }
            }
            drafts.push((info.id, tree.path_tokens(at)));
        }
        Ok(drafts)
    }
}

/// Drafters that are asked together: host drafters that follow each other fill in for one another leaf by leaf, a device
/// drafter stands alone. [`Selection::All`] is one group, [`Selection::Alone`] one a drafter.
fn groups(selection: &Selection, infos: &[DrafterInfo]) -> Vec<Vec<DrafterId>> {
    let order = match selection {
        Selection::All(ids) => return vec![ids.clone()],
        Selection::Alone(ids) => return ids.iter().map(|&id| vec![id]).collect(),
        Selection::First(ids) => ids,
    };
    let mut groups: Vec<Vec<DrafterId>> = Vec::new();
    let mut open = false;
    for &id in order {
        let on_device = infos[usize::from(id.0)].on_device;
        match groups.last_mut().filter(|_| open && !on_device) {
            Some(group) => group.push(id),
            None => groups.push(vec![id]),
        }
        open = !on_device;
    }
    groups
}
