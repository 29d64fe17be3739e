//! Certificates that a device has renewed at its hub, over the connection that it has there.
//!
//! ```text
//! shows A, known by (A, B)  --request--> signed: C --one transaction--> known by (C, A)
//! ```
//!
//! - As when it registers: only a device whose enrollment has a `clientCertificateIssuancePolicy`, and is not disabled, has a
//!   certificate made, by the hub's own authority.
//! - The certificate that it shows stays good until it ends. A device that loses the answer is let in by it, and asks again.
//!   Another one that was known is not known any more: a device has two.
//! - A device asks so often and no more: `renewals.rs`.
//! - A device that another provisioning service sent here is not known to this one: it registers anew there.
//!
//! Source: `hub-device-protocols.md` §5.7, hub renewal.

use std::sync::Arc;
use std::time::Instant;

use holm_gateway::Admission;
use holm_identity::Thumbprint;
use holm_identity::ca::request::SigningRequest;
use holm_model::{ErrorCode, RegistrationId, ServiceError};
use rustls::pki_types::CertificateDer;

use super::enrollment::{Enrollment, Kind};
use super::hubs::Hubs;
use super::issuance::NOT_MADE;
use super::registration::{Registration, Status};
use super::{Provisioning, Shared};
use crate::actor::Actor;
use crate::backend::HubBackend;
use crate::registry::{Authentication, Entry};
use crate::storage::{OWN_HUB, View};

/// Registrations of one device that are looked at: it has one, unless enrollments name it twice.
const MAX_REGISTRATIONS: u32 = 16;

impl holm_gateway::Credentials for HubBackend {
    const ISSUES: bool = true;

    async fn may_have_certificate(&self, of: &Admission) -> Result<(), ServiceError> {
        self.provisioning().may_renew(of).await
    }

    async fn issue_certificate(
        &self,
        of: &Admission,
        request: SigningRequest,
    ) -> Result<Vec<CertificateDer<'static>>, ServiceError> {
        let actor = Actor::from(&of.principal);
        actor.does(self.provisioning().renew(of, &request)).await
    }
}

impl Provisioning {
    /// Whether a device may have its certificate renewed; counts that it has asked.
    ///
    /// # Errors
    /// `CertificateNotIssued`; `ThrottleBacklogLimitExceeded` where it asks too often; when the database can't be read.
    async fn may_renew(&self, of: &Admission) -> Result<(), ServiceError> {
        let device = &of.identity.device;
        self.0.renewals.ask(device, Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs() + 1;
            let text = format!("`{device}` asks for certificates too often; it may ask again in {seconds} s");
            ServiceError::new(ErrorCode::ThrottleBacklogLimitExceeded, text)
        })?;
        let (shared, of) = (Arc::clone(&self.0), of.clone());
        let allowed = self.0.repository.read(move |view| shared.renewable(view, &of));
        allowed.await.map(drop)
    }

    /// Renews it; gives the certificate and those above it, leaf first.
    ///
    /// # Errors
    /// As [`Provisioning::may_renew`]; `ServerError`.
    async fn renew(
        &self,
        of: &Admission,
        request: &SigningRequest,
    ) -> Result<Vec<CertificateDer<'static>>, ServiceError> {
        let now = self.0.clock.now();
        let made = self.0.issuer.make(request, now).map_err(|why| {
            tracing::error!(identity = %of.identity, why, "a certificate could not be renewed");
            ServiceError::server_error(NOT_MADE)
        })?;
        let (shared, of, fresh) = (Arc::clone(&self.0), of.clone(), made.thumbprint);
        let written = self.0.repository.change(move |transaction| {
            let (mut entry, shown) = shared.renewable(transaction, &of)?;
            entry.authentication = Authentication::SelfSigned((Some(fresh), Some(shown)));
            entry.renew_etag()?;
            transaction.put_entry(&entry)?;
            transaction.record("device.certificate", &entry.identity, Some(&entry.etag_text()), now)
        });
        written.await?;
        Ok(made.chain)
    }
}

impl Shared {
    /// The device of a session whose certificate may be renewed, and what is known of the one that it shows.
    fn renewable(&self, view: &View<'_>, of: &Admission) -> Result<(Entry, Thumbprint), ServiceError> {
        let identity = &of.identity;
        let refused = |why: String| ServiceError::new(ErrorCode::CertificateNotIssued, why);
        let shown = of.thumbprint.clone().ok_or_else(|| {
            refused(format!(
                "`{identity}` has not proved itself by a certificate; a certificate is what is renewed"
            ))
        })?;
        let entry = view
            .entry(identity)?
            .filter(|entry| entry.enabled && entry.generation == of.generation_id)
            .ok_or_else(|| refused(format!("`{identity}` is disabled, or was made anew; connect again")))?;
        let is_known = match &entry.authentication {
            Authentication::SelfSigned((primary, secondary)) => {
                primary.iter().chain(secondary).any(|known| *known == shown)
            }
            _ => false,
        };
        if !is_known {
            let text =
                format!("the certificate that `{identity}` has shown is not known any more; connect with another");
            return Err(refused(text));
        }
        if self.enrollment_of(view, &entry)?.is_none() {
            let text = format!(
                "`{identity}` has no enrollment here with a `clientCertificateIssuancePolicy`; have it set, or register anew \
                 where the device was provisioned"
            );
            return Err(refused(text));
        }
        Ok((entry, shown))
    }

    /// The enrollment by which a device is here, if it has certificates made.
    fn enrollment_of(&self, view: &View<'_>, entry: &Entry) -> Result<Option<Enrollment>, ServiceError> {
        let device = &entry.identity.device;
        // One that somebody has made anew by hand is not what was registered.
        let made = view.provisioned(OWN_HUB, device.as_str())?;
        if made.is_some_and(|made| made.generation != entry.generation) {
            return Ok(None);
        }
        for registration in view.registrations_for(device, MAX_REGISTRATIONS)? {
            if !is_here(&registration, &self.hubs) {
                continue;
            }
            let enrollment = match &registration.group {
                None => view.enrollment(Kind::Individual, &registration.id)?,
                Some(group) => match RegistrationId::new(group) {
                    Ok(group) => view.enrollment(Kind::Group, &group)?,
                    Err(_) => None,
                },
            };
            let enrollment = enrollment.filter(|enrollment| enrollment.enabled && enrollment.issuance.is_some());
            if enrollment.is_some() {
                return Ok(enrollment);
            }
        }
        Ok(None)
    }
}

fn is_here(registration: &Registration, hubs: &Hubs) -> bool {
    let assignment = registration.assignment.as_ref();
    registration.status == Status::Assigned && assignment.is_some_and(|assignment| hubs.is_own(&assignment.hub))
}
