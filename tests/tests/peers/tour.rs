//! The README's tour, as it stands there: its blocks marked `sh tour`, one after the other, in a network of its own.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use holm_e2e::Need;
use holm_e2e::need;

/// How long the whole tour may take; it says ten minutes to a person who reads.
const PATIENCE: Duration = Duration::from_secs(240);

/// The blocks of the README that are the tour, in order.
fn blocks(readme: &str) -> String {
    let mut script = String::from("set -eu -o pipefail\n");
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```sh tour" => inside = true,
            "```" => inside = false,
            line if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

#[test]
fn the_tour_of_the_readme_goes_through_as_it_is_written() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let readme = fs::read_to_string(need::root().join("README.md")).expect("there is a README");
    let holm = need::holm();
    let bin = holm
        .parent()
        .expect("a program is in a folder")
        .to_string_lossy()
        .into_owned();
    let python = need::python().to_string_lossy().into_owned();
    // What a person waits for has been done: the program is built, the SDKs are installed.
    let mut script = blocks(&readme);
    for (written, here) in [
        ("cargo build --release --package holm\n", String::new()),
        ("$PWD/target/release:", format!("{bin}:")),
        ("python3 -m venv \"$TOUR/venv\"\n", String::new()),
        ("\"$TOUR/venv/bin/python\"", format!("\"{python}\"")),
    ] {
        assert!(script.contains(written), "the tour has no `{written}` any more");
        script = script.replace(written, &here);
    }
    let pip = script
        .lines()
        .find(|line| line.contains("pip\" install"))
        .expect("the tour installs the SDKs")
        .to_owned();
    script = script.replace(&pip, "");

    let folder = tempfile::Builder::new()
        .prefix("holm-tour-")
        .tempdir()
        .expect("a temporary directory");
    let file = folder.path().join("tour.sh");
    fs::write(&file, format!("ip link set lo up\n{script}")).expect("the script can be written");
    let log = folder.path().join("tour.log");
    let output = fs::File::create(&log).expect("the log can be made");
    let mut tour = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-x"])
        .arg(&file)
        .current_dir(need::root())
        .env("HOME", folder.path())
        .env_remove("HOLM_HUB")
        .stdout(output.try_clone().expect("a file can be shared"))
        .stderr(output)
        .spawn()
        .expect("`unshare` is there");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = tour.try_wait().expect("the tour can be asked for") {
            break Some(status);
        }
        if began.elapsed() > PATIENCE {
            // Everything in its process namespace ends with it.
            tour.kill().expect("the tour can be ended");
            tour.wait().expect("the tour has ended");
            break None;
        }
        std::thread::sleep(Duration::from_millis(200));
    };

    let said = fs::read_to_string(&log).unwrap_or_default();
    let end: Vec<&str> = said.lines().rev().take(40).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        end.join("\n")
    );
    let shown = said
        .lines()
        .filter(|line| line.contains("  gauge  {\"count\":"))
        .count();
    assert_eq!(shown, 3, "the step with the Python SDK shows no telemetry:\n{said}");
    let sent = said
        .lines()
        .find_map(|line| line.strip_prefix("sent ")?.strip_suffix(" messages"));
    assert!(
        sent.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count >= 3)),
        "{sent:?}"
    );
}
