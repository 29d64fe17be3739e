//! The story that is told on one machine.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How long the story lasts, in seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=86400))]
    pub(crate) seconds: u64,
    /// Leave the link alone.
    #[arg(long)]
    pub(crate) no_cut: bool,
    /// End with one JSON object on the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}
