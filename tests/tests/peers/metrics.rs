//! The hub's `/metrics`: its form, and that the manual lists what it holds.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use holm_e2e::need;

/// A hub on free ports; killed with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a hub and asks for its figures; gives head and body of the answer.
fn ask_for_metrics(method: &str) -> Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(need::holm());
    command.args([
        "hub",
        "run",
        "--mqtt-port",
        "0",
        "--amqp-port",
        "0",
        "--https-port",
        "0",
    ]);
    command.arg("--data");
    let hub = command
        .arg(folder.path().join("hub"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut hub = Running(hub.spawn()?);
    let mut ready = String::new();
    BufReader::new(hub.0.stdout.take().context("it is piped")?).read_line(&mut ready)?;
    let (_, status) = ready.trim().split_once("status=").context("the hub says where")?;

    let mut stream = TcpStream::connect(status)?;
    write!(
        stream,
        "{method} /metrics HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    Ok((head.to_owned(), body.to_owned()))
}

fn read_metrics() -> Result<String> {
    let (head, body) = ask_for_metrics("GET")?;
    anyhow::ensure!(head.contains("200 OK") && head.contains("version=0.0.4"), "{head}");
    Ok(body)
}

#[test]
fn the_page_of_figures_is_only_read() -> Result<()> {
    let (refused, _) = ask_for_metrics("POST")?;
    let (looked_at, body) = ask_for_metrics("HEAD")?;

    assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("allow: get, head"), "{refused}");
    assert!(looked_at.contains("200 OK") && body.is_empty(), "{looked_at}");
    Ok(())
}

#[test]
fn every_figure_has_its_head_once_and_stands_in_the_manual() -> Result<()> {
    let manual = std::fs::read_to_string(need::root().join("docs/http-api.md"))?;

    let text = read_metrics()?;

    let (mut helped, mut typed) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let word = |place| line.split(' ').nth(place).unwrap_or_default();
        match word(1) {
            "HELP" => assert!(helped.insert(word(2)), "{line}"),
            "TYPE" => {
                assert!(typed.insert(word(2)), "{line}");
                let grows = word(2).ends_with("_total");
                assert_eq!(word(3), if grows { "counter" } else { "gauge" }, "{line}");
            }
            value => {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                assert!(helped.contains(name) && typed.contains(name), "{line}");
                assert!(value.parse::<u64>().is_ok(), "{line}");
                assert!(manual.contains(&format!("`{name}`")), "docs/http-api.md lacks `{name}`");
            }
        }
    }
    assert!(helped.len() > 15, "{helped:?}");
    assert_eq!(helped, typed);
    Ok(())
}
