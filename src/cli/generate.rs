//! `generate`: continues a prompt or answers messages.

use super::models::{ModelArgs, SamplingArgs, load, open};
use super::output::{out, print_json, read_bytes, read_json, read_text, replace_file, say};
use clap::Args;
use foredraft::error::{Error, Result};
use foredraft::generation::{Prompt, Request};
use foredraft::speculate::SpeculationConfig;
use foredraft::summary::{Event, Summary};
use serde_json::json;
use std::path::PathBuf;

/// Its options.
#[derive(Args)]
pub(super) struct Generate {
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
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Text that ends the answer; may be given more than once.
    #[arg(long)]
    stop: Vec<String>,
    /// Tokens of context.
    #[arg(long)]
    context: Option<usize>,
    /// The answer keeps to the JSON schema in this file.
    #[arg(long)]
    json_schema: Option<PathBuf>,
    /// off, auto, or KEY=VALUE,… (drafter=ngram+model, num_speculative_tokens=4, …).
    #[arg(long, default_value = "auto")]
    speculation: String,
    /// A text that the drafter `corpus` copies from, at most 16 MiB.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// What the drafter `suffix` learned: earlier answers and the last 16 tokens before each. Read before, written after;
    /// made where it is missing.
    #[arg(long)]
    suffix_store: Option<PathBuf>,
    /// One JSON object on stdout instead of the text.
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs it.
pub(super) async fn generate(args: Generate) -> Result<()> {
    let prompt = prompt(&args)?;
    let mut speculation: SpeculationConfig = args.speculation.parse()?;
    if let Some(path) = &args.corpus {
        speculation = speculation.with_corpus(read_text(path)?)?;
    }
    let sampling = args.sampling.params()?;
    let mut options = args.model.options()?;
    options.draft_model = args.draft_model.as_deref().map(open).transpose()?;
    options.context = args.context;
    options.speculation = speculation;
    let engine = load(options).await?;
    if let Some(path) = args.suffix_store.as_deref().filter(|path| path.exists()) {
        // A damaged store is no reason not to answer: it is built anew.
        if let Err(error) = engine.load_suffix_store(&read_bytes(path)?) {
            eprintln!("{}: {error}; starting with an empty one", path.display());
        }
    }
    let mut request = Request::new(prompt);
    request.max_tokens = args.max_tokens;
    request.stop = args.stop;
    request.sampling = sampling;
    request.schema = args.json_schema.as_deref().map(read_text).transpose()?;
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
    let Some(path) = &args.suffix_store else { return Ok(()) };
    // Another run may have written to it meanwhile.
    let kept = path.exists().then(|| read_bytes(path)).transpose()?;
    replace_file(path, &engine.save_suffix_store_over(kept.as_deref()))
}

fn prompt(args: &Generate) -> Result<Prompt> {
    if let Some(path) = &args.messages {
        let messages = read_json(path, "messages", "a JSON array of {role, content}")?;
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
