//! The acceptance rows of `hub-device-protocols.md` §8 that concern MQTT and the front; each test names its rows. Rows about
//! tokens and certificates are tests of the identity crate and of the hub.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::time::Duration;

use holm_gateway::{InvokeError, Settlement, Subscriptions};
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::method::{MethodRequest, MethodResponse};
use holm_model::{Message, SystemProperty, Timestamp};
use holm_mqtt::{Closed, Event, Granted, Qos, Refusal};
use serde_json::{Value, json};
use support::{Fixture, POLICY_TOKEN, connect, text, will};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const QUIET: Duration = Duration::from_millis(100);
const EVENTS: &str = "devices/dev1/messages/events/";
const C2D: &str = "devices/dev1/messages/devicebound/#";

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let bytes = Fixture::edge().task_bytes();

    assert!(bytes <= 1600, "{bytes} bytes, for each of thousands");
}

#[tokio::test]
async fn row_08_a_wrong_token_is_refused_with_5() {
    let mut wrong = connect("dev1");
    wrong.credentials.as_mut().unwrap().password = Some("bad".into());

    let refused = Fixture::hub().try_connect(wrong).await.err();

    assert_eq!(refused, Some(Closed::Refused(Refusal::NotAuthorized)));
}

#[tokio::test]
async fn row_14_an_unreachable_registry_is_answered_with_3_and_not_5() {
    let fixture = Fixture::hub();
    fixture.node.lock().unavailable = true;

    let refused = fixture.try_connect(connect("dev1")).await.err();

    assert_eq!(refused, Some(Closed::Refused(Refusal::ServerUnavailable)));
}

#[tokio::test]
async fn a_session_that_a_policy_has_let_in_ends_with_it_and_no_other() {
    let fixture = Fixture::hub();
    let ends = Timestamp::from_unix_millis(4_000_000_000_000);
    fixture.node.set_policies(Some(ends));
    let _own = fixture.connect("dev1").await;
    let mut by_policy = connect("dev2");
    by_policy.credentials.as_mut().unwrap().password = Some(POLICY_TOKEN.into());
    let (mut by_policy, _) = fixture.try_connect(by_policy).await.unwrap();

    // Another policy: this one is as it was, or there would be no answer.
    fixture.node.set_policies(Some(ends));
    by_policy
        .subscribe(&[("devices/dev2/messages/devicebound/#", Qos::AtLeastOnce)])
        .await;
    fixture.node.set_policies(None);

    assert_eq!(by_policy.closed().await, Closed::Lost);
    fixture.node.until(|state| state.closed == 1).await;
    assert_eq!(fixture.directory.count(), 1);
}

#[tokio::test]
async fn a_client_whose_policy_goes_while_it_is_let_in_does_not_stay() {
    let fixture = Fixture::hub();
    let mut by_policy = connect("dev1");
    by_policy.credentials.as_mut().unwrap().password = Some(POLICY_TOKEN.into());

    let (mut client, _) = fixture.try_connect(by_policy).await.unwrap();

    assert_eq!(client.closed().await, Closed::Lost);
    fixture.node.until(|state| state.closed == 1).await;
    assert_eq!(fixture.directory.count(), 0);
}

#[tokio::test]
async fn row_18_the_newest_connection_of_an_identity_wins() {
    let fixture = Fixture::hub();
    let mut first = fixture.connect("dev1").await;

    let _second = fixture.connect("dev1").await;

    assert_eq!(first.closed().await, Closed::Lost);
    fixture.node.until(|state| state.closed == 1).await;
    assert_eq!(fixture.directory.count(), 1);
}

#[tokio::test]
async fn row_19_a_device_and_its_module_stay_side_by_side() {
    let fixture = Fixture::hub();
    let mut device = fixture.connect("dev1").await;
    let mut module = fixture.connect("dev1/mod1").await;

    device.nothing_for(QUIET).await;
    module.nothing_for(QUIET).await;
    assert_eq!(fixture.directory.count(), 2);
}

#[tokio::test]
async fn row_20_and_21_gateway_hosts_raw_model_ids_and_unknown_names_are_accepted() {
    let fixture = Fixture::hub();
    for user in [
        "gateway.test/dev1/?api-version=2020-09-30&DeviceClientType=x&auth-chain=",
        "hub.test/dev1/?api-version=2021-04-12&model-id=dtmi:com:ex:T;1&DeviceClientType=x&whatever=1",
        "hub.test/dev1/api-version=2018-06-30",
    ] {
        let mut request = connect("dev1");
        request.credentials.as_mut().unwrap().user_name = text(user);
        assert!(fixture.try_connect(request).await.is_ok(), "{user}");
    }

    assert_eq!(fixture.node.lock().models[1].as_deref(), Some("dtmi:com:ex:T;1"));
}

#[tokio::test(start_paused = true)]
async fn more_than_the_node_lets_in_wait_their_turn_and_the_rest_is_refused_with_3() {
    const DEVICES: usize = 40;
    let (fixture, before) = (Fixture::hub_with_logins(1), tokio::time::Instant::now());

    let coming = (0..DEVICES).map(|number| fixture.try_connect(connect(&format!("dev{number}"))));
    let outcomes = futures_util::future::join_all(coming).await;

    let (let_in, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    // A burst of two, and ten that wait.
    assert_eq!((let_in.len(), refused.len()), (12, DEVICES - 12));
    let unavailable = Closed::Refused(Refusal::ServerUnavailable);
    assert!(
        refused
            .into_iter()
            .all(|outcome| outcome.err().as_ref() == Some(&unavailable))
    );
    assert!(before.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn row_22_a_client_id_that_is_not_the_user_names_identity_is_refused_with_5() {
    let mut other = connect("dev1");
    other.client_id = text("dev10");

    let refused = Fixture::hub().try_connect(other).await.err();

    assert_eq!(refused, Some(Closed::Refused(Refusal::NotAuthorized)));
}

#[tokio::test]
async fn row_23_protocol_level_3_is_answered_with_1_and_a_packet_before_connect_closes() {
    let fixture = Fixture::hub();
    let mut old = fixture.dial();
    old.write_all(&[
        0x10, 16, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60, 0, 2, b'd', b'1',
    ])
    .await
    .unwrap();
    let mut hasty = fixture.dial();
    hasty.write_all(&[0xC0, 0]).await.unwrap();

    let mut answer = Vec::new();
    old.read_to_end(&mut answer).await.unwrap();
    let mut nothing = Vec::new();
    hasty.read_to_end(&mut nothing).await.unwrap();

    assert_eq!(answer, [0x20, 2, 0, 1]);
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn row_25_a_kept_session_brings_what_came_meanwhile_without_a_new_subscribe() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[(C2D, Qos::AtLeastOnce)]).await;
    client.disconnect().await;
    fixture.node.until(|state| state.closed == 1).await;
    fixture.node.put(1, None, Message::new("while away"));

    let (mut client, present) = fixture.try_connect(connect("dev1")).await.unwrap();

    assert!(present);
    assert_eq!(client.message().await.1, "while away");
    client.nothing_for(QUIET).await;
    fixture
        .node
        .until(|state| state.settled == [(1, Settlement::Complete)])
        .await;
}

#[tokio::test]
async fn row_26_a_clean_session_discards_the_kept_one() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[(C2D, Qos::AtLeastOnce)]).await;
    client.disconnect().await;
    fixture.node.until(|state| state.closed == 1).await;
    fixture.node.put(1, None, Message::new("while away"));
    let mut clean = connect("dev1");
    clean.clean_session = true;

    let (mut client, present) = fixture.try_connect(clean).await.unwrap();

    assert!(!present);
    client.nothing_for(QUIET).await;
    client.subscribe(&[(C2D, Qos::AtLeastOnce)]).await;
    assert_eq!(client.message().await.1, "while away");
}

#[tokio::test]
async fn row_29_and_42_acknowledgements_wait_for_the_disk_and_leave_in_order() {
    let fixture = Fixture::hub();
    let (disk, durable) = watch::channel(0);
    *fixture.node.disk.lock().unwrap() = Some(durable);
    let mut client = fixture.connect("dev1").await;
    let sent: Vec<_> = (0..16).filter_map(|n| client.publish(EVENTS, vec![n])).collect();
    client.nothing_for(QUIET).await;
    fixture.node.until(|state| state.ingested.len() == 16).await;

    disk.send_replace(100);

    let mut acknowledged = Vec::new();
    while acknowledged.len() < sent.len() {
        if let Event::Acknowledged(token) = client.event().await {
            acknowledged.push(token);
        }
    }
    assert_eq!(acknowledged, sent);
}

#[tokio::test]
async fn sixteen_unacknowledged_messages_pause_reading() {
    let fixture = Fixture::hub();
    let (disk, durable) = watch::channel(0);
    *fixture.node.disk.lock().unwrap() = Some(durable);
    let mut client = fixture.connect("dev1").await;
    let mut more = fixture.connect("dev2").await;
    for n in 0..16 {
        client.publish(EVENTS, vec![n]);
    }
    client.nothing_for(QUIET).await;
    fixture.node.until(|state| state.ingested.len() == 16).await;
    // QoS 0 needs no acknowledgement, and still waits behind what does.
    client.publish_with(EVENTS, "17", Qos::AtMostOnce, false);
    client.nothing_for(QUIET).await;
    more.publish("devices/dev2/messages/events/", "other");
    more.nothing_for(QUIET).await;

    let before = fixture.node.lock().ingested.len();
    disk.send_replace(100);

    assert_eq!(before, 17, "16 of the paused client, 1 of the other");
    let driving = tokio::spawn(async move { client.closed().await });
    fixture.node.until(|state| state.ingested.len() == 18).await;
    driving.abort();
}

#[tokio::test]
async fn row_30_to_33_bags_of_every_sdk_are_read_alike() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1/mod1").await;
    let topic = "devices/dev1/modules/mod1/messages/events/";
    for bag in [
        "%24.mid=m1&%24.on=out&a=1/",
        "$.mid=m1&$.on=out&a=1",
        "%24.mid=m1&%24.on=out&a=b c/d?e",
        "a&b=&c=%2B+",
    ] {
        client.publish(&format!("{topic}{bag}"), "x");
    }
    client.acknowledged(4).await;
    fixture.node.until(|state| state.ingested.len() == 4).await;

    let state = fixture.node.lock();
    let of = |n: usize| &state.ingested[n].1;
    for n in 0..3 {
        assert_eq!(of(n).system.get(SystemProperty::MessageId), Some("m1"));
        assert_eq!(of(n).system.get(SystemProperty::OutputName), Some("out"));
    }
    assert_eq!(of(0).properties.get("a"), Some(Some("1")));
    assert_eq!(of(1).properties.get("a"), Some(Some("1")));
    assert_eq!(of(2).properties.get("a"), Some(Some("b c/d?e")));
    assert_eq!(of(3).properties.get("a"), Some(None));
    assert_eq!(of(3).properties.get("b"), Some(Some("")));
    assert_eq!(of(3).properties.get("c"), Some(Some("++")));
}

#[tokio::test]
async fn row_34_a_retained_message_becomes_a_property() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;

    client.publish_with(EVENTS, "x", Qos::AtLeastOnce, true);
    assert!(matches!(client.event().await, Event::Acknowledged(_)));

    assert_eq!(
        fixture.node.lock().ingested[0].1.properties.get("mqtt-retain"),
        Some(Some("true"))
    );
}

#[tokio::test]
async fn row_36_and_37_filters_are_granted_in_order_at_most_at_qos_1() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;

    let granted = client
        .subscribe(&[
            ("$iothub/methods/POST/#", Qos::AtMostOnce),
            (C2D, Qos::AtLeastOnce),
            ("$iothub/twin/res/#", Qos::AtMostOnce),
        ])
        .await;

    assert_eq!(
        granted,
        [
            Granted::Qos(Qos::AtMostOnce),
            Granted::Qos(Qos::AtLeastOnce),
            Granted::Qos(Qos::AtMostOnce)
        ]
    );
}

#[tokio::test]
async fn row_38_another_devices_topic_is_refused_with_0x80_by_hub_and_edge() {
    for fixture in [Fixture::hub(), Fixture::edge()] {
        let mut client = fixture.connect("dev1").await;
        let foreign = "devices/dev10/messages/devicebound/#";

        assert_eq!(
            client.subscribe(&[(foreign, Qos::AtLeastOnce)]).await,
            [Granted::Failure]
        );
        assert_eq!(
            client.subscribe(&[("plant/line1/#", Qos::AtLeastOnce)]).await,
            [Granted::Failure]
        );
        fixture.node.put(1, None, Message::new("x"));
        client.nothing_for(QUIET).await;
    }
}

#[tokio::test]
async fn the_edge_grants_a_published_filter_that_means_nothing_and_the_hub_refuses_it() {
    let filter = "$iothub/streams/POST/#";

    let at_edge = Fixture::edge()
        .connect("dev1/m")
        .await
        .subscribe(&[(filter, Qos::AtLeastOnce)])
        .await;
    let at_hub = Fixture::hub()
        .connect("dev1/m")
        .await
        .subscribe(&[(filter, Qos::AtLeastOnce)])
        .await;

    assert_eq!(at_edge, [Granted::Qos(Qos::AtLeastOnce)]);
    assert_eq!(at_hub, [Granted::Failure]);
}

#[tokio::test]
async fn row_39_a_foreign_or_unknown_topic_closes_and_stores_nothing() {
    for topic in [
        "devices/dev2/messages/events/",
        "devices/dev1/modules/m/messages/events/",
        "plant/line1",
    ] {
        let fixture = Fixture::hub();
        let mut client = fixture.connect("dev1").await;

        client.publish(topic, "x");

        assert_eq!(client.closed().await, Closed::Lost, "{topic}");
        assert!(fixture.node.lock().ingested.is_empty(), "{topic}");
    }
}

#[tokio::test]
async fn row_40_a_message_of_one_byte_too_many_closes() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.publish(EVENTS, vec![0; 256 * 1024]);
    assert!(matches!(client.event().await, Event::Acknowledged(_)));

    client.publish(EVENTS, vec![0; 256 * 1024 + 1]);

    assert_eq!(client.closed().await, Closed::Lost);
    assert_eq!(fixture.node.lock().ingested.len(), 1);
}

#[tokio::test]
async fn row_41_a_will_is_told_when_the_socket_is_cut_and_not_after_a_goodbye() {
    for (fixture, name) in [(Fixture::hub(), "iothub-MessageType"), (Fixture::edge(), "MessageType")] {
        let mut request = connect("dev1");
        request.will = will("devices/dev1/messages/events/k=v");
        let (polite, _) = fixture.try_connect(request.clone()).await.unwrap();
        polite.disconnect().await;
        fixture.node.until(|state| state.closed == 1).await;
        assert!(fixture.node.lock().ingested.is_empty());

        let (cut, _) = fixture.try_connect(request).await.unwrap();
        drop(cut);
        fixture.node.until(|state| state.closed == 2).await;

        let state = fixture.node.lock();
        let (_, told) = &state.ingested[0];
        assert_eq!(told.body, "gone");
        assert_eq!(told.properties.get(name), Some(Some("Will")));
        assert_eq!(told.properties.get("k"), Some(Some("v")));
    }
}

#[tokio::test]
async fn a_will_on_a_foreign_topic_is_refused_at_connect() {
    let mut request = connect("dev1");
    request.will = will("devices/dev2/messages/events/");

    let refused = Fixture::hub().try_connect(request).await.err();

    assert_eq!(refused, Some(Closed::Refused(Refusal::NotAuthorized)));
}

async fn twin_client(fixture: &Fixture) -> support::Client {
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[("$iothub/twin/res/#", Qos::AtMostOnce)]).await;
    client
}

#[tokio::test]
async fn row_43_a_twin_is_read_with_both_versions() {
    let fixture = Fixture::hub();
    let mut client = twin_client(&fixture).await;

    client.publish_with("$iothub/twin/GET/?$rid=R-1", " ", Qos::AtMostOnce, false);

    let (topic, body, _) = client.message().await;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=R-1");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({ "desired": { "$version": 7 }, "reported": { "$version": 3 } })
    );
}

#[tokio::test]
async fn row_44_reported_patches_are_applied_in_order_and_answered_with_their_version() {
    let fixture = Fixture::hub();
    let mut client = twin_client(&fixture).await;

    client.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"a":{"b":null}}"#);
    client.publish(
        "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=4",
        r#"{"a":1}"#,
    );

    assert_eq!(client.message().await.0, "$iothub/twin/res/204/?$rid=1&$version=4");
    assert_eq!(client.message().await.0, "$iothub/twin/res/204/?$rid=2&$version=5");
    let state = fixture.node.lock();
    assert_eq!(
        state.reported,
        [(json!({ "a": { "b": null } }), None), (json!({ "a": 1 }), Some(4))]
    );
}

#[tokio::test]
async fn row_45_and_47_a_refusal_carries_the_number_that_node_needs() {
    let fixture = Fixture::hub();
    let mut client = twin_client(&fixture).await;
    client.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", "{");
    let (topic, body, _) = client.message().await;
    assert_eq!(topic, "$iothub/twin/res/400/?$rid=1");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["errorCode"], 400_004);

    fixture.node.lock().twin_fails = Some(ServiceError::new(ErrorCode::ThrottlingException, "later"));
    client.publish("$iothub/twin/GET/?$rid=2", "");

    let (topic, body, _) = client.message().await;
    assert_eq!(topic, "$iothub/twin/res/429/?$rid=2");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&body["errorCode"], &body["message"]),
        (&json!(429_001), &json!("later"))
    );
}

#[tokio::test]
async fn a_reported_integer_of_more_than_64_bits_is_refused_as_it_was_written() {
    let fixture = Fixture::hub();
    let mut client = twin_client(&fixture).await;

    client.publish(
        "$iothub/twin/PATCH/properties/reported/?$rid=1",
        r#"{"n":99999999999999999999}"#,
    );
    let (topic, body, _) = client.message().await;

    assert!(topic.starts_with("$iothub/twin/res/400/?$rid=1"), "{topic}");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(
        body.contains("`properties.reported.n` is 99999999999999999999"),
        "{body}"
    );
    assert!(fixture.node.lock().reported.is_empty());
}

#[tokio::test]
async fn row_48_a_twin_request_without_an_id_is_dropped_by_the_hub_and_closes_at_the_edge() {
    let hub = Fixture::hub();
    let mut client = twin_client(&hub).await;
    client.publish_with("$iothub/twin/GET/", "", Qos::AtMostOnce, false);
    client.nothing_for(QUIET).await;

    let edge = Fixture::edge();
    let mut client = twin_client(&edge).await;
    client.publish_with("$iothub/twin/GET/", "", Qos::AtMostOnce, false);

    assert_eq!(client.closed().await, Closed::Lost);
}

#[tokio::test]
async fn row_49_desired_changes_reach_those_who_subscribed_and_nobody_else() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    let session = fixture.directory.find(&"dev1".parse().unwrap()).unwrap();
    session.desired_changed(json!({ "fan": 1, "$version": 8 }));
    client.nothing_for(QUIET).await;
    client
        .subscribe(&[("$iothub/twin/PATCH/properties/desired/#", Qos::AtLeastOnce)])
        .await;

    session.desired_changed(json!({ "fan": 2, "$version": 9 }));

    let (topic, body, _) = client.message().await;
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=9");
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({ "fan": 2, "$version": 9 })
    );
}

fn call(name: &str, payload: Value) -> MethodRequest {
    let mut request = MethodRequest::new(name, payload).unwrap();
    request.response_timeout = Duration::from_secs(5);
    request
}

#[tokio::test]
async fn row_50_a_method_is_called_with_null_for_no_payload_and_answered_by_its_request_id() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[("$iothub/methods/POST/#", Qos::AtMostOnce)]).await;
    let directory = fixture.directory.clone();
    let caller = tokio::spawn(async move {
        directory
            .invoke(&"dev1".parse().unwrap(), call("reboot", Value::Null))
            .await
    });

    let (topic, payload, _) = client.message().await;
    let rid = topic.strip_prefix("$iothub/methods/POST/reboot/?$rid=").unwrap();
    assert_eq!(payload, "null");
    client.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), r#"{"ok":true}"#);
    client.publish(
        &format!("$iothub/methods/res/200/?$rid={rid}"),
        "\"a repeat is dropped\"",
    );
    assert!(matches!(client.event().await, Event::Acknowledged(_)));

    assert_eq!(
        caller.await.unwrap(),
        Ok(MethodResponse {
            status: 200,
            payload: json!({ "ok": true })
        })
    );
}

#[tokio::test(start_paused = true)]
async fn row_51_and_52_nobody_listening_and_no_answer_are_told_apart() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    let dev1 = "dev1".parse().unwrap();
    assert_eq!(
        fixture.directory.invoke(&dev1, call("m", json!(1))).await,
        Err(InvokeError::NotOnline)
    );
    client.subscribe(&[("$iothub/methods/POST/#", Qos::AtMostOnce)]).await;
    let drive = tokio::spawn(async move { client.message().await });

    let outcome = fixture.directory.invoke(&dev1, call("m", json!(1))).await;

    assert_eq!(outcome, Err(InvokeError::NoAnswer));
    drive.abort();
}

#[tokio::test]
async fn a_call_waits_for_a_client_to_connect_and_listen() {
    let fixture = Fixture::hub();
    let directory = fixture.directory.clone();
    let caller = tokio::spawn(async move {
        let mut request = call("m", json!(1));
        request.connect_timeout = Duration::from_secs(10);
        directory.invoke(&"dev1".parse().unwrap(), request).await
    });
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[("$iothub/methods/POST/#", Qos::AtMostOnce)]).await;

    let (topic, _, _) = client.message().await;
    let (_, rid) = topic.split_once("$rid=").unwrap();
    client.publish(&format!("$iothub/methods/res/7/?$rid={rid}"), "");
    assert!(matches!(client.event().await, Event::Acknowledged(_)));

    assert_eq!(
        caller.await.unwrap(),
        Ok(MethodResponse {
            status: 7,
            payload: Value::Null
        })
    );
}

#[tokio::test]
async fn row_53_a_cloud_to_device_message_has_a_bag_that_every_sdk_reads() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[(C2D, Qos::AtLeastOnce)]).await;
    let mut message = Message::new("turn on");
    message.system.set(SystemProperty::MessageId, "m-1");
    message.properties.set("a key", Some("v+1&".into()));

    fixture.node.put(4, None, message);

    let (topic, body, dup) = client.message().await;
    assert_eq!(
        topic,
        "devices/dev1/messages/devicebound/%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound&%24.mid=m-1&a%20key=v%2B1%26"
    );
    assert_eq!((body.as_ref(), dup), (b"turn on".as_ref(), false));
    client.nothing_for(Duration::from_millis(20)).await;
    fixture
        .node
        .until(|state| state.settled == [(4, Settlement::Complete)])
        .await;
}

#[tokio::test]
async fn row_54_what_was_not_acknowledged_comes_again_as_a_repeat() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[(C2D, Qos::AtLeastOnce)]).await;
    fixture.node.put(4, None, Message::new("x"));
    assert!(matches!(client.event().await, Event::Publish { .. }));
    drop(client);
    fixture.node.until(|state| state.closed == 1).await;

    let (mut client, _) = fixture.try_connect(connect("dev1")).await.unwrap();

    let (_, body, dup) = client.message().await;
    assert_eq!((body.as_ref(), dup), (b"x".as_ref(), true));
}

#[tokio::test]
async fn inputs_reach_a_module_under_their_name() {
    let fixture = Fixture::edge();
    let mut client = fixture.connect("dev1/mod1").await;
    client
        .subscribe(&[("devices/dev1/modules/mod1/#", Qos::AtLeastOnce)])
        .await;
    let mut message = Message::new("21.5");
    message.system.set(SystemProperty::ConnectionDeviceId, "dev1");
    message.system.set(SystemProperty::ConnectionModuleId, "sensor");

    fixture.node.put(1, Some("readings"), message);

    let (topic, body, _) = client.message().await;
    assert_eq!(
        topic,
        "devices/dev1/modules/mod1/inputs/readings/%24.cdid=dev1&%24.cmid=sensor"
    );
    assert_eq!(body, "21.5");
}

#[tokio::test]
async fn after_an_unsubscribe_nothing_more_is_listened_to() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client
        .subscribe(&[("$iothub/methods/POST/#", Qos::AtMostOnce), (C2D, Qos::AtLeastOnce)])
        .await;
    let session = fixture.directory.find(&"dev1".parse().unwrap()).unwrap();
    assert!(session.subscriptions().contains(Subscriptions::METHODS));

    client.unsubscribe(&["$iothub/methods/POST/#"]).await;

    assert!(!session.subscriptions().contains(Subscriptions::METHODS));
    assert!(session.subscriptions().contains(Subscriptions::CLOUD_TO_DEVICE));
    assert_eq!(
        fixture.node.lock().kept[&"dev1".parse().unwrap()],
        [(C2D.to_owned(), 1)]
    );
}

#[tokio::test]
async fn a_scope_that_stops_closes_its_clients() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    let watching = tokio::spawn(async move { client.closed().await });

    assert_eq!(fixture.scope.drain(support::PATIENCE).await, Ok(()));

    assert_eq!(watching.await.unwrap(), Closed::Lost);
}

#[tokio::test]
async fn a_stop_acknowledges_what_reaches_the_disk_in_time_and_takes_nothing_more() {
    let fixture = Fixture::hub();
    let (disk, durable) = watch::channel(0);
    *fixture.node.disk.lock().unwrap() = Some(durable);
    let mut client = fixture.connect("dev1").await;
    let sent: Vec<_> = (0..3).filter_map(|n| client.publish(EVENTS, vec![n])).collect();
    client.nothing_for(QUIET).await;

    fixture.scope.stop();
    client.nothing_for(QUIET).await;
    client.publish(EVENTS, "too late");
    client.nothing_for(QUIET).await;
    disk.send_replace(100);

    for token in sent {
        assert_eq!(client.event().await, Event::Acknowledged(token));
    }
    assert_eq!(client.closed().await, Closed::Lost);
    assert_eq!(fixture.node.lock().ingested.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_disk_that_does_not_answer() {
    let fixture = Fixture::hub();
    let (_disk, durable) = watch::channel(0);
    *fixture.node.disk.lock().unwrap() = Some(durable);
    let mut client = fixture.connect("dev1").await;
    client.publish(EVENTS, "never stored");
    tokio::select! {
        () = fixture.node.until(|state| state.ingested.len() == 1) => {}
        event = client.event() => panic!("nothing was to arrive, and there came {event:?}"),
    }
    let watching = tokio::spawn(async move { client.closed().await });

    assert_eq!(fixture.scope.drain(Duration::from_secs(3)).await, Ok(()));

    assert_eq!(watching.await.unwrap(), Closed::Lost);
}

#[tokio::test]
async fn what_was_not_sent_before_an_unsubscribe_goes_back() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;
    client.subscribe(&[(C2D, Qos::AtLeastOnce)]).await;
    // Far more than the connection takes while nobody reads it.
    for lease in 0..16 {
        fixture.node.put(lease, None, Message::new(vec![b'x'; 220 * 1024]));
    }
    fixture.node.until(|state| state.leased.len() == 16).await;

    let came = client.unsubscribe_meanwhile(&[C2D]).await;
    client.nothing_for(QUIET).await;

    let settled = fixture.node.lock().settled.clone();
    assert!(
        came < 16,
        "all were sent before the UNSUBSCRIBE: the test shows nothing"
    );
    assert_eq!(settled.len(), 16 - came);
    assert!(settled.iter().all(|(_, settlement)| *settlement == Settlement::Release));
}

/// A device whose message waits for room at the node.
async fn waiting_for_room(fixture: &Fixture) -> (support::Client, watch::Sender<bool>) {
    let (room, free) = watch::channel(false);
    *fixture.node.room.lock().unwrap() = Some(free);
    let mut client = fixture.connect("dev1").await;
    client.publish(EVENTS, "waits");
    client.publish(EVENTS, "waits behind it");
    tokio::select! {
        () = fixture.node.until(|state| state.entering == 1) => {}
        event = client.event() => panic!("nothing was to arrive, and there came {event:?}"),
    }
    (client, room)
}

#[tokio::test]
async fn a_newer_connection_replaces_one_whose_message_waits_for_room() {
    let fixture = Fixture::hub();
    let (mut first, room) = waiting_for_room(&fixture).await;

    let mut second = fixture.connect("dev1").await;

    assert_eq!(first.closed().await, Closed::Lost);
    fixture.node.until(|state| state.closed == 1).await;
    room.send_replace(true);
    second.publish(EVENTS, "goes on");
    second.acknowledged(1).await;
    let bodies: Vec<_> = fixture
        .node
        .lock()
        .ingested
        .iter()
        .map(|(_, message)| message.body.clone())
        .collect();
    assert_eq!(bodies, ["goes on"]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_message_that_waits_for_room() {
    let fixture = Fixture::hub();
    let (mut client, _room) = waiting_for_room(&fixture).await;
    let watching = tokio::spawn(async move { client.closed().await });

    assert_eq!(fixture.scope.drain(Duration::from_secs(3)).await, Ok(()));

    assert_eq!(watching.await.unwrap(), Closed::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_finds_no_room_does_not_keep_the_session_of_a_client_that_is_gone() {
    let fixture = Fixture::hub();
    let (client, _room) = waiting_for_room(&fixture).await;

    drop(client);

    fixture.node.until(|state| state.closed == 1).await;
    assert_eq!(fixture.directory.count(), 0);
    assert!(fixture.node.lock().ingested.is_empty());
}

#[tokio::test]
async fn messages_that_wait_for_room_keep_their_order_and_outlast_a_goodbye() {
    let fixture = Fixture::hub();
    let (client, room) = waiting_for_room(&fixture).await;

    client.disconnect().await;
    room.send_replace(true);

    fixture
        .node
        .until(|state| state.ingested.len() == 2 && state.closed == 1)
        .await;
    let bodies: Vec<_> = fixture
        .node
        .lock()
        .ingested
        .iter()
        .map(|(_, message)| message.body.clone())
        .collect();
    assert_eq!(bodies, ["waits", "waits behind it"]);
}

#[tokio::test]
async fn connections_are_counted_by_how_they_ended() {
    let fixture = Fixture::hub();
    fixture.connect("dev1").await.disconnect().await;
    let mut replaced = fixture.connect("dev2").await;
    let _open = fixture.connect("dev2").await;
    replaced.closed().await;
    let mut wrong = connect("dev3");
    wrong.credentials.as_mut().unwrap().password = Some("bad".into());
    assert!(fixture.try_connect(wrong).await.is_err());
    let mut foreign = fixture.connect("dev4").await;
    foreign.publish("devices/other/messages/events/", "x");
    foreign.closed().await;

    let text = || {
        let mut out = holm_gateway::metrics::Exposition::default();
        fixture.gateway.metrics().write("x", &mut out);
        out.into_text()
    };
    let ended = async {
        while !text().contains("x_connections{protocol=\"mqtt\"} 1\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, ended).await.unwrap();

    for line in [
        "x_connections_total{protocol=\"mqtt\"} 5",
        "x_connections_refused_total{reason=\"not_authorized\"} 1",
        "x_connections_ended_total{reason=\"disconnected\"} 1",
        "x_connections_ended_total{reason=\"replaced\"} 1",
        "x_connections_ended_total{reason=\"refused\"} 1",
        "x_connections_ended_total{reason=\"message_refused\"} 1",
    ] {
        assert!(text().contains(line), "`{line}` is not in\n{}", text());
    }
}
