//! Twins: what services and devices may do with them, and who is told.
//!
//! A change is decided inside its transaction on the twin as it is there, so ten writers at once make ten versions. The
//! device is told of desired properties after the commit, in the order of the versions.
//!
//! Source: `hub-service-api.md` §2.4.

use holm_model::twin::{TwinChange, TwinFacts};
use holm_model::{Identity, ServiceError, Timestamp, Twin, TwinUpdate, etag};
use serde_json::{Map, Value};

use crate::events::notice::{self, Operation};
use crate::presence::Presence;
use crate::registry::{Authentication, Entry, existing};
use crate::storage::{Activity, Repository, Transaction, View};
use crate::{Clock, Signals};

/// The twins of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Twins {
    repository: Repository,
    presence: Presence,
    signals: Signals,
    clock: Clock,
    hub_name: String,
}

/// A twin with what the registry knows, as a service reads it.
#[derive(Clone, Debug)]
pub struct ServiceTwin {
    /// The twin.
    pub twin: Twin,
    /// What stands around it.
    pub facts: TwinFacts,
}

impl ServiceTwin {
    /// The published form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.twin.service_view(&self.facts)
    }
}

impl Twins {
    /// Twins over a repository.
    #[must_use]
    pub fn new(repository: Repository, presence: Presence, signals: Signals, clock: Clock, hub_name: String) -> Self {
        Self {
            repository,
            presence,
            signals,
            clock,
            hub_name,
        }
    }

    /// A twin as a service reads it.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`.
    pub async fn get(&self, identity: Identity) -> Result<ServiceTwin, ServiceError> {
        let live = self.presence.activity(&identity);
        self.repository
            .read(move |view| {
                let (entry, twin) = with_entry(view, &identity)?;
                service_twin(view, &entry, twin, live)
            })
            .await
    }

    /// A twin as its device reads it.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`.
    pub async fn device_view(&self, identity: Identity) -> Result<Value, ServiceError> {
        self.repository
            .read(move |view| Ok(with_entry(view, &identity)?.1.device_view()))
            .await
    }

    /// Merges (`PATCH`) or replaces (`PUT`) tags and desired properties, if the etag matches.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`, `PreconditionFailed`, `ArgumentInvalid`, `DeviceModelMaxPropertiesExceeded`.
    pub async fn update(
        &self,
        identity: Identity,
        update: TwinUpdate,
        operation: Operation,
        if_match: Option<String>,
    ) -> Result<ServiceTwin, ServiceError> {
        let live = self.presence.activity(&identity);
        let (now, hub_name, signals) = (self.clock.now(), self.hub_name.clone(), self.signals.clone());
        let told = identity.clone();
        let (twin, _) = self
            .repository
            .change_then(
                move |transaction| {
                    let (entry, mut twin) = with_entry(transaction, &identity)?;
                    check_etag(&twin, if_match.as_deref())?;
                    let change = change(transaction, &entry, &mut twin, &update, operation, &hub_name, now)?;
                    Ok((service_twin(transaction, &entry, twin, live)?, change))
                },
                move |(_, change)| {
                    if let Some(desired) = &change.desired {
                        signals.desired_changed(&told, desired);
                    }
                    signals.outbox_filled();
                },
            )
            .await?;
        Ok(twin)
    }

    /// Merges what an identity reports; gives the new version of its reported section.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`, `PreconditionFailed`, `ArgumentInvalid`, `MessageTooLarge`.
    pub async fn report(
        &self,
        identity: Identity,
        patch: Map<String, Value>,
        expected_version: Option<u64>,
    ) -> Result<u64, ServiceError> {
        let (now, hub_name, signals) = (self.clock.now(), self.hub_name.clone(), self.signals.clone());
        self.repository
            .change_then(
                move |transaction| {
                    let (entry, mut twin) = with_entry(transaction, &identity)?;
                    let change = twin.patch_reported(&patch, expected_version, now)?;
                    if let Some(reported) = &change.reported {
                        transaction.put_twin(&twin)?;
                        let event = notice::reported_changed(&hub_name, &entry.generation, &twin, reported, now);
                        transaction.emit(&event)?;
                    }
                    Ok(change.version)
                },
                move |_| signals.outbox_filled(),
            )
            .await
    }
}

/// Changes a twin within a transaction, and tells of it.
pub(crate) fn change(
    transaction: &Transaction<'_>,
    entry: &Entry,
    twin: &mut Twin,
    update: &TwinUpdate,
    operation: Operation,
    hub_name: &str,
    now: Timestamp,
) -> Result<TwinChange, ServiceError> {
    let change = match operation {
        Operation::Update => twin.patch(update, now)?,
        Operation::Replace => twin.replace(update, now)?,
    };
    if change.tags || change.desired.is_some() {
        transaction.put_twin(twin)?;
        let tags = change.tags.then_some(()).and(update.tags.as_ref());
        let desired = change.desired.as_ref();
        transaction.emit(&notice::twin_changed(
            hub_name,
            &entry.generation,
            twin,
            operation,
            tags,
            desired,
            now,
        ))?;
    }
    Ok(change)
}

pub(crate) fn with_entry(view: &View<'_>, identity: &Identity) -> Result<(Entry, Twin), ServiceError> {
    let entry = existing(view, identity)?;
    let twin = view
        .twin(identity)?
        .ok_or_else(|| ServiceError::server_error(format!("the twin of `{identity}` is missing")))?;
    Ok((entry, twin))
}

fn check_etag(twin: &Twin, if_match: Option<&str>) -> Result<(), ServiceError> {
    let current = twin.etag();
    match if_match {
        Some(wanted) if !etag::matches(wanted, &current) => Err(ServiceError::precondition_failed(format!(
            "the twin of `{}` was changed by somebody else: its etag is `{current}`; read it and try again",
            twin.identity()
        ))),
        _ => Ok(()),
    }
}

fn service_twin(
    view: &View<'_>,
    entry: &Entry,
    twin: Twin,
    live: Option<Activity>,
) -> Result<ServiceTwin, ServiceError> {
    let activity = match live {
        Some(live) => live,
        None => view.activity(&entry.identity)?.unwrap_or_default(),
    };
    let waiting = if entry.identity.is_module() {
        0
    } else {
        view.waiting_count(&entry.identity.device)?
    };
    let thumbprints = match &entry.authentication {
        Authentication::SelfSigned((primary, secondary)) => {
            let text =
                |print: &Option<holm_identity::Thumbprint>| print.as_ref().map(|print| print.as_str().to_owned());
            (text(primary), text(secondary))
        }
        _ => (None, None),
    };
    let facts = TwinFacts {
        device_etag: entry.etag_text(),
        enabled: entry.enabled,
        status_reason: entry.status_reason.clone(),
        status_update_time: entry.status_updated,
        connected: activity.connected,
        last_activity_time: activity.last_activity,
        cloud_to_device_message_count: waiting,
        authentication_type: entry.authentication.kind().to_owned(),
        x509_thumbprints: thumbprints,
        model_id: activity.model_id,
        iot_edge: entry.edge,
        device_scope: entry.device_scope.clone(),
        parent_scopes: entry.parent_scopes.clone(),
        configurations: Vec::new(),
    };
    Ok(ServiceTwin { twin, facts })
}
