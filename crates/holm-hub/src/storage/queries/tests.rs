//! Whatever way a query goes, it is shown what it would find by looking at every twin; the fleet is large enough for lanes that are
//! read in pieces.

use holm_model::twin::TwinFacts;
use holm_model::{Identity, Timestamp, Twin, TwinUpdate};
use holm_query::twin::{Groups, Query};
use serde_json::{Value as Json, json};

use super::super::Repository;
use super::*;
use crate::registry::Entry;

const DEVICES: usize = 1600;

/// Devices by their key, many of which are alike, and modules that look like them.
async fn fleet(directory: &tempfile::TempDir) -> (Repository, Vec<(RowKey, Json)>) {
    let odd = [
        json!("a"),
        json!("a\u{0}b"),
        json!("ä".repeat(200)),
        json!("ä".repeat(201)),
        json!({"x": 1}),
        json!({}),
        json!([1, "a"]),
        json!(1),
        json!(true),
        json!(""),
    ];
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    let mut made = Vec::new();
    for n in 0..DEVICES {
        let (site, half) = (["x", "y", "z"][n % 3], f64::from(u32::try_from(n).unwrap()) / 2.0);
        let mut tags = json!({
            "site": site, "spare": n % 2 == 0, "floor": n % 4, "n": n, "half": half, "deep": {"a": n % 5},
        });
        if let Some(odd) = odd.get(n % 100) {
            tags["odd"] = odd.clone();
        }
        let ids = [format!("d{n:04}"), format!("d{n:04}/m")];
        for id in &ids[..1 + usize::from(n % 10 == 0)] {
            let identity: Identity = id.parse().unwrap();
            let mut entry = Entry::new(identity.clone(), Timestamp::NEVER).unwrap();
            entry.enabled = n % 7 != 0;
            let mut twin = Twin::new(identity, Timestamp::NEVER);
            let update = TwinUpdate {
                tags: tags.as_object().cloned(),
                desired: None,
            };
            twin.patch(&update, Timestamp::NEVER).unwrap();
            let reported = json!({"battery": n % 50});
            twin.patch_reported(reported.as_object().unwrap(), None, Timestamp::NEVER)
                .unwrap();
            made.push((entry, twin));
        }
    }
    let documents = made.iter().map(|(entry, twin)| {
        let mut document = twin.service_view(&TwinFacts::default());
        document["status"] = json!(if entry.enabled { "enabled" } else { "disabled" });
        document["authenticationType"] = json!("none");
        let module = entry.identity.module.as_ref().map_or("", |module| module.as_str());
        ((entry.identity.device.as_str().to_owned(), module.to_owned()), document)
    });
    let documents = documents.collect();
    let write = repository.change(move |transaction| {
        made.iter().try_for_each(|(entry, twin)| {
            transaction.put_entry(entry)?;
            transaction.put_twin(twin)
        })
    });
    write.await.unwrap();
    (repository, documents)
}

/// The keys of all matches behind a key that a scan shows, and how far it went.
async fn found(repository: &Repository, text: &str, after: Option<RowKey>, effort: Effort) -> (Vec<RowKey>, Scanned) {
    let query = Query::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let modules = text.contains("devices.modules");
    let read = repository.read(move |view| {
        let filter = query.filter();
        let scan = Scan {
            filter: &filter,
            modules,
            after: after.as_ref(),
            twins: true,
            effort,
        };
        let mut keys = Vec::new();
        let scanned = view.scan(scan, &mut |key, contents| {
            keys.extend(contents.map(|_| key));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((keys, scanned))
    });
    read.await.unwrap()
}

/// The keys that lead to the matches of a condition, as far as so many rows of indexes let them be found.
async fn keys_within(repository: &Repository, text: &str, rows: usize) -> Vec<RowKey> {
    let query = Query::parse(text).unwrap();
    let read = repository.read(move |view| {
        let finder = Finder { view, modules: false };
        let mut keys = finder.keys(&query.filter())?.unwrap();
        let (mut found, mut at, budget) = (Vec::new(), RowKey::default(), Budget::of(rows));
        while let Some(key) = keys.seek(view, &at, &budget)? {
            at = behind(&key);
            found.push(key);
        }
        Ok(found)
    });
    read.await.unwrap()
}

#[tokio::test]
async fn where_the_effort_ends_no_key_is_leapt_over() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, _) = fleet(&directory).await;
    let text = "SELECT * FROM devices WHERE tags.site = 'x' AND tags.n >= 0 OR tags.odd = 'a'";

    let all = keys_within(&repository, text, usize::MAX).await;
    let mut parts = 0;
    for rows in (32..600).step_by(16) {
        let some = keys_within(&repository, text, rows).await;
        parts += usize::from(some.len() < all.len());
        assert!(all.starts_with(&some), "{rows}: {some:?}");
    }

    assert!(parts > 5, "every effort was enough");
}

#[tokio::test]
async fn keys_of_every_kind_lead_to_every_match_from_wherever_a_page_begins() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, documents) = fleet(&directory).await;
    let middle = documents[documents.len() / 2].0.clone();
    let starts = [None, Some(documents[0].0.clone()), Some(middle)];

    for (condition, wanted) in [
        ("tags.site = 'x'", 534),
        ("tags.site = 'x' AND tags.spare = true", 267),
        (
            "tags.site = 'x' AND tags.spare AND properties.reported.battery < 10",
            53,
        ),
        ("tags.site = 'x' AND tags.site = 'y'", 0),
        ("tags.site IN ['x', 'y'] AND tags.spare = false", 534),
        (
            "(tags.site = 'x' OR tags.site = 'z' AND tags.n < 900) AND NOT tags.spare",
            417,
        ),
        ("tags.floor = 2 AND tags.site = 'z' AND tags.deep.a = 3", 27),
        ("tags.n >= 300 AND tags.n < 330 AND tags.site = 'x'", 10),
        ("tags.half > 7.4 AND tags.half <= 8", 2),
        ("STARTSWITH(deviceId, 'd1') AND tags.site = 'x'", 200),
        ("deviceId > 'd0500' AND deviceId <= 'd1200' AND tags.spare = true", 350),
        (
            "deviceId IN ['d0001', 'd0002', 'd0004'] OR tags.site = 'y' AND tags.n > 1590",
            6,
        ),
        ("tags.odd = 'a'", 16),
        ("tags.odd >= 'a'", 64),
        ("tags.odd != 'a' AND tags.spare", 32),
        ("IS_DEFINED(tags.odd)", 160),
        ("IS_OBJECT(tags.odd)", 32),
        ("ARRAY_CONTAINS(tags.odd, 1)", 16),
        ("tags.odd[1] = 'a'", 16),
    ] {
        for collection in ["devices", "devices.modules"] {
            let text = format!("SELECT * FROM {collection} WHERE {condition}");
            let query = Query::parse(&text).unwrap();
            let is_meant = |key: &RowKey| (key.1.is_empty()) == (collection == "devices");
            for after in &starts {
                let by_hand: Vec<&RowKey> = documents
                    .iter()
                    .filter(|(key, document)| is_meant(key) && query.matches(document))
                    .map(|(key, _)| key)
                    .filter(|key| after.as_ref().is_none_or(|after| *key > after))
                    .collect();

                let (shown, scanned) = found(&repository, &text, after.clone(), Effort::ShortByKeys).await;
                let (in_full, _) = found(&repository, &text, after.clone(), Effort::Full).await;

                assert_eq!(scanned, Scanned::Whole, "{text}: an index knows");
                for shown in [&shown, &in_full] {
                    assert!(shown.is_sorted(), "{text}");
                    assert!(shown.iter().all(&is_meant), "{text}");
                    let lost: Vec<_> = by_hand.iter().filter(|key| !shown.contains(key)).collect();
                    assert!(lost.is_empty(), "{text}: {lost:?}");
                }
                if after.is_none() && collection == "devices" {
                    assert_eq!(by_hand.len(), wanted, "{text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_short_read_ends_where_no_index_leads() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, _) = fleet(&directory).await;

    let text = "SELECT * FROM devices WHERE properties.reported.battery = 7";
    let by_keys = found(&repository, text, None, Effort::ShortByKeys).await;
    let in_order = found(&repository, text, None, Effort::Short).await;

    assert_eq!(by_keys, (vec![], Scanned::Part));
    assert_eq!((in_order.0.len(), in_order.1), (DEVICES / 50, Scanned::Whole));
}

/// What a grouped query gives by the counts of the database, and whether it may.
async fn counted(repository: &Repository, text: &str) -> (Vec<Json>, Tallied) {
    let query = Query::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let modules = text.contains("devices.modules");
    let read = repository.read(move |view| {
        let (paths, filter) = (query.paths().unwrap(), query.filter());
        let tally = Tally {
            paths: &paths,
            filter: &filter,
            modules,
            effort: Effort::Full,
        };
        let mut groups = Groups::new(&query, 1000, usize::MAX);
        let tallied = view.tally(tally, &mut |document, count| {
            if query.matches(document) {
                groups.add_many(document, count).unwrap();
            }
            Ok(())
        })?;
        Ok((groups.rows_after(None).map(|(_, row)| row).collect(), tallied))
    });
    read.await.unwrap()
}

#[tokio::test]
async fn counts_of_the_database_are_those_of_the_twins() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, documents) = fleet(&directory).await;

    for (text, wanted) in [
        ("SELECT COUNT() FROM devices", Tallied::Done),
        ("SELECT COUNT() FROM devices.modules WHERE true", Tallied::Done),
        (
            "SELECT status, capabilities.iotEdge, authenticationType, COUNT() FROM devices GROUP BY status, capabilities.iotEdge, \
             authenticationType",
            Tallied::Done,
        ),
        (
            "SELECT COUNT(status) FROM devices.modules WHERE status != 'enabled'",
            Tallied::Done,
        ),
        (
            "SELECT tags.site, COUNT() FROM devices GROUP BY tags.site",
            Tallied::Done,
        ),
        (
            "SELECT tags.deep.a, COUNT() FROM devices.modules GROUP BY tags.deep.a",
            Tallied::Done,
        ),
        (
            "SELECT tags.site, COUNT() FROM devices WHERE IS_DEFINED(tags.site) AND NOT tags.site = 'x' GROUP BY tags.site",
            Tallied::Done,
        ),
        (
            "SELECT COUNT(), SUM(tags.n), AVG(tags.n), MIN(tags.n), MAX(tags.n), COUNT(tags.n) FROM devices WHERE tags.n % 7 = 3",
            Tallied::Done,
        ),
        (
            "SELECT SUM(tags.n) FROM devices WHERE tags.n >= 100 AND tags.n < 250",
            Tallied::Done,
        ),
        (
            "SELECT COUNT() FROM devices WHERE tags.site IN ['x', 'y']",
            Tallied::Done,
        ),
        ("SELECT DISTINCT tags.floor, tags.floor * 2 FROM devices", Tallied::Done),
        (
            "SELECT COUNT() FROM devices WHERE NOT IS_DEFINED(tags.nothing)",
            Tallied::Done,
        ),
        ("SELECT COUNT() FROM devices WHERE tags.odd = 'a'", Tallied::Unknown),
        // Not everything of these is in the index.
        (
            "SELECT tags.odd, COUNT() FROM devices GROUP BY tags.odd",
            Tallied::Unknown,
        ),
        (
            "SELECT COUNT() FROM devices WHERE NOT IS_DEFINED(tags.odd)",
            Tallied::Unknown,
        ),
        ("SELECT COUNT(tags.deep) FROM devices", Tallied::Unknown),
        ("SELECT SUM(tags.half) FROM devices", Tallied::Unknown),
        (
            "SELECT COUNT() FROM devices WHERE tags.site = 'x' AND tags.spare",
            Tallied::Unknown,
        ),
        ("SELECT COUNT(tags) FROM devices", Tallied::Unknown),
        (
            "SELECT COUNT() FROM devices WHERE properties.reported.battery = 1",
            Tallied::Unknown,
        ),
    ] {
        let query = Query::parse(text).unwrap();
        let mut by_hand = Groups::new(&query, 1000, usize::MAX);
        for (key, document) in &documents {
            if key.1.is_empty() != text.contains("devices.modules") && query.matches(document) {
                by_hand.add(document).unwrap();
            }
        }

        let (rows, tallied) = counted(&repository, text).await;

        assert_eq!(tallied, wanted, "{text}");
        if tallied == Tallied::Done {
            let by_hand: Vec<Json> = by_hand.rows_after(None).map(|(_, row)| row).collect();
            assert_eq!(rows, by_hand, "{text}");
        }
    }
}

#[tokio::test]
async fn a_change_of_a_twin_finds_its_rows_by_their_key_however_many_others_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    Repository::open(&path).unwrap().close().await;
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRIGGER_EQP, true)
        .unwrap();

    for change in [
        "INSERT OR REPLACE INTO twins (device, module, version, document) VALUES ('d', '', 1, '{}')",
        "DELETE FROM twins WHERE device = 'd' AND module = ''",
        "INSERT OR REPLACE INTO identities (device, module) VALUES ('d', '')",
        "DELETE FROM identities WHERE device = 'd' AND module = ''",
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {change}")).unwrap();
        let rows = statement.query_map([], |row| row.get(3)).unwrap();
        let plan: Vec<String> = rows.map(Result::unwrap).collect();

        let of_indexes = |word: &str| {
            let mut steps = plan.iter();
            steps.any(|step| step.starts_with(word) && (step.contains("twin_tags") || step.contains("identity_counts")))
        };
        assert!(of_indexes("SEARCH"), "{change}: {plan:?}");
        assert!(!of_indexes("SCAN"), "{change}: {plan:?}");
    }
}
