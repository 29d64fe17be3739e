//! Figures of configurations: row 65, and those of one's own.

use std::time::Duration;

use holm_gateway::{Subscriptions, Twins as _};
use serde_json::json;

use super::{base, body};
use crate::support::{TestHub, identity};

/// Row 65.
#[tokio::test]
async fn what_the_edge_reports_of_this_version_is_counted() {
    let hub = TestHub::start().await;
    for id in ["e1", "e2", "e3"] {
        hub.edge_device(id).await;
    }
    hub.device("plain").await;
    hub.configure("v1", 1, "*", &base(&[])).await;
    let version = hub.agent("e1").await["properties"]["desired"]["$version"].clone();
    let reports = [
        ("e1", version.clone(), 200),
        ("e2", version, 400),
        ("e3", json!(1), 200),
    ];
    for (device, version, code) in reports {
        let mut client = hub.connect(device, Subscriptions::default()).await;
        client.admission.identity = identity(&format!("{device}/$edgeAgent"));
        let reported = json!({"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}});
        let reporting = hub.hub.backend().patch_reported(&client.admission, reported, None);
        reporting.await.unwrap();
    }

    let results = hub.results("v1").await;

    let expected =
        json!({"targetedCount": 3, "appliedCount": 3, "reportedSuccessfulCount": 1, "reportedFailedCount": 1});
    assert_eq!(results, expected);
}

#[tokio::test]
async fn metrics_count_the_rows_of_their_queries_and_the_published_ones_run_as_they_stand() {
    let hub = TestHub::start().await;
    for (id, site) in [("e1", "x"), ("e2", "x"), ("e3", "y")] {
        hub.edge_device(id).await;
        hub.patch(&format!("/twins/{id}"), json!({"tags": {"site": site}}))
            .await
            .ok();
    }
    let mut body = body("v1", 1, "tags.site = 'x'", &base(&[]));
    body["metrics"]["queries"] = json!({"all": "SELECT deviceId FROM devices", "y": "SELECT * FROM devices WHERE tags.site = 'y'",
        "sites": "SELECT tags.site, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.site) GROUP BY tags.site"});
    hub.put("/configurations/v1", body).await.ok();
    hub.settle().await;

    // What is not counted within a second is told later.
    let counted = async {
        loop {
            let shown = hub.get("/configurations/v1").await.ok();
            if shown["metrics"]["results"]
                .as_object()
                .is_some_and(|results| results.len() == 3)
            {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(120), counted).await.unwrap();

    assert_eq!(shown["metrics"]["results"], json!({"all": 3, "y": 1, "sites": 2}));
    for (name, query) in shown["systemMetrics"]["queries"].as_object().unwrap() {
        let rows = hub.post("/devices/query", json!({ "query": query })).await.ok();
        let count = rows.as_array().unwrap().len();
        assert_eq!(json!(count), shown["systemMetrics"]["results"][name], "{name}: {query}");
    }
}
