//! Acceptance of the hub, in one process: the REST handler is called in memory, devices speak to the backend. Numbers in
//! the tests are rows of `hub-service-api.md` §11 unless said otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failed check")]

mod audit;
mod authorization;
mod az_iot;
mod backup;
mod bad_input;
#[cfg(feature = "s3")]
mod bucket;
mod bulk;
mod configurations;
mod data_directory;
mod deployment;
mod digital_twins;
mod endpoints;
mod etags;
mod event_forms;
mod event_hub;
mod events;
mod family;
mod files;
mod https;
mod issuance;
mod jobs;
mod kept_certificates;
mod linked_hubs;
mod mail;
mod methods;
mod metrics;
mod notices;
mod notices_rest;
mod policies;
mod provisioning;
mod provisioning_access;
mod queries;
mod registry;
mod renewal;
mod routing;
mod storage;
mod support;
mod telemetry;
mod thousand_edges;
mod transfer;
mod twin_history;
mod twins;
