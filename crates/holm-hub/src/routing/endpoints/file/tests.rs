use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::testing::{World, routed};
use super::*;

/// Far longer than anything here takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn definition(max_seconds: u64) -> Value {
    json!({ "kind": "file", "folder": "cold", "maxFileSeconds": max_seconds, "maxFileBytes": 65_536 })
}

/// Finished files below a folder with their lines, in order of their names.
fn finished(folder: &Path) -> Vec<(String, Vec<Value>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name == ".holm") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let content = fs::read_to_string(path).unwrap();
            assert!(content.ends_with('\n'), "{name} is whole");
            found.push((
                name,
                content
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect(),
            ));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// The numbers in the bodies, of all files.
fn numbers(folder: &Path) -> Vec<u64> {
    let files = finished(folder);
    let mut all: Vec<u64> = files
        .iter()
        .flat_map(|(_, lines)| lines.iter().map(|line| line["Body"]["n"].as_u64().unwrap()))
        .collect();
    all.sort_unstable();
    all
}

async fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn when_the_window_is_over_there_is_a_file_for_each_partition_though_nothing_more_comes() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let folder = files.path().join("cold");
    let mut endpoint = world.open(definition(2)).unwrap();

    let begun = Instant::now();
    endpoint
        .send(&[routed(1, "d0"), routed(2, "d1"), routed(3, "d0")])
        .await
        .unwrap();
    let seen = finished(&folder);
    assert!(
        seen.is_empty() || begun.elapsed() >= Duration::from_secs(2),
        "nothing is to be seen before the window is over: {seen:?}"
    );
    wait_for("the file", || finished(&folder).len() == 2).await;

    let [(first, lines), (second, _)] = &finished(&folder)[..] else {
        panic!("two partitions have a file each");
    };
    assert_eq!(
        (first.as_str(), second.as_str()),
        ("hub/0/2026/01/02/03/04.json", "hub/1/2026/01/02/03/04.json")
    );
    assert_eq!(lines[1]["EnqueuedTimeUtc"], "2026-01-02T03:04:05.1260000Z");
    assert_eq!(lines[1]["SystemProperties"]["connectionDeviceId"], "d0");
    assert_eq!(numbers(&folder), [1, 2, 3]);
}

#[tokio::test]
async fn what_is_full_is_finished_at_once_and_a_second_file_of_that_minute_gets_a_name_of_its_own() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let folder = files.path().join("cold");
    let mut endpoint = world.open(definition(3600)).unwrap();
    let large = |sequence| {
        let mut routed = routed(sequence, "d0");
        routed.message.properties.set("pad", Some("p".repeat(40_000)));
        routed
    };

    for sequence in [1, 2] {
        endpoint
            .send(&[large(sequence * 2 - 1), large(sequence * 2)])
            .await
            .unwrap();
        wait_for("the file", || finished(&folder).len() as u64 == sequence).await;
    }

    let names: Vec<_> = finished(&folder).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["hub/0/2026/01/02/03/04.json", "hub/0/2026/01/02/03/04_1.json"]);
    assert_eq!(numbers(&folder), [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_a_killed_process_left_becomes_a_file_by_itself_and_what_comes_again_is_in_none_twice() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let folder = files.path().join("cold");
    let mut endpoint = world.open(definition(3600)).unwrap();
    endpoint.send(&[routed(1, "d0"), routed(2, "d1")]).await.unwrap();
    drop(endpoint);

    world.turn_clock(3_600_000);
    let mut again = world.open(definition(3600)).unwrap();
    wait_for("the file", || finished(&folder).len() == 2).await;
    again
        .send(&[routed(1, "d0"), routed(2, "d1"), routed(3, "d1")])
        .await
        .unwrap();
    again.close().await;

    assert_eq!(numbers(&folder), [1, 2, 3]);
}

#[tokio::test]
async fn a_crash_between_the_files_and_the_journal_makes_no_message_twice() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let folder = files.path().join("cold");
    let journal = folder.join(".holm/routed%2Fhot%2F1/journal");
    let mut endpoint = world.open(definition(3600)).unwrap();
    endpoint.send(&[routed(1, "d0"), routed(2, "d1")]).await.unwrap();
    let before = fs::read(&journal).unwrap();
    endpoint.close().await;
    drop(endpoint);
    let named = finished(&folder);

    // As if the process had ended before the journal started over.
    fs::write(&journal, before).unwrap();
    let mut again = world.open(definition(3600)).unwrap();
    again.send(&[routed(2, "d1")]).await.unwrap();
    again.close().await;

    assert_eq!(finished(&folder), named);
    assert_eq!(numbers(&folder), [1, 2]);
}

#[tokio::test]
async fn what_can_not_be_written_comes_again_and_nothing_half_is_to_be_seen() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let folder = files.path().join("cold");
    let in_the_way = folder.join("hub");
    fs::create_dir(&folder).unwrap();
    fs::write(&in_the_way, "a file where a directory should be").unwrap();
    let mut endpoint = world.open(definition(1)).unwrap();
    endpoint.send(&[routed(1, "d0")]).await.unwrap();

    // The window is over, and its file can't be made: nothing more is taken.
    let begun = Instant::now();
    let refused = loop {
        match endpoint.send(&[routed(2, "d0")]).await {
            Ok(()) => assert!(begun.elapsed() < PATIENCE, "the window is never over"),
            Err(refused) => break refused,
        }
    };
    fs::remove_file(&in_the_way).unwrap();
    endpoint.send(&[routed(2, "d0"), routed(3, "d0")]).await.unwrap();
    endpoint.close().await;

    assert!(refused.to_string().contains("can't write to"), "{refused}");
    assert_eq!(numbers(&folder), [1, 2, 3]);
    assert!(!folder.join(".holm/routed%2Fhot%2F1/partial").exists());
}

#[tokio::test]
async fn two_endpoints_never_write_one_journal() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let mut first = world.open(definition(3600)).unwrap();
    first.send(&[routed(1, "d0")]).await.unwrap();
    let mut second = world.open(definition(3600)).unwrap();

    let refused = second.send(&[routed(2, "d0")]).await.unwrap_err();
    first.close().await;
    second.send(&[routed(2, "d0")]).await.unwrap();
    second.close().await;

    assert!(refused.to_string().contains("another endpoint"), "{refused}");
    assert_eq!(numbers(&files.path().join("cold")), [1, 2]);
}

#[tokio::test]
async fn settings_that_can_not_work_name_their_member() {
    let files = tempfile::tempdir().unwrap();
    let world = World::new(files.path());
    let mut cases = vec![
        (json!({ "kind": "file", "folder": "../up" }), "folder"),
        (json!({ "kind": "file", "folder": "a/.b" }), "folder"),
        (
            json!({ "kind": "file", "folder": "a", "fileNameFormat": "{iothub}/{YYYY}" }),
            "fileNameFormat",
        ),
        (json!({ "kind": "file", "folder": "a", "format": "avro" }), "format"),
        (
            json!({ "kind": "file", "folder": "a", "maxFileSeconds": 0 }),
            "maxFileSeconds",
        ),
        (
            json!({ "kind": "file", "folder": "a", "maxFileBytes": 1 }),
            "maxFileBytes",
        ),
    ];
    if !cfg!(feature = "parquet") {
        cases.push((json!({ "kind": "file", "folder": "a", "format": "parquet" }), "format"));
    }

    for (document, member) in cases {
        assert_eq!(world.open(document.clone()).unwrap_err().member, member, "{document}");
    }
}

#[test]
fn whether_an_endpoint_can_be_made_is_seen_outside_of_a_runtime_too() {
    let files = tempfile::tempdir().unwrap();

    assert!(World::new(files.path()).open(definition(1)).is_ok());
}
