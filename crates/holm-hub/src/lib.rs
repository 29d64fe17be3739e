//! The cloud side of Holm: who exists, what each should be and says it is, what everybody sent, and what waits for whom.
//!
//! ```text
//! protocol fronts --backend--> authority, events, twins, c2d, presence
//! back ends ------rest------> registry, twins, methods, deployment, configurations, queries, jobs, policies, provisioning, c2d, files, events
//!                                   |            |
//!                               storage (SQLite) '-- events (holm-queue)
//! ```
//!
//! This crate never knows an MQTT packet of a device, a listener or a runtime of modules. Endpoints of message routing are clients: they know
//! the protocol of their server.

pub mod config;
pub mod hub;

pub mod rest;

pub mod routing;

pub mod actor;
pub mod authority;
pub mod backend;
pub mod backup;
pub mod blobs;
pub mod c2d;
pub mod configurations;
pub mod deployment;
pub mod digital_twin;
pub mod events;
pub mod feedback;
pub mod files;
pub mod jobs;
pub mod methods;
pub mod notices;
pub mod policies;
pub mod presence;
pub mod provisioning;
pub mod queries;
pub mod registry;
pub mod service;
pub mod transfer;
pub mod twin_history;
pub mod twins;

pub mod storage;

mod clock;
mod file_error;
mod metrics;
mod random;
mod signals;
mod tpm;

pub use backend::HubBackend;
pub use clock::Clock;
#[cfg(feature = "s3")]
pub use config::S3Config;
pub use config::{ChangeBounds, EventSources, FileConfig, HubConfig, QueueBounds};
pub use file_error::FileError;
pub use hub::{Hub, OpenHubError};
pub use rest::RestApi;
pub use signals::Signals;
