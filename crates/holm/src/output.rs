//! What people and scripts read: standard output for results, standard error for everything else.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed; the reason is on standard error. Also: a method answered with a status of 400 or more; no device took a message |
//! | 2 | the command line is wrong: no hub or edge need be asked to tell. So are values that can't be meant, and changes of nothing |
//! | 3 | `holm demo` lost a message |

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;

/// No column is cut to less.
const LEAST_WIDTH: usize = 12;

/// The command failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// The demo lost a message.
#[cfg(all(feature = "hub", feature = "edge"))]
pub(crate) const EXIT_LOST: u8 = 3;

/// Writes a line to standard output.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    drop(out);
    must_be_written(written);
}

/// Writes bytes to standard output, at once.
pub(crate) fn bytes(piece: &[u8]) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(piece).and_then(|()| out.flush());
    drop(out);
    must_be_written(written);
}

/// Writes what the reading of the command line has to tell: help, the version, or what is wrong with it.
pub(crate) fn told(said: &clap::Error) -> ExitCode {
    must_be_written(said.print());
    ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(EXIT_USAGE))
}

/// Ends the program where its output goes nowhere: quietly if a reader has gone (`| head`), as others do, else with a word on
/// what is wrong. A result that nobody got is no success.
fn must_be_written(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            note(&format!("holm: the output can't be written: {error}"));
            std::process::exit(EXIT_FAILED.into());
        }
    }
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    // Where standard error is gone nobody is left to tell.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// Writes over the present line of standard error.
#[cfg(feature = "hub")]
pub(crate) fn over(text: &str) {
    let mut error = std::io::stderr().lock();
    write!(error, "\r{text}\x1b[K").and_then(|()| error.flush()).ok();
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
    if std::io::stdout().is_terminal() {
        indented(value);
    } else {
        line(&value.to_string());
    }
}

/// Writes a JSON value indented, for people.
pub(crate) fn indented(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()));
}

/// A size in the unit that keeps it short.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

/// Writes rows under headings: in a pipe in columns as wide as they need, on a terminal no wider than it is.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    for text in columns(headings, rows, room()) {
        line(&text);
    }
}

/// How many columns there are: those of the terminal; `None` in a pipe, where nothing is cut.
pub(crate) fn room() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (stdout.is_terminal() && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Rows under headings, in columns as wide as they need. Where there is not room for that, cells of the widest columns are cut
/// and end in `…`. Headings are not, nor is the last column: it has texts for people, and a terminal folds it.
pub(crate) fn columns(headings: &[&str], rows: &[Vec<String>], room: Option<usize>) -> Vec<String> {
    let least: Vec<_> = headings
        .iter()
        .map(|heading| heading.chars().count().max(LEAST_WIDTH))
        .collect();
    let mut widths: Vec<_> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let room = room.unwrap_or(usize::MAX);
    let last = widths.len().saturating_sub(1);
    let needed = |widths: &[usize]| {
        let of_last = widths.last().map_or(0, |width| LEAST_WIDTH.min(*width));
        widths.iter().take(last).map(|width| width + 2).sum::<usize>() + of_last
    };
    while needed(&widths) > room {
        let wide = widths
            .iter_mut()
            .take(last)
            .zip(&least)
            .filter(|(width, least)| **width > **least);
        let Some((widest, _)) = wide.max_by_key(|(width, _)| **width) else {
            break;
        };
        *widest -= 1;
    }
    let padded = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{:width$}", cut(cell, width)))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    std::iter::once(padded(&mut headings.iter().copied()))
        .chain(rows.iter().map(|row| padded(&mut row.iter().map(String::as_str))))
        .collect()
}

fn cut(cell: &str, width: usize) -> std::borrow::Cow<'_, str> {
    if cell.chars().count() <= width {
        return cell.into();
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_are_cut_where_there_is_no_room_and_nowhere_else() {
        let long = "m".repeat(128);
        let rows = [
            vec![long.clone(), "running".to_owned()],
            vec!["a".to_owned(), "stopped".to_owned()],
        ];

        let piped = columns(&["NAME", "STATUS"], &rows, None);
        let shown = columns(&["NAME", "STATUS"], &rows, Some(40));
        let narrow = columns(&["NAME", "STATUS"], &rows, Some(3));

        assert!(
            piped[1].starts_with(&long) && piped[1].ends_with("  running"),
            "{piped:?}"
        );
        assert_eq!(shown[1], format!("{}…  running", "m".repeat(30)));
        assert_eq!(shown[2], format!("a{}  stopped", " ".repeat(30)));
        assert!(shown.iter().all(|line| line.chars().count() <= 40), "{shown:?}");
        assert_eq!(narrow[1], format!("{}…  running", "m".repeat(11)));
    }
}
