//! What a round needs of the target: rows for the nodes of a tree. A model on an executor, a toy, or a recorded text.

use super::drafters::{DraftPass, InnerDraft};
use super::outcome::{Needs, Row};
use super::tree::{NodeId, TokenTree};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::{Executor, MAX_COLUMNS, MAX_NODES, ROW_STATS_WORDS, RowStats, Submission};
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
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Tokens that the inner steps drafted, depth 1 first.
    pub drafted: Vec<u32>,
    /// One a node.
    pub rows: Vec<Row>,
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

impl Target for ModelTarget<'_> {
    fn room(&self, len: usize) -> usize {
        // The slots beyond the context are for trees.
        (self.model.capacity() - len).min(MAX_NODES - 1)
    }

    fn verify<'a>(&'a self, job: Job<'a>) -> LocalFuture<'a, Result<Verified>> {
        Box::pin(async move {
            let Job { tokens, tree, inner, sampling, needs } = job;
            let base = tokens.len() - 1;
            assert_eq!(self.model.kv.len(), base, "the cache holds all committed tokens but the last");
            let nodes = tree.nodes().len();
            // Accepted nodes of the round before lie scattered until now.
            let mut runs: Vec<_> = self.model.take_pending().into_iter().collect();
            let (mut inputs, known) = match inner {
                Some(inner) => {
                    runs.extend(inner.runs);
                    (inner.inputs, false)
                }
                None => (vec![tokens[base]], true),
            };
            let first = inputs.len();
            if known {
                inputs.extend(tree.nodes()[1..].iter().filter_map(|node| node.token));
            }
            let sample_at = first - 1 + nodes;
            let stats_at = sample_at + nodes;
            for (pass, mut params) in tree.params(base, first - 1).into_iter().enumerate() {
                params.logit_cols = params.live_cols;
                params.sample_at = (sample_at + pass * MAX_COLUMNS) as u32;
                params.stats_at = (stats_at + pass * MAX_COLUMNS * ROW_STATS_WORDS) as u32;
                let params = params.sampled(sampling);
                runs.extend(self.model.pass(params, true));
                if needs.stats {
                    runs.push(self.model.stats(params));
                }
            }
            let stats_words = if needs.stats { nodes * ROW_STATS_WORDS } else { 0 };
            let read = (first, tree.drafted() + nodes + stats_words);
            let ticket = self.executor.submit(Submission { tokens: vec![(0, inputs)], runs, read })?;
            let words = self.executor.finish(ticket).await?;
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
            Ok(Verified { drafted: if known { Vec::new() } else { drafted.to_vec() }, rows })
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
