//! Rows 47 to 51, the table of queries over HTTPS, and what no table asks: pages of a fleet that moves, and the index of tags.

use std::collections::BTreeSet;

use holm_gateway::{Subscriptions, Twins};
use holm_hub::queries::PageRequest;
use holm_query::twin::Query;
use hyper::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Reply, TestHub};

async fn query(hub: &TestHub, text: &str, headers: &[(&str, &str)]) -> Reply {
    let body = json!({ "query": text }).to_string();
    hub.call(Method::POST, "/devices/query", headers, body).await
}

async fn ask(hub: &TestHub, text: &str) -> Value {
    query(hub, text, &[]).await.ok()
}

fn ids(rows: &Value) -> Vec<String> {
    let id = |row: &Value| row["deviceId"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(id).collect()
}

/// Every page of a query, each of at most `most`.
async fn pages(hub: &TestHub, text: &str, most: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut headers = vec![("x-ms-max-item-count", most)];
        headers.extend(next.as_deref().map(|next| ("x-ms-continuation", next)));
        let reply = query(hub, text, &headers).await;
        next = reply.header("x-ms-continuation").map(str::to_owned);
        pages.push(ids(&reply.ok()));
        if next.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_have_the_published_headers_and_the_last_none_to_go_on_with() {
    let hub = TestHub::start().await;
    let empty = query(&hub, "SELECT * FROM devices", &[]).await;
    assert_eq!(empty.header("x-ms-item-type"), Some("Twin"));
    assert_eq!(empty.header("x-ms-continuation"), None);
    assert_eq!(empty.ok(), json!([]));
    for id in ["d1", "d2", "d3", "d4", "d5"] {
        hub.device(id).await;
    }

    let found = pages(&hub, "SELECT * FROM devices", "2").await;
    let even = pages(&hub, "SELECT TOP 4 deviceId FROM devices", "2").await;
    let raw = query(&hub, "SELECT COUNT() AS n FROM devices", &[]).await;
    let twin = ask(&hub, "SELECT * FROM devices WHERE deviceId = 'd3'").await;

    assert_eq!(found, [vec!["d1", "d2"], vec!["d3", "d4"], vec!["d5"]]);
    assert_eq!(even, [["d1", "d2"], ["d3", "d4"]]);
    assert_eq!(raw.header("x-ms-item-type"), Some("Raw"));
    assert_eq!(raw.ok(), json!([{"n": 5}]));
    assert_eq!(
        twin,
        json!([hub.get("/twins/d3").await.ok()]),
        "a twin is what `GET` shows"
    );
}

#[tokio::test]
async fn a_next_page_may_be_of_another_size_and_no_page_has_more_than_a_thousand() {
    let hub = TestHub::start().await;
    for part in 0..11 {
        let items: Value = (0..100).map(|n| json!({"id": format!("d{part:02}{n:02}")})).collect();
        hub.post("/devices", items).await.ok();
    }
    let text = "SELECT deviceId FROM devices";

    // As the command line asks for 1050: what is left is the size of the next page.
    let first = query(&hub, text, &[("x-ms-max-item-count", "1050")]).await;
    let next = first.header("x-ms-continuation").unwrap().to_owned();
    let second = query(
        &hub,
        text,
        &[("x-ms-max-item-count", "50"), ("x-ms-continuation", &next)],
    )
    .await;
    let next = second.header("x-ms-continuation").unwrap().to_owned();
    let third = query(&hub, text, &[("x-ms-continuation", &next)]).await;

    assert_eq!(third.header("x-ms-continuation"), None);
    let pages = [first, second, third].map(|page| ids(&page.ok()));
    assert_eq!([pages[0].len(), pages[1].len(), pages[2].len()], [1000, 50, 50]);
    assert!(pages.concat().is_sorted());
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2"] {
        hub.device(id).await;
    }
    let first = query(&hub, "SELECT * FROM devices", &[("x-ms-max-item-count", "1")]).await;
    let next = first.header("x-ms-continuation").unwrap().to_owned();

    for text in [
        "SELECT * FROM devices WHERE",
        "SELECT * FROM nowhere",
        "",
        "SELECT * FROM devices JOIN x",
    ] {
        let reply = query(&hub, text, &[]).await;
        reply.assert_error(400, "ArgumentInvalid");
        assert!(
            reply.json()["Message"].as_str().unwrap().contains("line 1, column"),
            "{text}"
        );
    }
    let garbage = [("x-ms-continuation", "garbage")];
    query(&hub, "SELECT * FROM devices", &garbage)
        .await
        .assert_error(400, "ArgumentInvalid");
    let of_another = [("x-ms-continuation", next.as_str())];
    query(&hub, "SELECT deviceId FROM devices", &of_another)
        .await
        .assert_error(400, "ArgumentInvalid");
    let count = [("x-ms-max-item-count", "many")];
    query(&hub, "SELECT * FROM devices", &count)
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.call(Method::POST, "/devices/query", &[], "{}")
        .await
        .assert_error(400, "ArgumentInvalid");
    let token = hub.token_of("registryRead").await;
    let headers = [("authorization", token.as_str())];
    let path = "/devices/query?api-version=2021-04-12";
    let refused = hub
        .raw(
            Method::POST,
            path,
            &headers,
            "{\"query\":\"SELECT * FROM devices\"}".into(),
        )
        .await;
    refused.assert_error(401, "IotHubUnauthorizedAccess");
}

/// A fleet of different devices: an edge with children, some tagged, some that have reported.
async fn fleet() -> TestHub {
    let hub = TestHub::start().await;
    let edge = hub.edge_device("gw").await;
    for n in 0..12_u32 {
        let id = format!("line-{n:02}");
        let site = ["x", "y", "z"][n as usize % 3];
        hub.device(&id).await;
        let tags = json!({
            "n": n, "half": f64::from(n) / 2.0, "even": n % 2 == 0, "site": site,
            "my_tag": n, "odd-name": n, "ü": {"deep": [n, {"a": n}]}, "long": "ä".repeat(300 + n as usize),
        });
        hub.patch(
            &format!("/twins/{id}"),
            json!({"tags": tags, "properties": {"desired": {"fw": n % 4}}}),
        )
        .await
        .ok();
        if n < 4 {
            let client = hub.connect(&id, Subscriptions::NONE).await;
            let backend = hub.hub.backend();
            let report = json!({"fw": n, "battery": n * 10, "[odd]k": {"x": "y"}});
            backend.patch_reported(&client.admission, report, None).await.unwrap();
            if n > 0 {
                client.disconnect().await;
            }
        }
    }
    let child = json!({"deviceId": "child", "deviceScope": edge["deviceScope"]});
    hub.put("/devices/child", child).await.ok();
    hub.update(
        "/devices/line-05",
        "*",
        json!({"deviceId": "line-05", "status": "disabled"}),
    )
    .await
    .ok();
    hub
}

#[tokio::test]
async fn index_and_database_lose_nothing_that_the_evaluator_finds() {
    let hub = fleet().await;
    let scope = hub.get("/devices/gw").await.ok()["deviceScope"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut twins = Vec::new();
    for id in ids(&ask(&hub, "SELECT deviceId FROM devices").await) {
        twins.push(hub.get(&format!("/twins/{id}")).await.ok());
    }
    assert_eq!(twins.len(), 14);
    let long = format!("tags.long = '{}'", "ä".repeat(303));
    let children = format!("ARRAY_CONTAINS(parentScopes, '{scope}')");
    let own_scope = format!("deviceScope = '{scope}' AND capabilities.iotEdge = true");

    for (condition, wanted) in [
        ("tags.n = 3", 1),
        ("tags.n = 3.0 OR tags.n = '3' OR tags.n = 99", 1),
        ("tags.half = 1.5", 1),
        ("tags.half > 1.5 AND tags.half <= 3", 3),
        ("tags.even = true", 6),
        ("tags.even", 6),
        ("NOT tags.even", 6),
        ("tags.site = 'x' AND tags.n < 7", 3),
        ("tags.site = 'x' AND tags.even AND properties.reported.battery >= 0", 1),
        ("tags.site = 'x' AND tags.site = 'y'", 0),
        ("tags.n >= 3 AND tags.n < 6 AND tags.n != 4", 2),
        ("(tags.site = 'x' OR tags.n = 4) AND status = 'enabled'", 5),
        ("IS_DEFINED(tags.ü) AND tags.site != 'z'", 8),
        (
            "ARRAY_CONTAINS(tags.ü.deep, 7) OR IS_OBJECT(tags.ü.deep[1]) AND tags.n = 2",
            2,
        ),
        ("deviceId > 'line-03' AND deviceId <= 'line-06' AND tags.even = true", 2),
        ("tags.site IN ['x', 'y'] AND tags.even = false", 4),
        ("STARTSWITH(tags.site, '')", 12),
        ("tags.my_tag = 4 AND tags.[[odd-name]] = 4", 1),
        ("tags.ü.deep[0] = 7 AND tags.ü.deep[1].a >= 7", 1),
        (&long, 1),
        ("tags.long >= 'z'", 12),
        ("STARTSWITH(deviceId, 'line-0')", 10),
        ("deviceId IN ['gw', 'child', 'nobody']", 2),
        ("deviceId >= 'line-10'", 2),
        (&children, 1),
        (&own_scope, 1),
        ("status = 'disabled'", 1),
        ("connectionState = 'Connected'", 1),
        ("lastActivityTime > '2000-01-01T00:00:00Z'", 4),
        (
            "properties.reported.battery > 5 AND properties.reported.battery < 25",
            2,
        ),
        ("properties.reported.[[[odd]k]].x = 'y'", 4),
        ("properties.desired.fw = properties.reported.fw", 4),
        ("properties.reported.$version > 1", 4),
        ("properties.desired.$metadata.fw.$lastUpdatedVersion = 2", 12),
        ("NOT IS_DEFINED(tags.n)", 2),
        (
            "tags.n % 4 = 0 AND configurations.x.status = 'Applied' OR tags.n / 2 = 3",
            1,
        ),
        (
            "authenticationType = 'sas' AND cloudToDeviceMessageCount = 0 AND version > 2",
            12,
        ),
        ("false OR deviceId = 'gw''; DROP TABLE twins; --'", 0),
    ] {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        let parsed = Query::parse(&text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let by_hand: Vec<String> = twins
            .iter()
            .filter(|twin| parsed.matches(twin))
            .map(|twin| twin["deviceId"].as_str().unwrap().to_owned())
            .collect();

        let found = ids(&ask(&hub, &text).await);

        assert_eq!(found, by_hand, "{condition}");
        assert_eq!(found.len(), wanted, "{condition}");
    }
}

#[tokio::test]
async fn modules_are_found_with_their_paths() {
    let hub = fleet().await;
    hub.put(
        "/devices/line-01/modules/m",
        json!({"deviceId": "line-01", "moduleId": "m"}),
    )
    .await
    .ok();
    hub.patch("/twins/line-01/modules/m", json!({"tags": {"n": 1}}))
        .await
        .ok();

    let agents = "SELECT deviceId, moduleId FROM devices.modules WHERE moduleId = '$edgeAgent'";
    assert_eq!(
        ask(&hub, agents).await,
        json!([{"deviceId": "gw", "moduleId": "$edgeAgent"}])
    );
    let tagged = ask(&hub, "SELECT * FROM devices.modules WHERE devices.modules.tags.n = 1").await;
    assert_eq!(tagged, json!([hub.get("/twins/line-01/modules/m").await.ok()]));
    assert_eq!(
        ids(&ask(&hub, "SELECT deviceId FROM devices WHERE tags.n = 1").await),
        ["line-01"]
    );
    assert_eq!(
        pages(&hub, "SELECT * FROM devices.modules", "1").await,
        [["gw"], ["gw"], ["line-01"]]
    );
    let of_device = "SELECT * FROM devices.modules WHERE deviceId IN ['gw']";
    assert_eq!(ids(&ask(&hub, of_device).await), ["gw", "gw"]);
}

#[tokio::test]
async fn groups_and_sorted_results_go_on_from_page_to_page() {
    let hub = fleet().await;

    let by_site =
        "SELECT tags.site AS deviceId, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.site) GROUP BY tags.site";
    let sorted = "SELECT * FROM devices WHERE tags.n < 5 ORDER BY tags.site DESC";
    let nothing = "SELECT deviceId FROM devices WHERE deviceId = 'nobody' ORDER BY deviceId";

    assert_eq!(pages(&hub, by_site, "2").await, [vec!["x", "y"], vec!["z"]]);
    assert_eq!(
        pages(&hub, sorted, "2").await,
        [vec!["line-02", "line-01"], vec!["line-04", "line-00"], vec!["line-03"]]
    );
    assert_eq!(pages(&hub, nothing, "2").await, [[""; 0]]);
    let counts = ask(
        &hub,
        "SELECT status, COUNT() AS n, MAX(properties.reported.battery) AS b FROM devices GROUP BY status",
    )
    .await;
    assert_eq!(
        counts,
        json!([{"status": "disabled", "n": 1}, {"status": "enabled", "n": 13, "b": 30}])
    );
}

#[tokio::test]
async fn paging_neither_repeats_nor_misses_an_identity_while_the_fleet_moves() {
    let hub = TestHub::start().await;
    let stays: Vec<String> = (0..40).map(|n| format!("d{:03}", n * 10)).collect();
    for id in &stays {
        hub.device(id).await;
    }

    let mut seen = Vec::new();
    let mut next: Option<String> = None;
    let mut page = 0;
    loop {
        let mut headers = vec![("x-ms-max-item-count", "7")];
        headers.extend(next.as_deref().map(|next| ("x-ms-continuation", next)));
        let reply = query(&hub, "SELECT deviceId FROM devices WHERE status = 'enabled'", &headers).await;
        next = reply.header("x-ms-continuation").map(str::to_owned);
        seen.extend(ids(&reply.ok()));
        if next.is_none() {
            break;
        }
        // Some come before and behind where the next page begins, and the one that it begins behind goes.
        for n in [0, 200, 390] {
            hub.device(&format!("d{:03}x{page}", n)).await;
        }
        let last = seen.last().unwrap().clone();
        if last.contains('x') {
            hub.delete(&format!("/devices/{last}")).await;
        }
        hub.patch(&format!("/twins/{}", stays[page]), json!({"tags": {"moved": page}}))
            .await
            .ok();
        page += 1;
    }

    let different: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(different.len(), seen.len(), "{seen:?}");
    assert!(stays.iter().all(|id| different.contains(id)), "{seen:?}");
}

#[tokio::test]
async fn the_index_follows_every_change_of_tags() {
    let hub = TestHub::start().await;
    let site = |site: &str| format!("SELECT deviceId FROM devices WHERE tags.site = '{site}'");
    let found = async |of: &str| ids(&ask(&hub, &site(of)).await);
    for id in ["d1", "d2"] {
        hub.device(id).await;
    }

    hub.patch("/twins/d1", json!({"tags": {"site": "a"}})).await.ok();
    assert_eq!(found("a").await, ["d1"]);
    hub.patch(
        "/twins/d1",
        json!({"tags": {"site": "b"}, "properties": {"desired": {"x": 1}}}),
    )
    .await
    .ok();
    assert_eq!((found("a").await.len(), found("b").await.len()), (0, 1));
    hub.patch("/twins/d1", json!({"properties": {"desired": {"x": 2}}}))
        .await
        .ok();
    assert_eq!(found("b").await, ["d1"]);
    hub.call(Method::PUT, "/twins/d1", &[], json!({"tags": {}}).to_string())
        .await
        .ok();
    assert_eq!(found("b").await.len(), 0);
    hub.patch("/twins/d2", json!({"tags": {"site": "b"}})).await.ok();
    hub.delete("/devices/d2").await;
    assert_eq!(found("b").await.len(), 0);
    hub.device("d2").await;
    assert_eq!(found("b").await.len(), 0, "another device of the same id");
    let rows: i64 = Connection::open(hub.directory.path().join("data/hub.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM twin_tags", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0, "nothing is left behind");
}

#[tokio::test]
async fn a_database_of_an_earlier_release_gets_its_index_at_the_start() {
    let hub = fleet().await;
    let path = hub.directory.path().join("data/hub.db");
    hub.hub.close().await;
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(
            "DROP TRIGGER twin_tags_written; DROP TRIGGER twin_tags_removed; DROP TABLE twin_tags;
            DROP TRIGGER identity_counts_written; DROP TRIGGER identity_counts_removed; DROP TABLE identity_counts;",
        )
        .unwrap();
    drop(database);

    let hub = TestHub::start_in(hub.directory).await;

    assert_eq!(
        ids(&ask(&hub, "SELECT * FROM devices WHERE tags.n = 3").await),
        ["line-03"]
    );
    let plan: String = Connection::open(&path)
        .unwrap()
        .query_row(
            "SELECT count(*) || '' FROM twin_tags WHERE path = '$.tags.n'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(plan, "12");
    assert_eq!(
        ask(&hub, "SELECT status, COUNT() AS n FROM devices GROUP BY status").await,
        json!([{"status": "disabled", "n": 1}, {"status": "enabled", "n": 13}])
    );
}

#[tokio::test]
async fn an_index_of_a_release_that_made_no_marks_gets_them_at_the_start() {
    let hub = fleet().await;
    let path = hub.directory.path().join("data/hub.db");
    hub.hub.close().await;
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(
            "DROP TRIGGER twin_tags_written; DELETE FROM twin_tags WHERE kind = 4;
            CREATE TRIGGER twin_tags_written BEFORE INSERT ON twins BEGIN SELECT 1; END;",
        )
        .unwrap();
    drop(database);

    let hub = TestHub::start_in(hub.directory).await;

    let text = "SELECT DISTINCT tags.ü AS u FROM devices WHERE IS_OBJECT(tags.ü)";
    assert_eq!(ask(&hub, text).await.as_array().unwrap().len(), 12);
    hub.patch("/twins/line-00", json!({"tags": {"ü": "now a text"}}))
        .await
        .ok();
    assert_eq!(ask(&hub, text).await.as_array().unwrap().len(), 11);
}

#[tokio::test]
async fn counts_follow_every_change_of_identities() {
    let hub = TestHub::start().await;
    let count = async |condition: &str| {
        let text = format!("SELECT COUNT() AS n FROM {condition}");
        ask(&hub, &text).await[0]["n"].as_u64().unwrap()
    };
    for id in ["d1", "d2", "d3"] {
        hub.device(id).await;
    }
    hub.edge_device("gw").await;
    hub.put("/devices/d1/modules/m", json!({"deviceId": "d1", "moduleId": "m"}))
        .await
        .ok();

    hub.update("/devices/d2", "*", json!({"deviceId": "d2", "status": "disabled"}))
        .await
        .ok();
    hub.delete("/devices/d3").await;

    assert_eq!(count("devices").await, 3);
    assert_eq!(count("devices WHERE status = 'disabled'").await, 1);
    assert_eq!(count("devices WHERE status = 'enabled'").await, 2);
    assert_eq!(count("devices WHERE capabilities.iotEdge = true").await, 1);
    assert_eq!(count("devices.modules").await, 3);
    hub.delete("/devices/d1").await;
    assert_eq!((count("devices").await, count("devices.modules").await), (2, 2));
    let statistics = hub.get("/statistics/devices").await.ok();
    assert_eq!(statistics["totalDeviceCount"], 2);
    assert_eq!(statistics["disabledDeviceCount"], 1);
}

#[tokio::test]
async fn a_query_that_nobody_waits_for_leaves_its_connection_to_others() {
    let hub = fleet().await;
    let queries = hub.hub.queries();
    let request = PageRequest {
        text: "SELECT * FROM devices WHERE tags.n / 2 = 3".to_owned(),
        ..PageRequest::default()
    };

    for _ in 0..20 {
        // Begun, and dropped at the first wait.
        let begun = queries.page(request.clone());
        drop(tokio::time::timeout(std::time::Duration::ZERO, begun).await);
    }
    let page = queries.page(request).await.unwrap();

    assert_eq!(page.items.len(), 1);
}
