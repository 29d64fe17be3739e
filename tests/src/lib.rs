//! A test language for Holm from outside: real processes, real sockets, real SDKs.
//!
//! ```text
//! let hub = Hub::start();                                  a process of the binary, on a loopback address of its own
//! let device = hub.create_device("d1");                    by REST, with a client of this package
//! let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();            the original SDK in a process
//! sdk.call("connect", json!({}));                          commands and events as JSON lines
//! hub.monitor().wait_for("the reading", |event| …);        wait for a state, never for a while
//! ```
//!
//! What is started here ends when its value is dropped, by its process id. When a test panics, each process prints the end of
//! its log, and the directory of the test is kept. A peer that is not installed makes its tests return early with a line on
//! standard error, except where peers are required (in CI, and under `cargo xtask test`): there it is a failure.
//!
//! This package uses no code of Holm: a judge that shares the code shares the mistake.
#![allow(
    clippy::print_stderr,
    reason = "tests say on standard error what they skip and what a failed process logged"
)]

pub mod address;
pub mod amqp;
pub mod blob_store;
pub mod certificate;
pub mod control;
pub mod daemon;
pub mod edge;
pub mod engine;
pub mod hub;
pub mod link;
pub mod monitor;
pub mod need;
pub mod own_engine;
pub mod patience;
pub mod power_disk;
pub mod processes;
pub mod provisioning;
pub mod sas;
pub mod sdk;
pub mod service;
pub mod small_disk;
pub mod soak;
pub mod tpm;
pub mod web_receiver;
pub mod wire;

pub use address::Address;
pub use amqp::Amqp;
pub use certificate::Certificate;
pub use control::{Control, Switchboard};
pub use daemon::Daemon;
pub use edge::{Edge, Setup};
pub use hub::{Device, Hub};
pub use link::{Link, Way, Weather};
pub use monitor::{Event, Monitor};
pub use need::Need;
pub use own_engine::OwnEngine;
pub use power_disk::PowerDisk;
pub use provisioning::Proof;
pub use sdk::{Language, Sdk, Transport};
pub use small_disk::SmallDisk;
pub use tpm::Tpm;
