//! What can be read in a snapshot and what can be changed in a transaction. The verbs stand in the files of their nouns.

use std::cell::RefCell;
use std::ops::Deref;

use rusqlite::{Connection, OptionalExtension, Params, Row};

use holm_model::{Identity, ServiceError};

use super::fault;
use crate::actor::Actor;
use crate::events::Interest;

/// Reads one state of the database.
#[derive(Debug)]
pub struct View<'c> {
    pub(super) connection: &'c Connection,
}

/// Reads and changes; everything or nothing of it is kept.
#[derive(Debug)]
pub struct Transaction<'c> {
    view: View<'c>,
    actor: Actor,
    keeps_history: bool,
    interest: Interest,
    touched: RefCell<Vec<Touched>>,
}

/// What a transaction has changed of what decides about targets of configurations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    /// An identity: it came, went, or its entry or twin changed.
    Identity(Identity),
    /// A configuration.
    Configurations,
}

impl<'c> View<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self { connection }
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, ServiceError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        statement
            .query_row(parameters, read)
            .optional()
            .map_err(|error| fault(&error))
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ServiceError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        let rows = statement.query_map(parameters, read).map_err(|error| fault(&error))?;
        rows.collect::<rusqlite::Result<_>>().map_err(|error| fault(&error))
    }
}

impl<'c> Transaction<'c> {
    pub(super) const fn new(connection: &'c Connection, actor: Actor, keeps_history: bool, interest: Interest) -> Self {
        Self {
            view: View::new(connection),
            actor,
            keeps_history,
            interest,
            touched: RefCell::new(Vec::new()),
        }
    }

    /// Whether what became of twins is kept.
    #[must_use]
    pub const fn keeps_history(&self) -> bool {
        self.keeps_history
    }

    /// Which events anybody wants to know of.
    pub(crate) const fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Who makes this change.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Makes a part of the change that may fail by itself: nothing of it is then kept, and the rest goes on. The inner outcome is
    /// the part's.
    ///
    /// # Errors
    /// When the database can't be written to; then nothing of the whole change is kept.
    pub fn attempt<T>(
        &self,
        part: impl FnOnce(&Self) -> Result<T, ServiceError>,
    ) -> Result<Result<T, ServiceError>, ServiceError> {
        let connection = self.view.connection;
        let execute = |sql| connection.execute_batch(sql).map_err(|error| fault(&error));
        execute("SAVEPOINT part")?;
        let outcome = part(self);
        match &outcome {
            Ok(_) => execute("RELEASE part")?,
            // At a full or failing disk SQLite may have ended the whole transaction.
            Err(error) if connection.is_autocommit() => return Err(error.clone()),
            Err(_) => execute("ROLLBACK TO part; RELEASE part")?,
        }
        Ok(outcome)
    }

    /// As [`Transaction::attempt`], with a part that somebody else makes.
    ///
    /// # Errors
    /// As [`Transaction::attempt`].
    pub fn attempt_by<T>(
        &self,
        actor: Actor,
        part: impl FnOnce(&Self) -> Result<T, ServiceError>,
    ) -> Result<Result<T, ServiceError>, ServiceError> {
        let theirs = Self::new(self.view.connection, actor, self.keeps_history, self.interest.clone());
        let outcome = theirs.attempt(part)?;
        if outcome.is_ok() {
            self.touched.borrow_mut().append(&mut theirs.into_touched());
        }
        Ok(outcome)
    }

    /// Notes that an identity, its entry or its twin is another now.
    pub(crate) fn touch(&self, identity: &Identity) {
        let mut touched = self.touched.borrow_mut();
        let what = Touched::Identity(identity.clone());
        // A change of entry and twin is told once.
        if touched.last() != Some(&what) {
            touched.push(what);
        }
    }

    /// Notes that configurations changed.
    pub(super) fn touch_configurations(&self) {
        self.touched.borrow_mut().push(Touched::Configurations);
    }

    pub(super) fn into_touched(self) -> Vec<Touched> {
        self.touched.into_inner()
    }

    /// Writes; gives the number of rows that changed.
    pub(super) fn write(&self, sql: &str, parameters: impl Params) -> Result<usize, ServiceError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        statement.execute(parameters).map_err(|error| fault(&error))
    }
}

impl<'c> Deref for Transaction<'c> {
    type Target = View<'c>;
    fn deref(&self) -> &View<'c> {
        &self.view
    }
}
