//! Deployments in the forms in which people publish them (`tests/manifests/`): what the hub makes of each is what the edge
//! reads, and it means what it says.
//!
//! ```text
//!   manifest --DeploymentContent--> desired sections, within the rules of twins
//!            '--> $edgeAgent --AgentDesired--> modules        '--> $edgeHub --EdgeHubDesired, RouteSet--> routes
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use holm_model::ModuleId;
use holm_model::manifest::{
    AgentDesired, DeploymentContent, EdgeHubDesired, ImagePullPolicy, ModuleContent, ModuleSpec, ModuleStatus,
    RestartPolicy,
};
use holm_model::twin::rules::{self, Limit};
use holm_query::{RouteSet, RouteSpec};
use serde_json::{Map, Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests")
}

fn content(name: &str) -> DeploymentContent {
    let text = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
    DeploymentContent::from_json(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The desired section of a module that had nothing before.
fn desired(content: &DeploymentContent, module: &str) -> Map<String, Value> {
    let id = ModuleId::new(module).unwrap();
    content.modules[&id].applied_to(&Map::new())
}

/// A whole deployment, as its edge reads it.
struct Deployed {
    content: DeploymentContent,
    agent: AgentDesired,
    hub: EdgeHubDesired,
}

impl Deployed {
    fn of(name: &str) -> Self {
        let content = content(name);
        let agent =
            AgentDesired::parse(&desired(&content, "$edgeAgent")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let hub =
            EdgeHubDesired::parse(&desired(&content, "$edgeHub")).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { content, agent, hub }
    }

    fn module(&self, name: &str) -> &ModuleSpec {
        &self.agent.modules[&ModuleId::new(name).unwrap()]
    }

    fn option(&self, module: &str, pointer: &str) -> Value {
        let options = Value::Object(self.module(module).create_options.clone());
        options.pointer(pointer).cloned().unwrap_or_default()
    }

    fn twin(&self, module: &str) -> Value {
        Value::Object(desired(&self.content, module))
    }
}

fn compile(hub: &EdgeHubDesired) -> Result<RouteSet, String> {
    let specs = hub.routes.iter().map(|(name, route)| {
        let spec = RouteSpec {
            route: route.route.clone(),
            priority: route.priority,
            time_to_live_seconds: route.time_to_live.map(|life| u32::try_from(life.as_secs()).unwrap()),
        };
        (name.clone(), spec)
    });
    RouteSet::compile(specs).map_err(|error| error.to_string())
}

const LAYERS: &[&str] = &["layer", "layer-metrics"];

/// What tools make deployments of, and no hub takes as it is: placeholders, and create options that no twin holds, which
/// `holm deploy` cuts into pieces.
const OF_TOOLS: [&str; 2] = ["deployment.template", "template-labels"];

#[test]
fn every_published_form_is_read_and_keeps_the_rules_of_twins() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !OF_TOOLS.contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() >= 14, "{names:?}");

    for name in names {
        let content = content(&name);
        for (module, said) in &content.modules {
            let section = said.applied_to(&Map::new());
            rules::check(&section, Limit::Desired).unwrap_or_else(|error| panic!("{name}, {module}: {error}"));
        }
        assert_eq!(content.is_layered(), LAYERS.contains(&name.as_str()), "{name}");
        if !content.is_layered() {
            let deployed = Deployed::of(&name);
            compile(&deployed.hub).unwrap_or_else(|error| panic!("{name}: {error}"));
            let runs: Vec<_> = deployed.agent.modules.keys().collect();
            assert_eq!(content.user_modules().iter().collect::<Vec<_>>(), runs, "{name}");
        }
    }
}

#[test]
fn a_template_is_refused_by_the_name_of_its_placeholder() {
    let content = content("deployment.template");

    let refused = AgentDesired::parse(&desired(&content, "$edgeAgent")).unwrap_err();

    assert_eq!(refused.code(), 400);
    let expected = "`modules.SampleModule.settings.image` is `${MODULES.SampleModule}`, which holds a placeholder";
    assert!(refused.to_string().contains(expected), "{refused}");
}

#[test]
fn the_oldest_form_has_the_usual_meaning() {
    let deployed = Deployed::of("tutorial-old-key");

    let sensor = deployed.module("tempSensor");
    assert_eq!(sensor.image, "vendor/temperature-sensor:1.0-preview");
    assert_eq!((sensor.create_options.len(), sensor.env.len()), (0, 0));
    assert_eq!(deployed.module("filtermodule").version, "");
    assert_eq!(
        deployed.hub.store_and_forward.time_to_live,
        Some(Duration::from_secs(10))
    );
}

#[test]
fn a_portals_manifest_gives_modules_their_twins() {
    let deployed = Deployed::of("portal");

    assert_eq!(
        deployed.module("SimulatedTemperatureSensor").image,
        "registry.example/simulated-temperature-sensor:latest"
    );
    assert!(deployed.module("industrial-safety").image.contains("@sha256:"));
    assert_eq!(deployed.module("industrial-safety").startup_order, 7);
    assert_eq!(
        deployed.twin("SimulatedTemperatureSensor"),
        json!({"SendData": true, "SendInterval": 5})
    );
    assert_eq!(deployed.twin("industrial-safety"), json!({}));
}

#[test]
fn create_options_are_what_was_written_in_text_pieces_and_object() {
    let rows = [
        (
            "industrial",
            "discovery",
            "/NetworkingConfig/EndpointsConfig/host",
            json!({}),
        ),
        (
            "industrial",
            "publisher",
            "/Cmd",
            json!(["--pf=/appdata/pn.json", "--aa"]),
        ),
        (
            "industrial",
            "publisher",
            "/HostConfig/ExtraHosts/0",
            json!("plc:192.0.2.17"),
        ),
        (
            "video-analytics",
            "lvaExtension",
            "/HostConfig/IpcMode",
            json!("container:lvaEdge"),
        ),
        (
            "video-analytics",
            "lvaExtension",
            "/Env/0",
            json!("PIPELINE={\"detection-device\":\"GPU\"}"),
        ),
        (
            "video-analytics",
            "spatialanalysis",
            "/HostConfig/DeviceRequests/0/DeviceIDs",
            Value::Null,
        ),
        (
            "video-analytics",
            "spatialanalysis",
            "/HostConfig/DeviceRequests/0/Capabilities/0/0",
            json!("gpu"),
        ),
        (
            "video-analytics",
            "spatialanalysis",
            "/k8s-experimental/volumes/0/volume/name",
            json!("dshm"),
        ),
        (
            "stores",
            "AzureSQLEdge",
            "/HostConfig/Mounts/0/Target",
            json!("/var/opt/mssql"),
        ),
        ("stores", "grafana", "/Healthcheck/Interval", json!(30_000_000_000_u64)),
        (
            "chunks",
            "collector",
            "/HostConfig/PortBindings/443~1tcp/0/HostPort",
            json!("443"),
        ),
        ("chunks", "collector", "/Labels/maker", json!("ä plant")),
        (
            "hierarchy-top",
            "dockerContainerRegistry",
            "/HostConfig/PortBindings/5000~1tcp/0/HostPort",
            json!(5000),
        ),
        (
            "hierarchy-top",
            "snitcher",
            "/HostConfig/Binds/0",
            json!("/var/run/iotedge/mgmt.sock:/var/run/iotedge/mgmt.sock"),
        ),
        (
            "windows",
            "hmi",
            "/HostConfig/Binds/1",
            json!(r"\\.\pipe\docker_engine:\\.\pipe\docker_engine"),
        ),
        ("converted", "loose", "/Env", json!(["A=1"])),
        ("template-filled", "web", "/Cmd/2", json!("echo ready")),
        ("stores", "grafana", "/Cmd/2", json!("echo $HOME ${PATH}; exec /run.sh")),
    ];
    for (manifest, module, pointer, expected) in rows {
        assert_eq!(
            Deployed::of(manifest).option(module, pointer),
            expected,
            "{manifest}: {module}{pointer}"
        );
    }
}

#[test]
fn policies_and_variables_are_what_was_written() {
    let stores = Deployed::of("stores");
    let top = Deployed::of("hierarchy-top");
    let loose = Deployed::of("converted");

    let grafana = stores.module("grafana");
    assert_eq!(
        (grafana.restart_policy, grafana.image_pull_policy),
        (RestartPolicy::OnUnhealthy, ImagePullPolicy::Never)
    );
    assert_eq!(
        Deployed::of("industrial").module("discovery").restart_policy,
        RestartPolicy::Never
    );
    assert_eq!(
        Deployed::of("template-filled").module("web").status,
        ModuleStatus::Stopped
    );
    assert_eq!(top.agent.runtime.registry_credentials["cr"].address, "registry.example");
    let variables = |env: &BTreeMap<String, String>| env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    let hub = top.agent.edge_hub.as_ref().unwrap();
    assert_eq!(
        variables(&hub.env),
        [
            "DeviceScopeCacheRefreshDelaySecs=0",
            "experimentalFeatures__mqttBrokerEnabled=true"
        ]
    );
    assert_eq!(
        variables(&top.module("snitcher").env),
        ["Logging:LogLevel:Default=Error", "RUST_LOG=info"]
    );
    let loose = loose.module("loose");
    assert_eq!(
        variables(&loose.env),
        [
            "COUNT=0",
            "EMPTY=",
            "FLAG=true",
            "RATIO=0.5",
            "_comment_FLAG=whether it is so"
        ]
    );
    assert_eq!(
        (loose.image.as_str(), loose.version.as_str()),
        ("registry.example/loose:1", "2.5")
    );
    assert_eq!(
        (loose.startup_order, loose.restart_policy),
        (3, RestartPolicy::OnFailure)
    );
}

#[test]
fn routes_of_both_forms_have_their_priorities_times_and_sinks() {
    let deployed = Deployed::of("routes");

    let life = |name: &str| deployed.hub.routes[name].time_to_live.map(|life| life.as_secs());
    let priority = |name: &str| deployed.hub.routes[name].priority;
    assert_eq!((priority("urgent"), life("urgent")), (Some(0), Some(86400)));
    assert_eq!((priority("leaves"), life("leaves")), (Some(9), None));
    assert_eq!((priority("unspecified"), life("plain")), (None, None));
    assert_eq!(deployed.hub.store_and_forward.time_to_live, None);
    assert_eq!(deployed.hub.store_and_forward.max_size_bytes, Some(104_857_600));
    let set = compile(&deployed.hub).unwrap();
    let sinks: Vec<String> = set.sinks().iter().map(ToString::to_string).collect();
    for sink in [
        "$upstream",
        "BrokeredEndpoint(\"/modules/ai_insights/inputs/input1\")",
        "BrokeredEndpoint(\"/modules/asa-job/inputs/temperature\")",
        "BrokeredEndpoint(\"/modules/sensor/inputs/control\")",
        "BrokeredEndpoint(\"/modules/ai_insights/inputs/leaves\")",
    ] {
        assert!(sinks.iter().any(|found| found == sink), "{sink} in {sinks:?}");
    }
    let converted = Deployed::of("converted").hub;
    assert_eq!(converted.routes.keys().collect::<Vec<_>>(), ["up"]);
    assert_eq!(
        converted.store_and_forward.time_to_live,
        Some(Duration::from_secs(3600))
    );
}

#[test]
fn a_layer_sets_parts_of_what_is_there() {
    let base = Deployed::of("portal");
    let layer = content("layer");
    let metrics = content("layer-metrics");

    let over = |content: &DeploymentContent, module: &str, below: &Map<String, Value>| {
        content.modules[&ModuleId::new(module).unwrap()].applied_to(below)
    };
    let agent = over(
        &metrics,
        "$edgeAgent",
        &over(&layer, "$edgeAgent", &desired(&base.content, "$edgeAgent")),
    );
    let hub = over(&layer, "$edgeHub", &desired(&base.content, "$edgeHub"));

    let agent = AgentDesired::parse(&agent).unwrap();
    let names: Vec<_> = agent.modules.keys().map(ModuleId::as_str).collect();
    assert_eq!(
        names,
        [
            "OPCPublisher",
            "SimulatedTemperatureSensor",
            "industrial-safety",
            "metricsCollector"
        ]
    );
    let collector = &agent.modules[&ModuleId::new("metricsCollector").unwrap()];
    assert_eq!(
        (
            &*collector.env["CompressForUpload"],
            &*collector.env["ScrapeFrequencyInSecs"]
        ),
        ("true", "60")
    );
    assert_eq!(agent.runtime.registry_credentials["cr"].username, "u");
    let hub = EdgeHubDesired::parse(&hub).unwrap();
    assert_eq!(hub.routes.keys().collect::<Vec<_>>(), ["opc", "route", "urgent"]);
    assert_eq!(hub.routes["urgent"].priority, Some(1));
    let publisher = &layer.modules[&ModuleId::new("OPCPublisher").unwrap()];
    assert_eq!(*publisher, ModuleContent::Paths(Vec::new()), "its twin is left alone");
    let scrape = desired(&layer, "metricsCollector");
    assert_eq!(Value::Object(scrape), json!({"scrape": {"seconds": 60}}));
}
