//! `az iot dps enrollment`, `enrollment-group`, and their registrations.

use bytes::Bytes;
use holm_gateway::Credential;
use holm_gateway::provisioning::{Applicant, Provisioning as _};
use holm_identity::{SasToken, ServiceConnectionString, SymmetricKey};
use holm_model::wire::provisioning::Registrant;
use hyper::Method;
use serde_json::{Value, json};

use super::{Az, az, call, delete, get, put, query};
use crate::support::{HOST, TestHub};

/// The token that the tool makes of the service's connection string.
pub(super) fn token(hub: &TestHub) -> String {
    let text = hub.hub.backend().provisioning().connection_string().unwrap();
    let string = ServiceConnectionString::parse(text.expose()).unwrap();
    let holm_identity::Credential::Key { key, policy } = &string.credential else {
        panic!("no key");
    };
    let token = SasToken::sign(HOST, hub.now_seconds() + 600, policy.as_deref(), key);
    token.to_text().expose().to_owned()
}

/// Lets a device of a group register by its derived key.
pub(super) async fn register(hub: &TestHub, id: &str, group: &str) {
    let path = format!("/enrollmentGroups/{group}/attestationmechanism");
    let attestation = hub.post(&path, json!({})).await.ok();
    let key = attestation["symmetricKey"]["primaryKey"].as_str().unwrap();
    let key = SymmetricKey::from_base64(key).unwrap().derive_for_registration(id);
    let backend = hub.hub.backend();
    let registrant = Registrant {
        id_scope: backend.id_scope().unwrap().to_owned(),
        registration_id: id.to_owned(),
    };
    let end = hub.now_seconds() + 3600;
    let token = SasToken::sign(&registrant.resource(), end, Some("registration"), &key);
    let credential = Credential::Token(token.to_text().expose().to_owned());
    let applicant = Applicant {
        registrant,
        credential,
        source: None,
    };
    let begun = backend.begin(&applicant, Bytes::new()).await.unwrap();
    let operation = begun.body["operationId"].as_str().unwrap();
    assert_eq!(backend.state(&applicant, operation).await.unwrap().status, 200);
}

/// What every new enrollment has beside its id and attestation.
fn with_defaults(mut document: Value) -> Value {
    document["capabilities"] = json!({"iotEdge": false});
    document["initialTwin"] = json!({"tags": {}, "properties": {"desired": {}}});
    document["reprovisionPolicy"] = json!({"updateHubAssignment": true, "migrateDeviceData": true});
    document
}

pub(super) fn commands() -> Vec<Az> {
    let symmetric = json!({"type": "symmetricKey", "symmetricKey": {}});
    let enrollment = with_defaults(json!({"registrationId": "r1", "attestation": symmetric}));
    let mut group = with_defaults(json!({"enrollmentGroupId": "plant", "attestation": symmetric}));
    group["initialTwin"]["tags"] = json!({"site": "north"});
    vec![
        az(
            "iot dps enrollment create --enrollment-id r1 --attestation-type symmetrickey",
            [
                put("/enrollments/r1", enrollment.clone())
                    .reads("/registrationId", "r1")
                    .reads("/provisioningStatus", "enabled")
                    .needs("/etag"),
                put("/enrollments/r1", enrollment).is(409).needs("/message"),
            ],
        ),
        az(
            "iot dps enrollment show --enrollment-id r1 --show-keys",
            [
                get("/enrollments/r1")
                    .reads("/attestation/type", "symmetricKey")
                    .keep("enrollment", ""),
                call(Method::POST, "/enrollments/r1/attestationmechanism")
                    .reads("/type", "symmetricKey")
                    .needs("/symmetricKey/primaryKey")
                    .keep("attestation", ""),
            ],
        ),
        az(
            "iot dps enrollment update --enrollment-id r1 --provisioning-status disabled",
            // With the keys that it has read by themselves, and a bare star.
            [put(
                "/enrollments/r1",
                json!({"attestation": "{attestation}", "provisioningStatus": "disabled"}),
            )
            .over("enrollment")
            .if_match("*")
            .reads("/provisioningStatus", "disabled")],
        ),
        az(
            "iot dps enrollment list",
            [query("/enrollments/query", "SELECT *")
                .items("enrollment")
                .counts("", 1)],
        ),
        az(
            "iot dps enrollment-group create --enrollment-id plant --initial-twin-tags …",
            [put("/enrollmentGroups/plant", group)
                .reads("/enrollmentGroupId", "plant")
                .reads("/initialTwin/tags", json!({"site": "north"}))],
        ),
        az(
            "iot dps enrollment-group show --enrollment-id plant --show-keys",
            [
                get("/enrollmentGroups/plant").reads("/attestation/type", "symmetricKey"),
                call(Method::POST, "/enrollmentGroups/plant/attestationmechanism").needs("/symmetricKey/primaryKey"),
            ],
        ),
        az(
            "iot dps enrollment-group list",
            [query("/enrollmentGroups/query", "SELECT *")
                .items("enrollmentGroup")
                .counts("", 1)],
        ),
        az(
            "iot dps enrollment-group compute-device-key --enrollment-id plant --registration-id d1",
            [call(Method::POST, "/enrollmentGroups/plant/attestationmechanism")
                .reads("/type", "symmetricKey")
                .needs("/symmetricKey/primaryKey")],
        ),
        az(
            "iot dps enrollment-group registration list --enrollment-id plant",
            // Without a body: it gives no query.
            [
                call(Method::POST, "/registrations/plant/query")
                    .items("deviceRegistration")
                    .counts("", 0),
                call(Method::POST, "/registrations/plant/query")
                    .when_registered("d1", "plant")
                    .counts("", 1)
                    .reads("/0/registrationId", "d1")
                    .reads("/0/status", "assigned")
                    .reads("/0/deviceId", "d1"),
            ],
        ),
        az(
            "iot dps enrollment-group registration show --registration-id d1",
            [
                get("/registrations/d1").reads("/status", "assigned").needs("/etag"),
                get("/registrations/r1").is(404).needs("/message"),
            ],
        ),
        az(
            "iot dps enrollment-group registration delete --registration-id d1",
            [delete("/registrations/d1").if_match("*")],
        ),
        az(
            "iot dps enrollment delete --enrollment-id r1",
            [delete("/enrollments/r1").if_match("*")],
        ),
        az(
            "iot dps enrollment-group delete --enrollment-id plant",
            [delete("/enrollmentGroups/plant").if_match("*")],
        ),
    ]
}
