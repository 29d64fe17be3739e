//! Rows 32 to 41.

use holm_gateway::session::Command;
use holm_gateway::{Subscriptions, Twins};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::TestHub;

#[tokio::test]
async fn a_new_twin_has_all_its_parts() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let reply = hub.get("/twins/d1").await;

    assert_eq!(reply.header("etag"), Some("\"AAAAAAAAAAI=\""));
    let twin = reply.ok();
    assert_eq!((&twin["version"], &twin["configurations"]), (&json!(2), &json!({})));
    for section in ["desired", "reported"] {
        assert_eq!(twin["properties"][section]["$version"], 1);
        assert!(twin["properties"][section]["$metadata"]["$lastUpdated"].is_string());
    }
    assert_eq!(twin["authenticationType"], "sas");
    hub.get("/twins/no").await.assert_error(404, "DeviceNotFound");
    hub.get("/twins/d1/modules/no")
        .await
        .assert_error(404, "ModuleNotFound");
}

#[tokio::test]
async fn a_patch_needs_the_current_etag_if_it_names_one() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let old = hub.get("/twins/d1").await.header("etag").unwrap().to_owned();
    let patch = json!({"tags": {"a": 1}}).to_string();

    let first = hub
        .call(Method::PATCH, "/twins/d1", &[("if-match", &old)], patch.clone())
        .await;
    let second = hub.call(Method::PATCH, "/twins/d1", &[("if-match", &old)], patch).await;

    let new = first.header("etag").unwrap().to_owned();
    assert_eq!((first.ok()["version"].clone(), new == old), (json!(3), false));
    second.assert_error(412, "PreconditionFailed");
}

#[tokio::test]
async fn tools_send_the_whole_twin_back_and_only_tags_and_desired_count() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let backend = hub.hub.backend();
    backend
        .patch_reported(&client.admission, json!({"fw": "1"}), None)
        .await
        .unwrap();
    let mut twin = hub.get("/twins/d1").await.ok();

    twin["tags"]["a"] = json!(1);
    twin["properties"]["reported"]["fw"] = json!("2");
    twin["etag"] = json!("*");
    let after = hub.patch("/twins/d1", twin).await.ok();

    assert_eq!(after["tags"], json!({"a": 1}));
    assert_eq!(after["properties"]["reported"]["fw"], "1");
    assert_eq!(after["properties"]["reported"]["$version"], 2);
}

#[tokio::test]
async fn null_removes_and_put_replaces_what_it_names() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.patch(
        "/twins/d1",
        json!({"tags": {"a": 1, "b": 2}, "properties": {"desired": {"x": {"y": 1, "z": 2}}}}),
    )
    .await
    .ok();

    let patched = hub
        .patch(
            "/twins/d1",
            json!({"tags": {"a": null}, "properties": {"desired": {"x": {"y": null}}}}),
        )
        .await
        .ok();
    let java = hub
        .call(
            Method::POST,
            "/twins/d1",
            &[("X-HTTP-Method-Override", "PATCH")],
            r#"{"tags":{"c":3}}"#,
        )
        .await
        .ok();
    let replaced = hub.put("/twins/d1", json!({"tags": {}})).await.ok();

    assert_eq!(patched["tags"], json!({"b": 2}));
    assert_eq!(patched["properties"]["desired"]["x"], json!({"z": 2}));
    assert_eq!(patched["properties"]["desired"]["$version"], 3);
    assert_eq!(java["tags"], json!({"b": 2, "c": 3}));
    assert_eq!(replaced["tags"], json!({}));
    assert_eq!(replaced["properties"]["desired"]["x"], json!({"z": 2}));
    assert_eq!(replaced["properties"]["desired"]["$version"], 3);
}

#[tokio::test]
async fn what_breaks_a_rule_changes_nothing() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let big: Value = (0..9)
        .map(|n| (n.to_string(), json!("x".repeat(3900))))
        .collect::<serde_json::Map<_, _>>()
        .into();

    let large = hub
        .patch("/twins/d1", json!({"tags": {"t": 1}, "properties": {"desired": big}}))
        .await;
    let named = hub.patch("/twins/d1", json!({"tags": {"a.b": 1}})).await;
    let broken = hub.call(Method::PATCH, "/twins/d1", &[], "{\"tags\":").await;

    large.assert_error(403, "DeviceModelMaxPropertiesExceeded");
    named.assert_error(400, "ArgumentInvalid");
    broken.assert_error(400, "ArgumentInvalid");
    let twin = hub.get("/twins/d1").await.ok();
    assert_eq!((&twin["version"], &twin["tags"]), (&json!(2), &json!({})));
}

#[tokio::test]
async fn a_listening_device_is_told_of_desired_changes_in_order() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let mut client = hub.connect("d1", Subscriptions::DESIRED_PROPERTIES).await;

    hub.patch("/twins/d1", json!({"tags": {"quiet": 1}})).await.ok();
    let changes = (0..20).map(|n| hub.patch("/twins/d1", json!({"properties": {"desired": {"n": n}}})));
    futures_join(changes).await;

    for version in 2..22 {
        let Command::DesiredChanged(patch) = client.inbox.next().await else {
            panic!("no change");
        };
        assert_eq!(patch["$version"], version);
    }
}

async fn futures_join<F: Future<Output = crate::support::Reply>>(all: impl Iterator<Item = F>) {
    // Polled together, as requests of several connections are.
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(reply) => {
                reply.ok();
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn ten_writers_of_one_twin_make_ten_versions_and_keep_every_value() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    futures_join((0..10).map(|n| hub.patch("/twins/d1", json!({"tags": {format!("k{n}"): n}})))).await;

    let twin = hub.get("/twins/d1").await.ok();
    assert_eq!(twin["version"], 12);
    assert_eq!(twin["tags"].as_object().unwrap().len(), 10);
}

#[tokio::test]
async fn a_device_reads_and_reports_without_metadata() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.patch(
        "/twins/d1",
        json!({"tags": {"secret": 1}, "properties": {"desired": {"rpm": 900}}}),
    )
    .await
    .ok();
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let backend = hub.hub.backend();

    let version = backend
        .patch_reported(&client.admission, json!({"fw": "1", "old": null}), None)
        .await
        .unwrap();
    let stale = backend
        .patch_reported(&client.admission, json!({"fw": "2"}), Some(1))
        .await
        .unwrap_err();
    let view = backend.twin(&client.admission).await.unwrap();

    assert_eq!(version, Some(2));
    assert_eq!(stale.code.status(), 412);
    assert_eq!(
        view,
        json!({"desired": {"rpm": 900, "$version": 2}, "reported": {"fw": "1", "$version": 2}})
    );
}

#[tokio::test]
async fn a_twin_survives_a_restart() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let before = hub
        .patch(
            "/twins/d1",
            json!({"tags": {"a": 1}, "properties": {"desired": {"x": [1, null]}}}),
        )
        .await
        .ok();

    let hub = hub.restart().await;

    assert_eq!(hub.get("/twins/d1").await.ok(), before);
}

#[tokio::test]
async fn an_integer_beyond_52_bits_is_refused_by_its_path_however_long_it_is() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    for literal in [
        "4503599627370496",
        "-4503599627370497",
        "18446744073709551615",
        "99999999999999999999999",
    ] {
        let body = format!(r#"{{"properties":{{"desired":{{"a":{{"n":{literal}}}}}}}}}"#);

        let refused = hub.call(Method::PATCH, "/twins/d1", &[], body).await;

        refused.assert_error(400, "ArgumentInvalid");
        let message = refused.json()["Message"].to_string();
        assert!(
            message.contains("`properties.desired.a.n`") && message.contains(literal),
            "{message}"
        );
    }
    let twin = hub.get("/twins/d1").await.ok();
    assert_eq!(twin["properties"]["desired"]["a"], Value::Null);
}

#[tokio::test]
async fn ten_writers_of_one_twin_make_as_many_versions_and_none_is_lost() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let hub = &hub;

    let writers = (0..10).map(|writer| async move {
        let (mut written, mut refused) = (0, 0);
        while written < 10 {
            let etag = hub.get("/twins/d1").await.header("etag").unwrap().to_owned();
            let patch = json!({"tags": {format!("w{writer}"): written}}).to_string();
            let reply = hub
                .call(Method::PATCH, "/twins/d1", &[("if-match", &etag)], patch)
                .await;
            match reply.status {
                200 => written += 1,
                _ => {
                    reply.assert_error(412, "PreconditionFailed");
                    refused += 1;
                }
            }
        }
        refused
    });
    let refused: i32 = futures_util::future::join_all(writers).await.into_iter().sum();

    let twin = hub.get("/twins/d1").await.ok();
    assert_eq!(twin["version"], 102);
    assert!(refused > 0, "nobody met anybody");
    for writer in 0..10 {
        assert_eq!(twin["tags"][format!("w{writer}")], 9);
    }
}

#[tokio::test]
async fn numbers_and_members_that_would_not_be_kept_as_they_are_are_refused() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let patch = async |body: &str| hub.call(Method::PATCH, "/twins/d1", &[], body.to_owned()).await;

    for number in [
        "4503599627370496",
        "-4503599627370497",
        "9223372036854775808",
        "99999999999999999999",
        "1e999",
    ] {
        let reply = patch(&format!(r#"{{"tags":{{"n":{number}}}}}"#)).await;
        reply.assert_error(400, "ArgumentInvalid");
    }
    for body in [
        r#"{"tags":{"a":1,"a":2}}"#,
        r#"{"tags":{"a":1},"tags":{"b":2}}"#,
        r#"{"properties":{"desired":{"o":{"a":1,"\u0061":1}}}}"#,
    ] {
        let reply = patch(body).await;
        reply.assert_error(400, "ArgumentInvalid");
        assert!(reply.json()["Message"].as_str().unwrap().contains("stands twice"));
    }
    hub.call(
        Method::PUT,
        "/devices/d2",
        &[],
        r#"{"status":"enabled","status":"disabled"}"#,
    )
    .await
    .assert_error(400, "DeserializationError");
    let good = patch(r#"{"tags":{"n":4503599627370495,"m":-4503599627370496,"f":1.5e300}}"#)
        .await
        .ok();
    assert_eq!(
        good["tags"],
        json!({"n": 4_503_599_627_370_495_i64, "m": -4_503_599_627_370_496_i64, "f": 1.5e300})
    );
}

#[tokio::test]
async fn tags_fill_their_limit_to_the_byte() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    // Names count, and the texts: 3 + 3 × 2729 + 2 = 8192.
    let text = |bytes: usize| "x".repeat(bytes);
    let fits = json!({"tags": {"a": text(2729), "b": text(2729), "c": text(2731)}});
    let more = json!({"tags": {"a": text(2729), "b": text(2729), "c": text(2732)}});

    let full = hub.put("/twins/d1", fits).await;
    let refused = hub.put("/twins/d1", more).await;

    full.ok();
    refused.assert_error(403, "DeviceModelMaxPropertiesExceeded");
    assert!(
        refused.json()["Message"]
            .as_str()
            .unwrap()
            .contains("`tags` would have 8193 bytes")
    );
}

#[tokio::test]
async fn ten_levels_are_taken_and_an_eleventh_is_not() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"o": inner}));

    let deep = hub
        .patch("/twins/d1", json!({"properties": {"desired": nested(11)}}))
        .await;
    let deeper = hub
        .patch("/twins/d1", json!({"properties": {"desired": nested(12)}}))
        .await;

    deep.ok();
    deeper.assert_error(400, "ArgumentInvalid");
}
