//! The GPU executor: plans by wgpu and WGSL, natively and in a browser.
//!
//! A prepared plan holds its pipelines, bind groups and fixed values; a submission writes tokens and params, encodes one
//! compute pass, copies a few words of `TOKENS` into a staging buffer and asks for its map: one submit, one map.

mod adapter;
mod buffers;
mod compile;
mod fault;
pub mod kernels;
mod pipelines;
mod poll;
mod preprocess;
mod run;
mod self_test;
mod steps;
mod tune;

pub use adapter::{AdapterChoice, AdapterReport, adapters};
pub use self_test::SelfTestReport;
pub use tune::{CutTime, KnownCuts, ShapeClass, TuneReport};

use crate::error::Result;
use crate::plan::{
    Arithmetic, BufferId, Counters, DeviceInfo, Executor, Limits, MatrixPart, Plan, PlanId, Submission, Ticket,
    alloc_matrix_in_buffers, write_matrix_in_buffers,
};
use crate::store::LocalFuture;
use crate::weights::format::Layout;
use kernels::Geometry;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

/// A round trip that takes longer than this is a timer, not work.
const SLOW_MAP_MS: f64 = 30.0;

/// Runs plans on a GPU.
pub struct GpuExecutor {
    device: wgpu::Device,
    queue: wgpu::Queue,
    report: AdapterReport,
    faults: fault::Faults,
    /// The default, and for kernels other than `matvec`.
    geometry: Geometry,
    /// Cuts of `matvec` by class of shapes, where they were measured.
    cuts: RefCell<BTreeMap<ShapeClass, Geometry>>,
    /// Known ones of classes that this load has not: they are kept for others.
    other_cuts: RefCell<BTreeMap<ShapeClass, Geometry>>,
    tuned: RefCell<Vec<TuneReport>>,
    arithmetic: Arithmetic,
    /// Kernels, as a [`SelfTestReport`] names them, whose narrow texts differ from the widest, which then serves every column
    /// count.
    widest_only: RefCell<BTreeMap<String, String>>,
    buffers: RefCell<Vec<buffers::Slot>>,
    pipelines: RefCell<pipelines::Pipelines>,
    plans: RefCell<Vec<run::Prepared>>,
    params: wgpu::Buffer,
    staging: RefCell<Vec<wgpu::Buffer>>,
    in_flight: RefCell<HashMap<u64, run::InFlight>>,
    next_ticket: Cell<u64>,
    counters: Cell<Counters>,
    unsettled_bytes: Cell<u64>,
    round_trip_ms: Cell<f64>,
    keep_alive_submits: Cell<u64>,
}

/// What was chosen for a kernel on this device, and why.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KernelChoice {
    /// Kernel name.
    pub kernel: String,
    /// What runs.
    pub choice: String,
    /// Why.
    pub reason: String,
}

impl GpuExecutor {
    /// Opens a device. Fails with `NoAdapter`, naming what was found, where there is none of the kind.
    pub async fn request(choice: AdapterChoice) -> Result<GpuExecutor> {
        GpuExecutor::request_with(choice, None, None).await
    }

    /// The same with arithmetic and geometry given instead of decided: so that tests can run what other devices would.
    pub async fn request_with(
        choice: AdapterChoice,
        arithmetic: Option<Arithmetic>,
        geometry: Option<Geometry>,
    ) -> Result<GpuExecutor> {
        let adapter = adapter::choose(choice).await?;
        let report = adapter::report(&adapter);
        let (device, queue) = adapter::open(&adapter).await?;
        let faults = fault::Faults::watch(&device, &report.name);
        let software = report.software;
        let decided = if software { Geometry::SOFTWARE } else { Geometry::HARDWARE };
        let geometry = geometry.unwrap_or(decided);
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: run::SLOT_BYTES * run::RUNS_PER_SUBMIT as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let executor = GpuExecutor {
            device,
            queue,
            report,
            faults,
            geometry,
            cuts: RefCell::default(),
            other_cuts: RefCell::default(),
            tuned: RefCell::default(),
            arithmetic: arithmetic.unwrap_or(if software { Arithmetic::Q8 } else { Arithmetic::F32 }),
            widest_only: RefCell::default(),
            buffers: RefCell::default(),
            pipelines: RefCell::default(),
            plans: RefCell::default(),
            params,
            staging: RefCell::default(),
            in_flight: RefCell::default(),
            next_ticket: Cell::new(0),
            counters: Cell::default(),
            unsettled_bytes: Cell::new(0),
            round_trip_ms: Cell::new(0.0),
            keep_alive_submits: Cell::new(0),
        };
        executor.alloc("tokens", crate::plan::TOKENS_WORDS)?;
        executor.alloc("bias", 2 * crate::sampling::MAX_LOGIT_BIAS)?;
        executor.measure_round_trip().await?;
        Ok(executor)
    }

    /// The better of two empty round trips; the first of all may pay for set-up.
    async fn measure_round_trip(&self) -> Result<()> {
        let mut best = f64::MAX;
        for _ in 0..2 {
            let start = crate::runtime::now_ms();
            self.read(BufferId::TOKENS, 0, 1).await?;
            best = best.min(crate::runtime::now_ms() - start);
        }
        self.round_trip_ms.set(best);
        let allocated_bytes = self.counters.get().allocated_bytes;
        self.counters.set(Counters { allocated_bytes, ..Counters::default() });
        Ok(())
    }

    /// Adapter, driver, build and arithmetic: what everything that is measured or computed here holds for.
    fn identity(&self) -> String {
        let (report, arithmetic) = (&self.report, self.arithmetic.name());
        let version = env!("CARGO_PKG_VERSION");
        format!("{}/{}/{}/foredraft {version}/{arithmetic}", report.name, report.backend, report.driver)
    }

    /// Bytes of device memory that the driver's allocator has given out, in use and reserved, where wgpu tells: on Vulkan.
    pub fn allocator_bytes(&self) -> Option<[u64; 2]> {
        let report = self.device.generate_allocator_report()?;
        Some([report.total_allocated_bytes, report.total_reserved_bytes])
    }

    /// Whether a matrix was put into textures.
    fn lies_in_texture(&self, part: &MatrixPart) -> bool {
        self.buffers.borrow().get(part.quants.0 as usize).is_some_and(|slot| slot.texture().is_some())
    }

    fn waiter(&self) -> poll::Waiter<'_> {
        poll::Waiter {
            device: &self.device,
            queue: &self.queue,
            keep_alive: self.round_trip_ms.get() > SLOW_MAP_MS,
            software: self.report.software,
            keep_alive_submits: &self.keep_alive_submits,
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// The adapter that was chosen.
    pub fn adapter(&self) -> &AdapterReport {
        &self.report
    }

    /// Milliseconds of one empty submit and map, measured when the device was opened.
    pub fn round_trip_ms(&self) -> f64 {
        self.round_trip_ms.get()
    }

    /// Empty submits made only to get maps resolved; not in [`Executor::counters`].
    pub fn keep_alive_submits(&self) -> u64 {
        self.keep_alive_submits.get()
    }

    /// What was decided for this device.
    pub fn kernel_choices(&self) -> Vec<KernelChoice> {
        let Geometry { workgroup, lanes, rows, sample_threads, dot4, texture, uniform, attention, .. } = self.geometry;
        let adapter = if self.report.software { "software adapter" } else { "hardware adapter" };
        let mut choices = vec![
            KernelChoice {
                kernel: "matvec".to_owned(),
                choice: format!(
                    "{}, {rows} rows a thread, {lanes} threads a row, workgroups of {workgroup}, matrices in {}, vectors in {}",
                    match (self.arithmetic, dot4) {
                        (Arithmetic::F32, _) => "f32",
                        (Arithmetic::Q8, 0) => "q8 by floats",
                        (Arithmetic::Q8, _) => "q8 by dot4I8Packed",
                    },
                    if texture { "textures" } else { "buffers" },
                    if uniform { "uniforms" } else { "buffers" },
                ),
                reason: format!(
                    "{adapter}: {}",
                    if lanes == 1 {
                        "threads are emulated, barriers cost"
                    } else {
                        "neighbouring threads load neighbours"
                    }
                ),
            },
            KernelChoice {
                kernel: "attention".to_owned(),
                choice: format!("a {} a chunk", if attention.alone { "thread" } else { "workgroup" }),
                reason: adapter.to_owned(),
            },
            KernelChoice {
                kernel: "sample".to_owned(),
                choice: format!("{sample_threads} threads a row of logits"),
                reason: adapter.to_owned(),
            },
            KernelChoice {
                kernel: "submit".to_owned(),
                choice: if self.waiter().keep_alive { "empty submits while a map is pending" } else { "plain maps" }
                    .to_owned(),
                reason: format!("an empty round trip takes {:.1} ms", self.round_trip_ms.get()),
            },
        ];
        for TuneReport { layout, rows, cols, chosen, candidates } in self.tuned() {
            choices.push(KernelChoice {
                kernel: format!("matvec {rows} x {cols} {layout}"),
                choice: chosen,
                reason: format!("the fastest of {} that were timed", candidates.len()),
            });
        }
        for (kernel, difference) in self.widest_only.borrow().iter() {
            choices.push(KernelChoice {
                kernel: kernel.clone(),
                choice: "the widest text for every number of columns".to_owned(),
                reason: format!("self-test: {difference}"),
            });
        }
        choices
    }

    /// Destroys the device, as a driver crash would: everything after fails with `DeviceLost`. For tests of that.
    pub fn lose_device(&self) {
        self.device.destroy();
        self.waiter().pump();
    }
}

impl Executor for GpuExecutor {
    fn device(&self) -> DeviceInfo {
        DeviceInfo { kind: "gpu", name: self.report.name.clone(), software: self.report.software }
    }

    fn limits(&self) -> Limits {
        let limits = self.device.limits();
        Limits {
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            memory_bytes: if self.report.software { crate::runtime::memory_bytes() } else { None },
        }
    }

    fn alloc(&self, label: &str, words: usize) -> Result<BufferId> {
        self.alloc_buffer(label, words)
    }

    fn write(&self, buffer: BufferId, offset: usize, words: &[u32]) -> Result<()> {
        self.write_buffer(buffer, offset, words)
    }

    fn alloc_matrix(&self, label: &str, layout: Layout, rows: usize, cols: usize) -> Result<[BufferId; 2]> {
        if self.cut_of(layout, rows, cols).lies_in_texture(layout)
            && let Some(textures) = self.alloc_textures(label, layout, rows, cols)?
        {
            return Ok(textures);
        }
        alloc_matrix_in_buffers(self, label, layout, rows, cols)
    }

    fn write_matrix(&self, part: &MatrixPart, row: usize, quants: &[u32], scales: &[u32]) -> Result<()> {
        if self.lies_in_texture(part) {
            return self.write_textures(part, row, quants, scales);
        }
        write_matrix_in_buffers(self, part, row, quants, scales)
    }

    fn read(&self, buffer: BufferId, offset: usize, words: usize) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(self.read_buffer(buffer, offset, words))
    }

    fn release(&self, mark: (u32, u32)) {
        self.plans.borrow_mut().truncate(mark.1 as usize);
        self.release_buffers(mark.0 as usize);
    }

    fn mark(&self) -> (u32, u32) {
        (self.buffers.borrow().len() as u32, self.plans.borrow().len() as u32)
    }

    fn prepare(&self, plan: Plan) -> Result<PlanId> {
        self.prepare_plan(&plan)
    }

    fn submit(&self, submission: Submission) -> Result<Ticket> {
        self.submit_runs(&submission)
    }

    fn finish(&self, ticket: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(self.finish_ticket(ticket))
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn counters(&self) -> Counters {
        self.counters.get()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    fn fingerprint(&self) -> String {
        let (lanes, sample_threads) = (self.lanes(), self.geometry.sample_threads);
        let widest: Vec<String> = self.widest_only.borrow().keys().cloned().collect();
        format!(
            "gpu/{}/matvec {lanes}/sample {sample_threads}{}{}",
            self.identity(),
            if widest.is_empty() { "" } else { " widest for " },
            widest.join("+"),
        )
    }
}

impl Drop for GpuExecutor {
    /// A browser would keep the device, and all that lies on it, until it collects garbage.
    fn drop(&mut self) {
        self.device.destroy();
    }
}
