//! Stands for the `holm` program in the tests of this crate: the supervisor, and ready-made modules.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use holm_client::edge_environment::EdgeEnvironment;
use holm_runtime::supervisor;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["supervise", ..] => supervisor::main(arguments.into_iter().skip(1)),
        ["run", "signer"] => signer(),
        ["run", "crasher"] => ExitCode::from(3),
        _ => ExitCode::from(2),
    }
}

/// Asks the edge for a signature again and again, and writes a line for each: `ok` or what went wrong.
fn signer() -> ExitCode {
    let environment = EdgeEnvironment::from_process().expect("the edge sets the variables");
    let path = std::env::var_os("OUT").expect("the test sets it");
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    executor.expect("a thread is there").block_on(async {
        loop {
            let line = match environment.sign(b"data").await {
                Ok(_) => "ok".to_owned(),
                Err(error) => holm_net::error_chain(&error),
            };
            let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
            if file.and_then(|mut file| writeln!(file, "{line}")).is_err() {
                return ExitCode::FAILURE;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}
