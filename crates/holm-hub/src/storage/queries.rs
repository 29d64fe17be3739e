//! Reading the fleet for a query: rows in order of their keys, and the indexes that say which can match.
//!
//! ```text
//! filter ──candidates──> a few keys, from identities or twin_tags ──> each row by its key        selective
//!    └────────SQL──────> all rows from a key on, with what the database says of each            everything else
//! ```
//!
//! Either way every match is among the rows that are shown with their contents; whether it is one says the query's own evaluator.
//! A row that can't match is shown without contents, so that whoever counts the time or gives up sees each row go by.
//!
//! `twin_tags` has a row for each value in the tags of a twin. Triggers keep it, so that it is true whichever release writes; its
//! form is in `docs/formats/hub-database.md`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use holm_model::ServiceError;
use holm_query::twin::{Filter, Is, Parameter, Path, Place, Scalar, Step, Test, json_path, successor};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::family::stored_scopes;
use super::{View, fault};

/// Device and module, the module empty for a device: the order in which rows are read.
pub type RowKey = (String, String);

/// The most rows that are read one by one instead of all in order. Reading one takes some 20 µs.
const MAX_CANDIDATES: usize = 4096;
/// Characters of a text that `twin_tags` keeps.
const INDEXED_CHARACTERS: usize = 200;

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
    pub fn scan(
        &self,
        scan: Scan<'_>,
        show: &mut dyn FnMut(RowKey, Option<FleetRow>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let filter = scan.filter.to_sql(&place);
        // The text is ours: it names the twin only if the filter reads it.
        let joins = scan.twins || filter.text.contains("t.document");
        let shown = if joins { "t.document" } else { "''" };
        let from = if joins {
            "identities i CROSS JOIN twins t ON t.device = i.device AND t.module = i.module"
        } else {
            "identities i"
        };
        let kind = if scan.modules {
            "i.module != ''"
        } else {
            "i.module = ''"
        };
        let select = |condition: &str| {
            format!("SELECT {COLUMNS}, CASE WHEN {condition} THEN {shown} END FROM {from} WHERE {kind}")
        };
        let bound: Vec<Value> = filter.parameters.iter().map(bind).collect();
        let after = scan.after.cloned().unwrap_or_default();
        let Some(candidates) = self.candidates(scan.filter, scan.modules, MAX_CANDIDATES)? else {
            let select = select(&filter.text);
            let sql = format!("{select} AND (i.device, i.module) > (?, ?) ORDER BY i.device, i.module");
            return self.show_rows(&sql, with_key(&bound, &after), show).map(|_| ());
        };
        // To tell the database a long condition for each row costs more than to look at the row.
        let (condition, bound) = if is_short(&filter.parameters) {
            (filter.text.as_str(), bound)
        } else {
            ("1", Vec::new())
        };
        let select = select(condition);
        let sql = format!("{select} AND i.device = ? AND i.module = ?");
        for key in candidates.iter().filter(|key| **key > after) {
            if self.show_rows(&sql, with_key(&bound, key), show)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether an index knows a few rows among which every match is.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn is_indexed(&self, filter: &Filter, modules: bool) -> Result<bool, ServiceError> {
        Ok(self.candidates(filter, modules, MAX_CANDIDATES)?.is_some())
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

    fn show_rows(
        &self,
        sql: &str,
        parameters: Vec<Value>,
        show: &mut dyn FnMut(RowKey, Option<FleetRow>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<ControlFlow<()>, ServiceError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| fault(&error))?;
        let mut rows = statement
            .query(params_from_iter(parameters))
            .map_err(|error| fault(&error))?;
        while let Some(row) = rows.next().map_err(|error| fault(&error))? {
            let (key, contents) = read(row).map_err(|error| fault(&error))?;
            if show(key, contents)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The keys among which every match is; `None` when no index knows, or there would be more than `most`.
    fn candidates(
        &self,
        filter: &Filter,
        modules: bool,
        most: usize,
    ) -> Result<Option<BTreeSet<RowKey>>, ServiceError> {
        Ok(match filter {
            Filter::Always => None,
            Filter::Never => Some(BTreeSet::new()),
            Filter::Test(test) => self.candidates_of_test(test, modules, most)?,
            Filter::All(filters) => {
                let mut fewest: Option<BTreeSet<RowKey>> = None;
                for filter in filters {
                    let most = fewest.as_ref().map_or(most, |keys| keys.len().saturating_sub(1));
                    if most == 0 {
                        break;
                    }
                    if let Some(keys) = self.candidates(filter, modules, most)? {
                        fewest = Some(keys);
                    }
                }
                fewest
            }
            Filter::Any(filters) => {
                let mut union = BTreeSet::new();
                for filter in filters {
                    let Some(keys) = self.candidates(filter, modules, most)? else {
                        return Ok(None);
                    };
                    union.extend(keys);
                    if union.len() > most {
                        return Ok(None);
                    }
                }
                Some(union)
            }
        })
    }

    fn candidates_of_test(
        &self,
        test: &Test,
        modules: bool,
        most: usize,
    ) -> Result<Option<BTreeSet<RowKey>>, ServiceError> {
        let kind = if modules { "module != ''" } else { "module = ''" };
        let keys = |condition: &str, parameters: Vec<Value>| {
            let sql = format!(
                "SELECT device, module FROM identities WHERE {kind} AND {condition} LIMIT {}",
                most + 1
            );
            self.keys(&sql, parameters, most)
        };
        match (test.path.keys().as_deref(), &test.is) {
            (Some(["deviceId"]), Is::Equal(Scalar::Text(id))) => keys("device = ?", vec![Value::Text(id.clone())]),
            (Some(["deviceId"]), Is::Prefix(prefix)) => match successor(prefix) {
                Some(end) => keys(
                    "device >= ? AND device < ?",
                    vec![Value::Text(prefix.clone()), Value::Text(end)],
                ),
                None => keys("device >= ?", vec![Value::Text(prefix.clone())]),
            },
            (Some(["parentScopes"]), Is::Holding(Scalar::Text(scope))) if !modules => {
                let scopes = stored_scopes(std::slice::from_ref(scope))?;
                keys("parent_scopes = ? AND parent_scopes != '[]'", vec![Value::Text(scopes)])
            }
            (Some(["deviceScope"]), Is::Equal(Scalar::Text(scope))) if !modules => keys(
                "device_scope = ? AND device_scope IS NOT NULL",
                vec![Value::Text(scope.clone())],
            ),
            _ if test.path.root() == "tags" => {
                let Some((condition, parameters)) = tag_condition(test) else {
                    return Ok(None);
                };
                let sql = format!(
                    "SELECT device, module FROM twin_tags WHERE {condition} AND {kind} LIMIT {}",
                    most + 1
                );
                self.keys(&sql, parameters, most)
            }
            _ => Ok(None),
        }
    }

    fn keys(&self, sql: &str, parameters: Vec<Value>, most: usize) -> Result<Option<BTreeSet<RowKey>>, ServiceError> {
        let found = self.all(sql, params_from_iter(parameters), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((found.len() <= most).then(|| found.into_iter().collect()))
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

fn with_key(bound: &[Value], key: &RowKey) -> Vec<Value> {
    let key = [key.0.clone(), key.1.clone()].map(Value::Text);
    bound.iter().cloned().chain(key).collect()
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

/// What a test of a tag is in `twin_tags`.
fn tag_condition(test: &Test) -> Option<(String, Vec<Value>)> {
    let path = Value::Text(tag_path(test.path.steps())?);
    let text = |text: &str| Value::Text(text.chars().take(INDEXED_CHARACTERS).collect());
    let usable = |text: &str| !text.contains('\0');
    let number = |number: f64| {
        number
            .is_finite()
            .then(|| (number - room(number), number + room(number)))
    };
    let (condition, mut parameters) = match &test.is {
        Is::Equal(Scalar::Null) => ("kind = 0", vec![]),
        Is::Equal(Scalar::Bool(value)) => ("kind = 1 AND value = ?", vec![Value::Integer((*value).into())]),
        Is::Equal(Scalar::Number(wanted)) => {
            let (low, high) = number(*wanted)?;
            (
                "kind = 2 AND value BETWEEN ? AND ?",
                vec![Value::Real(low), Value::Real(high)],
            )
        }
        Is::Equal(Scalar::Text(wanted)) if usable(wanted) => ("kind = 3 AND value = ?", vec![text(wanted)]),
        Is::AtMost(Scalar::Number(limit)) => ("kind = 2 AND value <= ?", vec![Value::Real(number(*limit)?.1)]),
        Is::AtLeast(Scalar::Number(limit)) => ("kind = 2 AND value >= ?", vec![Value::Real(number(*limit)?.0)]),
        Is::AtMost(Scalar::Text(limit)) if usable(limit) => ("kind = 3 AND value <= ?", vec![text(limit)]),
        Is::AtLeast(Scalar::Text(limit)) if usable(limit) => ("kind = 3 AND value >= ?", vec![text(limit)]),
        Is::Prefix(prefix) if usable(prefix) && prefix.chars().count() <= INDEXED_CHARACTERS => {
            let end = successor(prefix)?;
            (
                "kind = 3 AND value >= ? AND value < ?",
                vec![Value::Text(prefix.clone()), Value::Text(end)],
            )
        }
        _ => return None,
    };
    parameters.insert(0, path);
    Some((format!("path = ? AND {condition}"), parameters))
}

/// The database reads numbers by itself.
fn room(number: f64) -> f64 {
    number.abs() * 1e-9 + 1e-9
}

/// A path as `json_tree` names it: a key stands without quotes where it is a plain word. `None` where that can't be told.
fn tag_path(steps: &[Step]) -> Option<String> {
    let mut path = String::from("$");
    for step in steps {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) if key.contains(['"', '\\']) || key.contains(char::is_control) => return None,
            Step::Key(key)
                if key.starts_with(|c: char| c.is_ascii_alphabetic())
                    && key.chars().all(|c| c.is_ascii_alphanumeric()) =>
            {
                path.push_str(&format!(".{key}"));
            }
            Step::Key(key) => path.push_str(&format!(".\"{key}\"")),
        }
    }
    Some(path)
}

/// What stands in `twin_tags` of a value in the tags of a twin, a row of `json_tree`.
macro_rules! tag_row {
    ($device:literal, $module:literal) => {
        concat!(
            "SELECT tree.fullkey,
                CASE tree.type WHEN 'null' THEN 0 WHEN 'true' THEN 1 WHEN 'false' THEN 1 WHEN 'text' THEN 3 ELSE 2 END,
                CASE tree.type WHEN 'null' THEN 0 WHEN 'text' THEN substr(tree.atom, 1, 200) ELSE tree.atom END, ",
            $device,
            ", ",
            $module
        )
    };
}

/// The table and what keeps it. A new version of a twin with other tags replaces the rows; a twin that goes takes them along.
const TAGS: &str = concat!(
    "CREATE TABLE IF NOT EXISTS twin_tags (
        path TEXT NOT NULL,                         -- as json_tree writes it: $.tags.site
        kind INTEGER NOT NULL,                      -- 0 null, 1 truth value, 2 number, 3 text
        value NOT NULL,                             -- of a text the first 200 characters
        device TEXT NOT NULL,
        module TEXT NOT NULL,
        PRIMARY KEY (path, kind, value, device, module)
    ) WITHOUT ROWID;
    CREATE TRIGGER IF NOT EXISTS twin_tags_written BEFORE INSERT ON twins
    WHEN NOT EXISTS (SELECT 1 FROM twins AS old WHERE old.device = NEW.device AND old.module = NEW.module
        AND (old.version = NEW.version
            OR json_extract(old.document, '$.tags') = json_extract(NEW.document, '$.tags')))
    BEGIN
        DELETE FROM twin_tags WHERE (path, kind, value, device, module) IN (",
    tag_row!("NEW.device", "NEW.module"),
    "       FROM twins AS old, json_tree(old.document, '$.tags') AS tree
            WHERE old.device = NEW.device AND old.module = NEW.module AND tree.type NOT IN ('object', 'array'));
        INSERT INTO twin_tags (path, kind, value, device, module) ",
    tag_row!("NEW.device", "NEW.module"),
    "       FROM json_tree(NEW.document, '$.tags') AS tree WHERE tree.type NOT IN ('object', 'array');
    END;
    CREATE TRIGGER IF NOT EXISTS twin_tags_removed AFTER DELETE ON twins
    BEGIN
        DELETE FROM twin_tags WHERE (path, kind, value, device, module) IN (",
    tag_row!("OLD.device", "OLD.module"),
    "       FROM json_tree(OLD.document, '$.tags') AS tree WHERE tree.type NOT IN ('object', 'array'));
    END;"
);

const FILL_TAGS: &str = concat!(
    "INSERT INTO twin_tags (path, kind, value, device, module) ",
    tag_row!("twins.device", "twins.module"),
    " FROM twins, json_tree(twins.document, '$.tags') AS tree WHERE tree.type NOT IN ('object', 'array')"
);

/// Makes the index of tags where it is missing, and fills it from the twins that are there.
pub(super) fn make_index(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'twin_tags'";
    let is_there = connection.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0;
    if is_there {
        return connection.execute_batch(TAGS);
    }
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {TAGS} {FILL_TAGS}; COMMIT;"))
}
