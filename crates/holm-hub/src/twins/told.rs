//! Who is told that a twin changed, in the transaction that changes it: those who read the hub's events, of the twin and of the
//! digital twin, and the history.
//!
//! The digital twin is told of where somebody wants to know and the device or module has announced a model.

use holm_model::{ServiceError, Timestamp, Twin};
use serde_json::{Map, Value};

use crate::digital_twin;
use crate::events::notice::{self, ChangedBy, Operation};
use crate::registry::Entry;
use crate::routing::Source;
use crate::storage::Transaction;
use crate::twin_history;

/// A twin that is about to change, as far as somebody wants to know afterwards what it was.
pub(super) struct Before(Option<Twin>);

/// A twin that has changed.
pub(super) struct Changed<'t> {
    pub(super) before: Before,
    pub(super) after: &'t Twin,
    pub(super) entry: &'t Entry,
    pub(super) hub_name: &'t str,
    pub(super) now: Timestamp,
}

impl Before {
    pub(super) fn of(transaction: &Transaction<'_>, twin: &Twin) -> Self {
        let is_wanted = transaction.keeps_history() || wants_digital_twins(transaction);
        Self(is_wanted.then(|| twin.clone()))
    }
}

impl Changed<'_> {
    /// Tags or desired properties changed; `what` is the name of that in the history.
    pub(super) fn tell_configured(
        &self,
        transaction: &Transaction<'_>,
        (operation, what): (Operation, &str),
        tags: Option<&Map<String, Value>>,
        desired: Option<&Map<String, Value>>,
    ) -> Result<(), ServiceError> {
        let generation = &self.entry.generation;
        let event = notice::twin_changed(
            self.hub_name,
            generation,
            self.after,
            operation,
            tags,
            desired,
            self.now,
        );
        transaction.emit(&event)?;
        self.tell(transaction, what, ChangedBy::Service(operation))
    }

    /// Reported properties changed.
    pub(super) fn tell_reported(
        &self,
        transaction: &Transaction<'_>,
        reported: &Map<String, Value>,
    ) -> Result<(), ServiceError> {
        let generation = &self.entry.generation;
        let event = notice::reported_changed(self.hub_name, generation, self.after, reported, self.now);
        transaction.emit(&event)?;
        self.tell(transaction, "twin.report", ChangedBy::Device)
    }

    fn tell(&self, transaction: &Transaction<'_>, what: &str, by: ChangedBy) -> Result<(), ServiceError> {
        let Before(Some(before)) = &self.before else {
            return Ok(());
        };
        if transaction.keeps_history() {
            twin_history::keep(transaction, before, self.after, what, self.now)?;
        }
        if !wants_digital_twins(transaction) {
            return Ok(());
        }
        let model = transaction.interest().model_of(transaction, self.after.identity())?;
        if model.is_empty() {
            return Ok(());
        }
        let patch = digital_twin::changes(before, self.after, &model);
        if patch.is_empty() {
            return Ok(());
        }
        let generation = &self.entry.generation;
        let event = notice::digital_twin_changed(self.hub_name, generation, self.after, by, &patch, self.now);
        transaction.emit(&event)
    }
}

fn wants_digital_twins(transaction: &Transaction<'_>) -> bool {
    transaction.interest().wants(Source::DigitalTwinChangeEvents)
}
