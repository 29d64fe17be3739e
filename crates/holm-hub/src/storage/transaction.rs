//! What can be read in a snapshot and what can be changed in a transaction. The verbs stand in the files of their nouns.

use std::ops::Deref;

use rusqlite::{Connection, OptionalExtension, Params, Row};

use holm_model::ServiceError;

use super::fault;

/// Reads one state of the database.
#[derive(Debug)]
pub struct View<'c> {
    pub(super) connection: &'c Connection,
}

/// Reads and changes; everything or nothing of it is kept.
#[derive(Debug)]
pub struct Transaction<'c> {
    view: View<'c>,
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
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self {
            view: View::new(connection),
        }
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
