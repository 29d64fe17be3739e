//! The management socket as the original's command line meets it: exactly its requests, and answers that keep to the published
//! schema (facts of `managementVersion_2022_08_03`, and `edge-agent.md` §3.3).

use std::os::unix::net::UnixStream;

use holm_e2e::wire::http::{self, Answer};
use holm_e2e::{Edge, Hub, Need, edge, patience};
use serde_json::{Value, json};

/// The version that the original's command line asks for.
const VERSION: &str = "2020-07-07";
/// All that there are.
const VERSIONS: [&str; 7] = [
    "2018-06-28",
    "2019-01-30",
    "2019-10-22",
    "2019-11-05",
    "2020-07-07",
    "2021-12-07",
    "2022-08-03",
];
/// The words that its command line can read as the status of a module.
const STATUSES: [&str; 5] = ["unknown", "running", "stopped", "failed", "dead"];

/// Whom a test asks.
struct Socket(String);

impl Socket {
    fn of(edge: &Edge) -> Self {
        Self(edge.socket_uri().trim_start_matches("unix://").to_owned())
    }

    #[track_caller]
    fn ask(&self, method: &str, target: &str) -> Answer {
        let stream = UnixStream::connect(&self.0).expect("the socket answers");
        stream
            .set_read_timeout(Some(patience::long()))
            .expect("a timeout can be set");
        // Its client names the socket, in hexadecimal digits, as the host.
        let answer = http::request(stream, method, target, &[("Host", "2f746d70")], b"");
        answer.expect("an answer is HTTP")
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let between = if path.contains('?') { '&' } else { '?' };
        let answer = self.ask("GET", &format!("{path}{between}api-version={VERSION}"));
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }
}

/// What is wrong with a value by a schema: types, and members that must be there; nothing is null.
fn faults(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return faults(&definitions()[name], value, path);
    }
    let is_of_type = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        other => panic!("{other:?}"),
    };
    if !is_of_type {
        return vec![format!("{path}: {value} is no {}", schema["type"])];
    }
    let mut all = Vec::new();
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if value.get(name).is_none() {
            all.push(format!("{path}: `{name}` is missing"));
        }
    }
    for (name, below) in value.as_object().into_iter().flatten() {
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(known), _) | (None, Some(known)) => all.extend(faults(known, below, &format!("{path}/{name}"))),
            (None, None) if below.is_null() => all.push(format!("{path}/{name} is null")),
            (None, None) => {}
        }
    }
    for (index, below) in value.as_array().into_iter().flatten().enumerate() {
        all.extend(faults(&schema["items"], below, &format!("{path}/{index}")));
    }
    all
}

fn definitions() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer"});
    let object =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    json!({
        "ModuleList": object(json!({"modules": {"type": "array", "items": {"$ref": "ModuleDetails"}}}), json!(["modules"])),
        "ModuleDetails": object(
            json!({"id": text, "name": text, "type": text, "config": {"$ref": "Config"}, "status": {"$ref": "Status"}}),
            json!(["id", "name", "type", "config", "status"]),
        ),
        "Config": object(
            json!({"settings": {"$ref": "Settings"}, "env": {"type": "array", "items": {"$ref": "EnvVar"}}}),
            json!(["settings"]),
        ),
        // Its command line reads these as its own settings of a container.
        "Settings": object(json!({"image": text, "imageHash": text, "createOptions": {"type": "object"}}), json!(["image"])),
        "EnvVar": object(json!({"key": text, "value": text}), json!(["key", "value"])),
        "Status": object(
            json!({"startTime": text, "exitStatus": {"$ref": "ExitStatus"}, "runtimeStatus": {"$ref": "RuntimeStatus"}}),
            json!(["runtimeStatus"]),
        ),
        "ExitStatus": object(json!({"exitTime": text, "statusCode": text}), json!(["exitTime", "statusCode"])),
        "RuntimeStatus": object(json!({"status": text, "description": text}), json!(["status"])),
        "SystemInfo": {
            "type": "object", "required": ["osType", "architecture"], "additionalProperties": text,
            "properties": {"cpus": number, "total_memory": number, "provisioning": {"$ref": "Provisioning"}},
        },
        "Provisioning": object(
            json!({"type": text, "dynamicReprovisioning": {"type": "boolean"}, "alwaysReprovisionOnStartup": {"type": "boolean"}}),
            json!(["type", "dynamicReprovisioning"]),
        ),
        "SystemResources": object(
            json!({"host_uptime": number, "process_uptime": number, "used_cpu": {"type": "number"}, "used_ram": number,
                "total_ram": number, "disks": {"type": "array", "items": {"$ref": "Disk"}}, "docker_stats": text}),
            json!(["host_uptime", "process_uptime", "used_cpu", "used_ram", "total_ram", "disks", "docker_stats"]),
        ),
        "Disk": object(
            json!({"name": text, "available_space": number, "total_space": number, "file_system": text, "file_type": text}),
            json!(["name", "available_space", "total_space", "file_system", "file_type"]),
        ),
        "IdentityList": object(json!({"identities": {"type": "array", "items": {"$ref": "Identity"}}}), json!(["identities"])),
        "Identity": object(
            json!({"moduleId": text, "managedBy": text, "generationId": text, "authType": text}),
            json!(["moduleId", "managedBy", "generationId", "authType"]),
        ),
        "ErrorResponse": object(json!({"message": text}), json!(["message"])),
    })
}

#[track_caller]
fn assert_is(name: &str, value: &Value) {
    let faults = faults(&json!({ "$ref": name }), value, name);
    assert!(faults.is_empty(), "{faults:#?}\nin {value}");
}

/// The frames of a log: 8 bytes of heading, then what was written.
fn unframed(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while let [stream, 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        assert!(matches!(stream, 1 | 2), "{stream}");
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).expect("it fits");
        let (piece, after) = rest.split_at(length);
        text.extend_from_slice(piece);
        bytes = after;
    }
    assert!(bytes.is_empty(), "the log ends within a frame");
    String::from_utf8(text).expect("it is text")
}

#[test]
fn the_originals_command_line_gets_what_it_can_read() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let socket = Socket::of(&edge);
    let module = |image: &str| {
        json!({"type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
            "settings": {"image": image, "createOptions": "{}"}})
    };
    edge::deploy(
        &hub,
        &device,
        &edge::manifest(
            &json!({"sensor": module("holm/sensor"), "gone": module("no-such")}),
            &json!({}),
        ),
    );
    patience::wait("the modules", patience::long(), || {
        let all = socket.get("/modules");
        let of = |name: &str| {
            let all = all["modules"].as_array().into_iter().flatten();
            all.filter(|module| module["name"] == name)
                .map(|module| module["status"]["runtimeStatus"]["status"].clone())
                .next()
        };
        // The first edition is tried and counts as it is; what can't run stays so.
        if of("gone").is_some() && of("sensor").is_some() {
            Ok(())
        } else {
            Err(all.to_string())
        }
    });

    // iotedge list
    for version in VERSIONS {
        let answer = socket.ask("GET", &format!("/modules?api-version={version}"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{version}"
        );
        let list = answer.json();
        assert_is("ModuleList", &list);
        for module in list["modules"].as_array().expect("a list") {
            let status = module["status"]["runtimeStatus"]["status"].as_str().unwrap_or_default();
            assert!(STATUSES.contains(&status), "{module}");
        }
    }
    for name in ["edgeAgent", "edgeHub", "sensor", "gone"] {
        let details = socket.get(&format!("/modules/{name}"));
        assert_is("ModuleDetails", &details);
        assert_eq!(details["name"], name);
    }
    // iotedge logs
    let query = format!("api-version={VERSION}&follow=false&tail=all&timestamps=false&since=0");
    let log = socket.ask("GET", &format!("/modules/edgeAgent/logs?{query}"));
    assert_eq!(log.status, 200);
    assert!(unframed(&log.body).contains("the edge is ready"));
    // iotedge support-bundle
    let bundle = socket.ask(
        "GET",
        &format!("/systeminfo/supportbundle?api-version={VERSION}&since=1%20day&edge_runtime_only=true"),
    );
    assert_eq!(
        (bundle.status, bundle.header("content-type")),
        (200, Some("application/zip"))
    );
    assert!(bundle.body.starts_with(b"PK\x03\x04"), "{} bytes", bundle.body.len());
    // What its agent asks.
    assert_is("IdentityList", &socket.get("/identities/"));
    assert_is("SystemInfo", &socket.get("/systeminfo"));
    let resources = socket.get("/systeminfo/resources");
    assert_is("SystemResources", &resources);
    let stats: Value =
        serde_json::from_str(resources["docker_stats"].as_str().unwrap_or_default()).expect("a text that holds JSON");
    assert!(stats.is_array());
}

#[test]
fn a_module_is_stopped_and_started_as_the_originals_restart_does_it() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let socket = Socket::of(&edge);
    let sensor = json!({"sensor": {"type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": "holm/sensor", "createOptions": "{}"}}});
    edge::deploy(&hub, &device, &edge::manifest(&sensor, &json!({})));
    let started = || {
        let details = socket
            .ask("GET", &format!("/modules/sensor?api-version={VERSION}"))
            .json();
        let is_running = details["status"]["runtimeStatus"]["status"] == "running";
        details["status"]["startTime"]
            .as_str()
            .filter(|_| is_running)
            .map(str::to_owned)
    };
    let first = patience::wait("the module", patience::long(), || {
        started().ok_or_else(|| "it does not run".to_owned())
    });

    for operation in ["stop", "start"] {
        let answer = socket.ask("POST", &format!("/modules/sensor/{operation}?api-version={VERSION}"));
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{operation}");
    }
    let restart = socket.ask("POST", &format!("/modules/sensor/restart?api-version={VERSION}"));

    assert_eq!(restart.status, 204);
    let second = patience::wait("the module again", patience::long(), || {
        started().ok_or_else(|| "it does not run".to_owned())
    });
    assert_ne!(first, second);
}

#[test]
fn what_can_not_be_answered_is_an_error_of_the_published_form() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let socket = Socket::of(&edge);
    let version = format!("api-version={VERSION}");

    for (method, target, status) in [
        ("GET", "/modules".to_owned(), 400),
        ("GET", "/modules?api-version=2017-01-01".to_owned(), 400),
        ("GET", format!("/modules/nobody?{version}"), 404),
        ("GET", format!("/modules/nobody/logs?{version}"), 404),
        ("POST", format!("/modules/nobody/restart?{version}"), 404),
        ("GET", format!("/modules/edgeAgent/logs?{version}&tail=many"), 400),
        ("POST", format!("/modules?{version}"), 403),
        ("PUT", format!("/modules/m?{version}&start=true"), 403),
        ("DELETE", format!("/modules/m?{version}"), 403),
        ("POST", format!("/modules/m/prepareupdate?{version}"), 403),
        ("DELETE", format!("/identities/m?{version}"), 403),
        ("POST", format!("/device/reprovision?{version}"), 501),
        ("GET", format!("/nothing?{version}"), 404),
    ] {
        let answer = socket.ask(method, &target);
        assert_eq!(
            answer.status,
            status,
            "{method} {target}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        assert_is("ErrorResponse", &answer.json());
    }
}
