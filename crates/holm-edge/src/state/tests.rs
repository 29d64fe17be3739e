//! The state on a real disk.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("state.db")
}

async fn open(directory: &tempfile::TempDir) -> Result<State, OpenStateError> {
    let vault = Vault::in_directory(&directory.path().join("keys")).await.unwrap();
    State::open(&path(directory), vault).await
}

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    let filters = [("$iothub/twin/res/#".to_owned(), 1)];

    state
        .put_document("deployment", &json!({"a": [1, null]}))
        .await
        .unwrap();
    state.put_twin(&identity("d/m"), &json!({"x": 1}), true).await.unwrap();
    state.put_session(&identity("d/m"), Some(&filters)).await.unwrap();
    drop(state);

    let state = open(&directory).await.unwrap();
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
async fn a_closed_state_is_one_file_and_refuses_whoever_still_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    let still_here = state.clone();
    state.put_document("kept", &json!({"a": 1})).await.unwrap();

    state.close().await;

    let wal = path(&directory).with_extension("db-wal");
    assert!(!wal.exists(), "`{}` is left", wal.display());
    let refused = still_here.put_document("late", &json!({})).await;
    assert!(matches!(refused, Err(StateError::NotCommitted)), "{refused:?}");
    assert!(still_here.document("kept").await.is_err());
    let again = open(&directory).await.unwrap();
    assert_eq!(again.document("kept").await.unwrap(), Some(json!({"a": 1})));
}

#[tokio::test]
async fn what_is_removed_is_gone_and_what_never_was_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
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
    drop(open(&directory).await.unwrap());
    let other = Connection::open(path(&directory)).unwrap();
    other
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 7;")
        .unwrap();
    drop(other);
    let before = std::fs::read(path(&directory)).unwrap();

    let error = open(&directory).await.unwrap_err();

    let text = error.to_string();
    assert!(text.contains("version 7") && text.contains("version 3"), "{text}");
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

    let error = open(&directory).await.unwrap_err();

    assert!(error.to_string().contains("state.db"), "{error}");
}

#[tokio::test]
async fn a_second_opening_is_refused_while_the_first_lives() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&directory).await.unwrap();

    assert!(open(&directory).await.is_err());

    drop(first);
    assert!(open(&directory).await.is_ok());
}

#[tokio::test]
async fn the_file_is_private_and_a_wider_one_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&directory).await.unwrap());
    let mode = std::fs::metadata(path(&directory)).unwrap().permissions().mode();
    std::fs::set_permissions(path(&directory), std::fs::Permissions::from_mode(0o644)).unwrap();

    let error = open(&directory).await.unwrap_err();

    assert_eq!(mode & 0o777, 0o600);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("chmod 600"), "{cause}");
}

#[tokio::test]
async fn a_failing_operation_is_undone_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();

    let bad = state.change(|db| {
        db.execute("INSERT INTO documents VALUES ('half', 0, 1, x'00')", [])?;
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

/// Everything that is on disk for the state.
fn bytes_on_disk(directory: &tempfile::TempDir) -> Vec<u8> {
    let files = ["state.db", "state.db-wal"];
    let read = |name: &&str| std::fs::read(directory.path().join(name)).unwrap_or_default();
    files.iter().flat_map(read).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn twins_children_and_documents_are_not_readable_on_disk_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    let child = json!({"generationId": "1", "key": "very-secret-key"});

    let put = vec![(identity("leaf"), child.clone()), (identity("gone"), json!({}))];
    state.change_children(put, vec![]).await.unwrap();
    state.change_children(vec![], vec![identity("gone")]).await.unwrap();
    state
        .put_twin(&identity("d/m"), &json!({"x": "very-secret-twin"}), false)
        .await
        .unwrap();
    state
        .put_document("deployment", &json!({"password": "very-secret-password"}))
        .await
        .unwrap();
    drop(state);

    let bytes = bytes_on_disk(&directory);
    assert!(contains(&bytes, "leaf") && !contains(&bytes, "very-secret"));
    let state = open(&directory).await.unwrap();
    assert_eq!(state.children().await.unwrap(), (vec![(identity("leaf"), child)], 0));
    assert_eq!(
        state.twin::<Value>(&identity("d/m")).await.unwrap(),
        Some(json!({"x": "very-secret-twin"}))
    );
    assert_eq!(state.remembered().await.unwrap(), [identity("d/m")]);
    let document = state.document("deployment").await.unwrap();
    assert_eq!(document, Some(json!({"password": "very-secret-password"})));
}

#[tokio::test]
async fn a_document_larger_than_one_encryption_takes_is_several_rows_and_one_document() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    let large = json!({ "a": "x".repeat(documents::PIECE * 5 / 2) });

    state.put_document("deployment", &json!(1)).await.unwrap();
    state.put_document("deployment", &large).await.unwrap();
    drop(state);
    let state = open(&directory).await.unwrap();

    assert_eq!(state.document("deployment").await.unwrap(), Some(large));
    let lose_one = state.change(|db| db.execute("DELETE FROM documents WHERE piece = 2", []).map(|_| ()));
    lose_one.await.unwrap();
    assert_eq!(
        state.document("deployment").await.unwrap(),
        None,
        "a part is not the whole"
    );
    state.put_document("deployment", &json!(2)).await.unwrap();
    assert_eq!(state.document("deployment").await.unwrap(), Some(json!(2)));
}

#[tokio::test]
async fn a_bit_that_flips_in_a_document_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    state
        .put_document("routes", &json!({"timeToLiveSecs": 7200}))
        .await
        .unwrap();
    let flip = state.change(|db| {
        let mut body: Vec<u8> = db.query_row("SELECT body FROM documents", [], |row| row.get(0))?;
        body[20] ^= 1;
        db.execute("UPDATE documents SET body = ?1", [body]).map(|_| ())
    });
    flip.await.unwrap();

    assert_eq!((state.document("routes").await.unwrap(), state.rescue()), (None, None));
}

#[tokio::test]
async fn a_twin_in_the_place_of_another_and_one_of_another_key_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    state.put_twin(&identity("d/m"), &json!({"x": 1}), false).await.unwrap();
    let moved = state.change(|db| db.execute("UPDATE twins SET identity = 'd/n'", []).map(|_| ()));
    moved.await.unwrap();

    let foreign = state.twin::<Value>(&identity("d/n")).await;

    assert!(matches!(foreign, Err(StateError::Sealed(_))));
    state.put_twin(&identity("d/n"), &json!({"x": 2}), false).await.unwrap();
    state
        .change_children(vec![(identity("leaf"), json!(1))], vec![])
        .await
        .unwrap();
    drop(state);
    std::fs::remove_dir_all(directory.path().join("keys")).unwrap();
    let state = open(&directory).await.unwrap();
    assert!(matches!(
        state.twin::<Value>(&identity("d/n")).await,
        Err(StateError::Sealed(_))
    ));
    assert_eq!(state.children().await.unwrap(), (vec![], 1), "told of, and left out");
}

/// Makes the file one of an earlier version, with a twin, a document and somebody below it.
async fn make_earlier(directory: &tempfile::TempDir, version: i64) {
    let state = open(directory).await.unwrap();
    let kept = json!({"x": "very-secret-twin"});
    state.put_twin(&identity("d/m"), &kept, true).await.unwrap();
    state
        .change_children(vec![(identity("leaf"), json!(1))], vec![])
        .await
        .unwrap();
    drop(state);
    let old = Connection::open(path(directory)).unwrap();
    if version == 1 {
        old.execute_batch(
            "DROP TABLE children; DROP TABLE twins;
            CREATE TABLE twins (identity TEXT PRIMARY KEY, body TEXT NOT NULL, pending INTEGER NOT NULL) STRICT, WITHOUT ROWID;
            INSERT INTO twins VALUES ('d/m', '{\"x\":\"very-secret-twin\"}', 1);",
        )
        .unwrap();
    }
    old.execute_batch(&format!(
        "DROP TABLE documents; CREATE TABLE documents (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
        INSERT INTO documents VALUES ('a', '{{\"b\":\"very-secret-password\"}}');
        PRAGMA user_version = {version}; PRAGMA wal_checkpoint(TRUNCATE);",
    ))
    .unwrap();
    drop(old);
    assert!(contains(&bytes_on_disk(directory), "very-secret"));
}

#[tokio::test]
async fn a_file_of_a_version_before_is_encrypted_and_keeps_what_it_knew() {
    for version in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        make_earlier(&directory, version).await;

        let state = open(&directory).await.unwrap();

        assert_eq!(
            state.twin::<Value>(&identity("d/m")).await.unwrap(),
            Some(json!({"x": "very-secret-twin"}))
        );
        assert_eq!(state.pending_twins().await.unwrap(), [identity("d/m")]);
        let document = state.document("a").await.unwrap();
        assert_eq!(document, Some(json!({"b": "very-secret-password"})));
        let (children, lost) = state.children().await.unwrap();
        assert_eq!((children.len(), lost), (usize::from(version == 2), 0));
        drop(state);
        assert!(!contains(&bytes_on_disk(&directory), "very-secret"));
        drop(open(&directory).await.unwrap());
    }
}

#[tokio::test]
async fn a_commit_that_fails_refuses_its_changes_answers_looks_and_counts_until_a_write_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
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

/// Turns bits of the closed file over, at many places beyond its first page.
fn flip(directory: &tempfile::TempDir, from: usize) {
    let mut bytes = std::fs::read(path(directory)).unwrap();
    for byte in bytes.iter_mut().skip(from).step_by(64) {
        *byte ^= 0x10;
    }
    std::fs::write(path(directory), bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_kept_beside_a_new_one_with_what_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    let long = "x".repeat(2000);
    for number in 0..200 {
        state
            .put_document(&format!("n{number:03}"), &json!(long))
            .await
            .unwrap();
    }
    drop(state);
    let size = std::fs::metadata(path(&directory)).unwrap().len();

    flip(&directory, usize::try_from(size).unwrap() * 3 / 4);
    let state = open(&directory).await.unwrap();

    let rescue = state.rescue().expect("the damage was found").clone();
    assert!(rescue.kept.is_file(), "{rescue:?}");
    assert!(rescue.rows > 50 && rescue.rows < 200, "{rescue:?}");
    assert_eq!(state.document("n000").await.unwrap(), Some(json!(long)));
    state.put_document("n199", &json!("again")).await.unwrap();
    drop(state);
    assert_eq!(open(&directory).await.unwrap().rescue(), None);
}

#[tokio::test]
async fn a_file_whose_header_is_damaged_is_replaced_and_a_foreign_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(&directory).await.unwrap();
    state.put_document("a", &json!(1)).await.unwrap();
    drop(state);

    let mut bytes = std::fs::read(path(&directory)).unwrap();
    bytes[3] ^= 1;
    std::fs::write(path(&directory), &bytes).unwrap();
    let state = open(&directory).await.unwrap();

    assert_eq!(state.rescue().map(|rescue| rescue.rows), Some(0));
    assert_eq!(state.document("a").await.unwrap(), None);
    drop(state);
    bytes[68..72].copy_from_slice(b"ELSE");
    std::fs::write(path(&directory), &bytes).unwrap();
    assert!(matches!(open(&directory).await, Err(OpenStateError::Database { .. })));
}
