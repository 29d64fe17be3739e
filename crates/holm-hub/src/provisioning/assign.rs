//! Where a device belongs, and the registration that says so: decided and written in one transaction with the device itself.
//!
//! | it has been | policy of its enrollment | then |
//! | --- | --- | --- |
//! | never registered | | a hub by the allocation; a device with the initial twin, or the one of that id with its new proof |
//! | registered | update, migrate | a hub by the allocation; its data stays or goes with it |
//! | registered | update, no migration | a hub by the allocation; the device is made anew, with the initial twin |
//! | registered | no update | what it was told the last time; a new certificate is known from then on |
//!
//! Where a device of that id is there which is not the enrollment's, it is taken over or not, see [`ownership`](super::ownership).
//!
//! A device of the hub of this process is made within the transaction; for any other hub, or from one, a move begins, see
//! [`moving`](super::moving).
//!
//! Source: `hub-service-api.md` §7.

mod record;

use std::sync::Arc;

use holm_model::{Identity, ProvisioningCode, ProvisioningError, ServiceError, Timestamp};
use serde_json::{Map, Value};

use super::attest::Attested;
use super::choosing::Choice;
use super::enrollment::{Enrollment, Reprovision, Takeover, initial_twin};
use super::moving::{self, Data, Move, Spot};
use super::ownership::{self, Known};
use super::registration::{Assignment, Registration, Status, Substatus};
use super::{Shared, enrollment::Kind};
use crate::actor::Actor;
use crate::registry::{self, Authentication, ProvisionedDevice};
use crate::storage::Transaction;

use record::{begun, ended, refused, show_issued};

/// What a registration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The device is new to this service.
    First,
    /// It stays what and where it is; its proof is brought up to date.
    Keep,
    /// It is told what it was told, and nothing else happens.
    Repeat,
    /// It begins anew.
    Reset,
}

/// What came of it.
pub(super) struct Assigned {
    pub(super) registration: Registration,
    /// Whose proofs no longer hold.
    lost: Vec<Identity>,
    /// Whether these have gone with all that was known of them.
    is_reset: bool,
}

impl Assigned {
    /// Where nothing of the device has changed.
    const fn as_it_was(registration: Registration) -> Self {
        Self {
            registration,
            lost: Vec::new(),
            is_reset: false,
        }
    }
}

impl Shared {
    /// Gives a device its hub; `issued` is what it is shown of a certificate that was made for it. `None` where the enrollment has gone
    /// or changed since the proof was checked: it must be proved again.
    ///
    /// # Errors
    /// What the registry refuses.
    pub(super) async fn assign(
        self: &Arc<Self>,
        attested: Attested,
        payload: Option<&Value>,
        issued: Option<Map<String, Value>>,
    ) -> Result<Option<Registration>, ProvisioningError> {
        let choice = self.choose(&attested, payload).await?;
        let actor = Actor::Enrollment(attested.enrollment.id.to_string());
        let (now, shared, after) = (self.clock.now(), Arc::clone(self), Arc::clone(self));
        let assigned = self.repository.change_then(
            move |transaction| shared.write(transaction, &attested, &choice, issued, now),
            move |assigned| {
                if let Some(assigned) = assigned {
                    assigned
                        .lost
                        .iter()
                        .for_each(|identity| after.signals.revoked(identity));
                    if assigned.is_reset {
                        assigned
                            .lost
                            .iter()
                            .for_each(|identity| after.presence.forget(identity));
                    }
                    after.signals.outbox_filled();
                    if assigned.registration.status == Status::Assigning {
                        after.moving.notify_one();
                    }
                }
            },
        );
        let Some(assigned) = actor.does(assigned).await? else {
            return Ok(None);
        };
        let registration = assigned.registration;
        tracing::info!(registration = %registration.id, status = registration.status.name(), substatus = registration.substatus.name(), "a device has registered");
        Ok(Some(registration))
    }

    /// `None` where the enrollment has gone or changed since the proof was checked.
    fn write(
        &self,
        transaction: &Transaction<'_>,
        attested: &Attested,
        choice: &Choice,
        issued: Option<Map<String, Value>>,
        now: Timestamp,
    ) -> Result<Option<Assigned>, ServiceError> {
        let proved_by = &attested.enrollment;
        let found = transaction.enrollment(proved_by.kind, &proved_by.id)?;
        let Some(enrollment) = found.filter(|found| found.etag == proved_by.etag) else {
            return Ok(None);
        };
        let before = transaction.registration(&attested.id)?;
        let mut registration = begun(attested, &enrollment, before.as_ref(), now);
        registration.renew_etag()?;
        self.know_again(transaction, &mut registration)?;
        if !enrollment.enabled {
            let text = format!("the enrollment `{}` is disabled", enrollment.id);
            let code = ProvisioningCode::Unauthorized;
            return ended(transaction, registration, Status::Disabled, Some((code, text))).map(Some);
        }
        let plan = plan(&enrollment, registration.assignment.as_ref());
        if plan == Plan::Repeat {
            if let Some(before) = before {
                registration.payload = before.payload;
                // By a TPM it keeps the key that it was given; a certificate is its own, and may be a new one.
                if attested.sealed.is_some() {
                    registration.proof = before.proof;
                }
            }
            return self
                .repeat(transaction, registration, attested, &enrollment, issued, now)
                .map(Some);
        }
        let (hub, verdict) = match choice {
            Choice::Given { hub, verdict } => (hub, verdict),
            Choice::Failed(code, why) => {
                let error = Some((*code, why.clone()));
                return ended(transaction, registration, Status::Failed, error).map(Some);
            }
        };
        registration.payload = verdict.payload.clone();
        show_issued(&mut registration, issued);
        let device = enrollment.device.clone().unwrap_or_else(|| match enrollment.kind {
            Kind::Individual => enrollment.id.device(),
            Kind::Group => registration.id.device(),
        });
        let to = Assignment {
            hub: hub.clone(),
            device,
        };
        let wanted = Wanted {
            authentication: &attested.authentication,
            enrollment: &enrollment,
            twin: verdict.initial_twin.as_ref().or(enrollment.initial_twin.as_ref()),
            plan,
        };
        if self.is_local(transaction, &registration, &to)? {
            return self.assign_here(transaction, registration, to, &wanted, now).map(Some);
        }
        self.assign_elsewhere(transaction, registration, to, &wanted, now)
            .map(Some)
    }

    /// It stays what and where it is. A device whose certificate is a new one is known by that from now on, wherever it still is: else
    /// it would be told where it belongs and not be let in there.
    fn repeat(
        &self,
        transaction: &Transaction<'_>,
        mut registration: Registration,
        attested: &Attested,
        enrollment: &Enrollment,
        issued: Option<Map<String, Value>>,
        now: Timestamp,
    ) -> Result<Assigned, ServiceError> {
        let is_by_certificate = matches!(attested.authentication, Authentication::SelfSigned(_));
        let Some(to) = registration.assignment.clone() else {
            return ended(transaction, registration, Status::Assigned, None);
        };
        if !is_by_certificate {
            return self.tell_again(transaction, registration, attested, enrollment, &to);
        }
        show_issued(&mut registration, issued);
        let wanted = Wanted {
            authentication: &attested.authentication,
            enrollment,
            twin: None,
            plan: Plan::Repeat,
        };
        if !self.is_local(transaction, &registration, &to)? {
            return self.assign_elsewhere(transaction, registration, to, &wanted, now);
        }
        if transaction.entry(&Identity::of_device(to.device.clone()))?.is_none() {
            return self.tell_again(transaction, registration, attested, enrollment, &to);
        }
        self.assign_here(transaction, registration, to, &wanted, now)
    }

    /// It is told where it belongs; by an enrollment that takes over none only where that has put it there, or the device goes by what
    /// it shows. Else who has the key of one group would learn of the devices of another, and have their registrations.
    fn tell_again(
        &self,
        transaction: &Transaction<'_>,
        registration: Registration,
        attested: &Attested,
        enrollment: &Enrollment,
        to: &Assignment,
    ) -> Result<Assigned, ServiceError> {
        let before = transaction.registration(&registration.id)?;
        let is_of_another = before.is_some_and(|before| before.group != registration.group)
            && self.known(transaction, &registration.id, enrollment, to)? == Known::None;
        if is_of_another && enrollment.takeover == Takeover::Refuse {
            let there = transaction.entry(&Identity::of_device(to.device.clone()))?;
            let is_shown =
                self.hubs.is_own(&to.hub) && there.is_some_and(|there| there.authentication == attested.authentication);
            if !is_shown {
                return refused(transaction, registration, to, enrollment);
            }
        }
        ended(transaction, registration, Status::Assigned, None)
    }

    /// A hub that is not known and whose device is here was this one, under an earlier name.
    fn know_again(&self, transaction: &Transaction<'_>, registration: &mut Registration) -> Result<(), ServiceError> {
        let (Some(before), Some(own)) = (&mut registration.assignment, self.hubs.own()) else {
            return Ok(());
        };
        let identity = Identity::of_device(before.device.clone());
        if self.hubs.find(&before.hub).is_none() && transaction.entry(&identity)?.is_some() {
            before.hub = own.to_owned();
        }
        Ok(())
    }

    /// Whether a device comes to the hub of this process, and from no other.
    fn is_local(
        &self,
        transaction: &Transaction<'_>,
        registration: &Registration,
        to: &Assignment,
    ) -> Result<bool, ServiceError> {
        let from = registration.assignment.as_ref();
        let comes_from_here = from.is_none_or(|from| self.hubs.is_own(&from.hub));
        Ok(comes_from_here
            && self.hubs.is_own(&to.hub)
            && transaction.pending_move(&registration.id)?.is_none()
            && !transaction.is_leftover(&to.hub, to.device.as_str())?)
    }

    fn assign_here(
        &self,
        transaction: &Transaction<'_>,
        mut registration: Registration,
        to: Assignment,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Assigned, ServiceError> {
        let identity = Identity::of_device(to.device.clone());
        let is_taken = match transaction.entry(&identity)? {
            Some(there) if there.authentication != *wanted.authentication => {
                let known = self.known(transaction, &registration.id, wanted.enrollment, &to)?;
                !known.is(&there.generation)
            }
            _ => false,
        };
        if is_taken && wanted.enrollment.takeover == Takeover::Refuse {
            return refused(transaction, registration, &to, wanted.enrollment);
        }
        let twin = wanted.twin.map(initial_twin).transpose();
        let is_reset = wanted.plan == Plan::Reset;
        let device = ProvisionedDevice {
            device: to.device.clone(),
            authentication: wanted.authentication.clone(),
            edge: wanted.enrollment.edge,
            initial_twin: twin.map_err(|error| ServiceError::argument_invalid(error.message))?,
            is_reset,
        };
        let lost = registry::provision(transaction, device, &self.hub_name, now)?;
        let entry = registry::existing(transaction, &identity)?;
        if is_taken {
            transaction.record("device.takeover", &identity, Some(&entry.etag_text()), now)?;
            tracing::warn!(device = %to.device, enrollment = %wanted.enrollment.id, "a device that another enrollment or somebody by hand has made goes by the proof of this enrollment now");
        }
        let of = (wanted.enrollment.kind, &wanted.enrollment.id);
        ownership::keep(transaction, (&self.hub_key(&to.hub), &to.device), of, entry.generation)?;
        registration.assignment = Some(to);
        match wanted.plan {
            Plan::First => registration.substatus = Substatus::Initial,
            Plan::Reset => registration.substatus = Substatus::Reset,
            Plan::Keep | Plan::Repeat => {}
        }
        transaction.put_registration(&registration)?;
        Ok(Assigned {
            registration,
            lost,
            is_reset,
        })
    }

    fn assign_elsewhere(
        &self,
        transaction: &Transaction<'_>,
        mut registration: Registration,
        to: Assignment,
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Assigned, ServiceError> {
        let before = registration.assignment.as_ref();
        let from = before.filter(|from| self.hubs.find(&from.hub).is_some());
        let (data, substatus) = match (wanted.plan, before, from) {
            (Plan::First, ..) | (_, None, _) => (Data::Begins, Substatus::Initial),
            // Nothing can be had from a hub that is no longer linked.
            (Plan::Reset, ..) | (_, Some(_), None) => (Data::BeginsAnew, Substatus::Reset),
            (_, _, Some(from)) if from.hub.eq_ignore_ascii_case(&to.hub) => (Data::Begins, registration.substatus),
            (_, _, Some(_)) => (Data::Goes, Substatus::Migrated),
        };
        let moving = Move {
            id: registration.id.to_string(),
            enrollment: wanted.enrollment.id.to_string(),
            group: registration.group.clone(),
            data,
            from: from.map(Spot::of),
            to: Spot::of(&to),
            authentication: registry::authentication_json(wanted.authentication),
            edge: wanted.enrollment.edge,
            takeover: wanted.enrollment.takeover,
            known: self.known(transaction, &registration.id, wanted.enrollment, &to)?,
            initial_twin: wanted.twin.cloned(),
            substatus: substatus.name().to_owned(),
            payload: registration.payload.clone(),
            proof: registration.proof.clone(),
            created: registration.created.unix_millis(),
        };
        moving::begin(transaction, &moving, now)?;
        registration.status = Status::Assigning;
        Ok(Assigned::as_it_was(registration))
    }
}

/// What a device is to be.
struct Wanted<'w> {
    authentication: &'w Authentication,
    enrollment: &'w Enrollment,
    twin: Option<&'w Value>,
    plan: Plan,
}

/// What a registration does of a device that was there before, or was not.
pub(super) fn plan(enrollment: &Enrollment, before: Option<&Assignment>) -> Plan {
    let Some(_) = before else {
        return Plan::First;
    };
    match enrollment.reprovision {
        Reprovision {
            update_hub_assignment: false,
            ..
        } => Plan::Repeat,
        Reprovision {
            migrate_device_data: true,
            ..
        } => Plan::Keep,
        Reprovision { .. } => Plan::Reset,
    }
}
