//! What each command does.

#[cfg(feature = "hub")]
mod audit;
mod c2d;
#[cfg(feature = "hub")]
mod completions;
#[cfg(feature = "hub")]
mod configuration;
#[cfg(all(feature = "hub", feature = "edge"))]
mod demo;
mod deploy;
mod device;
#[cfg(feature = "hub")]
mod dps;
#[cfg(feature = "edge")]
mod edge;
mod file;
#[cfg(feature = "hub")]
mod hub;
mod hub_access;
#[cfg(feature = "hub")]
mod job;
mod keys;
mod method;
mod module;
mod monitor;
#[cfg(feature = "hub")]
mod policy;
#[cfg(feature = "hub")]
mod query;
#[cfg(feature = "hub")]
mod routing;
mod run;
#[cfg(feature = "hub")]
mod simulate;
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
    let services = services
        || matches!(
            &cli.command,
            Command::Hub(crate::cli::Hub::Run(_)) | Command::Dps(crate::cli::Dps::Run(_))
        );
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
        Command::Device(command) => return device::run(command).await,
        Command::Module(command) => module::run(command).await?,
        Command::Twin(command) => twin::run(command).await?,
        #[cfg(feature = "hub")]
        Command::Query(options) => query::run(options).await?,
        #[cfg(feature = "hub")]
        Command::Job(command) => job::run(command).await?,
        Command::Method(command) => return method::run(command).await,
        Command::C2d(command) => c2d::run(command).await?,
        Command::File(command) => file::run(command).await?,
        #[cfg(feature = "hub")]
        Command::Dps(command) => dps::run(command).await?,
        Command::Deploy(options) => deploy::run(options).await?,
        #[cfg(feature = "hub")]
        Command::Deployment(command) => configuration::run(configuration::Of::Edges, command).await?,
        #[cfg(feature = "hub")]
        Command::Configuration(command) => configuration::run(configuration::Of::Settings, command).await?,
        Command::Monitor(options) => monitor::run(options).await?,
        #[cfg(feature = "hub")]
        Command::Route(command) => routing::route(command).await?,
        #[cfg(feature = "hub")]
        Command::Endpoint(command) => routing::endpoint(command).await?,
        #[cfg(feature = "hub")]
        Command::Enrichment(command) => routing::enrichment(command).await?,
        #[cfg(feature = "hub")]
        Command::Policy(command) => policy::run(command, policy::OF_HUB).await?,
        #[cfg(feature = "hub")]
        Command::Audit(options) => audit::run(options).await?,
        #[cfg(feature = "hub")]
        Command::Completions { shell } => completions::run(shell),
        #[cfg(feature = "hub")]
        Command::Simulate(options) => simulate::run(options).await?,
        Command::Run { name } => run::run(&name).await?,
        #[cfg(feature = "edge")]
        Command::Supervise { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
