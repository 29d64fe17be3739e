//! What twins were, who changed them, and how to go back.

use std::time::Duration;

use bytes::Bytes;
use holm_gateway::{Subscriptions, Twins};
use holm_hub::ChangeBounds;
use holm_model::Timestamp;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{START, TestHub};

const HISTORY: &str = "/holm/v1/twins/d1/history";

/// A moment so many seconds after the start of the test.
fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(START + seconds * 1000)
}

/// A twin that was changed by an owner, a service, its device, and an owner again, a minute apart.
async fn story(hub: &TestHub) {
    hub.device("d1").await;
    hub.turn_clock(60);
    hub.patch("/twins/d1", json!({"tags": {"site": "a", "x": {"y": 1, "z": 2}}}))
        .await
        .ok();
    hub.turn_clock(60);
    let service = hub.token_of("service").await;
    let body = Bytes::from_static(br#"{"properties":{"desired":{"limit":3}}}"#);
    let headers = [("authorization", service.as_str())];
    hub.raw(Method::PATCH, "/twins/d1?api-version=2021-04-12", &headers, body)
        .await
        .ok();
    hub.turn_clock(60);
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let reported = json!({"limit": 3, "fw": "1"});
    hub.hub
        .backend()
        .patch_reported(&client.admission, reported, None)
        .await
        .unwrap();
    client.disconnect().await;
    hub.turn_clock(60);
    hub.put(
        "/twins/d1",
        json!({"tags": {"site": "b"}, "properties": {"desired": {"limit": 5, "mode": "eco"}}}),
    )
    .await
    .ok();
}

#[tokio::test]
async fn each_change_is_told_with_who_made_it_when_and_what_it_did() {
    let hub = TestHub::start().await;
    story(&hub).await;

    let all = hub.get(HISTORY).await.ok();
    let first = hub.get(&format!("{HISTORY}?top=1")).await.ok();
    let last = first[0]["change"].as_u64().unwrap() - 1;
    let rest = hub.get(&format!("{HISTORY}?last={last}")).await.ok();

    let told: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["actor"].as_str().unwrap(), step["operation"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("policy:iothubowner", "twin.replace"),
            ("device:d1", "twin.report"),
            ("policy:service", "twin.update"),
            ("policy:iothubowner", "twin.update"),
        ]
    );
    assert_eq!(
        all[0]["changed"],
        json!({"tags": {"site": "b", "x": null}, "properties": {"desired": {"limit": 5, "mode": "eco"}}})
    );
    assert_eq!(
        all[1]["changed"],
        json!({"properties": {"reported": {"limit": 3, "fw": "1"}}})
    );
    assert_eq!((&all[1]["version"], &all[1]["reportedVersion"]), (&json!(4), &json!(2)));
    assert_eq!(all[2]["time"], json!(moment(120)));
    assert_eq!(rest.as_array().unwrap()[..], all.as_array().unwrap()[1..]);
}

#[tokio::test]
async fn a_twin_is_read_as_it_was_at_a_version_or_time() {
    let hub = TestHub::start().await;
    story(&hub).await;
    let at = async |point: String| hub.get(&format!("{HISTORY}/at?point={point}")).await;

    let third = at("3".to_owned()).await.ok();
    let by_time = at(moment(119).to_string()).await.ok();
    let reported = at(moment(180).to_string()).await.ok();
    let new = at(moment(1).to_string()).await.ok();
    let now = at("5".to_owned()).await.ok();

    assert_eq!(
        (&third["tags"], &third["properties"]["desired"]),
        (&json!({"site": "a", "x": {"y": 1, "z": 2}}), &json!({"$version": 1}))
    );
    assert_eq!(by_time, third);
    assert_eq!(
        reported["properties"]["reported"],
        json!({"limit": 3, "fw": "1", "$version": 2})
    );
    assert_eq!(reported["properties"]["desired"], json!({"limit": 3, "$version": 2}));
    assert_eq!((&new["version"], &new["tags"]), (&json!(2), &json!({})));
    assert_eq!(now["tags"], json!({"site": "b"}));
    at("6".to_owned()).await.assert_error(400, "ArgumentInvalid");
    at("1".to_owned()).await.assert_error(400, "InvalidOperation");
    let before_it_was = at(moment(-1).to_string()).await;
    before_it_was.assert_error(400, "InvalidOperation");
    at("yesterday".to_owned()).await.assert_error(400, "ArgumentInvalid");
    hub.get("/holm/v1/twins/no/history")
        .await
        .assert_error(404, "DeviceNotFound");
    hub.get(&format!("{HISTORY}/when"))
        .await
        .assert_error(404, "InvalidOperation");
}

#[tokio::test]
async fn two_points_are_compared_and_one_restored() {
    let hub = TestHub::start().await;
    story(&hub).await;

    let diff = hub.get(&format!("{HISTORY}/diff?from=3&to=4")).await.ok();
    let to_now = hub.get(&format!("{HISTORY}/diff?from=4")).await.ok();
    let etag = hub.get("/twins/d1").await.header("etag").unwrap().to_owned();
    let restore = format!("{HISTORY}/restore");
    let body = json!({"point": "4"}).to_string();
    let stale = hub
        .call(
            Method::POST,
            &restore,
            &[("if-match", "\"AAAAAAAAAAI=\"")],
            body.clone(),
        )
        .await;
    let restored = hub.call(Method::POST, &restore, &[("if-match", &etag)], body).await;
    let undone = hub.get(&format!("{HISTORY}/diff?from=4")).await.ok();

    assert_eq!(
        diff,
        json!({"properties": {"desired": {"limit": 3}, "reported": {"limit": 3, "fw": "1"}}})
    );
    assert_eq!(to_now["tags"], json!({"site": "b", "x": null}));
    stale.assert_error(412, "PreconditionFailed");
    let restored = restored.ok();
    assert_eq!(restored["tags"], json!({"site": "a", "x": {"y": 1, "z": 2}}));
    assert_eq!(
        (&restored["properties"]["desired"]["limit"], &restored["version"]),
        (&json!(3), &json!(6))
    );
    assert_eq!(undone, json!({}));
}

#[tokio::test]
async fn the_history_of_a_device_goes_with_it_and_survives_a_restart() {
    let hub = TestHub::start().await;
    story(&hub).await;
    let before = hub.get(HISTORY).await.ok();

    let hub = hub.restart().await;
    let after = hub.get(HISTORY).await.ok();
    hub.delete("/devices/d1").await;
    hub.device("d1").await;

    assert_eq!(after, before);
    assert_eq!(hub.get(HISTORY).await.ok(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_too_old_are_forgotten_and_a_point_before_them_is_refused() {
    let bounds = ChangeBounds {
        age: Duration::from_secs(150),
        records: 1000,
    };
    let hub = TestHub::start_with(|config| config.twin_history = bounds).await;
    story(&hub).await;

    let count = async |hub: &TestHub| hub.get(HISTORY).await.ok().as_array().map(Vec::len);
    while count(&hub).await != Some(3) {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }

    let kept = hub.get(&format!("{HISTORY}/at?point=3")).await;
    let gone = hub.get(&format!("{HISTORY}/at?point={}", moment(70))).await;
    assert_eq!(kept.ok()["tags"]["site"], "a");
    gone.assert_error(400, "InvalidOperation");
}

#[tokio::test]
async fn a_hub_that_keeps_no_history_has_none() {
    let bounds = ChangeBounds {
        age: Duration::ZERO,
        records: 1000,
    };
    let hub = TestHub::start_with(|config| config.twin_history = bounds).await;
    story(&hub).await;

    let history = hub.get(HISTORY).await.ok();

    assert_eq!(history, Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_page_of_large_changes_is_bounded_and_the_next_goes_on_behind_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    for number in 0..300_u32 {
        let text = number.to_string().repeat(1300);
        let sections: serde_json::Map<_, _> = (0..6).map(|n| (format!("p{n}"), json!(text))).collect();
        hub.patch("/twins/d1", json!({"properties": {"desired": sections}}))
            .await
            .ok();
    }

    let (mut numbers, mut pages) = (Vec::new(), 0);
    let mut path = HISTORY.to_owned();
    loop {
        let page = hub.get(&path).await;
        assert!(page.body.len() < 5 * 1024 * 1024, "{}", page.body.len());
        let page = page.ok();
        let changes = page.as_array().unwrap();
        numbers.extend(changes.iter().map(|step| step["version"].as_u64().unwrap()));
        let Some(last) = changes.last() else { break };
        pages += 1;
        path = format!("{HISTORY}?last={}", last["change"].as_u64().unwrap() - 1);
    }

    assert_eq!(numbers, (3..=302).rev().collect::<Vec<u64>>());
    assert!(pages > 1, "{pages}");
}
