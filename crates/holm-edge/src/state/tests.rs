//! The state on a real disk.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("state.db")
}

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(&path(&directory)).unwrap();
    let filters = [("$iothub/twin/res/#".to_owned(), 1)];

    state
        .put_document("deployment", &json!({"a": [1, null]}))
        .await
        .unwrap();
    state.put_twin(&identity("d/m"), &json!({"x": 1}), true).await.unwrap();
    state.put_session(&identity("d/m"), Some(&filters)).await.unwrap();
    drop(state);

    let state = State::open(&path(&directory)).unwrap();
    assert_eq!(
        state.document("deployment").await.unwrap(),
        Some(json!({"a": [1, null]}))
    );
    assert_eq!(
        state.twin::<Value>(&identity("d/m")).await.unwrap(),
        Some(json!({"x": 1}))
    );
    assert_eq!(state.pending_twins().await.unwrap(), [identity("d/m")]);
    assert_eq!(state.session(&identity("d/m")).await.unwrap(), Some(filters.to_vec()));
}

#[tokio::test]
async fn what_is_removed_is_gone_and_what_never_was_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(&path(&directory)).unwrap();
    state.put_document("a", &json!(1)).await.unwrap();
    state.put_twin(&identity("d/m"), &json!({}), false).await.unwrap();
    state.put_session(&identity("d/m"), Some(&[])).await.unwrap();

    state.remove_document("a").await.unwrap();
    state.remove_document("never").await.unwrap();
    state.forget(&identity("d/m")).await.unwrap();

    assert_eq!(state.document("a").await.unwrap(), None);
    assert_eq!(state.twin::<Value>(&identity("d/m")).await.unwrap(), None);
    assert_eq!(state.session(&identity("d/m")).await.unwrap(), None);
    assert_eq!(state.pending_twins().await.unwrap(), []);
}

#[tokio::test]
async fn a_file_of_another_version_is_refused_with_both_versions_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(State::open(&path(&directory)).unwrap());
    let other = Connection::open(path(&directory)).unwrap();
    other
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 7;")
        .unwrap();
    drop(other);
    let before = std::fs::read(path(&directory)).unwrap();

    let error = State::open(&path(&directory)).unwrap_err();

    let text = error.to_string();
    assert!(text.contains("version 7") && text.contains("version 1"), "{text}");
    assert_eq!(std::fs::read(path(&directory)).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        path(&directory),
        "hello, this is certainly not a database file".repeat(100),
    )
    .unwrap();
    std::fs::set_permissions(path(&directory), std::fs::Permissions::from_mode(0o600)).unwrap();

    let error = State::open(&path(&directory)).unwrap_err();

    assert!(error.to_string().contains("state.db"), "{error}");
}

#[tokio::test]
async fn a_second_opening_is_refused_while_the_first_lives() {
    let directory = tempfile::tempdir().unwrap();
    let first = State::open(&path(&directory)).unwrap();

    assert!(State::open(&path(&directory)).is_err());

    drop(first);
    assert!(State::open(&path(&directory)).is_ok());
}

#[tokio::test]
async fn the_file_is_private_and_a_wider_one_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    drop(State::open(&path(&directory)).unwrap());
    let mode = std::fs::metadata(path(&directory)).unwrap().permissions().mode();
    std::fs::set_permissions(path(&directory), std::fs::Permissions::from_mode(0o644)).unwrap();

    let error = State::open(&path(&directory)).unwrap_err();

    assert_eq!(mode & 0o777, 0o600);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("chmod 600"), "{cause}");
}

#[tokio::test]
async fn a_failing_operation_is_undone_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(&path(&directory)).unwrap();

    let bad = state.change(|db| {
        db.execute("INSERT INTO documents (name, body) VALUES ('half', '1')", [])?;
        db.execute("INSERT INTO nowhere VALUES (1)", []).map(|_| ())
    });
    let good = json!(2);
    let good = state.put_document("whole", &good);
    let (bad, good) = tokio::join!(bad, good);

    assert!(matches!(bad, Err(StateError::Database(_))));
    good.unwrap();
    assert_eq!(state.document("half").await.unwrap(), None);
    assert_eq!(state.document("whole").await.unwrap(), Some(json!(2)));
}

#[tokio::test]
async fn a_commit_that_fails_refuses_its_changes_answers_looks_and_counts_until_a_write_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(&path(&directory)).unwrap();
    state.put_document("kept", &json!("before")).await.unwrap();
    // A rule that is checked by COMMIT, as the space on the disk is.
    let rule = "PRAGMA foreign_keys = ON; CREATE TABLE p (x PRIMARY KEY);
        CREATE TABLE c (x REFERENCES p DEFERRABLE INITIALLY DEFERRED);";
    state.look(|db| db.execute_batch(rule)).await.unwrap();

    let (refused, seen) = tokio::join!(
        state.change(|db| db.execute("INSERT INTO c VALUES (1)", [])),
        state.document("kept"),
    );
    let trouble = state.health();
    state.try_again().await;

    assert!(matches!(refused, Err(StateError::NotCommitted)), "{refused:?}");
    assert_eq!(seen.unwrap(), Some(json!("before")));
    assert!(trouble.is_err());
    assert_eq!(state.health(), Ok(()));
}
