//! The device side: it keeps modules running as the hub asked, brokers messages between them and the hub, guards their
//! keys, and goes on doing all of it while the hub is out of reach.

pub mod agent;
pub mod broker;
pub mod check;
pub mod children;
pub mod config;
pub mod data_directory;
pub mod edge;
pub mod formats;
pub mod front;
pub mod identities;
pub mod keys;
pub mod local_api;
pub mod management;
pub mod metrics;
pub mod moment;
#[cfg(feature = "otel")]
pub mod otel;
pub mod own_log;
pub mod provisioning;
pub mod redact;
pub mod runtimes;
pub mod security;
pub mod state;
pub mod steady;
pub mod uplink;
pub mod usage;
pub mod workload;
pub mod zip;
