//! Who changed what.

use std::time::Duration;

use bytes::Bytes;
use holm_hub::ChangeBounds;
use holm_model::Timestamp;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{START, TestHub};

/// Records as `actor operation target`.
fn told(records: &Value) -> Vec<String> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let records = records.as_array().unwrap().iter();
    records
        .map(|record| {
            let (actor, operation, target) = (text(record, "actor"), text(record, "operation"), text(record, "target"));
            format!("{actor} {operation} {target}")
        })
        .collect()
}

#[tokio::test]
async fn each_change_is_recorded_with_who_made_it() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    let token = hub.device_token("e1").await;
    let headers = [("authorization", token.as_str())];
    let path = "/devices/e1/modules/mine?api-version=2021-04-12";
    hub.raw(Method::PUT, path, &headers, Bytes::from_static(b"{}"))
        .await
        .ok();
    let service = hub.token_of("service").await;
    let headers = [("authorization", service.as_str())];
    let body = Bytes::from_static(br#"{"tags":{"a":1}}"#);
    hub.raw(Method::PATCH, "/twins/e1?api-version=2021-04-12", &headers, body)
        .await
        .ok();
    let etag = hub.update("/devices/e1", "*", json!({"status": "disabled"})).await.ok()["etag"].clone();
    hub.update("/devices/e1", "\"x\"", json!({}))
        .await
        .assert_error(412, "PreconditionFailed");
    hub.post("/holm/v1/policies/service/rotate", json!({})).await.ok();

    let all = hub.get("/holm/v1/audit").await.ok();
    let of_edge = hub.get("/holm/v1/audit?target=e1").await.ok();

    assert_eq!(
        told(&all),
        [
            "policy:iothubowner device.create e1",
            "policy:iothubowner module.create e1/$edgeAgent",
            "policy:iothubowner module.create e1/$edgeHub",
            "device:e1 module.create e1/mine",
            "policy:service twin.update e1",
            "policy:iothubowner device.update e1",
            "policy:iothubowner policy.rotate service",
        ]
    );
    assert_eq!(told(&of_edge).len(), 6);
    assert_eq!((&all[4]["version"], &all[5]["etag"]), (&json!(3), &etag));
    assert_eq!(all[0]["time"], json!(Timestamp::from_unix_millis(START)));
}

#[tokio::test]
async fn what_jobs_and_configurations_do_is_recorded_as_theirs() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let configuration = json!({"id": "fast", "schemaVersion": "1.0", "priority": 1, "targetCondition": "*",
        "content": {"deviceContent": {"properties.desired.period": 1}}});
    hub.put("/configurations/fast", configuration).await.ok();
    let job = json!({"jobId": "move", "type": "scheduleUpdateTwin", "queryCondition": "*",
        "updateTwin": {"etag": "*", "tags": {"site": "x"}}, "startTime": null});
    hub.put("/jobs/v2/move", job).await.ok();
    let wanted = ["deployment:fast twin.replace d1", "job:move twin.update d1"];

    let waiting = async {
        loop {
            let told = told(&hub.get("/holm/v1/audit?target=d1").await.ok());
            if wanted.iter().all(|wanted| told.iter().any(|told| told == wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("both are in the log");
    let history = hub.get("/holm/v1/twins/d1/history").await.ok();

    let text = history.to_string();
    assert!(text.contains("job:move") && text.contains("deployment:fast"), "{text}");
}

#[tokio::test]
async fn who_orders_a_job_and_makes_a_configuration_is_recorded() {
    let hub = TestHub::start().await;
    let owner = hub.token_of("registryReadWrite").await;
    let configuration = json!({"id": "fast", "schemaVersion": "1.0", "priority": 1, "targetCondition": "",
        "content": {"deviceContent": {"properties.desired.period": 1}}});
    let path = "/configurations/fast?api-version=2021-04-12";
    let body = Bytes::from(configuration.to_string());
    let made = hub
        .raw(Method::PUT, path, &[("authorization", owner.as_str())], body)
        .await
        .ok();
    hub.update("/configurations/fast", "*", configuration).await.ok();
    hub.delete("/configurations/fast").await;
    hub.put("/configurations/bad", json!({"targetCondition": "tags."}))
        .await;
    let service = hub.token_of("service").await;
    let job = json!({"type": "scheduleUpdateTwin", "queryCondition": "*", "startTime": "2099-01-01T00:00:00Z",
        "updateTwin": {"tags": {}}});
    let path = "/jobs/v2/later?api-version=2021-04-12";
    let body = Bytes::from(job.to_string());
    hub.raw(Method::PUT, path, &[("authorization", service.as_str())], body)
        .await
        .ok();
    hub.post("/jobs/v2/later/cancel", json!({})).await.ok();
    hub.post("/jobs/v2/later/cancel", json!({})).await.ok();

    let all = hub.get("/holm/v1/audit").await.ok();

    assert_eq!(
        told(&all),
        [
            "policy:registryReadWrite configuration.create fast",
            "policy:iothubowner configuration.update fast",
            "policy:iothubowner configuration.delete fast",
            "policy:service job.create later",
            "policy:iothubowner job.cancel later",
        ]
    );
    assert_eq!(all[0]["etag"], made["etag"]);
}

#[tokio::test]
async fn records_are_read_page_by_page_and_from_a_time() {
    let hub = TestHub::start().await;
    for number in 0..5 {
        hub.device(&format!("d{number}")).await;
    }
    hub.turn_clock(60);
    hub.device("late").await;

    let first = hub.get("/holm/v1/audit?top=3").await.ok();
    let last = first[2]["sequenceNumber"].as_u64().unwrap();
    let second = hub.get(&format!("/holm/v1/audit?top=3&after={last}")).await.ok();
    let since = Timestamp::from_unix_millis(START + 1);
    let late = hub.get(&format!("/holm/v1/audit?since={since}")).await.ok();

    assert_eq!(
        (first.as_array().unwrap().len(), second.as_array().unwrap().len()),
        (3, 3)
    );
    assert_eq!(told(&late), ["policy:iothubowner device.create late"]);
    for query in ["since=yesterday", "after=x", "top=0", "colour=red"] {
        let reply = hub.get(&format!("/holm/v1/audit?{query}")).await;
        reply.assert_error(400, "ArgumentInvalid");
    }
}

#[tokio::test]
async fn the_last_records_are_read_without_those_before_them() {
    let hub = TestHub::start().await;
    for number in 0..5 {
        hub.device(&format!("d{number}")).await;
    }

    let last = hub.get("/holm/v1/audit?before=end&top=2").await.ok();
    let first = last[0]["sequenceNumber"].as_u64().unwrap();
    let before = hub.get(&format!("/holm/v1/audit?before={first}&top=2")).await.ok();

    let created = |numbers: [u32; 2]| numbers.map(|number| format!("policy:iothubowner device.create d{number}"));
    assert_eq!(told(&last), created([3, 4]));
    assert_eq!(told(&before), created([1, 2]));
    hub.get("/holm/v1/audit?before=soon")
        .await
        .assert_error(400, "ArgumentInvalid");
}

#[tokio::test(start_paused = true)]
async fn who_changes_twins_often_pushes_out_no_other_records() {
    let bounds = ChangeBounds {
        age: Duration::from_secs(3600),
        records: 3,
    };
    let hub = TestHub::start_with(|config| config.audit = bounds).await;
    hub.device("d1").await;
    for number in 0..5 {
        hub.patch("/twins/d1", json!({"tags": {"number": number}})).await.ok();
    }

    let records = async || told(&hub.get("/holm/v1/audit").await.ok());
    while records().await.len() > 4 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }

    let update = "policy:iothubowner twin.update d1";
    assert_eq!(
        records().await,
        ["policy:iothubowner device.create d1", update, update, update]
    );
}

#[tokio::test(start_paused = true)]
async fn the_oldest_records_go_by_number_and_by_age() {
    let bounds = ChangeBounds {
        age: Duration::from_secs(3600),
        records: 3,
    };
    let hub = TestHub::start_with(|config| config.audit = bounds).await;
    for number in 0..5 {
        hub.device(&format!("d{number}")).await;
    }

    let count = async |hub: &TestHub| hub.get("/holm/v1/audit").await.ok().as_array().unwrap().len();
    while count(&hub).await != 3 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let left = told(&hub.get("/holm/v1/audit").await.ok());
    hub.turn_clock(3601);
    while count(&hub).await != 0 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }

    assert_eq!(left[0], "policy:iothubowner device.create d2");
    hub.device("d9").await;
    assert_eq!(count(&hub).await, 1);
}

#[tokio::test]
async fn a_record_is_on_disk_with_its_change_and_not_without() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let items = json!([{"id": "d2"}, {"id": "d3", "importMode": "update"}]);
    assert_eq!(hub.post("/devices", items).await.status, 400);

    let hub = hub.cut_power().await;

    let told = told(&hub.get("/holm/v1/audit").await.ok());
    assert_eq!(
        told,
        [
            "policy:iothubowner device.create d1",
            "policy:iothubowner device.create d2"
        ]
    );
}
