//! Keeps modules running on a device: one trait, [`ModuleRuntime`], and a kind of runtime behind it for each way that a
//! module can be packed.
//!
//! This crate never knows a manifest, a twin, a hub or a restart policy: it is told what to run as a [`ModuleSpec`], does
//! it, and reports what is really there as a [`ModuleState`]. What it reports is read from the engine or from the
//! supervisors each time, never from a memory of what it did, so whoever plans can be restarted at any moment.

mod conversions;
pub mod docker;
pub mod error;
pub mod logs;
mod probe;
pub mod process;
pub mod runtime;
pub mod spec;
pub mod state;
pub mod supervisor;

pub use docker::{DockerConfig, DockerRuntime, EdgeNetwork};
pub use error::{RuntimeError, UnsupportedOption};
pub use logs::{LogLimits, LogStream, LogsOptions, Tail};
pub use process::{ProcessConfig, ProcessRuntime};
pub use runtime::{BoxFuture, ModuleRuntime, Prepared};
pub use spec::{ModuleSpec, PullPolicy, RegistryAuth, RuntimeKind};
pub use state::{Health, ModuleState, ModuleStats, Reachability, RuntimeStatus};
