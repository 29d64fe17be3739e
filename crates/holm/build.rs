//! Tells the program which commit it was built from. Without a repository it says so.

use std::process::Command;

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown commit".to_owned(), |text| text.trim().to_owned());
    println!("cargo::rustc-env=HOLM_COMMIT={commit}");
    println!("cargo::rustc-env=HOLM_FORMATS=queue 1, hub database 1, edge state 1");
    println!("cargo::rerun-if-changed=../../.git/HEAD");
}
