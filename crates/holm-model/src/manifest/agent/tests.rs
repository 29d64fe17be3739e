use serde_json::json;

use super::super::{ImagePullPolicy, LAST_STARTUP_ORDER, ModuleStatus, ModuleType, RestartPolicy};
use super::*;

fn manifest() -> Value {
    json!({
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {
            "minDockerVersion": "v1.25", "loggingOptions": "",
            "registryCredentials": {"plant": {"username": "u", "password": "secret-word", "address": "registry.test:5000"}},
        }},
        "systemModules": {
            "edgeAgent": {"type": "docker", "settings": {"image": "holm/agent:1"}},
            "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "holm/hub", "createOptions": "{}"}},
        },
        "modules": {
            "sensor": {"type": "docker", "status": "running", "restartPolicy": "never", "version": "1.0",
                "settings": {"image": " registry.test:5000/sensor ", "createOptions": "{\"Env\":[\"a=b\"]}"},
                "env": {"N": {"value": 3}, "B": {"value": true}, "S": {"value": "x=y"}},
                "startupOrder": 2, "configuration": {"id": "d1"}},
            "watcher": {"type": "process", "status": "stopped", "settings": {"image": "holm/watcher"}},
        },
        "$version": 4, "$metadata": {},
    })
}

fn parse(manifest: &Value) -> Result<AgentDesired, ConfigError> {
    AgentDesired::parse(manifest.as_object().unwrap())
}

fn problems(manifest: &Value) -> Vec<String> {
    match parse(manifest) {
        Err(ConfigError::Agent(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_complete_manifest_is_read_with_defaults() {
    let desired = parse(&manifest()).unwrap();

    let sensor = &desired.modules[&ModuleId::new("sensor").unwrap()];
    assert_eq!(sensor.image, "registry.test:5000/sensor:latest");
    assert_eq!(sensor.startup_order, 2);
    assert_eq!(sensor.restart_policy, RestartPolicy::Never);
    let env: Vec<_> = sensor
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("B", "true"), ("N", "3"), ("S", "x=y")]);
    assert_eq!(sensor.create_options["Env"], json!(["a=b"]));

    let watcher = &desired.modules[&ModuleId::new("watcher").unwrap()];
    assert_eq!(
        (watcher.kind, watcher.status),
        (ModuleType::Process, ModuleStatus::Stopped)
    );
    assert_eq!(watcher.image, "holm/watcher");
    assert_eq!(watcher.restart_policy, RestartPolicy::OnUnhealthy);
    assert_eq!(watcher.image_pull_policy, ImagePullPolicy::OnCreate);
    assert_eq!(watcher.startup_order, LAST_STARTUP_ORDER);

    let agent = desired.edge_agent.unwrap();
    assert_eq!((agent.startup_order, agent.restart_policy), (0, RestartPolicy::Always));
    assert_eq!(desired.edge_hub.unwrap().image, "holm/hub:latest");
}

#[test]
fn a_password_is_not_shown() {
    let desired = parse(&manifest()).unwrap();

    assert_eq!(desired.runtime.registry_credentials["plant"].password, "secret-word");
    assert!(!format!("{desired:?}").contains("secret-word"));
}

#[test]
fn an_empty_section_is_417() {
    assert_eq!(parse(&json!({"$version": 1, "$metadata": {}})), Err(ConfigError::Empty));
    assert_eq!(parse(&json!({})).unwrap_err().code(), 417);
}

#[test]
fn a_foreign_schema_version_is_412() {
    for (version, text) in [
        (json!("2.0"), "not compatible"),
        (json!("1.2"), "not compatible"),
        (json!("x"), "Invalid desired properties schema version x"),
        (json!(1), "Invalid desired properties schema version 1"),
        (Value::Null, "Invalid"),
    ] {
        let mut manifest = manifest();
        manifest["schemaVersion"] = version;
        let error = parse(&manifest).unwrap_err();
        assert_eq!(error.code(), 412);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn every_problem_is_named_with_its_path() {
    let mut manifest = manifest();
    manifest["runtime"]["settings"]["registryCredentials"]["plant"]["address"] = json!("a b");
    manifest["systemModules"]["edgeHub"]["settings"] = json!({});
    manifest["modules"]["sensor"]["startupOrder"] = json!(-1);
    manifest["modules"]["watcher"]["type"] = json!("vm");
    manifest["modules"]["$edgeX"] = json!({});
    manifest["modules"]["a b"] = json!({});
    manifest["modules"]["late"] = json!({"type": "docker", "settings": {"image": "x"}});

    let text = parse(&manifest).unwrap_err().to_string();

    assert!(text.starts_with("Agent configuration format is invalid. "));
    for path in [
        "`runtime.settings.registryCredentials.plant.address`",
        "`systemModules.edgeHub.settings.image` is missing",
        "`modules.sensor.startupOrder` is -1",
        "`modules.watcher.type` is `vm`; give one of docker, process, wasm",
        "`modules.$edgeX`",
        "`modules.a b`",
        "`modules.late.status` is missing",
    ] {
        assert!(text.contains(path), "{path} in {text}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    for (path, value, named) in [
        ("/modules", json!([]), "`modules`"),
        ("/modules/sensor", json!(1), "`modules.sensor`"),
        ("/modules/sensor/settings", json!("x"), "`modules.sensor.settings`"),
        (
            "/modules/sensor/settings/image",
            json!("  "),
            "`modules.sensor.settings.image`",
        ),
        ("/modules/sensor/env/N", json!([3]), "`modules.sensor.env.N`"),
        ("/modules/sensor/env/N/value", json!([]), "`modules.sensor.env.N.value`"),
        (
            "/modules/sensor/restartPolicy",
            json!("sometimes"),
            "`modules.sensor.restartPolicy`",
        ),
        ("/runtime", Value::Null, "`runtime` is missing"),
        ("/runtime/type", json!("vm"), "`runtime.type`"),
    ] {
        let mut manifest = manifest();
        *manifest.pointer_mut(path).unwrap() = value;
        let problems = problems(&manifest);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(named), "{problems:?}");
    }
}

#[test]
fn an_upstream_image_needs_a_port() {
    let mut manifest = manifest();
    for (image, is_good) in [
        ("$upstream:443/a/b:1", true),
        ("$upstream/a:1", false),
        ("$upstream:0/a", false),
        ("$upstream", false),
        ("$UPSTREAM:443/a", false),
        ("$CONTAINER_REGISTRY/a:1", false),
    ] {
        manifest["modules"]["sensor"]["settings"]["image"] = json!(image);
        match parse(&manifest) {
            Ok(_) => assert!(is_good, "{image}"),
            Err(error) => assert!(!is_good && error.to_string().contains("check the port is specified")),
        }
    }
}

#[test]
fn a_placeholder_of_a_template_is_named() {
    for image in ["${MODULES.sensor}", "registry.test/${NAME}:1"] {
        let mut manifest = manifest();
        manifest["modules"]["sensor"]["settings"]["image"] = json!(image);

        let problems = problems(&manifest);

        let expected = format!("`modules.sensor.settings.image` is `{image}`, which holds a placeholder");
        assert!(problems[0].starts_with(&expected), "{problems:?}");
    }
}

#[test]
fn values_that_the_original_converts_are_read() {
    let mut manifest = manifest();
    let sensor = json!({"Type": "Docker", "Status": "Running", "restartpolicy": "On-Failure", "startupOrder": "7",
        "version": 1.5, "imagePullPolicy": "Never", "env": {"EMPTY": {}, "GONE": null, "F": {"Value": 0.5}, "PLAIN": "a text"},
        "Settings": {"Image": "a:1", "CreateOptions": "{'Cmd': ['x']}"}});
    manifest["modules"]["sensor"] = sensor;
    manifest["runtime"]["settings"]["minDockerVersion"] = json!(1.25);

    let desired = parse(&manifest).unwrap();

    let sensor = &desired.modules[&ModuleId::new("sensor").unwrap()];
    assert_eq!(
        (sensor.restart_policy, sensor.startup_order),
        (RestartPolicy::OnFailure, 7)
    );
    assert_eq!((sensor.version.as_str(), sensor.image.as_str()), ("1.5", "a:1"));
    assert_eq!(sensor.image_pull_policy, ImagePullPolicy::Never);
    let env: Vec<_> = sensor
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("EMPTY", ""), ("F", "0.5"), ("PLAIN", "a text")]);
    assert_eq!(sensor.create_options["Cmd"], json!(["x"]));
    assert_eq!(desired.runtime.min_docker_version, "1.25");
}

#[test]
fn a_digest_is_as_good_as_a_tag() {
    let mut manifest = manifest();
    for (given, read) in [
        ("a", "a:latest"),
        ("host:5000/a", "host:5000/a:latest"),
        ("host:5000/a:1", "host:5000/a:1"),
        ("a@sha256:00", "a@sha256:00"),
    ] {
        manifest["modules"]["sensor"]["settings"]["image"] = json!(given);
        let desired = parse(&manifest).unwrap();
        assert_eq!(desired.modules[&ModuleId::new("sensor").unwrap()].image, read);
    }
}

#[test]
fn a_module_that_a_patch_nulled_is_not_there() {
    let mut manifest = manifest();
    manifest["modules"]["sensor"] = Value::Null;

    assert_eq!(parse(&manifest).unwrap().modules.len(), 1);
}
