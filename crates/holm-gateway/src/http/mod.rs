//! What devices and modules ask over HTTPS: a WebSocket for another protocol, and method calls from module to module.

pub mod answer;
pub mod method_call;
pub mod websocket;
