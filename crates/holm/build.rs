//! Tells the program which build it is: what the variable `HOLM_BUILD` says, for those who build packages; else the commit.
//! Without a repository it says so.

use std::process::Command;

fn main() {
    let build = std::env::var("HOLM_BUILD").ok().filter(|text| !text.is_empty());
    println!("cargo::rustc-env=HOLM_BUILD_NAME={}", build.unwrap_or_else(commit));
    println!("cargo::rerun-if-env-changed=HOLM_BUILD");
    // Each commit and each checkout adds a line to the log of HEAD.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn commit() -> String {
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown commit".to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
