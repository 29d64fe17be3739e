//! `holm`: hub, edge, modules and tools in one program. This file reads the command line and hands over; what a command does
//! stands in its file in `commands`.

mod build;
mod cli;
mod commands;
#[cfg(feature = "edge")]
mod iotedge;
mod logging;
#[cfg(feature = "edge")]
mod management;
#[cfg(feature = "hub")]
mod open_files;
mod output;
mod service;
mod signals;
mod status_page;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "edge")]
    let read = iotedge::parse(std::env::args_os());
    #[cfg(not(feature = "edge"))]
    let read = <cli::Cli as clap::Parser>::try_parse();
    let cli = match read {
        Ok(cli) => cli,
        Err(told) => return output::told(&told),
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(output::exit_code(&error))
        }
    }
}
