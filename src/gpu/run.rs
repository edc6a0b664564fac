//! Preparing plans and running them.

use super::GpuExecutor;
use super::buffers::{Slot, request_map};
use super::kernels::Binding;
use super::pipelines::Pipeline;
use super::poll::Signal;
use super::self_test::texts_of;
use super::steps::{Cut, Grid, Lowered, lower};
use crate::error::{Error, Result};
use crate::plan::{
    BufferId, COLUMN_BUCKETS, Columns, MAX_COLUMNS, MAX_NODES, Params, Plan, PlanId, ROW_STATS_WORDS, Step, Submission,
    TOKENS_WORDS, Ticket, UNIFORM_WORDS,
};
use crate::sampling::{MAX_LOGIT_BIAS, MAX_PENALTY_TOKENS};
use std::rc::Rc;

/// Bytes of a uniform slot: WebGPU's alignment of dynamic offsets, and the size of [`Params`].
pub(super) const SLOT_BYTES: u64 = 256;
/// Runs that one submit can hold; a submission of more takes several.
pub(super) const RUNS_PER_SUBMIT: usize = 64;
/// Bytes that a kernel's `Fixed` struct may have.
const FIXED_BYTES: u64 = 64;

/// A kernel call ready to be encoded.
struct Dispatch {
    pipeline: Rc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: Grid,
    columns: Columns,
}

/// A plan ready to run.
pub(super) struct Prepared {
    label: String,
    bucket: u32,
    dispatches: Vec<Dispatch>,
    /// Positions there is room for.
    positions: u64,
    /// It has steps on all columns, on those whose logits are wanted, a sampler.
    all: bool,
    logits: bool,
    samples: bool,
    /// It writes row statistics.
    stats: bool,
}

/// A submission that is not finished yet.
pub(super) struct InFlight {
    submission: wgpu::SubmissionIndex,
    signal: Signal,
    staging: Option<wgpu::Buffer>,
    words: usize,
}

impl GpuExecutor {
    pub(super) fn prepare_plan(&self, plan: &Plan) -> Result<PlanId> {
        self.faults.check()?;
        let bucket = plan.bucket as u32;
        if !COLUMN_BUCKETS.contains(&plan.bucket) {
            return Err(refuse(&plan.label, format!("bucket is {bucket}, expected one of {COLUMN_BUCKETS:?}")));
        }
        let fixed = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(&plan.label),
            size: SLOT_BYTES * plan.steps.len().max(1) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut fixed_words = vec![0u32; plan.steps.len() * SLOT_BYTES as usize / 4];
        let mut prepared = Prepared {
            label: plan.label.clone(),
            bucket,
            dispatches: Vec::with_capacity(plan.steps.len()),
            positions: u64::MAX,
            all: false,
            logits: false,
            samples: false,
            stats: false,
        };
        let cut = self.cut();
        for (index, step) in plan.steps.iter().enumerate() {
            let wrong = |reason: String| refuse(&plan.label, format!("step {index}: {reason}"));
            // What the kernel reads decides what its buffers must hold.
            let columns = match texts_of(step) {
                Some(texts) if self.widest_only.borrow().contains_key(&texts) => MAX_COLUMNS as u32,
                _ => bucket,
            };
            let lowered = lower(step, columns, &cut).map_err(wrong)?;
            let pipeline = self.pipelines.borrow_mut().get(&self.device, lowered.key)?;
            let buffers = self.buffers.borrow();
            check_buffers(&lowered, &pipeline, &buffers).map_err(wrong)?;
            prepared.positions = prepared.positions.min(lowered.positions);
            if let Step::Embed { history, .. } | Step::Sample { history, .. } = step {
                prepared.positions = prepared.positions.min(buffers[history.0 as usize].words);
            }
            prepared.all |= lowered.columns == Columns::All;
            prepared.logits |= lowered.columns == Columns::Logits;
            prepared.samples |= matches!(step, Step::Sample { .. });
            prepared.stats |= matches!(step, Step::RowStats { .. });
            let slot = &mut fixed_words[index * SLOT_BYTES as usize / 4..][..FIXED_BYTES as usize / 4];
            place_fixed(&lowered, &pipeline, slot).map_err(wrong)?;
            prepared.dispatches.push(Dispatch {
                bind_group: self.bind(&lowered, &pipeline, &fixed, index, &buffers)?,
                pipeline,
                grid: lowered.grid,
                columns: lowered.columns,
            });
        }
        if !fixed_words.is_empty() {
            self.queue.write_buffer(&fixed, 0, bytemuck::cast_slice(&fixed_words));
        }
        self.waiter().pump();
        self.faults.check()?;
        let mut plans = self.plans.borrow_mut();
        plans.push(prepared);
        Ok(PlanId(plans.len() as u32 - 1))
    }

    /// What lowering must know of this device and its buffers.
    fn cut(&self) -> Cut<'_> {
        let words = |buffer: BufferId| self.buffers.borrow().get(buffer.0 as usize).map_or(0, |slot| slot.words);
        Cut {
            geometry: self.geometry,
            matvec: Box::new(|part| self.cut_of(part.layout, part.rows as usize, part.cols as usize)),
            uniform: Box::new(move |buffer, used| {
                used <= UNIFORM_WORDS as u64 && words(buffer) >= UNIFORM_WORDS as u64
            }),
            texture: Box::new(|part| self.lies_in_texture(part)),
        }
    }

    fn bind(
        &self,
        lowered: &Lowered,
        pipeline: &Pipeline,
        fixed: &wgpu::Buffer,
        index: usize,
        buffers: &[Slot],
    ) -> Result<wgpu::BindGroup> {
        let part = |buffer, offset, bytes| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) })
        };
        let mut entries = vec![
            wgpu::BindGroupEntry { binding: 0, resource: part(&self.params, 0, SLOT_BYTES) },
            wgpu::BindGroupEntry { binding: 1, resource: part(fixed, index as u64 * SLOT_BYTES, FIXED_BYTES) },
        ];
        let slots = || lowered.uses.iter().map(|used| &buffers[used.buffer.0 as usize]);
        let view = |texture: &wgpu::Texture| texture.create_view(&wgpu::TextureViewDescriptor::default());
        let views: Vec<_> = slots().map(|slot| slot.texture().map(view)).collect();
        for (i, ((slot, view), binding)) in slots().zip(&views).zip(&pipeline.interface.bindings).enumerate() {
            let resource = match (view, binding) {
                (Some(view), _) => wgpu::BindingResource::TextureView(view),
                (None, Binding::Uniform) => part(slot.buffer()?, 0, UNIFORM_WORDS as u64 * 4),
                (None, _) => slot.buffer()?.as_entire_binding(),
            };
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 2, resource });
        }
        Ok(self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.bind_group_layout,
            entries: &entries,
        }))
    }

    pub(super) fn submit_runs(&self, submission: &Submission) -> Result<Ticket> {
        self.faults.check()?;
        let plans = self.plans.borrow();
        for (plan, params) in &submission.runs {
            let plan = plans
                .get(plan.0 as usize)
                .ok_or_else(|| refuse(&format!("{}", plan.0), format!("there are {} plans", plans.len())))?;
            check_params(plan, params).map_err(|reason| refuse(&plan.label, reason))?;
        }
        let (read_at, read_words) = submission.read;
        if read_at.saturating_add(read_words) > TOKENS_WORDS {
            return Err(refuse("read", format!("words {read_at} + {read_words} of {TOKENS_WORDS}")));
        }
        for (offset, tokens) in &submission.tokens {
            if !tokens.is_empty() {
                self.write_buffer(BufferId::TOKENS, *offset, tokens)?;
            }
        }

        let mut batches = submission.runs.chunks(RUNS_PER_SUBMIT).peekable();
        let mut staging = None;
        let submission = loop {
            let batch = batches.next().unwrap_or_default();
            let label = wgpu::CommandEncoderDescriptor { label: Some("runs") };
            let mut encoder = self.device.create_command_encoder(&label);
            self.encode(&plans, batch, &mut encoder);
            let last = batches.peek().is_none();
            if last && read_words > 0 {
                let target =
                    self.staging.borrow_mut().pop().unwrap_or_else(|| self.new_staging(TOKENS_WORDS as u64 * 4));
                let buffers = self.buffers.borrow();
                let tokens = buffers[BufferId::TOKENS.0 as usize].buffer()?;
                encoder.copy_buffer_to_buffer(tokens, read_at as u64 * 4, &target, 0, Some(read_words as u64 * 4));
                staging = Some(target);
            }
            let index = self.queue.submit([encoder.finish()]);
            self.count(|counters| counters.submits += 1);
            if last {
                break index;
            }
        };
        self.unsettled_bytes.set(0);
        let signal = match &staging {
            Some(staging) => {
                self.count(|counters| counters.maps += 1);
                request_map(staging, read_words)
            }
            None => {
                let signal = Signal::default();
                let done = signal.clone();
                self.queue.on_submitted_work_done(move || done.set(true));
                signal
            }
        };
        self.faults.check()?;
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        self.in_flight.borrow_mut().insert(ticket, InFlight { submission, signal, staging, words: read_words });
        Ok(Ticket(ticket))
    }

    /// Writes the params of up to [`RUNS_PER_SUBMIT`] runs and encodes them in one pass. Writes and submits are one queue,
    /// so the slots can be used again by the next submit.
    fn encode(&self, plans: &[Prepared], runs: &[(PlanId, Params)], encoder: &mut wgpu::CommandEncoder) {
        if runs.is_empty() {
            return;
        }
        let params: Vec<Params> = runs.iter().map(|(_, params)| *params).collect();
        self.queue.write_buffer(&self.params, 0, bytemuck::cast_slice(&params));
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (slot, (plan, params)) in runs.iter().enumerate() {
            for dispatch in &plans[plan.0 as usize].dispatches {
                let columns = match dispatch.columns {
                    Columns::All => params.live_cols,
                    Columns::Logits => params.logit_cols,
                };
                if columns == 0 {
                    continue;
                }
                let (x, y, z) = dispatch.grid.size(columns, params);
                pass.set_pipeline(&dispatch.pipeline.pipeline);
                pass.set_bind_group(0, &dispatch.bind_group, &[(slot as u64 * SLOT_BYTES) as u32]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
    }

    pub(super) async fn finish_ticket(&self, ticket: Ticket) -> Result<Vec<u32>> {
        let Some(work) = self.in_flight.borrow_mut().remove(&ticket.0) else {
            return Err(refuse("finish", format!("ticket {} is not in flight", ticket.0)));
        };
        for (_, given_up) in self.in_flight.borrow_mut().extract_if(|&other, _| other < ticket.0) {
            if let Some(staging) = given_up.staging {
                staging.unmap();
                self.staging.borrow_mut().push(staging);
            }
        }
        let Some(staging) = work.staging else {
            let done = self.waiter().wait(work.submission, work.signal).await;
            self.faults.check()?;
            return if done { Ok(Vec::new()) } else { Err(self.faults.or("submitted work did not finish")) };
        };
        let words = self.take_mapped(&staging, work.words, work.submission, work.signal).await?;
        self.staging.borrow_mut().push(staging);
        Ok(words)
    }
}

fn refuse(what: &str, reason: String) -> Error {
    Error::Gpu { reason: format!("plan {what}: {reason}") }
}

/// Every buffer exists, is large enough, and is not written while bound twice.
fn check_buffers(lowered: &Lowered, pipeline: &Pipeline, buffers: &[Slot]) -> Result<(), String> {
    let bindings = &pipeline.interface.bindings;
    if bindings.len() != lowered.uses.len() {
        return Err(format!("{} buffers, the kernel has {}", lowered.uses.len(), bindings.len()));
    }
    let writes = |at: usize| bindings[at] == Binding::Write;
    for (i, used) in lowered.uses.iter().enumerate() {
        let slot = buffers.get(used.buffer.0 as usize).ok_or_else(|| format!("no buffer {}", used.buffer.0))?;
        if (bindings[i] == Binding::Texture) != slot.texture().is_some() {
            return Err(format!("{} ({}) is the wrong kind of memory for the kernel", used.name, slot.label));
        }
        if slot.words < used.words {
            return Err(format!("{} ({}) has {} words, expected {}", used.name, slot.label, slot.words, used.words));
        }
        for (j, other) in lowered.uses.iter().enumerate().take(i) {
            if other.buffer == used.buffer && (writes(i) || writes(j)) {
                return Err(format!("{} and {} are the same buffer {}", other.name, used.name, slot.label));
            }
        }
    }
    Ok(())
}

/// Puts the fixed values where the kernel's struct has them.
fn place_fixed(lowered: &Lowered, pipeline: &Pipeline, slot: &mut [u32]) -> Result<(), String> {
    let fields = &pipeline.interface.fixed;
    if fields.len() != lowered.fixed.len() || fields.len() > slot.len() {
        return Err(format!("{} fixed values, the kernel has {}", lowered.fixed.len(), fields.len()));
    }
    for (field, word) in fields.iter().zip(slot) {
        let value = lowered.fixed.iter().find(|(name, _)| name == field);
        *word = value.ok_or_else(|| format!("no value for the kernel's {field}"))?.1;
    }
    Ok(())
}

/// Everything in the params that kernels use as an index or a count.
fn check_params(plan: &Prepared, params: &Params) -> Result<(), String> {
    let Params { live_cols, base, token_at, logit_first, logit_cols, sample_at, stats_at, .. } = *params;
    let within = |at: u32, count: u32, room: u64| u64::from(at) + u64::from(count) <= room;
    let most = if plan.all { plan.bucket } else { MAX_COLUMNS as u32 };
    if live_cols == 0 || live_cols > most {
        return Err(format!("live_cols is {live_cols}, expected 1 to {most}"));
    }
    if plan.logits && logit_cols > plan.bucket {
        return Err(format!("logit_cols is {logit_cols}, expected at most {}", plan.bucket));
    }
    let mut run = 0u32;
    let mut path = 0u32;
    for (column, (&node, &mask)) in params.nodes.iter().zip(&params.ancestors).enumerate().take(live_cols as usize) {
        if node >= MAX_NODES as u32 || mask >> node != 1 {
            return Err(format!(
                "ancestors of column {column}, node {node}, are {mask:#b}: expected itself and earlier ones"
            ));
        }
        if run >> node & 1 == 1 {
            return Err(format!("node {node} stands in more than one column"));
        }
        run |= 1 << node;
        path |= mask;
    }
    // A position is never beyond its slot, and every node of a path comes before the path's last.
    let nodes = u32::BITS - path.leading_zeros();
    if !within(base, nodes, plan.positions) {
        return Err(format!("{base} + {nodes} tokens, there is room for {}", plan.positions));
    }
    if !within(logit_first, logit_cols, live_cols.into()) {
        return Err(format!("logits of columns {logit_first} + {logit_cols} of {live_cols}"));
    }
    let tokens = TOKENS_WORDS as u64;
    if !within(token_at, nodes, tokens) || !within(sample_at, logit_cols, tokens) {
        return Err(format!("token_at {token_at}, sample_at {sample_at}, TOKENS has {tokens} words"));
    }
    let needed = |word: u32| word >= token_at && path.checked_shr(word - token_at).unwrap_or(0) & 1 == 1;
    if plan.samples && (sample_at..sample_at + logit_cols).any(needed) {
        return Err(format!("samples at {sample_at} would overwrite the tokens of the pass at {token_at}"));
    }
    if plan.stats {
        let words = logit_cols * ROW_STATS_WORDS as u32;
        if !within(stats_at, words, tokens) {
            return Err(format!("stats_at {stats_at} + {words}, TOKENS has {tokens} words"));
        }
        if stats_at < sample_at + logit_cols && sample_at < stats_at + words {
            return Err(format!("statistics at {stats_at} would overwrite the samples of the pass at {sample_at}"));
        }
    }
    if params.bias_count as usize > MAX_LOGIT_BIAS || params.penalty_last_n as usize > MAX_PENALTY_TOKENS {
        return Err(format!("bias_count {}, penalty_last_n {}", params.bias_count, params.penalty_last_n));
    }
    Ok(())
}
