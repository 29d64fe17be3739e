//! Other programs: where they are, running them, reading what they say.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where the peers live: `target/peers`, whatever the target directory of cargo is.
pub(crate) fn peers() -> PathBuf {
    root().join("target/peers")
}

/// A command of cargo, at the root of the workspace.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    // `cargo run` describes xtask's own package to xtask; the cargo below must not take it for its own.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command to its end, its output going to ours.
///
/// # Errors
/// When it can't be started, or ends with another code than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("  $ {shown}");
    let status = command
        .status()
        .with_context(|| format!("`{shown}` can't be started"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end, its output going to ours, and notes the lines that are wanted.
///
/// # Errors
/// When it can't be started, or ends with another code than 0.
pub(crate) fn noting(mut command: Command, wanted: fn(&str) -> bool, notes: &mut Vec<String>) -> Result<()> {
    let shown = show(&command);
    eprintln!("  $ {shown}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{shown}` can't be started"))?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (from_output, from_errors) = std::thread::scope(|scope| {
        let output = scope.spawn(|| output.map(|pipe| pass_on(pipe, std::io::stdout(), wanted)));
        let errors = scope.spawn(|| errors.map(|pipe| pass_on(pipe, std::io::stderr(), wanted)));
        (output.join(), errors.join())
    });
    let noted = [from_output, from_errors].into_iter().filter_map(Result::ok).flatten();
    notes.extend(noted.flatten());
    let status = child.wait().with_context(|| format!("`{shown}` can't be waited for"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

fn pass_on(pipe: impl Read, mut to: impl Write, wanted: fn(&str) -> bool) -> Vec<String> {
    let mut noted = Vec::new();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // A terminal that is gone does not end the tests: their code is still the answer.
        writeln!(to, "{line}").ok();
        if wanted(&line) {
            noted.push(line.into_owned());
        }
    }
    noted
}

/// Runs a command to its end and returns what it wrote on its standard output.
///
/// # Errors
/// When it can't be started, or ends with another code than 0; with what it wrote on its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{shown}` can't be started"))?;
    if !done.status.success() {
        bail!(
            "`{shown}` ended with {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The path of a program: on `PATH`, or in the system directories that a user's `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The load averages of 1, 5 and 15 minutes, as the kernel writes them.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
