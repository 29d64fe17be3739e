//! Which hub a device is given: by the allocation of its enrollment, or by a webhook that is asked.

use holm_model::{ProvisioningCode, ProvisioningError};
use serde_json::{Value, json};

use super::Shared;
use super::allocation::allocate;
use super::assign::{Plan, plan};
use super::attest::Attested;
use super::attestation::certificate_info;
use super::document::{self, Shown};
use super::enrollment::{Allocation, Enrollment, Kind};
use super::registration::Assignment;
use super::webhook::{self, Verdict};
use crate::storage::LinkedHub;

impl Shared {
    /// Chooses the hub, by the allocation of the enrollment or by asking its webhook.
    pub(super) async fn choose(
        &self,
        attested: &Attested,
        payload: Option<&Value>,
    ) -> Result<Choice, ProvisioningError> {
        let enrollment = &attested.enrollment;
        let Some(webhook) = enrollment
            .webhook
            .as_ref()
            .filter(|_| enrollment.allocation == Allocation::Custom)
        else {
            let hubs = self.hubs.all();
            let given = allocate(enrollment.allocation, attested.id.key(), &enrollment.hubs, &hubs);
            return Ok(match given {
                Some(hub) => Choice::Given {
                    hub: hub.host.clone(),
                    verdict: Verdict::default(),
                },
                None => {
                    let text = "no hub is linked that the enrollment may give devices to".to_owned();
                    Choice::Failed(ProvisioningCode::HubFailed, text)
                }
            });
        };
        let id = attested.id.clone();
        let before = self.repository.read(move |view| view.registration(&id)).await?;
        let before = before.and_then(|before| before.assignment);
        if !enrollment.enabled || plan(enrollment, before.as_ref()) == Plan::Repeat {
            let text = "its webhook was not asked; register again".to_owned();
            return Ok(Choice::Failed(ProvisioningCode::CustomAllocationFailed, text));
        }
        let question = self.question(attested, before.as_ref(), payload);
        let verdict = self.asking.ask(webhook, &question).await;
        let given = verdict.and_then(|verdict| {
            let named = verdict.hub.as_deref().unwrap_or_default();
            match self.hubs.find(named) {
                Some(hub) => Ok(Choice::Given { hub: hub.host, verdict }),
                None => Err(format!("it names the hub `{named}`, which is not linked")),
            }
        });
        Ok(given.unwrap_or_else(|why| {
            tracing::warn!(registration = %attested.id, webhook = webhook::shown(&webhook.url), why, "a webhook did not say where a device belongs");
            let text = format!("the custom allocation gave no usable answer: {why}");
            Choice::Failed(ProvisioningCode::CustomAllocationFailed, text)
        }))
    }

    /// The hubs that a webhook may choose from: those that the enrollment names, else all that take part.
    fn candidates(&self, enrollment: &Enrollment) -> Vec<String> {
        let hubs = self.hubs.all();
        let takes_part = |hub: &&LinkedHub| match enrollment.hubs.as_slice() {
            [] => hub.is_allocated,
            named => named.iter().any(|name| name.eq_ignore_ascii_case(&hub.host)),
        };
        hubs.iter().filter(takes_part).map(|hub| hub.host.clone()).collect()
    }

    fn question(&self, attested: &Attested, before: Option<&Assignment>, payload: Option<&Value>) -> Value {
        let enrollment = &attested.enrollment;
        let member = match enrollment.kind {
            Kind::Individual => "individualEnrollment",
            Kind::Group => "enrollmentGroup",
        };
        json!({
            member: document::write(enrollment, Shown::Public, None),
            "deviceRuntimeContext": {
                "registrationId": attested.id.as_str(),
                "currentIotHubHostName": before.map(|before| &before.hub),
                "currentDeviceId": before.map(|before| &before.device),
                "x509": attested.certificate.as_ref().map(certificate_info),
                "payload": payload,
            },
            "linkedHubs": self.candidates(enrollment),
        })
    }
}

/// Which hub was chosen.
pub(super) enum Choice {
    /// This one, and what the webhook said beside it.
    Given { hub: String, verdict: Verdict },
    /// None, for this reason.
    Failed(ProvisioningCode, String),
}
