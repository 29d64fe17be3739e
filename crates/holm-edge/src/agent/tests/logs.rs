//! The methods about logs, as a service calls them.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::{DeflateDecoder, GzDecoder};
use holm_model::method::MethodResponse;

use super::store::Store;
use super::*;

/// A device with the modules `pump` and `valve`, which have written something.
async fn device() -> Device {
    let device = Device::started().await;
    device.deploy(json!({"pump": process("1"), "valve": process("1")}));
    device.commits(2).await;
    until("methods are subscribed", || device.hub.listens_to_methods("$edgeAgent")).await;
    for line in ["<6> 2026-01-02 03:04:05.678 +00:00 begins", "<3> it broke", "plain"] {
        device.runtime.write(&module("pump"), line);
    }
    device.runtime.write(&module("valve"), "open");
    device
}

async fn call(device: &Device, method: &str, mut payload: Value) -> MethodResponse {
    payload["schemaVersion"] = json!("1.0");
    soon(device.hub.call("$edgeAgent", method, payload)).await.unwrap()
}

async fn get(device: &Device, payload: Value) -> Value {
    let answer = call(device, "GetModuleLogs", payload).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.payload
}

#[tokio::test]
async fn get_module_logs_gives_filtered_lines_in_every_published_form() {
    let device = device().await;

    let text = get(&device, json!({"items": [{"id": "pump", "filter": {"regex": "b"}}]})).await;
    let lines = "<6> 2026-01-02 03:04:05.678 +00:00 begins\n<3> it broke\n";
    assert_eq!(text, json!([{"id": "pump", "payload": lines, "payloadBytes": null}]));

    let all = get(
        &device,
        json!({"items": {"id": "all", "filter": {"loglevel": 6}}, "encoding": "gzip"}),
    )
    .await;
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["edgeAgent", "edgeHub", "pump", "valve"]);
    let bytes = STANDARD.decode(all[3]["payloadBytes"].as_str().unwrap()).unwrap();
    let mut unpacked = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!((all[3]["id"].as_str(), unpacked.as_str()), (Some("valve"), "open\n"));
    assert_eq!(all[3]["payload"], Value::Null);

    let json = get(
        &device,
        json!({"items": {"id": "pump", "filter": {"loglevel": "3"}}, "contentType": "json"}),
    )
    .await;
    let lines: Value = serde_json::from_str(json[0]["payload"].as_str().unwrap()).unwrap();
    let hub = lines[0]["iothub"].clone();
    assert_eq!(
        lines,
        json!([{"iothub": hub, "device": "box", "id": "pump", "stream": "stdout", "loglevel": 3,
            "text": "it broke", "timestamp": null}])
    );
}

#[tokio::test]
async fn calls_that_cannot_be_meant_are_400_and_say_what_is_wrong() {
    let device = device().await;
    let everything = json!({"items": {"id": "all"}});
    for line in 0..3000 {
        device.runtime.write(
            &module("valve"),
            &format!("{line} is a line of fifty characters or so, no more"),
        );
    }

    for (method, payload, word) in [
        ("GetModuleLogs", json!({}), "`items`"),
        ("GetModuleLogs", json!({"items": {"id": "nobody"}}), "`nobody`"),
        (
            "GetModuleLogs",
            json!({"items": {"id": "pump", "filter": {"regex": "("}}}),
            "`filter.regex`",
        ),
        ("GetModuleLogs", everything.clone(), "127000"),
        ("UploadModuleLogs", everything, "`sasUrl`"),
        (
            "UploadModuleLogs",
            json!({"items": {"id": "all"}, "sasUrl": "https://store.test/logs"}),
            "permission",
        ),
        (
            "UploadSupportBundle",
            json!({"sasUrl": "https://$upstream:443/a?b"}),
            "nested",
        ),
        ("GetTaskStatus", json!({}), "`correlationId`"),
    ] {
        let answer = call(&device, method, payload.clone()).await;

        let message = answer.payload["message"].as_str().unwrap_or_default();
        assert_eq!(answer.status, 400, "{method} {payload}: {message}");
        assert!(message.contains(word), "{method} {payload}: {message}");
    }
    let other_schema = device
        .hub
        .call("$edgeAgent", "GetModuleLogs", json!({"schemaVersion": "2.0"}));
    assert_eq!(soon(other_schema).await.unwrap().status, 400);
}

async fn ended(device: &Device, begun: &MethodResponse) -> Value {
    assert_eq!(
        (begun.status, &begun.payload["status"]),
        (200, &json!("Running")),
        "{begun:?}"
    );
    let id = begun.payload["correlationId"].clone();
    loop {
        let status = call(device, "GetTaskStatus", json!({"correlationId": id}))
            .await
            .payload;
        if status["status"] != "Running" {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn logs_are_uploaded_in_bounded_pieces_and_none_twice_when_an_answer_is_lost() {
    let (device, store) = (device().await, Store::start().await);
    for line in 0..20_000 {
        device.runtime.write(
            &module("valve"),
            &format!("line {line}: the valve is open, and has been for a while"),
        );
    }
    store.lose_answers(1);

    let upload = json!({"items": {"id": "pump|valve"}, "sasUrl": store.url()});
    let status = ended(&device, &call(&device, "UploadModuleLogs", upload).await).await;

    assert_eq!(status["status"], "Completed", "{status}");
    let blobs = store.blobs();
    let names: Vec<&String> = blobs.keys().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("/logs/") && names[0].contains("/box/pump-20") && names[0].ends_with(".log"));
    let valve = String::from_utf8(blobs[names[1]].clone()).unwrap();
    assert_eq!(valve.lines().count(), 20_001);
    assert!(valve.ends_with("line 19999: the valve is open, and has been for a while\n"));
    assert!(store.largest() <= 256 * 1024, "{}", store.largest());
}

#[tokio::test]
async fn json_and_gzip_are_uploaded_whole_and_a_refusal_is_told() {
    let (device, store) = (device().await, Store::start().await);

    let upload = json!({"items": {"id": "pump"}, "sasUrl": store.url(), "encoding": "gzip", "contentType": "json"});
    let status = ended(&device, &call(&device, "UploadModuleLogs", upload.clone()).await).await;
    let blobs = store.blobs();
    store.refuse();
    let refused = ended(&device, &call(&device, "UploadModuleLogs", upload).await).await;

    assert_eq!(status["status"], "Completed", "{status}");
    let (name, bytes) = blobs.iter().next().unwrap();
    assert!(name.ends_with(".json.gz"), "{name}");
    let lines: Value = serde_json::from_reader(GzDecoder::new(&bytes[..])).unwrap();
    assert_eq!(lines.as_array().unwrap().len(), 3);
    assert_eq!(refused["status"], "Failed");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("403") && !message.contains("secret"), "{message}");
}

/// The files of an archive, by its central directory.
fn unzip(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let number = |at: usize, length: usize| {
        let bytes = archive[at..at + length].iter().rev();
        bytes.fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let end = archive.len() - 22;
    assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
    let mut at = number(end + 16, 4);
    let mut files = BTreeMap::new();
    for _ in 0..number(end + 10, 2) {
        let (compressed, size, name, offset) = (
            number(at + 20, 4),
            number(at + 24, 4),
            number(at + 28, 2),
            number(at + 42, 4),
        );
        let title = String::from_utf8(archive[at + 46..at + 46 + name].to_vec()).unwrap();
        let data = offset + 30 + number(offset + 26, 2);
        let mut content = Vec::new();
        DeflateDecoder::new(&archive[data..data + compressed])
            .read_to_end(&mut content)
            .unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        assert_eq!((content.len(), crc.sum() as usize), (size, number(at + 16, 4)));
        files.insert(title, content);
        at += 46 + name;
    }
    files
}

#[tokio::test]
async fn a_support_bundle_holds_what_is_known_and_every_log() {
    let (device, store) = (device().await, Store::start().await);

    let begun = call(
        &device,
        "UploadSupportBundle",
        json!({"sasUrl": store.url(), "since": "1 day"}),
    )
    .await;
    let status = ended(&device, &begun).await;

    assert_eq!(status["status"], "Completed", "{status}");
    let blobs = store.blobs();
    let (name, archive) = blobs.iter().next().unwrap();
    assert!(name.contains("/support-bundle-") && name.ends_with(".zip"), "{name}");
    let files = unzip(archive);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "inspect/pump.json",
            "inspect/valve.json",
            "logs/edgeAgent_log.txt",
            "logs/pump_log.txt",
            "logs/valve_log.txt",
            "plan.json",
            "status.json",
            "systeminfo.json"
        ]
    );
    assert_eq!(files["logs/valve_log.txt"], b"open\n");
    let unknown = call(&device, "GetTaskStatus", json!({"correlationId": "another"})).await;
    assert_eq!((unknown.status, &unknown.payload["status"]), (200, &json!("Unknown")));
}
