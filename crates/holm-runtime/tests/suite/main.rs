//! The runtimes against real processes, a real supervisor and a real container engine.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "all of this is test code"
)]

mod docker;
mod process;
mod supervisor;
mod support;
