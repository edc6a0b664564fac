//! What a model would run on, and how, before any of its weights are downloaded.

use crate::device::{Device, DeviceChoice};
use crate::engine::{Checked, layouts_of};
use crate::error::Result;
use crate::gpu::{AdapterReport, KernelChoice, SelfTestReport, adapters};
use crate::model::{MemoryPlan, ModelConfig};
use crate::plan::{
    Arithmetic, Columns, DeviceInfo, Executor, MAX_COLUMNS, MatrixPart, Params, Plan, ROW_UNIT, Step, Submission,
    UNIFORM_WORDS, Vector, round_trip_ms, time_ms,
};
use crate::store::ByteSource;
use crate::weights::format::Layout;
use crate::weights::gguf::{Gguf, read_header};
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes of a matrix that is timed, or a little less.
const MATRIX_BYTES: usize = 16 << 20;
/// Weights in a row of it.
const COLS: usize = 2048;
/// So many matrices are more than most caches of processors hold.
const CPU_MATRICES: usize = 2;
/// The same of GPUs in hardware.
const GPU_MATRICES: usize = 8;
/// Every word of them: halves of 1, or a small float. Memory that was never written would be read from one page.
const WORD: u32 = 0x3c00_3c00;
/// A measurement this long is not all noise; clocks of browsers tick in milliseconds.
const LONG_ENOUGH_MS: f64 = 25.0;
/// And no longer than this many products.
const MOST_STEPS: usize = 512;

/// What to look at.
pub struct ProbeOptions {
    /// The target; without one there is no plan of memory and no speed.
    pub model: Option<Box<dyn ByteSource>>,
    /// A smaller model of the same vocabulary.
    pub draft_model: Option<Box<dyn ByteSource>>,
    /// Where to run, as for a load.
    pub device: DeviceChoice,
    /// How quantised matrices are multiplied, as for a load.
    pub arithmetic: Option<Arithmetic>,
    /// Tokens of context, as for a load.
    pub context: Option<usize>,
}

/// What a load with the same options would find.
#[derive(Debug, Serialize)]
pub struct Probe {
    /// Every adapter there is.
    pub adapters: Vec<AdapterReport>,
    /// What would be used: it has passed the self-test.
    pub device: DeviceInfo,
    /// Why.
    pub reason: String,
    /// How quantised matrices would be multiplied.
    pub arithmetic: Arithmetic,
    /// What the device can hold.
    pub limits: DeviceLimits,
    /// What the self-test found, on a GPU.
    pub self_test: Option<SelfTestReport>,
    /// What was decided for its kernels, and why; on a GPU.
    pub kernels: Vec<KernelChoice>,
    /// What the bits depend on.
    pub fingerprint: String,
    /// The target.
    pub model: Option<ModelPlan>,
    /// The draft model.
    pub draft_model: Option<ModelPlan>,
    /// Why the models do not fit the device; none where they fit, or none was given.
    pub problem: Option<String>,
    /// How fast it would be.
    pub speed: Speed,
}

/// Sizes of a device.
#[derive(Debug, Serialize)]
pub struct DeviceLimits {
    /// Largest buffer that a kernel can be given.
    pub max_buffer_bytes: u64,
    /// Memory there is; GPUs do not say.
    pub memory_bytes: Option<u64>,
}

/// A model by its header.
#[derive(Debug, Serialize)]
pub struct ModelPlan {
    /// `general.name`, where the file has one.
    pub name: Option<String>,
    /// Architecture of the file.
    pub architecture: String,
    /// Number of layers.
    pub layers: usize,
    /// Length of the file, where the source knows it.
    pub size_bytes: Option<u64>,
    /// Memory it takes, by purpose.
    pub memory: MemoryPlan,
}

/// What a device's reading of weights lets one expect.
#[derive(Debug, Serialize)]
pub struct Speed {
    /// Weights that a mat-vec reads in a second, measured now.
    pub weight_bytes_per_second: f64,
    /// An empty submit and the wait for it.
    pub round_trip_ms: f64,
    /// Plain decoding reads every weight once for each token: what that alone allows. Attention comes on top, and
    /// speculation makes up for some of it.
    pub tokens_per_second: Option<f64>,
    /// The same in a word.
    pub class: Option<SpeedClass>,
}

/// Speed as a reader feels it: people read 5 to 8 tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeedClass {
    /// At least 20 tokens a second.
    Fast,
    /// At least 7: as fast as one reads.
    Readable,
    /// At least 2: one waits.
    Slow,
    /// Fewer.
    VerySlow,
}

impl SpeedClass {
    /// Of tokens in a second.
    pub fn of(tokens_per_second: f64) -> SpeedClass {
        match tokens_per_second {
            20.0.. => SpeedClass::Fast,
            7.0.. => SpeedClass::Readable,
            2.0.. => SpeedClass::Slow,
            _ => SpeedClass::VerySlow,
        }
    }
}

/// Does what a load does, up to the weights: reads the headers, checks them, chooses and tests the device.
///
/// # Errors
/// Those of a load, apart from `OutOfMemory`, which is reported as [`Probe::problem`].
pub async fn probe(options: ProbeOptions) -> Result<Probe> {
    let ProbeOptions { mut model, mut draft_model, device, arithmetic, context } = options;
    let target = header(&mut model).await?;
    let draft = header(&mut draft_model).await?;
    let checked = match &target {
        Some((gguf, _)) => Some(Checked::of(gguf, draft.as_ref().map(|(gguf, _)| gguf), context)?),
        None => None,
    };
    let layouts = checked.as_ref().map_or_else(|| Layout::ALL.to_vec(), |checked| layouts_of(&checked.shapes));
    let attention = checked.as_ref().map_or(&[][..], |checked| &checked.attention);
    // Which cut is fastest is for a load to find out.
    let device = Device::open(device, arithmetic, &layouts, attention, async |_| Ok(())).await?;
    let executor = device.executor.as_ref();
    let plans = checked.map_or_else(Vec::new, |checked| checked.plans);
    let problem = MemoryPlan::check(&plans, executor).err().map(|error| error.to_string());
    let layout = target.as_ref().map_or(Layout::ALL[0], |(gguf, _)| main_layout(gguf));
    let mut speed = measure(executor, layout).await?;
    if let Some(plan) = plans.first() {
        let token_ms = plan.weights_bytes as f64 / speed.weight_bytes_per_second * 1e3 + speed.round_trip_ms;
        speed.tokens_per_second = Some(1e3 / token_ms);
        speed.class = Some(SpeedClass::of(1e3 / token_ms));
    }
    let mut files = [target, draft].into_iter().zip(plans.into_iter().map(Some).chain([None, None]));
    let mut plan = || match files.next() {
        Some((Some((gguf, size_bytes)), Some(memory))) => model_plan(&gguf, size_bytes, memory).map(Some),
        _ => Ok(None),
    };
    let limits = executor.limits();
    Ok(Probe {
        adapters: adapters().await,
        device: executor.device(),
        reason: device.reason.clone(),
        arithmetic: executor.arithmetic(),
        limits: DeviceLimits { max_buffer_bytes: limits.max_binding_bytes, memory_bytes: limits.memory_bytes },
        kernels: device.gpu.as_ref().map_or_else(Vec::new, |gpu| gpu.kernel_choices()),
        fingerprint: executor.fingerprint(),
        model: plan()?,
        draft_model: plan()?,
        problem,
        speed,
        self_test: device.self_test,
    })
}

async fn header(source: &mut Option<Box<dyn ByteSource>>) -> Result<Option<(Gguf, Option<u64>)>> {
    let Some(source) = source else { return Ok(None) };
    let size_bytes = source.len_bytes();
    Ok(Some((read_header(source.as_mut()).await?, size_bytes)))
}

fn model_plan(gguf: &Gguf, size_bytes: Option<u64>, memory: MemoryPlan) -> Result<ModelPlan> {
    let config = ModelConfig::from_gguf(gguf)?;
    Ok(ModelPlan {
        name: gguf.metadata.opt_string("general.name")?.map(str::to_owned),
        architecture: config.architecture.name.to_owned(),
        layers: config.layers,
        size_bytes,
        memory,
    })
}

/// The layout that most bytes of the matrices have.
fn main_layout(gguf: &Gguf) -> Layout {
    let mut bytes = BTreeMap::<Layout, u64>::new();
    for tensor in gguf.tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
        *bytes.entry(tensor.format.layout()).or_default() += tensor.bytes;
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Layout::ALL[0], |(layout, _)| layout)
}

/// Times products with matrices, more and more of them in one submit until that takes long enough.
async fn measure(executor: &dyn Executor, layout: Layout) -> Result<Speed> {
    let mark = executor.mark();
    let speed = measure_with(executor, layout).await;
    executor.release(mark);
    speed
}

async fn measure_with(executor: &dyn Executor, layout: Layout) -> Result<Speed> {
    let row_bytes = 4 * (layout.quant_words_for(COLS) + layout.scale_words_for(COLS));
    let rows = MATRIX_BYTES / row_bytes / ROW_UNIT * ROW_UNIT;
    let info = executor.device();
    let matrices = if info.kind == "gpu" && !info.software { GPU_MATRICES } else { CPU_MATRICES };
    let x = executor.alloc("probe x", UNIFORM_WORDS.max(MAX_COLUMNS * COLS))?;
    let out = executor.alloc("probe out", MAX_COLUMNS * rows)?;
    let x = match executor.arithmetic() {
        Arithmetic::Q8 if layout.is_quantised() => Vector::Q8(x),
        _ => Vector::F32(x),
    };
    let mut steps = Vec::new();
    for _ in 0..matrices {
        let [quants, scales] = executor.alloc_matrix("probe", layout, rows, COLS)?;
        let weight = MatrixPart { layout, quants, scales, first_row: 0, rows: rows as u32, cols: COLS as u32 };
        let words = |per_row: usize| vec![WORD; rows * per_row];
        let (quant_words, scale_words) = (layout.quant_words_for(COLS), layout.scale_words_for(COLS));
        executor.write_matrix(&weight, 0, &words(quant_words), &words(scale_words))?;
        let (out_offset, out_stride, add) = (0, rows as u32, false);
        steps.push(Step::Matvec { weight, x, out, out_offset, out_stride, add, columns: Columns::All });
    }
    let round_trip_ms = round_trip_ms(executor).await?;
    let mut count = matrices;
    loop {
        let steps: Vec<Step> = steps.iter().cycle().take(count).cloned().collect();
        time(executor, &steps).await?; // warms up
        let ms = (time(executor, &steps).await? - round_trip_ms).max(0.1);
        if ms >= LONG_ENOUGH_MS || count >= MOST_STEPS {
            let weight_bytes_per_second = (count * rows * row_bytes) as f64 / ms * 1e3;
            return Ok(Speed { weight_bytes_per_second, round_trip_ms, tokens_per_second: None, class: None });
        }
        count *= 4;
    }
}

/// One submit of these steps and the wait for it.
async fn time(executor: &dyn Executor, steps: &[Step]) -> Result<f64> {
    let plan = executor.prepare(Plan { label: "probe".to_owned(), bucket: 1, steps: steps.to_vec() })?;
    let runs = vec![(plan, Params::chain(1, 0, 0))];
    time_ms(executor, Submission { runs, read: (0, 1), ..Submission::default() }).await
}
