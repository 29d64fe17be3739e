//! The client of hub and edge, for devices and modules: telemetry, twin, methods, cloud-to-device messages, module inputs
//! and outputs. It is the beginning of the Rust SDK, and the edge's own way to what is above it.
//!
//! ```text
//!   Client (clones; send, twin, report) --commands--> engine task --MQTT------------------> hub or edge
//!   Events (one owner)                  <--events----/     |  \-----session of AMQP---/
//!                                             connects, renews tokens, comes back after loss
//! ```
//!
//! Over AMQP clients may share a connection ([`Connections`]): thousands of identities, each with its own token.
//!
//! The engine never gives up: it reconnects until its scope stops, and sends again what was not acknowledged. What an
//! application must decide (is a message handled?) is a value that it completes or drops.
//!
//! Examples: `cargo run -p holm-client --example telemetry`, and its siblings.

pub mod client;
pub mod credential;
pub mod device;
pub mod edge_environment;
mod engine;
pub mod event;
pub mod options;
pub mod provisioning;

pub use client::{Client, SendError, Sent, TwinError};
pub use credential::{Credential, Token, TokenSource};
pub use engine::Connections;
pub use event::{Event, Events, MethodCall, Received};
pub use options::{Endpoint, Interests, Options, Transport, UnknownTransport};
pub use provisioning::{Assignment, RegisterError, Registrar};
