//! The cloud side of Holm: who exists, what each should be and says it is, what everybody sent, and what waits for whom.
//!
//! ```text
//! protocol fronts --backend--> authority, events, twins, c2d, presence
//! back ends ------rest------> registry, twins, methods, deployment, c2d, files, notices, events
//!                                   |            |
//!                               storage (SQLite) '-- events (holm-queue)
//! ```
//!
//! This crate never knows an MQTT packet, a socket or a runtime of modules.

pub mod config;
pub mod hub;

pub mod rest;

pub mod authority;
pub mod backend;
pub mod blobs;
pub mod c2d;
pub mod deployment;
pub mod events;
pub mod feedback;
pub mod files;
pub mod methods;
pub mod notices;
pub mod presence;
pub mod registry;
pub mod twins;

pub mod storage;

mod clock;
mod metrics;
mod random;
mod signals;

pub use backend::HubBackend;
pub use clock::Clock;
pub use config::{FileConfig, HubConfig, QueueBounds};
pub use hub::{Hub, OpenHubError};
pub use rest::RestApi;
pub use signals::Signals;
