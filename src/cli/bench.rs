//! `bench`: speculation against plain decoding, on a suite of prompts or on recorded texts.

use super::models::{ModelArgs, SamplingArgs, load, open};
use super::output::{out, print_json, read_json, replace_file, write_json};
use clap::Args;
use foredraft::bench::{Arm, Costs, Options, Progress, Report, Suite, Trace, replay, run};
use foredraft::error::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Its options.
#[derive(Args)]
pub(super) struct Bench {
    /// A JSON file {name, prompts: [{id, category, messages, max_tokens}]}.
    #[arg(long, required_unless_present = "replay")]
    suite: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// A smaller model of the same vocabulary that drafts.
    #[arg(long)]
    draft_model: Option<String>,
    /// What to measure: off, auto, or KEY=VALUE,…; may be given more than once.
    #[arg(long, default_value = "auto")]
    speculation: Vec<String>,
    /// Prompts of each category, the first ones; all where not given.
    #[arg(long)]
    per_category: Option<usize>,
    /// Tokens of an answer at most, where that is fewer than the suite says.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Timed pairs of a plain and a speculative run for each prompt and --speculation; 0 measures acceptance alone.
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Tokens of context.
    #[arg(long)]
    context: Option<usize>,
    /// Write what plain decoding said to this file: [{id, category, prompt: [token, …], answer: [token, …]}].
    #[arg(long, conflicts_with = "replay")]
    record: Option<PathBuf>,
    /// Replay such a file without a model. Acceptance is that of the engine; times follow from assumed costs.
    #[arg(long, conflicts_with_all = ["suite", "draft_model"])]
    replay: Option<PathBuf>,
    /// What rounds cost in the replay: a JSON file {verify_ms: {"1": …, "8": …}, draft_ms, sync_ms}, a bench's own --json, or a
    /// published curve: h200-8b, m5-max-70b, mi50-27b. Assumed where not given.
    #[arg(long, requires = "replay")]
    cost: Option<String>,
    /// Write the report to this file too, as a page with charts that needs nothing else.
    #[arg(long)]
    html: Option<PathBuf>,
    /// One JSON object on stdout instead of the table.
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs it. Fails where a text is not the one of plain decoding although its rule promises that.
pub(super) async fn bench(args: Bench) -> Result<ExitCode> {
    let options = Options {
        arms: args.speculation.iter().map(|text| text.parse()).collect::<Result<Vec<Arm>>>()?,
        per_category: args.per_category,
        max_tokens: args.max_tokens,
        repeats: args.repeats,
        sampling: args.sampling.params()?,
        ..Options::default()
    };
    let report = match (&args.replay, &args.suite) {
        (Some(path), _) => {
            let traces: Vec<Trace> = read_json(path, "replay", "an array of {id, category, prompt, answer}")?;
            replay(&traces, &options, &costs(args.cost.as_deref())?)?
        }
        (None, Some(path)) => {
            let suite: Suite = read_json(path, "suite", "{prompts: [{id, category, messages, max_tokens}]}")?;
            for arm in &options.arms {
                arm.speculation.drafters(args.draft_model.is_some())?;
            }
            measure(&args, &suite, &options).await?
        }
        (None, None) => unreachable!("clap asks for one of them"),
    };
    if let Some(path) = &args.html {
        replace_file(path, report.to_html()?.as_bytes())?;
    }
    if args.json {
        print_json(&report)?;
    } else {
        out(format_args!("{report}"))?;
    }
    Ok(match report.check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Those of a preset or a file.
fn costs(named: Option<&str>) -> Result<Costs> {
    let Some(named) = named else { return Ok(Costs::default()) };
    Costs::preset(named).unwrap_or_else(|| {
        let presets = Costs::presets().collect::<Vec<_>>().join(", ");
        let expected = format!("{{verify_ms: {{\"1\": …}}}}, or one of {presets}");
        let costs: Costs = read_json(Path::new(named), "cost", &expected)?;
        let name = if costs.name.is_empty() { format!("costs of {named}") } else { costs.name };
        Ok(Costs { name, ..costs })
    })
}

async fn measure(args: &Bench, suite: &Suite, options: &Options) -> Result<Report> {
    let mut load_options = args.model.options()?;
    load_options.draft_model = args.draft_model.as_deref().map(open).transpose()?;
    load_options.context = args.context;
    let engine = load(load_options).await?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg} ETA {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let found = run(&engine, suite, options, &mut |progress: &Progress<'_>| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(format!("{} {}", progress.id, progress.config));
    })
    .await;
    bar.finish_and_clear();
    let (report, traces) = found?;
    if let Some(path) = &args.record {
        write_json(path, &traces)?;
    }
    Ok(report)
}
