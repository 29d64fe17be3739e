//! Reading the fleet for a query: rows in order of their keys, and the indexes that say which can match.
//!
//! ```text
//! filter ──keys───> those that an index knows, in order ──> each row by its key         selective
//!    └─────SQL────> all rows from a key on, with what the database says of each         everything else
//! ```
//!
//! Either way every match is among the rows that are shown with their contents; whether it is one says the query's own evaluator.
//! A row that can't match is shown without contents, so that whoever counts the time or gives up sees each row go by.
//!
//! Counts and groups that an index knows are told without reading rows (`tally`).

mod keys;
mod tags;
mod tally;

use std::ops::ControlFlow;

use holm_model::ServiceError;
use holm_query::twin::{Filter, Parameter, Path, Place, Step, json_path};
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use super::{View, fault};
use keys::{Budget, Finder, Keys, MAX_FEW, behind};

pub(super) use tags::make_index;
pub(super) use tally::make_counts;
pub use tally::{Tallied, Tally};

/// Device and module, the module empty for a device: the order in which rows are read.
pub type RowKey = (String, String);
/// Is shown a row, and says whether it wants another.
pub type Show<'s> = dyn FnMut(RowKey, Option<FleetRow>) -> Result<ControlFlow<()>, ServiceError> + 's;

/// The most rows of a short read. Reading one by its key takes some 20 µs.
const MAX_SHORT: usize = 4096;
/// The most rows of indexes that a short read follows.
const MAX_SHORT_KEYS: usize = 65_536;
/// How many rows are read in their order in the time that one takes by its key.
const IN_ORDER: u64 = 4;

/// How much may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Some thousand rows, by their keys, or from the first on.
    Short,
    /// Some thousand rows, by their keys only.
    ShortByKeys,
    /// All there are.
    Full,
}

/// Whether everything was shown that was to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Up to the last row, or as far as was wanted.
    Whole,
    /// No further than the effort goes.
    Part,
}

/// Which rows to read.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'s> {
    /// What every match passes.
    pub filter: &'s Filter,
    /// Modules, and not devices.
    pub modules: bool,
    /// Behind which key; `None`: from the first.
    pub after: Option<&'s RowKey>,
    /// Whether twins are read, and not the registry alone.
    pub twins: bool,
    /// How much may be read.
    pub effort: Effort,
}

/// What the database holds of an identity, but for its keys.
#[derive(Debug)]
pub struct FleetRow {
    /// Whether it may connect.
    pub enabled: bool,
    /// Why it is as it is.
    pub status_reason: Option<String>,
    /// When that changed, in milliseconds since 1970.
    pub status_updated: i64,
    /// How it proves itself.
    pub authentication: String,
    /// Whether it is an edge device.
    pub edge: bool,
    /// The scope that it is in.
    pub device_scope: Option<String>,
    /// JSON array of text.
    pub parent_scopes: String,
    /// The twin in its stored form; empty where twins are not read.
    pub twin: String,
}

const COLUMNS: &str =
    "i.device, i.module, i.enabled, i.status_reason, i.status_updated, i.auth, i.edge, i.device_scope, i.parent_scopes";

/// What each configuration is for the twin of a row.
const STATUSES: &str =
    "(SELECT c.statuses FROM twin_configurations AS c WHERE c.device = i.device AND c.module = i.module)";

impl View<'_> {
    /// Shows every row of a scan in order of the keys, those that can't match without their contents, until `show` has enough.
    ///
    /// # Errors
    /// When the database can't be read; what `show` fails with.
    pub fn scan(&self, scan: Scan<'_>, show: &mut Show<'_>) -> Result<Scanned, ServiceError> {
        let finder = Finder {
            view: self,
            modules: scan.modules,
        };
        let from = scan.after.map_or_else(RowKey::default, behind);
        let mut keys = finder.keys(scan.filter)?;
        if scan.effort == Effort::Full
            && let Some(all) = keys
        {
            let most = self.identity_count(scan.modules)? / IN_ORDER;
            let most = usize::try_from(most).unwrap_or(usize::MAX).max(MAX_FEW);
            keys = all.narrow(self, &from, most)?;
        }
        match (keys, scan.effort) {
            (Some(keys), _) => self.scan_keys(scan, keys, from, show),
            (None, Effort::ShortByKeys) => Ok(Scanned::Part),
            (None, _) => self.scan_in_order(scan, from, show),
        }
    }

    fn scan_in_order(&self, scan: Scan<'_>, from: RowKey, show: &mut Show<'_>) -> Result<Scanned, ServiceError> {
        let filter = scan.filter.to_sql(&place);
        let select = scan.select(&filter.text, &filter.text);
        let sql = format!("{select} AND (i.device, i.module) >= (?, ?) ORDER BY i.device, i.module");
        let mut left = match scan.effort {
            Effort::Full => usize::MAX,
            Effort::Short | Effort::ShortByKeys => MAX_SHORT,
        };
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| fault(&error))?;
        let bound = filter.parameters.iter().map(bind).collect();
        let mut rows = statement
            .query(params_from_iter(with_key(bound, from)))
            .map_err(|error| fault(&error))?;
        while let Some(row) = rows.next().map_err(|error| fault(&error))? {
            if left == 0 {
                return Ok(Scanned::Part);
            }
            left -= 1;
            let (key, contents) = read(row).map_err(|error| fault(&error))?;
            if show(key, contents)?.is_break() {
                break;
            }
        }
        Ok(Scanned::Whole)
    }

    fn scan_keys(
        &self,
        scan: Scan<'_>,
        mut keys: Keys,
        mut from: RowKey,
        show: &mut Show<'_>,
    ) -> Result<Scanned, ServiceError> {
        let filter = scan.filter.to_sql(&place);
        // To tell the database a long condition for each row costs more than to look at the row.
        let is_short = is_short(&filter.parameters);
        let condition = if is_short { filter.text.as_str() } else { "1" };
        let parameters = if is_short { filter.parameters.as_slice() } else { &[] };
        let bound: Vec<Value> = parameters.iter().map(bind).collect();
        let select = scan.select(&filter.text, condition);
        let sql = format!("{select} AND i.device = ? AND i.module = ?");
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| fault(&error))?;
        let (mut left, budget) = match scan.effort {
            Effort::Full => (usize::MAX, Budget::of(usize::MAX)),
            Effort::Short | Effort::ShortByKeys => (MAX_SHORT, Budget::of(MAX_SHORT_KEYS)),
        };
        while let Some(key) = keys.seek(self, &from, &budget)? {
            if left == 0 {
                return Ok(Scanned::Part);
            }
            left -= 1;
            from = behind(&key);
            let mut rows = statement
                .query(params_from_iter(with_key(bound.clone(), key)))
                .map_err(|error| fault(&error))?;
            if let Some(row) = rows.next().map_err(|error| fault(&error))? {
                let (key, contents) = read(row).map_err(|error| fault(&error))?;
                if show(key, contents)?.is_break() {
                    return Ok(Scanned::Whole);
                }
            }
        }
        Ok(if budget.is_spent() {
            Scanned::Part
        } else {
            Scanned::Whole
        })
    }

    /// One row of a fleet, whatever the filter; `None` where it is not there.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn fleet_row(&self, key: &RowKey) -> Result<Option<FleetRow>, ServiceError> {
        let sql = format!(
            "SELECT {COLUMNS}, t.document FROM identities i CROSS JOIN twins t ON t.device = i.device AND t.module = i.module
             WHERE i.device = ? AND i.module = ?"
        );
        Ok(self.one(&sql, (&key.0, &key.1), read)?.and_then(|(_, row)| row))
    }
}

impl Scan<'_> {
    /// Rows with their contents where they meet a condition. `filter` is all that may be asked of them.
    fn select(&self, filter: &str, condition: &str) -> String {
        // The text is ours: it names the twin only if the filter reads it.
        let joins = self.twins || filter.contains("t.document");
        let shown = if joins { "t.document" } else { "''" };
        let from = if joins {
            "identities i CROSS JOIN twins t ON t.device = i.device AND t.module = i.module"
        } else {
            "identities i"
        };
        let kind = if self.modules {
            "i.module != ''"
        } else {
            "i.module = ''"
        };
        format!("SELECT {COLUMNS}, CASE WHEN {condition} THEN {shown} END FROM {from} WHERE {kind}")
    }
}

/// Where the values of a path are in `identities i` and `twins t`. Paths in twins are those of the model's stored form.
fn place(path: &Path) -> Place {
    match path.keys().as_deref() {
        Some(["deviceId"]) => Place::Text("i.device"),
        Some(["moduleId"]) => Place::Text("i.module"),
        Some(["status"]) => Place::Choice("i.enabled", &[("enabled", 1), ("disabled", 0)]),
        Some(["authenticationType"]) => Place::Text("i.auth"),
        Some(["capabilities", "iotEdge"]) => Place::Bool("i.edge"),
        Some(["parentScopes"]) => Place::Json("i.parent_scopes", "$".to_owned()),
        Some(["configurations", id, "status"]) => {
            let inside = json_path(&[Step::Key((*id).to_owned())]);
            inside.map_or(Place::Unknown, |inside| Place::Json(STATUSES, inside))
        }
        _ => {
            let inside = match path.steps() {
                [Step::Key(root), ..] if root == "tags" => json_path(path.steps()),
                [Step::Key(root), Step::Key(section), Step::Key(first), rest @ ..]
                    if root == "properties"
                        && matches!(section.as_str(), "desired" | "reported")
                        && !first.starts_with('$') =>
                {
                    json_path(
                        [section.as_str(), "properties", first]
                            .map(|key| Step::Key(key.to_owned()))
                            .iter()
                            .chain(rest),
                    )
                }
                _ => None,
            };
            inside.map_or(Place::Unknown, |inside| Place::Json("t.document", inside))
        }
    }
}

fn bind(parameter: &Parameter) -> Value {
    match parameter {
        Parameter::Text(text) => Value::Text(text.clone()),
        Parameter::Number(number) => Value::Real(*number),
        Parameter::Integer(number) => Value::Integer(*number),
    }
}

fn is_short(parameters: &[Parameter]) -> bool {
    let length = |parameter: &Parameter| match parameter {
        Parameter::Text(text) => text.len(),
        Parameter::Number(_) | Parameter::Integer(_) => 8,
    };
    parameters.iter().map(length).sum::<usize>() <= 512
}

fn with_key(mut bound: Vec<Value>, key: RowKey) -> Vec<Value> {
    bound.extend([key.0, key.1].map(Value::Text));
    bound
}

fn read(row: &Row<'_>) -> rusqlite::Result<(RowKey, Option<FleetRow>)> {
    let key = (row.get(0)?, row.get(1)?);
    let Some(twin) = row.get(9)? else {
        return Ok((key, None));
    };
    let contents = FleetRow {
        enabled: row.get(2)?,
        status_reason: row.get(3)?,
        status_updated: row.get(4)?,
        authentication: row.get(5)?,
        edge: row.get(6)?,
        device_scope: row.get(7)?,
        parent_scopes: row.get(8)?,
        twin,
    };
    Ok((key, Some(contents)))
}

#[cfg(test)]
mod tests;
