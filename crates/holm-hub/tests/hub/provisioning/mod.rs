//! The provisioning service: enrollments over REST, and devices that register. `hub-service-api.md` §7 and rows 81 to 86,
//! `hub-device-protocols.md` §5 and rows 78 to 86. What tests of it have in common stands here.

mod certificates;
mod enrollments;
mod many_groups;
mod registering;
mod takeover;
mod tpm;
mod webhook;

use bytes::Bytes;
use holm_gateway::Credential;
use holm_gateway::provisioning::{Applicant, Provisioning, Standing};
use holm_identity::{SasToken, SymmetricKey, TlsIdentity};
use holm_model::ProvisioningError;
use holm_model::wire::provisioning::Registrant;
use serde_json::{Value, json};

use crate::support::{Reply, TestHub};

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
            applicant: Applicant {
                registrant,
                credential,
                source: None,
            },
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
