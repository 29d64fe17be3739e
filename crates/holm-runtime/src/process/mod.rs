//! The `process` runtime: modules are programs of the device, each under a small supervisor of its own.
//!
//! ```text
//!   edge: ProcessRuntime                            one for each module: crate::supervisor
//!   create  writes module.json
//!   start   writes plan.json, runs `supervise launch` ─────> lock, socket, state.json, log; starts the program
//!   stop    asks over the socket ──────────────────────────> signal, after the grace KILL
//!   inspect, list, logs  read module.json, state.json, log
//! ```
//!
//! Nothing is remembered in the edge: everything that is told is read from these files, from `/proc`, or from the
//! supervisor. That a module runs is believed only if pid, start time and boot id all fit.

pub(crate) mod cgroup;
mod end;
pub(crate) mod image;
mod logs;
mod observe;
pub mod options;
mod plan;
pub(crate) mod procfs;
pub(crate) mod record;
mod runtime;
pub(crate) mod settings;
pub(crate) mod socket;
pub(crate) mod user;

pub use runtime::{ProcessConfig, ProcessRuntime};
