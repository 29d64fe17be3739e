//! Requests for certificates over MQTT: `hub-device-protocols.md` §5.7, hub renewal.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use holm_mqtt::Qos;
use serde_json::{Value, json};
use tokio::sync::watch;

use support::{Client, Fixture};

const ANSWERS: &str = "$iothub/credentials/res/#";

/// Requests that openssl has made, for `CN=dev1` and `CN=dev2`.
const DEV1: &str = "MIHJMHECAQAwDzENMAsGA1UEAwwEZGV2MTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABESBqYLJ1N6zGvOv+0GZsLpjikRyMvJ2tYsVjn43KbrTXnuWPpKPWEgJa85+oasm9mOpQ5oT8jIkxBtDgcZABiOgADAKBggqhkjOPQQDAgNIADBFAiEA2wwAo7+9nNqCEa3rWZG+ZRCHErPwRr4+YEebFc94GaICIEK1xmSmtAPfkDbBv+9IacUymZAkN5wrubbSrENPmB3j";
const DEV2: &str = "MIHIMHECAQAwDzENMAsGA1UEAwwEZGV2MjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPmb8GGnWQ4L7fegXPGgaiKF+tRsbAz7WfFcyo6thx2N392TAOFMgcdiQ++rLx+sD6uShLTiwvcpV64IkbShkBqgADAKBggqhkjOPQQDAgNHADBEAiA3EOWKntcX+BhQSwb8p6COSIhBT47HI4P4yo5M57yNEgIgTgWvSNYW64rNIsev1Y4Oe60i949qqtarFEIiH1mtyPw=";

async fn client(fixture: &Fixture, identity: &str) -> Client {
    let mut client = fixture.connect(identity).await;
    client.subscribe(&[(ANSWERS, Qos::AtLeastOnce)]).await;
    client
}

fn ask(client: &mut Client, rid: &str, body: impl ToString) {
    let topic = format!("$iothub/credentials/POST/issueCertificate/?$rid={rid}");
    client.publish(&topic, body.to_string());
}

/// The topic of the next answer behind `res/`, and its body.
async fn told(client: &mut Client) -> (String, Value) {
    let (topic, body, _) = client.message().await;
    let topic = topic.strip_prefix("$iothub/credentials/res/").unwrap().to_owned();
    (topic, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_request_is_accepted_and_then_met_with_the_chain() {
    let fixture = Fixture::hub();
    let mut client = client(&fixture, "dev1").await;

    ask(
        &mut client,
        "4711-ab",
        json!({ "id": "dev1", "csr": DEV1, "replace": "*" }),
    );
    let accepted = told(&mut client).await;
    let issued = told(&mut client).await;

    assert_eq!(accepted.0, "202/?$rid=4711-ab");
    assert!(accepted.1["operationExpires"].is_string() && accepted.1["correlationId"].is_string());
    assert_eq!(issued.0, "200/?$rid=4711-ab");
    assert_eq!(
        issued.1,
        json!({ "correlationId": accepted.1["correlationId"], "certificates": ["bGVhZg==", "cm9vdA=="] })
    );
}

#[tokio::test]
async fn what_can_not_be_met_is_told_with_its_number_and_why() {
    let fixture = Fixture::hub();
    let mut client = client(&fixture, "dev1").await;
    let good = json!({ "id": "dev1", "csr": DEV1 });

    for (rid, body, number, why) in [
        ("abc", good.clone(), 400_006, "$rid"),
        ("a_b_c", good.clone(), 400_006, "$rid"),
        ("r-01", json!([]), 400_006, "object"),
        ("r-02", json!({ "csr": DEV1 }), 400_004, "`id`"),
        ("r-03", json!({ "id": "dev2", "csr": DEV1 }), 400_004, "dev2"),
        ("r-04", json!({ "id": "dev1" }), 400_004, "`csr`"),
        ("r-05", json!({ "id": "dev1", "csr": 7 }), 400_004, "`csr`"),
        ("r-06", json!({ "id": "dev1", "csr": "no base64!" }), 400_037, "base64"),
        ("r-07", json!({ "id": "dev1", "csr": "bm9uZQ==" }), 400_037, "PKCS #10"),
        (
            "r-08",
            json!({ "id": "dev1", "csr": "A".repeat(20_000) }),
            400_037,
            "8192",
        ),
        ("r-09", json!({ "id": "dev1", "csr": DEV2 }), 400_037, "common name"),
        (
            "r-10",
            json!({ "id": "dev1", "csr": DEV1, "replace": "r-01" }),
            412_001,
            "replace",
        ),
        (
            "r-11",
            json!({ "id": "dev1", "csr": DEV1, "replace": 1 }),
            400_004,
            "`replace`",
        ),
    ] {
        ask(&mut client, rid, body);
        let (topic, body) = told(&mut client).await;
        assert_eq!(topic, format!("{}/?$rid={rid}", number / 1000), "{body}");
        assert_eq!(body["errorCode"], number, "{body}");
        assert!(body["message"].as_str().unwrap().contains(why), "{why}: {body}");
        let is_explained = body["info"]["credentialMessage"] == body["message"];
        assert_eq!(is_explained, number == 400_037, "{body}");
    }
    ask(&mut client, "r-12", "{");
    assert_eq!(told(&mut client).await.1["errorCode"], 400_006);
}

#[tokio::test]
async fn a_node_says_who_gets_none_before_it_accepts_anything() {
    let fixture = Fixture::hub();
    let mut module = client(&fixture, "dev1/filter").await;
    let mut device = client(&fixture, "dev2").await;

    ask(&mut module, "r-01", json!({ "id": "dev1", "csr": DEV1 }));
    ask(&mut device, "r-01", json!({ "id": "dev2", "csr": DEV2 }));
    let (of_module, of_device) = (told(&mut module).await, told(&mut device).await);

    assert_eq!(
        (of_module.0.as_str(), &of_module.1["errorCode"]),
        ("400/?$rid=r-01", &json!(400_003))
    );
    assert_eq!(
        (of_device.0.as_str(), &of_device.1["errorCode"]),
        ("400/?$rid=r-01", &json!(400_037))
    );
}

#[tokio::test]
async fn what_is_signed_is_looked_at_only_of_who_may_have_a_certificate_and_has_room() {
    let fixture = Fixture::hub();
    let (_go_on, waits) = watch::channel(false);
    *fixture.node.issuing.lock().unwrap() = Some(waits);
    let mut busy = client(&fixture, "dev1").await;
    let mut other = client(&fixture, "dev2").await;

    ask(&mut other, "r-01", json!({ "id": "dev2", "csr": "bm9uZQ==" }));
    let not_allowed = told(&mut other).await;
    ask(&mut busy, "r-01", json!({ "id": "dev1", "csr": DEV1 }));
    let accepted = told(&mut busy).await;
    ask(&mut busy, "r-02", json!({ "id": "dev1", "csr": "bm9uZQ==" }));
    let no_room = told(&mut busy).await;

    assert_eq!(not_allowed.1["message"], "not to this one");
    assert_eq!(accepted.0, "202/?$rid=r-01");
    assert_eq!(no_room.1["errorCode"], 409_005);
}

#[tokio::test]
async fn one_request_is_worked_on_and_another_has_to_replace_it() {
    let fixture = Fixture::hub();
    let (go_on, waits) = watch::channel(false);
    *fixture.node.issuing.lock().unwrap() = Some(waits);
    let mut client = client(&fixture, "dev1").await;
    let body = |replace: Value| json!({ "id": "dev1", "csr": DEV1, "replace": replace });

    ask(&mut client, "r-01", body(json!(null)));
    let accepted = told(&mut client).await;
    ask(&mut client, "r-01", body(json!(null)));
    let pending = told(&mut client).await;
    ask(&mut client, "r-02", body(json!(null)));
    let conflict = told(&mut client).await;
    ask(&mut client, "r-03", body(json!("r-09")));
    let missing = told(&mut client).await;
    ask(&mut client, "r-04", body(json!("r-01")));
    let replacing = told(&mut client).await;
    go_on.send(true).unwrap();
    let issued = told(&mut client).await;

    assert_eq!(accepted.0, "202/?$rid=r-01");
    for (told, number) in [(&pending, 409_004), (&conflict, 409_005)] {
        assert_eq!(told.1["errorCode"], number);
        assert_eq!(told.1["info"]["requestId"], "r-01");
        assert_eq!(told.1["info"]["correlationId"], accepted.1["correlationId"]);
        assert_eq!(told.1["info"]["operationExpires"], accepted.1["operationExpires"]);
    }
    assert_eq!(
        (missing.0.as_str(), &missing.1["errorCode"]),
        ("412/?$rid=r-03", &json!(412_001))
    );
    // The one that was replaced is answered no more.
    assert_eq!(
        (replacing.0.as_str(), issued.0.as_str()),
        ("202/?$rid=r-04", "200/?$rid=r-04")
    );
    assert_eq!(issued.1["correlationId"], replacing.1["correlationId"]);
}

#[tokio::test]
async fn a_request_that_nobody_would_hear_of_is_dropped() {
    let fixture = Fixture::hub();
    let mut client = fixture.connect("dev1").await;

    ask(&mut client, "r-01", json!({ "id": "dev1", "csr": DEV1 }));
    client.acknowledged(1).await;
    client.subscribe(&[(ANSWERS, Qos::AtLeastOnce)]).await;
    client.publish(
        "$iothub/credentials/POST/issueCertificate/",
        json!({ "id": "dev1", "csr": DEV1 }).to_string(),
    );
    ask(&mut client, "r-02", json!({ "id": "dev1", "csr": DEV1 }));
    let first = told(&mut client).await;

    assert_eq!(first.0, "202/?$rid=r-02");
    assert_eq!(told(&mut client).await.0, "200/?$rid=r-02");
    assert_eq!(fixture.node.lock().issued, 1);
}
