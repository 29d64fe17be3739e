//! The provisioning service: enrollments over REST, and devices that register. `hub-service-api.md` §7 and rows 81 to 86,
//! `hub-device-protocols.md` §5 and rows 78 to 86.

use bytes::Bytes;
use holm_gateway::Credential;
use holm_gateway::provisioning::{Applicant, Provisioning, Standing};
use holm_identity::{CertificateAuthority, SasToken, ServiceConnectionString, SymmetricKey, TlsIdentity};
use holm_model::wire::provisioning::Registrant;
use holm_model::{ProvisioningError, Timestamp};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{HOST, Reply, TestHub};

pub(crate) fn symmetric() -> Value {
    json!({ "attestation": { "type": "symmetricKey" } })
}

pub(crate) fn with(mut document: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

#[track_caller]
pub(crate) fn assert_refused(reply: &Reply, number: u64) {
    let body = reply.json();
    assert_eq!(
        (u64::from(reply.status), body["errorCode"].as_u64()),
        (number / 1000, Some(number)),
        "{body}"
    );
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()) && body["trackingId"].is_string());
}

pub(crate) async fn keys(hub: &TestHub, path: &str) -> (SymmetricKey, SymmetricKey) {
    let attestation = hub.post(&format!("{path}/attestationmechanism"), json!({})).await.ok();
    let key = |name: &str| SymmetricKey::from_base64(attestation["symmetricKey"][name].as_str().unwrap()).unwrap();
    (key("primaryKey"), key("secondaryKey"))
}

/// A device with its proof.
pub(crate) struct Device<'h> {
    hub: &'h TestHub,
    applicant: Applicant,
}

impl<'h> Device<'h> {
    pub(crate) fn new(hub: &'h TestHub, id: &str, credential: Credential) -> Self {
        let registrant = Registrant {
            id_scope: hub.hub.backend().id_scope().unwrap().to_owned(),
            registration_id: id.to_owned(),
        };
        Self {
            hub,
            applicant: Applicant { registrant, credential },
        }
    }

    pub(crate) fn with_key(hub: &'h TestHub, id: &str, key: &SymmetricKey) -> Self {
        let mut device = Self::new(hub, id, Credential::None);
        let resource = device.applicant.registrant.resource();
        let token = SasToken::sign(&resource, hub.now_seconds() + 3600, Some("registration"), key);
        device.applicant.credential = Credential::Token(token.to_text().expose().to_owned());
        device
    }

    pub(crate) fn with_certificate(hub: &'h TestHub, id: &str, identity: &TlsIdentity) -> Self {
        Self::new(hub, id, Credential::Certificate(identity.chain().to_vec().into()))
    }

    pub(crate) async fn begin(&self) -> Result<Standing, ProvisioningError> {
        self.begin_with(&json!({ "payload": { "serial": 7 } })).await
    }

    pub(crate) async fn begin_with(&self, body: &Value) -> Result<Standing, ProvisioningError> {
        let backend = self.hub.hub.backend();
        backend.begin(&self.applicant, Bytes::from(body.to_string())).await
    }

    pub(crate) async fn state(&self, operation: &str) -> Result<Standing, ProvisioningError> {
        self.hub.hub.backend().state(&self.applicant, operation).await
    }

    /// Registers, and gives what came of it.
    pub(crate) async fn register(&self) -> Result<Value, ProvisioningError> {
        let begun = self.begin().await?;
        assert_eq!((begun.status, begun.body["status"].as_str()), (202, Some("assigning")));
        assert!(begun.retry_after.is_some());
        let ended = self.state(begun.body["operationId"].as_str().unwrap()).await?;
        assert_eq!(
            (ended.status, &ended.body["operationId"]),
            (200, &begun.body["operationId"])
        );
        assert_eq!(ended.body["status"], ended.body["registrationState"]["status"]);
        Ok(ended.body["registrationState"].clone())
    }

    #[track_caller]
    pub(crate) fn refused(outcome: Result<Value, ProvisioningError>) -> u32 {
        outcome.unwrap_err().code.number()
    }
}

#[tokio::test]
async fn keys_are_made_where_none_are_given_and_shown_only_by_the_attestation_mechanism() {
    let hub = TestHub::start().await;

    let made = hub.put("/enrollments/Reg-1", symmetric()).await.ok();
    let read = hub.get("/enrollments/reg-1").await;
    let mechanism = hub
        .post("/enrollments/reg-1/attestationmechanism", json!({}))
        .await
        .ok();

    assert_eq!(made["registrationId"], "Reg-1");
    assert_eq!(
        read.header("etag"),
        Some(format!("\"{}\"", made["etag"].as_str().unwrap()).as_str())
    );
    assert_eq!(
        read.json()["attestation"],
        json!({ "type": "symmetricKey", "symmetricKey": {} })
    );
    for (name, value) in [
        ("provisioningStatus", json!("enabled")),
        ("allocationPolicy", json!("hashed")),
        (
            "reprovisionPolicy",
            json!({ "updateHubAssignment": true, "migrateDeviceData": true }),
        ),
        ("capabilities", json!({ "iotEdge": false })),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    assert_eq!(mechanism["symmetricKey"]["primaryKey"].as_str().map(str::len), Some(44));
}

#[tokio::test]
async fn an_enrollment_is_made_once_and_changed_only_with_its_etag() {
    let hub = TestHub::start().await;
    let made = hub.put("/enrollments/r", symmetric()).await.ok();
    let before = keys(&hub, "/enrollments/r").await;

    let again = hub.put("/enrollments/R", symmetric()).await;
    let stale = hub.update("/enrollments/r", "AAAA", made.clone()).await;
    let absent = hub.update("/enrollments/other", "*", symmetric()).await;
    // What was read is written back: keys are not in it, and stay.
    let disabled = with(made.clone(), &json!({ "provisioningStatus": "disabled" }));
    let changed = hub
        .update("/enrollments/r", made["etag"].as_str().unwrap(), disabled)
        .await
        .ok();
    let edge = hub
        .update(
            "/enrollments/r",
            "\"*\"",
            json!({ "capabilities": { "iotEdge": true } }),
        )
        .await;

    assert_refused(&again, 409_201);
    assert_refused(&stale, 412_201);
    assert_refused(&absent, 404_201);
    assert_refused(&edge, 400_004);
    assert_eq!(changed["provisioningStatus"], "disabled");
    assert_eq!(changed["createdDateTimeUtc"], made["createdDateTimeUtc"]);
    assert_ne!(changed["etag"], made["etag"]);
    assert_eq!(keys(&hub, "/enrollments/r").await, before);
    assert_eq!(hub.delete("/enrollments/r").await.status, 204);
    assert_refused(&hub.get("/enrollments/r").await, 404_201);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_the_member_named() {
    let hub = TestHub::start().await;
    for (document, member) in [
        (json!({}), "attestation"),
        (json!({ "attestation": { "type": "none" } }), "attestation.type"),
        (
            json!({ "attestation": { "type": "tpm", "tpm": {} } }),
            "attestation.tpm.endorsementKey",
        ),
        (
            json!({ "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": "AAAA" } } }),
            "symmetricKey",
        ),
        (
            json!({ "attestation": { "type": "x509", "x509": {} } }),
            "attestation.x509",
        ),
        (
            json!({ "attestation": { "x509": { "clientCertificates": { "primary": { "certificate": "nonsense!" } } } } }),
            "attestation.x509.clientCertificates.primary.certificate",
        ),
        (
            with(symmetric(), &json!({ "registrationId": "other" })),
            "registrationId",
        ),
        (
            with(symmetric(), &json!({ "provisioningStatus": "maybe" })),
            "provisioningStatus",
        ),
        (with(symmetric(), &json!({ "allocationPolicy": "static" })), "iotHubs"),
        (
            with(symmetric(), &json!({ "allocationPolicy": "custom" })),
            "customAllocationDefinition",
        ),
        (with(symmetric(), &json!({ "iotHubs": ["elsewhere.test"] })), "iotHubs"),
        (
            with(symmetric(), &json!({ "initialTwin": { "tags": 7 } })),
            "initialTwin",
        ),
        (with(symmetric(), &json!({ "deviceId": "a b" })), "deviceId"),
    ] {
        let refused = hub.put("/enrollments/r", document.clone()).await;

        assert_refused(&refused, 400_004);
        let text = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(
            text.contains(&format!("`{member}")) || text.contains(&format!("{member}`")),
            "{document}: {text}"
        );
    }
    assert_refused(&hub.put("/enrollments/a%20b", symmetric()).await, 400_004);
    assert_refused(&hub.call(Method::PATCH, "/enrollments/r", &[], "").await, 405_001);
    assert_refused(
        &hub.raw(Method::GET, "/enrollments/r?api-version=2021-10-01", &[], Bytes::new())
            .await,
        401_002,
    );
}

#[tokio::test]
async fn the_provisioning_policy_opens_the_service_and_a_policy_without_the_right_does_not() {
    let hub = TestHub::start().await;
    let text = hub.hub.backend().provisioning().connection_string().unwrap();
    let string = ServiceConnectionString::parse(text.expose()).unwrap();
    let holm_identity::Credential::Key { key, policy } = &string.credential else {
        panic!("no key");
    };
    let token = |name: &str, key: &SymmetricKey| {
        let token = SasToken::sign(HOST, hub.now_seconds() + 600, Some(name), key);
        token.to_text().expose().to_owned()
    };
    let put = async |token: &str, id: &str| {
        let path = format!("/enrollments/{id}?api-version=2018-09-01-preview");
        let body = Bytes::from(symmetric().to_string());
        hub.raw(Method::PUT, &path, &[("authorization", token)], body)
            .await
            .status
    };

    let owner = put(&token(policy.as_deref().unwrap(), key), "a").await;
    let other_key = put(
        &token("provisioningserviceowner", &hub.policy_key("service").await),
        "b",
    )
    .await;
    let service = put(&hub.token_of("service").await, "c").await;
    let registry = put(&hub.token_of("registryReadWrite").await, "d").await;

    assert_eq!(
        (string.host_name.as_str(), policy.as_deref()),
        (HOST, Some("provisioningserviceowner"))
    );
    assert_eq!((owner, other_key, service, registry), (200, 401, 401, 200));
}

#[tokio::test]
async fn pages_of_enrollments_neither_repeat_nor_miss_one() {
    let hub = TestHub::start().await;
    assert_eq!(hub.post("/enrollmentGroups/query", json!({})).await.body, "[]");
    for number in 0..5 {
        hub.put(&format!("/enrollments/r{number}"), symmetric()).await.ok();
    }

    let (mut seen, mut next) = (Vec::new(), String::new());
    let everything = json!({ "query": "SELECT * FROM enrollments" }).to_string();
    loop {
        let headers = [("x-ms-max-item-count", "2"), ("x-ms-continuation", next.as_str())];
        let page = hub
            .call(Method::POST, "/enrollments/query", &headers, everything.clone())
            .await;
        assert_eq!(page.header("x-ms-item-type"), Some("enrollment"));
        seen.extend(
            page.json()
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["registrationId"].clone()),
        );
        match page.header("x-ms-continuation") {
            Some(more) => next = more.to_owned(),
            None => break,
        }
    }
    let other = hub
        .post("/enrollments/query", json!({ "query": "SELECT a FROM b" }))
        .await;

    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
    assert_refused(&other, 400_004);
}

#[tokio::test]
async fn a_bulk_does_what_it_can_and_tells_the_rest() {
    let hub = TestHub::start().await;
    let many = |mode: &str, ids: &[&str]| {
        let item = |id: &&str| with(symmetric(), &json!({ "registrationId": id }));
        json!({ "mode": mode, "enrollments": ids.iter().map(item).collect::<Vec<_>>() })
    };
    hub.put("/enrollments/b", symmetric()).await.ok();

    let made = hub.post("/enrollments", many("create", &["a", "b", "c"])).await.ok();
    let eleven = hub.post("/enrollments", many("create", &["x"; 11])).await;
    let gone = hub.post("/enrollments", many("delete", &["a", "b", "c"])).await.ok();
    let mode = hub.post("/enrollments", many("replace", &["a"])).await;

    assert_eq!(made["isSuccessful"], false);
    let errors = made["errors"].as_array().unwrap();
    assert_eq!(
        (errors.len(), &errors[0]["registrationId"], &errors[0]["errorCode"]),
        (1, &json!("b"), &json!(409_201))
    );
    assert!(errors[0]["errorStatus"].is_string());
    assert_refused(&eleven, 400_004);
    assert_refused(&mode, 400_004);
    assert_eq!(gone, json!({ "isSuccessful": true, "errors": [] }));
}

#[tokio::test]
async fn a_device_registers_by_its_own_key_and_is_a_device_of_the_hub() {
    let hub = TestHub::start().await;
    let twin = json!({ "tags": { "site": "a" }, "properties": { "desired": { "rate": 5 } } });
    let document = with(
        symmetric(),
        &json!({ "deviceId": "Dev-1", "initialTwin": twin, "capabilities": { "iotEdge": true } }),
    );
    hub.put("/enrollments/reg-1", document).await.ok();
    let (primary, secondary) = keys(&hub, "/enrollments/reg-1").await;

    let by_primary = Device::with_key(&hub, "reg-1", &primary).register().await.unwrap();
    let by_secondary = Device::with_key(&hub, "REG-1", &secondary).register().await.unwrap();
    let device = hub.get("/devices/Dev-1").await.ok();
    let twin = hub.get("/twins/Dev-1").await.ok();

    for state in [&by_primary, &by_secondary] {
        assert_eq!(
            (&state["assignedHub"], &state["deviceId"]),
            (&json!(HOST), &json!("Dev-1"))
        );
        assert_eq!(
            (&state["status"], &state["substatus"]),
            (&json!("assigned"), &json!("initialAssignment"))
        );
        assert_eq!(state["symmetricKey"], json!({}));
    }
    assert_eq!(
        device["authentication"]["symmetricKey"]["primaryKey"],
        primary.to_base64().expose()
    );
    assert_eq!(device["capabilities"]["iotEdge"], true);
    assert_eq!(
        (&twin["tags"]["site"], &twin["properties"]["desired"]["rate"]),
        (&json!("a"), &json!(5))
    );
    assert_eq!(hub.get("/devices/Dev-1/modules/$edgeHub").await.status, 200);
    let shown = hub.get("/enrollments/reg-1").await.ok();
    assert_eq!(shown["registrationState"]["deviceId"], "Dev-1");
}

#[tokio::test]
async fn a_device_of_a_group_registers_by_the_derived_key_and_one_of_its_own_enrollment_by_no_group() {
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/plant", symmetric()).await.ok();
    hub.put("/enrollments/member-2", symmetric()).await.ok();
    let (primary, secondary) = keys(&hub, "/enrollmentGroups/plant").await;
    let key = |id: &str, of: &SymmetricKey| of.derive_for_registration(id);

    let first = Device::with_key(&hub, "Member-1", &key("Member-1", &primary))
        .register()
        .await
        .unwrap();
    let lowered = Device::with_key(&hub, "Member-1", &key("member-1", &secondary))
        .register()
        .await
        .unwrap();
    let own = Device::with_key(&hub, "member-2", &key("member-2", &primary))
        .register()
        .await;
    let of_another = Device::with_key(&hub, "member-3", &key("Member-1", &primary))
        .register()
        .await;
    let group_key = Device::with_key(&hub, "member-3", &primary).register().await;
    let listed = hub.post("/registrations/plant/query", json!({})).await;

    assert_eq!(
        (&first["deviceId"], &first["symmetricKey"]),
        (&json!("Member-1"), &json!({ "enrollmentGroupId": "plant" }))
    );
    assert_eq!(lowered["deviceId"], "Member-1");
    for refused in [own, of_another, group_key] {
        assert_eq!(Device::refused(refused), 401_002);
    }
    assert_eq!(listed.header("x-ms-item-type"), Some("deviceRegistration"));
    let listed = listed.json();
    assert_eq!(
        (listed.as_array().map(Vec::len), &listed[0]["deviceId"]),
        (Some(1), &json!("Member-1"))
    );
}

#[tokio::test]
async fn what_is_disabled_or_deleted_counts_from_the_next_word() {
    let hub = TestHub::start().await;
    let made = hub.put("/enrollments/r", symmetric()).await.ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);
    let begun = device.begin().await.unwrap();
    let operation = begun.body["operationId"].as_str().unwrap();

    let disabled = with(made, &json!({ "provisioningStatus": "disabled" }));
    hub.update("/enrollments/r", "*", disabled.clone()).await.ok();
    let while_disabled = device.register().await.unwrap();
    let enabled = with(disabled, &json!({ "provisioningStatus": "enabled" }));
    hub.update("/enrollments/r", "*", enabled).await.ok();
    let again = device.register().await.unwrap();
    hub.delete("/enrollments/r").await;
    let (state, register) = (device.state(operation).await, device.register().await);

    assert_eq!(
        (&while_disabled["status"], &while_disabled["errorCode"]),
        (&json!("disabled"), &json!(401_002))
    );
    assert_eq!(
        (&while_disabled["assignedHub"], &while_disabled["substatus"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(again["status"], "assigned");
    assert_eq!(state.unwrap_err().code.number(), 401_002);
    assert_eq!(Device::refused(register), 401_002);
    assert_eq!(hub.get("/devices/r").await.status, 200, "the device stays");
}

#[tokio::test]
async fn a_proof_for_something_else_is_refused_and_an_unknown_operation_is_not_found() {
    let hub = TestHub::start().await;
    hub.put("/enrollments/r", symmetric()).await.ok();
    let key = keys(&hub, "/enrollments/r").await.0;
    let device = Device::with_key(&hub, "r", &key);
    let begun = device.begin().await.unwrap();

    let mut other_scope = Device::with_key(&hub, "r", &key);
    other_scope.applicant.registrant.id_scope = "0ne00000000".to_owned();
    let mut other_name = Device::with_key(&hub, "r", &key);
    other_name.applicant.registrant.registration_id = "s".to_owned();
    let nothing = Device::new(&hub, "r", Credential::None);
    for device in [other_scope, other_name, nothing] {
        assert_eq!(Device::refused(device.register().await), 401_002);
    }
    let unknown = device.state("4.0123456789abcdef.0").await.unwrap_err();
    let restarted = hub.restart().await;
    let device = Device::with_key(&restarted, "r", &key);
    let kept = device.state(begun.body["operationId"].as_str().unwrap()).await.unwrap();

    assert_eq!(unknown.code.number(), 404_201);
    assert_eq!(kept.body["status"], "assigned", "names of operations outlive a restart");
    restarted.turn_clock(3600 + 301);
    assert_eq!(Device::refused(device.register().await), 401_002);
}

#[tokio::test]
async fn a_later_registration_follows_the_policy_of_its_enrollment() {
    let hub = TestHub::start().await;
    let policy = |update: bool, migrate: bool| {
        json!({ "reprovisionPolicy": { "updateHubAssignment": update, "migrateDeviceData": migrate },
                "initialTwin": { "tags": { "from": "enrollment" } } })
    };
    hub.put("/enrollments/r", with(symmetric(), &policy(true, true)))
        .await
        .ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);
    let tag = async || hub.get("/twins/r").await.ok()["tags"]["from"].clone();

    device.register().await.unwrap();
    hub.patch("/twins/r", json!({ "tags": { "from": "operator" } }))
        .await
        .ok();
    let migrated = device.register().await.unwrap();
    let after_migrate = tag().await;
    hub.update("/enrollments/r", "*", policy(false, false)).await.ok();
    hub.delete("/devices/r").await;
    let repeated = device.register().await.unwrap();
    let after_never = hub.get("/devices/r").await.status;
    hub.update("/enrollments/r", "*", policy(true, false)).await.ok();
    let reset = device.register().await.unwrap();

    assert_eq!(
        (&migrated["substatus"], after_migrate),
        (&json!("initialAssignment"), json!("operator"))
    );
    assert_eq!((&repeated["status"], after_never), (&json!("assigned"), 404));
    assert_eq!(
        (&reset["substatus"], tag().await),
        (&json!("deviceDataReset"), json!("enrollment"))
    );
    assert_eq!(reset["createdDateTimeUtc"], migrated["createdDateTimeUtc"]);
    assert_eq!(hub.delete("/registrations/r").await.status, 204);
    assert_refused(&hub.get("/registrations/r").await, 404_201);
    let first = device.register().await.unwrap();
    assert_eq!(
        (&first["substatus"], tag().await),
        (&json!("initialAssignment"), json!("enrollment"))
    );
}

#[tokio::test]
async fn three_hundred_registrations_at_once_of_which_thirty_are_the_same_make_each_device_once() {
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/g", symmetric()).await.ok();
    let key = keys(&hub, "/enrollmentGroups/g").await.0;
    let ids: Vec<String> = (0..300).map(|number| format!("d{}", number.max(29))).collect();

    let devices: Vec<_> = ids
        .iter()
        .map(|id| Device::with_key(&hub, id, &key.derive_for_registration(id)))
        .collect();
    let all = futures_util::future::join_all(devices.iter().map(Device::register)).await;

    for (id, outcome) in ids.iter().zip(all) {
        let state = outcome.unwrap();
        assert_eq!((&state["status"], &state["deviceId"]), (&json!("assigned"), &json!(id)));
    }
    let statistics = hub.get("/statistics/devices").await.ok();
    assert_eq!(statistics["totalDeviceCount"], 271);
}

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, 3650, Timestamp::from_unix_millis(crate::support::START)).unwrap()
}

fn leaf(authority: &CertificateAuthority, id: &str) -> TlsIdentity {
    let now = Timestamp::from_unix_millis(crate::support::START);
    authority.issue_client(id, &[""; 0], 365, now).unwrap()
}

fn pem(identity: &TlsIdentity) -> Value {
    json!({ "certificate": holm_identity::certificate::certificates_to_pem(&identity.chain()[..1]) })
}

#[tokio::test]
async fn a_device_registers_by_one_of_two_certificates_and_rolls_over_to_the_second() {
    let hub = TestHub::start().await;
    let maker = authority("somebody");
    let (first, second, third) = (leaf(&maker, "r"), leaf(&maker, "r"), leaf(&maker, "r"));
    let named_otherwise = leaf(&maker, "s");
    let pair = json!({ "primary": pem(&first), "secondary": pem(&second) });
    let document = json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": pair } } });
    let made = hub.put("/enrollments/r", document).await.ok();

    let by_first = Device::with_certificate(&hub, "r", &first).register().await.unwrap();
    let by_second = Device::with_certificate(&hub, "R", &second).register().await.unwrap();
    let by_third = Device::with_certificate(&hub, "r", &third).register().await;
    let by_other = Device::with_certificate(&hub, "r", &named_otherwise).register().await;
    // The second becomes the first, and a new one comes behind it; what is not sent again stays.
    let mut rolled = made.clone();
    let pair = &mut rolled["attestation"]["x509"]["clientCertificates"];
    (pair["primary"], pair["secondary"]) = (pem(&second), pem(&third));
    hub.update("/enrollments/r", made["etag"].as_str().unwrap(), rolled)
        .await
        .ok();
    let after = Device::with_certificate(&hub, "r", &third).register().await.unwrap();
    let gone = Device::with_certificate(&hub, "r", &first).register().await;
    let device = hub.get("/devices/r").await.ok();

    let info = first.info().unwrap();
    let shown = &made["attestation"]["x509"]["clientCertificates"]["primary"];
    assert_eq!(shown["info"]["sha1Thumbprint"], info.sha1.to_ascii_uppercase());
    assert_eq!(
        (&shown["certificate"], &shown["info"]["version"]),
        (&Value::Null, &json!(3))
    );
    assert_eq!(by_first["x509"]["certificateInfo"]["subjectName"], "CN=r");
    for state in [by_first, by_second, after] {
        assert_eq!(state["status"], "assigned");
    }
    for refused in [by_third, by_other, gone] {
        assert_eq!(Device::refused(refused), 401_002);
    }
    let prints = &device["authentication"]["x509Thumbprint"];
    assert_eq!(prints["primaryThumbprint"], second.info().unwrap().sha256);
    assert_eq!(prints["secondaryThumbprint"], third.info().unwrap().sha256);
}

#[tokio::test]
async fn a_new_certificate_is_known_at_the_hub_also_where_nothing_else_may_change() {
    let hub = TestHub::start().await;
    let maker = authority("somebody");
    let (first, second) = (leaf(&maker, "r"), leaf(&maker, "r"));
    let pair = json!({ "primary": pem(&first), "secondary": pem(&second) });
    let document = json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": pair } },
        "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false },
        "initialTwin": { "tags": { "from": "enrollment" } } });
    let made = hub.put("/enrollments/r", document).await.ok();
    let by_first = Device::with_certificate(&hub, "r", &first).register().await.unwrap();
    hub.patch("/twins/r", json!({ "tags": { "from": "operator" } }))
        .await
        .ok();
    let mut rolled = made.clone();
    rolled["attestation"]["x509"]["clientCertificates"] = json!({ "primary": pem(&second) });
    hub.update("/enrollments/r", made["etag"].as_str().unwrap(), rolled)
        .await
        .ok();

    let by_second = Device::with_certificate(&hub, "r", &second).register().await.unwrap();
    let known = hub.get("/devices/r").await.ok();
    hub.delete("/devices/r").await;
    let without = Device::with_certificate(&hub, "r", &second).register().await.unwrap();

    assert_eq!(
        (&by_first["status"], &by_second["status"]),
        (&json!("assigned"), &json!("assigned"))
    );
    assert_eq!(by_second["substatus"], by_first["substatus"]);
    let prints = &known["authentication"]["x509Thumbprint"];
    assert_eq!(prints["primaryThumbprint"], second.info().unwrap().sha256);
    // A device that the operator has deleted does not come back by this.
    assert_eq!(without["status"], "assigned");
    assert_eq!(hub.get("/devices/r").await.status, 404);
}

#[tokio::test]
async fn devices_of_a_group_register_by_certificates_that_its_authority_signed() {
    let hub = TestHub::start().await;
    let (ours, next, theirs) = (authority("Plant A"), authority("Plant A"), authority("Plant B"));
    let signing = |authority: &CertificateAuthority| json!({ "certificate": authority.certificate_pem() });
    let group = |pair: Value| json!({ "attestation": { "type": "x509", "x509": { "signingCertificates": pair } } });
    let pair = json!({ "primary": signing(&ours), "secondary": signing(&next) });
    hub.put("/enrollmentGroups/a", group(pair)).await.ok();

    let by_ours = Device::with_certificate(&hub, "d1", &leaf(&ours, "d1"))
        .register()
        .await
        .unwrap();
    let by_next = Device::with_certificate(&hub, "d2", &leaf(&next, "d2"))
        .register()
        .await
        .unwrap();
    let by_theirs = Device::with_certificate(&hub, "d3", &leaf(&theirs, "d3"))
        .register()
        .await;
    let other_name = Device::with_certificate(&hub, "d4", &leaf(&ours, "d5"))
        .register()
        .await;
    hub.put("/enrollmentGroups/b", group(json!({ "primary": signing(&theirs) })))
        .await
        .ok();
    let now_known = Device::with_certificate(&hub, "d3", &leaf(&theirs, "d3"))
        .register()
        .await
        .unwrap();
    let leaf_as_signer = hub
        .put(
            "/enrollmentGroups/c",
            group(json!({ "primary": pem(&leaf(&ours, "x")) })),
        )
        .await;
    hub.turn_clock(366 * 24 * 3600);
    let ended = Device::with_certificate(&hub, "d1", &leaf(&ours, "d1"))
        .register()
        .await;

    assert_eq!(
        (&by_ours["x509"]["enrollmentGroupId"], &by_next["deviceId"]),
        (&json!("a"), &json!("d2"))
    );
    assert_eq!(now_known["x509"]["enrollmentGroupId"], "b");
    for refused in [by_theirs, other_name, ended] {
        assert_eq!(Device::refused(refused), 401_002);
    }
    assert_refused(&leaf_as_signer, 400_004);
}

#[tokio::test]
async fn files_in_the_data_directory_name_the_id_scope_and_the_connection_string() {
    let hub = TestHub::start().await;
    let data = hub.hub.config().data.clone();
    let scope = hub.hub.backend().id_scope().unwrap().to_owned();

    let restarted = hub.restart().await;

    assert!(scope.starts_with("0ne") && scope.len() == 11, "{scope}");
    assert_eq!(restarted.hub.backend().id_scope(), Some(scope.as_str()));
    assert_eq!(holm_hub::hub::id_scope(&data).unwrap(), scope);
    let text = holm_hub::hub::provisioning_connection_string(&data).unwrap();
    assert!(
        text.expose()
            .starts_with("HostName=hub.test;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=")
    );
}

/// Answers one request after the other with `answers`, and gives the bodies that came.
async fn webhook(answers: Vec<(u16, Value)>) -> (String, tokio::task::JoinHandle<Vec<Value>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/allocate?code=x", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, answer) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body = loop {
                stream.read_buf(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((_, body)) = text.split_once("\r\n\r\n")
                    && let Ok(body) = serde_json::from_str::<Value>(body)
                {
                    break body;
                }
            };
            asked.push(body);
            let answer = answer.to_string();
            let length = answer.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (url, serving)
}

#[tokio::test]
async fn a_key_that_is_replaced_while_the_webhook_thinks_makes_no_device() {
    let hub = TestHub::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let custom = json!({ "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": url } });
    let made = hub.put("/enrollments/r", with(symmetric(), &custom)).await.ok();
    let key = keys(&hub, "/enrollments/r").await.0;
    let webhook = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let replaced = json!({ "attestation": { "type": "symmetricKey", "symmetricKey": {
            "primaryKey": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=", "secondaryKey": "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=" } } });
        hub.update("/enrollments/r", "*", with(with(made, &custom), &replaced))
            .await
            .ok();
        let answer = json!({ "iotHubHostName": HOST }).to_string();
        let answer = format!(
            "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    };

    let device = Device::with_key(&hub, "r", &key);
    let (told, ()) = tokio::join!(device.register(), webhook);

    assert_eq!(Device::refused(told), 401_002);
    assert_eq!(hub.get("/devices/r").await.status, 404);
}

#[tokio::test]
async fn a_webhook_says_where_a_device_belongs_and_what_it_is_told() {
    let hub = TestHub::start().await;
    let twin = json!({ "tags": { "from": "webhook" } });
    let (url, asked) = webhook(vec![
        (
            200,
            json!({ "iotHubHostName": HOST, "initialTwin": twin, "payload": { "line": 4 } }),
        ),
        (500, json!({})),
        (200, json!({ "iotHubHostName": "elsewhere.test" })),
    ])
    .await;
    let custom = json!({ "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": url },
        "initialTwin": { "tags": { "from": "enrollment" } } });
    let made = hub.put("/enrollments/r", with(symmetric(), &custom)).await.ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);

    let assigned = device.register().await.unwrap();
    let failed = device.register().await.unwrap();
    let unknown = device.register().await.unwrap();
    let asked = asked.await.unwrap();
    let never = json!({ "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false } });
    hub.update("/enrollments/r", "*", with(made, &never)).await.ok();
    let repeated = device.register().await.unwrap();

    assert_eq!(
        (&assigned["status"], &assigned["payload"]),
        (&json!("assigned"), &json!({ "line": 4 }))
    );
    assert_eq!(hub.get("/twins/r").await.ok()["tags"]["from"], "webhook");
    let context = &asked[0]["deviceRuntimeContext"];
    assert_eq!(
        (&context["registrationId"], &context["payload"]),
        (&json!("r"), &json!({ "serial": 7 }))
    );
    assert_eq!(
        (
            &asked[0]["linkedHubs"],
            &asked[0]["individualEnrollment"]["registrationId"]
        ),
        (&json!([HOST]), &json!("r"))
    );
    assert_eq!(asked[1]["deviceRuntimeContext"]["currentIotHubHostName"], HOST);
    for state in [failed, unknown] {
        assert_eq!(
            (&state["status"], &state["errorCode"]),
            (&json!("failed"), &json!(400_207))
        );
        assert!(
            state["assignedHub"].is_null() && state["errorMessage"].is_string(),
            "{state}"
        );
    }
    assert_eq!(
        repeated["status"], "assigned",
        "a device that stays where it is is not asked for"
    );
}
