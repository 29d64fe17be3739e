//! A filter as a condition of SQLite.
//!
//! ```text
//! All [ tags.a = 'x', properties.reported.n <= 3 ]
//!    →  (json_extract(t.document, ?) = ? AND json_extract(t.document, ?) <= ?)     with  $."tags"."a", x, $."reported"…, 3.000000003
//! ```
//!
//! - Nothing of the query's text becomes part of the SQL: values and paths are bound parameters, and what stands between is from
//!   here and from the caller's [`Place`]s.
//! - Every document that passes the filter satisfies the SQL; some others may, because the database reads numbers by itself,
//!   doesn't tell `1` from `true`, and compares numbers with texts. Numbers have a little room for that reason.
//! - However long the query is, the condition is one that the database takes: texts that one place may have are one list, tests are
//!   joined in halves instead of one behind the other, and what is beyond [`MAX_TESTS`] is left to whoever looks at the documents.

use serde_json::Value as Json;

use super::filter::{Filter, Is, Scalar, Test};
use super::path::{Path, Step};

/// Where the values of a path are in the database.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A column of text that is never null.
    Text(&'static str),
    /// A column of 0 and 1 that stands for a truth value.
    Bool(&'static str),
    /// A column of numbers, each of which stands for a text.
    Choice(&'static str, &'static [(&'static str, i64)]),
    /// A column of JSON, and the path in it as [`json_path`] writes it.
    Json(&'static str, String),
    /// Nowhere that a condition could reach.
    Unknown,
}

/// A value to bind.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// A text.
    Text(String),
    /// A floating-point number.
    Number(f64),
    /// A whole number.
    Integer(i64),
}

/// A condition with the values for its `?`, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sql {
    /// The condition; `1` when there is none.
    pub text: String,
    /// What to bind.
    pub parameters: Vec<Parameter>,
}

/// The most tests of a condition, a list of texts being one: more cost more than they spare.
const MAX_TESTS: usize = 256;

/// A path in SQLite's form; `None` when a key can't be written in it.
#[must_use]
pub fn json_path<'s>(steps: impl IntoIterator<Item = &'s Step>) -> Option<String> {
    let mut path = String::from("$");
    for step in steps {
        match step {
            Step::Index(index) => path.push_str(&format!("[{index}]")),
            // There is no escape in such a path, and the database compares keys as they are written in the document.
            Step::Key(key) if key.contains(['"', '\\']) || key.contains(char::is_control) => return None,
            Step::Key(key) => path.push_str(&format!(".\"{key}\"")),
        }
    }
    Some(path)
}

/// The least text that is greater than all texts with this beginning; `None` when there is none.
#[must_use]
pub fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

impl Filter {
    /// The condition that every document satisfies which passes. `place` says where the values of a path are.
    pub fn to_sql(&self, place: &dyn Fn(&Path) -> Place) -> Sql {
        let mut writer = Writer {
            sql: Sql::default(),
            left: MAX_TESTS,
            place,
        };
        writer.filter(self);
        writer.sql
    }
}

struct Writer<'p> {
    sql: Sql,
    /// Tests that may still be written.
    left: usize,
    place: &'p dyn Fn(&Path) -> Place,
}

/// What is joined by AND or OR.
enum Term<'f> {
    Filter(&'f Filter),
    /// One of these texts is at a place.
    OneOf(Place, Vec<&'f str>),
}

impl Writer<'_> {
    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::Always => self.sql.text.push('1'),
            Filter::Never => self.sql.text.push('0'),
            Filter::All(filters) => {
                let terms: Vec<_> = filters.iter().map(Term::Filter).collect();
                self.joined(&terms, " AND ");
            }
            Filter::Any(filters) => {
                let terms = self.gathered(filters);
                self.joined(&terms, " OR ");
            }
            Filter::Test(test) => {
                if self.may_test() {
                    write_test(test, (self.place)(&test.path), &mut self.sql);
                }
            }
        }
    }

    /// What is left out is written as what every document satisfies.
    fn may_test(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if !may {
            self.sql.text.push('1');
        }
        may
    }

    /// The texts of one place together, where there are several.
    fn gathered<'f>(&self, filters: &'f [Filter]) -> Vec<Term<'f>> {
        let mut terms = Vec::new();
        let mut lists: Vec<(Place, Vec<(&'f Filter, &'f str)>)> = Vec::new();
        for filter in filters {
            let Some((path, text)) = plain_text(filter) else {
                terms.push(Term::Filter(filter));
                continue;
            };
            let place = (self.place)(path);
            match lists.iter_mut().find(|(other, _)| *other == place) {
                Some((_, list)) => list.push((filter, text)),
                None => lists.push((place, vec![(filter, text)])),
            }
        }
        for (place, list) in lists {
            match (&place, list.as_slice()) {
                (Place::Text(_) | Place::Json(..), [_, _, ..]) => {
                    terms.push(Term::OneOf(place, list.into_iter().map(|(_, text)| text).collect()));
                }
                _ => terms.extend(list.into_iter().map(|(filter, _)| Term::Filter(filter))),
            }
        }
        terms
    }

    /// Joined in halves, so that the condition is as deep as the logarithm of its length.
    fn joined(&mut self, terms: &[Term<'_>], between: &str) {
        match terms {
            [] => {}
            [Term::Filter(filter)] => self.filter(filter),
            [Term::OneOf(place, texts)] => self.one_of(place, texts),
            _ => {
                let (first, second) = terms.split_at(terms.len() / 2);
                self.sql.text.push('(');
                self.joined(first, between);
                self.sql.text.push_str(between);
                self.joined(second, between);
                self.sql.text.push(')');
            }
        }
    }

    fn one_of(&mut self, place: &Place, texts: &[&str]) {
        if !self.may_test() {
            return;
        }
        match place {
            Place::Text(column) => self.sql.text.push_str(column),
            Place::Json(column, path) => {
                let extract = format!("json_extract({column}, ?)");
                self.sql.one(&extract, Parameter::Text(path.clone()));
            }
            Place::Bool(_) | Place::Choice(..) | Place::Unknown => return self.sql.text.push('1'),
        }
        let list = Json::from(texts.to_vec()).to_string();
        self.sql
            .one(" IN (SELECT value FROM json_each(?))", Parameter::Text(list));
    }
}

/// The place and the text, where a filter says nothing but that one is at the other.
fn plain_text(filter: &Filter) -> Option<(&Path, &str)> {
    match filter {
        Filter::Test(test) => match &test.is {
            Is::Equal(Scalar::Text(text)) if is_plain(text) => Some((&test.path, text)),
            _ => None,
        },
        _ => None,
    }
}

fn write_test(test: &Test, place: Place, sql: &mut Sql) {
    match place {
        Place::Unknown => sql.text.push('1'),
        Place::Text(column) => write_text(column, &test.is, sql),
        Place::Bool(column) => match &test.is {
            Is::Equal(Scalar::Bool(value)) => sql.one(&format!("{column} = ?"), Parameter::Integer((*value).into())),
            Is::Defined => sql.text.push('1'),
            Is::AtMost(Scalar::Bool(_)) | Is::AtLeast(Scalar::Bool(_)) => sql.text.push('1'),
            _ => sql.text.push('0'),
        },
        Place::Choice(column, choices) => match &test.is {
            Is::Equal(Scalar::Text(text)) => match choices.iter().find(|(choice, _)| choice == text) {
                Some((_, number)) => sql.one(&format!("{column} = ?"), Parameter::Integer(*number)),
                None => sql.text.push('0'),
            },
            _ => sql.text.push('1'),
        },
        Place::Json(column, path) => write_json(column, path, &test.is, sql),
    }
}

fn write_text(column: &str, is: &Is, sql: &mut Sql) {
    match is {
        Is::Equal(Scalar::Text(text)) => sql.one(&format!("{column} = ?"), Parameter::Text(text.clone())),
        Is::AtMost(Scalar::Text(text)) => sql.one(&format!("{column} <= ?"), Parameter::Text(text.clone())),
        Is::AtLeast(Scalar::Text(text)) => sql.one(&format!("{column} >= ?"), Parameter::Text(text.clone())),
        Is::Prefix(prefix) => {
            sql.one(&format!("({column} >= ?"), Parameter::Text(prefix.clone()));
            if let Some(end) = successor(prefix) {
                sql.one(&format!(" AND {column} < ?"), Parameter::Text(end));
            }
            sql.text.push(')');
        }
        Is::Defined => sql.text.push('1'),
        Is::Equal(_) | Is::AtMost(_) | Is::AtLeast(_) | Is::Holding(_) => sql.text.push('0'),
    }
}

fn write_json(column: &str, path: String, is: &Is, sql: &mut Sql) {
    let extract = format!("json_extract({column}, ?)");
    let path = Parameter::Text(path);
    match is {
        Is::Equal(Scalar::Null) => sql.one(&format!("json_type({column}, ?) = 'null'"), path),
        Is::Equal(Scalar::Bool(value)) => sql.one(&format!("json_type({column}, ?) = '{value}'"), path),
        Is::Equal(Scalar::Text(text)) if is_plain(text) => {
            sql.one(&format!("{extract} = "), path);
            sql.one("?", Parameter::Text(text.clone()));
        }
        Is::AtMost(Scalar::Text(text)) if is_plain(text) => {
            sql.one(&format!("{extract} <= "), path);
            sql.one("?", Parameter::Text(text.clone()));
        }
        Is::AtLeast(Scalar::Text(text)) if is_plain(text) => {
            sql.one(&format!("{extract} >= "), path);
            sql.one("?", Parameter::Text(text.clone()));
        }
        Is::Equal(Scalar::Number(number)) if number.is_finite() => {
            let (low, high) = around(*number);
            sql.one(&format!("{extract} BETWEEN "), path);
            sql.one("?", Parameter::Number(low));
            sql.one(" AND ?", Parameter::Number(high));
        }
        Is::AtMost(Scalar::Number(number)) if number.is_finite() => {
            sql.one(&format!("{extract} <= "), path);
            sql.one("?", Parameter::Number(around(*number).1));
        }
        Is::AtLeast(Scalar::Number(number)) if number.is_finite() => {
            sql.one(&format!("{extract} >= "), path);
            sql.one("?", Parameter::Number(around(*number).0));
        }
        Is::Prefix(prefix) if is_plain(prefix) => {
            sql.one(&format!("{extract} >= "), path);
            sql.one("?", Parameter::Text(prefix.clone()));
        }
        Is::Holding(_) => sql.one(&format!("json_type({column}, ?) = 'array'"), path),
        _ => sql.one(&format!("json_type({column}, ?) IS NOT NULL"), path),
    }
}

/// The database ends a text at its first NUL in some places.
fn is_plain(text: &str) -> bool {
    !text.contains('\0')
}

/// What the database may make of a number when it reads it from JSON.
pub(super) fn around(number: f64) -> (f64, f64) {
    let room = number.abs() * 1e-9 + 1e-9;
    (number - room, number + room)
}

impl Sql {
    /// Adds text that holds one `?`, and what to bind to it.
    fn one(&mut self, text: &str, parameter: Parameter) {
        self.text.push_str(text);
        self.parameters.push(parameter);
    }
}
