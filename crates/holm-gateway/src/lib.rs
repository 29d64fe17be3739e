//! The device-facing protocol front, the same for hub and edge: it turns what devices and modules send over MQTT, AMQP and HTTPS
//! into calls of a few capabilities ([`backend`]), and reaches connected clients for the node ([`session`]).
//!
//! This crate never knows a database, a queue or a route.

mod amqp;
pub mod backend;
mod complaints;
pub mod credentials;
pub mod gateway;
pub mod http;
mod intake;
mod logins;
mod method_calls;
pub mod metrics;
mod mqtt;
mod policies;
pub mod profile;
pub mod provisioning;
pub mod service;
pub mod session;
mod tracking;
mod twin_requests;

pub use backend::{
    Admission, Announced, Attempt, AuthKind, Authority, Backend, Credential, Delivery, Earlier, Inbox, Ingest,
    IngestError, Mailbox, Presence, Principal, Refusal, Resumed, Settlement, Twins,
};
pub use credentials::Credentials;
pub use gateway::Gateway;
pub use profile::Profile;
pub use provisioning::Provisioning;
pub use service::Service;
pub use session::{CloseReason, Command, Directory, InvokeError, SessionHandle, SessionId, Subscriptions};
pub use tracking::tracking_id;
