//! Called by the name `iotedge`, this program takes the command line of the original: `iotedge list` is `holm edge list`. So a
//! link of that name keeps scripts and habits working.
//!
//! ```text
//!   iotedge [-H URI] COMMAND …   ──>   holm edge COMMAND [-H URI] …
//!   iotedge version              ──>   holm --version
//! ```
//!
//! Source: `edge-agent.md` §7.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::build;
use crate::cli::{Cli, Command, Edge};
use crate::logging::LogFormat;

/// The name that is listened to.
const NAME: &str = "iotedge";

/// The edge of this device: the commands of `holm edge`.
#[derive(Debug, Parser)]
#[command(name = NAME, version = build::text(), propagate_version = true)]
struct IotEdge {
    /// How log lines look: `text` or `json` [else HOLM_LOG_FORMAT, else text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Edge,
}

/// Reads a command line; by the name `iotedge`, the help speaks of that.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut words = translate(arguments);
    if !words.first().is_some_and(is_called_so) || words.get(1).is_none_or(|word| word != "edge") {
        return Cli::try_parse_from(words);
    }
    words.remove(1);
    // `iotedge run` runs a ready-made module, as `holm run` does.
    let mut command = IotEdge::command().mut_subcommand("run", |command| command.hide(true));
    let matches = command.try_get_matches_from_mut(words)?;
    let read = IotEdge::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok(Cli {
        log_format: read.log_format,
        command: Command::Edge(read.command),
    })
}

fn is_called_so(program: &OsString) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(NAME))
}

/// The command line as this program reads it.
fn translate(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let Some(program) = arguments.next() else {
        return Vec::new();
    };
    let rest: Vec<_> = arguments.collect();
    if !is_called_so(&program) || is_ours(rest.first()) {
        return std::iter::once(program).chain(rest).collect();
    }
    let (options, command) = rest.split_at(leading(&rest));
    let Some((name, after)) = command.split_first() else {
        return [program, "edge".into()].into_iter().chain(rest).collect();
    };
    if name == "version" || name == "--version" || name == "-V" {
        return vec![program, "--version".into()];
    }
    let words = [program, "edge".into(), name.clone()].into_iter();
    words
        .chain(options.iter().cloned())
        .chain(after.iter().cloned())
        .collect()
}

/// What the edge starts itself by, whatever its file is called.
fn is_ours(first: Option<&OsString>) -> bool {
    first.is_some_and(|word| word == "supervise" || word == "run")
}

/// How many words come before the command: `-H` and `--host`, each with its value.
fn leading(words: &[OsString]) -> usize {
    let mut count = 0;
    while let Some(word) = words.get(count).and_then(|word| word.to_str()) {
        match word {
            "-H" | "--host" => count += 2,
            _ if word.starts_with("--host=") || (word.starts_with("-H") && word.len() > 2) => count += 1,
            _ => break,
        }
    }
    count.min(words.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let words = translate(line.split(' ').map(OsString::from));
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn the_originals_command_line_is_that_of_the_edge() {
        assert_eq!(read("iotedge list"), "iotedge edge list");
        assert_eq!(
            read("/usr/bin/iotedge -H unix:///s logs m -f"),
            "/usr/bin/iotedge edge logs -H unix:///s m -f"
        );
        assert_eq!(
            read("iotedge --host=unix:///s check -o json"),
            "iotedge edge check --host=unix:///s -o json"
        );
        assert_eq!(read("iotedge version"), "iotedge --version");
        assert_eq!(read("iotedge --help"), "iotedge edge --help");
    }

    #[test]
    fn help_and_refusals_speak_the_name_by_which_it_was_called() {
        let said = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            parse(words).unwrap_err().render().to_string()
        };

        let cases = [
            ("iotedge --help", "Usage: iotedge"),
            ("/usr/bin/iotedge list --nope", "Usage: iotedge list"),
            ("iotedge -H unix:///s logs", "Usage: iotedge logs"),
            ("iotedge config mp", "Usage: iotedge config mp"),
        ];
        for (line, usage) in cases {
            let text = said(line);
            assert!(
                text.contains(usage) && !text.contains("holm edge list"),
                "{line}: {text}"
            );
        }
        assert!(said("holm edge list --nope").contains("Usage: holm edge list"));
        let words = ["iotedge", "-H", "unix:///s", "list", "--json"].map(OsString::from);
        let Command::Edge(Edge::List(on)) = parse(words).unwrap().command else {
            panic!("it is another command");
        };
        assert!(on.json);
    }

    #[test]
    fn other_names_and_our_own_words_stay_as_they_are() {
        assert_eq!(read("holm edge list"), "holm edge list");
        assert_eq!(read("iotedge supervise launch /d"), "iotedge supervise launch /d");
        assert_eq!(read("iotedge run sensor"), "iotedge run sensor");
        assert_eq!(read("iotedge -H"), "iotedge edge -H");
    }
}
