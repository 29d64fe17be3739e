//! Logs: standard error, a line an event. `HOLM_LOG` says how much (`info`, `debug`, `holm_edge=debug,info`, …).

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Who else gets each line.
static TAP: OnceLock<Tap> = OnceLock::new();

/// Takes a line of the log.
type Tap = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Gives each line from now on to somebody else, too; who must not log. Only the first who asks gets them.
#[cfg(feature = "edge")]
pub(crate) fn tap(reader: impl Fn(&[u8]) + Send + Sync + 'static) {
    TAP.get_or_init(|| Box::new(reader));
}

/// Standard error, and whoever taps it. One event is one write.
struct Tee;

impl Write for Tee {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Some(tap) = TAP.get() {
            tap(line);
        }
        // Whoever closed standard error does not want to read it; the line is not written a second time.
        std::io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Starts logging.
pub(crate) fn start(format: LogFormat, default_level: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("HOLM_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .with_context(|| format!("`HOLM_LOG={text}` is no log filter; give `info`, say"))?,
        _ => EnvFilter::new(default_level),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Tee);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging can't be started: {error}"))
}
