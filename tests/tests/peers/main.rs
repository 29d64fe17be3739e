//! Holm judged by peers: the original SDKs, and clients that say what no SDK would.

mod bad_input;
mod connect_rules;
mod device_story;
mod edge_story;
mod mqtt_rules;
mod rest_rules;
mod service_story;
mod survival;
