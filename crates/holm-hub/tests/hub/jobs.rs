//! Jobs: rows 68 to 70, rows 31 to 33 of the table of queries, methods, cancelling, and what a crash leaves.

use std::time::Duration;

use holm_gateway::Subscriptions;
use holm_gateway::session::Command;
use holm_model::MethodResponse;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{Client, TestHub};

/// Waits until a job has come to a state.
async fn until(hub: &TestHub, id: &str, status: &str) -> Value {
    let path = format!("/jobs/v2/{id}");
    let waiting = async {
        loop {
            let job = hub.get(&path).await.ok();
            if job["status"] == status {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    waited.unwrap_or_else(|_| panic!("job `{id}` does not become {status}"))
}

async fn rows(hub: &TestHub, condition: &str) -> Vec<Value> {
    let text = format!("SELECT * FROM devices.jobs WHERE {condition}");
    let reply = hub.post("/devices/query", json!({ "query": text })).await;
    assert_eq!(reply.header("x-ms-item-type"), Some("DeviceJob"));
    reply.ok().as_array().unwrap().clone()
}

fn twin_job(condition: &str, tags: &Value) -> Value {
    json!({"jobId": "j", "type": "scheduleUpdateTwin", "queryCondition": condition,
        "updateTwin": {"etag": "*", "tags": tags, "properties": {"desired": {"fw": 2}}}, "startTime": null})
}

fn method_job(condition: &str) -> Value {
    json!({"jobId": "m", "type": "scheduleDeviceMethod", "queryCondition": condition,
        "cloudToDeviceMethod": {"methodName": "reboot", "payload": {"now": true}, "responseTimeoutInSeconds": 300}})
}

/// Answers the next call, with what it was given.
async fn answer(client: &mut Client<'_>, status: i32) {
    let Command::Invoke(call, reply) = client.inbox.next().await else {
        panic!("no call");
    };
    let payload = serde_json::from_slice(&call.payload_bytes()).unwrap();
    reply.send(Ok(MethodResponse { status, payload })).unwrap();
}

#[tokio::test]
async fn a_twin_job_changes_every_device_that_meets_its_condition_once() {
    let hub = TestHub::start().await;
    for n in 0..250 {
        hub.device(&format!("d{n:03}")).await;
    }
    hub.patch("/twins/d007", json!({"tags": {"site": "x"}})).await.ok();

    let made = hub.put("/jobs/v2/j1", twin_job("*", &json!({"seen": 1}))).await.ok();
    let job = until(&hub, "j1", "completed").await;
    let some = hub
        .put(
            "/jobs/v2/j2",
            twin_job("from devices where tags.site = 'x'", &json!({"site": null})),
        )
        .await;
    let again = hub.put("/jobs/v2/j1", twin_job("*", &json!({}))).await;
    some.ok();
    let few = until(&hub, "j2", "completed").await;

    assert_eq!(
        (&made["jobId"], &made["type"]),
        (&json!("j1"), &json!("scheduleUpdateTwin"))
    );
    let statistics =
        json!({"deviceCount": 250, "failedCount": 0, "succeededCount": 250, "runningCount": 0, "pendingCount": 0});
    assert_eq!(job["deviceJobStatistics"], statistics);
    assert!(job["createdTime"].is_string() && job["startTime"].is_string() && job["endTime"].is_string());
    assert_eq!(few["deviceJobStatistics"]["deviceCount"], 1);
    again.assert_error(409, "JobAlreadyExists");
    let twin = hub.get("/twins/d249").await.ok();
    assert_eq!(
        (&twin["tags"], &twin["version"], &twin["properties"]["desired"]["fw"]),
        (&json!({"seen": 1}), &json!(3), &json!(2))
    );
    assert_eq!(hub.get("/twins/d007").await.ok()["tags"], json!({"seen": 1}));
    assert_eq!(rows(&hub, "devices.jobs.jobId = 'j1'").await.len(), 250);
    let row = &rows(
        &hub,
        "deviceId = 'd007' AND jobType = 'scheduleUpdateTwin' AND jobId = 'j2'",
    )
    .await[0];
    assert_eq!((&row["status"], &row["jobId"]), (&json!("completed"), &json!("j2")));
    for time in [
        "createdDateTimeUtc",
        "lastUpdatedDateTimeUtc",
        "startTimeUtc",
        "endTimeUtc",
    ] {
        assert!(row[time].is_string(), "{time}");
    }
    assert_eq!(
        rows(&hub, "deviceId = 'd007' AND createdTimeUtc > '2000-01-01T00:00:00Z'")
            .await
            .len(),
        2
    );
}

#[tokio::test]
async fn a_method_job_tells_what_each_device_answered() {
    let hub = TestHub::start().await;
    for id in ["away", "good", "grumpy"] {
        hub.device(id).await;
    }
    let mut good = hub.connect("good", Subscriptions::METHODS).await;
    let mut grumpy = hub.connect("grumpy", Subscriptions::METHODS).await;

    hub.put("/jobs/v2/m", method_job("deviceId IN ['away', 'good', 'grumpy']"))
        .await
        .ok();
    tokio::join!(answer(&mut good, 200), answer(&mut grumpy, 500));
    let job = until(&hub, "m", "completed").await;

    let statistics =
        json!({"deviceCount": 3, "failedCount": 1, "succeededCount": 2, "runningCount": 0, "pendingCount": 0});
    assert_eq!(job["deviceJobStatistics"], statistics);
    let found = rows(&hub, "jobId = 'm'").await;
    assert_eq!(found[0]["status"], "failed");
    assert_eq!(found[0]["error"]["code"], "404103");
    let response = |row: &Value| row["outcome"]["deviceMethodResponse"].clone();
    assert_eq!(response(&found[1]), json!({"status": 200, "payload": {"now": true}}));
    assert_eq!(response(&found[2]), json!({"status": 500, "payload": {"now": true}}));
    assert_eq!(
        rows(&hub, "devices.jobs.jobId = 'm' AND devices.jobs.status = 'failed'")
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn a_job_waits_for_its_time_and_can_be_cancelled_before() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let later = |id: &str| {
        let mut job = twin_job("*", &json!({"by": id}));
        job["startTime"] = json!("2027-01-15T09:00:00Z");
        job
    };

    let first = hub.put("/jobs/v2/first", later("first")).await.ok();
    hub.put("/jobs/v2/second", later("second")).await.ok();
    let cancelled = hub.post("/jobs/v2/first/cancel", json!({})).await.ok();
    hub.turn_clock(3600);
    let second = until(&hub, "second", "completed").await;
    let still = hub.post("/jobs/v2/second/cancel", json!({})).await.ok();

    assert_eq!(
        (&first["status"], &cancelled["status"]),
        (&json!("scheduled"), &json!("cancelled"))
    );
    assert_eq!(
        (&second["status"], &still["status"]),
        (&json!("completed"), &json!("completed"))
    );
    assert_eq!(hub.get("/twins/d1").await.ok()["tags"], json!({"by": "second"}));
    hub.post("/jobs/v2/none/cancel", json!({}))
        .await
        .assert_error(404, "JobNotFound");
    hub.get("/jobs/v2/none").await.assert_error(404, "JobNotFound");
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let hub = TestHub::start().await;
    for id in ["a", "b", "c"] {
        hub.put(&format!("/jobs/v2/{id}"), twin_job("*", &json!({}))).await.ok();
        until(&hub, id, "completed").await;
    }
    let ids = |reply: &Value| -> Vec<String> {
        let jobs = reply.as_array().unwrap();
        jobs.iter()
            .map(|job| job["jobId"].as_str().unwrap().to_owned())
            .collect()
    };

    let first = hub
        .call(Method::GET, "/jobs/v2/query", &[("x-ms-max-item-count", "2")], "")
        .await;
    let next = first.header("x-ms-continuation").unwrap().to_owned();
    let second = hub
        .call(Method::GET, "/jobs/v2/query", &[("x-ms-continuation", &next)], "")
        .await;
    let none = hub
        .get("/jobs/v2/query?jobType=scheduleDeviceMethod&jobStatus=completed")
        .await;
    let all = hub
        .get("/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=Completed")
        .await;

    assert_eq!(first.header("x-ms-item-type"), Some("JobResponse"));
    assert_eq!(second.header("x-ms-continuation"), None);
    assert_eq!(
        (ids(&first.ok()), ids(&second.ok())),
        (vec!["a".into(), "b".into()], vec!["c".into()])
    );
    assert_eq!((ids(&none.ok()).len(), ids(&all.ok()).len()), (0, 3));
}

/// Waits until so many devices of a job have done what they were to do.
async fn until_done(hub: &TestHub, id: &str, count: u32) -> Value {
    let path = format!("/jobs/v2/{id}");
    let waiting = async {
        loop {
            let job = hub.get(&path).await.ok();
            if job["deviceJobStatistics"]["succeededCount"] == count {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    waited.unwrap_or_else(|_| panic!("{count} devices of job `{id}` do not end"))
}

#[tokio::test]
async fn a_device_that_does_not_answer_keeps_no_other_from_its_turn() {
    let hub = TestHub::start().await;
    let mut clients = Vec::new();
    for n in 0..40 {
        let id = format!("d{n:02}");
        hub.device(&id).await;
        clients.push(hub.connect(&id, Subscriptions::METHODS).await);
    }
    hub.put("/jobs/v2/m", method_job("*")).await.ok();
    let mut clients = clients.iter_mut();
    let silent = clients.next().unwrap();

    for client in clients {
        answer(client, 200).await;
    }
    let others = until_done(&hub, "m", 39).await;
    answer(silent, 200).await;
    let job = until(&hub, "m", "completed").await;

    assert_eq!(
        (&others["status"], &others["deviceJobStatistics"]["runningCount"]),
        (&json!("running"), &json!(1))
    );
    assert_eq!(job["deviceJobStatistics"]["succeededCount"], 40);
}

#[tokio::test]
async fn an_answer_that_the_disk_refuses_is_written_when_it_takes_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let mut client = hub.connect("d1", Subscriptions::METHODS).await;
    // For two seconds no device of a job can be completed.
    let database = rusqlite::Connection::open(hub.directory.path().join("data/hub.db")).unwrap();
    database
        .execute_batch(
            "CREATE TABLE until AS SELECT unixepoch('subsec') + 2 AS time;
             CREATE TRIGGER refuse BEFORE INSERT ON job_devices
             WHEN NEW.status = 'completed' AND unixepoch('subsec') < (SELECT time FROM until)
             BEGIN SELECT RAISE(ABORT, 'not now'); END;",
        )
        .unwrap();

    hub.put("/jobs/v2/m", method_job("*")).await.ok();
    answer(&mut client, 200).await;
    let job = until(&hub, "m", "completed").await;

    let statistics =
        json!({"deviceCount": 1, "failedCount": 0, "succeededCount": 1, "runningCount": 0, "pendingCount": 0});
    assert_eq!(job["deviceJobStatistics"], statistics);
}

#[tokio::test]
async fn a_crash_after_a_job_was_cancelled_leaves_no_device_running() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let mut client = hub.connect("d1", Subscriptions::METHODS).await;
    hub.put("/jobs/v2/m", method_job("*")).await.ok();
    let Command::Invoke(_, _reply) = client.inbox.next().await else {
        panic!("no call");
    };

    let cancelled = hub.post("/jobs/v2/m/cancel", json!({})).await.ok();
    drop(client);
    let hub = hub.cut_power().await;
    let waiting = async {
        while hub.get("/jobs/v2/m").await.ok()["deviceJobStatistics"]["failedCount"] != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();

    assert_eq!(cancelled["deviceJobStatistics"]["runningCount"], 1);
    let job = hub.get("/jobs/v2/m").await.ok();
    assert_eq!(
        (&job["status"], &job["deviceJobStatistics"]["runningCount"]),
        (&json!("cancelled"), &json!(0))
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_job_is_said() {
    let hub = TestHub::start().await;
    let mut etag = twin_job("*", &json!({}));
    etag["updateTwin"]["etag"] = json!("AAAA");
    let mut time = method_job("*");
    time["startTime"] = json!("tomorrow");
    let mut desired = twin_job("*", &json!({}));
    desired["updateTwin"]["properties"]["desired"] = json!({"a": {"$b": 1}});

    for (body, part) in [
        (twin_job("tags.a = ", &json!({})), "line 1, column 10"),
        (twin_job("", &json!({})), "queryCondition"),
        (twin_job("FROM devices.jobs WHERE true", &json!({})), "devices.modules"),
        (twin_job("FROM devices.modules WHERE", &json!({})), "a value is missing"),
        (etag, "updateTwin.etag"),
        (twin_job("*", &json!({"a.b": 1})), "`updateTwin.tags`"),
        (desired, "`updateTwin.properties.desired.a`"),
        (time, "startTime"),
        (json!({"type": "scheduleNothing", "queryCondition": "*"}), "`type`"),
        (
            json!({"type": "scheduleDeviceMethod", "queryCondition": "*"}),
            "cloudToDeviceMethod",
        ),
    ] {
        let reply = hub.put("/jobs/v2/j", body).await;
        reply.assert_error(400, "ArgumentInvalid");
        assert!(
            reply.json()["Message"].as_str().unwrap().contains(part),
            "{part}: {:?}",
            reply.body
        );
    }
    let large = twin_job("*", &json!({"a": "x".repeat(4096), "b": "x".repeat(4096)}));
    let reply = hub.put("/jobs/v2/j", large).await;
    reply.assert_error(403, "DeviceModelMaxPropertiesExceeded");
    hub.put("/jobs/v2/bad%20id", twin_job("*", &json!({})))
        .await
        .assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn a_job_reaches_modules_where_its_condition_is_about_them() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2"] {
        hub.device(id).await;
        for module in ["m", "other"] {
            hub.put(&format!("/devices/{id}/modules/{module}"), json!({}))
                .await
                .ok();
        }
    }
    let mut client = hub.connect("d1/m", Subscriptions::METHODS).await;

    let twins = twin_job("FROM devices.modules WHERE moduleId = 'm'", &json!({"site": "x"}));
    hub.put("/jobs/v2/t", twins).await.ok();
    let twins = until(&hub, "t", "completed").await;
    let methods = method_job("from devices.modules where tags.site = 'x' AND deviceId = 'd1'");
    hub.put("/jobs/v2/m", methods).await.ok();
    answer(&mut client, 200).await;
    let methods = until(&hub, "m", "completed").await;
    hub.put("/jobs/v2/all", twin_job("FROM devices.modules", &json!({})))
        .await
        .ok();
    let all = until(&hub, "all", "completed").await;
    hub.put("/jobs/v2/star", twin_job("FROM devices.modules WHERE *", &json!({})))
        .await
        .ok();
    let star = until(&hub, "star", "completed").await;

    let count = |job: &Value| job["deviceJobStatistics"]["succeededCount"].clone();
    assert_eq!(
        [&twins, &methods, &all, &star].map(count),
        [2, 1, 4, 4].map(|n| json!(n))
    );
    for (module, tags) in [("m", json!({"site": "x"})), ("other", json!({}))] {
        let twin = hub.get(&format!("/twins/d2/modules/{module}")).await.ok();
        assert_eq!(twin["tags"], tags, "{module}");
    }
    let found = rows(&hub, "jobId = 't' AND moduleId = 'm'").await;
    let ids: Vec<_> = found.iter().map(|row| (&row["deviceId"], &row["moduleId"])).collect();
    assert_eq!(ids, [(&json!("d1"), &json!("m")), (&json!("d2"), &json!("m"))]);
}

#[tokio::test]
async fn a_crash_loses_no_device_of_a_job_and_calls_none_a_third_time() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2", "d3"] {
        hub.device(id).await;
    }
    let mut client = hub.connect("d2", Subscriptions::METHODS).await;
    let mut job = method_job("deviceId = 'd2'");
    job["cloudToDeviceMethod"]["connectTimeoutInSeconds"] = json!(300);
    hub.put("/jobs/v2/m", job).await.ok();
    let Command::Invoke(..) = client.inbox.next().await else {
        panic!("no call");
    };

    // The power fails while the device works.
    drop(client);
    let hub = hub.cut_power().await;
    let mut client = hub.connect("d2", Subscriptions::METHODS).await;
    answer(&mut client, 200).await;
    let job = until(&hub, "m", "completed").await;
    hub.put("/jobs/v2/t", twin_job("*", &json!({"seen": 1}))).await.ok();
    until(&hub, "t", "completed").await;
    drop(client);
    let hub = hub.cut_power().await;

    assert_eq!(job["deviceJobStatistics"]["succeededCount"], 1);
    assert_eq!(
        hub.get("/jobs/v2/t").await.ok()["deviceJobStatistics"]["succeededCount"],
        3
    );
    for id in ["d1", "d2", "d3"] {
        assert_eq!(
            hub.get(&format!("/twins/{id}")).await.ok()["version"],
            3,
            "{id} was changed once"
        );
    }
}

#[tokio::test]
async fn a_method_job_waits_after_a_start_for_devices_that_the_start_has_cut_off() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let mut client = hub.connect("d1", Subscriptions::METHODS).await;
    hub.put("/jobs/v2/m", method_job("*")).await.ok();
    let Command::Invoke(..) = client.inbox.next().await else {
        panic!("no call");
    };

    drop(client);
    let hub = hub.cut_power().await;
    // It is called, without a device that could answer.
    let called = async {
        while hub.get("/jobs/v2/m").await.ok()["deviceJobStatistics"]["runningCount"] != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), called).await.unwrap();
    let mut client = hub.connect("d1", Subscriptions::METHODS).await;
    answer(&mut client, 200).await;
    let job = until(&hub, "m", "completed").await;
    drop(client);
    // What is made after the start finds who is there.
    hub.put("/jobs/v2/n", method_job("*")).await.ok();
    let later = until(&hub, "n", "completed").await;

    assert_eq!(job["deviceJobStatistics"]["succeededCount"], 1);
    assert_eq!(later["deviceJobStatistics"]["failedCount"], 1);
}
