//! `perplexity`: scores a text.

use super::models::{ModelArgs, load};
use super::output::{print_json, read_text, say};
use clap::Args;
use foredraft::error::Result;
use std::path::PathBuf;

/// Its options.
#[derive(Args)]
pub(super) struct PerplexityArgs {
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
    pub(super) json: bool,
}

/// Runs it.
pub(super) async fn perplexity(args: PerplexityArgs) -> Result<()> {
    let text = read_text(&args.file)?;
    let mut options = args.model.options()?;
    options.context = Some(args.context);
    let engine = load(options).await?;
    let result = foredraft::perplexity::perplexity(&engine, &text, args.context).await?;
    if args.json {
        return print_json(&result);
    }
    say!("perplexity {:.4} ({} of {} tokens scored)", result.perplexity, result.scored, result.tokens);
    Ok(())
}
