//! Compares the keys of a file with the table of known keys.

use toml_edit::{Item, TableLike, Value};

use super::Problem;
use super::keys::{self, Key, Treatment};
use super::nearest::nearest;

/// What the keys of a file amount to.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

/// Looks at every key.
pub(super) fn check(text: &str, root: &dyn TableLike) -> Checked {
    let mut walk = Walk {
        text,
        checked: Checked::default(),
    };
    walk.table("", root);
    walk.checked
}

struct Walk<'a> {
    text: &'a str,
    checked: Checked,
}

impl Walk<'_> {
    fn table(&mut self, above: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            if item.is_none() {
                continue;
            }
            let path = if above.is_empty() {
                name.to_owned()
            } else {
                format!("{above}.{name}")
            };
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let at = span.map(|span| position(self.text, span.start));
            self.item(&path, item, at);
        }
    }

    fn item(&mut self, path: &str, item: &Item, at: Option<(usize, usize)>) {
        if let Some(key) = keys::find(path) {
            let has_parts = item.is_table_like() && keys::has_parts(path);
            if !has_parts {
                self.known(key, path, at);
                return;
            }
        } else if !keys::has_parts(path) {
            self.unknown(path, at);
            return;
        }
        if let Some(table) = item.as_table_like() {
            self.table(path, table);
        } else if let Some(tables) = item.as_array_of_tables() {
            tables.iter().for_each(|table| self.table(path, table));
        } else if let Some(array) = item.as_array() {
            for element in array {
                match element {
                    Value::InlineTable(table) => self.table(path, table),
                    _ => self.problem(at, format!("`{path}` must hold tables")),
                }
            }
        } else {
            self.problem(at, format!("`{path}` must be a table, as in `[{path}]`"));
        }
    }

    fn known(&mut self, key: &Key, path: &str, at: Option<(usize, usize)>) {
        match key.treatment {
            Treatment::Used => {}
            Treatment::NoEffect(why) => self
                .checked
                .notes
                .push(format!("the key `{path}` has no effect: {why}")),
            Treatment::NotYet(instead) => {
                self.problem(at, format!("the key `{path}` is not yet supported; {instead}"));
            }
        }
    }

    fn unknown(&mut self, path: &str, at: Option<(usize, usize)>) {
        let hint = match nearest(path, keys::names()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "see the configuration reference for the known ones".to_owned(),
        };
        self.problem(at, format!("unknown key `{path}`; {hint}"));
    }

    fn problem(&mut self, at: Option<(usize, usize)>, text: String) {
        self.checked.problems.push(Problem { at, text });
    }
}

/// Line and column of a byte, both from 1.
pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
