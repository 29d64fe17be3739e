//! Results of many documents: groups with what was counted in them, and different rows.
//!
//! A group is known by a text of what it is grouped by, and groups come in the order of those texts: a later page begins
//! behind the last group of the page before it, whatever groups have come and gone. Without GROUP BY there is one group, even
//! of no documents.
//!
//! ```text
//! absent: nothing   a text, an array, …: its JSON   a number: # and 16 digits, which stand in the order of numbers
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::ast::Expression;
use super::query::{Aggregate, Query, Select, Shows};
use super::rows;
use super::value::{Value, json_number};

/// There are more groups than fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyGroups {
    /// By their number.
    #[error("there are more than {most} groups; group by something that fewer differ in, or add a condition")]
    Number {
        /// How many fit.
        most: usize,
    },
    /// By their size.
    #[error("the groups are known by more than {most} bytes of JSON; group by something smaller, or add a condition")]
    Bytes {
        /// How many fit.
        most: usize,
    },
}

/// Collects the documents that match into groups.
#[derive(Debug)]
pub struct Groups<'q> {
    query: &'q Query,
    most: usize,
    most_bytes: usize,
    bytes: usize,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug)]
struct Group {
    /// For each column its value, where it is no aggregate.
    values: Vec<Option<Json>>,
    /// For each column what was counted.
    counts: Vec<Count>,
}

#[derive(Clone, Debug, Default)]
struct Count {
    count: u64,
    sum: f64,
    best: Option<Best>,
}

#[derive(Clone, Debug)]
enum Best {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl<'q> Groups<'q> {
    /// No documents yet; at most `most` groups, of `most_bytes` of JSON in what they are known by and show.
    #[must_use]
    pub fn new(query: &'q Query, most: usize, most_bytes: usize) -> Self {
        let mut groups = BTreeMap::new();
        if query.group_by.is_empty() && !query.distinct {
            groups.insert(String::new(), Group::new(query, &Json::Null));
        }
        Self {
            query,
            most,
            most_bytes,
            bytes: 0,
            groups,
        }
    }

    /// Adds a document that matches.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    pub fn add(&mut self, document: &Json) -> Result<(), TooManyGroups> {
        self.add_many(document, 1)
    }

    /// Adds so many documents that match and are alike in what the query reads.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    pub fn add_many(&mut self, document: &Json, times: u64) -> Result<(), TooManyGroups> {
        let key = self.key(document);
        if !self.groups.contains_key(&key) {
            if self.groups.len() >= self.most {
                return Err(TooManyGroups::Number { most: self.most });
            }
            let group = Group::new(self.query, document);
            self.bytes = self.bytes.saturating_add(key.len() + group.size());
            if self.bytes > self.most_bytes {
                return Err(TooManyGroups::Bytes { most: self.most_bytes });
            }
            self.groups.insert(key.clone(), group);
        }
        if let Some(group) = self.groups.get_mut(&key) {
            group.add(self.query, document, times);
        }
        Ok(())
    }

    fn key(&self, document: &Json) -> String {
        let texts: Vec<String> = match &self.query.select {
            Select::Columns(columns) if self.query.distinct => {
                let shown = self.query.show(document);
                columns.iter().map(|column| key_text(shown.get(&column.name))).collect()
            }
            _ => {
                let values = self.query.group_by.iter().map(|path| path.find(document));
                values.map(key_text).collect()
            }
        };
        texts.join("\u{0}")
    }

    /// The keys behind a text in order.
    pub fn keys_after(&self, text: &str) -> impl Iterator<Item = &str> {
        use std::ops::Bound;
        let behind = (Bound::Excluded(text), Bound::Unbounded);
        self.groups.range::<str, _>(behind).map(|(key, _)| key.as_str())
    }

    /// The rows behind a key in order, each with its key.
    pub fn rows_after(&self, after: Option<&str>) -> impl Iterator<Item = (&str, Json)> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.groups
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(key, group)| (key.as_str(), group.row(self.query)))
    }
}

/// What is absent is another group than null, which has a text of its own; `20` and `20.0` are one group.
fn key_text(value: Option<&Json>) -> String {
    match value {
        None => String::new(),
        Some(Json::Number(number)) => number.as_f64().map_or_else(|| number.to_string(), ordered),
        Some(other) => other.to_string(),
    }
}

/// A number as a text that stands among those of others as the number does: the bits of a double are in the order of numbers, if
/// the sign of those above zero is set and all bits of those below are turned over. Zero has one text, whatever its sign.
fn ordered(number: f64) -> String {
    const SIGN: u64 = 1 << 63;
    let bits = (number + 0.0).to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    format!("#{ordered:016x}")
}

impl Group {
    fn new(query: &Query, document: &Json) -> Self {
        let columns = match &query.select {
            Select::Everything => &[][..],
            Select::Columns(columns) => columns,
        };
        let values = columns
            .iter()
            .map(|column| match &column.shows {
                Shows::Value(expression) => rows::json(expression, document),
                Shows::Aggregate(..) => None,
            })
            .collect();
        Self {
            values,
            counts: vec![Count::default(); columns.len()],
        }
    }

    /// In bytes of JSON; what is counted has a bound of its own.
    fn size(&self) -> usize {
        let values = self.values.iter().flatten();
        values.map(|value| value.to_string().len()).sum()
    }

    fn add(&mut self, query: &Query, document: &Json, times: u64) {
        let Select::Columns(columns) = &query.select else {
            return;
        };
        for (column, count) in columns.iter().zip(&mut self.counts) {
            if let Shows::Aggregate(aggregate, argument) = &column.shows {
                count.add(*aggregate, argument.as_ref(), document, times);
            }
        }
    }

    fn row(&self, query: &Query) -> Json {
        let mut row = Map::new();
        let Select::Columns(columns) = &query.select else {
            return Json::Object(row);
        };
        for ((column, value), count) in columns.iter().zip(&self.values).zip(&self.counts) {
            let shown = match &column.shows {
                Shows::Value(_) => value.clone(),
                Shows::Aggregate(aggregate, _) => count.result(*aggregate),
            };
            if let Some(shown) = shown {
                row.insert(column.name.clone(), shown);
            }
        }
        Json::Object(row)
    }
}

impl Count {
    /// Counts what is there; adds up numbers only; compares numbers, texts and truth values.
    // Fleets are far smaller than what a double counts exactly.
    #[allow(clippy::cast_precision_loss)]
    fn add(&mut self, aggregate: Aggregate, argument: Option<&Expression>, document: &Json, times: u64) {
        let value = argument.map(|argument| argument.value(document));
        match (aggregate, value) {
            (Aggregate::Count, None) => self.count += times,
            (Aggregate::Count, Some(Value::Undefined)) => {}
            (Aggregate::Count, Some(_)) => self.count += times,
            (Aggregate::Sum | Aggregate::Average, Some(Value::Number(number))) => {
                self.count += times;
                self.sum += number * times as f64;
            }
            (Aggregate::Least, Some(value)) => self.compare(&value, |order| order.is_lt()),
            (Aggregate::Greatest, Some(value)) => self.compare(&value, |order| order.is_gt()),
            _ => {}
        }
    }

    fn compare(&mut self, value: &Value<'_>, is_better: fn(std::cmp::Ordering) -> bool) {
        let new = match value {
            Value::Bool(value) => Best::Bool(*value),
            Value::Number(number) => Best::Number(*number),
            Value::Text(text) => Best::Text(text.clone().into_owned()),
            _ => return,
        };
        if self.best.as_ref().is_none_or(|best| is_better(new.order(best))) {
            self.best = Some(new);
        }
    }

    fn result(&self, aggregate: Aggregate) -> Option<Json> {
        match aggregate {
            Aggregate::Count => Some(self.count.into()),
            Aggregate::Sum => json_number(self.sum),
            // Fleets are far smaller than what a double counts exactly.
            #[allow(clippy::cast_precision_loss)]
            Aggregate::Average => (self.count > 0)
                .then(|| json_number(self.sum / self.count as f64))
                .flatten(),
            Aggregate::Least | Aggregate::Greatest => match self.best.as_ref()? {
                Best::Bool(value) => Some((*value).into()),
                Best::Number(number) => json_number(*number),
                Best::Text(text) => Some(text.clone().into()),
            },
        }
    }
}

impl Best {
    /// Kinds in the order truth values, numbers, texts.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_of_numbers_come_in_the_order_of_the_numbers() {
        let grouped = "SELECT tags.n, COUNT() AS c FROM devices GROUP BY tags.n";
        for (text, counts) in [(grouped, true), ("SELECT DISTINCT tags.n FROM devices", false)] {
            let query = Query::parse(text).unwrap();
            let mut groups = Groups::new(&query, 100, usize::MAX);
            let numbers = [
                json!(10),
                json!(9),
                json!(-2),
                json!(-10),
                json!(0.5),
                json!(1e300),
                json!(20.0),
                json!(20),
            ];
            for number in numbers.iter().chain([&json!("10"), &json!(-0.0), &json!(0)]) {
                groups.add(&json!({"tags": {"n": number}})).unwrap();
            }
            groups.add(&json!({})).unwrap();

            let rows: Vec<Json> = groups.rows_after(None).map(|(_, row)| row).collect();

            let shown: Vec<_> = rows
                .iter()
                .map(|row| row.get("n").map(|n| n.as_f64().ok_or(n.as_str())))
                .collect();
            let numbers = [-10.0, -2.0, 0.0, 0.5, 9.0, 10.0, 20.0, 1e300].map(|number| Some(Ok(number)));
            assert_eq!(shown[..2], [None, Some(Err(Some("10")))], "{text}");
            assert_eq!(shown[2..], numbers, "{text}");
            if counts {
                let counted: Vec<_> = rows.iter().map(|row| row["c"].as_u64().unwrap_or_default()).collect();
                assert_eq!(counted, [1, 1, 1, 1, 2, 1, 1, 1, 2, 1]);
            }
        }
    }
}
