//! Acceptance of the hub, in one process: the REST handler is called in memory, devices speak to the backend. Numbers in
//! the tests are rows of `hub-service-api.md` §11 unless said otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failed check")]

mod authorization;
mod data_directory;
mod deployment;
mod events;
mod family;
mod files;
mod https;
mod mail;
mod methods;
mod metrics;
mod notices;
mod notices_rest;
mod registry;
mod storage;
mod support;
mod telemetry;
mod twins;
