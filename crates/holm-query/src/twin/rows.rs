//! Results of single documents: what they show, and where they stand in the order.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::ast::Expression;
use super::path::{Path, Step};
use super::query::{Direction, Query, Select, Shows};
use super::value::Value;

/// Which members of a document a query reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// All of them.
    All,
    /// These, by name; of `properties` the section too, and its metadata by itself: `properties.desired`, `properties.desired.$metadata`.
    Some(BTreeSet<String>),
}

impl Roots {
    /// Whether a member is read: `tags`, `properties.reported`, `connectionState`.
    #[must_use]
    pub fn has(&self, member: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(members) => members.contains(member),
        }
    }

    fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut members = BTreeSet::new();
        for path in paths {
            let sections = ["desired", "reported"];
            let (sections, metadata) = match path.steps() {
                [Step::Key(root)] if root == "properties" => (&sections[..], true),
                [Step::Key(root), Step::Key(section), rest @ ..] if root == "properties" => {
                    let metadata = match rest {
                        [] => true,
                        [Step::Key(first), ..] => first == "$metadata",
                        [Step::Index(_), ..] => false,
                    };
                    (&[section.as_str()][..], metadata)
                }
                _ => {
                    members.insert(path.root().to_owned());
                    continue;
                }
            };
            for section in sections {
                members.insert(format!("properties.{section}"));
                if metadata {
                    members.insert(format!("properties.{section}.$metadata"));
                }
            }
        }
        Self::Some(members)
    }
}

/// Where a document stands in the order that a query asks for. Documents without a value come first, then truth values,
/// numbers, texts, null, and objects and arrays.
#[derive(Clone, Debug)]
pub struct SortKey(Vec<(Sorted, Direction)>);

#[derive(Clone, Debug)]
enum Sorted {
    Absent,
    Bool(bool),
    Number(f64),
    Text(String),
    Null,
    Tree,
}

impl Query {
    /// What the columns are called, in their order; `None` where it shows documents whole.
    #[must_use]
    pub fn column_names(&self) -> Option<Vec<&str>> {
        match &self.select {
            Select::Everything => None,
            Select::Columns(columns) => Some(columns.iter().map(|column| column.name.as_str()).collect()),
        }
    }

    /// What it shows of a document that matches, where it is not grouped.
    #[must_use]
    pub fn show(&self, document: &Json) -> Json {
        let columns = match &self.select {
            Select::Everything => return document.clone(),
            Select::Columns(columns) => columns,
        };
        let mut shown = Map::new();
        for column in columns {
            if let Shows::Value(expression) = &column.shows
                && let Some(value) = json(expression, document)
            {
                shown.insert(column.name.clone(), value);
            }
        }
        Json::Object(shown)
    }

    /// What its condition reads.
    #[must_use]
    pub fn condition_roots(&self) -> Roots {
        Roots::of(self.condition_paths())
    }

    /// Everything that it reads.
    #[must_use]
    pub fn roots(&self) -> Roots {
        self.paths().map_or(Roots::All, Roots::of)
    }

    /// Every place that it reads; `None` where it shows documents whole.
    #[must_use]
    pub fn paths(&self) -> Option<BTreeSet<&Path>> {
        let Select::Columns(columns) = &self.select else {
            return None;
        };
        let mut paths = self.condition_paths();
        for column in columns {
            match &column.shows {
                Shows::Value(expression) | Shows::Aggregate(_, Some(expression)) => expression.paths(&mut paths),
                Shows::Aggregate(_, None) => {}
            }
        }
        paths.extend(&self.group_by);
        paths.extend(self.order_by.iter().map(|(path, _)| path));
        Some(paths.into_iter().collect())
    }

    /// Every place that its condition reads, in the order of the text.
    #[must_use]
    pub fn condition_paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.condition.iter().for_each(|condition| condition.paths(&mut paths));
        paths
    }

    /// Where a document stands in the order that the query asks for.
    #[must_use]
    pub fn sort_key(&self, document: &Json) -> SortKey {
        let sorted = |path: &Path| match Value::of(path.find(document)) {
            Value::Undefined => Sorted::Absent,
            Value::Bool(value) => Sorted::Bool(value),
            Value::Number(number) => Sorted::Number(number),
            Value::Text(text) => Sorted::Text(text.into_owned()),
            Value::Null => Sorted::Null,
            Value::Tree(_) => Sorted::Tree,
        };
        SortKey(
            self.order_by
                .iter()
                .map(|(path, direction)| (sorted(path), *direction))
                .collect(),
        )
    }
}

/// What an expression shows. A path shows what stands there, whatever its size and precision.
pub(super) fn json(expression: &Expression, document: &Json) -> Option<Json> {
    match expression {
        Expression::Path(path) => path.find(document).cloned(),
        _ => expression.value(document).into_json(),
    }
}

impl SortKey {
    /// As JSON, to be kept: for each value itself, and whether the greatest comes first. What is absent is an empty array.
    #[must_use]
    pub fn to_json(&self) -> Vec<(Json, bool)> {
        let value = |sorted: &Sorted| match sorted {
            Sorted::Absent => Json::Array(Vec::new()),
            Sorted::Bool(value) => Json::Bool(*value),
            Sorted::Number(number) => Json::from(*number),
            Sorted::Text(text) => Json::String(text.clone()),
            Sorted::Null => Json::Null,
            Sorted::Tree => Json::Object(Map::new()),
        };
        let parts = self.0.iter();
        parts
            .map(|(sorted, direction)| (value(sorted), *direction == Direction::Descending))
            .collect()
    }

    /// What [`SortKey::to_json`] gave; `None` where it is something else.
    #[must_use]
    pub fn from_json(values: Vec<(Json, bool)>) -> Option<Self> {
        let parts = values.into_iter().map(|(value, descending)| {
            let sorted = match value {
                Json::Array(_) => Sorted::Absent,
                Json::Bool(value) => Sorted::Bool(value),
                Json::Number(number) => Sorted::Number(number.as_f64()?),
                Json::String(text) => Sorted::Text(text),
                Json::Null => Sorted::Null,
                Json::Object(_) => Sorted::Tree,
            };
            let direction = if descending {
                Direction::Descending
            } else {
                Direction::Ascending
            };
            Some((sorted, direction))
        });
        parts.collect::<Option<_>>().map(Self)
    }
}

impl Sorted {
    const fn rank(&self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::Null => 4,
            Self::Tree => 5,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Ord for SortKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|((one, direction), (other, _))| match direction {
                Direction::Ascending => one.order(other),
                Direction::Descending => other.order(one),
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SortKey {}
