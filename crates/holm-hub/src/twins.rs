//! Twins: what services and devices may do with them, and who is told.
//!
//! A change is decided inside its transaction on the twin as it is there, so ten writers at once make ten versions. The
//! device is told of desired properties after the commit, in the order of the versions.
//!
//! Source: `hub-service-api.md` §2.4.

mod told;

use std::time::Duration;

use holm_model::twin::{TwinChange, TwinFacts, patch};
use holm_model::{Identity, ServiceError, Timestamp, Twin, TwinUpdate, etag};
use serde_json::{Map, Value};

use crate::events::notice::Operation;
use crate::presence::Presence;
use crate::registry::{Authentication, Entry, existing};
use crate::storage::{Activity, Repository, Transaction, View};
use crate::twin_history::{self, PageEnds, Point, State, Step};
use crate::{Clock, Signals};
use told::{Before, Changed};

/// The twins of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct Twins {
    repository: Repository,
    presence: Presence,
    signals: Signals,
    clock: Clock,
    hub_name: String,
    page_ends: PageEnds,
}

/// How long a reader of a history waits for others to end.
const MAX_WAIT: Duration = Duration::from_secs(30);

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
            page_ends: PageEnds::default(),
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
        self.change_by(identity, move |_, _| Ok(update), operation, if_match)
            .await
    }

    /// Sets tags and desired properties to what they were.
    ///
    /// # Errors
    /// As [`Twins::update`], and as [`Twins::at`].
    pub async fn restore(
        &self,
        identity: Identity,
        point: Point,
        if_match: Option<String>,
    ) -> Result<ServiceTwin, ServiceError> {
        // What was does not change: it is read before, so that nobody waits for it.
        let update = self.at(identity.clone(), point).await?.to_update();
        self.update(identity, update, Operation::Replace, if_match).await
    }

    /// What a twin was.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`; `ArgumentInvalid` for a version that is not there yet; `InvalidOperation` for what is not kept
    /// any more, and for what was before the twin; `ThrottlingBacklogTimeout` when that takes too long.
    pub async fn at(&self, identity: Identity, point: Point) -> Result<State, ServiceError> {
        self.repository
            .read_long(MAX_WAIT, move |view| {
                let (entry, twin) = with_entry(view, &identity)?;
                twin_history::state_at(view, (&entry, &twin), point)
            })
            .await
    }

    /// What differs between two points; without `to`, between the first and now.
    ///
    /// # Errors
    /// As [`Twins::at`].
    pub async fn difference(&self, identity: Identity, from: Point, to: Option<Point>) -> Result<Value, ServiceError> {
        self.repository
            .read_long(MAX_WAIT, move |view| {
                let (entry, twin) = with_entry(view, &identity)?;
                let of = (&entry, &twin);
                let to = to.unwrap_or_else(|| Point::Version(twin.version()));
                let from = twin_history::state_at(view, of, from)?;
                Ok(from.difference(&twin_history::state_at(view, of, to)?))
            })
            .await
    }

    /// The changes of a twin up to the one of number `last`, newest first, at most `most`; none where there are no more. Fewer where
    /// more would be too much for one answer.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`; `ThrottlingBacklogTimeout` when that takes too long.
    pub async fn history(&self, identity: Identity, last: Option<u64>, most: u32) -> Result<Vec<Step>, ServiceError> {
        let ends = self.page_ends.clone();
        self.repository
            .read_long(MAX_WAIT, move |view| {
                let (entry, twin) = with_entry(view, &identity)?;
                twin_history::steps(view, (&entry, &twin), last, most, &ends)
            })
            .await
    }

    /// As [`Twins::update`], with a change that is made of the twin as it is.
    ///
    /// # Errors
    /// As there, and what `make` fails with.
    pub async fn update_by(
        &self,
        identity: Identity,
        make: impl FnOnce(&Twin) -> Result<TwinUpdate, ServiceError> + Send + 'static,
        operation: Operation,
        if_match: Option<String>,
    ) -> Result<ServiceTwin, ServiceError> {
        self.change_by(identity, move |_, twin| make(twin), operation, if_match)
            .await
    }

    async fn change_by(
        &self,
        identity: Identity,
        make: impl FnOnce(&View<'_>, &Twin) -> Result<TwinUpdate, ServiceError> + Send + 'static,
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
                    let update = make(transaction, &twin)?;
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

    /// Changes a twin within a transaction of the caller's, who tells the device what comes back, after the commit.
    ///
    /// # Errors
    /// As [`Twins::update`]; then nothing was written.
    pub(crate) fn change_within(
        &self,
        transaction: &Transaction<'_>,
        identity: &Identity,
        update: &TwinUpdate,
        operation: Operation,
        now: Timestamp,
    ) -> Result<Option<Map<String, Value>>, ServiceError> {
        let (entry, mut twin) = with_entry(transaction, identity)?;
        let change = change(transaction, &entry, &mut twin, update, operation, &self.hub_name, now)?;
        Ok(change.desired)
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
        self.report_by(identity, move |_| patch, expected_version).await
    }

    /// Has an identity have reported this, and nothing else, as it had at another hub; gives the version of its reported section. Where
    /// it has that already, nothing changes.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`, `ArgumentInvalid`, `MessageTooLarge`.
    pub async fn adopt_reported(&self, identity: Identity, all: Map<String, Value>) -> Result<u64, ServiceError> {
        let change = move |twin: &Twin| patch::diff(twin.reported().properties(), &all);
        self.report_by(identity, change, None).await
    }

    async fn report_by(
        &self,
        identity: Identity,
        patch: impl FnOnce(&Twin) -> Map<String, Value> + Send + 'static,
        expected_version: Option<u64>,
    ) -> Result<u64, ServiceError> {
        let (now, hub_name, signals) = (self.clock.now(), self.hub_name.clone(), self.signals.clone());
        self.repository
            .change_then(
                move |transaction| {
                    let (entry, mut twin) = with_entry(transaction, &identity)?;
                    let patch = patch(&twin);
                    let before = Before::of(transaction, &twin);
                    let change = twin.patch_reported(&patch, expected_version, now)?;
                    if let Some(reported) = &change.reported {
                        transaction.put_twin(&twin)?;
                        let changed = Changed {
                            before,
                            after: &twin,
                            entry: &entry,
                            hub_name: &hub_name,
                            now,
                        };
                        changed.tell_reported(transaction, reported)?;
                    }
                    Ok(change.version)
                },
                move |_| signals.outbox_filled(),
            )
            .await
    }
}

/// Changes a twin within a transaction, and tells of it. What configurations have written there is looked at again.
pub(crate) fn change(
    transaction: &Transaction<'_>,
    entry: &Entry,
    twin: &mut Twin,
    update: &TwinUpdate,
    operation: Operation,
    hub_name: &str,
    now: Timestamp,
) -> Result<TwinChange, ServiceError> {
    let change = configure(transaction, entry, twin, update, operation, hub_name, now)?;
    if change.desired.is_some() {
        transaction.distrust_configurations(twin.identity())?;
    }
    Ok(change)
}

/// As [`change`], by configurations themselves, which know what they write over.
pub(crate) fn configure(
    transaction: &Transaction<'_>,
    entry: &Entry,
    twin: &mut Twin,
    update: &TwinUpdate,
    operation: Operation,
    hub_name: &str,
    now: Timestamp,
) -> Result<TwinChange, ServiceError> {
    let before = Before::of(transaction, twin);
    let change = match operation {
        Operation::Update => twin.patch(update, now)?,
        Operation::Replace => twin.replace(update, now)?,
    };
    if change.tags || change.desired.is_some() {
        transaction.put_twin(twin)?;
        let what = match operation {
            Operation::Update => "twin.update",
            Operation::Replace => "twin.replace",
        };
        let version = change.version.to_string();
        transaction.record(what, twin.identity(), Some(&version), now)?;
        let tags = change.tags.then_some(()).and(update.tags.as_ref());
        let changed = Changed {
            before,
            after: twin,
            entry,
            hub_name,
            now,
        };
        changed.tell_configured(transaction, (operation, what), tags, change.desired.as_ref())?;
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

/// A twin as a service reads it, within a snapshot.
pub(crate) fn whole(view: &View<'_>, presence: &Presence, identity: &Identity) -> Result<Value, ServiceError> {
    let (entry, twin) = with_entry(view, identity)?;
    Ok(service_twin(view, &entry, twin, presence.activity(identity))?.to_json())
}

/// What is known of an identity's connection, within a snapshot.
pub(crate) fn activity(view: &View<'_>, presence: &Presence, identity: &Identity) -> Result<Activity, ServiceError> {
    match presence.activity(identity) {
        Some(live) => Ok(live),
        None => Ok(view.activity(identity)?.unwrap_or_default()),
    }
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
        configurations: view
            .twin_configurations(&entry.identity)?
            .map_or_else(Vec::new, |row| row.statuses),
    };
    Ok(ServiceTwin { twin, facts })
}
