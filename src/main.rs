//! The command line: parse, call the engine, print.

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use clap::{Args, Parser, Subcommand, ValueEnum};
    use foredraft::engine::{DeviceChoice, Engine, LoadOptions, Progress};
    use foredraft::error::{Error, Result};
    use foredraft::generation::{Prompt, Request};
    use foredraft::model::MemoryPlan;
    use foredraft::sampling::SamplingParams;
    use foredraft::speculate::SpeculationConfig;
    use foredraft::store::ByteSource;
    use foredraft::store::catalog::{DEFAULT_MODEL, ModelRef};
    use foredraft::store::native::{DownloadProgress, FileSource, resolve};
    use foredraft::summary::{Event, Summary};
    use foredraft::weights::gguf::read_header;
    use futures_lite::future::block_on;
    use indicatif::{ProgressBar, ProgressStyle};
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::io::{IsTerminal, Write};
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    /// A line to stdout.
    macro_rules! say {
        ($($text:tt)*) => {
            out(format_args!("{}\n", format_args!($($text)*)))?
        };
    }

    /// Runs language models on your own GPU, made fast by exact speculative decoding.
    #[derive(Parser)]
    #[command(name = "foredraft", version, about)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        /// Continue a prompt or answer messages.
        Generate(Box<Generate>),
        /// Score a text: llama.cpp's convention, second half of every window.
        Perplexity(PerplexityArgs),
        /// Say what there is to run on, and what would be used and why.
        Devices {
            /// One JSON object on stdout.
            #[arg(long)]
            json: bool,
        },
        /// Show a model file: metadata, tensors, memory plan.
        Inspect {
            /// NAME, PATH.gguf, hf:owner/repo/file.gguf or URL.
            model: String,
            /// Tokens of context for the memory plan.
            #[arg(long)]
            context: Option<usize>,
            /// One JSON object on stdout.
            #[arg(long)]
            json: bool,
        },
        /// Download a model into the cache and print its path.
        Fetch {
            /// NAME, hf:owner/repo/file.gguf or URL.
            model: String,
        },
    }

    #[derive(Args)]
    struct ModelArgs {
        /// NAME, PATH.gguf, hf:owner/repo/file.gguf or URL.
        #[arg(long, default_value = DEFAULT_MODEL)]
        model: String,
        /// Where to run: a hardware GPU, else the CPU; `gpu` takes a GPU in software too.
        #[arg(long, value_enum, default_value_t = Device::Auto)]
        device: Device,
    }

    #[derive(Clone, Copy, ValueEnum)]
    enum Device {
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

    #[derive(Args)]
    struct Generate {
        /// The user's message, or with --raw the text to continue.
        prompt: Option<String>,
        #[command(flatten)]
        model: ModelArgs,
        /// A smaller model of the same vocabulary that drafts.
        #[arg(long)]
        draft_model: Option<String>,
        /// OpenAI messages in a JSON file.
        #[arg(long, conflicts_with_all = ["prompt", "prompt_file"])]
        messages: Option<PathBuf>,
        /// The prompt is in this file.
        #[arg(long, conflicts_with = "prompt")]
        prompt_file: Option<PathBuf>,
        /// Continue the text as it is, without the chat template.
        #[arg(long, conflicts_with = "messages")]
        raw: bool,
        /// Tokens to make at most.
        #[arg(long)]
        max_tokens: Option<usize>,
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
        /// Text that ends the answer; may be given more than once.
        #[arg(long)]
        stop: Vec<String>,
        /// Tokens of context.
        #[arg(long)]
        context: Option<usize>,
        /// off, auto, or KEY=VALUE,… (drafter=ngram+model, num_speculative_tokens=4, …).
        #[arg(long, default_value = "auto")]
        speculation: String,
        /// One JSON object on stdout instead of the text.
        #[arg(long)]
        json: bool,
    }

    #[derive(Args)]
    struct PerplexityArgs {
        #[command(flatten)]
        model: ModelArgs,
        /// The text.
        #[arg(long)]
        file: PathBuf,
        /// Tokens of a window.
        #[arg(long, default_value_t = 256)]
        context: usize,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    }

    pub(super) fn main() -> ExitCode {
        let cli = Cli::parse();
        let json = match &cli.command {
            Command::Generate(args) => args.json,
            Command::Perplexity(args) => args.json,
            Command::Devices { json } | Command::Inspect { json, .. } => *json,
            Command::Fetch { .. } => false,
        };
        let done = block_on(async {
            match cli.command {
                Command::Generate(args) => generate(*args).await,
                Command::Perplexity(args) => perplexity(args).await,
                Command::Devices { json } => devices(json).await,
                Command::Inspect { model, context, json } => inspect(&model, context, json).await,
                Command::Fetch { model } => fetch(&model),
            }
        });
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                if json {
                    // Nothing is left to be done where even this cannot be written.
                    let _ = out(format_args!(
                        "{}\n",
                        json!({ "error": { "code": error.code(), "message": error.to_string() } })
                    ));
                }
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    async fn generate(args: Generate) -> Result<()> {
        let prompt = prompt(&args)?;
        let speculation: SpeculationConfig = args.speculation.parse()?;
        let sampling = SamplingParams {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repeat_penalty: args.repeat_penalty,
            seed: args.seed,
            ..SamplingParams::default()
        };
        // Before anything is downloaded; there is no bias, so the size of the vocabulary does not matter.
        sampling.validate(0)?;
        let mut options = LoadOptions::new(open(&args.model.model)?);
        options.draft_model = args.draft_model.as_deref().map(open).transpose()?;
        options.device = args.model.device.into();
        options.context = args.context;
        options.speculation = speculation;
        let engine = load(options).await?;
        let mut request = Request::new(prompt);
        request.max_tokens = args.max_tokens;
        request.stop = args.stop;
        request.sampling = sampling;
        let mut generation = engine.generate(request);
        while let Some(event) = generation.next().await {
            match event? {
                Event::Chunk(chunk) if !args.json => {
                    out(format_args!("{}", chunk.text))?;
                }
                Event::Chunk(_) => {}
                Event::Done(summary) if args.json => print_json(&summary)?,
                Event::Done(summary) => {
                    say!("");
                    eprintln!("{}", one_line(&summary, engine.device_reason()));
                }
            }
        }
        Ok(())
    }

    fn prompt(args: &Generate) -> Result<Prompt> {
        if let Some(path) = &args.messages {
            let messages = serde_json::from_str(&read_text(path)?).map_err(|error| Error::BadOption {
                name: "messages".to_owned(),
                found: format!("{}: {error}", path.display()),
                expected: "a JSON array of {role, content}".to_owned(),
            })?;
            return Ok(Prompt::Messages(messages));
        }
        let text = match (&args.prompt, &args.prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read_text(path)?,
            (None, None) => String::new(),
        };
        if text.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        Ok(if args.raw { Prompt::Text(text) } else { Prompt::Messages(json!([{ "role": "user", "content": text }])) })
    }

    fn one_line(summary: &Summary, device_reason: &str) -> String {
        let speculation = &summary.speculation;
        format!(
            "{} tokens, {:.1} tokens/s, first after {:.0} ms | {}: {} ({}) | speculation {}; {} rounds, {} of {} drafts \
             accepted ({:.0} %), {:.2} tokens a round",
            summary.usage.completion_tokens,
            summary.timings.tokens_per_second,
            summary.timings.time_to_first_token_ms,
            summary.device.kind,
            summary.device.name,
            device_reason,
            speculation.reason,
            speculation.rounds,
            speculation.accepted,
            speculation.drafted,
            100.0 * speculation.acceptance_rate,
            speculation.mean_acceptance_length,
        )
    }

    async fn perplexity(args: PerplexityArgs) -> Result<()> {
        let text = read_text(&args.file)?;
        let mut options = LoadOptions::new(open(&args.model.model)?);
        options.device = args.model.device.into();
        options.context = Some(args.context);
        let engine = load(options).await?;
        let result = foredraft::perplexity::perplexity(&engine, &text, args.context).await?;
        if args.json {
            return print_json(&result);
        }
        say!("perplexity {:.4} ({} of {} tokens scored)", result.perplexity, result.scored, result.tokens);
        Ok(())
    }

    async fn devices(json: bool) -> Result<()> {
        let report = foredraft::device::devices().await?;
        if json {
            return print_json(&report);
        }
        for adapter in &report.adapters {
            let software = if adapter.software { ", in software" } else { "" };
            say!("{} ({}, {}{software}; {})", adapter.name, adapter.backend, adapter.kind, adapter.driver);
            say!("  features: {}", adapter.features.join(", "));
            say!(
                "  limits: binding {} MiB, buffer {} MiB, {} storage buffers, {} KiB workgroup memory, {} threads",
                adapter.max_storage_buffer_binding_bytes >> 20,
                adapter.max_buffer_bytes >> 20,
                adapter.max_storage_buffers_per_stage,
                adapter.max_workgroup_bytes >> 10,
                adapter.max_workgroup_threads
            );
        }
        say!("--device auto takes {}: {} ({})", report.auto.kind, report.auto.name, report.reason);
        match (&report.gpu, &report.gpu_error) {
            (Some(gpu), _) => {
                say!("--device gpu takes {}; self-test passed in {:.0} ms", gpu.device.name, gpu.self_test.duration_ms);
                say!("  same bits in every width: {}", gpu.self_test.same_bits.join(", "));
                for kernel in &gpu.kernels {
                    say!("  {}: {} ({})", kernel.kernel, kernel.choice, kernel.reason);
                }
                say!("  fingerprint: {}", gpu.fingerprint);
            }
            (None, error) => say!("--device gpu: {}", error.as_deref().unwrap_or("none")),
        }
        Ok(())
    }

    async fn inspect(model: &str, context: Option<usize>, json: bool) -> Result<()> {
        let mut source = open(model)?;
        let gguf = read_header(source.as_mut()).await?;
        let memory = MemoryPlan::of(&gguf, context.unwrap_or(foredraft::engine::DEFAULT_CONTEXT))?;
        if json {
            let metadata: BTreeMap<_, _> =
                gguf.metadata.values.iter().map(|(key, value)| (key, value.brief())).collect();
            let tensors: Vec<_> = gguf
                .tensors
                .iter()
                .map(|t| json!({ "name": t.name, "shape": t.shape, "format": t.format.name(), "bytes": t.bytes }))
                .collect();
            return print_json(
                &json!({ "file": gguf.what, "metadata": metadata, "tensors": tensors, "memory": memory }),
            );
        }
        say!("{}", gguf.what);
        for (key, value) in &gguf.metadata.values {
            say!("  {key} = {}", value.brief());
        }
        for tensor in &gguf.tensors {
            say!("  {:<40} {:<8} {:?}", tensor.name, tensor.format.name(), tensor.shape);
        }
        say!("memory: {memory}");
        Ok(())
    }

    fn fetch(model: &str) -> Result<()> {
        say!("{}", path_of(model)?.display());
        Ok(())
    }

    /// Shows a bar where someone is watching, and nothing where not.
    fn bar() -> ProgressBar {
        let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn path_of(model: &str) -> Result<PathBuf> {
        let bar = bar();
        let path = resolve(&ModelRef::parse(model)?, &mut |progress: DownloadProgress| {
            bar.set_message(format!("{} from {}", progress.what, progress.source));
            bar.set_length(progress.total_bytes.unwrap_or(0));
            bar.set_position(progress.received_bytes);
        });
        bar.finish_and_clear();
        path
    }

    fn open(model: &str) -> Result<Box<dyn ByteSource>> {
        Ok(Box::new(FileSource::open(&path_of(model)?)?))
    }

    async fn load(options: LoadOptions) -> Result<Engine> {
        let bar = bar();
        let engine = Engine::load(options, &mut |progress: &Progress| {
            let file = Path::new(&progress.file).file_name().unwrap_or_default().to_string_lossy();
            bar.set_message(format!("{} {file}", progress.stage));
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.loaded_bytes);
        })
        .await;
        bar.finish_and_clear();
        engine
    }

    fn read_text(path: &Path) -> Result<String> {
        std::fs::read_to_string(path).map_err(|error| io(&path.display().to_string(), &error))
    }

    fn io(what: &str, error: &std::io::Error) -> Error {
        Error::Io { what: what.to_owned(), reason: error.to_string() }
    }

    /// Writes to stdout. Where nobody reads any more (`| head`) the work is over, and that is no error.
    fn out(text: std::fmt::Arguments<'_>) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            result => result.map_err(|error| io("stdout", &error)),
        }
    }

    fn print_json(value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::Io { what: "JSON".to_owned(), reason: error.to_string() })?;
        say!("{text}");
        Ok(())
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    native::main()
}

#[cfg(target_arch = "wasm32")]
fn main() {}
