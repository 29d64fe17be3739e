//! Holm judged by peers: the original SDKs, and clients that say what no SDK would.

mod bad_input;
mod command_line;
mod connect_rules;
mod demo;
mod deployments;
mod device_story;
mod docker_rules;
mod downstream;
mod edge_certificates;
mod edge_check;
mod edge_identities;
mod edge_input;
mod edge_story;
mod full_disk;
mod metrics;
mod mqtt_rules;
mod other_data;
mod plain_client;
mod reboot;
mod rest_rules;
mod service_story;
mod store_and_forward;
mod survival;
mod tour;
