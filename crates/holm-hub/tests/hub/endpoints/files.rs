//! Files on a disk that is full: a file system in memory, mounted for the test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::*;

/// A disk of so many KiB; unmounted when it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// None where this process may not mount.
    fn mount(kibibytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={kibibytes}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "holm-hub"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        eprintln!("SKIPPED, because this process may not mount a file system");
        None
    }

    /// Takes all the room that is left but so many KiB.
    fn fill(&self, but_kibibytes: usize) -> PathBuf {
        let path = self.0.path().join("ballast");
        let mut ballast = std::fs::File::create(&path).unwrap();
        let mut length = 0;
        while ballast.write_all(&[0; 4096]).is_ok() {
            length += 4096;
        }
        ballast.set_len(length - but_kibibytes as u64 * 1024).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "a disk can be unmounted"
        );
    }
}

/// The numbers in the bodies of all finished files, and how many files there are.
fn finished(folder: &Path) -> (Vec<u64>, usize) {
    let (mut numbers, mut files, mut folders) = (Vec::new(), 0, vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend(Some(path).filter(|path| !path.ends_with(".holm")));
                continue;
            }
            files += 1;
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                numbers.push(line["Body"]["n"].as_u64().unwrap());
            }
        }
    }
    numbers.sort_unstable();
    (numbers, files)
}

#[tokio::test]
async fn a_full_disk_makes_messages_wait_and_shows_nothing_half() {
    let Some(disk) = Disk::mount(4096) else { return };
    let folder = disk.0.path().join("cold");
    let definition = json!({ "kind": "file", "folder": "cold", "maxFileSeconds": 1 });
    let mut endpoint = open(disk.0.path(), definition);
    let padded = |sequences: std::ops::Range<u64>| -> Vec<Routed> {
        let mut all = batch(sequences);
        for routed in &mut all {
            routed.message.properties.set("pad", Some("p".repeat(1000)));
        }
        all
    };
    // Room for 300 messages, and none for a file of them, or as many again.
    let ballast = disk.fill(500);
    endpoint.send(&padded(0..300)).await.unwrap();

    let appended = endpoint.send(&padded(300..800)).await;
    let begun = Instant::now();
    let unfinished = loop {
        match endpoint.send(&padded(300..301)).await {
            Ok(()) => assert!(begun.elapsed() < PATIENCE, "the window is never over"),
            Err(refused) => break refused,
        }
    };
    let seen = finished(&folder);
    std::fs::remove_file(ballast).unwrap();
    send_until_taken(endpoint.as_mut(), &padded(300..800)).await;
    endpoint.close().await;

    for refused in [appended.unwrap_err(), unfinished] {
        assert!(refused.to_string().contains("No space left"), "{refused}");
    }
    assert_eq!(seen, (Vec::new(), 0), "nothing half is to be seen");
    assert_eq!(finished(&folder).0, (0..800).collect::<Vec<_>>());
}
