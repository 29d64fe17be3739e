//! Tells the program which build it is: what the variable `HOLM_BUILD` says, for those who build packages; else the commit.
//! Without a repository it says so.

use std::process::Command;

fn main() {
    let build = std::env::var("HOLM_BUILD").ok().filter(|text| !text.is_empty());
    println!("cargo::rustc-env=HOLM_BUILD_NAME={}", build.unwrap_or_else(commit));
    println!("cargo::rerun-if-env-changed=HOLM_BUILD");
    println!("cargo::rerun-if-changed=../../.git/HEAD");
}

fn commit() -> String {
    Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown commit".to_owned(), |text| text.trim().to_owned())
}
