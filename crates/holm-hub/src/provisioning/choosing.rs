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
use super::webhook::{self, Verdict, shown_name};
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
            let hub = named_by(named, self.hubs.find(named), enrollment)?;
            Ok(Choice::Given { hub, verdict })
        });
        Ok(given.unwrap_or_else(|why| {
            tracing::warn!(registration = %attested.id, enrollment = %enrollment.id, webhook = webhook::shown(&webhook.url), why, "a webhook did not say where a device belongs");
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

/// The hub that a webhook has named, if it is linked (`found`) and the enrollment may give devices to it.
fn named_by(named: &str, found: Option<LinkedHub>, enrollment: &Enrollment) -> Result<String, String> {
    let refused = |why: &str| {
        format!(
            "`iotHubHostName` is `{}`, {why}; name one of `linkedHubs`",
            shown_name(named)
        )
    };
    let hub = found.ok_or_else(|| refused("which is not linked"))?.host;
    let own = &enrollment.hubs;
    if own.is_empty() || own.iter().any(|own| own.eq_ignore_ascii_case(&hub)) {
        Ok(hub)
    } else {
        Err(refused("which is not among the `iotHubs` of the enrollment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_names_a_hub_that_is_linked_and_that_the_enrollment_may_give_devices_to() {
        let enrollment = |hubs: &[&str]| {
            let document = json!({ "registrationId": "r", "iotHubs": hubs,
                "attestation": { "type": "symmetricKey", "symmetricKey": {} } });
            Enrollment::from_stored(Kind::Individual, &document.to_string()).unwrap()
        };
        let linked = |host: &str| LinkedHub {
            host: host.to_owned(),
            connection_string: None,
            authority: None,
            weight: 1,
            is_allocated: true,
            etag: 1,
        };

        let any = named_by("a.test", Some(linked("a.test")), &enrollment(&[]));
        let own = named_by("A.test", Some(linked("a.test")), &enrollment(&["b.test", "A.TEST"]));
        let outside = named_by("c.test", Some(linked("c.test")), &enrollment(&["a.test"]));
        let unknown = named_by("c.test\n", None, &enrollment(&[]));

        assert_eq!((any.as_deref(), own.as_deref()), (Ok("a.test"), Ok("a.test")));
        assert!(
            outside
                .unwrap_err()
                .starts_with("`iotHubHostName` is `c.test`, which is not among the `iotHubs`")
        );
        assert!(
            unknown
                .unwrap_err()
                .starts_with("`iotHubHostName` is `c.test\\n`, which is not linked")
        );
    }
}
