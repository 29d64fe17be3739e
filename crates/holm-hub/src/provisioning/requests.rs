//! What devices ask, answered: the capability that the protocol fronts know.
//!
//! ```text
//! begin   prove, assign                          202 {"operationId": …, "status": "assigning"}
//!         no proof, but the keys of a TPM        401 {"authenticationKey": …, "keyName": "registration", …}
//! state   prove, the operation is this device's  200 {"operationId": …, "status": …, "registrationState": {…}}
//! ```
//!
//! A registration to the hub of this process is done when it is begun; the answer is 202 all the same, since clients know no other
//! (the identity service of the original refuses 200), and ask for the state then. To another hub it goes on: 202 again.
//!
//! Source: `hub-device-protocols.md` §5.1 to §5.4.

use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_gateway::Credential;
use holm_gateway::provisioning::{Applicant, Standing};
use holm_model::{ProvisioningError, RegistrationId};
use serde_json::{Value, json};

use super::enrollment::Tpm;
use super::fields::Fields;
use super::issuance::{self, Asked};
use super::registrations::no_registration;
use super::{Provisioning, Status, challenge, document, moving};
use crate::HubBackend;
use crate::registry::Authentication;

/// When to ask for the state: what every client takes for it (Java no less, C# no less).
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often a device is let prove itself to an enrollment that changes while it does.
const ATTEMPTS: usize = 2;

/// What a device says of itself when it registers.
#[derive(Debug, Default)]
struct Said {
    payload: Option<Value>,
    /// The certificate it wants.
    asked: Option<Asked>,
    tpm: Option<Tpm>,
}

fn read(id: &str, body: &[u8]) -> Result<Said, ProvisioningError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Said::default());
    }
    let document = document::read_body(body)?;
    let said = Fields::new(&document, "").text("registrationId")?;
    match said {
        Some(said) if !said.eq_ignore_ascii_case(id) => Err(ProvisioningError::argument_invalid(format!(
            "`registrationId` in the body is `{said}`, and the request is of `{id}`; give the same id"
        ))),
        _ => Ok(Said {
            payload: document.get("payload").filter(|payload| !payload.is_null()).cloned(),
            asked: issuance::read(&document)?,
            tpm: challenge::named(&document)?,
        }),
    }
}

impl Provisioning {
    async fn begin(&self, applicant: &Applicant, body: Bytes) -> Result<Standing, ProvisioningError> {
        // Of who proves nothing, nothing else is read.
        if matches!(applicant.credential, Credential::None)
            && let Ok(document) = document::read_body(&body)
            && let Some(tpm) = challenge::named(&document)?
        {
            let sealed = self.0.challenge(applicant, &tpm).await?;
            return Err(challenge::of_challenge(&sealed));
        }
        for _ in 0..ATTEMPTS {
            if let Some(standing) = self.register(applicant, &body).await? {
                return Ok(standing);
            }
        }
        Err(ProvisioningError::unauthorized())
    }

    /// `None` where the enrollment changes meanwhile: what was proved to it may no longer be a proof.
    async fn register(&self, applicant: &Applicant, body: &[u8]) -> Result<Option<Standing>, ProvisioningError> {
        let mut attested = self.0.attest(applicant).await?;
        let said = read(attested.id.as_str(), body)?;
        self.0.throttle.register(Instant::now())?;
        self.0.seal_for_hub(&mut attested, said.tpm.as_ref())?;
        let operation = self.0.operations.begin(&attested.id)?;
        let mut issued = None;
        if let Some(asked) = said.asked.filter(|_| attested.enrollment.enabled) {
            let made = self
                .0
                .issuer
                .issue(&asked, &attested.id, &attested.enrollment, self.0.clock.now())?;
            attested.authentication = Authentication::SelfSigned((Some(made.thumbprint), None));
            issued = Some(made.members);
        }
        let assigned = self.0.assign(attested, said.payload.as_ref(), issued).await?;
        Ok(assigned.map(|registration| Standing {
            status: 202,
            body: json!({
                "operationId": operation,
                "status": "assigning",
                "registrationState": { "registrationId": registration.id.as_str(), "status": "assigning" },
            }),
            retry_after: Some(ASK_AGAIN),
        }))
    }

    async fn state(&self, applicant: &Applicant, operation: &str) -> Result<Standing, ProvisioningError> {
        let id = self.0.attest(applicant).await?.id;
        self.0.throttle.ask(id.key(), Instant::now())?;
        if !self.0.operations.is_of(&id, operation) {
            let shown: String = operation.chars().take(100).collect();
            let text = format!("there is no operation `{shown}` of `{id}`; register again");
            return Err(ProvisioningError::not_found(text));
        }
        let registration = self.last_of(id).await?;
        let is_decided = registration.status != Status::Assigning;
        Ok(Standing {
            status: if is_decided { 200 } else { 202 },
            body: json!({
                "operationId": operation,
                "status": registration.status.name(),
                "registrationState": registration.to_device_json(),
            }),
            retry_after: (!is_decided).then_some(ASK_AGAIN),
        })
    }

    async fn last(&self, applicant: &Applicant) -> Result<Standing, ProvisioningError> {
        let id = self.0.attest(applicant).await?.id;
        self.0.throttle.ask(id.key(), Instant::now())?;
        let registration = self.last_of(id).await?;
        Ok(Standing {
            status: 200,
            body: registration.to_device_json(),
            retry_after: None,
        })
    }

    async fn last_of(&self, id: RegistrationId) -> Result<super::Registration, ProvisioningError> {
        let missing = no_registration(&id);
        let found = self.0.repository.read(move |view| moving::registration_now(view, &id));
        found.await?.ok_or(missing)
    }
}

impl holm_gateway::provisioning::Provisioning for HubBackend {
    fn id_scope(&self) -> Option<&str> {
        Some(self.provisioning.id_scope())
    }

    async fn attest(&self, applicant: &Applicant) -> Result<(), ProvisioningError> {
        self.provisioning.0.attest(applicant).await.map(drop)
    }

    async fn challenge(
        &self,
        applicant: &Applicant,
        endorsement_key: Bytes,
        storage_root_key: Bytes,
    ) -> Result<Vec<u8>, ProvisioningError> {
        let shown = challenge::shown(&endorsement_key, &storage_root_key)?;
        self.provisioning.0.challenge(applicant, &shown).await
    }

    async fn begin(&self, applicant: &Applicant, body: Bytes) -> Result<Standing, ProvisioningError> {
        self.provisioning.begin(applicant, body).await
    }

    async fn state(&self, applicant: &Applicant, operation: &str) -> Result<Standing, ProvisioningError> {
        self.provisioning.state(applicant, operation).await
    }

    async fn last(&self, applicant: &Applicant) -> Result<Standing, ProvisioningError> {
        self.provisioning.last(applicant).await
    }
}
