//! Every row of the table of queries (`hub-service-api.md` §4.1), on a small fleet.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use holm_query::twin::{Groups, Query};
use serde_json::{Value, json};

/// Five devices as services read them.
fn devices() -> Vec<Value> {
    let twin = |id: &str, more: Value| {
        let mut twin = json!({
            "deviceId": id, "status": "enabled", "connectionState": "Disconnected",
            "lastActivityTime": "2026-05-01T10:00:00.0000000Z", "capabilities": {"iotEdge": false},
            "parentScopes": [], "tags": {}, "configurations": {},
            "properties": {
                "desired": {"$version": 1, "$metadata": {}},
                "reported": {"$version": 1, "$metadata": {}},
            },
        });
        merge(&mut twin, &more);
        twin
    };
    vec![
        twin(
            "d1",
            json!({"tags": {"location": {"region": "US"}, "a": "x", "ring": 1, "floor": 1, "n": 4, "region": "EU", "x": true},
                "properties": {"desired": {"fw": "1.0"}, "reported": {"battery": 10, "fw": "1.0", "t": 20,
                    "$metadata": {"battery": {"$lastUpdated": "2026-01-01T00:00:00.0000000Z"}}}},
                "configurations": {"fw-v2": {"status": "Applied"}}}),
        ),
        twin(
            "d2",
            json!({"status": "disabled", "tags": {"a": "y", "floor": 2, "n": 5, "region": "EU", "x": true},
                "properties": {"desired": {"fw": "2.0"}, "reported": {"battery": 80, "fw": "1.0", "t": 30.5,
                    "$metadata": {"battery": {"$lastUpdated": "2026-06-01T00:00:00.0000000Z"}}}},
                "configurations": {"fw-v2": {"status": "Targeted"}}}),
        ),
        twin(
            "gw",
            json!({"capabilities": {"iotEdge": true}, "connectionState": "Connected", "tags": {"region": "US", "floor": 3}}),
        ),
        twin(
            "line-1",
            json!({"parentScopes": ["ms-azure-iot-edge://gw-63"], "tags": {"a": null, "region": null, "n": "4"},
                "properties": {"reported": {"battery": "low"}},
                "lastActivityTime": "2025-12-31T23:59:59.9990000Z"}),
        ),
        twin(
            "line-2",
            json!({"tags": {"a": {"deep": [1, {"b": "c"}]}, "odd name": 1, "n": 7.5}}),
        ),
    ]
}

fn modules() -> Vec<Value> {
    let agent = |device: &str, status: &str, code: u32| {
        json!({"deviceId": device, "moduleId": "$edgeAgent", "configurations": {"d1": {"status": status}},
            "properties": {"desired": {"$version": 3}, "reported": {"lastDesiredVersion": 3, "lastDesiredStatus": {"code": code}}}})
    };
    vec![
        agent("x", "Applied", 200),
        json!({"deviceId": "x", "moduleId": "filter", "configurations": {}, "properties": {"desired": {}, "reported": {}}}),
        agent("y", "Targeted", 500),
    ]
}

fn jobs() -> Vec<Value> {
    let row = |device: &str, job: &str, kind: &str, status: &str| {
        json!({"deviceId": device, "jobId": job, "jobType": kind, "status": status,
            "createdDateTimeUtc": "2026-03-01T00:00:00.0000000Z"})
    };
    vec![
        row("d1", "j1", "scheduleUpdateTwin", "completed"),
        row("d2", "j1", "scheduleUpdateTwin", "failed"),
        row("d1", "j2", "scheduleDeviceMethod", "failed"),
    ]
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Runs a query as a hub would, without pages. Each document also passes the filter if it matches.
fn run(text: &str, documents: &[Value]) -> Vec<Value> {
    let query = Query::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let filter = query.filter();
    for document in documents {
        assert!(
            !query.matches(document) || filter.passes(document),
            "{text}: {filter:?} loses {document}"
        );
    }
    let mut matches: Vec<&Value> = documents.iter().filter(|document| query.matches(document)).collect();
    let top = query.top().map_or(usize::MAX, |top| usize::try_from(top).unwrap());
    if query.is_grouped() {
        let mut groups = Groups::new(&query, 100, usize::MAX);
        for document in matches {
            groups.add(document).unwrap();
        }
        return groups.rows_after(None).map(|(_, row)| row).take(top).collect();
    }
    if query.is_sorted() {
        matches.sort_by_key(|document| query.sort_key(document));
    }
    matches
        .into_iter()
        .take(top)
        .map(|document| query.show(document))
        .collect()
}

fn ids(text: &str) -> Vec<String> {
    ids_of(text, &devices())
}

fn ids_of(text: &str, documents: &[Value]) -> Vec<String> {
    run(text, documents)
        .iter()
        .map(|row| row["deviceId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn conditions_choose_the_devices_of_the_table() {
    let all = ["d1", "d2", "gw", "line-1", "line-2"];
    for (row, condition, wanted) in [
        (2, "capabilities.iotEdge = true", &["gw"][..]),
        (5, "deviceId = 'd1'", &["d1"]),
        (5, "deviceId = 'D1'", &[]),
        (6, "deviceId IN ['d1','d2']", &["d1", "d2"]),
        (7, "deviceId NIN ['d1']", &["d2", "gw", "line-1", "line-2"]),
        (7, "deviceId NOT IN ['d1']", &["d2", "gw", "line-1", "line-2"]),
        (8, "status = 'disabled'", &["d2"]),
        (9, "connectionState = 'Connected'", &["gw"]),
        (10, "lastActivityTime < '2026-01-01T00:00:00Z'", &["line-1"]),
        (10, "lastActivityTime < '2026-01-01T02:00:00+02:00'", &["line-1"]),
        (
            10,
            "'2026-05-01T10:00:00Z' = lastActivityTime",
            &["d1", "d2", "gw", "line-2"],
        ),
        (11, "tags.location.region = 'US'", &["d1"]),
        (12, "tags.a != 'x' AND IS_DEFINED(tags.a)", &["d2", "line-1"]),
        (13, "NOT IS_DEFINED(tags.ring)", &["d2", "gw", "line-1", "line-2"]),
        (14, "properties.reported.battery < 20", &["d1"]),
        (14, "NOT properties.reported.battery < 20", &["d2"]),
        (15, "properties.desired.fw = properties.reported.fw", &["d1"]),
        (
            16,
            "properties.reported.$metadata.battery.$lastUpdated < '2026-02-01T00:00:00Z'",
            &["d1"],
        ),
        (17, "STARTSWITH(deviceId,'line-')", &["line-1", "line-2"]),
        (17, "starts_with(devices.deviceId, \"line-\")", &["line-1", "line-2"]),
        (
            18,
            "ARRAY_CONTAINS(parentScopes,'ms-azure-iot-edge://gw-63')",
            &["line-1"],
        ),
        (
            19,
            "tags.floor IN [1,2] AND (status='enabled' OR tags.x=true)",
            &["d1", "d2"],
        ),
        (20, "tags.n % 2 = 0", &["d1"]),
        (21, "configurations.[[fw-v2]].status = 'Applied'", &["d1"]),
        (21, "configurations[[fw-v2]].status = 'Applied'", &["d1"]),
        (29, "tags.region != null", &["d1", "d2", "gw"]),
        (0, "tags.a != null", &["d1", "d2", "line-2"]),
        (0, "tags.[[odd name]] = 0x1", &["line-2"]),
        (0, "tags.a.deep[1].b = 'c'", &["line-2"]),
        (0, "tags.a.deep[0] >= 1", &["line-2"]),
        (0, "IS_OBJECT(tags.a) AND IS_ARRAY(tags.a.deep)", &["line-2"]),
        (0, "IS_STRING(tags.n)", &["line-1"]),
        (0, "IS_NULL(tags.a)", &["line-1"]),
        (0, "ENDSWITH(deviceId, '2') AND CONTAINS(deviceId, 'ne')", &["line-2"]),
        (0, "LENGTH(deviceId) = 2 AND tags.n - 1 = 3", &["d1"]),
        (0, "DeviceId = 'd1' OR DEVICEID = 'gw'", &["d1", "gw"]),
        (0, "tags.A = 'x'", &[]),
        (0, "tags.a = 'x''s' OR tags.a = 'x'", &["d1"]),
        (0, "true", &all),
        (
            0,
            "undefined = undefined OR tags.nothing > 1 OR NOT tags.nothing = 1",
            &[],
        ),
    ] {
        let found = ids(&format!("SELECT * FROM devices WHERE {condition}"));
        assert_eq!(found, wanted, "row {row}: {condition}");
    }
}

#[test]
fn everything_is_shown_whole_and_as_twins() {
    for text in ["SELECT * FROM devices", "select * from Devices"] {
        assert_eq!(run(text, &devices()), devices());
        assert_eq!(Query::parse(text).unwrap().item_type(), "Twin");
    }
    assert_eq!(ids("SELECT TOP 2 * FROM devices"), ["d1", "d2"]);
    assert_eq!(ids("SELECT TOP 0 * FROM devices"), [""; 0]);
}

#[test]
fn modules_are_a_collection_of_their_own() {
    let found = |text: &str| ids_of(text, &modules());

    let outranked = "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent' AND configurations.[[d1]].status='Targeted'";
    assert_eq!(found(outranked), ["y"]);
    assert_eq!(
        found("SELECT * FROM devices.modules WHERE deviceId IN ['x']"),
        ["x", "x"]
    );
    let failing = "SELECT * FROM devices.modules WHERE properties.reported.lastDesiredStatus.code != 200";
    assert_eq!(found(failing), ["y"]);
    let successful = "select deviceId from devices.modules where devices.modules.moduleId = '$edgeAgent' and \
        configurations.[[d1]].status = 'Applied' and properties.desired.$version = properties.reported.lastDesiredVersion \
        and properties.reported.lastDesiredStatus.code = 200";
    assert_eq!(found(successful), ["x"]);
    assert_eq!(
        Query::parse("SELECT * FROM devices.modules").unwrap().item_type(),
        "Twin"
    );
}

#[test]
fn jobs_are_shown_a_row_for_each_device() {
    let found = |text: &str| ids_of(text, &jobs());

    assert_eq!(found("SELECT * FROM devices.jobs").len(), 3);
    let failed = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j1' AND devices.jobs.status = 'failed'";
    assert_eq!(found(failed), ["d2"]);
    let sorted = Query::parse("SELECT * FROM devices.jobs ORDER BY createdDateTimeUtc").unwrap_err();
    assert!(sorted.to_string().contains("remove ORDER BY"), "{sorted}");
    let history = "SELECT * FROM devices.jobs WHERE deviceId = 'd1' AND jobType = 'scheduleUpdateTwin' \
        AND createdTimeUtc > '2026-01-01T00:00:00Z'";
    assert_eq!(found(history), ["d1"]);
    assert_eq!(
        Query::parse("SELECT * FROM devices.jobs").unwrap().item_type(),
        "DeviceJob"
    );
}

#[test]
fn projections_show_what_is_there_under_the_published_names() {
    for (text, wanted) in [
        (
            "SELECT deviceId FROM devices WHERE deviceId = 'd1'",
            json!([{"deviceId": "d1"}]),
        ),
        (
            "SELECT deviceId AS id, tags.region FROM devices WHERE tags.region != null",
            json!([{"id": "d1", "region": "EU"}, {"id": "d2", "region": "EU"}, {"id": "gw", "region": "US"}]),
        ),
        (
            "SELECT DeviceId, LastActivityTime FROM devices WHERE deviceId = 'gw'",
            json!([{"deviceId": "gw", "lastActivityTime": "2026-05-01T10:00:00.0000000Z"}]),
        ),
        (
            "SELECT deviceId, tags.ring, tags.n * 2, tags.n / 0 FROM devices AS d WHERE d.tags.ring = 1",
            json!([{"deviceId": "d1", "ring": 1, "$3": 8}]),
        ),
        (
            "SELECT tags.a.deep, properties.reported.t AS [[from]] FROM devices WHERE IS_OBJECT(tags.a)",
            json!([{"deep": [1, {"b": "c"}]}]),
        ),
        ("SELECT tags.nothing FROM devices WHERE deviceId = 'd1'", json!([{}])),
    ] {
        assert_eq!(Value::Array(run(text, &devices())), wanted, "{text}");
        assert_eq!(Query::parse(text).unwrap().item_type(), "Raw", "{text}");
    }
}

#[test]
fn aggregates_count_and_add_up_what_is_there() {
    for (text, wanted) in [
        ("SELECT COUNT() AS n FROM devices", json!([{"n": 5}])),
        (
            "SELECT COUNT(*) AS n, COUNT(tags.ring) AS r FROM devices",
            json!([{"n": 5, "r": 1}]),
        ),
        (
            "SELECT status, COUNT() AS n FROM devices GROUP BY status",
            json!([{"status": "disabled", "n": 1}, {"status": "enabled", "n": 4}]),
        ),
        (
            "SELECT tags.region AS r, AVG(properties.reported.t) AS avg FROM devices WHERE tags.region != null GROUP BY tags.region",
            json!([{"r": "EU", "avg": 25.25}, {"r": "US"}]),
        ),
        (
            "SELECT MIN(properties.reported.t) AS lo, MAX(properties.reported.t) AS hi, SUM(tags.floor) AS s FROM devices",
            json!([{"lo": 20, "hi": 30.5, "s": 6}]),
        ),
        (
            "SELECT COUNT() AS n, SUM(tags.floor) AS s, AVG(tags.floor) AS a, MIN(tags.floor) FROM devices WHERE deviceId = 'none'",
            json!([{"n": 0, "s": 0}]),
        ),
        (
            "SELECT status, COUNT() AS n FROM devices WHERE deviceId = 'none' GROUP BY status",
            json!([]),
        ),
        ("SELECT COUNT() FROM devices", json!([{"$1": 5}])),
        (
            "SELECT DISTINCT status FROM devices",
            json!([{"status": "disabled"}, {"status": "enabled"}]),
        ),
        (
            "SELECT TOP 1 tags.region, COUNT() AS n FROM devices GROUP BY tags.region",
            json!([{"n": 1}]),
        ),
        (
            "SELECT tags.region AS r, COUNT() AS n FROM devices WHERE tags.region != null GROUP BY r",
            json!([{"r": "EU", "n": 2}, {"r": "US", "n": 1}]),
        ),
    ] {
        assert_eq!(Value::Array(run(text, &devices())), wanted, "{text}");
    }
}

#[test]
fn too_many_groups_are_refused() {
    let query = Query::parse("SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId").unwrap();
    let mut groups = Groups::new(&query, 2, usize::MAX);

    let added: Vec<bool> = devices().iter().map(|device| groups.add(device).is_ok()).collect();

    assert_eq!(added, [true, true, false, false, false]);
    let behind: Vec<&str> = groups.rows_after(Some("\"d1\"")).map(|(key, _)| key).collect();
    assert_eq!(behind, ["\"d2\""]);
}

#[test]
fn results_can_be_sorted() {
    assert_eq!(
        ids("SELECT * FROM devices ORDER BY properties.reported.battery DESC, deviceId"),
        ["line-1", "d2", "d1", "gw", "line-2"]
    );
    assert_eq!(ids("SELECT deviceId FROM devices ORDER BY deviceId DESC")[0], "line-2");
    assert_eq!(
        ids("SELECT deviceId, properties.reported.battery AS b FROM devices ORDER BY b DESC, deviceId")[0],
        "line-1"
    );
}

#[test]
fn problems_name_the_place_and_the_way_out() {
    for (text, place, part) in [
        ("SELECT * FROM devices WHERE", (1, 28), "a value is missing"),
        ("SELECT * FROM nowhere", (1, 15), "`devices.modules`"),
        ("SELECT * FROM devices JOIN x IN devices", (1, 23), "joined"),
        ("", (1, 1), "`SELECT * FROM devices`"),
        ("SELECT *", (1, 9), "`FROM devices`"),
        ("DELETE FROM devices", (1, 1), "`SELECT`"),
        ("SELECT * FROM devices WHERE tags.a = ", (1, 38), "a value is missing"),
        ("SELECT * FROM devices\nWHERE tags.my-tag = 1", (2, 14), "`[[my-tag]]`"),
        ("SELECT * FROM devices WHERE tags.a == 1", (1, 36), "`=`"),
        ("SELECT * FROM devices WHERE a = 1 = 2", (1, 35), "AND"),
        (
            "SELECT * FROM devices WHERE deviceId IN ('a')",
            (1, 41),
            "`IN ['a', 'b']`",
        ),
        ("SELECT * FROM devices WHERE deviceId = 'a", (1, 40), "no end"),
        ("SELECT * FROM devices WHERE (deviceId = 'a'", (1, 44), "`)`"),
        ("SELECT * FROM devices WHERE IS_DEFIND(tags.a)", (1, 29), "IS_DEFINED"),
        ("SELECT * FROM devices WHERE IS_DEFINED()", (1, 29), "IS_DEFINED(value)"),
        ("SELECT * FROM devices WHERE COUNT() > 1", (1, 29), "aggregates"),
        ("SELECT status, COUNT() FROM devices", (1, 8), "GROUP BY"),
        ("SELECT * FROM devices GROUP BY status", (1, 8), "`*`"),
        (
            "SELECT tags.a, properties.reported.a FROM devices",
            (1, 16),
            "another name",
        ),
        ("SELECT TOP 1.5 * FROM devices", (1, 12), "TOP 10"),
        ("SELECT deviceId FROM devices.jobs", (1, 8), "devices.jobs"),
        ("SELECT * FROM devices LIMIT 5", (1, 23), "`SELECT TOP 10 …`"),
        ("SELECT * FROM devices offset 5", (1, 23), "page by page"),
        (
            "SELECT status FROM devices HAVING COUNT() > 1",
            (1, 28),
            "WHERE chooses",
        ),
        ("SELECT * FROM devices WHERE tags.a LIKE 'x%'", (1, 36), "`STARTSWITH("),
        (
            "SELECT * FROM devices WHERE tags.a between 1 AND 2",
            (1, 36),
            "`path >= 1 AND",
        ),
        ("SELECT * FROM devices WHERE tags.a IS NULL", (1, 36), "`IS_NULL(path)`"),
        ("SELECT * FROM devices WHERE tags['a'] = 1", (1, 33), "`.[[name]]`"),
        (
            "SELECT * FROM devices WHERE deviceId = 'a' -- one",
            (1, 44),
            "no comments",
        ),
        ("SELECT * FROM devices; DROP TABLE twins", (1, 22), "`;`"),
    ] {
        let problem = Query::parse(text).expect_err(text);
        assert_eq!((problem.line, problem.column), place, "{text}: {problem}");
        assert!(problem.to_string().contains(part), "{text}: {problem}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let text = |condition: &str| format!("SELECT * FROM devices WHERE {condition}");
    let deep = format!("{}true{}", "(".repeat(100), ")".repeat(100));
    let not = format!("{}true", "NOT ".repeat(100));
    let minus = format!("{}1 = 1", "- ".repeat(100));
    let sum = format!("1{} = 1", " + 1".repeat(1000));

    for condition in [deep, not, minus, sum] {
        assert!(Query::parse(&text(&condition)).is_err(), "{condition}");
    }
    let long = format!("tags.a = 1{}", " OR tags.a = 1".repeat(570));
    assert!(
        Query::parse(&text(&long)).is_ok(),
        "{} characters fit",
        text(&long).len()
    );
    let too_long = text(&" ".repeat(8192));
    assert!(Query::parse(&too_long).unwrap_err().message.contains("8192"));
}

#[test]
fn groups_that_are_large_are_refused_before_they_are_many() {
    let query = Query::parse("SELECT DISTINCT tags.a FROM devices").unwrap();
    let mut groups = Groups::new(&query, 100, 10_000);
    let document = |n: u32| json!({"tags": {"a": format!("{n}{}", "x".repeat(1000))}});

    let added = (0..10).take_while(|n| groups.add(&document(*n)).is_ok()).count();

    assert_eq!(added, 4);
}
