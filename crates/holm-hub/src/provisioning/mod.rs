//! The provisioning service: devices that know nothing but an id scope and a proof ask it where they belong, and become devices
//! of a hub.
//!
//! ```text
//! back ends --REST--> enrollments: whom to expect   (enrollments.rs, enrollment.rs, document.rs; access.rs: who may)
//! devices --HTTPS, MQTT, AMQP--> attest --> assign --> registration --> hub, device id
//!             (attest.rs)   (webhook.rs decides, if it is to)     a TPM is given something to open first (challenge.rs)
//!                           (assign.rs: hub, device, twin: one transaction)   (registration.rs)
//!                           (moving/: the device at another hub, or from one)
//! ```
//!
//! - It lives in a hub's process, or in one of its own, where no device is ever given to it ([`HubConfig::provisioning_only`]).
//! - It has the hub's database: a device of this hub and the registration that says so appear together. To linked
//!   hubs devices are brought (hubs.rs, allocation.rs, place.rs, linked.rs).
//! - A proof is checked against what is enrolled now, and the enrollment once more within the transaction: one that is disabled
//!   or deleted counts for nobody from then on.
//! - Groups are in memory with what verifies their certificates, and are looked up; individual enrollments are one indexed read. Who
//!   proves nothing is sent away when that has cost too much (searches.rs).
//!
//! Source: `hub-device-protocols.md` §5, `hub-service-api.md` §7.

mod access;
mod allocation;
mod assign;
mod attest;
mod attestation;
mod certificates;
mod challenge;
mod choosing;
pub(crate) mod document;
mod enrollment;
mod enrollments;
mod fields;
mod groups;
mod hubs;
mod issuance;
mod linked;
mod moving;
mod operations;
mod ownership;
mod place;
mod registration;
mod registrations;
mod renewal;
mod renewals;
mod requests;
mod searches;
mod settings;
mod source;
mod throttle;
mod webhook;

pub use access::{ProvisioningPolicy, ProvisioningRights};
pub use certificates::{CertificateWish, MAX_CERTIFICATES};
pub use enrollment::{
    Allocation, Attestation, Certificate, Enrollment, Kind, Reprovision, Signer, Takeover, Tpm, Webhook,
};
pub use enrollments::{BulkMode, MAX_BULK};
pub use hubs::{HubWish, MAX_HUBS};

pub use crate::tpm::{InvalidPublicArea, PublicArea};
pub use registration::{Assignment, Registration, Status, Substatus};

use std::sync::Arc;

use holm_identity::{CertificateAuthority, Secret};
use holm_model::{ProvisioningCode, ProvisioningError, RegistrationId, ServiceError, etag};

use crate::actor::Actor;
use crate::authority::Authority;
use crate::policies::{Policies, PolicySet};
use crate::presence::Presence;
use crate::registry::Registry;
use crate::storage::Repository;
use crate::twins::Twins;
use crate::{Clock, HubConfig, Signals};

use access::Access;
use certificates::Certificates;
use challenge::Challenges;
use groups::Groups;
use hubs::Hubs;
use issuance::Issuer;
use operations::Operations;
use place::OwnHub;
use renewals::Renewals;
use searches::Searches;
use throttle::Throttle;

/// The most groups: who is not known yet and goes by a key has all of them tried.
pub const MAX_GROUPS: u32 = 1000;

/// The provisioning service of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Provisioning(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    repository: Repository,
    presence: Presence,
    signals: Signals,
    clock: Clock,
    hub_name: String,
    /// The hubs that devices are given.
    hubs: Hubs,
    /// That of this process.
    own: OwnHub,
    /// Wakes who brings devices to their hubs.
    moving: tokio::sync::Notify,
    /// What connection strings name.
    service_host: String,
    id_scope: String,
    operations: Operations,
    challenges: Challenges,
    access: Access,
    policies: Policies<ProvisioningRights>,
    groups: Groups,
    /// What strangers have had looked for.
    searches: Searches,
    /// Those of authorities, which enrollments name.
    certificates: Certificates,
    throttle: Throttle,
    issuer: Issuer,
    /// What devices have asked their hub for.
    renewals: Renewals,
    /// Turns to ask webhooks.
    asking: webhook::Asking,
}

/// What the provisioning service works with.
pub(crate) struct Parts {
    pub(crate) repository: Repository,
    pub(crate) presence: Presence,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
    pub(crate) authority: Authority,
    /// Makes certificates for devices.
    pub(crate) issuer: CertificateAuthority,
}

impl Provisioning {
    /// Reads what is enrolled; makes id scope, secret and policy of a new service.
    ///
    /// # Errors
    /// When the database can't be used.
    pub(crate) async fn open(config: &HubConfig, parts: Parts) -> Result<Self, ServiceError> {
        let settings::Prepared {
            settings,
            policies,
            groups,
            hubs,
            certificates,
        } = parts.repository.change(settings::prepare).await?;
        let policies = PolicySet::new(policies);
        let Parts {
            repository,
            presence,
            signals,
            clock,
            authority,
            issuer,
        } = parts;
        let hub_name = config.hub_name();
        let own = OwnHub {
            registry: Registry::new(
                repository.clone(),
                presence.clone(),
                signals.clone(),
                clock.clone(),
                hub_name.clone(),
            ),
            twins: Twins::new(
                repository.clone(),
                presence.clone(),
                signals.clone(),
                clock.clone(),
                hub_name.clone(),
            ),
        };
        Ok(Self(Arc::new(Shared {
            hub_name,
            hubs: Hubs::new((!config.provisioning_only).then(|| config.hostname.clone()), hubs),
            own,
            moving: tokio::sync::Notify::new(),
            service_host: config.service_host(),
            id_scope: settings.id_scope,
            challenges: Challenges::new(settings.secret.clone()),
            operations: Operations::new(settings.secret),
            policies: Policies::new(repository.clone(), clock.clone(), policies.clone()),
            access: Access {
                policies,
                hosts: config.token_hosts(),
                authority,
            },
            groups: Groups::new(groups),
            searches: Searches::default(),
            certificates: Certificates::new(certificates),
            throttle: Throttle::new(config.registrations_per_minute),
            renewals: Renewals::default(),
            issuer: Issuer {
                authority: issuer,
                days: config.issued_certificate_days,
            },
            asking: webhook::Asking::default(),
            repository,
            presence,
            signals,
            clock,
        })))
    }

    /// What devices call this service.
    #[must_use]
    pub fn id_scope(&self) -> &str {
        &self.0.id_scope
    }

    /// The service connection string of its owner: of `provisioningserviceowner`, or of another policy with all rights where that
    /// has not got them.
    #[must_use]
    pub fn connection_string(&self) -> Option<Secret> {
        let owner = self.0.access.policies.owner()?;
        let host = &self.0.service_host;
        Some(crate::hub::connection_string_of(host, &owner.name, &owner.primary))
    }

    /// Who may use the back side.
    #[must_use]
    pub fn policies(&self) -> &Policies<ProvisioningRights> {
        &self.0.policies
    }

    pub(crate) fn policy_set(&self) -> &PolicySet<ProvisioningRights> {
        &self.0.access.policies
    }

    /// Lets a back end do something at `path` (decoded, without the first slash), and tells who it is.
    ///
    /// # Errors
    /// `Unauthorized`.
    pub fn permit(
        &self,
        authorization: Option<&str>,
        path: &str,
        right: ProvisioningRights,
    ) -> Result<Actor, ProvisioningError> {
        let now = self.0.clock.now();
        self.0.access.permit(authorization, path, right, now)
    }
}

fn is_full(count: usize, most: u32) -> bool {
    u32::try_from(count).is_ok_and(|count| count >= most)
}

fn check_etag(current: &str, if_match: Option<&str>, id: &RegistrationId) -> Result<(), ProvisioningError> {
    match if_match {
        Some(wanted) if !etag::matches(wanted, current) => {
            let text = format!("`{id}` was changed by somebody else: its etag is `{current}`; read it and try again");
            Err(ProvisioningError::new(ProvisioningCode::PreconditionFailed, text))
        }
        _ => Ok(()),
    }
}
