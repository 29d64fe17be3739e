//! Deployments in the forms in which people publish them (`tests/manifests/`): taken by the hub from every client, and run by
//! an edge as they say.

use std::path::{Path, PathBuf};

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::Mqtt;
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::engine::{self, Images};
use holm_e2e::{Device, Edge, Hub, Need, Sdk, need, patience};
use serde_json::{Value, json};

const WHOLE: &[&str] = &[
    "tutorial-old-key",
    "portal",
    "industrial",
    "video-analytics",
    "stores",
    "chunks",
    "routes",
    "hierarchy-top",
    "hierarchy-below",
    "windows",
    "converted",
    "template-filled",
];

fn path(name: &str) -> PathBuf {
    need::folder("manifests").join(format!("{name}.json"))
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).expect("the manifest is in the tree");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The modules of a manifest, whatever they are wrapped in.
fn modules(manifest: &Value) -> Value {
    let content = manifest.get("content").unwrap_or(manifest);
    let found = content.get("modulesContent").or_else(|| content.get("moduleContent"));
    found.expect("a manifest has modules").clone()
}

/// Objects without nulls, which twins don't keep.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(name, member)| (name.clone(), without_nulls(member)))
            .collect(),
        other => other.clone(),
    }
}

/// The desired properties of a module, without what the hub adds.
#[track_caller]
fn desired(hub: &Hub, device: &str, module: &str) -> Value {
    let twin = hub
        .service()
        .call("GET", &format!("/twins/{device}/modules/{module}"), None);
    let mut desired = twin["properties"]["desired"].clone();
    if let Some(members) = desired.as_object_mut() {
        members.retain(|name, _| !name.starts_with('$'));
    }
    desired
}

#[test]
fn every_published_form_is_taken_unmodified_from_the_command_line_and_both_service_sdks() {
    if !Need::all(&[Need::Python, Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut python = Sdk::service(Python, &hub).start();
    let mut node = Sdk::service(Node, &hub).start();

    for name in WHOLE {
        let said = modules(&read(name));
        let content = json!({"modulesContent": said});
        let [by_command, by_python, by_node] = ["command", "python", "node"].map(|client| format!("{name}-{client}"));
        for device in [&by_command, &by_python, &by_node] {
            let _edge = hub.create_edge_device(device);
        }
        hub.holm(&["deploy", "--device", &by_command, &path(name).to_string_lossy()]);
        python.call("apply", json!({"device": by_python, "content": content}));
        node.call("apply", json!({"device": by_node, "content": content}));

        for (module, entry) in said.as_object().into_iter().flatten() {
            let expected = without_nulls(&entry["properties.desired"]);
            for device in [&by_command, &by_python, &by_node] {
                assert_eq!(desired(&hub, device, module), expected, "{device}: {module}");
            }
        }
    }
}

#[test]
fn a_layer_lies_over_what_was_deployed_before() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _edge = hub.create_edge_device("e1");
    let mut python = Sdk::service(Python, &hub).start();

    hub.holm(&["deploy", "--device", "e1", &path("portal").to_string_lossy()]);
    hub.holm(&["deploy", "--device", "e1", &path("layer").to_string_lossy()]);
    let metrics = json!({"modulesContent": modules(&read("layer-metrics"))});
    python.call("apply", json!({"device": "e1", "content": metrics}));

    let agent = desired(&hub, "e1", "$edgeAgent");
    let names: Vec<_> = agent["modules"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(
        agent["runtime"]["settings"]["registryCredentials"]["cr"]["username"],
        "u"
    );
    assert_eq!(
        agent["modules"]["metricsCollector"]["env"]["CompressForUpload"]["value"],
        true
    );
    let routes = desired(&hub, "e1", "$edgeHub")["routes"].clone();
    assert_eq!(
        (&routes["urgent"]["priority"], routes.as_object().map(|it| it.len())),
        (&json!(1), Some(4))
    );
    let mut listed: Vec<String> = serde_json::from_value(python.call("modules", json!({"device": "e1"}))).unwrap();
    listed.sort();
    assert_eq!(
        listed,
        [
            "$edgeAgent",
            "$edgeHub",
            "OPCPublisher",
            "SimulatedTemperatureSensor",
            "industrial-safety",
            "metricsCollector"
        ]
    );
}

#[test]
fn a_template_is_told_from_a_deployment_by_its_placeholders() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _edge = hub.create_edge_device("e1");
    let mut python = Sdk::service(Python, &hub).start();

    let template = path("deployment.template");
    let command = hub
        .command(&["deploy", "--device", "e1", &template.to_string_lossy()])
        .output();
    let command = command.expect("the binary can be started");
    let content = json!({"modulesContent": modules(&read("deployment.template"))});
    let sdk = python.try_call("apply", json!({"device": "e1", "content": content}));

    let said = String::from_utf8_lossy(&command.stderr).into_owned();
    assert_eq!(command.status.code(), Some(1), "{said}");
    for part in [
        "is a template",
        "`${MODULES.SampleModule}` in",
        "`$INPUT_FOLDER` in",
        "`${CONTAINER_REGISTRY_PASSWORD}` in",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let refused = sdk.expect_err("an image that is a placeholder is refused");
    assert!(refused.message.contains("400 "), "{}", refused.message);
    assert!(
        refused.message.contains("${MODULES.SampleModule}"),
        "{}",
        refused.message
    );
    assert_eq!(desired(&hub, "e1", "$edgeAgent"), json!({}));
}

#[test]
fn create_options_that_no_twin_holds_are_deployed_in_pieces() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _edge = hub.create_edge_device("e1");
    let manifest = modules(&read("template-labels"));
    let said = deployed(&json!({"modulesContent": manifest}))["web"]["settings"]["createOptions"].clone();

    hub.holm(&["deploy", "--device", "e1", &path("template-labels").to_string_lossy()]);

    let settings = desired(&hub, "e1", "$edgeAgent")["modules"]["web"]["settings"].clone();
    let text = settings["createOptions"].as_str().expect("they are text");
    assert_eq!(
        serde_json::from_str::<Value>(text).expect("one piece is enough here"),
        said
    );
}

#[test]
fn a_manifest_may_have_a_byte_order_mark() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _edge = hub.create_edge_device("e1");
    let marked = hub.scratch().join("marked.json");
    let text = std::fs::read_to_string(path("portal")).expect("the manifest is in the tree");
    std::fs::write(&marked, format!("\u{feff}{text}")).expect("a file of the test can be written");

    hub.holm(&["deploy", "--device", "e1", &marked.to_string_lossy()]);

    assert_eq!(desired(&hub, "e1", "SimulatedTemperatureSensor")["SendInterval"], 5);
}

/// A manifest with what is this machine's put in: images that are here, ports that nobody has, directories of the test.
struct Fitted {
    text: String,
}

impl Fitted {
    fn of(name: &str, places: &[(&str, &str)]) -> Self {
        // A registry that is refused at once, so that what is present is used.
        let mut text = modules(&read(name))
            .to_string()
            .replace("registry.example/", "127.0.0.1:1/e2e/");
        for (from, to) in places {
            assert!(text.contains(from), "`{from}` is in {name}");
            text = text.replace(from, to);
        }
        Self { text }
    }

    fn content(&self) -> Value {
        let modules: Value = serde_json::from_str(&self.text).expect("it is still JSON");
        json!({"modulesContent": modules})
    }

    fn images(&self) -> Images {
        let content = self.content();
        let modules = deployed(&content);
        let names = modules.values().map(|module| {
            let settings = module.get("settings").expect("a module has settings");
            let image = settings
                .get("image")
                .and_then(Value::as_str)
                .expect("a module has an image");
            image.trim().to_owned()
        });
        Images::that_wait(names.collect())
    }
}

/// The modules that a manifest runs.
#[track_caller]
fn deployed(content: &Value) -> &serde_json::Map<String, Value> {
    let desired = &content["modulesContent"]["$edgeAgent"]["properties.desired"];
    let modules = desired.get("modules").or_else(|| desired.get("Modules"));
    modules.and_then(Value::as_object).expect("a manifest has modules")
}

/// Deploys, and waits until every module runs and the deployment has proved itself.
#[track_caller]
fn run(hub: &Hub, device: &Device, content: &Value) {
    edge::deploy(hub, device, content);
    let modules = deployed(content);
    edge::wait_until_reported(hub, device, "the whole deployment running", |report| {
        let runs = |name: &String| report["modules"][name]["runtimeStatus"] == "running";
        let others = report["modules"].as_object().map(|all| all.len()) != Some(modules.len());
        report["lastDesiredStatus"]["code"] == 200 && modules.keys().all(runs) && !others
    });
}

#[test]
fn published_manifests_run_in_containers_with_their_create_options_in_force() {
    if !Need::all(&[Need::Docker, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("plant-1");
    let edge = Edge::start_for_containers(&hub, &device);
    for container in [
        "discovery",
        "publisher",
        "dockerContainerRegistry",
        "iotedgeApiProxy",
        "snitcher",
        "loose",
        "lvaEdge",
        "lvaExtension",
    ] {
        edge.owns_container(container);
    }
    let scratch = hub.scratch().to_string_lossy().into_owned();

    industrial_options_are_in_force(&hub, &device, &scratch);
    options_of_a_hierarchys_top_are_in_force(&hub, &device, &edge);
    containers_share_memory_and_devices(&hub, &device, &scratch);
    converted_options_are_in_force(&hub, &device);
}

fn industrial_options_are_in_force(hub: &Hub, device: &Device, scratch: &str) {
    let fitted = Fitted::of(
        "industrial",
        &[
            ("/iiotedge:", &format!("{scratch}:")),
            ("\\\"HostPort\\\": \\\"62222\\\"", "\\\"HostPort\\\": \\\"47222\\\""),
        ],
    );
    let _images = fitted.images();

    run(hub, device, &fitted.content());

    let discovery = engine::inspect("discovery");
    assert_eq!(discovery["HostConfig"]["NetworkMode"], "host");
    let added = discovery["HostConfig"]["CapAdd"].to_string();
    assert!(added.contains("NET_ADMIN"), "{added}");
    let publisher = engine::inspect("publisher");
    assert_eq!(publisher["Config"]["Hostname"], "publisher");
    assert_eq!(publisher["Config"]["Cmd"], json!(["--pf=/appdata/pn.json", "--aa"]));
    assert_eq!(
        publisher["HostConfig"]["PortBindings"]["62222/tcp"][0]["HostPort"],
        "47222"
    );
    assert_eq!(publisher["HostConfig"]["NetworkMode"], "azure-iot-edge");
    let hosts = publisher["HostConfig"]["ExtraHosts"].to_string();
    for host in ["plc:192.0.2.17", "edge.test:", "edgeHub:", "edgeAgent:"] {
        assert!(hosts.contains(host), "{host} in {hosts}");
    }
    std::fs::write(Path::new(scratch).join("pn.json"), "bound\n").expect("a file of the test can be written");
    let line = "read line < /appdata/pn.json; echo $line";
    assert_eq!(
        engine::docker(&["exec", "publisher", "/bin/sh", "-c", line]).trim(),
        "bound"
    );
}

fn options_of_a_hierarchys_top_are_in_force(hub: &Hub, device: &Device, edge: &Edge) {
    let socket = edge.socket_uri().replace("unix://", "");
    let fitted = Fitted::of(
        "hierarchy-top",
        &[
            ("registry:latest", "127.0.0.1:1/e2e/registry:latest"),
            ("\\\"HostPort\\\":5000", "\\\"HostPort\\\":47500"),
            ("[{\\\"HostPort\\\":\\\"443\\\"}]", "[{\\\"HostPort\\\":\\\"47443\\\"}]"),
            ("/var/run/iotedge/mgmt.sock:", &format!("{socket}:")),
        ],
    );
    let _images = fitted.images();

    run(hub, device, &fitted.content());

    let registry = engine::inspect("dockerContainerRegistry");
    assert_eq!(
        registry["HostConfig"]["LogConfig"],
        json!({"Type": "json-file", "Config": {"max-size": "4m", "max-file": "7", "compress": "true"}})
    );
    assert_eq!(
        registry["HostConfig"]["PortBindings"]["5000/tcp"][0]["HostPort"],
        "47500"
    );
    let variables = registry["Config"]["Env"].to_string();
    assert!(
        variables.contains("REGISTRY_PROXY_REMOTEURL=https://registry.example:443"),
        "{variables}"
    );
    let both = "test -S /var/run/iotedge/mgmt.sock && test -S /var/run/iotedge/workload.sock && echo both";
    assert_eq!(
        engine::docker(&["exec", "snitcher", "/bin/sh", "-c", both]).trim(),
        "both"
    );
    let about = edge::reported(hub, device);
    assert_eq!(
        about["systemModules"]["edgeHub"]["env"]["DeviceScopeCacheRefreshDelaySecs"]["value"],
        "0"
    );
    let told = edge.status()["agent"]["withoutEffect"].clone();
    let told: Vec<_> = told
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| &one["setting"])
        .collect();
    assert_eq!(
        told,
        [
            "systemModules.edgeHub.env.DeviceScopeCacheRefreshDelaySecs",
            "systemModules.edgeHub.env.experimentalFeatures__mqttBrokerEnabled",
        ]
    );
}

fn containers_share_memory_and_devices(hub: &Hub, device: &Device, scratch: &str) {
    let fitted = Fitted::of(
        "video-analytics",
        &[
            ("/dev/dri", "/dev/null"),
            ("/var/local/mediaservices:", &format!("{scratch}:")),
            ("vendor/serving", "127.0.0.1:1/e2e/serving"),
        ],
    );
    let _images = fitted.images();
    let mut content = fitted.content();
    // It wants a graphics processor.
    let modules = &mut content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    modules
        .as_object_mut()
        .expect("a manifest has modules")
        .remove("spatialanalysis");

    run(hub, device, &content);

    let (owner, user) = (engine::inspect("lvaEdge"), engine::inspect("lvaExtension"));
    assert_eq!(owner["HostConfig"]["IpcMode"], "shareable");
    let shared = user["HostConfig"]["IpcMode"].as_str().unwrap_or_default();
    assert!(shared.starts_with("container:"), "{shared}");
    assert_eq!(user["HostConfig"]["Devices"][0]["PathOnHost"], "/dev/null");
    assert_eq!(user["HostConfig"]["DeviceCgroupRules"], json!(["c 189:* rmw"]));
    assert!(
        user["Config"]["ExposedPorts"].get("5001/tcp").is_some(),
        "{}",
        user["Config"]
    );
    let environment = user["Config"]["Env"].to_string();
    assert!(
        environment.contains("PIPELINE={\\\"detection-device\\\":\\\"GPU\\\"}"),
        "{environment}"
    );
}

fn converted_options_are_in_force(hub: &Hub, device: &Device) {
    let fitted = Fitted::of("converted", &[]);
    let _images = fitted.images();

    run(hub, device, &fitted.content());

    let told = edge::reported(hub, device)["modules"]["loose"]["statusDescription"].to_string();
    assert!(told.contains("`CapAdd` (it belongs into `HostConfig`)"), "{told}");
    let loose = engine::inspect("loose");
    assert_eq!(
        (&loose["HostConfig"]["Memory"], &loose["HostConfig"]["Privileged"]),
        (&json!(67_108_864), &json!(false))
    );
    assert_eq!(loose["Config"]["Labels"]["build"], "7");
    let environment = loose["Config"]["Env"].to_string();
    for variable in [
        "\"A=1\"",
        "\"EMPTY=\"",
        "\"COUNT=0\"",
        "\"RATIO=0.5\"",
        "\"FLAG=true\"",
        "\"_comment_FLAG=whether it is so\"",
    ] {
        assert!(environment.contains(variable), "{variable} in {environment}");
    }
}

#[test]
fn a_metrics_collector_finds_the_figures_under_the_published_names() {
    if !Need::all(&[Need::Docker, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("plant-1");
    let mut edge = Edge::start_for_containers(&hub, &device);
    edge.owns_container("metricsCollector");
    // Other edges of this machine are given an address of their own; this one keeps the usual one.
    let config = std::fs::read_to_string(edge.config()).expect("the edge has a configuration");
    let usual: Vec<_> = config
        .lines()
        .filter(|line| !line.starts_with("metrics_bind"))
        .collect();
    edge.stop();
    std::fs::write(edge.config(), usual.join("\n")).expect("the configuration can be written");
    edge.restart();
    let mut content = json!({"modulesContent": modules(&read("template-filled"))});
    let collector = &modules(&read("layer-metrics"))["$edgeAgent"]["properties.desired.modules.metricsCollector"];
    let mut collector = collector.clone();
    collector["settings"]["image"] = json!("127.0.0.1:1/e2e/metrics-collector:1.0");
    let _image = Images::that_wait(vec!["127.0.0.1:1/e2e/metrics-collector:1.0".to_owned()]);
    content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"] = json!({"metricsCollector": collector});

    run(&hub, &device, &content);

    let endpoints = engine::inspect("metricsCollector")["Config"]["Env"].to_string();
    for (name, figure) in [("edgeHub", "edgehub_"), ("edgeAgent", "edgeAgent_")] {
        let url = format!("http://{name}:9600/metrics");
        assert!(endpoints.contains(&url), "{url} in {endpoints}");
        let figures = patience::wait("the figures", patience::long(), || {
            let read = [
                "exec",
                "metricsCollector",
                "/bin/busybox",
                "wget",
                "-q",
                "-O",
                "-",
                &url,
            ];
            let done = std::process::Command::new("docker").args(read).output();
            let done = done.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            let problem = || String::from_utf8_lossy(&done.stderr).into_owned();
            if done.status.success() {
                Ok(text)
            } else {
                Err(problem())
            }
        });
        assert!(figures.contains(figure), "{figure} in {figures}");
    }
}

#[test]
fn published_routes_take_messages_of_sdk_modules_and_devices_where_they_say() {
    if !Need::all(&[Need::Python, Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("plant-1");
    let edge = Edge::start(&hub, &device);
    let mut content = json!({"modulesContent": modules(&read("routes"))});
    for (name, language) in [("sensor", Python), ("ai_insights", Node), ("asa-job", Python)] {
        let module = SdkModule {
            name,
            language,
            transport: Mqtt,
            runtime: Runtime::Process,
        };
        content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"][name] = edge.module(&module);
    }
    edge::deploy(&hub, &device, &content);
    let [mut sensor, mut insights, mut job] = edge.accept_all(["sensor", "ai_insights", "asa-job"]);
    for module in [&mut sensor, &mut insights, &mut job] {
        module.call("connect", json!({}));
        module.call("listen", json!({"what": "messages"}));
    }
    let leaf = hub.create_device("leaf-1");
    hub.holm(&["device", "children", "add", "plant-1", "leaf-1"]);
    let mut leaf = Sdk::device(Python, Mqtt, &hub, &leaf).through(&edge, &leaf).start();
    leaf.call("connect", json!({}));
    let mut monitor = hub.monitor();
    let message = |output: &str, id: &str, body: Value| {
        json!({"output": output, "message_id": id, "body": body.to_string(), "content_type": "application/json",
            "content_encoding": "utf-8", "properties": {"level": "critical"}})
    };

    sensor.call("send", message("temperatureOutput", "t1", json!({"t": 21})));
    insights.call("send", message("findings", "f1", json!({"found": 1})));
    job.call("send", message("control", "c1", json!({"reset": true})));
    sensor.call(
        "send",
        message("alerts", "hot", json!({"machine": {"temperature": 120}})),
    );
    let mut from_leaf = message("", "l1", json!({"status": "on"}));
    from_leaf.as_object_mut().expect("an object").remove("output");
    leaf.call("send", from_leaf);
    sensor.call("report", json!({"patch": {"interval": 5}}));

    insights.event("message", |event| {
        event["input"] == "input1" && event["message_id"] == "t1"
    });
    job.event("message", |event| {
        event["input"] == "temperature" && event["message_id"] == "t1"
    });
    sensor.event("message", |event| {
        event["input"] == "control" && event["message_id"] == "c1"
    });
    insights.event("message", |event| {
        event["input"] == "leaves" && event["message_id"] == "l1"
    });
    for id in ["t1", "f1", "hot", "l1"] {
        monitor.wait_for(id, |event| event.system["messageId"] == id);
    }
    let change = monitor.wait_for("the twin's change", |event| {
        event.system["messageSchema"] == "twinChangeNotification"
    });
    assert_eq!(change.body, json!({"interval": 5}));
    let leaked = monitor.seen().iter().find(|event| event.system["messageId"] == "c1");
    assert_eq!(leaked, None, "no route takes it up");
}
