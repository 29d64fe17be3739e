use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use holm_identity::CertificateAuthority;
use holm_model::Timestamp;

use super::keys::{KEYS, Treatment};
use super::*;

const MANUAL: &str = "hostname = \"edge.test\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=hub.test;\
                      DeviceId=dev1;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n";

fn with(more: &str) -> String {
    format!("{MANUAL}{more}")
}

fn config(text: &str) -> EdgeConfig {
    EdgeConfig::parse(text).unwrap().config
}

fn problems(text: &str) -> Vec<String> {
    match EdgeConfig::parse(text) {
        Err(ConfigError::Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_string_is_enough() {
    let config = config(MANUAL);

    assert_eq!(config.hub.host, "hub.test");
    assert_eq!((config.hub.https_port, config.hub.mqtt_port), (443, 8883));
    assert_eq!(config.device.as_str(), "dev1");
    assert_eq!(config.edge_ca, EdgeCa::QuickStart { days: 3650 });
    assert_eq!(config.management_socket, PathBuf::from("/var/lib/holm/edge/mgmt.sock"));
    assert_eq!(
        (config.mqtt_port, config.amqp_port, config.https_port),
        (8883, 5671, 443)
    );
}

#[test]
fn a_metrics_address_that_was_asked_for_is_told_apart_from_the_usual_one() {
    for (text, expected) in [
        ("", MetricsBind::Usual),
        ("[holm]\nmetrics_bind = \"\"", MetricsBind::Nowhere),
        (
            "[holm]\nmetrics_bind = \"127.0.0.1:9600\"",
            MetricsBind::At(MetricsBind::USUAL),
        ),
    ] {
        assert_eq!(config(&with(text)).metrics_bind, expected, "{text}");
    }
}

#[test]
fn a_complete_file_is_read_key_by_key() {
    let loaded = EdgeConfig::parse(include_str!("complete.toml")).unwrap();
    let config = loaded.config;

    assert_eq!(config.hostname, "gateway.plant.test");
    assert_eq!(config.trust_bundle_cert, Some("/etc/holm/roots.pem".into()));
    assert!(!config.allow_elevated_docker_permissions);
    assert_eq!(config.cloud_timeout, Duration::from_secs(30));
    assert_eq!(config.hub.host, "hub.plant.test");
    assert_eq!((config.hub.mqtt_port, config.hub.https_port), (28883, 28443));
    assert_eq!(
        (config.hub.amqp_port, config.hub.protocol),
        (25671, Transport::AmqpWebSocket)
    );
    assert_eq!(config.hub.uplink_port(), 28443);
    assert!(matches!(config.proof, DeviceProof::KeyFile(path) if path == Path::new("/etc/holm/device.key")));
    assert_eq!(
        config.edge_ca,
        EdgeCa::Files {
            cert: "/etc/holm/ca.pem".into(),
            pk: "/etc/holm/ca.key".into()
        }
    );
    assert_eq!(config.management_socket, PathBuf::from("/run/holm/mgmt.sock"));
    assert_eq!(config.engine_uri, "tcp://127.0.0.1:2375");
    assert_eq!((config.network.name.as_str(), config.network.ipv6), ("plant", true));
    assert_eq!(config.network.subnets[0].gateway.as_deref(), Some("172.20.0.1"));
    assert_eq!(config.bind.to_string(), "127.0.0.2");
    assert_eq!(
        (config.mqtt_port, config.amqp_port, config.https_port),
        (18883, 15671, 18443)
    );
    assert_eq!(config.metrics_bind, MetricsBind::At("127.0.0.1:9700".parse().unwrap()));
    assert_eq!(config.data, PathBuf::from("/srv/holm"));
    assert_eq!(config.module_paths.len(), 2);
    assert_eq!(config.deployment_trial, Duration::from_secs(45));
    assert_eq!(config.keep_alive, Duration::from_secs(12));
    assert_eq!((config.log.max_bytes, config.log.files), (65_536, 2));
    assert_eq!(config.messages_in_memory, Some(1 << 20));
    assert!(!loaded.holds_secret);
}

#[test]
fn keys_without_effect_are_noted_once_each() {
    let notes = EdgeConfig::parse(include_str!("complete.toml")).unwrap().notes;

    let named: Vec<&str> = notes.iter().filter_map(|note| note.split('`').nth(1)).collect();
    let unique: BTreeSet<&str> = named.iter().copied().collect();
    assert_eq!(unique.len(), named.len(), "{notes:?}");
    for name in [
        "prefer_module_identity_cache",
        "iotedge_max_requests.workload",
        "agent.config.image",
        "connect.workload_uri",
        "listen.workload_uri",
    ] {
        assert!(
            named
                .iter()
                .any(|noted| name == *noted || name.starts_with(&format!("{noted}."))),
            "{name} in {named:?}"
        );
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    assert_eq!(
        problems(&format!("hostnam = \"x\"\n{MANUAL}")),
        ["line 1, column 1: unknown key `hostnam`; did you mean `hostname`?"]
    );
    assert_eq!(
        problems(&with("[holm]\nmqtt_prot = 1\n")),
        ["line 6, column 1: unknown key `holm.mqtt_prot`; did you mean `holm.mqtt_port`?"]
    );
    assert_eq!(
        problems(&format!("mqtt_port = 1\n{MANUAL}")),
        ["line 1, column 1: unknown key `mqtt_port`; did you mean `holm.mqtt_port`?"]
    );
    assert!(problems(&with("[zzzzzzzzzzzz]\na = 1\n"))[0].contains("see the configuration reference"));
}

#[test]
fn what_is_not_yet_supported_is_refused_by_name() {
    for (text, name) in [
        (with("[tpm]\ntcti = \"device\"\n"), "tpm.tcti"),
        (
            with("[image_garbage_collection]\nenabled = true\n"),
            "image_garbage_collection.enabled",
        ),
        (format!("parent_hostname = \"up\"\n{MANUAL}"), "parent_hostname"),
        (with("[edge_ca]\nmethod = \"est\"\n"), "edge_ca.method"),
    ] {
        let found = problems(&text);
        let section = name.split('.').next().unwrap();
        assert!(
            found[0].contains("is not yet supported") && found[0].contains(section),
            "{found:?}"
        );
    }
    let tpm = "hostname = \"e\"\n[provisioning]\nsource = \"dps\"\nattestation.method = \"tpm\"\n";
    assert!(problems(tpm)[0].contains("\"tpm\"` is not yet supported"));
}

#[test]
fn a_certificate_is_two_files_and_names_its_device_where_nothing_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::from(std::time::SystemTime::now());
    let authority = CertificateAuthority::create("Line", 10, now).unwrap();
    let identity = authority.issue_client("box-17", &[""; 0], 10, now).unwrap();
    let (cert, pk) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
    identity.store(&cert, &pk).unwrap();
    let lines = |cert: &str, pk: &str| format!("method = \"x509\"\nidentity_cert = {cert}\nidentity_pk = {pk}\n");
    let files = lines(
        &format!("\"file://{}\"", cert.display()),
        &format!("\"file://{}\"", pk.display()),
    );
    let by_service = |attestation: &str| {
        format!(
            "hostname = \"e\"\n[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://d.test\"\nid_scope = \"0ne1\"\n\
             [provisioning.attestation]\n{attestation}"
        )
    };
    let by_hand = |authentication: &str| {
        format!(
            "hostname = \"e\"\n[provisioning]\nsource = \"manual\"\niothub_hostname = \"h.test\"\ndevice_id = \"d\"\n\
             [provisioning.authentication]\n{authentication}"
        )
    };

    let asking = config(&by_service(&files));
    let named = config(&by_service(&format!("registration_id = \"other\"\n{files}")));
    let known = config(&by_hand(&files));

    assert_eq!(asking.dps.unwrap().registration.as_str(), "box-17");
    assert_eq!(named.dps.unwrap().registration.as_str(), "other");
    let expected = CertificateFiles { cert, pk };
    for proof in [asking.proof, named.proof, known.proof] {
        assert!(matches!(proof, DeviceProof::Certificate(files) if files == expected));
    }
    let issued = lines("{ method = \"self_signed\", expiry_days = 30 }", "\"pkcs11:token=x\"");
    for (text, expected) in [
        (by_hand(&issued), "says how it is issued, which is not yet supported"),
        (by_service(&issued), "says how it is issued, which is not yet supported"),
        (
            by_hand("method = \"x509\"\n"),
            "`provisioning.authentication.identity_cert` is missing",
        ),
        (by_hand("method = \"token\"\n"), "give `\"sas\"` or `\"x509\"`"),
        (
            by_service(&lines("\"file:///none/c.pem\"", "\"file:///none/k.pem\"")),
            "`/none/c.pem` can't be read",
        ),
    ] {
        let found = problems(&text);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{expected}: {found:?}"
        );
    }
    assert!(
        problems(&by_hand(&issued))
            .iter()
            .any(|problem| problem.contains("PKCS #11"))
    );
    let string = "[provisioning]\nsource = \"manual\"\nconnection_string = \"HostName=h.test;DeviceId=d;x509=true\"\n";
    assert!(problems(string)[0].contains("`method = \"x509\"`"));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let found = problems(&with(
        "[holm]\nbind = \"everywhere\"\nmqtt_port = 70000\ndata = \"relative\"\nmodule_paths = 1\n[edge_ca]\ncert = \"pkcs11:x\"\n",
    ));

    for part in [
        "`holm.bind`",
        "`holm.mqtt_port`",
        "`holm.data`",
        "`holm.module_paths`",
        "`edge_ca.cert`",
    ] {
        assert!(found.iter().any(|text| text.contains(part)), "{part} in {found:?}");
    }
}

#[test]
fn provisioning_names_what_is_missing() {
    assert!(problems("hostname = \"e\"\n")[0].contains("`provisioning.source` is missing"));
    let parts = problems("hostname = \"e\"\n[provisioning]\nsource = \"manual\"\n");
    for name in ["iothub_hostname", "device_id", "device_id_pk"] {
        assert!(parts.iter().any(|text| text.contains(name)), "{name} in {parts:?}");
    }
    let asks = problems("hostname = \"e\"\n[provisioning]\nsource = \"dps\"\n");
    for name in ["global_endpoint", "id_scope", "registration_id", "symmetric_key.value"] {
        assert!(asks.iter().any(|text| text.contains(name)), "{name} in {asks:?}");
    }
    let module = MANUAL.replace("DeviceId=dev1;", "DeviceId=dev1;ModuleId=m;");
    assert!(problems(&module)[0].contains("that of a module"));
    assert!(
        problems(&MANUAL.replace("SharedAccessKey=", "SharedAccesKey="))[0]
            .contains("connection_string` can't be used")
    );
}

#[test]
fn the_protocol_of_the_hub_is_ours_else_the_originals_else_mqtt() {
    let original = "[agent.env]\nUpstreamProtocol = \"AmqpWs\"\n";
    let ours = "[holm]\nhub_protocol = \"amqp\"\n";

    for (text, protocol, port) in [
        (String::new(), Transport::Mqtt, 8883),
        (original.to_owned(), Transport::AmqpWebSocket, 443),
        (format!("{ours}{original}"), Transport::Amqp, 5671),
    ] {
        let hub = config(&with(&text)).hub;
        assert_eq!((hub.protocol, hub.uplink_port()), (protocol, port), "{text}");
    }
    let refused = problems(&with("[holm]\nhub_protocol = \"http\"\n"));
    assert!(
        refused[0].contains("is not `mqtt`, `mqtt-ws`, `amqp` or `amqp-ws`"),
        "{refused:?}"
    );
}

#[test]
fn no_problem_shows_the_key() {
    let found = problems(&MANUAL.replace("MDEyMzQ1", "?MDEyMzQ1")).concat();

    assert!(!found.contains("Njc4OWFi"), "{found}");
}

#[test]
fn a_port_after_the_host_is_that_of_https() {
    let text = MANUAL.replace("HostName=hub.test", "HostName=127.0.0.1:8443");

    assert_eq!(
        config(&text).hub,
        HubAddress {
            host: "127.0.0.1".to_owned(),
            https_port: 8443,
            mqtt_port: 8883,
            amqp_port: 5671,
            protocol: Transport::Mqtt
        }
    );
    assert_eq!(config(&format!("{text}[holm]\nhub_https_port = 9\n")).hub.https_port, 9);
}

#[test]
fn a_file_with_a_secret_must_be_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, MANUAL).unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = holm_net::error_chain(&EdgeConfig::load(&path).unwrap_err());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let accepted = EdgeConfig::load(&path);

    assert!(refused.contains("0640") && refused.contains("chmod 600"), "{refused}");
    assert!(accepted.is_ok());
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_place_and_without_what_stands_there() {
    let text = "[provisioning]\nconnection_string = \"HostName=h;SharedAccessKey=c2VjcmV0\n";

    let told = [
        holm_net::error_chain(&EdgeConfig::parse(text).unwrap_err()),
        holm_net::error_chain(&import::import(text, import::Form::Toml).unwrap_err()),
    ];

    for told in told {
        assert!(told.contains("not TOML: line 2, column 57: "), "{told}");
        assert!(!told.contains("c2VjcmV0") && !told.contains('\n'), "{told}");
    }
}

#[test]
fn the_complete_file_shows_every_key_that_is_used() {
    let text = include_str!("complete.toml");
    let elsewhere = [
        "provisioning.connection_string",
        "provisioning.authentication.device_id_pk.value",
        "edge_ca.auto_generated_edge_ca_expiry_days",
        // Of an edge that asks the provisioning service.
        "auto_reprovisioning_mode",
        "provisioning.global_endpoint",
        "provisioning.id_scope",
        "provisioning.payload.uri",
        "provisioning.attestation.registration_id",
        "provisioning.attestation.symmetric_key.value",
        "provisioning.attestation.symmetric_key.uri",
        // Of an edge with a certificate.
        "provisioning.attestation.identity_cert",
        "provisioning.attestation.identity_pk",
        "provisioning.authentication.identity_cert",
        "provisioning.authentication.identity_pk",
        "provisioning.always_reprovision_on_startup",
        "agent.env.UpstreamProtocol",
        // Of builds with a feature alone.
        "holm.otel_endpoint",
        "holm.otel_interval_sec",
    ];

    for key in KEYS.iter().filter(|key| key.treatment == Treatment::Used) {
        let last = key.path.rsplit('.').next().unwrap();
        assert!(text.contains(last) || elsewhere.contains(&key.path), "{}", key.path);
    }
}

#[test]
fn every_key_is_in_the_reference_once_and_has_a_meaning() {
    let text = reference_markdown();

    for key in KEYS {
        assert_eq!(text.matches(&format!("| `{}` |", key.path)).count(), 1, "{}", key.path);
        assert!(!key.meaning.is_empty(), "{}", key.path);
    }
}

/// `HOLM_WRITE_DOCS=1 cargo test -p holm-edge config` writes it anew.
#[test]
fn the_reference_in_the_documentation_is_that_of_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("HOLM_WRITE_DOCS").is_some() {
        fs::write(&path, reference_markdown()).unwrap();
    }

    let written = fs::read_to_string(&path).unwrap();

    assert!(
        written == reference_markdown(),
        "docs/configuration.md is not that of `config/keys.rs`"
    );
}

#[test]
fn a_collector_is_taken_by_a_build_that_can_send_and_refused_by_name_by_another() {
    let text = with("[holm]\notel_endpoint = \"https://otel.test\"\notel_interval_sec = 5");

    let read = EdgeConfig::parse(&text);

    if cfg!(feature = "otel") {
        let otel = read.unwrap().config.otel.unwrap();
        assert_eq!((otel.endpoint.port, otel.interval), (4318, Duration::from_secs(5)));
    } else {
        let error = read.unwrap_err().to_string();
        assert!(
            error.contains("holm.otel_endpoint") && error.contains("--features otel"),
            "{error}"
        );
    }
}
