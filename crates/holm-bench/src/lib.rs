//! Load for any MQTT 3.1.1 broker and for Holm's hub, and what came of it: throughput, latency, losses, cost.
//!
//! [`load::run`] is the generator; the rest sets up brokers and writes tables. It knows nothing of what a broker promises:
//! it counts what was acknowledged and what arrived.

pub mod bench;
pub mod brokers;
pub mod client;
pub mod clock;
pub mod disk;
pub mod edge_server;
pub mod figures;
pub mod histogram;
pub mod hub_load;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod process;
pub mod report;
pub mod schedule;
pub mod service;
pub mod stamp;

mod listener;
mod publisher;

#[cfg(test)]
mod tests;
