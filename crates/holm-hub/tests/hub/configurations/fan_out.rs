//! A fan-out over many devices: what ends it, what it meets, and who goes before it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{base, module, statuses};
use crate::support::TestHub;

#[tokio::test]
async fn a_fan_out_that_a_power_cut_has_ended_is_finished_at_the_next_start() {
    let hub = TestHub::start().await;
    for number in 0..60 {
        hub.edge_device(&format!("e{number:02}")).await;
    }
    let halt = "CREATE TRIGGER halt BEFORE INSERT ON twin_configurations WHEN NEW.device >= 'e30'
        BEGIN SELECT RAISE(ABORT, 'not yet'); END;";
    let change = |directory: &Path, statements: &str| {
        let database = rusqlite::Connection::open(directory.join("data/hub.db")).unwrap();
        database.execute_batch(statements).unwrap();
    };
    change(hub.directory.path(), halt);
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;
    let before = hub.results("v1").await["appliedCount"].clone();

    // What is on disk is what a power cut between two transactions leaves there.
    let hub = hub.cut_power_and(|copy| change(copy, "DROP TRIGGER halt")).await;

    assert_eq!(before, 30);
    for number in 0..60 {
        assert_eq!(
            hub.has(&format!("e{number:02}")).await,
            (vec!["a".to_owned()], json!({"v1": "Applied"}))
        );
    }
    assert_eq!(hub.results("v1").await["appliedCount"], 60);
}

#[tokio::test]
async fn what_no_twin_can_hold_is_told_and_harms_no_other_device() {
    let hub = TestHub::start().await;
    for id in ["e1", "e2"] {
        hub.edge_device(id).await;
    }
    hub.patch("/twins/e2", json!({"tags": {"big": true}})).await.ok();
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;
    let text = "x".repeat(4000);
    for number in 0..9 {
        let content =
            json!({"modulesContent": {"$edgeAgent": {format!("properties.desired.modules.m{number}"): module(&text)}}});
        hub.configure(&format!("big{number}"), 2, "tags.big = true", &content)
            .await;
    }

    let (good, _) = hub.has("e1").await;
    let (bad, _) = hub.has("e2").await;
    let told = hub.get("/holm/v1/devices/e2/configurations").await.ok();

    assert_eq!(good, ["a"]);
    assert!(!bad.contains(&"m8".to_owned()), "{bad:?}");
    let part = &told["parts"][0];
    assert_eq!(part["inForce"], false);
    assert!(
        part["problem"].as_str().unwrap().contains("properties.desired"),
        "{part}"
    );
}

#[tokio::test]
async fn what_a_device_has_refused_does_not_keep_a_good_configuration_from_it() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2"] {
        hub.device(id).await;
    }
    let own: Map<String, Value> = (0..7).map(|n| (format!("p{n}"), json!("z".repeat(4000)))).collect();
    hub.patch("/twins/d1", json!({"properties": {"desired": own}}))
        .await
        .ok();
    let content = |value: &str| {
        let settings: Map<String, Value> = (0..3)
            .map(|n| (format!("properties.desired.c{n}"), json!(value)))
            .collect();
        json!({"deviceContent": settings})
    };

    hub.configure("big", 1, "*", &content(&"y".repeat(3000))).await;
    hub.settle().await;
    let refused = hub.get("/holm/v1/devices/d1/configurations").await.ok();
    hub.configure("good", 5, "*", &content("y")).await;
    hub.settle().await;
    let told = hub.get("/holm/v1/devices/d1/configurations").await.ok();

    assert_eq!(refused["parts"][0]["inForce"], false);
    assert_eq!(hub.get("/twins/d1").await.ok()["properties"]["desired"]["c0"], "y");
    assert_eq!(
        (&told["parts"][0]["inForce"], &told["parts"][0]["problem"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn a_device_whose_row_the_disk_refuses_keeps_it_from_no_other_and_has_its_turn_again() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2", "d3", "d4"] {
        hub.device(id).await;
    }
    let database = rusqlite::Connection::open(hub.directory.path().join("data/hub.db")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON twin_configurations WHEN NEW.device = 'd2'
        BEGIN SELECT RAISE(ABORT, 'not now'); END;";
    database.execute_batch(refuse).unwrap();
    let has = async |id: &str| {
        let twin = hub.get(&format!("/twins/{id}")).await.ok();
        (twin["properties"]["desired"]["rate"].clone(), statuses(&twin))
    };

    hub.configure("c", 1, "*", &json!({"deviceContent": {"properties.desired.rate": 5}}))
        .await;
    hub.settle().await;
    let refused = has("d2").await;
    let told = hub.get("/holm/v1/devices/d2/configurations").await.ok();
    let others = [has("d1").await, has("d3").await, has("d4").await];
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    let again = async {
        while hub.results("c").await["appliedCount"] != 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), again).await.unwrap();

    assert_eq!(refused, (Value::Null, json!({})));
    assert_eq!(told["parts"][0]["inForce"], false);
    let applied = (json!(5), json!({"c": "Applied"}));
    assert_eq!(others, [(); 3].map(|()| applied.clone()));
    assert_eq!(has("d2").await, applied);
}
