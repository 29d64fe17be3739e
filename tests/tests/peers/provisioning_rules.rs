//! What devices that ask the provisioning service are told, to the byte where an SDK that can't be had here needs it: rows of
//! `hub-device-protocols.md` §8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_e2e::sas::{Token, encode, spoiled};
use holm_e2e::tpm::{ENDORSEMENT_KEY, STORAGE_ROOT_KEY};
use holm_e2e::wire::mqtt::{Connect, Packet};
use holm_e2e::{Hub, Language, Need, Proof, Sdk, Tpm, Transport, patience};
use serde_json::{Value, json};

/// An enrolled device and its key.
struct Enrolled {
    hub: Hub,
    scope: String,
    key: String,
}

impl Enrolled {
    /// `reg-1`, by a key.
    fn start() -> Self {
        let hub = Hub::start();
        let document = json!({ "attestation": { "type": "symmetricKey" } });
        hub.service().call("PUT", "/enrollments/reg-1", Some(&document));
        let shown = hub
            .service()
            .call("POST", "/enrollments/reg-1/attestationmechanism", None);
        let key = shown["symmetricKey"]["primaryKey"]
            .as_str()
            .expect("there is a key")
            .to_owned();
        let scope = hub.id_scope();
        Self { hub, scope, key }
    }

    fn token(&self, key: &str) -> String {
        let resource = encode(&format!("{}/registrations/reg-1", self.scope));
        Token::sign(key, &resource, 3600).text()
    }

    /// As C# connects: a clean session, no keep-alive.
    fn connect(&self, key: &str) -> Connect {
        let user = format!(
            "{}/registrations/reg-1/api-version=2019-03-31&ClientVersion=x",
            self.scope
        );
        Connect {
            user,
            clean: true,
            keep_alive: 0,
            ..Connect::new("", "reg-1", Some(self.token(key)))
        }
    }
}

fn body(packet: Option<Packet>, topic_begins: &str) -> (u16, String, Value) {
    match packet {
        Some(Packet::Publish {
            qos: 1,
            topic,
            id,
            payload,
            ..
        }) if topic.starts_with(topic_begins) => {
            (id, topic, serde_json::from_slice(&payload).expect("an answer is JSON"))
        }
        other => panic!("an answer at QoS 1 on `{topic_begins}…` was expected; it came {other:?}"),
    }
}

#[test]
fn a_device_is_told_over_mqtt_in_the_order_that_c_sharp_needs() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let enrolled = Enrolled::start();
    let wrong = enrolled.connect(&spoiled(&enrolled.key));
    let mut stranger = enrolled.hub.mqtt(None).expect("a connection");
    let mut client = enrolled.hub.mqtt(None).expect("a connection");
    let next = |client: &mut holm_e2e::wire::mqtt::Client| client.receive(patience::short()).expect("a packet");

    assert_eq!(stranger.connect(&wrong).expect("a CONNACK"), Some(5), "row 79");
    let session = client.open(&enrolled.connect(&enrolled.key)).expect("a welcome");
    assert!(!session, "row 80: no session is ever present");
    let granted = client.subscribe(&[
        ("$dps/registrations/res/#", 1),
        ("devices/reg-1/messages/devicebound/#", 1),
    ]);
    assert_eq!(granted.expect("a SUBACK"), [1, 0x80]);

    // C# sends no body; a C client no QoS.
    let id = client
        .publish("$dps/registrations/PUT/iotdps-register/?$rid=7", 1, false, b"")
        .expect("sent");
    assert_eq!(
        next(&mut client),
        Some(Packet::Puback(id)),
        "row 80: the acknowledgement comes first"
    );
    let (answer, topic, begun) = body(next(&mut client), "$dps/registrations/res/202/?$rid=7&retry-after=");
    client.acknowledge(answer).expect("sent");
    let seconds: u32 = topic
        .rsplit_once('=')
        .and_then(|(_, seconds)| seconds.parse().ok())
        .expect("seconds");
    assert!((2..=5).contains(&seconds), "Java takes no other: {topic}");
    assert_eq!(begun["status"], "assigning");
    let operation = begun["operationId"]
        .as_str()
        .expect("Java needs it in the first answer");

    let ask = |rid: &str, operation: &str| {
        format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation}")
    };
    client.publish(&ask("8", operation), 0, false, b" ").expect("sent");
    let (answer, topic, ended) = body(next(&mut client), "$dps/registrations/res/200/?$rid=8");
    client.acknowledge(answer).expect("sent");
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=8");
    assert_eq!(
        (&ended["status"], &ended["registrationState"]["deviceId"]),
        (&json!("assigned"), &json!("reg-1"))
    );
    assert_eq!(ended["registrationState"]["assignedHub"], json!(enrolled.hub.host()));

    client.publish(&ask("9", "4.nonsense.0"), 0, false, b" ").expect("sent");
    let (_, _, unknown) = body(next(&mut client), "$dps/registrations/res/404/?$rid=9");
    assert_eq!(unknown["errorCode"], 404_201);
    for member in ["trackingId", "message", "timestampUtc"] {
        assert!(unknown[member].is_string(), "C# needs `{member}`: {unknown}");
    }
}

#[test]
fn register_over_https_is_202_and_the_state_of_an_unknown_operation_404() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let enrolled = Enrolled::start();
    let (service, scope) = (enrolled.hub.service(), &enrolled.scope);
    let (good, wrong) = (enrolled.token(&enrolled.key), enrolled.token(&spoiled(&enrolled.key)));
    let call = |method: &str, path: &str, token: &str, body: &str| {
        let target = format!("/{scope}/registrations/reg-1{path}?api-version=2021-06-01");
        let headers = [("Authorization", token), ("Content-Type", "application/json")];
        service
            .send(method, &target, &headers, body.as_bytes())
            .expect("an answer")
    };
    let body = r#"{"registrationId":"reg-1","payload":{"a":1}}"#;

    let begun = call("PUT", "/register", &good, body);
    let operation = begun.json()["operationId"].as_str().expect("an operation").to_owned();
    let ended = call("GET", &format!("/operations/{operation}"), &good, "");
    let unknown = call("GET", "/operations/4.0000000000000000.0", &good, "");
    let last = call("POST", "", &good, "{}");

    assert_eq!((begun.status, begun.header("retry-after")), (202, Some("2")), "row 81");
    assert_eq!(begun.json()["registrationState"]["registrationId"], "reg-1");
    assert_eq!((ended.status, &ended.json()["status"]), (200, &json!("assigned")));
    assert_eq!(
        (unknown.status, &unknown.json()["errorCode"]),
        (404, &json!(404_201)),
        "row 85"
    );
    assert_eq!((last.status, &last.json()["deviceId"]), (200, &json!("reg-1")));
    for (refused, number) in [
        (call("PUT", "/register", &wrong, body), 401_002),
        (call("PUT", "/register", "", body), 401_002),
        (
            call("PUT", "/register", &good, r#"{"registrationId":"other"}"#),
            400_004,
        ),
        (call("PUT", "/register", &good, "nonsense"), 400_004),
        (
            call("PUT", "/register", &good, &format!("\"{}\"", "x".repeat(96 * 1024))),
            413_001,
        ),
        (call("GET", "/register", &good, ""), 405_001),
    ] {
        let told = refused.json();
        assert_eq!(
            (u64::from(refused.status), &told["errorCode"]),
            (number / 1000, &json!(number)),
            "{told}"
        );
        assert!(told["message"].is_string());
    }
}

#[test]
fn a_device_that_registers_too_often_is_told_when_to_come_again() {
    if !Need::all(&[Need::Node, Need::LowPorts]) {
        return;
    }
    let mut enrolled = Enrolled::start();
    enrolled.hub.restart_with(&["--max-registrations-per-minute", "12"]);
    let (service, scope) = (enrolled.hub.service(), &enrolled.scope);
    let token = enrolled.token(&enrolled.key);
    let register = || {
        let target = format!("/{scope}/registrations/reg-1/register?api-version=2021-06-01");
        let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
        service.send("PUT", &target, &headers, b"{}").expect("an answer")
    };
    let seconds = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());

    // Two may come at once; row 84.
    let mut answers: Vec<_> = (0..8).map(|_| register()).collect();
    let last = answers.pop().expect("there are eight");
    assert_eq!((last.status, &last.json()["errorCode"]), (429, &json!(429_001)));
    assert!(seconds(last.header("retry-after")).is_some_and(|seconds| (1..=300).contains(&seconds)));

    let mut client = enrolled.hub.mqtt(None).expect("a connection");
    client.open(&enrolled.connect(&enrolled.key)).expect("a welcome");
    client.subscribe(&[("$dps/registrations/res/#", 1)]).expect("a SUBACK");
    client
        .publish("$dps/registrations/PUT/iotdps-register/?$rid=7", 0, false, b"")
        .expect("sent");
    let (_, topic, told) = body(
        client.receive(patience::short()).expect("a packet"),
        "$dps/registrations/res/429/?$rid=7&retry-after=",
    );
    assert!(seconds(topic.rsplit_once('=').map(|(_, seconds)| seconds)).is_some());
    assert_eq!(told["errorCode"], 429_001);

    // Over AMQP an SDK waits as long as it is told, and is let in then.
    let proof = Proof::Key(&enrolled.key);
    let mut device = Sdk::provisioning(Language::Node, Transport::Amqp, &enrolled.hub, "reg-1", &proof).start();
    let assigned = device.call("register", json!({}));
    assert_eq!(assigned["status"], "assigned", "{assigned}");
}

#[test]
fn websockets_of_every_sdk_are_upgraded() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    // Row 87: Python, Node and C; C#; Java.
    for path in ["/$iothub/websocket", "/", "/mqtt"] {
        for protocol in ["mqtt", "AMQPWSB10"] {
            let headers = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Protocol", protocol),
            ];
            let status = hub.service().upgrade(path, &headers).expect("an answer");
            assert_eq!(status, 101, "{protocol} at {path}");
        }
    }
}

/// The text of a key with another byte near its end: another key of the same form.
fn another(key: &str) -> String {
    let mut text: Vec<char> = key.chars().collect();
    let at = text.len() - 20;
    text[at] = if text[at] == 'A' { 'B' } else { 'A' };
    text.into_iter().collect()
}

#[test]
fn a_tpm_is_challenged_over_https_and_what_is_none_is_refused() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let scope = hub.id_scope();
    let enroll = |path: &str, tpm: Value| {
        let document = json!({ "attestation": { "type": "tpm", "tpm": tpm } });
        let answer = hub
            .service()
            .try_call("PUT", path, &[], Some(&document))
            .expect("an answer");
        (answer.status, answer.json()["message"].to_string())
    };
    let both = json!({ "endorsementKey": ENDORSEMENT_KEY, "storageRootKey": STORAGE_ROOT_KEY });
    let endorsement = json!({ "endorsementKey": ENDORSEMENT_KEY, "storageRootKey": null });
    assert_eq!(enroll("/enrollments/both", both.clone()).0, 200);
    assert_eq!(enroll("/enrollments/any", endorsement.clone()).0, 200);
    let register = |id: &str, scope: &str, token: &str, tpm: &Value| {
        let target = format!("/{scope}/registrations/{id}/register?api-version=2021-06-01");
        let mut headers = vec![("Content-Type", "application/json")];
        if !token.is_empty() {
            headers.push(("Authorization", token));
        }
        let body = json!({ "registrationId": id, "tpm": tpm }).to_string();
        let answer = hub
            .service()
            .send("PUT", &target, &headers, body.as_bytes())
            .expect("an answer");
        (answer.status, answer.json())
    };

    for id in ["both", "any"] {
        let (status, challenge) = register(id, &scope, "", &both);
        assert_eq!((status, &challenge["errorCode"]), (401, &json!(401_002)), "{challenge}");
        assert_eq!(challenge["keyName"], "registration");
        assert!(challenge["message"].is_string());
        let sealed = challenge["authenticationKey"].as_str().expect("a challenge");
        assert!(sealed.len() > 800, "{sealed}");
    }

    let another_root = json!({ "endorsementKey": ENDORSEMENT_KEY, "storageRootKey": another(STORAGE_ROOT_KEY) });
    let another_tpm = json!({ "endorsementKey": another(ENDORSEMENT_KEY), "storageRootKey": STORAGE_ROOT_KEY });
    let resource = encode(&format!("{scope}/registrations/both"));
    let signed = Token::sign("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", &resource, 3600).text();
    for (told, why) in [
        (
            register("both", &scope, "", &another_root),
            "another root than the enrolled one",
        ),
        (register("any", &scope, "", &another_tpm), "another TPM"),
        (register("nobody", &scope, "", &both), "no enrollment"),
        (register("both", "0ne00000000", "", &both), "another scope"),
        (
            register("both", &scope, &signed, &both),
            "a token that its TPM did not sign",
        ),
    ] {
        assert_eq!(
            (told.0, &told.1["errorCode"]),
            (401, &json!(401_002)),
            "{why}: {}",
            told.1
        );
        assert_eq!(told.1.get("authenticationKey"), None, "{why}");
    }

    let cut: String = ENDORSEMENT_KEY.chars().take(200).collect();
    let shown = |endorsement: &str, root: &str| json!({ "endorsementKey": endorsement, "storageRootKey": root });
    for (tpm, member, why) in [
        (shown("???", STORAGE_ROOT_KEY), "endorsementKey", "is not base64"),
        (shown(&cut, STORAGE_ROOT_KEY), "endorsementKey", "ends within"),
        (shown(ENDORSEMENT_KEY, "AAA="), "storageRootKey", "ends within"),
        (shown(ENDORSEMENT_KEY, &"A".repeat(90_000)), "storageRootKey", "at most"),
        (shown("", STORAGE_ROOT_KEY), "endorsementKey", "given"),
        (json!({ "endorsementKey": 7 }), "endorsementKey", "string"),
    ] {
        let (status, told) = register("any", &scope, "", &tpm);
        let text = told["message"].as_str().expect("a message");
        assert_eq!((status, &told["errorCode"]), (400, &json!(400_004)), "{told}");
        assert!(
            text.contains(&format!("tpm.{member}")) && text.contains(why),
            "{why}: {text}"
        );
        let (status, text) = enroll("/enrollments/bad", tpm);
        assert_eq!(status, 400, "{text}");
        assert!(
            text.contains(&format!("attestation.tpm.{member}")) && text.contains(why),
            "{why}: {text}"
        );
    }
    let (status, told) = register("any", &scope, "", &endorsement);
    assert_eq!(status, 400, "{told}");
    let (status, text) = enroll("/enrollmentGroups/tpms", both);
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("for one device"), "{text}");
}

/// A token that a TPM has signed by the key that it opened last.
fn signed_by(tpm: &Tpm, resource: &str) -> String {
    let mut token = Token::sign("AAAAAAAAAAAAAAAAAAAAAA==", &encode(resource), 3600);
    let text = format!("{}\n{}", token.resource, token.expiry);
    token.signature = STANDARD.encode(tpm.sign(&text));
    token.text()
}

/// The published flow step by step, by commands that know nothing of it, and with keys that the SDKs never make: on a curve.
#[test]
fn a_tpm_with_keys_on_a_curve_registers_and_signs_for_the_hub() {
    if !Need::all(&[Need::LowPorts, Need::Swtpm, Need::Tpm2Tools]) {
        return;
    }
    let hub = Hub::start();
    let (tpm, scope) = (Tpm::start(hub.scratch(), "tpm"), hub.id_scope());
    tpm.tool("tpm2_createek -c ek.ctx -G ecc -u ek.pub");
    tpm.tool("tpm2_createprimary -C o -G ecc -c srk.ctx");
    tpm.tool("tpm2_readpublic -c srk.ctx -o srk.pub");
    let key = |name: &str| STANDARD.encode(std::fs::read(tpm.directory().join(name)).expect("it was written"));
    let (endorsement, root) = (key("ek.pub"), key("srk.pub"));
    hub.holm(&[
        "dps",
        "enrollment",
        "create",
        "reg-1",
        "--tpm-endorsement-key",
        &endorsement,
    ]);
    let body = json!({ "registrationId": "reg-1", "tpm": { "endorsementKey": endorsement, "storageRootKey": root } });
    let body = body.to_string();
    let call = |method: &str, path: &str, token: Option<&str>| {
        let target = format!("/{scope}/registrations/reg-1{path}?api-version=2021-06-01");
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(token.map(|token| ("Authorization", token)));
        let answer = hub
            .service()
            .send(method, &target, &headers, body.as_bytes())
            .expect("an answer");
        (answer.status, answer.json())
    };
    let sealed = |document: &Value| {
        STANDARD
            .decode(document["authenticationKey"].as_str().expect("a key"))
            .expect("base64")
    };

    let (status, challenge) = call("PUT", "/register", None);
    assert_eq!(status, 401, "{challenge}");
    tpm.open(&sealed(&challenge));
    let token = signed_by(&tpm, &format!("{scope}/registrations/reg-1"));
    let (status, begun) = call("PUT", "/register", Some(&token));
    assert_eq!(status, 202, "{begun}");
    let operation = begun["operationId"].as_str().expect("an operation");
    let (status, ended) = call("GET", &format!("/operations/{operation}"), Some(&token));
    let state = &ended["registrationState"];
    assert_eq!((status, &state["status"]), (200, &json!("assigned")), "{ended}");

    tpm.open(&sealed(&state["tpm"]));
    let token = signed_by(&tpm, &format!("{}/devices/reg-1", hub.host()));
    let headers = [("Authorization", token.as_str())];
    let target = "/devices/reg-1/messages/events?api-version=2021-04-12";
    let sent = hub
        .service()
        .send("POST", target, &headers, b"from the curve")
        .expect("an answer");

    assert_eq!(sent.status, 204);
    hub.monitor()
        .wait_for("the message", |event| event.body == "from the curve");
    // The key of the challenge is not that of the device.
    let (status, refused) = call(
        "GET",
        &format!("/operations/{operation}"),
        Some(&signed_by(&tpm, &format!("{scope}/registrations/reg-1"))),
    );
    assert_eq!((status, &refused["errorCode"]), (401, &json!(401_002)));
    assert_eq!(refused.get("authenticationKey"), None);
}
