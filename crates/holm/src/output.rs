//! What people and scripts read: standard output for results, standard error for everything else.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed; the reason is on standard error. Also: the method that was called answered with a status of 400 or more |
//! | 2 | the command line is wrong |
//! | 3 | `holm demo` lost a message |

use std::io::{IsTerminal, Write};

use serde_json::Value;

/// The command failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// The demo lost a message.
#[cfg(all(feature = "hub", feature = "edge"))]
pub(crate) const EXIT_LOST: u8 = 3;

/// Writes a line to standard output. A reader that has gone (`| head`) ends the program quietly, as it does others.
pub(crate) fn line(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    // Where standard error is gone nobody is left to tell.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// Something on the command line that can't be meant, found after it was read: a value that must not be shown, say.
#[derive(Debug)]
pub(crate) struct WrongUse(pub(crate) String);

impl std::fmt::Display for WrongUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// The exit code that tells of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<WrongUse>() {
        EXIT_USAGE
    } else {
        EXIT_FAILED
    }
}

/// Writes an error and its causes, once, on one line.
pub(crate) fn error(error: &anyhow::Error) {
    note(&format!("holm: {error:#}"));
}

/// Writes a JSON value: on one line for scripts, indented on a terminal.
pub(crate) fn json(value: &Value) {
    let text = if std::io::stdout().is_terminal() {
        serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
    } else {
        value.to_string()
    };
    line(&text);
}

/// Writes rows under headings, in columns as wide as they need.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    for text in columns(headings, rows) {
        line(&text);
    }
}

/// Rows under headings, in columns as wide as they need.
pub(crate) fn columns(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<_> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let padded = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    std::iter::once(padded(&mut headings.iter().copied()))
        .chain(rows.iter().map(|row| padded(&mut row.iter().map(String::as_str))))
        .collect()
}
