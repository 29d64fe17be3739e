//! The `docker` runtime: modules are containers of a Docker-compatible engine, spoken to through its HTTP API.
//!
//! ```text
//!   prepare  pull, or find what is there       create  the manifest's options, merged with ours, sent as JSON
//!   start, stop, remove, inspect, logs, stats  one request each; nothing is remembered here
//! ```
//!
//! The API is spoken directly, with values and not with generated types: create options that this release has never heard of
//! must reach the engine, and the engine's log framing must leave as it came. A client library would drop the first and
//! take the second apart.
//!
//! A container is ours by its labels. One that somebody else made is never listed, stopped or removed, even when it has the
//! name of a module.

mod body;
mod engine;
mod image;
mod inspect;
mod network;
mod places;
mod probe;
mod runtime;
mod strangers;

pub use body::ADDED;
pub use engine::EngineInfo;
pub use network::{EdgeNetwork, NetworkConfig, Subnet};
pub use runtime::{DockerConfig, DockerRuntime};
