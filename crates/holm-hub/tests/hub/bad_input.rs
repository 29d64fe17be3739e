//! What callers send that nobody should: texts that would be SQL, words that would be patterns, limits by one byte too much.
//! Numbers, depth and names are in `twins.rs` and in `holm-model`; rights are in `policies.rs`.

use holm_gateway::{Subscriptions, Twins as _};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::TestHub;

async fn found(hub: &TestHub, condition: &str) -> Vec<String> {
    let text = format!("SELECT deviceId FROM devices WHERE {condition}");
    let rows = hub.post("/devices/query", json!({ "query": text })).await.ok();
    let id = |row: &Value| row["deviceId"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn what_stands_in_a_query_is_never_sql_nor_a_pattern() {
    let hub = TestHub::start().await;
    let odd = [
        "' OR 1=1 --",
        "x'; DROP TABLE twins; --",
        "\" OR \"\"=\"",
        "%",
        "_",
        "a\\",
        "a*",
        "[a-z]",
        "\u{0}nul",
        "ä\u{301}",
    ];
    for (number, text) in odd.iter().enumerate() {
        hub.device(&format!("d{number}")).await;
        let tags = json!({"tags": {"t": text, "it's": number, "a\"b": number}});
        hub.patch(&format!("/twins/d{number}"), tags).await.ok();
    }

    for (number, text) in odd.iter().enumerate() {
        let quoted = text.replace('\\', "\\\\").replace('\'', "\\'");
        let own = vec![format!("d{number}")];
        assert_eq!(found(&hub, &format!("tags.t = '{quoted}'")).await, own, "{text}");
        assert_eq!(
            found(&hub, &format!("tags.t IN ['{quoted}', 'nothing']")).await,
            own,
            "{text}"
        );
        assert_eq!(
            found(&hub, &format!("STARTSWITH(tags.t, '{quoted}')")).await,
            own,
            "{text}"
        );
        assert!(
            found(&hub, &format!("CONTAINS(tags.t, '{quoted}')"))
                .await
                .contains(&own[0]),
            "{text}"
        );
        assert_eq!(
            found(&hub, &format!("tags.[[it's]] = {number} AND tags.[[a\"b]] = {number}")).await,
            own
        );
        assert_eq!(found(&hub, &format!("deviceId = '{quoted}'")).await, [""; 0], "{text}");
        assert_eq!(
            found(&hub, &format!("STARTSWITH(deviceId, '{quoted}')")).await,
            [""; 0],
            "{text}"
        );
    }
    let count = hub.get("/statistics/devices").await.ok()["totalDeviceCount"].clone();
    assert_eq!(count, odd.len());
}

#[tokio::test]
async fn names_of_devices_jobs_and_targets_are_never_sql() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    // What an id may hold, and SQL would read otherwise.
    let odd = "d';--%25_*";
    let path = "/devices/d';--%25_*".replace("%25", "%2525");
    hub.put(&path, json!({})).await.ok();

    let listed = hub.get("/devices").await.ok();
    let audit = hub.get("/holm/v1/audit?target=d%27%3B--%2525_*").await.ok();
    let all = hub.get("/holm/v1/audit?target=%27%20OR%201=1--").await.ok();
    let history = hub.get("/holm/v1/twins/d';--%2525_*/history").await.ok();
    let pages = hub.get("/holm/v1/devices?after=%27%20OR%201=1--").await.ok();
    hub.get("/jobs/v2/j';--").await.assert_error(404, "JobNotFound");
    hub.get("/jobs/'%20OR%201=1--").await.assert_error(404, "JobNotFound");

    let ids: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["deviceId"].clone())
        .collect();
    assert_eq!(ids, ["d';--%25_*", "d1"]);
    assert_eq!(audit.as_array().unwrap().len(), 1, "{odd}");
    assert_eq!((all, history), (json!([]), json!([])));
    assert_eq!(pages.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn desired_and_reported_properties_fill_their_limit_to_the_byte() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    // Seven texts at their own limit and their names are 28,679 bytes.
    let section = |last: usize| {
        let mut all: serde_json::Map<String, Value> =
            (0..7).map(|n| (n.to_string(), json!("x".repeat(4096)))).collect();
        all.insert("7".to_owned(), json!("x".repeat(last)));
        Value::Object(all)
    };
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let report = async |last: usize| {
        let backend = hub.hub.backend();
        backend.patch_reported(&client.admission, section(last), None).await
    };
    let want = async |last: usize| {
        hub.put("/twins/d1", json!({"properties": {"desired": section(last)}}))
            .await
    };

    let (full, over) = (want(4088).await, want(4089).await);
    let (reported, refused) = (report(4088).await, report(4089).await);
    let text = hub.patch("/twins/d1", json!({"tags": {"t": "x".repeat(4097)}})).await;
    let name = hub.patch("/twins/d1", json!({"tags": {"n".repeat(1025): 1}})).await;
    let longest = hub.patch("/twins/d1", json!({"tags": {"n".repeat(1024): 1}})).await;

    full.ok();
    over.assert_error(403, "DeviceModelMaxPropertiesExceeded");
    assert!(over.json()["Message"].as_str().unwrap().contains("32769 bytes"));
    assert!(reported.is_ok());
    assert_eq!(refused.unwrap_err().code.status(), 413);
    text.assert_error(400, "ArgumentInvalid");
    name.assert_error(400, "ArgumentInvalid");
    longest.ok();
}

#[tokio::test]
async fn names_with_dots_dollars_and_spaces_are_refused_in_every_part_of_a_twin() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;

    for name in ["a.b", "$a", "a$", "a b", "a\u{7}", "\u{0}"] {
        let bad = json!({"o": {name: 1}});
        for body in [json!({"tags": bad}), json!({"properties": {"desired": bad}})] {
            let reply = hub.patch("/twins/d1", body).await;
            reply.assert_error(400, "ArgumentInvalid");
        }
        let backend = hub.hub.backend();
        let reported = backend.patch_reported(&client.admission, bad, None).await;
        assert_eq!(reported.unwrap_err().code.status(), 400, "{name:?}");
    }
    let twin = hub.get("/twins/d1").await.ok();
    assert_eq!(
        (&twin["version"], &twin["properties"]["reported"]["$version"]),
        (&json!(2), &json!(1))
    );
}

#[tokio::test]
async fn an_id_that_is_missing_in_a_path_means_no_other_resource() {
    let hub = TestHub::start().await;
    hub.device("commands").await;
    hub.device("modules").await;

    for path in ["/devices//commands", "/devices//modules", "//devices/commands"] {
        let refused = hub.call(Method::DELETE, path, &[("if-match", "*")], "").await;
        refused.assert_error(400, "ArgumentInvalid");
        let text = refused.json()["Message"].to_string();
        assert!(text.contains("empty segment"), "{path}: {text}");
    }

    hub.get("/devices/commands/").await.ok();
    hub.get("/devices/modules").await.ok();
}

#[tokio::test]
async fn what_is_one_too_long_is_refused_by_its_name() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let payload = |bytes: usize| json!({"methodName": "m", "payload": "x".repeat(bytes - 2)});
    let query = |characters: usize| {
        let begin = "SELECT * FROM devices ";
        json!({"query": format!("{begin}{}", " ".repeat(characters - begin.len()))})
    };
    let condition = |characters: usize| json!({"targetCondition": " ".repeat(characters), "content": {"deviceContent": {"properties.desired.a": 1}}});
    let metrics = |count: usize| {
        let queries: serde_json::Map<String, Value> = (0..count)
            .map(|n| (format!("m{n}"), json!("SELECT * FROM devices")))
            .collect();
        json!({"targetCondition": "", "metrics": {"queries": queries}, "content": {"deviceContent": {"properties.desired.a": 1}}})
    };

    // At the limit it is taken: the device is not there to answer.
    let fits = hub.post("/twins/d1/methods", payload(128 * 1024)).await;
    fits.assert_error(404, "DeviceNotOnline");
    let name = json!({"methodName": "m".repeat(100)});
    hub.post("/twins/d1/methods", name)
        .await
        .assert_error(404, "DeviceNotOnline");
    hub.post("/devices/query", query(8192)).await.ok();
    hub.put("/configurations/c1", condition(8192)).await.ok();
    hub.put("/configurations/c2", metrics(5)).await.ok();
    hub.put(
        &format!("/devices/{}", "d".repeat(128)),
        json!({"statusReason": "r".repeat(128)}),
    )
    .await
    .ok();
    hub.put(&format!("/configurations/{}", "c".repeat(128)), condition(0))
        .await
        .ok();

    for (method, path, body, code) in [
        (
            Method::POST,
            "/twins/d1/methods".to_owned(),
            payload(128 * 1024 + 1),
            "ArgumentInvalid",
        ),
        (
            Method::POST,
            "/twins/d1/methods".to_owned(),
            json!({"methodName": "m".repeat(101)}),
            "ArgumentInvalid",
        ),
        (
            Method::POST,
            "/devices/query".to_owned(),
            query(8193),
            "ArgumentInvalid",
        ),
        (
            Method::PUT,
            "/configurations/c3".to_owned(),
            condition(8193),
            "InvalidConfigurationTargetCondition",
        ),
        (
            Method::PUT,
            "/configurations/c3".to_owned(),
            metrics(6),
            "InvalidConfigurationCustomMetricsQuery",
        ),
        (
            Method::PUT,
            format!("/devices/{}", "d".repeat(129)),
            json!({}),
            "ArgumentInvalid",
        ),
        (
            Method::PUT,
            "/devices/d2".to_owned(),
            json!({"statusReason": "r".repeat(129)}),
            "ArgumentInvalid",
        ),
        (
            Method::PUT,
            format!("/devices/d1/modules/{}", "m".repeat(129)),
            json!({}),
            "ArgumentInvalid",
        ),
        (
            Method::PUT,
            format!("/configurations/{}", "c".repeat(129)),
            condition(0),
            "ArgumentInvalid",
        ),
        (
            Method::PUT,
            format!("/jobs/v2/{}", "j".repeat(129)),
            json!({}),
            "ArgumentInvalid",
        ),
    ] {
        let reply = hub.call(method, &path, &[], body.to_string()).await;
        reply.assert_error(400, code);
    }
}
