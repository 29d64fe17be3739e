//! A target condition, ready to be asked of many.
//!
//! ```text
//! tags.site = 'x' AND properties.reported.n > 3
//!   columns   tags.site · properties.reported.n        what is kept of each twin
//!   needs     tags.site = 'x'                          one of these holds wherever the condition does: the index
//! ```
//!
//! What can be read is what changes only with a twin or an identity, so that no target is missed: tags, reported properties, ids and
//! what the registry says. Not desired properties, which configurations write themselves.

use std::collections::HashMap;
use std::sync::Arc;

use holm_model::configuration::{Configuration, Target};
use holm_model::{ErrorCode, ServiceError};
use holm_query::twin::{Condition, Filter, Is, Path, Scalar, Step};
use serde_json::Value;

use super::facts::Column;
use super::terms::{Terms, UNDEFINED};

/// A column with a value that must stand in it.
pub(super) type Need = (Column, Value);

/// One configuration and whom it is for.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) configuration: Arc<Configuration>,
    condition: Condition,
    columns: Vec<Column>,
    /// Where the columns stand in the lane's facts.
    places: Vec<usize>,
    remembered: HashMap<Box<[u32]>, bool>,
}

impl Matcher {
    /// Reads the condition of a configuration.
    ///
    /// # Errors
    /// `InvalidConfigurationTargetCondition` with the place of the fault.
    pub(super) fn new(configuration: Arc<Configuration>) -> Result<Self, ServiceError> {
        let invalid = |text: String| ServiceError::new(ErrorCode::InvalidConfigurationTargetCondition, text);
        // What is over what is the configuration's; what follows is the language's.
        Target::parse(configuration.kind(), configuration.target_condition())?;
        let condition = Condition::parse(configuration.target_condition())
            .map_err(|problem| invalid(format!("the target condition is wrong: {problem}")))?;
        let mut columns = Vec::new();
        for path in condition.paths() {
            columns.push(column(path).map_err(invalid)?);
        }
        columns.sort();
        columns.dedup();
        // What stands within another column is there already. Sorted, a prefix comes first.
        let mut kept: Vec<Column> = Vec::new();
        for column in columns {
            if !kept.iter().any(|shorter| column.starts_with(shorter)) {
                kept.push(column);
            }
        }
        Ok(Self {
            configuration,
            condition,
            columns: kept,
            places: Vec::new(),
            remembered: HashMap::new(),
        })
    }

    /// What must be known of a twin.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Learns where the columns stand.
    pub(super) fn place(&mut self, place_of: impl Fn(&Column) -> usize) {
        self.places = self.columns.iter().map(place_of).collect();
        self.forget();
    }

    /// Forgets its answers: they are found again.
    pub(super) fn forget(&mut self) {
        self.remembered = HashMap::new();
    }

    /// How many answers it remembers.
    pub(super) fn remembered(&self) -> usize {
        self.remembered.len()
    }

    /// One of these holds wherever the condition holds; `None`: it must be asked of everyone; empty: it never holds.
    pub(super) fn needs(&self) -> Option<Vec<Need>> {
        needs(&self.condition.filter())
    }

    /// Whether the condition holds for a twin of these facts. The answer is remembered; the lane bounds how many.
    pub(super) fn holds(&mut self, facts: &[u32], terms: &Terms, key: &mut Vec<u32>) -> bool {
        key.clear();
        key.extend(
            self.places
                .iter()
                .map(|place| facts.get(*place).copied().unwrap_or(UNDEFINED)),
        );
        if let Some(known) = self.remembered.get(key.as_slice()) {
            return *known;
        }
        let mut document = Value::Object(serde_json::Map::new());
        for (column, term) in self.columns.iter().zip(key.iter()) {
            if let Some(value) = terms.value(*term) {
                super::facts::put(&mut document, column, value.clone());
            }
        }
        let holds = self.condition.holds(&document);
        self.remembered.insert(key.as_slice().into(), holds);
        holds
    }

    /// Whether the condition holds for a document.
    pub(super) fn holds_for(&self, document: &Value) -> bool {
        self.condition.holds(document)
    }
}

/// What is kept of each twin for a path: the path as far as it has names. `Err` says why it can't be a target's.
fn column(path: &Path) -> Result<Column, String> {
    let keys = path.steps().iter().map_while(|step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Index(_) => None,
    });
    let keys: Column = keys.collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["deviceId" | "moduleId" | "status" | "deviceScope" | "parentScopes"]
        | ["tags", ..]
        | ["capabilities", "iotEdge"] => Ok(keys),
        ["properties", "reported", first, ..] if !first.starts_with('$') => Ok(keys),
        ["properties", "desired", ..] => Err(format!(
            "the target condition reads `{path}`, which configurations write; use tags or reported properties"
        )),
        _ => Err(format!(
            "the target condition reads `{path}`; it can read `tags.…`, `properties.reported.…`, `deviceId`, `moduleId`, \
             `capabilities.iotEdge`, `status`, `deviceScope` and `parentScopes`"
        )),
    }
}

fn needs(filter: &Filter) -> Option<Vec<Need>> {
    match filter {
        Filter::Always => None,
        Filter::Never => Some(Vec::new()),
        Filter::Test(test) => match &test.is {
            Is::Equal(scalar) => {
                let keys = test.path.keys()?;
                let column = keys.into_iter().map(str::to_owned).collect();
                Some(vec![(column, value(scalar))])
            }
            _ => None,
        },
        Filter::All(filters) => filters.iter().filter_map(needs).min_by_key(Vec::len),
        Filter::Any(filters) => {
            let all: Option<Vec<_>> = filters.iter().map(needs).collect();
            Some(all?.into_iter().flatten().collect())
        }
    }
}

fn value(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => (*value).into(),
        Scalar::Number(number) => (*number).into(),
        Scalar::Text(text) => text.as_str().into(),
    }
}

/// Reads a condition of devices or modules, as it would be read with a configuration.
///
/// # Errors
/// `InvalidConfigurationTargetCondition`.
pub(super) fn check(text: &str) -> Result<(), ServiceError> {
    let invalid = |text: String| ServiceError::new(ErrorCode::InvalidConfigurationTargetCondition, text);
    let condition =
        Condition::parse(text).map_err(|problem| invalid(format!("the target condition is wrong: {problem}")))?;
    for path in condition.paths() {
        column(path).map_err(invalid)?;
    }
    Ok(())
}
