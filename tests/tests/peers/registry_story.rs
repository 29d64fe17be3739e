//! The registry, digital twins and jobs, by the original service SDKs.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::Mqtt;
use holm_e2e::sdk::Running;
use holm_e2e::{Hub, Language, Need, Sdk, patience};
use serde_json::{Value, json};

/// The address of a container, as an operator asks for it.
fn container(hub: &Hub) -> String {
    let opened = hub.service().call("PUT", "/holm/v1/containers/transfer", None);
    opened["uri"].as_str().expect("an address is told").to_owned()
}

/// Stores or reads a blob of a container.
fn blob(hub: &Hub, method: &str, container: &str, name: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let (address, signature) = container.split_once('?').expect("the address is signed");
    let path = address.splitn(4, '/').nth(3).unwrap_or_default();
    let headers = [("x-ms-blob-type", "BlockBlob")];
    let target = format!("/{path}/{name}?{signature}");
    let answer = hub
        .service()
        .send(method, &target, &headers, body)
        .expect("the hub answers");
    (answer.status, answer.body)
}

/// Asks until a job has ended.
fn ended(service: &mut Running, id: &Value) -> Value {
    let patience = std::time::Instant::now() + patience::long();
    loop {
        let job = service.call("get_transfer", json!({"job": id}));
        if ["completed", "failed", "cancelled"]
            .iter()
            .any(|end| job["status"] == **end)
        {
            return job;
        }
        assert!(std::time::Instant::now() < patience, "the job does not end: {job}");
    }
}

#[test]
fn python_service_changes_many_devices_at_once_and_learns_what_failed() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(Python, &hub).start();

    let items = json!([
        {"id": "a", "import_mode": "create", "status": "enabled", "tags": {"site": "north"}},
        {"id": "b", "import_mode": "createOrUpdate", "status": "disabled"},
    ]);
    let good = service.call("bulk", json!({"items": items}));
    let items = json!([{"id": "a", "import_mode": "create"}, {"id": "b", "import_mode": "delete"}]);
    let bad = service.call("bulk", json!({"items": items}));
    let statistics = service.call("statistics", json!({}));

    assert_eq!((&good["is_successful"], &good["errors"]), (&json!(true), &json!([])));
    assert_eq!(bad["is_successful"], false);
    assert_eq!(bad["errors"][0]["device_id"], "a");
    assert_eq!(
        (&statistics["total_device_count"], &statistics["connected_device_count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        service.call("twin", json!({"device": "a"}))["tags"],
        json!({"site": "north"})
    );
}

#[test]
fn node_service_adds_updates_and_removes_many_devices() {
    if !Need::all(&[Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(Node, &hub).start();

    let items = json!([{"deviceId": "a"}, {"deviceId": "b"}]);
    let added = service.call("bulk", json!({"what": "add", "items": items}));
    let known = service.call("get_device", json!({"device": "a"}));
    let items = json!([{"deviceId": "a", "status": "disabled"}]);
    let updated = service.call("bulk", json!({"what": "update", "items": items, "force": true}));
    let stale = json!([{"deviceId": "a", "etag": known["etag"]}]);
    let refused = service.try_call("bulk", json!({"what": "remove", "items": stale}));
    let removed = service.call(
        "bulk",
        json!({"what": "remove", "items": [{"deviceId": "b"}], "force": true}),
    );

    for result in [added, updated, removed] {
        assert_eq!(result["isSuccessful"], true, "{result}");
    }
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(service.call("devices", json!({})), json!(["a"]));
    assert_eq!(service.call("get_device", json!({"device": "a"}))["status"], "disabled");
}

#[test]
fn python_service_reads_patches_and_commands_a_digital_twin() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    sdk.call("connect", json!({}));
    sdk.call("listen", json!({"what": "methods"}));
    let mut service = Sdk::service(Python, &hub).start();

    let patch = json!([{"op": "add", "path": "/pump", "value": {"$metadata": {}, "speed": 9}}]);
    service.call("update_digital_twin", json!({"device": "d1", "patch": patch}));
    let twin = service.call("digital_twin", json!({"device": "d1"}));
    let request = json!({"device": "d1", "component": "pump", "name": "start", "payload": "now"});
    let answer = service.call("command", request);

    assert_eq!(twin["$dtId"], "d1");
    assert_eq!(twin["pump"]["$metadata"]["speed"]["desiredValue"], 9);
    assert_eq!(answer["method"], "pump*start");
}

#[test]
fn python_service_exports_and_imports_the_registry() {
    exports_and_imports(Python);
}

#[test]
fn node_service_exports_and_imports_the_registry() {
    exports_and_imports(Node);
}

fn exports_and_imports(language: Language) {
    if !Need::all(&[Need::Python, Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let container = container(&hub);
    let mut service = Sdk::service(language, &hub).start();
    let begin = |service: &mut Running, kind: &str| {
        match (language, kind) {
        (Python, "export") => service.call("transfer", json!({"properties": {"type": "export", "output_blob_container_uri": container}})),
        (Python, _) => service.call(
            "transfer",
            json!({"properties": {"type": "import", "input_blob_container_uri": container, "output_blob_container_uri": container}}),
        ),
        (Node, "export") => service.call("export", json!({"container": container})),
        (Node, _) => service.call("import", json!({"input": container, "output": container})),
    }
    };
    let id = |job: &Value| {
        job.get("job_id")
            .or_else(|| job.get("jobId"))
            .cloned()
            .unwrap_or_default()
    };

    let job = begin(&mut service, "export");
    let exported = ended(&mut service, &id(&job));
    let (read, text) = blob(&hub, "GET", &container, "devices.txt", b"");
    let more = [&text[..], b"{\"id\":\"d2\"}\n{\"id\":\"bad id\"}\n"].concat();
    let (stored, _) = blob(&hub, "PUT", &container, "devices.txt", &more);
    let job = begin(&mut service, "import");
    let imported = ended(&mut service, &id(&job));
    let (_, errors) = blob(&hub, "GET", &container, "importErrors.log", b"");
    let jobs = service.call("transfers", json!({}));
    service.call("cancel_transfer", json!({"job": id(&job)}));

    assert_eq!(
        (&exported["status"], read, stored),
        (&json!("completed"), 200, 201),
        "{exported}"
    );
    let line: Value = serde_json::from_slice(text.trim_ascii()).expect("a line is JSON");
    assert_eq!(line["id"], "d1");
    assert_eq!(imported["status"], "completed", "{imported}");
    assert!(String::from_utf8_lossy(&errors).contains("bad id"));
    assert_eq!(jobs.as_array().map(Vec::len), Some(2));
    assert_eq!(service.call("devices", json!({})), json!(["d1", "d2"]));
}

/// What the command line tools of the original send, which can't be installed here: its exact shapes and headers.
#[test]
fn the_requests_of_the_original_command_line_are_answered_as_it_reads_them() -> anyhow::Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let service = hub.service();
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: Value| -> anyhow::Result<(u16, Value)> {
        let token = service.token();
        let mut all = vec![
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json; charset=utf-8"),
            ("accept-language", "en-US"),
        ];
        all.extend(headers);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = service.send(method, &format!("{path}?api-version=2024-03-31"), &all, body.as_bytes())?;
        let document = if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        };
        Ok((answer.status, document))
    };
    let any = [("If-Match", "\"*\"")];

    // device-identity create --ee, create --pd, show, update, renew-key, parent set, children list's reading of ids.
    let create = json!({"deviceId": "e1", "etag": "*", "status": "enabled", "capabilities": {"iotEdge": true},
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": null, "secondaryKey": null},
            "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null}}});
    let (status, edge) = ask("PUT", "/devices/e1", &[], create.clone())?;
    assert_eq!(status, 200, "{edge}");
    let (again, _) = ask("PUT", "/devices/e1", &[], create)?;
    assert_eq!(again, 409);
    let scope = edge["deviceScope"].as_str().unwrap_or_default();
    let id = scope.rsplit_once('-').and_then(|(rest, _)| rest.split_once("//"));
    assert_eq!(id.map(|(_, id)| id), Some("e1"));
    let leaf =
        json!({"deviceId": "leaf", "deviceScope": scope, "status": "enabled", "authentication": {"type": "sas"}});
    let (_, leaf) = ask("PUT", "/devices/leaf", &[], leaf)?;
    assert_eq!(leaf["parentScopes"], json!([scope]));
    let mut update = leaf.clone();
    update["status"] = json!("disabled");
    let etag = format!("\"{}\"", leaf["etag"].as_str().unwrap_or_default());
    let (status, updated) = ask("PUT", "/devices/leaf", &[("If-Match", &etag)], update)?;
    assert_eq!((status, &updated["status"]), (200, &json!("disabled")));
    let keys = json!({"policyKey": "primaryKey", "devices": [{"id": "leaf"}]});
    let (status, renewed) = ask("POST", "/devices/keys/regenerate", &[], keys)?;
    assert_eq!((status, &renewed["rotatedKeys"][0]["id"]), (200, &json!("leaf")));

    // module-identity create, show, list, delete; its identity as it reads authentication by index.
    let module = json!({"deviceId": "e1", "moduleId": "m", "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}});
    let (status, module) = ask("PUT", "/devices/e1/modules/m", &[], module)?;
    assert_eq!(status, 200);
    assert!(module["authentication"]["x509Thumbprint"].is_object());
    let (_, modules) = ask("GET", "/devices/e1/modules", &[], Value::Null)?;
    assert_eq!(modules.as_array().map(Vec::len), Some(3));
    let (status, body) = ask("DELETE", "/devices/e1/modules/m", &any, Value::Null)?;
    assert_eq!((status, body), (204, Value::Null));

    // device-twin update sends the whole twin back; replace.
    let (_, mut twin) = ask("GET", "/twins/leaf", &[], Value::Null)?;
    twin["tags"] = json!({"site": {"floor": 2}});
    let (status, patched) = ask("PATCH", "/twins/leaf", &any, twin)?;
    assert_eq!((status, &patched["tags"]["site"]["floor"]), (200, &json!(2)));
    let replacement = json!({"tags": {"only": true}, "properties": {"desired": {"a": 1}}});
    let (status, replaced) = ask("PUT", "/twins/leaf", &any, replacement)?;
    assert_eq!((status, &replaced["tags"]), (200, &json!({"only": true})));
    let (_, agent) = ask("PATCH", "/twins/e1/modules/$edgeAgent", &any, json!({"tags": {"t": 1}}))?;
    assert_eq!(agent["tags"], json!({"t": 1}));

    // edge devices create deletes with a bare star; c2d-message purge; digital-twin show.
    let (_, purged) = ask("DELETE", "/devices/leaf/commands", &[], Value::Null)?;
    assert_eq!(purged["totalMessagesPurged"], 0);
    let (status, digital) = ask("GET", "/digitaltwins/leaf", &[], Value::Null)?;
    assert_eq!((status, &digital["$dtId"]), (200, &json!("leaf")));
    let (status, _) = ask("DELETE", "/devices/leaf", &[("If-Match", "*")], Value::Null)?;
    assert_eq!(status, 204);
    Ok(())
}

#[test]
fn an_import_goes_on_after_a_kill_and_does_each_line_once() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let container = container(&hub);
    let lines: String = (0..6000)
        .map(|n| format!("{{\"id\":\"d{n}\",\"importMode\":\"create\"}}\n"))
        .collect();
    let (stored, _) = blob(&hub, "PUT", &container, "devices.txt", lines.as_bytes());
    let order = json!({"type": "import", "inputBlobContainerUri": container, "outputBlobContainerUri": container});
    let job = hub.service().call("POST", "/jobs/create", Some(&order));
    let path = format!("/jobs/{}", job["jobId"].as_str().unwrap_or_default());

    let (mut kills, mut seen) = (0, 0);
    let patience = std::time::Instant::now() + patience::long();
    let job = loop {
        let job = hub.service().call("GET", &path, None);
        if job.get("endTimeUtc").is_some() {
            break job;
        }
        let progress = job["progress"].as_u64().unwrap_or_default();
        if progress > seen && kills < 3 {
            seen = progress;
            kills += 1;
            hub.crash_and_restart();
        }
        assert!(std::time::Instant::now() < patience, "the job does not end: {job}");
    };

    assert_eq!(
        (stored, kills > 0, &job["status"]),
        (201, true, &json!("completed")),
        "{job}"
    );
    assert_eq!(
        hub.service().call("GET", "/statistics/devices", None)["totalDeviceCount"],
        6000
    );
    // A line that was done twice would have failed.
    assert_eq!(blob(&hub, "GET", &container, "importErrors.log", b"").0, 404);
}
