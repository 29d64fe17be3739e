use std::path::Path;

use serde_json::{Value, json};

use super::super::testing::{World, routed};
use super::*;
use crate::routing::SendError;

fn broker(document: Value) -> Result<Broker, DefinitionError> {
    let Value::Object(mut document) = document else {
        panic!("a definition is an object");
    };
    document.insert("kind".into(), json!("mqtt"));
    document.entry("url").or_insert(json!("mqtt://localhost"));
    document.entry("topic").or_insert(json!("in/{device}"));
    let definition = crate::routing::EndpointDefinition::read("hot".parse()?, document)?;
    let crate::routing::Settings::Mqtt(settings) = definition.settings else {
        panic!("the kind is mqtt");
    };
    Broker::new(&settings, &World::new(Path::new("unused")).surroundings)
}

fn message(document: Value) -> Message {
    let mut routed = routed(7, "d+1");
    routed.message.system.set(SystemProperty::MessageId, "m 1");
    routed.message.system.set(SystemProperty::ConnectionModuleId, "m");
    routed.message.properties.set("level", Some("high".into()));
    broker(document).unwrap().message(&routed).unwrap()
}

#[test]
fn properties_travel_as_the_settings_say() {
    let envelope = message(json!({}));
    let topic = message(json!({ "properties": "topic" }));
    let none = message(json!({ "properties": "none" }));

    let record: Value = serde_json::from_slice(&envelope.payload).unwrap();
    assert_eq!(
        (&record["Properties"], &record["Body"]),
        (&json!({ "level": "high" }), &json!({ "n": 7 }))
    );
    assert_eq!(record["SystemProperties"]["connectionModuleId"], "m");
    assert_eq!(envelope.topic.as_str(), "in/d%2B1");
    assert_eq!(
        topic.topic.as_str(),
        "in/d%2B1/%24.mid=m%201&%24.ct=application%2Fjson&%24.ce=utf-8&level=high&%24.cdid=d%2B1&%24.cmid=m"
    );
    assert_eq!(
        (none.topic.as_str(), &none.payload[..]),
        ("in/d%2B1", &b"{\"n\":7}"[..])
    );
    assert_eq!(topic.payload, none.payload);
}

#[test]
fn a_topic_that_is_longer_than_mqtt_has_is_never_sent() {
    let mut routed = routed(7, "d1");
    routed.message.properties.set("long", Some("/".repeat(30_000)));

    let refused = broker(json!({ "properties": "topic" })).unwrap().message(&routed);

    assert!(refused.unwrap_err().contains("65535"));
}

#[test]
fn what_can_not_work_names_its_member_and_no_secret_is_printed() {
    for (document, member) in [
        (json!({ "topic": "in/#" }), "topic"),
        (json!({ "url": "mqtt://h/path" }), "url"),
        (json!({ "url": "http://h" }), "url"),
        (json!({ "ca": "x" }), "ca"),
        (json!({ "password": "p" }), "user"),
        (json!({ "user": "a\u{0}b" }), "user"),
        (json!({ "properties": "bag" }), "properties"),
        (json!({ "maxInFlight": 0 }), "maxInFlight"),
        (json!({ "clientId": "a\u{0}" }), "clientId"),
    ] {
        assert_eq!(broker(document.clone()).unwrap_err().member, member, "{document}");
    }
    let world = World::new(Path::new("unused"));
    let endpoint = world.open(json!({
        "kind": "mqtt", "url": "mqtt://h", "topic": "t/{source}", "user": "u", "password": "hunter2"
    }));
    let endpoint = endpoint.unwrap();
    assert_eq!(endpoint.describe(), "PUBLISH t/{source} at mqtt://h");
    assert!(!format!("{endpoint:?}").contains("hunter2"));
}

#[test]
fn the_client_id_is_the_same_for_each_life_of_an_endpoint() {
    let own = broker(json!({})).unwrap().connect.client_id;
    let given = broker(json!({ "clientId": "mine" })).unwrap().connect.client_id;

    assert_eq!((own.as_str(), given.as_str()), ("holm-hub-routed-hot-1", "mine"));
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_given_up_in_the_time_that_is_set() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", silent.local_addr().unwrap());
    let world = World::new(Path::new("unused"));
    let definition = json!({ "kind": "mqtt", "url": url, "topic": "t", "timeoutSeconds": 1 });
    let mut endpoint = world.open(definition).unwrap();

    let refused = endpoint.send(&[routed(1, "d1")]).await;

    let Err(SendError::Later { delivered: 0, why, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("within 1 s") || why.contains("in time"), "{why}");
}
