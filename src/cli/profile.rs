//! `profile`: where the time of a pass goes on this device, and what verifying k columns costs.

use super::models::{ModelArgs, load};
use super::output::{out, print_json};
use clap::Args;
use foredraft::bench::profile;
use foredraft::error::Result;

/// Its options.
#[derive(Args)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Columns of the passes.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = clap::value_parser!(u8).range(1..=16))]
    columns: Vec<u8>,
    /// Tokens in the KV cache before the passes.
    #[arg(long, value_delimiter = ',', default_value = "128")]
    context: Vec<usize>,
    /// Timed runs of each kernel, of which the median counts.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Only how matrices are cut on this GPU, with the candidates that were timed at load.
    #[arg(long)]
    device_profile: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs it.
pub(super) async fn profile_command(args: ProfileArgs) -> Result<()> {
    let engine = load(args.model.options()?).await?;
    let columns: Vec<usize> = args.columns.iter().map(|&columns| columns.into()).collect();
    let contexts = if args.device_profile { &[][..] } else { &args.context };
    let found = profile(&engine, &columns, contexts, args.repeats).await?;
    if args.json { print_json(&found) } else { out(format_args!("{found}")) }
}
