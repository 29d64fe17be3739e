//! Message routing as operators have set it: routes, endpoints, enrichments, and the fallback route, a document each.

use holm_model::{ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View};

/// What a document of routing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingKind {
    /// Says which messages go to which endpoint.
    Route,
    /// Somewhere where messages go.
    Endpoint,
    /// A property that the hub adds.
    Enrichment,
    /// The route of what no route took; there is one, without a name.
    Fallback,
}

/// A document of routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingRow {
    /// What it is.
    pub kind: RoutingKind,
    /// Its name as it was first written.
    pub name: String,
    /// Grows with each change of any document: its etag.
    pub revision: i64,
    /// The revision with which it was made, which no other document of this name has.
    pub made: i64,
    /// JSON, with its secrets.
    pub document: String,
}

impl RoutingKind {
    const ALL: [Self; 4] = [Self::Route, Self::Endpoint, Self::Enrichment, Self::Fallback];

    const fn word(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Endpoint => "endpoint",
            Self::Enrichment => "enrichment",
            Self::Fallback => "fallback",
        }
    }
}

impl View<'_> {
    /// All documents, by kind and name. What a later release has put there is passed over.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn routing(&self) -> Result<Vec<RoutingRow>, ServiceError> {
        let sql = "SELECT kind, name, revision, made, document FROM routing ORDER BY kind, name";
        let rows = self.all(sql, [], |row| {
            let kind: String = row.get(0)?;
            let kind = RoutingKind::ALL.into_iter().find(|known| known.word() == kind);
            Ok((kind, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?;
        let rows = rows.into_iter().filter_map(|(kind, name, revision, made, document)| {
            Some(RoutingRow {
                kind: kind?,
                name,
                revision,
                made,
                document,
            })
        });
        Ok(rows.collect())
    }
}

impl Transaction<'_> {
    /// Writes a document, new or instead of the one of the same name (compared without case), and gives its revision.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_routing(
        &self,
        kind: RoutingKind,
        name: &str,
        document: &str,
        now: Timestamp,
    ) -> Result<i64, ServiceError> {
        let newest = self.one("SELECT coalesce(max(revision), 0) FROM routing", [], |row| row.get(0))?;
        let newest: i64 = newest.unwrap_or_default();
        // The time, so that a name that comes again does not come with a revision that it had.
        let revision = now.unix_millis().max(newest + 1);
        let sql = "INSERT INTO routing (kind, name, revision, made, document) VALUES (?1, ?2, ?3, ?3, ?4) \
                   ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, document = excluded.document";
        self.write(sql, params![kind.word(), name, revision, document])?;
        Ok(revision)
    }

    /// Removes a document; says whether there was one.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_routing(&self, kind: RoutingKind, name: &str) -> Result<bool, ServiceError> {
        let sql = "DELETE FROM routing WHERE kind = ?1 AND name = ?2";
        Ok(self.write(sql, params![kind.word(), name])? > 0)
    }
}
