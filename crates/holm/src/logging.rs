//! Logs: standard error, a line an event. `HOLM_LOG` says how much (`info`, `debug`, `holm_edge=debug,info`, …).

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::WrongUse;

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
        Ok(text) if !text.is_empty() => {
            parse(&text).with_context(|| WrongUse(format!("`HOLM_LOG={text}` is no log filter; give `info`, say")))?
        }
        _ => parse(default_level).with_context(|| format!("`{default_level}` is no log filter"))?,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(|| Tee);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).finish().with(filter).try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .with(filter)
            .try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging can't be started: {error}"))
}

/// What to log: levels, `TARGET=LEVEL`, or both, between commas. An `EnvFilter` could choose by the fields of spans as well; there
/// are none, and it brings an engine for regular expressions to each device.
///
/// Not by the crate's own reader: to that a word that is no level is a target, so that a slip (`HOLM_LOG=inof`) logs nothing.
fn parse(text: &str) -> anyhow::Result<Targets> {
    let mut filter = Targets::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (target, word) = match part.split_once('=') {
            Some((target, word)) => (Some(target.trim()), word.trim()),
            None => (None, part),
        };
        let level = word.parse::<LevelFilter>().ok().filter(|_| !word.is_empty());
        let level = level.with_context(|| {
            format!("`{word}` is no level; give off, error, warn, info, debug or trace, or `holm_edge=debug`")
        })?;
        filter = match target {
            None => filter.with_default(level),
            Some(target) if is_name(target) => filter.with_target(target, level),
            Some(target) => bail!("`{target}` is no part of a program; give `holm_edge={word}`, say"),
        };
    }
    Ok(filter)
}

fn is_name(target: &str) -> bool {
    let stands = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | ':');
    !target.is_empty() && target.chars().all(stands)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_target_may_say_more_than_the_rest() {
        let filter = parse("holm_edge=debug, info").unwrap();

        assert!(filter.would_enable("holm_edge::broker", &Level::DEBUG));
        assert!(filter.would_enable("holm_queue", &Level::INFO));
        assert!(!filter.would_enable("holm_queue", &Level::DEBUG));
    }

    #[test]
    fn a_comma_too_many_changes_nothing() {
        let filter = parse(",info,").unwrap();

        assert!(filter.would_enable("holm_edge", &Level::INFO));
        assert!(!filter.would_enable("holm_edge", &Level::DEBUG));
    }

    #[test]
    fn what_is_no_level_is_refused_and_does_not_silence_the_log() {
        for text in [
            "holm_edge=loud",
            "inof",
            "[[[",
            "=debug",
            "holm_edge=",
            "info,holm edge=debug",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("inof").unwrap_err().to_string().contains("`inof` is no level"));
    }
}
