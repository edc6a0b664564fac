//! The CPU executor: the same plan in plain Rust, one twin per kernel with the same name and arguments.
//!
//! It is the oracle of every kernel test, the fallback where there is no hardware adapter, and it sums in its own fixed
//! order, which like that of the GPU never depends on how many columns are in flight.

mod activation;
mod attention;
mod attention_combine;
mod buffers;
mod compact;
mod embed;
mod exp;
mod matrix;
mod matvec;
mod quantise;
mod rms_norm;
mod rope_kv;
mod row_stats;
mod sample;
mod simd;

pub use buffers::Buffers;
pub(crate) use row_stats::statistics;
pub(crate) use sample::draw;

use crate::error::{Error, Result};
use crate::plan::{
    Arithmetic, BufferId, Counters, DeviceInfo, Executor, Limits, MatrixPart, Params, Plan, PlanId, Step, Submission,
    TOKENS_WORDS, Ticket,
};
use crate::runtime;
use crate::sampling::MAX_LOGIT_BIAS;
use crate::store::LocalFuture;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Longest stretch of work between two chances for the host to do something else.
const YIELD_MS: f64 = 8.0;

/// Runs one step on buffers in memory; kernels are compared with this.
pub fn run_step(step: &Step, params: &Params, buffers: &mut Buffers) {
    match step {
        Step::Embed { weight, history, out, scale } => {
            embed::embed(weight, *history, *out, *scale, params, buffers);
        }
        Step::RmsNorm { x, weight, out, width, eps, add, columns } => {
            rms_norm::rms_norm(*x, *weight, *out, *width, *eps, *add, *columns, params, buffers);
        }
        Step::Matvec { weight, x, out, out_offset, out_stride, add, columns } => {
            let target = matvec::Target { out: *out, offset: *out_offset, stride: *out_stride, add: *add };
            matvec::matvec(weight, *x, &target, *columns, params, buffers);
        }
        Step::RopeKv { qkv, k_cache, v_cache, rope, qk_norm, shape, pairs, eps } => {
            let tensors = rope_kv::Tensors { qkv: *qkv, k_cache: *k_cache, v_cache: *v_cache, rope: *rope };
            rope_kv::rope_kv(&tensors, *qk_norm, shape, *pairs, *eps, params, buffers);
        }
        Step::Attention { qkv, k_cache, v_cache, partial, shape } => {
            attention::attention(*qkv, *k_cache, *v_cache, *partial, shape, params, buffers);
        }
        Step::AttentionCombine { partial, out, shape } => {
            attention_combine::attention_combine(*partial, *out, shape, params, buffers);
        }
        Step::Activation { x, out, width, gate } => {
            activation::activation(*x, *out, *width, *gate, params, buffers);
        }
        Step::Sample { logits, history, vocabulary } => {
            sample::sample(*logits, *history, *vocabulary, params, buffers);
        }
        Step::RowStats { logits, vocabulary } => row_stats::row_stats(*logits, *vocabulary, params, buffers),
        Step::Compact { buffer, rows, capacity, words } => {
            compact::compact(*buffer, *rows, *capacity, *words, params, buffers);
        }
    }
}

/// Runs steps, at least one, until time is up; gives how many.
fn run_some(steps: &[Step], until: f64, params: &Params, buffers: &mut Buffers) -> usize {
    for (index, step) in steps.iter().enumerate() {
        run_step(step, params, buffers);
        if runtime::now_ms() > until {
            return index + 1;
        }
    }
    steps.len()
}

/// Plans in plain Rust, on all cores natively, on one in a browser.
pub struct CpuExecutor {
    arithmetic: Arithmetic,
    buffers: RefCell<Buffers>,
    plans: RefCell<Vec<Plan>>,
    queue: RefCell<VecDeque<(u64, Submission)>>,
    next_ticket: Cell<u64>,
    submits: Cell<u64>,
    reads: Cell<u64>,
    /// When others last had their turn, over all submissions: each may take less than [`YIELD_MS`].
    yielded_ms: Cell<f64>,
    memory_bytes: Option<u64>,
}

impl Default for CpuExecutor {
    fn default() -> Self {
        let mut buffers = Buffers::default();
        buffers.alloc(TOKENS_WORDS);
        buffers.alloc(2 * MAX_LOGIT_BIAS);
        CpuExecutor {
            arithmetic: Arithmetic::Q8,
            buffers: RefCell::new(buffers),
            plans: RefCell::default(),
            queue: RefCell::default(),
            next_ticket: Cell::new(0),
            submits: Cell::new(0),
            reads: Cell::new(0),
            yielded_ms: Cell::new(0.0),
            memory_bytes: runtime::memory_bytes(),
        }
    }
}

impl CpuExecutor {
    /// With an arithmetic given; the default is [`Arithmetic::Q8`].
    pub fn with(arithmetic: Arithmetic) -> CpuExecutor {
        CpuExecutor { arithmetic, ..CpuExecutor::default() }
    }

    async fn run(&self, submission: Submission) -> Result<Vec<u32>> {
        for (offset, tokens) in &submission.tokens {
            self.buffers.borrow_mut().write(BufferId::TOKENS, *offset, tokens);
        }
        for (plan, params) in &submission.runs {
            let (mut done, count) = (0, self.plans.borrow()[plan.0 as usize].steps.len());
            while done < count {
                let until = self.yielded_ms.get() + YIELD_MS;
                {
                    let plans = self.plans.borrow();
                    let (steps, buffers) = (&plans[plan.0 as usize].steps[done..], &mut *self.buffers.borrow_mut());
                    // Among the threads, so that a step does not begin with waking one.
                    done += runtime::among_threads(|| run_some(steps, until, params, buffers));
                }
                if runtime::now_ms() > until {
                    runtime::yield_macrotask().await;
                    self.yielded_ms.set(runtime::now_ms());
                }
            }
        }
        let (offset, count) = submission.read;
        Ok(self.buffers.borrow().words(BufferId::TOKENS)[offset..offset + count].to_vec())
    }
}

impl Executor for CpuExecutor {
    fn device(&self) -> DeviceInfo {
        let threads = match runtime::threads() {
            1 => "1 thread".to_owned(),
            count => format!("{count} threads"),
        };
        let name = format!("CPU, {threads}, {}", simd::name());
        DeviceInfo { kind: "cpu", name, software: false }
    }

    fn limits(&self) -> Limits {
        Limits { max_binding_bytes: u64::from(u32::MAX), memory_bytes: self.memory_bytes }
    }

    fn alloc(&self, label: &str, words: usize) -> Result<BufferId> {
        self.buffers.borrow_mut().try_alloc(words).ok_or_else(|| Error::OutOfMemory {
            device: self.device().name,
            plan: format!("{} bytes for {label}", words as u64 * 4),
        })
    }

    fn write(&self, buffer: BufferId, offset: usize, words: &[u32]) -> Result<()> {
        self.buffers.borrow_mut().write(buffer, offset, words);
        Ok(())
    }

    fn write_matrix(&self, part: &MatrixPart, row: usize, quants: &[u32], scales: &[u32]) -> Result<()> {
        matrix::write(part, row, quants, scales, &mut self.buffers.borrow_mut());
        Ok(())
    }

    fn read(&self, buffer: BufferId, offset: usize, words: usize) -> LocalFuture<'_, Result<Vec<u32>>> {
        self.submits.set(self.submits.get() + 1);
        self.reads.set(self.reads.get() + 1);
        let out = self.buffers.borrow().words(buffer)[offset..offset + words].to_vec();
        Box::pin(async move { Ok(out) })
    }

    fn release(&self, mark: (u32, u32)) {
        self.buffers.borrow_mut().truncate(mark.0 as usize);
        self.plans.borrow_mut().truncate(mark.1 as usize);
    }

    fn mark(&self) -> (u32, u32) {
        (self.buffers.borrow().len() as u32, self.plans.borrow().len() as u32)
    }

    fn prepare(&self, plan: Plan) -> Result<PlanId> {
        let mut plans = self.plans.borrow_mut();
        plans.push(plan);
        Ok(PlanId(plans.len() as u32 - 1))
    }

    fn submit(&self, submission: Submission) -> Result<Ticket> {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        self.submits.set(self.submits.get() + 1);
        self.reads.set(self.reads.get() + u64::from(submission.read.1 > 0));
        self.queue.borrow_mut().push_back((ticket, submission));
        Ok(Ticket(ticket))
    }

    /// The work itself is done here, in the order of submission.
    fn finish(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(async move {
            loop {
                let next = self.queue.borrow_mut().pop_front();
                let Some((id, submission)) = next else {
                    return Err(Error::Gpu { reason: format!("ticket {} was finished before", ticket.0) });
                };
                let words = self.run(submission).await?;
                if id == ticket.0 {
                    return Ok(words);
                }
            }
        })
    }

    fn counters(&self) -> Counters {
        let (submits, maps) = (self.submits.get(), self.reads.get());
        Counters { submits, maps, allocated_bytes: self.buffers.borrow().bytes() }
    }

    fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    fn fingerprint(&self) -> String {
        format!("foredraft-{}/cpu/{}/{}", env!("CARGO_PKG_VERSION"), simd::name(), self.arithmetic.name())
    }
}
