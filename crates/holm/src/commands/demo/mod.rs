//! `holm demo`: the whole story on this machine. Hub, edge and modules are processes of their own that share nothing but
//! sockets; everything is in a temporary directory and on loopback; nothing is installed and nothing stays.
//!
//! ```text
//!   hub  <--- link (counted, can be cut) ---  edge  <--- sensor, watcher, summary
//!    |                                          |
//!    '-- what arrived --> ledger <-- what was --'
//! ```

mod display;
mod ledger;
mod link;
mod processes;
mod story;

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use crate::cli::Demo;
use crate::output;
use display::Display;

/// Runs the demo.
pub(crate) async fn run(options: Demo) -> anyhow::Result<ExitCode> {
    let directory = tempfile::Builder::new()
        .prefix("holm-demo-")
        .tempdir()
        .context("no temporary directory")?;
    let display = Display::new(options.json);
    display.say("Holm: a pump far away, on a bad link. Real readings of a water main, replayed.");
    let outcome = story::tell(&options, directory.path(), &display).await;
    display.finish();
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            let kept = directory.keep();
            return Err(error.context(format!("the demo stopped early; its logs are in `{}`", kept.display())));
        }
    };

    summary.show(&display);
    if options.json {
        output::line(&json!(summary).to_string());
    }
    if summary.balance.lost > 0 {
        let kept = directory.keep();
        output::note(&format!(
            "holm: {} messages were lost; the logs are in `{}`",
            summary.balance.lost,
            kept.display()
        ));
        return Ok(ExitCode::from(output::EXIT_LOST));
    }
    Ok(ExitCode::SUCCESS)
}
