//! Files in Parquet, read by a reader that is not ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::*;

/// The reader, with the `node` that runs it.
fn reader() -> Option<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/node");
    let [node] = programs(["node"])?;
    if !folder.join("node_modules/hyparquet").is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "`hyparquet` is missing; `cargo xtask setup` prepares it"
        );
        eprintln!("SKIPPED, because `hyparquet` is missing; `cargo xtask setup` prepares it");
        return None;
    }
    Some((node, folder.join("parquet.js")))
}

#[tokio::test]
async fn a_parquet_file_holds_what_was_sent_for_every_reader() {
    let Some((node, script)) = reader() else { return };
    let files = tempfile::tempdir().unwrap();
    let definition = json!({ "kind": "file", "folder": "lake", "format": "parquet", "maxFileSeconds": 3600 });
    let mut endpoint = open(files.path(), definition);
    let mut all = batch(0..1000);
    all[1].message.body = vec![0xff, 0x00, b'\n'].into();
    all[1].message.system.remove(SystemProperty::ContentType);
    all[1].message.system.set(SystemProperty::ConnectionModuleId, "m");
    all[1].message.properties.set("bare", None);
    // More than a row group.
    all[2].message.body = vec![b'x'; 9 << 20].into();

    let journal = files.path().join("lake/.holm/routed%2Fhot%2F1/journal");
    endpoint.send(&all).await.unwrap();
    let before = std::fs::read(&journal).unwrap();
    endpoint.close().await;
    // As if the process had ended between the file and the journal: the same messages give the same file.
    std::fs::write(&journal, before).unwrap();
    endpoint.send(&all).await.unwrap();
    endpoint.close().await;

    let mut folder = files.path().join("lake/hub/3");
    while folder.is_dir() {
        let entries: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        folder = entries.into_iter().next().unwrap().unwrap().path();
    }
    assert_eq!(folder.extension().unwrap(), "parquet");
    let output = Command::new(node).arg(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["rowGroups"], &told["codecs"]), (&json!(2), &json!(["SNAPPY"])));
    let rows = told["rows"].as_array().unwrap();
    let numbers: Vec<_> = rows
        .iter()
        .map(|row| row["sequence_number"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(numbers, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(
        rows[0],
        json!({
            "enqueued_time": "2026-01-02T03:04:05.123Z", "partition": 3, "sequence_number": "0", "device_id": "d1",
            "module_id": null, "source": null, "content_type": "application/json", "content_encoding": "utf-8",
            "properties": { "level": "high" },
            "system_properties": { "connectionDeviceId": "d1", "contentType": "application/json", "contentEncoding": "utf-8",
                                   "enqueuedTime": "2026-01-02T03:04:05.1230000Z" },
            "body": "eyJuIjowfQ==",
        })
    );
    assert_eq!(
        (
            &rows[1]["body"],
            &rows[1]["module_id"],
            &rows[1]["content_type"],
            &rows[1]["properties"]
        ),
        (
            &json!("/wAK"),
            &json!("m"),
            &Value::Null,
            &json!({ "level": "high", "bare": null })
        )
    );
}
