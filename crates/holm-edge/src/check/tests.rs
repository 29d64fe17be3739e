use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn subject(text: &str) -> (tempfile::TempDir, Subject) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let text = text.replace("DATA", &directory.path().join("data").display().to_string());
    holm_identity::private_file::write(&file, text.as_bytes()).unwrap();
    (directory, Subject::new(file, None))
}

const GOOD: &str = r#"
hostname = "127.0.0.1"
[provisioning]
source = "manual"
connection_string = "HostName=127.0.0.1:1;DeviceId=box;SharedAccessKey=c29tZWJvZHkgZWxzZSdzIGtleSBvZiAzMiBieXRlcyE="
[moby_runtime]
uri = "unix:///nonexistent/docker.sock"
[holm]
data = "DATA"
hub_mqtt_port = 1
"#;

async fn words(subject: &Subject, dont_run: &[&str]) -> BTreeMap<&'static str, &'static str> {
    let dont_run = dont_run.iter().map(|id| (*id).to_owned()).collect();
    let report = run(subject, &dont_run).await;
    report
        .iter()
        .map(|(check, verdict)| (check.id, verdict.word()))
        .collect()
}

#[test]
fn no_two_checks_have_one_id() {
    let ids: Vec<_> = CHECKS.iter().copied().flatten().map(|check| check.id).collect();
    let different: BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), different.len(), "{ids:?}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_fatal_and_the_rest_is_not_guessed() {
    let (_directory, subject) = subject("hostnam = \"x\"");

    let report = run(&subject, &BTreeSet::new()).await;

    let (check, verdict) = report.iter().next().unwrap();
    assert_eq!(check.id, "aziot-edged-config-well-formed");
    let Verdict::Fatal(finding) = verdict else {
        panic!("{verdict:?}");
    };
    assert!(finding.reason.contains("`hostnam`"), "{finding:?}");
    assert_eq!(
        report.count("fatal") + report.count("error"),
        2,
        "beside it only that no edge answers"
    );
    assert!(report.has_errors());
}

#[tokio::test]
async fn a_device_without_network_engine_and_running_edge_is_told_what_is_wrong_and_what_is_not() {
    let (_directory, subject) = subject(GOOD);

    let words = words(&subject, &["host-local-time"]).await;

    for (id, word) in [
        ("aziot-edged-config-well-formed", "ok"),
        ("hostname", "ok"),
        ("key-pairs-read", "ok"),
        ("local-ca-certificate-expiry", "skipped"),
        ("aziot-edged-running", "error"),
        ("deployment", "skipped"),
        ("container-engine-uri", "warning"),
        ("container-engine-ipv6", "skipped"),
        ("host-local-time", "ignored"),
    ] {
        assert_eq!(words[id], word, "{id}");
    }
    assert_ne!(words["host-connect-iothub-mqtt"], "ok");
    assert_eq!(words["host-connect-iothub-amqp"], "skipped");
}

#[tokio::test]
async fn what_the_running_edge_says_is_judged() {
    let (_directory, mut subject) = subject(GOOD);
    subject.status = Ok(json!({
        "link": {"connected": false, "since": "2026-01-01T00:00:00Z", "reason": "no route"},
        "upstream": {"messages": 1},
        "refused": [{"identity": "box/a", "since": "2026-01-01T00:00:00Z", "reason": "not authorized"}],
        "counts": {"dropped_no_route": 5, "dropped_unsendable": 2, "forwarded": 9},
        "configuration": {"version": 3, "code": 400, "description": "route `x` is wrong"},
        "agent": {"hasDeployment": true, "lastDesiredStatus": {"code": 200, "description": ""}},
    }));

    let report = run(&subject, &BTreeSet::new()).await;

    let of = |id: &str| report.iter().find(|(check, _)| check.id == id).unwrap().1.clone();
    assert_eq!(of("aziot-edged-running"), Verdict::Fine(None));
    assert_eq!(of("deployment"), Verdict::Fine(None));
    for (id, word, text) in [
        ("routes", "error", "route `x` is wrong"),
        ("link", "warning", "1 message waits on disk"),
        ("identities", "error", "box/a"),
        ("messages-lost", "warning", "dropped_unsendable: 2"),
    ] {
        let verdict = of(id);
        assert_eq!(verdict.word(), word, "{id}");
        assert!(format!("{verdict:?}").contains(text), "{verdict:?}");
    }
}

#[tokio::test]
async fn the_report_in_json_has_the_published_form() {
    let (_directory, subject) = subject("hostnam = \"x\"");

    let json = run(&subject, &BTreeSet::new()).await.to_json("1.2.3");

    assert_eq!(json["additional_info"]["version"], "1.2.3");
    let check = &json["checks"]["aziot-edged-config-well-formed"];
    assert_eq!(check["result"], "fatal");
    assert!(check["details"][0].as_str().unwrap().contains("hostnam"));
    assert_eq!(
        json["checks"].as_object().unwrap().len(),
        CHECKS.iter().map(|group| group.len()).sum::<usize>()
    );
}

#[tokio::test]
async fn what_an_edge_cannot_start_without_is_looked_at_before_it_starts() {
    let key = "connection_string = \"HostName=127.0.0.1:1;DeviceId=box;SharedAccessKey=c29tZWJvZHkgZWxzZSdzIGtleSBvZiAzMiBieXRlcyE=\"";
    let in_a_file = "iothub_hostname = \"127.0.0.1\"\ndevice_id = \"box\"\n[provisioning.authentication]\nmethod = \"sas\"\n\
                     device_id_pk = { uri = \"file:///nonexistent/key\" }";
    for (text, id, named) in [
        (
            format!("trust_bundle_cert = \"file:///nonexistent/roots.pem\"{GOOD}"),
            "certs-read",
            "roots.pem",
        ),
        (
            format!("{GOOD}[edge_ca]\ncert = \"file:///nonexistent/ca.pem\"\npk = \"file:///nonexistent/ca.key\""),
            "certs-match-private-keys",
            "ca.pem",
        ),
        (GOOD.replace(key, in_a_file), "key-pairs-read", "/nonexistent/key"),
    ] {
        let (_directory, subject) = subject(&text);
        assert!(subject.config.is_ok(), "{:?}", subject.config);

        let report = before_start(&subject).await;

        let (_, verdict) = report.iter().find(|(check, _)| check.id == id).unwrap();
        assert_eq!(verdict.word(), "error", "{id}");
        assert!(format!("{verdict:?}").contains(named), "{verdict:?}");
    }
    let (_directory, good) = subject(GOOD);
    assert!(!before_start(&good).await.has_errors());
}
