//! The index of tags: the table `twin_tags`, what keeps it, and what a test of a tag is in it.
//!
//! It has a row for each value in the tags of a twin, and a mark where it does not hold all of what stands there: for an object or array,
//! a text that is longer than what is kept, or one with a NUL, at which the database ends it. So a path without a mark has exactly
//! the values of its rows. Triggers keep it, so that it is true whichever release writes; its form is in
//! `docs/formats/hub-database.md`.

use holm_query::twin::{Is, Path, Scalar, Step, Test, successor};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Characters of a text that are kept.
const INDEXED_CHARACTERS: usize = 200;
/// The kind of a mark.
pub(super) const MARK: i64 = 4;
/// Whole numbers up to it are read by the database as they are written: `3`, `3.0`.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Rows of `twin_tags`.
#[derive(Debug)]
pub(super) struct TagRows {
    /// A condition that begins with the path.
    pub(super) condition: String,
    /// What to bind.
    pub(super) parameters: Vec<Value>,
    /// Whether they are those of one value, and so in the order of their keys.
    pub(super) is_one_value: bool,
}

/// The rows of a path in the tags; `None` where the index can't name it.
pub(super) fn rows_of_path(path: &Path) -> Option<TagRows> {
    let steps = path.steps();
    if path.root() != "tags" || steps.len() < 2 {
        return None;
    }
    Some(TagRows {
        condition: "path = ?".to_owned(),
        parameters: vec![Value::Text(tag_path(steps)?)],
        is_one_value: false,
    })
}

/// The rows of a path that pass all these tests of it; `None` where no test says anything that the index knows.
pub(super) fn rows_of_tests(path: &Path, tests: &[&Test]) -> Option<TagRows> {
    let mut rows = rows_of_path(path)?;
    let mut is_known = false;
    for test in tests {
        let Some((condition, parameters)) = condition(&test.is) else {
            continue;
        };
        is_known = true;
        rows.is_one_value |= is_one_value(&test.is);
        rows.condition.push_str(condition);
        rows.parameters.extend(parameters);
    }
    is_known.then_some(rows)
}

fn is_one_value(is: &Is) -> bool {
    match is {
        Is::Equal(Scalar::Number(number)) => is_exact(*number),
        Is::Equal(_) => true,
        _ => false,
    }
}

fn is_exact(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() <= EXACT
}

fn condition(is: &Is) -> Option<(&'static str, Vec<Value>)> {
    let text = |text: &str| Value::Text(text.chars().take(INDEXED_CHARACTERS).collect());
    let usable = |text: &str| !text.contains('\0');
    Some(match is {
        Is::Equal(Scalar::Null) => (" AND kind = 0 AND value = 0", vec![]),
        Is::Equal(Scalar::Bool(value)) => (" AND kind = 1 AND value = ?", vec![Value::Integer((*value).into())]),
        Is::Equal(Scalar::Number(wanted)) if is_exact(*wanted) => {
            (" AND kind = 2 AND value = ?", vec![Value::Real(*wanted)])
        }
        Is::Equal(Scalar::Number(wanted)) if wanted.is_finite() => {
            let range = [wanted - room(*wanted), wanted + room(*wanted)];
            (
                " AND kind = 2 AND value BETWEEN ? AND ?",
                range.map(Value::Real).to_vec(),
            )
        }
        Is::AtMost(Scalar::Number(limit)) if limit.is_finite() => {
            (" AND kind = 2 AND value <= ?", vec![Value::Real(limit + room(*limit))])
        }
        Is::AtLeast(Scalar::Number(limit)) if limit.is_finite() => {
            (" AND kind = 2 AND value >= ?", vec![Value::Real(limit - room(*limit))])
        }
        Is::Equal(Scalar::Text(wanted)) if usable(wanted) => (" AND kind = 3 AND value = ?", vec![text(wanted)]),
        Is::AtMost(Scalar::Text(limit)) if usable(limit) => (" AND kind = 3 AND value <= ?", vec![text(limit)]),
        Is::AtLeast(Scalar::Text(limit)) if usable(limit) => (" AND kind = 3 AND value >= ?", vec![text(limit)]),
        Is::Prefix(prefix) if usable(prefix) && prefix.chars().count() <= INDEXED_CHARACTERS => (
            " AND kind = 3 AND value >= ? AND value < ?",
            vec![Value::Text(prefix.clone()), Value::Text(successor(prefix)?)],
        ),
        Is::Defined => ("", vec![]),
        Is::Holding(_) => (" AND kind = 4", vec![]),
        _ => return None,
    })
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

/// The values in the tags of a document, as rows.
macro_rules! values {
    ($device:literal, $module:literal, $from:literal, $document:literal, $where:literal) => {
        concat!(
            "SELECT tree.fullkey,
                CASE tree.type WHEN 'null' THEN 0 WHEN 'true' THEN 1 WHEN 'false' THEN 1 WHEN 'text' THEN 3 ELSE 2 END,
                CASE tree.type WHEN 'null' THEN 0 WHEN 'text' THEN substr(tree.atom, 1, 200) ELSE tree.atom END, ",
            $device, ", ", $module, " FROM ", $from, "json_tree(", $document, ", '$.tags') AS tree
            WHERE tree.type NOT IN ('object', 'array')", $where
        )
    };
}

/// The marks of the tags in a document, as rows.
macro_rules! marks {
    ($device:literal, $module:literal, $from:literal, $document:literal, $where:literal) => {
        concat!(
            "SELECT mark.fullkey, 4, 0, ",
            $device,
            ", ",
            $module,
            " FROM ",
            $from,
            "json_tree(",
            $document,
            ", '$.tags') AS mark
            WHERE (mark.type IN ('object', 'array') AND mark.fullkey != '$.tags'
                OR mark.type = 'text' AND (length(mark.atom) > 200 OR instr(mark.atom, char(0)) > 0))",
            $where
        )
    };
}

/// Both, each by a statement of its own: rows of a union are not looked for by the key, but all others passed to find them.
macro_rules! each {
    ($before:literal, $device:literal, $module:literal, $from:literal, $document:literal, $where:literal, $after:literal) => {
        concat!(
            $before,
            values!($device, $module, $from, $document, $where),
            $after,
            $before,
            marks!($device, $module, $from, $document, $where),
            $after
        )
    };
}

/// The table and what keeps it. A new version of a twin with other tags replaces the rows; a twin that goes takes them along.
const TAGS: &str = concat!(
    "CREATE TABLE IF NOT EXISTS twin_tags (
        path TEXT NOT NULL,                         -- as json_tree writes it: $.tags.site
        kind INTEGER NOT NULL,                      -- 0 null, 1 truth value, 2 number, 3 text, 4 a mark: not all is here
        value NOT NULL,                             -- of a text the first 200 characters
        device TEXT NOT NULL,
        module TEXT NOT NULL,
        PRIMARY KEY (path, kind, value, device, module)
    ) WITHOUT ROWID;
    CREATE TRIGGER IF NOT EXISTS twin_tags_written BEFORE INSERT ON twins
    WHEN NOT EXISTS (SELECT 1 FROM twins AS old WHERE old.device = NEW.device AND old.module = NEW.module
        AND (old.version = NEW.version
            OR json_extract(old.document, '$.tags') = json_extract(NEW.document, '$.tags')))
    BEGIN ",
    each!(
        "DELETE FROM twin_tags WHERE (path, kind, value, device, module) IN (",
        "NEW.device",
        "NEW.module",
        "twins AS old, ",
        "old.document",
        " AND old.device = NEW.device AND old.module = NEW.module",
        "); "
    ),
    each!(
        "INSERT INTO twin_tags (path, kind, value, device, module) ",
        "NEW.device",
        "NEW.module",
        "",
        "NEW.document",
        "",
        "; "
    ),
    "END;
    CREATE TRIGGER IF NOT EXISTS twin_tags_removed AFTER DELETE ON twins
    BEGIN ",
    each!(
        "DELETE FROM twin_tags WHERE (path, kind, value, device, module) IN (",
        "OLD.device",
        "OLD.module",
        "",
        "OLD.document",
        "",
        "); "
    ),
    "END;"
);

const FILL: &str = each!(
    "INSERT INTO twin_tags (path, kind, value, device, module) ",
    "twins.device",
    "twins.module",
    "twins, ",
    "twins.document",
    "",
    "; "
);

/// For a database of a release whose triggers made no marks.
const ADD_MARKS: &str = concat!(
    "DROP TRIGGER IF EXISTS twin_tags_written; DROP TRIGGER IF EXISTS twin_tags_removed;
    INSERT OR IGNORE INTO twin_tags (path, kind, value, device, module) ",
    marks!("twins.device", "twins.module", "twins, ", "twins.document", ""),
    ";"
);

/// Makes the index where it is missing, and fills it from the twins that are there.
pub(in crate::storage) fn make_index(connection: &Connection) -> rusqlite::Result<()> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    if count("SELECT count(*) FROM sqlite_master WHERE name = 'twin_tags'")? == 0 {
        return connection.execute_batch(&format!("BEGIN IMMEDIATE; {TAGS} {FILL} COMMIT;"));
    }
    let marking = "SELECT count(*) FROM sqlite_master WHERE name = 'twin_tags_written' AND instr(sql, 'AS mark') > 0";
    if count(marking)? == 0 {
        return connection.execute_batch(&format!("BEGIN IMMEDIATE; {ADD_MARKS} {TAGS} COMMIT;"));
    }
    connection.execute_batch(TAGS)
}
