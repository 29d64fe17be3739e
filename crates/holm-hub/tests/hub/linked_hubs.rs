//! Several hubs behind one provisioning service: a second hub is reached over TLS, as any hub would be.

use std::sync::Arc;
use std::time::Duration;

use holm_hub::Hub;
use holm_identity::ProofOfKeyVerifier;
use holm_identity::tls::server_config;
use holm_net::http::serve_tls;
use holm_net::{Listener, ListenerOptions, Scope};
use hyper::Method;
use serde_json::{Value, json};

use crate::provisioning::{Device, assert_refused, keys, symmetric, with};
use crate::support::{HOST, TestHub};

const HUBS: &str = "/holm/v1/provisioning/hubs";

/// A hub that listens, under the name of a loopback address.
struct Other {
    hub: TestHub,
    address: &'static str,
    port: u16,
    scope: Scope,
}

impl Other {
    async fn start(address: &'static str) -> Self {
        let hub = TestHub::start_with(|config| config.hostname = address.to_owned()).await;
        let mut other = Self {
            hub,
            address,
            port: 0,
            scope: Scope::new(),
        };
        other.listen().await;
        other
    }

    async fn listen(&mut self) {
        let at = format!("{}:{}", self.address, self.port).parse().unwrap();
        let binding = async {
            loop {
                // The port may still be held by what the last listener left.
                match Listener::bind(at, ListenerOptions::default()).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let listener = tokio::time::timeout(Duration::from_secs(60), binding)
            .await
            .expect("the port is free again");
        self.port = listener.local_address().unwrap().port();
        let hub: &Hub = &self.hub.hub;
        let tls = server_config(hub.certificate().clone(), Arc::new(ProofOfKeyVerifier)).unwrap();
        let rest = Arc::new(hub.rest_handler().clone());
        self.scope = Scope::new();
        self.scope
            .spawn(serve_tls(self.scope.clone(), listener, Arc::new(tls), rest));
    }

    /// Nobody answers any more. Who is to be heard again needs an address of its own: at one that others use, they may get the port
    /// meanwhile.
    async fn hang_up(&self) {
        self.scope.stop();
        self.scope.drain(Duration::from_secs(10)).await.ok();
    }

    async fn link(&self) -> Value {
        let key = self.hub.policy_key("iothubowner").await;
        let string = format!(
            "HostName={}:{};SharedAccessKeyName=iothubowner;SharedAccessKey={}",
            self.address,
            self.port,
            key.to_base64().expose()
        );
        json!({ "connectionString": string, "certificateAuthority": self.hub.hub.ca_pem().unwrap() })
    }
}

/// A service and a hub that is linked to it.
async fn linked(address: &'static str) -> (TestHub, Other) {
    let (service, other) = (TestHub::start().await, Other::start(address).await);
    service.put(&format!("{HUBS}/{address}"), other.link().await).await.ok();
    (service, other)
}

fn at(hub: &str) -> Value {
    json!({ "allocationPolicy": "static", "iotHubs": [hub] })
}

/// Registers, and asks until it is decided.
async fn settle(device: &Device<'_>) -> Value {
    let begun = device.begin().await.unwrap();
    let operation = begun.body["operationId"].as_str().unwrap();
    decided(device, operation).await
}

async fn decided(device: &Device<'_>, operation: &str) -> Value {
    let asking = async {
        loop {
            let standing = device.state(operation).await.unwrap();
            if standing.status == 200 {
                return standing.body["registrationState"].clone();
            }
            assert_eq!((standing.status, &standing.body["status"]), (202, &json!("assigning")));
            assert!(standing.retry_after.is_some());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking)
        .await
        .expect("it is decided")
}

async fn gone(hub: &TestHub, device: &str) {
    let path = format!("/devices/{device}");
    let going = async {
        while hub.get(&path).await.status != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), going)
        .await
        .expect("it goes from there");
}

#[tokio::test]
async fn a_hub_is_linked_changed_and_forgotten_and_never_shows_what_opens_it() {
    let (service, other) = (TestHub::start().await, Other::start("127.0.0.1").await);
    let path = format!("{HUBS}/127.0.0.1");
    let link = other.link().await;
    let enrolled = with(symmetric(), &at("127.0.0.1"));
    let too_early = service.put("/enrollments/r", enrolled.clone()).await;

    let made = service.put(&path, link.clone()).await.ok();
    let weighed = json!({ "allocationWeight": 3, "applyAllocationPolicy": false });
    let changed = service
        .update(&path, made["etag"].as_str().unwrap(), weighed)
        .await
        .ok();
    let stale = service
        .update(&path, made["etag"].as_str().unwrap(), json!({ "allocationWeight": 4 }))
        .await;
    let listed = service.get(HUBS).await.ok();
    let own = service
        .put(&format!("{HUBS}/{HOST}"), json!({ "allocationWeight": 7 }))
        .await
        .ok();
    service.put("/enrollments/r", enrolled).await.ok();
    let service = service.restart().await;
    let kept = service.get(HUBS).await.ok();
    let audit = service
        .get(&format!("/holm/v1/audit?target={}", "127.0.0.1"))
        .await
        .ok();
    let removed = service.delete(&path).await;

    assert_refused(&too_early, 400_004);
    assert_eq!(
        (
            &made["hostName"],
            &made["policy"],
            &made["isOwn"],
            &made["allocationWeight"]
        ),
        (&json!("127.0.0.1"), &json!("iothubowner"), &json!(false), &json!(1))
    );
    assert_eq!(
        (&changed["allocationWeight"], &changed["applyAllocationPolicy"]),
        (&json!(3), &json!(false))
    );
    assert_refused(&stale, 412_201);
    assert_eq!((listed.as_array().unwrap().len(), &own["isOwn"]), (2, &json!(true)));
    assert!(
        !listed.to_string().contains("SharedAccess") && !listed.to_string().contains("BEGIN"),
        "{listed}"
    );
    assert_eq!((kept.as_array().unwrap().len(), removed.status), (2, 204));
    assert!(
        kept.as_array().unwrap().iter().any(|hub| hub["allocationWeight"] == 7),
        "{kept}"
    );
    assert_eq!(audit[0]["operation"], "linkedHub.add");

    // What can't be linked is told at once.
    let host = |document: &Value, host: &str| {
        let text = document["connectionString"]
            .as_str()
            .unwrap()
            .replace("127.0.0.1", host);
        with(document.clone(), &json!({ "connectionString": text }))
    };
    let reader = other.hub.policy_key("registryRead").await;
    let weak = format!(
        "HostName=127.0.0.1:{};SharedAccessKeyName=registryRead;SharedAccessKey={}",
        other.port,
        reader.to_base64().expose()
    );
    for (path, document, why) in [
        (path.as_str(), json!({}), "connectionString"),
        (
            path.as_str(),
            json!({ "connectionString": "nonsense" }),
            "connectionString",
        ),
        (path.as_str(), host(&link, "elsewhere.test"), "elsewhere.test"),
        (
            path.as_str(),
            json!({ "connectionString": link["connectionString"] }),
            "UnknownIssuer",
        ),
        (
            path.as_str(),
            with(link.clone(), &json!({ "certificateAuthority": "nonsense" })),
            "certificateAuthority",
        ),
        (
            path.as_str(),
            with(link.clone(), &json!({ "connectionString": weak })),
            "401",
        ),
        (
            path.as_str(),
            with(link.clone(), &json!({ "allocationWeight": 0 })),
            "allocationWeight",
        ),
        (&format!("{HUBS}/{HOST}"), link.clone(), "connectionString"),
    ] {
        let refused = service.put(path, document).await;
        assert_refused(&refused, 400_004);
        let text = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(why), "{why}: {text}");
    }
    assert_refused(&service.delete(&path).await, 404_201);
    assert_refused(&service.delete(&format!("{HUBS}/{HOST}")).await, 400_004);
    assert_refused(&service.call(Method::POST, HUBS, &[], "").await, 405_001);
}

#[tokio::test]
async fn an_edge_moves_to_a_linked_hub_with_all_that_is_its_and_back() {
    let (service, other) = linked("127.0.0.1").await;
    let edge = json!({ "capabilities": { "iotEdge": true }, "initialTwin": { "tags": { "from": "enrollment" } } });
    let enrolled = with(with(symmetric(), &edge), &at(HOST));
    service.put("/enrollments/e1", enrolled.clone()).await.ok();
    let device = Device::with_key(&service, "e1", &keys(&service, "/enrollments/e1").await.0);
    let first = settle(&device).await;
    let wanted = json!({ "tags": { "from": "operator" }, "properties": { "desired": { "limit": 3 } } });
    service.patch("/twins/e1", wanted).await.ok();
    let manifest = json!({ "properties": { "desired": { "schemaVersion": "1.1", "modules": { "m1": {} } } } });
    service.patch("/twins/e1/modules/$edgeAgent", manifest).await.ok();
    let module = service.put("/devices/e1/modules/m1", json!({})).await.ok();
    service
        .patch("/twins/e1/modules/m1", json!({ "tags": { "line": 4 } }))
        .await
        .ok();
    for (of, told) in [
        ("e1", "device"),
        ("e1/modules/m1", "module"),
        ("e1/modules/$edgeAgent", "agent"),
    ] {
        let told = json!({ "told": { "by": told } });
        let path = format!("/holm/v1/twins/{of}/reported");
        assert_eq!(service.put(&path, told).await.status, 204);
    }

    let there = with(enrolled.clone(), &json!({ "iotHubs": ["127.0.0.1"] }));
    service.update("/enrollments/e1", "*", there.clone()).await.ok();
    let moved = settle(&device).await;
    assert_eq!(moved["status"], "assigned", "{moved}");
    gone(&service, "e1").await;
    let at_other = other.hub.get("/devices/e1").await.ok();
    let twin = other.hub.get("/twins/e1").await.ok();
    let agent = other.hub.get("/twins/e1/modules/$edgeAgent").await.ok();
    let of_module = other.hub.get("/twins/e1/modules/m1").await.ok();
    let m1 = other.hub.get("/devices/e1/modules/m1").await.ok();

    assert_eq!(
        (&first["assignedHub"], &first["substatus"]),
        (&json!(HOST), &json!("initialAssignment"))
    );
    assert_eq!(
        (&moved["assignedHub"], &moved["substatus"], &moved["deviceId"]),
        (&json!("127.0.0.1"), &json!("deviceDataMigrated"), &json!("e1"))
    );
    assert_eq!(
        (&at_other["status"], &at_other["statusReason"]),
        (&json!("enabled"), &Value::Null)
    );
    assert_eq!(at_other["capabilities"]["iotEdge"], true);
    assert_eq!(
        (&twin["tags"]["from"], &twin["properties"]["desired"]["limit"]),
        (&json!("operator"), &json!(3))
    );
    assert_eq!(agent["properties"]["desired"]["modules"], json!({ "m1": {} }));
    for (twin, told) in [(&twin, "device"), (&of_module, "module"), (&agent, "agent")] {
        assert_eq!(twin["properties"]["reported"]["told"]["by"], told);
    }
    assert_eq!(of_module["tags"]["line"], 4);
    assert_eq!(m1["authentication"], module["authentication"]);

    // Changed there, it comes back with the change; the proof is its own at either.
    other
        .hub
        .patch("/twins/e1", json!({ "tags": { "from": "other" } }))
        .await
        .ok();
    service.update("/enrollments/e1", "*", enrolled).await.ok();
    let back = settle(&device).await;
    assert_eq!(back["status"], "assigned", "{back}");
    gone(&other.hub, "e1").await;
    let twin = service.get("/twins/e1").await.ok();
    assert_eq!(
        (&back["assignedHub"], &twin["tags"]["from"]),
        (&json!(HOST), &json!("other"))
    );
    let stays = settle(&device).await;
    assert_eq!(stays["substatus"], "deviceDataMigrated");

    // Told to begin anew, it goes without its data.
    let anew = json!({ "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false } });
    service.update("/enrollments/e1", "*", with(there, &anew)).await.ok();
    let reset = settle(&device).await;
    assert_eq!(reset["status"], "assigned", "{reset}");
    gone(&service, "e1").await;
    let twin = other.hub.get("/twins/e1").await.ok();
    let modules = other.hub.get("/devices/e1/modules").await.ok();
    assert_eq!(
        (&reset["substatus"], &twin["tags"]["from"]),
        (&json!("deviceDataReset"), &json!("enrollment"))
    );
    assert_eq!(twin["properties"]["reported"]["told"], Value::Null);
    assert_eq!(
        modules.as_array().map(Vec::len),
        Some(2),
        "the two of the system: {modules}"
    );

    // And told never to move, it stays where it is.
    let never =
        json!({ "iotHubs": [HOST], "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false } });
    let document = service.get("/enrollments/e1").await.ok();
    service
        .update("/enrollments/e1", "*", with(document, &never))
        .await
        .ok();
    assert_eq!(settle(&device).await["assignedHub"], "127.0.0.1");
}

#[tokio::test]
async fn a_hub_that_does_not_answer_is_waited_for_and_the_device_stays_whole_where_it_is() {
    let (service, mut other) = linked("127.0.0.11").await;
    service.put("/enrollments/r", with(symmetric(), &at(HOST))).await.ok();
    let device = Device::with_key(&service, "r", &keys(&service, "/enrollments/r").await.0);
    settle(&device).await;
    service
        .patch("/twins/r", json!({ "tags": { "kept": true } }))
        .await
        .ok();
    service.put("/holm/v1/twins/r/reported", json!({ "firmware": 7 })).await;
    let document = service.get("/enrollments/r").await.ok();
    service
        .update("/enrollments/r", "*", with(document, &at("127.0.0.11")))
        .await
        .ok();
    other.hang_up().await;

    let begun = device.begin().await.unwrap();
    let operation = begun.body["operationId"].as_str().unwrap().to_owned();
    let waits = device.state(&operation).await.unwrap();
    let shown = service.get("/registrations/r").await.ok();
    let still = service.get("/devices/r").await.ok();
    // A crash in between: the move is on disk, and goes on.
    let hub_name = service.hub.config().hostname.clone();
    let service = service.cut_power().await;
    assert_eq!(service.hub.config().hostname, hub_name);
    let device = Device::with_key(&service, "r", &keys(&service, "/enrollments/r").await.0);
    other.listen().await;
    let moved = decided(&device, &operation).await;
    gone(&service, "r").await;
    let twin = other.hub.get("/twins/r").await.ok();

    assert_eq!((waits.status, &waits.body["status"]), (202, &json!("assigning")));
    assert_eq!(
        (&shown["status"], &shown["assignedHub"]),
        (&json!("assigning"), &Value::Null)
    );
    assert_eq!(still["status"], "enabled");
    assert_eq!(
        (&moved["assignedHub"], &twin["tags"]["kept"]),
        (&json!("127.0.0.11"), &json!(true))
    );
    assert_eq!(twin["properties"]["reported"]["firmware"], 7);
}

#[tokio::test]
async fn a_hub_that_never_answers_fails_the_registration_and_a_later_one_may_go_well() {
    let (service, mut other) = linked("127.0.0.12").await;
    service
        .put("/enrollments/r", with(symmetric(), &at("127.0.0.12")))
        .await
        .ok();
    let device = Device::with_key(&service, "r", &keys(&service, "/enrollments/r").await.0);
    other.hang_up().await;

    let begun = device.begin().await.unwrap();
    service.turn_clock(61);
    let failed = decided(&device, begun.body["operationId"].as_str().unwrap()).await;
    other.listen().await;
    let assigned = settle(&device).await;

    assert_eq!(
        (&failed["status"], &failed["errorCode"]),
        (&json!("failed"), &json!(400_209))
    );
    assert!(failed["errorMessage"].as_str().unwrap().contains("127.0.0.12") && failed["assignedHub"].is_null());
    assert_eq!(
        (&assigned["status"], &assigned["assignedHub"]),
        (&json!("assigned"), &json!("127.0.0.12"))
    );
    assert_eq!(other.hub.get("/devices/r").await.ok()["status"], "enabled");
    assert_eq!(service.get("/devices/r").await.status, 404);
}

#[tokio::test]
async fn an_enrollment_that_is_disabled_while_its_device_is_on_its_way_keeps_it_out() {
    let (service, mut other) = linked("127.0.0.13").await;
    service
        .put("/enrollments/r", with(symmetric(), &at("127.0.0.13")))
        .await
        .ok();
    let device = Device::with_key(&service, "r", &keys(&service, "/enrollments/r").await.0);
    other.hang_up().await;
    let begun = device.begin().await.unwrap();
    let document = service.get("/enrollments/r").await.ok();
    let disabled = json!({ "provisioningStatus": "disabled" });
    service
        .update("/enrollments/r", "*", with(document, &disabled))
        .await
        .ok();

    other.listen().await;
    let told = decided(&device, begun.body["operationId"].as_str().unwrap()).await;
    gone(&other.hub, "r").await;

    assert_eq!(
        (&told["status"], &told["assignedHub"]),
        (&json!("disabled"), &Value::Null)
    );
}

#[tokio::test]
async fn devices_are_given_to_hubs_by_weight_and_those_of_a_forgotten_hub_to_others() {
    let (service, other) = linked("127.0.0.1").await;
    service.put("/enrollmentGroups/g", symmetric()).await.ok();
    let key = keys(&service, "/enrollmentGroups/g").await.0;
    let ids: Vec<String> = (0..12).map(|number| format!("d{number}")).collect();
    let devices: Vec<_> = ids
        .iter()
        .map(|id| Device::with_key(&service, id, &key.derive_for_registration(id)))
        .collect();

    let first = futures_util::future::join_all(devices.iter().map(settle)).await;
    let again = futures_util::future::join_all(devices.iter().map(settle)).await;
    service.delete(&format!("{HUBS}/127.0.0.1")).await;
    let after = futures_util::future::join_all(devices.iter().map(settle)).await;

    let hubs = |states: &[Value]| {
        states
            .iter()
            .map(|state| state["assignedHub"].clone())
            .collect::<Vec<_>>()
    };
    let count = async |hub: &TestHub| hub.get("/statistics/devices").await.ok()["totalDeviceCount"].as_u64();
    assert_eq!(hubs(&first), hubs(&again), "a device stays where it was given");
    let there = hubs(&first).iter().filter(|hub| **hub == "127.0.0.1").count();
    assert!((1..12).contains(&there), "{there} of 12");
    assert_eq!(
        count(&other.hub).await,
        u64::try_from(there).ok(),
        "a hub that was forgotten keeps what it had"
    );
    assert!(hubs(&after).iter().all(|hub| hub == HOST), "{after:?}");
    assert_eq!(count(&service).await, Some(12));
}

#[tokio::test]
async fn a_service_that_is_no_hub_gives_devices_to_linked_hubs_alone() {
    let service = TestHub::start_with(|config| config.provisioning_only = true).await;
    let other = Other::start("127.0.0.1").await;
    service.put("/enrollments/r", symmetric()).await.ok();
    let device = Device::with_key(&service, "r", &keys(&service, "/enrollments/r").await.0);

    let nowhere = settle(&device).await;
    let none = service.get(HUBS).await.ok();
    service.put(&format!("{HUBS}/127.0.0.1"), other.link().await).await.ok();
    let assigned = settle(&device).await;

    assert_eq!(
        (&nowhere["status"], &nowhere["errorCode"]),
        (&json!("failed"), &json!(400_209))
    );
    assert_eq!(none, json!([]));
    assert_eq!(
        (&assigned["status"], &assigned["assignedHub"]),
        (&json!("assigned"), &json!("127.0.0.1"))
    );
    assert_eq!(service.get("/statistics/devices").await.ok()["totalDeviceCount"], 0);
    assert_eq!(other.hub.get("/devices/r").await.ok()["status"], "enabled");
}

#[tokio::test]
async fn a_device_that_another_made_at_a_linked_hub_is_taken_over_in_sight_or_not_at_all() {
    let (service, other) = linked("127.0.0.1").await;
    for device in ["open", "shut"] {
        other.hub.device(device).await;
    }
    let key_of = async |device: &str| {
        let device = other.hub.get(&format!("/devices/{device}")).await.ok();
        device["authentication"]["symmetricKey"]["primaryKey"].clone()
    };
    let before = key_of("shut").await;
    let there = with(symmetric(), &at("127.0.0.1"));
    let refusing = with(there.clone(), &json!({ "deviceTakeover": "refuse" }));
    service.put("/enrollments/open", there).await.ok();
    for id in ["shut", "own"] {
        service.put(&format!("/enrollments/{id}"), refusing.clone()).await.ok();
    }
    let by = async |id: &str| Device::with_key(&service, id, &keys(&service, &format!("/enrollments/{id}")).await.0);

    let open = settle(&by("open").await).await;
    let shut = settle(&by("shut").await).await;
    let own = settle(&by("own").await).await;
    let new_keys = json!({ "primaryKey": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=",
        "secondaryKey": "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=" });
    let new_keys =
        json!({ "attestation": { "type": "symmetricKey", "symmetricKey": new_keys }, "iotHubs": ["127.0.0.1"] });
    service.update("/enrollments/own", "*", new_keys).await.ok();
    let renewed = settle(&by("own").await).await;

    assert_eq!(
        (&open["status"], &own["status"]),
        (&json!("assigned"), &json!("assigned"))
    );
    assert_eq!(
        (&shut["status"], &shut["errorCode"], &shut["assignedHub"]),
        (&json!("failed"), &json!(409_201), &Value::Null)
    );
    assert_eq!(key_of("shut").await, before);
    assert_eq!(
        renewed["status"], "assigned",
        "its own device gets the new key: {renewed}"
    );
    assert_eq!(key_of("own").await, "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=");
    let audit = service.get("/holm/v1/audit?top=100").await.ok();
    let taken = audit.as_array().unwrap().iter();
    let taken: Vec<_> = taken
        .filter(|record| record["operation"] == "device.takeover")
        .map(|record| (&record["target"], &record["actor"]))
        .collect();
    assert_eq!(taken, [(&json!("127.0.0.1/open"), &json!("enrollment:open"))]);
}
