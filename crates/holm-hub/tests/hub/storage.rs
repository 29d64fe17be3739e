//! Storage: shared commits, rollback, versions of the format.

use holm_hub::registry::Entry;
use holm_hub::storage::{FORMAT_VERSION, OpenError, Repository};
use holm_model::{Identity, ServiceError, Timestamp};

use crate::support::{START, identity};

fn entry(id: &str) -> Entry {
    Entry::new(identity(id), Timestamp::from_unix_millis(START)).unwrap()
}

async fn exists(repository: &Repository, id: &str) -> bool {
    let wanted: Identity = identity(id);
    repository
        .read(move |view| view.entry(&wanted))
        .await
        .unwrap()
        .is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_changes_at_once_share_commits() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    let before = repository.commits();

    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let repository = repository.clone();
            tokio::spawn(async move {
                let entry = entry(&format!("d{number}"));
                repository
                    .change(move |transaction| transaction.put_entry(&entry))
                    .await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }

    let commits = repository.commits() - before;
    assert!(commits <= 100, "{commits} commits for 300 changes");
    let (total, _) = repository.read(|view| view.device_counts()).await.unwrap();
    assert_eq!(total, 300);
}

#[tokio::test]
async fn a_change_that_fails_is_rolled_back_and_its_neighbours_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    let (good, bad, after) = (entry("good"), entry("bad"), entry("after"));

    let results = tokio::join!(
        repository.change(move |transaction| transaction.put_entry(&good)),
        repository.change(move |transaction| {
            transaction.put_entry(&bad)?;
            Err::<(), _>(ServiceError::argument_invalid("no"))
        }),
        repository.change(|_| -> Result<(), ServiceError> { panic!("a defect") }),
        repository.change(move |transaction| transaction.put_entry(&after)),
    );

    assert!(results.0.is_ok() && results.1.is_err() && results.2.is_err() && results.3.is_ok());
    assert!(exists(&repository, "good").await);
    assert!(!exists(&repository, "bad").await);
    assert!(exists(&repository, "after").await);
}

#[tokio::test]
async fn what_was_answered_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let repository = Repository::open(&path).unwrap();
    let written = entry("d1");
    let kept = written.clone();
    repository
        .change(move |transaction| transaction.put_entry(&written))
        .await
        .unwrap();
    drop(repository);

    let repository = Repository::open(&path).unwrap();

    let found = repository.read(|view| view.entry(&identity("d1"))).await.unwrap();
    assert_eq!(found, Some(kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_database_is_one_file_and_refuses_whoever_still_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    let still_here = repository.clone();
    let kept = entry("kept");
    repository
        .change(move |transaction| transaction.put_entry(&kept))
        .await
        .unwrap();
    let (began, has_begun) = std::sync::mpsc::sync_channel(1);
    let reader = repository.clone();
    let reading = tokio::spawn(async move {
        let read = reader.read(move |view| {
            began.send(()).unwrap();
            view.device_counts()
        });
        read.await
    });
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap())
        .await
        .unwrap();

    repository.close().await;

    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["hub.db"]);
    assert_eq!(reading.await.unwrap().unwrap().0, 1, "who was reading has read");
    let late = entry("late");
    let refused = still_here.change(move |transaction| transaction.put_entry(&late)).await;
    assert!(refused.is_err());
    assert!(still_here.read(|view| view.device_counts()).await.is_err());
    still_here.close().await;
}

#[test]
fn another_version_or_a_foreign_database_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (newer, foreign) = (directory.path().join("newer.db"), directory.path().join("foreign.db"));
    drop(Repository::open(&newer).unwrap());
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection
        .execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    drop(connection);
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(connection);
    let before = (std::fs::read(&newer).unwrap(), std::fs::read(&foreign).unwrap());

    let newer_error = Repository::open(&newer).unwrap_err();
    let foreign_error = Repository::open(&foreign).unwrap_err();

    assert!(matches!(newer_error, OpenError::OtherVersion { found: 99, .. }));
    let text = newer_error.to_string();
    assert!(
        text.contains("format 99") && text.contains(&format!("format {FORMAT_VERSION}")),
        "{text}"
    );
    assert!(matches!(foreign_error, OpenError::Foreign { .. }));
    assert_eq!(
        (std::fs::read(&newer).unwrap(), std::fs::read(&foreign).unwrap()),
        before
    );
}
