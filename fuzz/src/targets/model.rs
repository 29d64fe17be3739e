//! Targets of `holm-model`.

use bytes::Bytes;
use holm_model::manifest::{AgentDesired, DeploymentContent, EdgeHubDesired};
use holm_model::twin::{patch, reported_from_json};
use holm_model::wire::{ClientTopic, ServerTopic, Subscription, UserName, bag as bags, http, percent};
use holm_model::{Identity, Message, MethodRequest, MethodResponse, Timestamp, TwinUpdate};
use serde_json::{Map, Value};

use super::text;

/// Whose topics are read.
fn owner() -> Identity {
    "dev1/mod1".parse().expect("an id of this program is one")
}

pub(super) fn topic(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let own = owner();
    // The result is of no interest here; that there is one is.
    drop(ClientTopic::parse(text, &own));
    drop(ClientTopic::parse_any(text));
    drop(ServerTopic::parse(text, &own));
    drop(Subscription::parse(text, &own));
}

pub(super) fn bag(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let (system, properties) = bags::from_client(text);
    assert!(properties.len() <= text.len() + 1 && system.iter().count() <= text.len() + 1);
    drop(bags::from_server(text));
    drop(percent::decode(text));
}

pub(super) fn user_name(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        drop(UserName::parse(text));
    }
}

pub(super) fn headers(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    drop(http::from_headers(text.lines().filter_map(|line| line.split_once(':'))));
}

pub(super) fn identity(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
    }
}

pub(super) fn timestamp(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Some(moment) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment), "{text}");
    }
}

pub(super) fn stored_message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Message::decode(message.encode()).ok().as_ref(), Some(&message));
        drop(message.to_event());
    }
}

pub(super) fn twin_patch(bytes: &[u8]) {
    drop(TwinUpdate::from_json(bytes));
    let Ok(given) = reported_from_json(bytes) else { return };
    let mut target = Map::from_iter([
        ("a".to_owned(), Value::from(1)),
        ("b".to_owned(), Value::Object(given.clone())),
    ]);
    patch::apply(&mut target, &given);
    let once = target.clone();
    patch::apply(&mut target, &given);
    assert_eq!(once, target, "a patch applied twice is a patch applied once");
}

pub(super) fn method(bytes: &[u8]) {
    drop(MethodRequest::from_json(bytes));
    drop(MethodResponse::from_json(bytes));
    drop(MethodResponse::from_device(200, bytes));
}

pub(super) fn manifest(bytes: &[u8]) {
    drop(DeploymentContent::from_json(bytes));
    if let Ok(Value::Object(desired)) = serde_json::from_slice(bytes) {
        drop(AgentDesired::parse(&desired));
        drop(EdgeHubDesired::parse(&desired));
    }
    if let Some(text) = text(bytes) {
        drop(AgentDesired::parse(&with_create_options(text)));
    }
}

/// A deployment of one module with these create options, which need not be JSON quite.
fn with_create_options(text: &str) -> Map<String, Value> {
    let settings = serde_json::json!({"image": "a", "createOptions": text});
    let modules = serde_json::json!({"m": {"type": "docker", "status": "running", "settings": settings}});
    Map::from_iter([
        ("schemaVersion".to_owned(), Value::from("1.1")),
        ("runtime".to_owned(), serde_json::json!({"type": "docker"})),
        ("modules".to_owned(), modules),
    ])
}
