//! The targets. To add one: write `fn(&[u8])`, add its line here, put an example into `seeds/NAME/`.

mod amqp;
mod edge;
mod http;
mod hub;
mod identity;
mod model;
mod mqtt;
mod query;

/// A function that reads bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its folder of seeds.
    pub name: &'static str,
    /// Whose bytes these are.
    pub about: &'static str,
    /// Reads the bytes; panics when an invariant is broken.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, about: &'static str, run: fn(&[u8])) -> Target {
    Target { name, about, run }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("amqp-frames", "frames of AMQP, whole and in pieces", amqp::frames),
    target("amqp-message", "messages and batches of AMQP", amqp::message),
    target(
        "amqp-server",
        "a device's side of a whole AMQP connection",
        amqp::server,
    ),
    target("amqp-client", "a hub's side of a whole AMQP connection", amqp::client),
    target(
        "amqp-operations",
        "what two honest sides of an AMQP connection do, in any order",
        amqp::operations,
    ),
    target("mqtt-decode", "a device's packets, whole and in pieces", mqtt::decode),
    target("mqtt-server", "a device's side of a whole connection", mqtt::server),
    target("mqtt-client", "a hub's side of a whole connection", mqtt::client),
    target("topic", "topics and filters of a device", model::topic),
    target("bag", "properties in a topic", model::bag),
    target("user-name", "the user name of CONNECT", model::user_name),
    target("headers", "properties in HTTP headers", model::headers),
    target("identity", "ids", model::identity),
    target("timestamp", "points in time", model::timestamp),
    target(
        "stored-message",
        "a message as it is kept on disk",
        model::stored_message,
    ),
    target(
        "twin-patch",
        "a patch of a twin, from service or device",
        model::twin_patch,
    ),
    target("method", "a method call and its answer", model::method),
    target("manifest", "a deployment manifest", model::manifest),
    target(
        "queue-open",
        "the directory of a queue, damaged in any way",
        holm_queue::testing::open_bytes,
    ),
    target("route", "a route of a deployment", query::route),
    target("hub-condition", "a condition of a hub's route", query::hub_condition),
    target(
        "twin-query",
        "a query over twins, and a target condition",
        query::twin_query,
    ),
    target("sas-token", "a token", identity::token),
    target("connection-string", "a connection string", identity::connection_string),
    target("certificate", "a client certificate", identity::certificate),
    target("http-server", "a client's side of an HTTP connection", http::server),
    target("http-answer", "a hub's side of an HTTP connection", http::answer),
    target("nats-client", "a NATS server's side of a connection", hub::nats_client),
    target("event-batch", "a batch of events over HTTPS", hub::event_batch),
    target("block-list", "the blocks of a blob", hub::block_list),
    target("websocket", "frames of a WebSocket, in both directions", http::frames),
    target("edge-config", "the configuration file of an edge", edge::config),
];

/// The bytes as text, if they are.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
