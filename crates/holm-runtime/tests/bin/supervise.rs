//! Stands for the `holm` program in the tests of this crate: the supervisor, ready-made modules, and an edge that can be killed.

use std::ffi::OsString;
use std::process::ExitCode;

use holm_model::ModuleId;
use holm_runtime::{ModuleRuntime, ModuleSpec, ProcessConfig, ProcessRuntime, RuntimeKind, supervisor};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["supervise", ..] => supervisor::main(arguments.into_iter().skip(1)),
        ["run", name, rest @ ..] => ready_made(name, rest),
        ["edge", root, modules, image] => edge(root, modules, image),
        _ => ExitCode::from(2),
    }
}

/// A module that says who it is and ends, or keeps a number of bytes in use until it is ended.
#[expect(clippy::print_stdout, reason = "its output is what is tested")]
fn ready_made(name: &str, rest: &[&str]) -> ExitCode {
    println!("ready-made {name} {}", rest.join(" "));
    if let ("eater", [bytes]) = (name, rest) {
        let memory = vec![1_u8; bytes.parse().unwrap_or(0)];
        println!("ate {}", memory.iter().map(|byte| usize::from(*byte)).sum::<usize>());
        std::thread::park();
    }
    ExitCode::SUCCESS
}

/// Starts module `orphan` and then hangs, until it is killed.
#[expect(clippy::print_stdout, reason = "the test waits for the word")]
fn edge(root: &str, modules: &str, image: &str) -> ExitCode {
    let this = std::env::current_exe().expect("this program has a path");
    let runtime = ProcessRuntime::new(ProcessConfig::new(root, vec![modules.into()], this));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = executor.expect("threads can be made").block_on(async {
        let id = ModuleId::new("orphan").expect("it is an id");
        let spec = ModuleSpec::new(id.clone(), RuntimeKind::Process, image, root);
        runtime.create(&spec).await?;
        runtime.start(&id).await
    });
    match started {
        Ok(()) => println!("started"),
        Err(error) => println!("{}", error.chain()),
    }
    loop {
        std::thread::park();
    }
}
