//! Which model, where to run it, how to sample: options that commands share, and loading with a bar.

use super::output::{read_json, write_json};
use clap::{Args, ValueEnum};
use foredraft::engine::{DeviceChoice, Engine, LoadOptions, Progress};
use foredraft::error::Result;
use foredraft::plan::Arithmetic;
use foredraft::sampling::SamplingParams;
use foredraft::store::ByteSource;
use foredraft::store::catalog::{DEFAULT_MODEL, ModelRef};
use foredraft::store::native::{Cache, DownloadProgress, FileSource, resolve};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The target, and where it runs.
#[derive(Args)]
pub(super) struct ModelArgs {
    /// NAME, PATH.gguf, hf:owner/repo/file.gguf or URL.
    #[arg(long, default_value = DEFAULT_MODEL)]
    pub(super) model: String,
    /// Where to run: a hardware GPU, else the CPU; `gpu` takes a GPU in software too.
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(super) device: Device,
    /// How quantised matrices are multiplied: with vectors in f32, or faster with vectors rounded to signed bytes; `auto` is
    /// q8 on CPUs and GPUs in software, f32 on GPUs in hardware.
    #[arg(long, value_enum, default_value_t = ArithmeticArg::Auto)]
    pub(super) arithmetic: ArithmeticArg,
}

/// How to multiply.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ArithmeticArg {
    Auto,
    F32,
    Q8,
}

impl ModelArgs {
    /// Options to load the model with.
    pub(super) fn options(&self) -> Result<LoadOptions> {
        let mut options = LoadOptions::new(open(&self.model)?);
        options.device = self.device.into();
        options.arithmetic = match self.arithmetic {
            ArithmeticArg::Auto => None,
            ArithmeticArg::F32 => Some(Arithmetic::F32),
            ArithmeticArg::Q8 => Some(Arithmetic::Q8),
        };
        Ok(options)
    }
}

/// Where to run.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Device {
    Auto,
    Gpu,
    Cpu,
}

impl From<Device> for DeviceChoice {
    fn from(device: Device) -> DeviceChoice {
        match device {
            Device::Auto => DeviceChoice::Auto,
            Device::Gpu => DeviceChoice::Gpu,
            Device::Cpu => DeviceChoice::Cpu,
        }
    }
}

/// How to sample.
#[derive(Args)]
pub(super) struct SamplingArgs {
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Keep the smallest set of this probability; 1 keeps all.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Makes recent tokens less likely; 1 is off.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Same seed, same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// The parameters, checked before anything is downloaded; there is no bias, so the size of the vocabulary does not
    /// matter.
    pub(super) fn params(&self) -> Result<SamplingParams> {
        let sampling = SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed,
            ..SamplingParams::default()
        };
        sampling.validate(0)?;
        Ok(sampling)
    }
}

/// Shows a bar where someone is watching, and nothing where not.
fn bar() -> ProgressBar {
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Where a model is on disk; downloads it where it is not.
pub(super) fn path_of(model: &str) -> Result<PathBuf> {
    let bar = bar();
    let path = resolve(&ModelRef::parse(model)?, &mut |progress: DownloadProgress| {
        bar.set_message(format!("{} from {}", progress.what, progress.source));
        bar.set_length(progress.total_bytes.unwrap_or(0));
        bar.set_position(progress.received_bytes);
    });
    bar.finish_and_clear();
    path
}

/// A model by name, path or address.
pub(super) fn open(model: &str) -> Result<Box<dyn ByteSource>> {
    Ok(Box::new(FileSource::open(&path_of(model)?)?))
}

/// Loads an engine. What an earlier one has measured of the GPU lies in the cache.
pub(super) async fn load(mut options: LoadOptions) -> Result<Engine> {
    let cuts = Cache::of_user().ok().map(|cache| cache.cuts_file());
    // A file that is missing or damaged is no reason not to load: it is measured again.
    options.known_cuts = cuts.as_deref().and_then(|path| read_json(path, "cuts", "what a load has written").ok());
    let known = options.known_cuts.clone();
    let bar = bar();
    let engine = Engine::load(options, &mut |progress: &Progress| {
        let file = Path::new(&progress.file).file_name().unwrap_or_default().to_string_lossy();
        bar.set_message(format!("{} {file}", progress.stage));
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.loaded_bytes);
    })
    .await;
    bar.finish_and_clear();
    let engine = engine?;
    if let (Some(path), Some(cuts)) = (cuts, engine.known_cuts().filter(|cuts| known.as_ref() != Some(cuts))) {
        // Nor is a cache that cannot be written. A model that was given as a path has not made its folder.
        let _ = path.parent().map(std::fs::create_dir_all);
        let _ = write_json(&path, &cuts);
    }
    Ok(engine)
}
