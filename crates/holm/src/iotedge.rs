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

/// The name that is listened to.
const NAME: &str = "iotedge";

/// The command line as this program reads it.
pub(crate) fn translate(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let Some(program) = arguments.next() else {
        return Vec::new();
    };
    let rest: Vec<_> = arguments.collect();
    if Path::new(&program).file_name() != Some(OsStr::new(NAME)) || is_ours(rest.first()) {
        return std::iter::once(program).chain(rest).collect();
    }
    let (options, command) = rest.split_at(leading(&rest));
    let Some((name, after)) = command.split_first() else {
        return [program, "edge".into()].into_iter().chain(rest).collect();
    };
    if name == "version" {
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
    fn other_names_and_our_own_words_stay_as_they_are() {
        assert_eq!(read("holm edge list"), "holm edge list");
        assert_eq!(read("iotedge supervise launch /d"), "iotedge supervise launch /d");
        assert_eq!(read("iotedge run sensor"), "iotedge run sensor");
        assert_eq!(read("iotedge -H"), "iotedge edge -H");
    }
}
