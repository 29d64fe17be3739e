//! Files of devices: stored by the SDKs' own calls in the hub's blob store, and fetched by operators (row 75 of
//! `hub-device-protocols.md` §8).

use anyhow::Result;
use holm_e2e::sas::Token;
use holm_e2e::{Certificate, Device, Hub, Language, Need, Sdk, Transport};
use serde_json::{Value, json};

/// More than the SDKs send in one piece.
const LARGE: usize = 9 * 1024 * 1024 + 5;

fn content(size: usize) -> Vec<u8> {
    b"all is well here\n".iter().copied().cycle().take(size).collect()
}

fn files(hub: &Hub) -> Vec<Value> {
    let listed = hub.holm(&["file", "list", "--json"]);
    serde_json::from_str(&listed).expect("the list is JSON")
}

/// The names of the blobs that back ends are told of, in order.
fn told(hub: &Hub) -> Vec<String> {
    let path = "/messages/serviceBound/filenotifications";
    let mut told = Vec::new();
    loop {
        let answer = hub.service().try_call("GET", path, &[], None).expect("the hub answers");
        if answer.status == 204 {
            return told;
        }
        told.push(answer.json()["blobName"].as_str().unwrap_or_default().to_owned());
    }
}

/// Uploads files of several sizes by a program, and fetches each as an operator.
fn upload_story(language: Language, transport: Transport, by_hand: bool) {
    let peer = match language {
        Language::Python => Need::Python,
        Language::Node => Need::Node,
    };
    if !Need::all(&[peer, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("pump-7");
    let mut sdk = Sdk::device(language, transport, &hub, &device).start();

    for (name, size) in [("small.txt", 20), ("logs/of today.txt", 70_000), ("large.bin", LARGE)] {
        sdk.call("upload", json!({"name": name, "size": size, "by_hand": by_hand}));

        let target = hub.scratch().join("fetched");
        let text = target.to_string_lossy();
        hub.holm(&["file", "get", &format!("pump-7/{name}"), "--output", &text]);
        let fetched = std::fs::read(&target).expect("the file was written");
        assert!(fetched == content(size), "{name}: {} of {size} bytes", fetched.len());
    }

    assert_eq!(
        told(&hub),
        ["pump-7/small.txt", "pump-7/logs/of today.txt", "pump-7/large.bin"]
    );
    let listed = files(&hub);
    let names: Vec<_> = listed
        .iter()
        .map(|file| file["blobName"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        names,
        ["pump-7/large.bin", "pump-7/logs/of today.txt", "pump-7/small.txt"]
    );
    assert_eq!(listed[0]["blobSizeInBytes"], LARGE);
    hub.holm(&["file", "delete", "pump-7/large.bin"]);
    let table = hub.holm(&["file", "list", "--device", "pump-7"]);
    assert!(!table.contains("large.bin") && table.contains("small.txt"), "{table}");
}

#[test]
fn node_device_uploads_files_by_the_sdks_own_call() {
    upload_story(Language::Node, Transport::Mqtt, false);
}

#[test]
fn node_device_uploads_files_step_by_step_with_the_storage_sdk() {
    upload_story(Language::Node, Transport::Http, true);
}

#[test]
fn python_device_uploads_files_step_by_step() {
    upload_story(Language::Python, Transport::Mqtt, true);
}

#[test]
fn node_device_with_a_certificate_uploads_a_file() {
    if !Need::all(&[Need::Node, Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let certificate = Certificate::self_signed(hub.scratch(), "pump-7");
    let device = hub.create_x509_device("pump-7", &certificate.sha256, &certificate.sha1);
    let sdk = Sdk::device(Language::Node, Transport::Mqtt, &hub, &device).with_certificate(&certificate);

    sdk.start().call("upload", json!({"name": "a", "size": 20}));

    assert_eq!(files(&hub)[0]["blobSizeInBytes"], 20);
}

/// Begins an upload as a device would; gives the answer.
fn begin(hub: &Hub, device: &Device, name: &str) -> Result<holm_e2e::wire::http::Answer> {
    let token = Token::sign(&device.primary_key, &hub.resource(device), 3600).text();
    let target = format!("/devices/{}/files?api-version=2020-09-30", device.id);
    let body = json!({"blobName": name}).to_string();
    hub.service()
        .send("POST", &target, &[("Authorization", &token)], body.as_bytes())
}

fn address(begun: &Value) -> String {
    let text = |name: &str| begun[name].as_str().unwrap_or_default();
    format!("/{}/{}{}", text("containerName"), text("blobName"), text("sasToken"))
}

#[test]
fn an_upload_to_a_full_disk_is_refused_with_the_reason_and_leaves_nothing_half() -> Result<()> {
    if !Need::all(&[Need::LowPorts, Need::Mount]) {
        return Ok(());
    }
    let hub = Hub::start_on_small_disk();
    let device = hub.create_device("pump-7");
    let kept = begin(&hub, &device, "kept")?.json();
    let target = begin(&hub, &device, "a")?.json();
    let kind = [("x-ms-blob-type", "BlockBlob")];
    let put = |begun: &Value, size| hub.service().send("PUT", &address(begun), &kind, &content(size));
    // One of them names the hub whose directory it is.
    let stored = || std::fs::read_dir(hub.data().join("blobs")).map(|files| files.count() - 1);
    assert_eq!(put(&kept, 100_000)?.status, 201);

    let beyond = put(&target, 32 * 1024 * 1024)?;
    hub.disk().fill();
    let full = put(&target, 1024 * 1024)?;
    let replaced = put(&kept, 200_000)?;
    let left = stored()?;
    let read = hub.service().send("GET", &address(&kept), &[], b"")?;
    hub.disk().free();
    hub.daemon().wait_until_healthy();
    let after = put(&target, 1024 * 1024)?;

    for refused in [beyond, full, replaced] {
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(
            (refused.status, refused.header("x-ms-error-code")),
            (507, Some("InsufficientStorage")),
            "{text}"
        );
        assert!(text.contains("disk is full"), "{text}");
    }
    assert_eq!(left, 1);
    assert!(read.body == content(100_000), "{} bytes", read.body.len());
    assert_eq!((after.status, stored()?), (201, 2));
    Ok(())
}

#[test]
fn an_upload_that_was_begun_goes_on_after_a_crash_of_the_hub() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let mut hub = Hub::start();
    let device = hub.create_device("pump-7");
    let begun = begin(&hub, &device, "a")?.json();
    let block = |id: &str| format!("{}&comp=block&blockid={id}", address(&begun));
    let first = hub.service().send("PUT", &block("QQ=="), &[], b"one ")?;

    hub.crash_and_restart();
    let second = hub.service().send("PUT", &block("Qg=="), &[], b"two")?;
    let list = format!("{}&comp=blocklist", address(&begun));
    let xml = b"<BlockList><Latest>QQ==</Latest><Latest>Qg==</Latest></BlockList>";
    let made = hub.service().send("PUT", &list, &[], xml)?;
    hub.crash_and_restart();
    let read = hub.service().send("GET", &address(&begun), &[], b"")?;

    assert_eq!([first.status, second.status, made.status], [201; 3]);
    assert_eq!((read.status, read.body.as_slice()), (200, b"one two".as_slice()));
    Ok(())
}
