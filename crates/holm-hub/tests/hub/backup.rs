//! Backups and what is restored of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holm_gateway::Subscriptions;
use holm_hub::backup::{ArchiveError, BackupError, Making, Offline, RestoreError, restore, verify};
use holm_hub::hub::DataDirectoryError;
use holm_hub::{Hub, HubConfig};
use holm_model::{Message, Timestamp};
use hyper::Method;
use serde_json::json;

use crate::files::target;
use crate::support::TestHub;

const BACKUP: &str = "/holm/v1/backup";

impl TestHub {
    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The archive that the hub gives.
    async fn backup(&self) -> Vec<u8> {
        let reply = self.get(BACKUP).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let length: usize = reply.header("content-length").unwrap().parse().unwrap();
        assert_eq!(reply.body.len(), length);
        reply.body.to_vec()
    }

    async fn store(&self, device: &str, name: &str, body: String) {
        let begun = self.begin(device, name).await.ok();
        assert_eq!(self.put_blob(&target(&begun), body).await.status, 201);
        // Ten may be open at a time.
        self.close_upload(device, &begun["correlationId"]).await;
    }

    /// Waits until all that the hub tells by events is in its log.
    async fn all_told(&self) {
        let database = self.data().join("hub.db");
        let told = async {
            while rows(&database).get("outbox").is_some_and(|rows| !rows.is_empty()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    }
}

/// The archive of a backup that was begun.
fn written(making: &Making) -> Vec<u8> {
    let mut archive = Vec::new();
    let written = making.write(&mut |bytes| {
        archive.extend_from_slice(bytes);
        Ok(())
    });
    written.unwrap();
    archive
}

/// A hub on what an archive holds.
async fn restored(archive: &[u8]) -> TestHub {
    let directory = tempfile::tempdir().unwrap();
    let mut archive = archive;
    restore(&mut archive, &directory.path().join("data"), None, &mut |_| ()).unwrap();
    TestHub::start_in(directory).await
}

/// Every table of a database with its rows, whichever tables there are.
fn rows(database: &Path) -> BTreeMap<String, Vec<String>> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut names = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%'")
        .unwrap();
    let names: Vec<String> = names
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let of = |name: &str| {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let read = statement.query_map([], |row| {
            let values: Vec<rusqlite::types::Value> = (0..columns).map(|at| row.get(at).unwrap()).collect();
            Ok(format!("{values:?}"))
        });
        read.unwrap().map(Result::unwrap).collect()
    };
    names.iter().map(|name| (name.clone(), of(name))).collect()
}

/// A bit of everything that a hub keeps.
async fn lived_in() -> TestHub {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.edge_device("e1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    hub.patch(
        "/twins/d1",
        json!({"tags": {"site": "a"}, "properties": {"desired": {"x": 1}}}),
    )
    .await
    .ok();
    hub.patch("/twins/d1", json!({"tags": {"site": "b"}})).await.ok();
    hub.put("/holm/v1/policies/reader", json!({"rights": ["RegistryRead"]}))
        .await
        .ok();
    let configuration = json!({"id": "c", "targetCondition": "tags.site = 'b'", "priority": 1,
        "content": {"deviceContent": {"properties.desired.mode": "eco"}}});
    hub.put("/configurations/c", configuration).await.ok();
    let job = json!({"jobId": "j", "type": "scheduleUpdateTwin", "queryCondition": "*", "startTime": "2030-01-01T00:00:00Z",
        "updateTwin": {"etag": "*", "tags": {"late": true}}});
    hub.put("/jobs/v2/j", job).await.ok();
    hub.put("/holm/v1/consumer-groups/g", json!({})).await;
    hub.call(Method::POST, "/devices/d1/messages/deviceBound", &[], "wait")
        .await;
    hub.store("d1", "a.txt", "content".to_owned()).await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    for body in ["one", "two"] {
        client.publish(Message::new(body)).await.unwrap();
    }
    client.disconnect().await;
    hub
}

#[tokio::test]
async fn a_restored_hub_is_the_hub_that_was_backed_up() {
    let hub = lived_in().await;
    while !hub.hub.configurations().is_settled().await {
        tokio::task::yield_now().await;
    }
    hub.all_told().await;

    let archive = hub.backup().await;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let summary = restore(&mut archive.as_slice(), &data, None, &mut |_| ()).unwrap();

    let (mut before, mut after) = (rows(&hub.data().join("hub.db")), rows(&data.join("hub.db")));
    // When devices were last heard of is written late.
    before.remove("activities");
    after.remove("activities");
    assert_eq!(after, before);
    for file in [
        "ca.pem",
        "ca-key.pem",
        "server.pem",
        "server-key.pem",
        "connection-string",
        "id-scope",
    ] {
        let read = |data: &Path| {
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(data.join(file)).unwrap().permissions());
            (std::fs::read(data.join(file)).unwrap(), mode & 0o777)
        };
        assert_eq!(read(&data), read(&hub.data()), "{file}");
    }
    assert_eq!(
        (summary.head.host_name.as_str(), summary.bytes),
        ("hub.test", archive.len() as u64)
    );
    let again = TestHub::start_in(directory).await;
    for path in [
        "/devices/d1",
        "/twins/d1",
        "/twins/e1/modules/$edgeAgent",
        "/holm/v1/twins/d1/history",
        "/holm/v1/audit",
        "/configurations/c",
        "/jobs/v2/j",
        "/holm/v1/policies/reader",
        "/holm/v1/consumer-groups",
        "/holm/v1/files",
    ] {
        let (mut was, mut is) = (hub.get(path).await.ok(), again.get(path).await.ok());
        for of in [&mut was, &mut is] {
            if let Some(twin) = of.as_object_mut() {
                twin.retain(|name, _| {
                    !matches!(
                        name.as_str(),
                        "connectionState" | "connectionStateUpdatedTime" | "lastActivityTime"
                    )
                });
            }
        }
        assert_eq!(is, was, "{path}");
    }
    let all = "from=earliest";
    assert_eq!(again.events_of(all).await, hub.events_of(all).await);
    let told = hub.get("/holm/v1/audit").await.ok();
    assert!(told.to_string().contains(r#""operation":"hub.backup""#), "{told}");
    // A device knows its key, and nothing else of which hub that is.
    let client = again.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    assert_eq!(client.receive(16).await[0].message.body, "wait");
    client.publish(Message::new("three")).await.unwrap();
    let files = again.stored_files();
    assert_eq!(std::fs::read(&files[0]).unwrap(), b"content");
}

#[tokio::test]
async fn a_backup_under_load_has_what_was_acknowledged_and_is_of_one_moment() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d2").await;
    let (goes_on, changed, sent) = (AtomicBool::new(true), AtomicU64::new(0), AtomicU64::new(0));
    let change = async {
        while goes_on.load(Ordering::SeqCst) {
            let next = changed.load(Ordering::SeqCst) + 1;
            hub.patch("/twins/d1", json!({"tags": {"n": next}})).await.ok();
            changed.store(next, Ordering::SeqCst);
        }
    };
    let send = async {
        let client = hub.connect("d2", Subscriptions::NONE).await;
        while goes_on.load(Ordering::SeqCst) {
            let next = sent.load(Ordering::SeqCst) + 1;
            client.publish(Message::new(next.to_string())).await.unwrap();
            sent.store(next, Ordering::SeqCst);
        }
    };
    let upload = async {
        for number in 0.. {
            if !goes_on.load(Ordering::SeqCst) {
                break;
            }
            // Over an earlier one, whose file then goes.
            hub.store("d2", &format!("{}.txt", number % 3), format!("{number}"))
                .await;
        }
    };
    let back_up = async {
        while changed.load(Ordering::SeqCst) < 20 || sent.load(Ordering::SeqCst) < 20 {
            tokio::task::yield_now().await;
        }
        let before = (changed.load(Ordering::SeqCst), sent.load(Ordering::SeqCst));
        let archive = hub.backup().await;
        let later = changed.load(Ordering::SeqCst);
        while changed.load(Ordering::SeqCst) < later + 5 {
            tokio::task::yield_now().await;
        }
        goes_on.store(false, Ordering::SeqCst);
        (before, archive)
    };

    let (.., ((changed_before, sent_before), archive)) = tokio::join!(change, send, upload, back_up);
    let again = restored(&archive).await;

    let twin = again.get("/twins/d1").await.ok();
    let at = twin["tags"]["n"].as_u64().unwrap();
    assert!(
        (changed_before..=changed.load(Ordering::SeqCst)).contains(&at),
        "{at} {changed_before}"
    );
    let bodies: Vec<u64> = again
        .events_of("from=earliest&source=Telemetry")
        .await
        .iter()
        .map(|event| event["body"].as_u64().unwrap())
        .collect();
    assert!(bodies.len() as u64 >= sent_before, "{} {sent_before}", bodies.len());
    assert!(bodies.iter().copied().eq(1..=bodies.len() as u64), "{bodies:?}");
    // Each change of the twin is told once, and none that the twin has not seen.
    again.all_told().await;
    let told: Vec<u64> = again
        .events_of("from=earliest&source=twinChangeEvents&device=d1")
        .await
        .iter()
        .map(|event| event["body"]["tags"]["n"].as_u64().unwrap())
        .collect();
    assert!(told.iter().copied().eq(1..=at), "{at} {told:?}");
    let files = again.get("/holm/v1/files").await.ok();
    assert!(!files.as_array().unwrap().is_empty());
    assert_eq!(again.stored_files().len(), files.as_array().unwrap().len());
}

#[tokio::test]
async fn what_is_deleted_while_it_is_copied_is_in_the_copy_and_goes_afterwards() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.store("d1", "a.txt", "content".to_owned()).await;

    let making = hub.hub.backups().begin().await.unwrap();
    let busy = hub.get(BACKUP).await;
    hub.delete("/devices/d1").await;
    let token = hub.token_of("iothubowner").await;
    let headers = [("authorization", token.as_str())];
    let removed = hub.blob(Method::DELETE, "/uploads/d1/a.txt", &headers, "").await;
    let held = hub.stored_files().len();
    let archive = written(&making);
    let length = making.length();
    drop(making);

    assert_eq!((removed.status, held), (202, 1));
    assert_eq!(busy.status, 409);
    assert_eq!(archive.len() as u64, length);
    assert_eq!(hub.stored_files(), Vec::<PathBuf>::new());
    assert!(!hub.data().join("backup.part").exists());
    let again = restored(&archive).await;
    assert_eq!(std::fs::read(&again.stored_files()[0]).unwrap(), b"content");
    hub.backup().await;
}

#[tokio::test]
async fn only_a_policy_with_all_rights_gets_a_backup() {
    let hub = TestHub::start().await;

    for policy in ["service", "device", "registryRead", "registryReadWrite"] {
        let token = hub.token_of(policy).await;
        let headers = [("authorization", token.as_str())];
        let reply = hub.raw(Method::GET, BACKUP, &headers, "".into()).await;
        reply.assert_error(401, "IotHubUnauthorizedAccess");
    }

    assert_eq!(hub.post(BACKUP, json!({})).await.status, 405);
}

#[tokio::test]
async fn a_hub_that_does_not_run_is_backed_up_from_its_files() {
    let hub = lived_in().await;
    let data = hub.data();
    let now = Timestamp::from_unix_millis(1_800_000_000_000);

    let running = Offline::begin(&data, None, now).unwrap_err();
    let none = Offline::begin(hub.directory.path(), None, now).unwrap_err();
    let TestHub {
        hub: open, directory, ..
    } = hub;
    open.close().await;
    let making = Offline::begin(&data, None, now).unwrap();
    let archive = written(&making);
    drop(making);

    assert!(
        matches!(running, BackupError::Directory(DataDirectoryError::InUse { .. })),
        "{running}"
    );
    assert!(
        matches!(none, BackupError::Directory(DataDirectoryError::NoHub { .. })),
        "{none}"
    );
    let again = restored(&archive).await;
    assert_eq!(again.get("/twins/d1").await.ok()["tags"]["site"], "b");
    assert_eq!(again.events_of("from=earliest&source=Telemetry").await.len(), 2);
    drop(directory);
}

#[tokio::test]
async fn damage_anywhere_in_a_backup_is_found_and_nothing_of_it_is_restored() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let archive = hub.backup().await;
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("new");

    let whole = verify(&mut archive.as_slice(), &mut |_| ()).unwrap();
    let mut checked = 0;
    for at in (0..archive.len())
        .step_by(4099)
        .chain(archive.len() - 1200..archive.len())
    {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x20;
        assert!(verify(&mut damaged.as_slice(), &mut |_| ()).is_err(), "{at}");
        checked += 1;
    }
    for length in [0, 1, 511, 512, 4096, archive.len() / 2, archive.len() - 1] {
        let cut = verify(&mut &archive[..length], &mut |_| ()).unwrap_err();
        assert!(
            matches!(cut, ArchiveError::Cut(_) | ArchiveError::NotABackup),
            "{length}: {cut}"
        );
    }
    let mut longer = archive.clone();
    longer.push(0);
    verify(&mut longer.as_slice(), &mut |_| ()).unwrap_err();
    let mut damaged = archive.clone();
    let middle = archive.len() / 2;
    damaged[middle] ^= 1;
    let refused = restore(&mut damaged.as_slice(), &data, None, &mut |_| ()).unwrap_err();

    assert!(checked > 1000 && whole.head.files > 5, "{whole:?}");
    assert!(matches!(refused, RestoreError::Archive(_)), "{refused}");
    assert!(!data.exists());
}

#[tokio::test]
async fn a_backup_of_a_later_release_is_refused_with_its_name() {
    let hub = TestHub::start().await;
    let mut archive = hub.backup().await;
    let text = String::from_utf8_lossy(&archive[512..1024]).into_owned();
    let at = 512 + text.find("\"format\": 1").unwrap() + "\"format\": ".len();
    archive[at] = b'9';

    let refused = verify(&mut archive.as_slice(), &mut |_| ()).unwrap_err();

    assert!(matches!(refused, ArchiveError::Newer { format: 9, .. }), "{refused}");
    assert!(refused.to_string().contains(env!("CARGO_PKG_VERSION")), "{refused}");
}

#[tokio::test]
async fn a_restore_takes_no_directory_with_something_in_it_and_begins_anew_where_one_was_cut_off() {
    let hub = TestHub::start().await;
    let archive = hub.backup().await;
    let place = tempfile::tempdir().unwrap();
    let (full, cut, blobs) = (
        place.path().join("full"),
        place.path().join("cut"),
        place.path().join("blobs"),
    );
    for directory in [&full, &cut] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("hub.db"), "half").unwrap();
    }
    std::fs::write(cut.join("restoring"), "").unwrap();
    std::fs::create_dir(&blobs).unwrap();

    let refused = restore(&mut archive.as_slice(), &full, None, &mut |_| ()).unwrap_err();
    let unfinished = Hub::open(HubConfig::new(&cut, "hub.test")).await.unwrap_err();
    restore(&mut archive.as_slice(), &cut, Some(&blobs), &mut |_| ()).unwrap();

    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
    assert_eq!(std::fs::read(full.join("hub.db")).unwrap(), b"half");
    let unfinished = holm_net::error_chain(&unfinished);
    assert!(unfinished.contains("holm hub restore"), "{unfinished}");
    assert!(blobs.join("hub").exists() && !blobs.join("restoring").exists());
    Hub::open(HubConfig::new(&cut, "hub.test")).await.unwrap().close().await;
}

#[tokio::test]
async fn a_receiver_that_goes_leaves_nothing_behind() {
    let hub = Arc::new(TestHub::start().await);

    let making = hub.hub.backups().begin().await.unwrap();
    let broken = making.write(&mut |_| Err(std::io::ErrorKind::BrokenPipe.into()));
    let failed = broken.is_err();
    drop(making);

    assert!(failed);
    assert!(!hub.data().join("backup.part").exists());
    hub.backup().await;
}
