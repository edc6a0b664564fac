//! Passes of a draft model, and what its cache holds: shared by every drafter that runs one.
//!
//! The model follows the target: before a draft its cache takes in what was committed since, as extra columns; after a round
//! it keeps what it ran of the accepted path. Bounded by the cache's fixed capacity.

use super::draws::draw;
use super::{Ask, DraftContext, DraftPass, InnerDraft};
use crate::model::Model;
use crate::plan::{BufferId, MAX_COLUMNS, MAX_NODES, Params, PlanId, ROW_STATS_WORDS, RowStats, Submission};
use crate::sampling::distribution;
use crate::speculate::accept::ProposalKind;
use crate::speculate::kv::KvView;
use crate::speculate::outcome::RoundOutcome;
use crate::speculate::tree::{Candidate, Distribution, DraftStats, NodeId, TokenTree};
use std::rc::Rc;

/// Passes that a round may spend on catching up before it drafts.
pub(in crate::speculate) const MAX_CATCH_UP_PASSES: usize = 4;

/// A draft model and its place in the text.
pub struct Passes {
    model: Rc<Model>,
    /// It is the target with fewer layers: the target's cache is its own, and always up to date.
    shares_cache: bool,
    view: KvView,
    /// Nodes that were run for the draft in flight, by the numbers they were drafted with.
    run: u32,
    /// Of those: token and parent, where a pass was told them. A draft that was given up must not be taken for the next.
    nodes: [(Option<u32>, NodeId); MAX_NODES],
}

/// How a draft begins.
struct CatchUp {
    runs: Vec<(PlanId, Params)>,
    /// Committed tokens, which the runs find at `TOKENS[0]`.
    inputs: Vec<u32>,
    /// The slot of the first of them.
    base: usize,
    /// How many of them the runs bring in.
    fed: usize,
    /// Whether these are all that the cache lacked.
    done: bool,
}

impl Passes {
    /// A model with a cache of its own, on the executor of the target.
    pub fn new(model: Rc<Model>, view: KvView) -> Passes {
        Passes { model, shares_cache: false, view, run: 0, nodes: [(None, NodeId::ROOT); MAX_NODES] }
    }

    /// The target's own first layers.
    pub fn of_target(model: Rc<Model>, view: KvView) -> Passes {
        Passes { shares_cache: true, ..Passes::new(model, view) }
    }

    /// A round begins.
    pub fn begin(&mut self) {
        self.run = 0;
    }

    /// How many of `count` tokens below the last of `len` have a slot: its cache may be shorter than the target's.
    pub fn room(&self, len: usize, count: usize) -> usize {
        count.min(self.model.capacity().saturating_sub(len)).min(MAX_NODES - 1)
    }

    fn params(&self, params: Params, context: &DraftContext<'_>) -> Params {
        Params { view_sink: self.view.sink, view_window: self.view.window, ..params.sampled(context.sampling) }
    }

    /// Moves what was accepted before, and brings in what was committed since, if that is little enough to ride along. With
    /// `open`, what does not fill a last pass is left to the pass that comes next.
    fn catch_up(&mut self, tokens: &[u32], open: bool) -> CatchUp {
        let known = tokens.len() - 1;
        let base = if self.shares_cache { known } else { self.model.kv.keep_prefix(tokens, known) };
        let pending = &tokens[base..known];
        let inputs = pending[..pending.len().min(MAX_CATCH_UP_PASSES * MAX_COLUMNS)].to_vec();
        let done = inputs.len() == pending.len();
        let fed = inputs.len() - if open && done { inputs.len() % MAX_COLUMNS } else { 0 };
        let mut runs: Vec<_> = self.model.take_pending().into_iter().collect();
        runs.extend(self.model.feed(base, fed));
        if !self.shares_cache {
            self.model.kv.extend(&inputs);
        }
        CatchUp { runs, inputs, base, fed, done }
    }

    /// A chain of `count` steps, each of which reads the token that the one before sampled; `None` without room for one.
    /// Where the model fell far behind, the round only catches up.
    pub fn chain(&mut self, context: &DraftContext<'_>, count: usize) -> Option<InnerDraft> {
        let tokens = context.tokens;
        let count = self.room(tokens.len(), count);
        if count == 0 {
            return None;
        }
        let CatchUp { mut runs, mut inputs, base, fed, done } = self.catch_up(tokens, true);
        inputs.push(tokens[tokens.len() - 1]);
        if !done {
            return Some(InnerDraft { inputs, runs, tokens: 0, steps: 0, caught_up: true });
        }
        // What is left of the pending tokens ends with the root and is the first step of the draft.
        let mut first = fed;
        for end in (inputs.len()..).take(count) {
            let mut params = Params::chain(end - first, base + first, first);
            params.logit_first = params.live_cols - 1;
            params.logit_cols = 1;
            params.sample_at = end as u32;
            runs.extend(self.model.pass(self.params(params, context), true));
            first = end;
        }
        self.run = ((1u64 << count) - 1) as u32;
        for at in 0..count {
            self.nodes[at] = (None, NodeId(at.saturating_sub(1) as u16));
        }
        Some(InnerDraft { inputs, runs, tokens: count, steps: count, caught_up: fed > 0 })
    }

    /// The same chain as a pass of its own, which reads the tokens back.
    pub fn chain_pass(&mut self, context: &DraftContext<'_>, count: usize) -> Option<DraftPass> {
        let InnerDraft { inputs, runs, tokens, caught_up, .. } = self.chain(context, count)?;
        let read = (inputs.len(), tokens);
        Some(DraftPass { submission: Submission { tokens: vec![(0, inputs)], runs, read }, logits: None, caught_up })
    }

    /// One pass over the leaves of an ask, with whatever of their ancestors was not run yet. `extra` tokens hang as a chain
    /// below the last leaf, numbered on from the tree's nodes. `None` where there is no room or the model is far behind (the
    /// pass then only catches up, and is given).
    pub fn expand(&mut self, context: &DraftContext<'_>, tree: &TokenTree, ask: &Ask<'_>, extra: &[u32]) -> Step {
        let tokens = context.tokens;
        if tree.drafted() == 0 {
            self.run = 0;
        }
        let mut nodes = Vec::new();
        for &leaf in ask.leaves {
            for node in [NodeId::ROOT].into_iter().chain(tree.path(leaf)) {
                let known = nodes.contains(&node) || self.holds(tree, node);
                if !known && !ask.leaves.contains(&node) {
                    nodes.push(node);
                }
            }
        }
        let size = tree.nodes().len();
        let first_leaf = nodes.len();
        nodes.extend(ask.leaves);
        let wide = nodes.len() + extra.len() > MAX_COLUMNS || ask.leaves.is_empty();
        let deepest = nodes.iter().map(|node| node.index()).max().unwrap_or(0).max(size - 1 + extra.len());
        if wide || deepest >= MAX_NODES || tokens.len() - 1 + deepest >= self.model.capacity() {
            return Step::None;
        }
        let base = tokens.len() - 1;
        let CatchUp { mut runs, mut inputs, fed, done, .. } = self.catch_up(tokens, false);
        // One pass over what was committed last is part of every draft.
        let caught_up = fed > MAX_COLUMNS;
        let token_at = inputs.len();
        if !done {
            return Step::CatchUp(DraftPass {
                submission: Submission { tokens: vec![(0, inputs)], runs, read: (0, 1) },
                logits: None,
                caught_up,
            });
        }
        inputs.extend(tree.nodes().iter().map(|node| node.token.unwrap_or(0)));
        inputs.extend(extra);
        let mut params = tree.params_of(&nodes, base, token_at);
        let mut above = tree.ancestors(nodes[nodes.len() - 1]);
        for at in 0..extra.len() {
            let column = nodes.len() + at;
            above |= 1 << (size + at);
            params.nodes[column] = (size + at) as u32;
            params.ancestors[column] = above;
        }
        params.live_cols = (nodes.len() + extra.len()) as u32;
        params.logit_first = first_leaf as u32;
        params.logit_cols = params.live_cols - params.logit_first;
        params.sample_at = (token_at + MAX_NODES) as u32;
        params.stats_at = params.sample_at + MAX_COLUMNS as u32;
        let params = self.params(params, context);
        runs.extend(self.model.pass(params, true));
        runs.push(self.model.stats(params));
        for &id in &nodes {
            let node = tree.node(id);
            self.run |= 1 << id.0;
            self.nodes[id.index()] = (node.token, node.parent);
        }
        let rows = params.logit_cols as usize;
        let read = (params.sample_at as usize, MAX_COLUMNS + rows * ROW_STATS_WORDS);
        let wants_q = context.draws != ProposalKind::Deterministic;
        let logits: Option<(BufferId, usize)> =
            wants_q.then(|| (self.model.logits, rows * self.model.config.vocabulary));
        Step::Pass(DraftPass { submission: Submission { tokens: vec![(0, inputs)], runs, read }, logits, caught_up })
    }

    /// Notes that tokens of the chain given to [`Passes::expand`] as `extra` become nodes `first..` of the tree, a chain below
    /// `leaf`.
    pub fn ran(&mut self, leaf: NodeId, first: usize, tokens: &[u32]) {
        let mut parent = leaf;
        for (node, &token) in (first..MAX_NODES).zip(tokens) {
            self.run |= 1 << node;
            self.nodes[node] = (Some(token), parent);
            parent = NodeId(node as u16);
        }
    }

    /// Rows of a pass of [`Passes::expand`]: sample and statistics of each logit column.
    pub fn rows(words: &[u32]) -> Vec<(u32, RowStats)> {
        let (samples, stats) = words.split_at(MAX_COLUMNS.min(words.len()));
        samples.iter().copied().zip(stats.chunks_exact(ROW_STATS_WORDS).map(RowStats::from_words)).collect()
    }

    /// Candidates below each leaf from the rows of its pass: by the noisy score, which is what the target will draw by, or
    /// sampled on the host where the acceptance rule wants q.
    pub fn candidates(
        &self,
        context: &DraftContext<'_>,
        tree: &TokenTree,
        ask: &Ask<'_>,
        words: &[u32],
        logits: &[f32],
    ) -> Vec<Vec<Candidate>> {
        let size = self.model.config.vocabulary;
        let rows = Passes::rows(words).into_iter().zip(ask.leaves).enumerate();
        rows.map(|(index, ((sample, row), &leaf))| {
            if context.draws == ProposalKind::Deterministic {
                return drawn(sample, &row, ask.width);
            }
            let q: Distribution = distribution(&logits[index * size..][..size], context.sampling).into();
            let drawn = draw(context, tree, ask, leaf, &q).into_iter();
            let candidate = |(token, proposal)| {
                let stats = stats_of(&row, (q[token as usize] as f32).ln());
                Candidate { proposal, ..Candidate::new(token, stats) }
            };
            drawn.map(candidate).collect()
        })
        .collect()
    }

    /// Keeps what was run of the accepted path.
    pub fn observe(&mut self, outcome: &RoundOutcome) {
        let run = std::mem::take(&mut self.run);
        if self.shares_cache {
            return;
        }
        let tree = &outcome.tree;
        let base = outcome.context_len - 1;
        if run & 1 == 0 || self.model.kv.len() != base {
            return;
        }
        let mut mask = 1u32;
        let mut above = NodeId::ROOT;
        let mut tokens: Vec<u32> = tree.node(NodeId::ROOT).token.into_iter().collect();
        for &node in &outcome.verdict.path {
            let node = tree.node(node);
            let Some(token) = node.token.filter(|_| self.is_run(run, node.drafted_as, node.token, above)) else {
                break;
            };
            mask |= 1 << node.drafted_as.0;
            above = node.drafted_as;
            tokens.push(token);
        }
        self.model.accept_path(base, mask);
        self.model.kv.extend(&tokens);
    }

    /// Whether a node of this round's tree was run as it is: another drafter may have put its own where one was run ahead.
    fn holds(&self, tree: &TokenTree, node: NodeId) -> bool {
        let known = tree.node(node);
        match node {
            NodeId::ROOT => self.run & 1 == 1,
            _ => node.index() < MAX_NODES && self.is_run(self.run, node, known.token, known.parent),
        }
    }

    fn is_run(&self, run: u32, node: NodeId, token: Option<u32>, parent: NodeId) -> bool {
        let Some(&(known, above)) = self.nodes.get(node.index()) else { return false };
        run >> node.0 & 1 == 1 && above == parent && (known.is_none() || known == token)
    }

    /// Forgets the draft in flight; the cache keeps what is true of the text.
    pub fn reset(&mut self) {
        self.run = 0;
    }
}

/// What [`Passes::expand`] came to.
pub enum Step {
    /// No room.
    None,
    /// The model is far behind; after this pass it is less so, and has nothing to offer this round.
    CatchUp(DraftPass),
    /// The pass.
    Pass(DraftPass),
}

/// Statistics of a candidate of a row.
fn stats_of(row: &RowStats, logq: f32) -> DraftStats {
    let top = |at: usize| row.top.get(at).map_or(0.0, |&(_, logp)| logp.exp());
    DraftStats { logq, top1: top(0), margin: top(0) - top(1), entropy: row.entropy, match_len: 0 }
}

/// The sample, then what comes next by score. Shared noise makes them a function of the prefix and the seed.
pub fn drawn(sample: u32, row: &RowStats, width: usize) -> Vec<Candidate> {
    let first = (sample, row.sample_logp);
    let others = row.drawn.iter().copied().filter(|&(token, _)| token != sample);
    let all = std::iter::once(first).chain(others).take(width);
    all.map(|(token, logq)| Candidate::new(token, stats_of(row, logq))).collect()
}
