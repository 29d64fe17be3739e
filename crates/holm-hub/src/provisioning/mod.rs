//! The provisioning service: devices that know nothing but an id scope and a proof ask it where they belong, and become devices
//! of a hub.
//!
//! ```text
//! back ends --REST--> enrollments: whom to expect             (enrollment.rs, document.rs; access.rs: who may)
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
//! - Groups are in memory with what verifies their certificates; individual enrollments are one indexed read.
//!
//! Source: `hub-device-protocols.md` §5, `hub-service-api.md` §7.

mod access;
mod allocation;
mod assign;
mod attest;
mod certificates;
mod challenge;
mod document;
mod enrollment;
mod fields;
mod groups;
mod hubs;
mod issuance;
mod linked;
mod moving;
mod operations;
mod place;
mod registration;
mod requests;
mod settings;
mod throttle;
mod webhook;

pub use access::{ProvisioningPolicy, ProvisioningRights};
pub use certificates::{CertificateWish, MAX_CERTIFICATES};
pub use enrollment::{Allocation, Attestation, Certificate, Enrollment, Kind, Reprovision, Signer, Tpm, Webhook};
pub use hubs::{HubWish, MAX_HUBS};

pub use crate::tpm::{InvalidPublicArea, PublicArea};
pub use registration::{Assignment, Registration, Status, Substatus};

use std::sync::Arc;

use holm_identity::{CertificateAuthority, Secret};
use holm_model::{ProvisioningCode, ProvisioningError, RegistrationId, ServiceError, etag};
use serde_json::{Map, Value};

use crate::actor::Actor;
use crate::authority::Authority;
use crate::policies::{Policies, PolicySet};
use crate::presence::Presence;
use crate::registry::Registry;
use crate::storage::{Repository, Transaction};
use crate::twins::Twins;
use crate::{Clock, HubConfig, Signals};

use access::Access;
use certificates::Certificates;
use challenge::Challenges;
use document::Shown;
use groups::Groups;
use hubs::Hubs;
use issuance::Issuer;
use operations::Operations;
use place::OwnHub;
use throttle::Throttle;

/// The most groups: each registration by a key tries all of them.
pub const MAX_GROUPS: u32 = 1000;
/// The most enrollments that one request changes. Source: `hub-service-api.md` §7.
pub const MAX_BULK: usize = 10;

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
    /// Those of authorities, which enrollments name.
    certificates: Certificates,
    throttle: Throttle,
    issuer: Issuer,
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

/// What a document is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMode {
    /// Make new ones.
    Create,
    /// Change what is there.
    Update,
    /// Change what is there, if its etag is that of the document.
    UpdateIfMatch,
    /// Delete.
    Delete,
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
            certificates: Certificates::new(certificates),
            throttle: Throttle::new(config.registrations_per_minute),
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

    /// Makes or (with `if_match`) changes an enrollment; `id` is that of the path, where there is one.
    ///
    /// # Errors
    /// `Conflict`, `NotFound`, `PreconditionFailed`, `ArgumentInvalid`.
    pub async fn put(
        &self,
        kind: Kind,
        id: Option<RegistrationId>,
        document: Map<String, Value>,
        if_match: Option<String>,
    ) -> Result<Value, ProvisioningError> {
        let id = check_id(kind, id, &document)?;
        let (now, shared) = (self.0.clock.now(), Arc::clone(&self.0));
        let change = move |transaction: &Transaction<'_>| -> Result<Result<_, ProvisioningError>, ServiceError> {
            let current = transaction.enrollment(kind, &id)?;
            if let Err(refused) = check_change(kind, &id, current.as_ref(), if_match.as_deref()) {
                return Ok(Err(refused));
            }
            if current.is_none() && kind == Kind::Group && transaction.enrollment_count(kind)? >= MAX_GROUPS {
                let text = format!("there are {MAX_GROUPS} groups, the most that can be; delete one first");
                return Ok(Err(ProvisioningError::argument_invalid(text)));
            }
            let mut enrollment = match document::read(kind, id, &document, current.as_ref()) {
                Ok(enrollment) => enrollment,
                Err(refused) => return Ok(Err(refused)),
            };
            if let Some(unknown) = enrollment.hubs.iter().find(|hub| shared.hubs.find(hub).is_none()) {
                let hubs = shared.hubs.all();
                let known: Vec<_> = hubs.iter().map(|hub| format!("`{}`", hub.host)).collect();
                let text = format!(
                    "`iotHubs` names `{unknown}`, which is not linked; give some of {}",
                    known.join(", ")
                );
                return Ok(Err(ProvisioningError::argument_invalid(text)));
            }
            if let Attestation::Authorities(primary, secondary) = &enrollment.attestation {
                let mut named = std::iter::once(primary).chain(secondary);
                if let Some(missing) = named.find(|name| shared.certificates.signer(name).is_none()) {
                    let text = format!(
                        "`attestation.x509.caReferences` names `{missing}`, which is no verified certificate; `holm dps certificate list` shows them"
                    );
                    return Ok(Err(ProvisioningError::argument_invalid(text)));
                }
            }
            let is_new = current.is_none();
            enrollment.etag = registration::new_etag()?;
            enrollment.created = current.map_or(now, |current| current.created);
            enrollment.updated = now;
            transaction.put_enrollment(&enrollment)?;
            let what = if is_new { "create" } else { "update" };
            record(transaction, &enrollment, what, now)?;
            Ok(Ok((enrollment.clone(), shown(transaction, &enrollment)?)))
        };
        let shared = Arc::clone(&self.0);
        let done = self.0.repository.change_then(change, move |done| {
            if let Ok((enrollment, _)) = done {
                shared.groups.put(enrollment);
            }
        });
        done.await?.map(|(_, document)| document)
    }

    /// An enrollment.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, kind: Kind, id: RegistrationId) -> Result<Value, ProvisioningError> {
        let missing = not_found(kind, &id);
        let found = self.0.repository.read(move |view| match view.enrollment(kind, &id)? {
            Some(enrollment) => Ok(Some(shown(view, &enrollment)?)),
            None => Ok(None),
        });
        found.await?.ok_or(missing)
    }

    /// How the devices of an enrollment prove themselves, with its keys.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn attestation(&self, kind: Kind, id: RegistrationId) -> Result<Value, ProvisioningError> {
        let missing = not_found(kind, &id);
        let found = self.0.repository.read(move |view| view.enrollment(kind, &id)).await?;
        let found = found.ok_or(missing)?;
        Ok(document::write_attestation(&found.attestation, Shown::Whole))
    }

    /// Deletes an enrollment; what became of its devices stays known, and they stay devices.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`.
    pub async fn remove(
        &self,
        kind: Kind,
        id: RegistrationId,
        if_match: Option<String>,
    ) -> Result<(), ProvisioningError> {
        let (now, shared) = (self.0.clock.now(), Arc::clone(&self.0));
        let removed = self.0.repository.change_then(
            move |transaction| {
                let Some(current) = transaction.enrollment(kind, &id)? else {
                    return Ok(Err(not_found(kind, &id)));
                };
                if let Err(refused) = check_etag(&current.etag_text(), if_match.as_deref(), &id) {
                    return Ok(Err(refused));
                }
                transaction.remove_enrollment(kind, &id)?;
                record(transaction, &current, "delete", now)?;
                Ok(Ok(id))
            },
            move |removed: &Result<RegistrationId, ProvisioningError>| {
                if let (Ok(id), Kind::Group) = (removed, kind) {
                    shared.groups.remove(id);
                }
            },
        );
        removed.await?.map(drop)
    }

    /// Carries out one of the changes of a bulk.
    ///
    /// # Errors
    /// As [`Provisioning::put`] and [`Provisioning::remove`].
    pub async fn bulk_item(
        &self,
        kind: Kind,
        mode: BulkMode,
        document: Map<String, Value>,
    ) -> Result<(), ProvisioningError> {
        let etag = document
            .get("etag")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let if_match = match mode {
            BulkMode::Create => None,
            BulkMode::Update => Some("*".to_owned()),
            BulkMode::UpdateIfMatch => Some(etag),
            BulkMode::Delete => {
                let id = document::id_of(kind, &document)?;
                let if_match = Some(etag).filter(|etag| !etag.is_empty());
                return self.remove(kind, id, if_match).await;
            }
        };
        self.put(kind, None, document, if_match).await.map(drop)
    }

    /// The enrollments of a kind behind `after`, at most `most`, and the id behind which others are.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(
        &self,
        kind: Kind,
        after: String,
        most: u32,
    ) -> Result<(Vec<Value>, Option<String>), ProvisioningError> {
        let read = self.0.repository.read(move |view| {
            let found = view.enrollments(kind, &after, most)?;
            let next = is_full(found.len(), most).then(|| found.last().map(|last| last.id.key().to_owned()));
            let documents: Result<Vec<_>, _> = found.iter().map(|enrollment| shown(view, enrollment)).collect();
            Ok((documents?, next.flatten()))
        });
        Ok(read.await?)
    }

    /// What became of the device of a registration id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn registration(&self, id: RegistrationId) -> Result<Registration, ProvisioningError> {
        let missing = no_registration(&id);
        let found = self.0.repository.read(move |view| moving::registration_now(view, &id));
        found.await?.ok_or(missing)
    }

    /// Forgets what became of a device: its next registration is its first. The device stays.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`.
    pub async fn forget(&self, id: RegistrationId, if_match: Option<String>) -> Result<(), ProvisioningError> {
        let now = self.0.clock.now();
        let done = self.0.repository.change(move |transaction| {
            let Some(current) = moving::registration_now(transaction, &id)? else {
                return Ok(Err(no_registration(&id)));
            };
            if let Err(refused) = check_etag(&current.etag_text(), if_match.as_deref(), &id) {
                return Ok(Err(refused));
            }
            transaction.remove_move(&id)?;
            transaction.remove_registration(&id)?;
            transaction.record("registration.delete", &current.id, Some(&current.etag_text()), now)?;
            Ok(Ok(()))
        });
        done.await?
    }

    /// What became of the devices of a group, behind `after`, at most `most`, and the id behind which others are.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    pub async fn registrations(
        &self,
        group: RegistrationId,
        after: String,
        most: u32,
    ) -> Result<(Vec<Value>, Option<String>), ProvisioningError> {
        let missing = not_found(Kind::Group, &group);
        let read = self.0.repository.read(move |view| {
            let found = view.registrations_of(&group, &after, most)?;
            // Those of a group that has gone are still to be seen.
            if found.is_empty() && view.enrollment(Kind::Group, &group)?.is_none() {
                return Ok(None);
            }
            let next = is_full(found.len(), most).then(|| found.last().map(|last| last.id.key().to_owned()));
            let documents: Vec<_> = found.iter().map(Registration::to_json).collect();
            Ok(Some((documents, next.flatten())))
        });
        read.await?.ok_or(missing)
    }
}

/// Records who changed an enrollment: `enrollment.create`, `enrollmentGroup.delete`, …
fn record(
    transaction: &Transaction<'_>,
    enrollment: &Enrollment,
    what: &str,
    now: holm_model::Timestamp,
) -> Result<(), ServiceError> {
    let operation = format!("{}.{what}", enrollment.kind.name());
    transaction.record(&operation, &enrollment.id, Some(&enrollment.etag_text()), now)
}

fn is_full(count: usize, most: u32) -> bool {
    u32::try_from(count).is_ok_and(|count| count >= most)
}

fn check_id(
    kind: Kind,
    id: Option<RegistrationId>,
    document: &Map<String, Value>,
) -> Result<RegistrationId, ProvisioningError> {
    let member = kind.id_member();
    match (id, document.get(member).filter(|value| !value.is_null())) {
        (Some(id), None) => Ok(id),
        (None, _) => document::id_of(kind, document),
        (Some(id), Some(_)) => {
            let said = document::id_of(kind, document)?;
            if said == id {
                // The spelling of the body: SDKs that lower the path keep it there.
                return Ok(said);
            }
            Err(ProvisioningError::argument_invalid(format!(
                "`{member}` in the body is `{said}` and in the path `{id}`; give the same id"
            )))
        }
    }
}

fn check_change(
    kind: Kind,
    id: &RegistrationId,
    current: Option<&Enrollment>,
    if_match: Option<&str>,
) -> Result<(), ProvisioningError> {
    match (current, if_match) {
        (None, None) => Ok(()),
        (Some(_), None) => {
            let text = format!(
                "there is an {} `{id}` already; send `If-Match` to change it",
                noun(kind)
            );
            Err(ProvisioningError::new(ProvisioningCode::Conflict, text))
        }
        (None, Some(_)) => Err(not_found(kind, id)),
        (Some(current), Some(_)) => check_etag(&current.etag_text(), if_match, id),
    }
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

/// An enrollment as back ends read it, with the state of its device if it is of one.
fn shown(view: &crate::storage::View<'_>, enrollment: &Enrollment) -> Result<Value, ServiceError> {
    let registration = match enrollment.kind {
        Kind::Individual => {
            let registration = moving::registration_now(view, &enrollment.id)?;
            registration.map(|registration| registration.to_json())
        }
        Kind::Group => None,
    };
    Ok(document::write(enrollment, Shown::Public, registration))
}

const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Individual => "enrollment",
        Kind::Group => "enrollment group",
    }
}

fn not_found(kind: Kind, id: &RegistrationId) -> ProvisioningError {
    ProvisioningError::not_found(format!("there is no {} `{id}`", noun(kind)))
}

fn no_registration(id: &RegistrationId) -> ProvisioningError {
    ProvisioningError::not_found(format!("nobody has registered as `{id}`"))
}

impl Enrollment {
    /// The form in which it is stored: as published, with its secrets.
    pub(crate) fn to_stored(&self) -> Value {
        document::write(self, Shown::Whole, None)
    }

    /// Reads the form in which it is stored; `None` for what is none.
    pub(crate) fn from_stored(kind: Kind, text: &str) -> Option<Self> {
        let Ok(Value::Object(document)) = serde_json::from_str(text) else {
            return None;
        };
        let id = document::id_of(kind, &document).ok()?;
        document::read(kind, id, &document, None).ok()
    }
}
