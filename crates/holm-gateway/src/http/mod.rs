//! What devices and modules ask over HTTPS: events and messages without a connection that lasts, a WebSocket for another protocol,
//! and method calls from module to module.

pub mod answer;
pub mod device;
pub mod method_call;
pub(crate) mod provisioning;
pub mod query;
pub mod websocket;
