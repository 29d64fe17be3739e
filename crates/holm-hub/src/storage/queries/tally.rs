//! How many identities have which values, where that is known without reading twins: for counts and groups.
//!
//! ```text
//! reads nothing, or `status`, `capabilities`, `authenticationType`    identity_counts: a row for each mixture, kept by triggers
//! reads one path in the tags                                          twin_tags: the values of the path, each with its rows
//! ```
//!
//! What is found is told as documents that stand for so many identities. Whether they match, and what is shown of them, says the
//! query's own evaluator. A path of which the index does not hold everything exactly is not counted here.

use std::collections::BTreeSet;

use holm_model::ServiceError;
use holm_query::twin::{Filter, Path, Step, Test};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params_from_iter};
use serde_json::{Map, Value, json};

use super::super::{View, fault, to_u64};
use super::Effort;
use super::tags::{self, MARK};

/// The most rows of the index that are counted in a short read.
const MAX_SHORT: i64 = 65_536;

/// What is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'t> {
    /// Everything that a query reads.
    pub paths: &'t BTreeSet<&'t Path>,
    /// What every match passes.
    pub filter: &'t Filter,
    /// Modules, and not devices.
    pub modules: bool,
    /// How much may be read.
    pub effort: Effort,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tallied {
    /// Everything was shown that can match.
    Done,
    /// It can't be known without reading twins; what was shown is void.
    Unknown,
    /// It takes more than the effort that was given; nothing was shown.
    TooLong,
}

impl View<'_> {
    /// Shows documents that stand for so many identities each, and together for all that can match.
    ///
    /// # Errors
    /// When the database can't be read; what `show` fails with.
    pub fn tally(
        &self,
        tally: Tally<'_>,
        show: &mut dyn FnMut(&Value, u64) -> Result<(), ServiceError>,
    ) -> Result<Tallied, ServiceError> {
        if tally.paths.iter().all(|path| is_counted(path)) {
            for (document, count) in self.mixtures(tally.modules)? {
                show(&document, count)?;
            }
            return Ok(Tallied::Done);
        }
        let mut paths = tally.paths.iter();
        match (paths.next(), paths.next()) {
            (Some(path), None) => self.tally_tag(tally, path, show),
            _ => Ok(Tallied::Unknown),
        }
    }

    /// How many devices there are, or modules.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(in crate::storage) fn identity_count(&self, modules: bool) -> Result<u64, ServiceError> {
        Ok(self.mixtures(modules)?.iter().map(|(_, count)| count).sum())
    }

    fn mixtures(&self, modules: bool) -> Result<Vec<(Value, u64)>, ServiceError> {
        let sql = "SELECT enabled, edge, auth, count FROM identity_counts WHERE is_module = ? AND count > 0";
        self.all(sql, [modules], |row| {
            let status = if row.get(0)? { "enabled" } else { "disabled" };
            let (edge, auth): (bool, String) = (row.get(1)?, row.get(2)?);
            let document = json!({"status": status, "capabilities": {"iotEdge": edge}, "authenticationType": auth});
            Ok((document, to_u64(row.get(3)?)))
        })
    }

    fn tally_tag(
        &self,
        tally: Tally<'_>,
        path: &Path,
        show: &mut dyn FnMut(&Value, u64) -> Result<(), ServiceError>,
    ) -> Result<Tallied, ServiceError> {
        // Every match is among the rows that the filter's tests leave; without such there may be matches that have no value.
        let tests = tests_of(tally.filter);
        let of_tests = tags::rows_of_tests(path, &tests);
        let is_everything = of_tests.is_none();
        let Some(rows) = of_tests.or_else(|| tags::rows_of_path(path)) else {
            return Ok(Tallied::Unknown);
        };
        let kind = if tally.modules { "module != ''" } else { "module = ''" };
        let from = format!("FROM twin_tags WHERE {} AND {kind}", rows.condition);
        if tally.effort != Effort::Full {
            let sql = format!("SELECT count(*) FROM (SELECT 1 {from} LIMIT {})", MAX_SHORT + 1);
            let count: Option<i64> = self.one(&sql, params_from_iter(&rows.parameters), |row| row.get(0))?;
            if count.is_none_or(|count| count > MAX_SHORT) {
                return Ok(Tallied::TooLong);
            }
        }
        // Wherever it is: a text with a NUL stands among those that are like its beginning.
        let sql = format!("SELECT 1 FROM twin_tags WHERE path = ? AND kind = {MARK} AND {kind} LIMIT 1");
        if self
            .one(&sql, params_from_iter(rows.parameters.first()), |_| Ok(()))?
            .is_some()
        {
            return Ok(Tallied::Unknown);
        }
        let sql = format!("SELECT kind, value, count(*) {from} GROUP BY kind, value");
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| fault(&error))?;
        let mut found = statement
            .query(params_from_iter(&rows.parameters))
            .map_err(|error| fault(&error))?;
        let mut valued = 0;
        while let Some(row) = found.next().map_err(|error| fault(&error))? {
            let (value, count) = json_of(row).map_err(|error| fault(&error))?;
            let Some(value) = value else {
                return Ok(Tallied::Unknown);
            };
            valued += count;
            show(&document(path.steps(), value), count)?;
        }
        let others = self.identity_count(tally.modules)?.saturating_sub(valued);
        if is_everything && others > 0 {
            show(&Value::Object(Map::new()), others)?;
        }
        Ok(Tallied::Done)
    }
}

/// Whether `identity_counts` knows how many there are of each.
fn is_counted(path: &Path) -> bool {
    matches!(path.root(), "status" | "capabilities" | "authenticationType")
}

/// The tests that every match passes, each by itself.
fn tests_of(filter: &Filter) -> Vec<&Test> {
    match filter {
        Filter::Test(test) => vec![test],
        Filter::All(filters) => filters
            .iter()
            .flat_map(|filter| match filter {
                Filter::Test(test) => vec![test],
                _ => vec![],
            })
            .collect(),
        Filter::Always | Filter::Never | Filter::Any(_) => vec![],
    }
}

/// A kind, a value and how many have it; no value where the row does not say exactly what it is. Numbers with a fraction are read by the
/// database in its own way.
fn json_of(row: &Row<'_>) -> rusqlite::Result<(Option<Value>, u64)> {
    let value = match (row.get(0)?, row.get_ref(1)?) {
        (0, _) => Some(Value::Null),
        (1, ValueRef::Integer(value)) => Some((value != 0).into()),
        (2, ValueRef::Integer(value)) => Some(value.into()),
        (3, ValueRef::Text(text)) => std::str::from_utf8(text).ok().map(Value::from),
        _ => None,
    };
    Ok((value, to_u64(row.get(2)?)))
}

/// A document with nothing but this value at this place.
fn document(steps: &[Step], value: Value) -> Value {
    steps.iter().rev().fold(value, |inner, step| match step {
        Step::Key(key) => Value::Object(Map::from_iter([(key.clone(), inner)])),
        Step::Index(index) => {
            let mut items = vec![Value::Null; *index];
            items.push(inner);
            Value::Array(items)
        }
    })
}

/// The table and what keeps it. No statement in a trigger leaves it to a conflict what happens: who writes says that for all of them.
const COUNTS: &str = "
CREATE TABLE IF NOT EXISTS identity_counts (
    is_module INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    edge INTEGER NOT NULL,
    auth TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (is_module, enabled, edge, auth)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS identity_counts_written BEFORE INSERT ON identities
BEGIN
    UPDATE identity_counts SET count = count - 1 WHERE (is_module, enabled, edge, auth) =
        (SELECT old.module != '', old.enabled, old.edge, old.auth FROM identities AS old
            WHERE old.device = NEW.device AND old.module = NEW.module);
    INSERT INTO identity_counts (is_module, enabled, edge, auth, count) SELECT NEW.module != '', NEW.enabled, NEW.edge, NEW.auth, 0
        WHERE NOT EXISTS (SELECT 1 FROM identity_counts
            WHERE (is_module, enabled, edge, auth) = (NEW.module != '', NEW.enabled, NEW.edge, NEW.auth));
    UPDATE identity_counts SET count = count + 1
        WHERE (is_module, enabled, edge, auth) = (NEW.module != '', NEW.enabled, NEW.edge, NEW.auth);
END;
CREATE TRIGGER IF NOT EXISTS identity_counts_removed AFTER DELETE ON identities
BEGIN
    UPDATE identity_counts SET count = count - 1
        WHERE (is_module, enabled, edge, auth) = (OLD.module != '', OLD.enabled, OLD.edge, OLD.auth);
END;
";

const FILL: &str = "INSERT INTO identity_counts (is_module, enabled, edge, auth, count)
SELECT module != '', enabled, edge, auth, count(*) FROM identities GROUP BY 1, 2, 3, 4;";

/// Makes the counts where they are missing, from the identities that are there.
pub(in crate::storage) fn make_counts(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'identity_counts'";
    let is_there = connection.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0;
    let fill = if is_there { "" } else { FILL };
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {COUNTS} {fill} COMMIT;"))
}
