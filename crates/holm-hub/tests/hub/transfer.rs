//! Import and export jobs (`hub-service-api.md` §2.6).

use hyper::Method;
use serde_json::{Value, json};

use crate::files::assert_fault;
use crate::support::{Reply, TestHub};

/// How long a job may take on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

impl TestHub {
    async fn container(&self, name: &str) -> String {
        let opened = self
            .call(Method::PUT, &format!("/holm/v1/containers/{name}"), &[], "")
            .await;
        opened.ok()["uri"].as_str().unwrap().to_owned()
    }

    async fn create_job(&self, body: Value) -> Reply {
        self.post("/jobs/create", body).await
    }

    /// Waits for the end of a job; gives it.
    async fn ended(&self, job: &Value) -> Value {
        let path = format!("/jobs/{}", job["jobId"].as_str().unwrap());
        let patience = std::time::Instant::now();
        loop {
            assert!(patience.elapsed() < PATIENCE, "the job does not end");
            let job = self.get(&path).await.ok();
            if job.get("endTimeUtc").is_some() {
                return job;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn import(&self, lines: &str) -> (Value, String) {
        let container = self.container("transfer").await;
        assert_eq!(
            self.put_blob(&blob_at(&container, "devices.txt"), lines.to_owned())
                .await
                .status,
            201
        );
        let body = json!({"type": "import", "inputBlobContainerUri": container, "outputBlobContainerUri": container});
        let job = self.create_job(body).await.ok();
        (job, container)
    }
}

/// The path and query of a blob in a container.
fn blob_at(container: &str, blob: &str) -> String {
    let (address, signature) = container.split_once('?').unwrap();
    let path = address.strip_prefix("https://hub.test").unwrap();
    format!("{path}/{blob}?{signature}")
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let text = std::str::from_utf8(&reply.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn export(hub: &TestHub, exclude_keys: bool) -> Vec<Value> {
    let container = hub.container("transfer").await;
    let body = json!({"type": "export", "outputBlobContainerUri": container, "excludeKeysInExport": exclude_keys});
    let job = hub.create_job(body).await.ok();
    let job = hub.ended(&job).await;
    assert_eq!(
        (&job["status"], &job["progress"]),
        (&json!("completed"), &json!(100)),
        "{job}"
    );
    lines(
        &hub.blob(Method::GET, &blob_at(&container, "devices.txt"), &[], "")
            .await,
    )
}

#[tokio::test]
async fn what_one_hub_exports_another_imports_with_keys_twins_and_parents() {
    let old = TestHub::start().await;
    let scope = old.edge_device("e1").await["deviceScope"].clone();
    let key = old.device("d1").await["authentication"]["symmetricKey"].clone();
    old.put("/devices/a-leaf", json!({"deviceScope": scope})).await.ok();
    old.put("/devices/e1/modules/m", json!({"managedBy": "me"})).await.ok();
    let twin = json!({"tags": {"a": 1}, "properties": {"desired": {"b": {"c": [1, null]}}}});
    old.patch("/twins/d1", twin.clone()).await.ok();
    old.patch("/twins/e1/modules/$edgeAgent", json!({"tags": {"site": "x"}}))
        .await
        .ok();
    old.update(
        "/devices/d1",
        "*",
        json!({"status": "disabled", "statusReason": "lost"}),
    )
    .await
    .ok();

    let exported = export(&old, false).await;
    let text: String = exported.iter().map(|line| format!("{line}\n")).collect();
    let new = TestHub::start().await;
    let (job, _) = new.import(&text).await;
    let job = new.ended(&job).await;

    let ids: Vec<_> = exported
        .iter()
        .map(|line| (line["id"].as_str().unwrap(), line["moduleId"].as_str()))
        .collect();
    let of_edge = [
        ("e1", None),
        ("e1", Some("$edgeAgent")),
        ("e1", Some("$edgeHub")),
        ("e1", Some("m")),
    ];
    assert_eq!(ids, [&of_edge[..], &[("a-leaf", None), ("d1", None)]].concat());
    assert_eq!(job["status"], "completed", "{job}");
    let device = new.get("/devices/d1").await.ok();
    assert_eq!(
        (&device["status"], &device["statusReason"]),
        (&json!("disabled"), &json!("lost"))
    );
    assert_eq!(device["authentication"]["symmetricKey"], key);
    let there = new.get("/twins/d1").await.ok();
    assert_eq!(there["tags"], twin["tags"]);
    assert_eq!(there["properties"]["desired"]["b"], twin["properties"]["desired"]["b"]);
    let agent = new.get("/twins/e1/modules/$edgeAgent").await.ok();
    assert_eq!(agent["tags"], json!({"site": "x"}));
    let scope = new.get("/devices/e1").await.ok()["deviceScope"].clone();
    assert_eq!(new.get("/devices/a-leaf").await.ok()["parentScopes"], json!([scope]));
    assert_eq!(new.get("/devices/e1/modules/m").await.ok()["managedBy"], "me");
}

#[tokio::test]
async fn an_export_without_keys_has_none_and_the_list_of_files_does_not_show_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let exported = export(&hub, true).await;
    let files = hub.get("/holm/v1/files").await.ok();
    let without = hub.blob(Method::GET, "/containers/transfer/devices.txt", &[], "").await;

    assert_eq!(
        exported[0]["authentication"]["symmetricKey"],
        json!({"primaryKey": null, "secondaryKey": null})
    );
    assert!(!exported[0].to_string().contains("Key\":\""));
    assert_eq!(files, json!([]));
    assert_fault(&without, 401, "NoAuthenticationInformation");
}

#[tokio::test]
async fn lines_that_fail_are_told_in_the_file_of_errors_and_the_others_are_done() {
    let hub = TestHub::start().await;
    let text = concat!(
        "{\"id\":\"d1\",\"importMode\":\"create\"}\n",
        "{\"id\":\"d1\",\"importMode\":\"create\"}\r\n\n",
        "{\"id\":\"bad id\"}\nno json\n",
        "{\"id\":\"d2\"}",
    );

    let (job, container) = hub.import(text).await;
    let job = hub.ended(&job).await;
    let errors = lines(
        &hub.blob(Method::GET, &blob_at(&container, "importErrors.log"), &[], "")
            .await,
    );

    assert_eq!(job["status"], "completed");
    let told: Vec<_> = errors
        .iter()
        .map(|error| {
            (
                error["deviceId"].as_str().unwrap(),
                error["errorCode"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("d1", "DeviceAlreadyExists"),
            ("bad id", "ArgumentInvalid"),
            ("", "DeserializationError")
        ]
    );
    assert_eq!(hub.get("/statistics/devices").await.ok()["totalDeviceCount"], 2);
}

#[tokio::test]
async fn an_import_that_is_broken_off_again_and_again_carries_out_each_line_once() {
    let hub = TestHub::start().await;
    let text: String = (0..2500)
        .map(|n| format!("{{\"id\":\"d{n}\",\"importMode\":\"create\"}}\n"))
        .collect();
    let (job, container) = hub.import(&text).await;
    let path = format!("/jobs/{}", job["jobId"].as_str().unwrap());

    let (mut hub, mut seen) = (hub, 0);
    let mut restarts = 0;
    while restarts < 4 {
        let progress = hub.get(&path).await.ok()["progress"].as_u64().unwrap();
        if progress == 100 {
            break;
        }
        if progress > seen {
            seen = progress;
            restarts += 1;
            hub = hub.restart().await;
        }
        tokio::task::yield_now().await;
    }
    let job = hub.ended(&job).await;

    assert!(restarts > 0);
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(hub.get("/statistics/devices").await.ok()["totalDeviceCount"], 2500);
    // A line that was carried out twice would be told.
    let errors = hub
        .blob(Method::GET, &blob_at(&container, "importErrors.log"), &[], "")
        .await;
    assert_fault(&errors, 404, "BlobNotFound");
}

#[tokio::test]
async fn one_job_runs_at_a_time_and_one_that_is_cancelled_stops() {
    let hub = TestHub::start().await;
    let text: String = (0..20_000).map(|n| format!("{{\"id\":\"d{n}\"}}\n")).collect();
    let (job, container) = hub.import(&text).await;
    let path = format!("/jobs/{}", job["jobId"].as_str().unwrap());

    let second = hub
        .create_job(json!({"type": "export", "outputBlobContainerUri": container}))
        .await;
    let cancelled = hub.delete(&path).await;
    let again = hub.delete(&path).await;
    let told = hub.get(&path).await.ok();
    let third = hub
        .create_job(json!({"type": "export", "outputBlobContainerUri": container}))
        .await;
    let exported = hub.ended(&third.ok()).await;
    let listed = hub.get("/jobs").await.ok();

    second.assert_error(403, "JobQuotaExceeded");
    assert_eq!((cancelled.status, again.status), (204, 204));
    assert_eq!(told["status"], "cancelled");
    assert_eq!(exported["status"], "completed");
    let count = hub.get("/statistics/devices").await.ok()["totalDeviceCount"]
        .as_u64()
        .unwrap();
    assert!(count < 20_000, "{count}");
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("sig="));
    hub.get("/jobs/no").await.assert_error(404, "JobNotFound");
    hub.delete("/jobs/no").await.assert_error(404, "JobNotFound");
}

#[tokio::test]
async fn a_container_that_is_not_opened_by_its_address_is_refused() {
    let hub = TestHub::start().await;
    let good = hub.container("transfer").await;
    let other = good.replace("/transfer?", "/others?");
    let elsewhere = good.replace("hub.test", "store.example.com");
    let bare = good.split('?').next().unwrap().to_owned();
    let order = |container: &str| json!({"type": "export", "outputBlobContainerUri": container});

    for container in [other.as_str(), &elsewhere, &bare, "nonsense", ""] {
        let reply = hub.create_job(order(container)).await;
        reply.assert_error(400, "BlobContainerValidationError");
    }
    hub.turn_clock(3600 + 301);
    hub.create_job(order(&good))
        .await
        .assert_error(400, "BlobContainerValidationError");
    let mut trusted = order(&bare);
    trusted["storageAuthenticationType"] = json!("identityBased");
    let job = hub.create_job(trusted).await.ok();
    assert_eq!(hub.ended(&job).await["status"], "completed");
    hub.create_job(json!({"type": "move"}))
        .await
        .assert_error(400, "ArgumentInvalid");
    let mut odd = order(&good);
    (odd["includeConfigurations"], odd["configurationsBlobName"]) = (json!(true), json!("../x"));
    assert_eq!(hub.create_job(odd).await.status, 400);
    let missing = json!({"type": "import", "inputBlobContainerUri": bare, "inputBlobName": "no.txt",
        "outputBlobContainerUri": bare, "storageAuthenticationType": "identityBased"});
    let job = hub.create_job(missing).await.ok();
    let job = hub.ended(&job).await;
    assert_eq!(job["status"], "failed");
    assert!(job["failureReason"].as_str().unwrap().contains("`no.txt`"), "{job}");
}

/// An edge device below another whose name comes behind its own, with a module and a leaf.
async fn nested() -> TestHub {
    let hub = TestHub::start().await;
    let top = hub.edge_device("z-top").await["deviceScope"].clone();
    let body = json!({"deviceId": "a-low", "capabilities": {"iotEdge": true}, "parentScopes": [top]});
    let low = hub.put("/devices/a-low", body).await.ok()["deviceScope"].clone();
    hub.put("/devices/a-low/modules/m", json!({})).await.ok();
    hub.put("/devices/0-leaf", json!({"deviceScope": low})).await.ok();
    hub
}

async fn assert_nested(hub: &TestHub) {
    let of = async |id: &str| hub.get(&format!("/devices/{id}")).await.ok();
    assert_eq!(
        of("a-low").await["parentScopes"],
        json!([of("z-top").await["deviceScope"]])
    );
    assert_eq!(
        of("0-leaf").await["parentScopes"],
        json!([of("a-low").await["deviceScope"]])
    );
    hub.get("/devices/a-low/modules/m").await.ok();
}

#[tokio::test]
async fn nested_edges_are_exported_parents_first_and_imported_in_any_order() {
    let old = nested().await;

    let exported = export(&old, false).await;
    let text: Vec<_> = exported.iter().map(|line| format!("{line}\n")).collect();
    let backwards: String = text.iter().rev().map(String::as_str).collect();
    for text in [text.concat(), backwards] {
        let new = TestHub::start().await;
        let (job, container) = new.import(&text).await;
        let job = new.ended(&job).await;

        assert_eq!(job["status"], "completed", "{job}");
        assert_nested(&new).await;
        let errors = new
            .blob(Method::GET, &blob_at(&container, "importErrors.log"), &[], "")
            .await;
        assert_fault(&errors, 404, "BlobNotFound");
    }

    let ids: Vec<_> = exported.iter().map(|line| line["id"].as_str().unwrap()).collect();
    let first = |id: &str| ids.iter().position(|other| *other == id).unwrap();
    assert!(
        first("z-top") < first("a-low") && first("a-low") < first("0-leaf"),
        "{ids:?}"
    );
}

#[tokio::test]
async fn an_import_that_ends_early_tells_what_it_could_not_do_until_then() {
    let hub = TestHub::start().await;
    let bad = "{\"id\":\"bad id\"}\n";
    let too_long = "x".repeat(2 * 1024 * 1024);
    let many: String = (0..20_000).map(|n| format!("{{\"id\":\"d{n}\"}}\n")).collect();

    let (job, container) = hub.import(&format!("{}{too_long}", bad.repeat(100))).await;
    let failed = hub.ended(&job).await;
    let errors = blob_at(&container, "importErrors.log");
    let of_failed = lines(&hub.blob(Method::GET, &errors, &[], "").await);
    hub.blob(Method::DELETE, &errors, &[], "").await;
    let (job, _) = hub.import(&format!("{}{many}", bad.repeat(200))).await;
    let path = format!("/jobs/{}", job["jobId"].as_str().unwrap());
    while hub.get(&path).await.ok()["progress"] == 0 {
        tokio::task::yield_now().await;
    }
    hub.delete(&path).await;
    let patience = std::time::Instant::now();
    let of_cancelled = loop {
        assert!(patience.elapsed() < PATIENCE, "nothing is told");
        let reply = hub.blob(Method::GET, &errors, &[], "").await;
        if reply.status == 200 {
            break lines(&reply);
        }
        tokio::task::yield_now().await;
    };

    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(of_failed.len(), 100);
    assert_eq!(hub.get(&path).await.ok()["status"], "cancelled");
    assert!(!of_cancelled.is_empty() && of_cancelled.iter().all(|error| error["deviceId"] == "bad id"));
}

#[tokio::test]
async fn configurations_are_exported_and_imported_with_the_devices_where_that_is_wished() {
    let old = TestHub::start().await;
    let configuration = |rate: u32| {
        json!({"schemaVersion": "1.0", "priority": 1, "targetCondition": "tags.site = 'x'", "labels": {"by": "me"},
            "metrics": {"queries": {"all": "SELECT * FROM devices"}},
            "content": {"deviceContent": {"properties.desired.rate": rate}}})
    };
    // Of equal priority, and the older comes later by its id.
    for (id, rate) in [("z-old", 1), ("a-new", 2)] {
        old.put(&format!("/configurations/{id}"), configuration(rate))
            .await
            .ok();
    }
    old.device("d1").await;
    let container = old.container("transfer").await;
    let order = json!({"type": "export", "outputBlobContainerUri": container, "includeConfigurations": true});
    let job = old.create_job(order).await.ok();
    let exported = old.ended(&job).await;
    let text = |reply: Reply| String::from_utf8(reply.body.to_vec()).unwrap();
    let devices = text(
        old.blob(Method::GET, &blob_at(&container, "devices.txt"), &[], "")
            .await,
    );
    let lines = text(
        old.blob(Method::GET, &blob_at(&container, "configurations.txt"), &[], "")
            .await,
    );

    let new = TestHub::start().await;
    let container = new.container("transfer").await;
    new.put_blob(&blob_at(&container, "devices.txt"), devices).await;
    let more = format!("{lines}\n{{\"id\":\"BAD\"}}\nno json\n");
    new.put_blob(&blob_at(&container, "c.txt"), more).await;
    let order = json!({"type": "import", "inputBlobContainerUri": container, "outputBlobContainerUri": container,
        "includeConfigurations": true, "configurationsBlobName": "c.txt"});
    let mut jobs = Vec::new();
    // The second finds everything as it shall be.
    for _ in 0..2 {
        let job = new.create_job(order.clone()).await.ok();
        jobs.push(new.ended(&job).await);
    }
    let mut changed = configuration(2);
    changed["priority"] = json!(9);
    new.update("/configurations/a-new", "*", changed).await.ok();
    let job = new.create_job(order).await.ok();
    jobs.push(new.ended(&job).await);
    let errors = text(
        new.blob(Method::GET, &blob_at(&container, "importErrors.log"), &[], "")
            .await,
    );

    assert_eq!(
        (&exported["includeConfigurations"], &exported["configurationsBlobName"]),
        (&json!(true), &json!("configurations.txt"))
    );
    let ids: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["z-old", "a-new"]);
    assert!(jobs.iter().all(|job| job["status"] == "completed"), "{jobs:?}");
    for id in ["z-old", "a-new"] {
        let (was, is) = (
            old.get(&format!("/configurations/{id}")).await.ok(),
            new.get(&format!("/configurations/{id}")).await.ok(),
        );
        for member in ["content", "targetCondition", "labels", "schemaVersion"] {
            assert_eq!(is[member], was[member], "{id} {member}");
        }
    }
    let told: Vec<(Value, Value)> = errors
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|error| error.get("configurationId").is_some())
        .map(|error| (error["configurationId"].clone(), error["errorCode"].clone()))
        .collect();
    let wanted = [
        ("a-new", "PreconditionFailed"),
        ("BAD", "ArgumentInvalid"),
        ("", "DeserializationError"),
    ];
    assert_eq!(told, wanted.map(|(id, code)| (json!(id), json!(code))));
}
