//! The device-facing protocol front, the same for hub and edge: it turns what devices and modules send over MQTT and HTTPS
//! into calls of a few capabilities ([`backend`]), and reaches connected clients for the node ([`session`]).
//!
//! This crate never knows a database, a queue or a route.

pub mod backend;
pub mod session;

pub use backend::{
    Admission, Announced, Attempt, AuthKind, Authority, Backend, Credential, Delivery, Inbox, Ingest, IngestError,
    Mailbox, Presence, Principal, Refusal, Resumed, Settlement, Twins,
};
pub use session::{CloseReason, Command, Directory, InvokeError, SessionHandle, SessionId, Subscriptions};
