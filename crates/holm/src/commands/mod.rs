//! What each command does.

mod c2d;
#[cfg(all(feature = "hub", feature = "edge"))]
mod demo;
mod deploy;
mod device;
#[cfg(feature = "edge")]
mod edge;
mod file;
#[cfg(feature = "hub")]
mod hub;
mod hub_access;
mod method;
mod module;
mod monitor;
mod run;
mod twin;

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::{Cli, Command};
use crate::logging;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "edge")]
    if let Command::Supervise { args } = cli.command {
        // Before anything else: a supervisor has no runtime, no threads and no logging of its own.
        return Ok(holm_runtime::supervisor::main(args));
    }
    let services = matches!(&cli.command, Command::Run { .. });
    #[cfg(feature = "hub")]
    let services = services || matches!(&cli.command, Command::Hub(crate::cli::Hub::Run(_)));
    #[cfg(feature = "edge")]
    let services = services || matches!(&cli.command, Command::Edge(crate::cli::Edge::Run { .. }));
    logging::start(cli.log_format()?, if services { "info" } else { "warn" })?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 8)))
        .build()
        .context("the runtime can't be started")?;
    let code = runtime.block_on(dispatch(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(all(feature = "hub", feature = "edge"))]
        Command::Demo(options) => return demo::run(options).await,
        #[cfg(feature = "hub")]
        Command::Hub(command) => hub::run(command).await?,
        #[cfg(feature = "edge")]
        Command::Edge(command) => return edge::run(command).await,
        Command::Login(login) => hub_access::login(&login)?,
        Command::Device(command) => device::run(command).await?,
        Command::Module(command) => module::run(command).await?,
        Command::Twin(command) => twin::run(command).await?,
        Command::Method(command) => return method::run(command).await,
        Command::C2d(command) => c2d::run(command).await?,
        Command::File(command) => file::run(command).await?,
        Command::Deploy(options) => deploy::run(options).await?,
        Command::Monitor(options) => monitor::run(options).await?,
        Command::Run { name } => run::run(&name).await?,
        #[cfg(feature = "edge")]
        Command::Supervise { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
