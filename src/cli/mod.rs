//! The native edge: one file a command.

mod bench;
mod generate;
mod inspect;
mod methods;
mod models;
mod output;
mod perplexity;
mod profile;

use clap::{Parser, Subcommand};
use futures_lite::future::block_on;
use output::out;
use serde_json::json;
use std::process::ExitCode;

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
    Generate(Box<generate::Generate>),
    /// Score a text: llama.cpp's convention, second half of every window.
    Perplexity(perplexity::PerplexityArgs),
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
    /// List the methods of speculation: drafters, acceptance rules, draft lengths, trees, selectors.
    Methods {
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Measure speculation against plain decoding on a suite of prompts.
    Bench(Box<bench::Bench>),
    /// Time every kernel of a model on this device, and passes of several widths.
    Profile(profile::ProfileArgs),
}

/// Runs the command that was asked for.
pub(super) fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = match &cli.command {
        Command::Generate(args) => args.json,
        Command::Perplexity(args) => args.json,
        Command::Bench(args) => args.json,
        Command::Profile(args) => args.json,
        Command::Devices { json } | Command::Inspect { json, .. } | Command::Methods { json } => *json,
        Command::Fetch { .. } => false,
    };
    let done = block_on(async {
        match cli.command {
            Command::Generate(args) => generate::generate(*args).await,
            Command::Perplexity(args) => perplexity::perplexity(args).await,
            Command::Devices { json } => inspect::devices(json).await,
            Command::Inspect { model, context, json } => inspect::inspect(&model, context, json).await,
            Command::Fetch { model } => inspect::fetch(&model),
            Command::Methods { json } => methods::methods(json),
            Command::Profile(args) => profile::profile_command(args).await,
            // What it measured was printed, whatever is wrong with it.
            Command::Bench(args) => return bench::bench(*args).await,
        }
        .map(|()| ExitCode::SUCCESS)
    });
    done.unwrap_or_else(|error| {
        if json {
            // Nothing is left to be done where even this cannot be written.
            let error = json!({ "error": { "code": error.code(), "message": error.to_string() } });
            let _ = out(format_args!("{error}\n"));
        }
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
