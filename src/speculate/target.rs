//! What a round needs of the target: rows for the nodes of a tree. A model on an executor, a toy, or a recorded text.

use super::drafters::{DraftPass, InnerDraft};
use super::outcome::{Needs, Row};
use super::tree::{NodeId, TokenTree};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::{Executor, MAX_COLUMNS, MAX_NODES, Params, PlanId, ROW_STATS_WORDS, RowStats, Submission, Ticket};
use crate::runtime;
use crate::sampling::{SamplingParams, distribution};
use crate::store::LocalFuture;
use std::rc::Rc;

/// A tree to verify.
pub struct Job<'a> {
    /// Every committed token; the last one is the root.
    pub tokens: &'a [u32],
    /// At most [`MAX_NODES`] nodes.
    pub tree: &'a TokenTree,
    /// Draft steps that run first, in the same submit; they fill in the tokens that the tree lacks.
    pub inner: Option<InnerDraft>,
    /// How to sample.
    pub sampling: &'a SamplingParams,
    /// What to bring back beyond the samples.
    pub needs: Needs,
    /// This very job, a plain step, where it was submitted ahead: [`Verified::ahead`] of the round before.
    pub submitted: Option<Ahead>,
    /// This job is a plain step, and another one will follow unless the answer ends: a device that gains by it may be given
    /// that one before this one is read.
    pub ahead: bool,
}

impl<'a> Job<'a> {
    /// A tree of known tokens, and no step ahead.
    pub fn new(tokens: &'a [u32], tree: &'a TokenTree, sampling: &'a SamplingParams, needs: Needs) -> Job<'a> {
        Job { tokens, tree, inner: None, sampling, needs, submitted: None, ahead: false }
    }
}

/// A plain step that was submitted before its token was known: the device takes it from where the step before left it.
#[derive(Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Tokens in the cache before it.
    pub base: usize,
    /// Where in `TOKENS` its sample goes.
    pub(super) sample_at: usize,
    pub(super) ticket: Ticket,
}

/// Samples of plain steps go here and to [`SECOND_SAMPLE`] in turn, each where the next step finds its token.
const FIRST_SAMPLE: usize = 1;
/// Beyond the row statistics of the other.
const SECOND_SAMPLE: usize = FIRST_SAMPLE + 1 + ROW_STATS_WORDS;

/// What came of it.
#[derive(Debug, Default, PartialEq)]
pub struct Verified {
    /// Tokens that the inner steps drafted, depth 1 first.
    pub drafted: Vec<u32>,
    /// One a node.
    pub rows: Vec<Row>,
    /// The plain step that was submitted to follow; it counts as given up where it is not handed on.
    pub ahead: Option<Ahead>,
}

/// Verifies trees and keeps what was accepted.
pub trait Target {
    /// Tokens that a tree below the last of `len` committed tokens may have.
    fn room(&self, len: usize) -> usize;
    /// Rows of a tree.
    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>>;
    /// Runs a pass of a draft model: the words it wanted read, and logits.
    fn draft<'a>(&'a self, pass: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>>;
    /// The row of a node of the tree that was verified last, as step 3 of [`crate::sampling`] left it; of a tree of one pass.
    fn logits(&self, _: NodeId) -> LocalFuture<'_, Result<Vec<f32>>> {
        Box::pin(async { Err(Error::Gpu { reason: "this target keeps no rows".to_owned() }) })
    }
    /// The root and the accepted path are committed; the rest of the tree is void.
    fn commit(&self, tokens: &[u32], tree: &TokenTree, path: &[NodeId]);
    /// Its clock, in milliseconds.
    fn now_ms(&self) -> f64 {
        runtime::now_ms()
    }
}

/// A model on an executor.
pub struct ModelTarget<'a> {
    /// Where it runs, and the draft models with it.
    pub executor: &'a dyn Executor,
    /// Its KV cache holds all committed tokens but the last.
    pub model: &'a Model,
}

impl ModelTarget<'_> {
    /// Submits the passes over the tree of a job: its root has slot `base`, its tokens stand at `TOKENS[token_at..]` once
    /// `inputs` and `runs` are through. The drafted tokens, the samples and the statistics are read.
    fn submit(
        &self,
        job: &Job<'_>,
        [base, token_at, sample_at]: [usize; 3],
        inputs: Vec<u32>,
        mut runs: Vec<(PlanId, Params)>,
    ) -> Result<Ahead> {
        let (drafted, nodes) = (job.tree.drafted(), job.tree.nodes().len());
        let stats_at = sample_at + nodes;
        for (pass, mut params) in job.tree.params(base, token_at).into_iter().enumerate() {
            params.logit_cols = params.live_cols;
            params.sample_at = (sample_at + pass * MAX_COLUMNS) as u32;
            params.stats_at = (stats_at + pass * MAX_COLUMNS * ROW_STATS_WORDS) as u32;
            let params = params.sampled(job.sampling);
            runs.extend(self.model.pass(params, true));
            if job.needs.stats {
                runs.push(self.model.stats(params));
            }
        }
        let stats_words = if job.needs.stats { nodes * ROW_STATS_WORDS } else { 0 };
        let read = (sample_at - drafted, drafted + nodes + stats_words);
        let ticket = self.executor.submit(Submission { tokens: vec![(0, inputs)], runs, read })?;
        Ok(Ahead { base, sample_at, ticket })
    }
}

impl Target for ModelTarget<'_> {
    fn room(&self, len: usize) -> usize {
        // The slots beyond the context are for trees.
        (self.model.capacity() - len).min(MAX_NODES - 1)
    }

    fn verify<'a>(&'a self, mut job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        Box::pin(async move {
            let Job { tokens, tree, sampling, needs, .. } = job;
            let base = tokens.len() - 1;
            assert_eq!(self.model.kv.len(), base, "the cache holds all committed tokens but the last");
            let nodes = tree.nodes().len();
            let known = job.inner.is_none();
            let step = match job.submitted.take() {
                Some(step) => step,
                None => {
                    // Accepted nodes of the round before lie scattered until now.
                    let mut runs: Vec<_> = self.model.take_pending().into_iter().collect();
                    let mut inputs = vec![tokens[base]];
                    if let Some(inner) = job.inner.take() {
                        runs.extend(inner.runs);
                        inputs = inner.inputs;
                    }
                    let first = inputs.len();
                    if known {
                        inputs.extend(tree.nodes()[1..].iter().filter_map(|node| node.token));
                    }
                    self.submit(&job, [base, first - 1, first - 1 + nodes], inputs, runs)?
                }
            };
            let follows = job.ahead && self.executor.is_asynchronous() && base + 1 < self.model.context;
            let ahead = if follows {
                let sample_at = if step.sample_at == FIRST_SAMPLE { SECOND_SAMPLE } else { FIRST_SAMPLE };
                Some(self.submit(&job, [base + 1, step.sample_at, sample_at], Vec::new(), Vec::new())?)
            } else {
                None
            };
            let words = self.executor.finish(step.ticket).await?;
            let (drafted, words) = words.split_at(tree.drafted());
            let (samples, stats) = words.split_at(nodes);
            let mut rows: Vec<Row> = samples.iter().map(|&sample| Row::of(sample)).collect();
            for (row, words) in rows.iter_mut().zip(stats.chunks_exact(ROW_STATS_WORDS)) {
                row.stats = Some(Rc::new(RowStats::from_words(words)));
            }
            if needs.p {
                let size = self.model.config.vocabulary;
                let logits = self.model.rows(self.executor, nodes).await?;
                for (row, logits) in rows.iter_mut().zip(logits.chunks_exact(size)) {
                    row.p = Some(distribution(logits, sampling).into());
                }
            }
            Ok(Verified { drafted: if known { Vec::new() } else { drafted.to_vec() }, rows, ahead })
        })
    }

    fn draft<'a>(&'a self, pass: DraftPass) -> LocalFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        Box::pin(async move {
            let ticket = self.executor.submit(pass.submission)?;
            let words = self.executor.finish(ticket).await?;
            let logits = match pass.logits {
                Some((buffer, count)) => self.executor.read(buffer, 0, count).await?,
                None => Vec::new(),
            };
            Ok((words, logits.into_iter().map(f32::from_bits).collect()))
        })
    }

    fn logits(&self, node: NodeId) -> LocalFuture<'_, Result<Vec<f32>>> {
        Box::pin(self.model.row(self.executor, node.index()))
    }

    fn commit(&self, tokens: &[u32], tree: &TokenTree, path: &[NodeId]) {
        let base = tokens.len() - 1;
        let last = path.last().copied().unwrap_or(NodeId::ROOT);
        self.model.accept_path(base, tree.ancestors(last));
        self.model.kv.extend(&tokens[base..]);
        self.model.kv.extend(&tree.path_tokens(last));
    }
}
