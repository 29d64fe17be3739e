//! Where pages end, and how they go on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use std::time::Duration;

use holm_model::{Timestamp, Twin};

use super::*;
use crate::registry::Entry;
use crate::storage::{Effort, Repository};

async fn fleet(directory: &tempfile::TempDir) -> Repository {
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    repository
        .change(|transaction| {
            for id in ["d1", "d2", "d3", "d4", "d5"] {
                let entry = Entry::new(id.parse().unwrap(), Timestamp::NEVER)?;
                transaction.put_entry(&entry)?;
                transaction.put_twin(&Twin::new(entry.identity, Timestamp::NEVER))?;
            }
            Ok(())
        })
        .await
        .unwrap();
    repository
}

/// Limits of a page that has no time left.
fn over(given_up: bool) -> Limits {
    Limits {
        most: 10,
        until: Instant::now(),
        look: Duration::ZERO,
        effort: Effort::Full,
        given_up: Arc::new(AtomicBool::new(given_up)),
    }
}

/// Limits of a page of so many that has time, and does not look for more.
fn of(most: usize) -> Limits {
    Limits {
        most,
        until: Instant::now() + Duration::from_secs(3600),
        ..over(false)
    }
}

async fn page(repository: &Repository, text: &str, from: Continuation, limits: Limits) -> Result<Made, ServiceError> {
    let query = Query::parse(text).unwrap();
    repository
        .read(move |view| read(view, &Presence::default(), &query, &from, &limits))
        .await
        .map(|made| made.unwrap())
}

#[tokio::test]
async fn a_page_whose_time_is_over_goes_on_where_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let repository = fleet(&directory).await;

    // The condition is one that no index knows, and the last device alone meets it.
    let text = "SELECT deviceId FROM devices WHERE ENDSWITH(deviceId, '5')";
    let (mut found, mut pages, mut from) = (Vec::new(), 0, Continuation::default());
    loop {
        let (items, next) = page(&repository, text, from, over(false)).await.unwrap();
        found.extend(items);
        pages += 1;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }

    assert_eq!(found, [serde_json::json!({"deviceId": "d5"})]);
    assert!(pages > 1, "{pages}");
}

#[tokio::test]
async fn who_wants_the_first_few_gets_them_without_the_others_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let repository = fleet(&directory).await;
    let direct = rusqlite::Connection::open(directory.path().join("hub.db")).unwrap();
    direct
        .execute("UPDATE twins SET document = 'damaged' WHERE device = 'd3'", [])
        .unwrap();

    let text = "SELECT TOP 2 deviceId FROM devices WHERE version > 0";
    let first = Continuation::start(&Query::parse(text).unwrap());
    let (items, next) = page(&repository, text, first, of(100)).await.unwrap();

    assert_eq!((items.len(), next), (2, None));
    let text = text.replace("TOP 2 ", "");
    let all = page(&repository, &text, Continuation::default(), of(100));
    assert!(all.await.is_err());
}

#[tokio::test]
async fn a_full_page_does_not_look_long_for_more() {
    let directory = tempfile::tempdir().unwrap();
    let repository = fleet(&directory).await;

    let text = "SELECT deviceId FROM devices WHERE ENDSWITH(deviceId, '1')";
    let (items, next) = page(&repository, text, Continuation::default(), of(1)).await.unwrap();

    assert_eq!(items.len(), 1);
    let (items, next) = page(&repository, text, next.expect("there may be more"), of(1))
        .await
        .unwrap();
    assert_eq!((items.len(), next), (0, None));
}

#[tokio::test]
async fn a_whole_whose_time_is_over_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let repository = fleet(&directory).await;

    for text in ["SELECT COUNT() FROM devices", "SELECT * FROM devices ORDER BY deviceId"] {
        let refused = page(&repository, text, Continuation::default(), over(false)).await;
        assert!(
            refused.is_err_and(|error| error.message.contains("condition")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn reading_ends_when_nobody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let repository = fleet(&directory).await;

    for text in [
        "SELECT * FROM devices",
        "SELECT COUNT() FROM devices",
        "SELECT * FROM devices.jobs",
    ] {
        let ended = page(&repository, text, Continuation::default(), over(true)).await;
        assert!(
            ended.is_err_and(|error| error.message.contains("nobody waits")),
            "{text}"
        );
    }
}
