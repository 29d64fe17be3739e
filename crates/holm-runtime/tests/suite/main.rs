//! The runtimes against real processes, a real supervisor and a real container engine.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is test code")]

mod process;
mod supervisor;
mod support;
