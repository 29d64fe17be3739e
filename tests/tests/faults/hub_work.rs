//! What the hub does for many devices at once goes on after kills: a job, and the fan-out of a deployment. An import is in
//! `tests/tests/peers/registry_story.rs`.

use holm_e2e::{Hub, Need, patience};
use serde_json::{Value, json};

/// Enough that a kill finds some done and others not.
const DEVICES: u64 = 1500;

fn register(hub: &Hub, edge: bool) {
    let all: Vec<Value> = (0..DEVICES)
        .map(|number| json!({"id": format!("d{number:04}"), "importMode": "create", "capabilities": {"iotEdge": edge}}))
        .collect();
    for items in all.chunks(100) {
        hub.service().call("POST", "/devices", Some(&json!(items)));
    }
}

fn count(hub: &Hub, query: &str) -> Value {
    hub.service()
        .call("POST", "/devices/query", Some(&json!({ "query": query })))
}

/// Kills the hub when work has begun and twice more when it has got on, until all is done; how often it was killed with something
/// left to do.
#[track_caller]
fn kill_until_done(hub: &mut Hub, mut done: impl FnMut(&Hub) -> u64) -> u32 {
    let (mut kills, mut seen) = (0, 0);
    patience::wait("all is done", patience::long(), || {
        let now = done(hub);
        if now == DEVICES {
            return Ok(kills);
        }
        if kills == 0 || (kills < 3 && now > seen) {
            seen = now;
            kills += 1;
            hub.crash_and_restart();
        }
        Err(format!("{now} of {DEVICES}"))
    })
}

#[test]
fn a_job_goes_on_after_kills_and_changes_each_twin_once() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    register(&hub, false);
    let job = json!({"type": "scheduleUpdateTwin", "queryCondition": "*",
        "updateTwin": {"etag": "*", "tags": {"season": "winter"}, "properties": {"desired": {"heating": "on"}}}});

    hub.service().call("PUT", "/jobs/v2/winter", Some(&job));
    let kills = kill_until_done(&mut hub, |hub| {
        let job = hub.service().call("GET", "/jobs/v2/winter", None);
        job["deviceJobStatistics"]["succeededCount"]
            .as_u64()
            .unwrap_or_default()
    });

    let versions = "SELECT version, tags.season AS s, COUNT() AS n FROM devices GROUP BY version, tags.season";
    assert_eq!(
        count(&hub, versions),
        json!([{"version": 3, "s": "winter", "n": DEVICES}])
    );
    assert!(kills > 0);
}

#[test]
fn the_fan_out_of_a_deployment_goes_on_after_kills_and_writes_each_twin_once() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    register(&hub, true);
    let module =
        json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "sensor:1"}});
    let content = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": {"sensor": module},
        }},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    }});
    let deployment =
        json!({"id": "base", "schemaVersion": "1.0", "priority": 1, "targetCondition": "*", "content": content});

    hub.service().call("PUT", "/configurations/base", Some(&deployment));
    let applied = "SELECT COUNT() AS n FROM devices.modules WHERE moduleId = '$edgeAgent' AND configurations.base.status = 'Applied'";
    let kills = kill_until_done(&mut hub, |hub| count(hub, applied)[0]["n"].as_u64().unwrap_or_default());

    let versions = "SELECT moduleId, properties.desired.$version AS v, COUNT() AS n FROM devices.modules \
        GROUP BY moduleId, properties.desired.$version";
    let mut versions = count(&hub, versions).as_array().cloned().unwrap_or_default();
    versions.sort_by_key(Value::to_string);
    // Written once, and no module is missing or there twice.
    let expected = [("$edgeAgent", 2), ("$edgeHub", 2), ("sensor", 1)];
    assert_eq!(
        versions,
        expected.map(|(module, version)| json!({"moduleId": module, "v": version, "n": DEVICES}))
    );
    let shown = patience::wait("the figures", patience::long(), || {
        let shown = hub.service().call("GET", "/configurations/base", None);
        let results = shown["systemMetrics"]["results"].clone();
        if results["appliedCount"] == DEVICES {
            Ok(results)
        } else {
            Err(results.to_string())
        }
    });
    assert_eq!(shown["targetedCount"], DEVICES);
    assert!(kills > 0);
}
