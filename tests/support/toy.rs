//! A target and drafters that are tables of rows, and the seven known ways to break exactness (methods.md §1), for proofs.
#![allow(dead_code, reason = "each test uses a part of it")]

use foredraft::error::{Error, Result};
use foredraft::plan::RowStats;
use foredraft::speculate::accept::residual::likeliest;
use foredraft::speculate::accept::{AcceptanceRule, ProposalKind};
use foredraft::speculate::chance::{Chance, Key, Purpose};
use foredraft::speculate::drafters::draws::draw;
use foredraft::speculate::drafters::{Ask, DraftContext, DraftPass, Drafter, DrafterId, Expansion};
use foredraft::speculate::length::{Fixed, LengthPolicy, Signals};
use foredraft::speculate::methods::{Method, Setup};
use foredraft::speculate::outcome::{Needs, Row, Verdict};
use foredraft::speculate::round::Parts;
use foredraft::speculate::select::{Cascade, DraftSelector, DrafterInfo, Offer, Selection};
use foredraft::speculate::shapes::{Budget, Chain, From, Grow, TreeShape};
use foredraft::speculate::target::{Job, Target, Verified};
use foredraft::speculate::tree::{Candidate, Distribution, DraftStats, NodeId, Proposal, Slot, TokenTree};
use foredraft::speculate::{SpeculationConfig, Speculator};
use foredraft::store::LocalFuture;
use std::cell::RefCell;
use std::rc::Rc;

/// Conditional distributions: the last `order` tokens choose the row.
pub(crate) struct Table {
    pub(crate) order: u32,
    pub(crate) size: usize,
    pub(crate) rows: Vec<Distribution>,
}

impl Table {
    /// The row after `tokens`.
    pub(crate) fn after(&self, tokens: &[u32]) -> &Distribution {
        let last = &tokens[tokens.len() - self.order as usize..];
        &self.rows[last.iter().fold(0, |index, &token| index * self.size + token as usize)]
    }

    /// The row after a node of a tree below `tokens`.
    fn below(&self, tokens: &[u32], tree: &TokenTree, node: NodeId) -> &Distribution {
        let (mut at, mut root_and_before, mut index) = (node, tokens.iter().rev(), 0);
        for place in 0..self.order {
            let token = if at == NodeId::ROOT {
                *root_and_before.next().expect("a context")
            } else {
                let token = tree.node(at).token.expect("known");
                at = tree.node(at).parent;
                token
            };
            index += self.size.pow(place) * token as usize;
        }
        &self.rows[index]
    }
}

/// The target: rows of a table, samples drawn by `chance`.
pub(crate) struct TableTarget<'a> {
    pub(crate) table: &'a Table,
    pub(crate) chance: &'a RefCell<dyn Chance + 'a>,
}

impl Target for TableTarget<'_> {
    fn room(&self, _: usize) -> usize {
        15
    }

    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        let tree = job.tree;
        let mut rows: Vec<Row> = Vec::with_capacity(tree.nodes().len());
        for id in tree.ids() {
            let p = self.table.below(job.tokens, tree, id);
            let mut row = Row::of(u32::MAX);
            // Rules with rows of q draw for themselves. One without rows reads samples on its way only: the others are not
            // drawn, so that there is less to enumerate.
            let node = tree.node(id);
            let on_the_way = id == NodeId::ROOT || node.token == Some(rows[node.parent.index()].sample);
            if !job.needs.q && (job.needs.p || on_the_way) {
                let key = Key::new(id, 0, Purpose::Emit);
                row.sample = self.chance.borrow_mut().categorical(key, p) as u32;
            }
            if job.needs.stats {
                let top = likeliest(p, 2).into_iter().map(|token| (token, p[token as usize].ln() as f32)).collect();
                let stats = RowStats { entropy: 0.0, second_moment: 0.0, sample_logp: 0.0, top, drawn: Vec::new() };
                row.stats = Some(Rc::new(stats));
            }
            row.p = job.needs.p.then(|| p.clone());
            rows.push(row);
        }
        Box::pin(async move { Ok(Verified { rows, ..Verified::default() }) })
    }

    fn draft<'a>(&'a self, _: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        Box::pin(async { Err(Error::Gpu { reason: "tables run no passes".to_owned() }) })
    }

    fn commit(&self, _: &[u32], _: &TokenTree, _: &[NodeId]) {}

    fn now_ms(&self) -> f64 {
        0.0
    }
}

/// What a table drafter offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The likeliest tokens.
    Beams,
    /// Draws as the rule says.
    AsTheRuleSays,
    /// Draws of one kind, whatever the rule says.
    Always(ProposalKind),
}

/// A drafter with a table of its own; one that samples stands for a draft model on a device.
pub(crate) struct TableDrafter {
    pub(crate) table: Rc<Table>,
    pub(crate) mode: Mode,
}

impl TableDrafter {
    fn offer(&self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>, leaf: NodeId) -> Vec<Candidate> {
        let q = self.table.below(context.tokens, tree, leaf);
        let draws = match self.mode {
            Mode::Beams => ProposalKind::Deterministic,
            Mode::AsTheRuleSays => context.draws,
            Mode::Always(kind) => kind,
        };
        let drawn = if draws == ProposalKind::Deterministic {
            let mine = tree.node(leaf).slots.iter().filter(|slot| slot.source == ask.me).count();
            let beams = likeliest(q, mine + ask.width);
            beams.into_iter().skip(mine).map(|token| (token, Proposal::Deterministic)).collect()
        } else {
            let DraftContext { tokens, sampling, chance, .. } = *context;
            draw(&DraftContext { tokens, sampling, draws, chance, forced: &[] }, tree, ask, leaf, q)
        };
        let candidate = |(token, proposal): (u32, Proposal)| {
            let logq = q[token as usize].ln() as f32;
            let stats = DraftStats { logq, ..DraftStats::of_probability(0.5) };
            Candidate { proposal, ..Candidate::new(token, stats) }
        };
        drawn.into_iter().map(candidate).collect()
    }
}

impl Drafter for TableDrafter {
    fn name(&self) -> &'static str {
        "table"
    }

    fn default_tokens(&self) -> usize {
        15
    }

    fn on_device(&self) -> bool {
        self.mode != Mode::Beams
    }

    fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>) -> Result<Expansion> {
        Ok(Expansion::Ready(ask.leaves.iter().map(|&leaf| self.offer(context, tree, ask, leaf)).collect()))
    }
}

/// Every node of depth i gets `widths[i]` children.
pub(crate) struct Widths(pub(crate) &'static [usize]);

impl TreeShape for Widths {
    fn name(&self) -> &'static str {
        "widths"
    }

    fn next(&mut self, tree: &TokenTree, _: &Budget) -> Option<Grow> {
        self.0.iter().enumerate().find_map(|(depth, &width)| {
            let open = |id: &NodeId| tree.node(*id).depth == depth && !tree.node(*id).expanded;
            let leaves: Vec<NodeId> = tree.ids().filter(open).collect();
            (!leaves.is_empty()).then(|| Grow::same(leaves, width, From::Any))
        })
    }
}

/// Draws one child of the root, another one only if that was unlikely, and then below the likelier of them.
#[derive(Default)]
pub(crate) struct Adaptive {
    step: usize,
}

/// Below this a draft counts as unsure of a token.
pub(crate) const UNSURE: f32 = 0.45;

impl TreeShape for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn begin(&mut self) {
        self.step = 0;
    }

    fn next(&mut self, tree: &TokenTree, _: &Budget) -> Option<Grow> {
        self.step += 1;
        let grow = |leaf| Some(Grow::same(vec![leaf], 1, From::Any));
        let logq = |id: NodeId| tree.node(id).stats.logq;
        if self.step == 1 {
            return grow(NodeId::ROOT);
        }
        if self.step == 2 {
            self.step += usize::from(tree.drafted() == 0 || logq(NodeId(1)) >= UNSURE.ln());
            if self.step == 2 {
                return grow(NodeId::ROOT);
            }
        }
        let children = tree.ids().skip(1).filter(|&id| tree.node(id).depth == 1);
        if self.step == 3 { children.max_by(|&a, &b| logq(a).total_cmp(&logq(b))).and_then(grow) } else { None }
    }

    fn adapts_width(&self) -> bool {
        true
    }
}

/// Asks all drafters and takes all they offer, in their order.
pub(crate) struct Together;

impl DraftSelector for Together {
    fn name(&self) -> &'static str {
        "together"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        Selection::All(drafters.iter().map(|drafter| drafter.id).collect())
    }

    fn combine(&mut self, _: &TokenTree, _: NodeId, offers: Vec<Offer>, _: usize) -> Vec<(DrafterId, Candidate)> {
        let all = offers.into_iter().flat_map(|offer| offer.candidates.into_iter().map(move |c| (offer.drafter, c)));
        all.collect()
    }
}

/// Defect c: of all drafters the one that is surest of what it just drew. Says so, or not.
pub(crate) struct Surest {
    pub(crate) says_so: bool,
}

impl DraftSelector for Surest {
    fn name(&self) -> &'static str {
        "surest"
    }

    fn select(&mut self, _: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        Selection::All(drafters.iter().map(|drafter| drafter.id).collect())
    }

    fn combine(&mut self, _: &TokenTree, _: NodeId, offers: Vec<Offer>, _: usize) -> Vec<(DrafterId, Candidate)> {
        let logq = |offer: &Offer| offer.candidates.first().map_or(f32::NEG_INFINITY, |c| c.stats.logq);
        let surest = offers.into_iter().max_by(|a, b| logq(a).total_cmp(&logq(b)));
        surest.map_or_else(Vec::new, |offer| offer.candidates.into_iter().map(|c| (offer.drafter, c)).collect())
    }

    fn looks_at_drafts(&self) -> bool {
        self.says_so
    }
}

/// Verifies a draft only if it is sure of its first token. Says so, or not.
pub(crate) struct Picky {
    pub(crate) says_so: bool,
}

impl DraftSelector for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    fn select(&mut self, signals: &Signals<'_>, drafters: &[DrafterInfo]) -> Selection {
        Cascade.select(signals, drafters)
    }

    fn accepts(&mut self, tree: &TokenTree) -> bool {
        tree.node(NodeId(1)).stats.logq >= UNSURE.ln()
    }

    fn looks_at_drafts(&self) -> bool {
        self.says_so
    }
}

/// Defects a and b as a length policy: cuts a finished draft where it is unsure. Says so, or not.
pub(crate) struct Cutter {
    pub(crate) says_so: bool,
}

impl LengthPolicy for Cutter {
    fn name(&self) -> &'static str {
        "cutter"
    }

    fn plan(&mut self, _: &Signals<'_>) -> usize {
        2
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        tree.node(node).stats.logq.exp()
    }

    fn keep(&mut self, tree: &TokenTree, _: &Signals<'_>) -> usize {
        tree.nodes().iter().skip(1).take_while(|node| node.stats.logq >= UNSURE.ln()).count()
    }

    fn looks_ahead(&self) -> bool {
        self.says_so
    }
}

/// Defect d as a shape: prunes what is unlikely. Says so, or not.
pub(crate) struct Pruner {
    pub(crate) says_so: bool,
}

impl TreeShape for Pruner {
    fn name(&self) -> &'static str {
        "pruner"
    }

    fn next(&mut self, tree: &TokenTree, budget: &Budget) -> Option<Grow> {
        Widths(&[2, 1]).next(tree, budget)
    }

    fn prune(&mut self, tree: &TokenTree, _: &Budget) -> Option<Vec<NodeId>> {
        Some(tree.ids().skip(1).filter(|&id| tree.node(id).stats.logq >= UNSURE.ln()).collect())
    }

    fn prunes(&self) -> bool {
        self.says_so
    }
}

/// Leaves slots out before the rule sees the tree.
pub(crate) struct Tampered {
    pub(crate) rule: Box<dyn AcceptanceRule>,
    /// Whether a slot below a node stays, by its place there.
    pub(crate) stays: fn(&TokenTree, NodeId, usize) -> bool,
}

impl Tampered {
    /// What is left, and which node each of its nodes was.
    fn tamper(&self, tree: &TokenTree) -> (TokenTree, Vec<NodeId>) {
        let mut left = TokenTree::new(tree.node(NodeId::ROOT).token.expect("known"));
        let mut was = vec![NodeId::ROOT];
        let mut now = vec![None; tree.nodes().len()];
        now[0] = Some(NodeId::ROOT);
        for id in tree.ids() {
            let Some(parent) = now[id.index()] else { continue };
            for (place, slot) in tree.node(id).slots.iter().enumerate() {
                if !(self.stays)(tree, id, place) {
                    continue;
                }
                let Slot { child, proposal, source } = slot;
                let node = tree.node(*child);
                let candidate =
                    Candidate { proposal: proposal.clone(), ..Candidate::new(node.token.expect("known"), node.stats) };
                if let Some((added, true)) = left.attach(parent, &candidate, *source) {
                    now[child.index()] = Some(added);
                    was.push(*child);
                }
            }
        }
        (left, was)
    }
}

impl AcceptanceRule for Tampered {
    fn method(&self) -> &'static Method {
        self.rule.method()
    }

    fn needs(&self) -> Needs {
        self.rule.needs()
    }

    fn supports(&self, proposal: ProposalKind) -> bool {
        self.rule.supports(proposal)
    }

    fn draws(&self) -> ProposalKind {
        self.rule.draws()
    }

    fn verify(&mut self, tree: &TokenTree, rows: &[Row], chance: &mut dyn Chance) -> Verdict {
        let (left, was) = self.tamper(tree);
        let rows: Vec<Row> = was.iter().map(|id| rows[id.index()].clone()).collect();
        let Verdict { path, next } = self.rule.verify(&left, &rows, chance);
        Verdict { path: path.into_iter().map(|id| was[id.index()]).collect(), next }
    }
}

/// Defect a: a draw is thrown away because the draft was unsure of it.
fn is_sure(tree: &TokenTree, at: NodeId, place: usize) -> bool {
    tree.node(tree.node(at).slots[place].child).stats.logq >= UNSURE.ln()
}

/// Defect b: the cut is chosen by the draw behind it.
fn next_is_sure(tree: &TokenTree, at: NodeId, place: usize) -> bool {
    let child = tree.node(at).slots[place].child;
    tree.node(child).slots.is_empty() || is_sure(tree, child, 0)
}

/// Defect d: the likeliest two nodes of a tree, by the product of their path.
fn is_likely(tree: &TokenTree, at: NodeId, place: usize) -> bool {
    let score = |id: NodeId| tree.path(id).into_iter().map(|id| tree.node(id).stats.logq).sum::<f32>();
    let child = tree.node(at).slots[place].child;
    tree.ids().skip(1).filter(|&id| score(id) > score(child) || (score(id) == score(child) && id < child)).count() < 2
}

/// Defect e: a draw that repeats another slot's token is dropped.
fn is_new(tree: &TokenTree, at: NodeId, place: usize) -> bool {
    let slots = &tree.node(at).slots;
    !slots[..place].iter().any(|earlier| earlier.child == slots[place].child)
}

/// A rule by its name in configurations.
pub(crate) fn rule(name: &str) -> Box<dyn AcceptanceRule> {
    Setup::new(&SpeculationConfig::default()).rule(name).unwrap_or_else(|error| panic!("{error}"))
}

/// A shape by name: `chain` of some length, or of widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Chain(usize),
    Widths(&'static [usize]),
    Adaptive,
}

/// Parts of table drafters, a shape and a rule.
pub(crate) fn parts(drafters: &[(&Rc<Table>, Mode)], shape: Shape, rule: Box<dyn AcceptanceRule>) -> Parts {
    let drafter = |&(table, mode): &(&Rc<Table>, Mode)| -> Box<dyn Drafter> {
        Box::new(TableDrafter { table: Rc::clone(table), mode })
    };
    Parts {
        drafters: drafters.iter().map(drafter).collect(),
        length: Box::new(Fixed(Some(if let Shape::Chain(length) = shape { length } else { 15 }))),
        shape: match shape {
            Shape::Chain(_) => Box::new(Chain),
            Shape::Widths(widths) => Box::new(Widths(widths)),
            Shape::Adaptive => Box::<Adaptive>::default(),
        },
        rule,
        selector: if drafters.len() > 1 { Box::new(Together) } else { Box::new(Cascade) },
    }
}

/// The seven defects as parts that do it: a name and how each is made from two draft tables.
pub(crate) type Defect = (&'static str, fn(&Rc<Table>, &Rc<Table>) -> Parts);

pub(crate) const DEFECTS: [Defect; 7] = [
    ("a: an unsure draw is thrown away", |q, _| {
        let rule = Tampered { rule: rule("rejection"), stays: is_sure };
        parts(&[(q, Mode::AsTheRuleSays)], Shape::Chain(2), Box::new(rule))
    }),
    ("b: the cut looks past itself", |q, _| {
        let rule = Tampered { rule: rule("rejection"), stays: next_is_sure };
        parts(&[(q, Mode::AsTheRuleSays)], Shape::Chain(2), Box::new(rule))
    }),
    ("c: the surest of two drafters", |q, other| {
        let drafters = [(q, Mode::AsTheRuleSays), (other, Mode::AsTheRuleSays)];
        let selector = Box::new(Surest { says_so: false });
        Parts { selector, ..parts(&drafters, Shape::Chain(2), rule("rejection")) }
    }),
    ("d: a sampled tree is pruned", |q, _| {
        let rule = Tampered { rule: rule("multi-round"), stays: is_likely };
        parts(&[(q, Mode::AsTheRuleSays)], Shape::Widths(&[2, 1]), Box::new(rule))
    }),
    ("e: a repeated draw is dropped", |q, other| {
        let rule = Tampered { rule: rule("multi-round"), stays: is_new };
        let drafters = [(other, Mode::Beams), (q, Mode::AsTheRuleSays)];
        parts(&drafters, Shape::Widths(&[1, 1]), Box::new(rule))
    }),
    ("f: multi-round on draws without replacement", |q, _| {
        let drafters = [(q, Mode::Always(ProposalKind::SampledWor))];
        parts(&drafters, Shape::Widths(&[2, 1]), rule("multi-round"))
    }),
    ("g: K-SEQ of a width that depends on the draws", |q, _| {
        parts(&[(q, Mode::AsTheRuleSays)], Shape::Adaptive, rule("kseq"))
    }),
];

/// A speculator of parts, whatever the contract says.
pub(crate) fn unchecked(parts: Parts) -> Speculator {
    Speculator::new(parts, "on".to_owned())
}
