//! The identities among which every match of a filter is, in the order of their keys, as far as an index knows.
//!
//! ```text
//! tags.site = 'x' AND tags.serial < 500 AND deviceId IN ['a', 'b']
//!    All [ Lane: rows of `twin_tags`,  Few: read already,  Few ]      each asked for its first key from where the others are
//! ```
//!
//! A lane is a part of an index in which rows stand in the order of keys: of tags those of one value, of identities a range. It may be
//! as long as the fleet, and is read piece by piece. What stands in another order is read at once, if it is little.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use holm_model::ServiceError;
use holm_query::twin::{Filter, Is, Path, Scalar, Test, successor};
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::super::family::stored_scopes;
use super::super::{View, to_u64};
use super::RowKey;
use super::tags;

/// The most keys that are read at once.
pub(super) const MAX_FEW: usize = 4096;
/// How many keys of a lane are read before it is known to be long.
const MAX_OF_LANE: usize = 256;
/// The most lanes of which each is asked for every key.
const MAX_LANES: usize = 16;
/// Keys in a piece of a lane, the least and the most. To ask for a piece takes as long as to read some fifty keys.
const PIECE: (usize, usize) = (64, 1024);
/// How many keys are read to need one of them, in less time than it takes to ask for the next piece.
const WORTH: usize = 16;

/// How many rows of an index may still be read.
#[derive(Debug)]
pub(super) struct Budget(Cell<usize>);

/// Keys in their order.
#[derive(Debug)]
pub(super) enum Keys {
    /// Those that are left.
    Few(VecDeque<RowKey>),
    Lane(Lane),
    /// Those that all have.
    All(Vec<Self>),
    /// Those that one has.
    Any(Vec<Self>),
}

#[derive(Debug)]
pub(super) struct Lane {
    /// A table and a condition.
    from: String,
    parameters: Vec<Value>,
    /// Nothing of it stands before.
    least: RowKey,
    piece: VecDeque<RowKey>,
    /// How many keys the next piece has.
    size: usize,
    /// How many keys of this piece were asked for.
    used: usize,
    /// Whether nothing follows this piece.
    is_last: bool,
}

/// The key that follows in the order: no text stands between one and the same with a NUL behind it.
pub(super) fn behind(key: &RowKey) -> RowKey {
    (key.0.clone(), format!("{}\0", key.1))
}

impl Budget {
    pub(super) const fn of(rows: usize) -> Self {
        Self(Cell::new(rows))
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.0.get() == 0
    }

    fn spend(&self, rows: usize) {
        self.0.set(self.0.get().saturating_sub(rows));
    }
}

impl Keys {
    fn few(keys: impl IntoIterator<Item = RowKey>) -> Self {
        Self::Few(keys.into_iter().collect())
    }

    /// The first key at `at` or behind it, which grows from call to call; `None` at the end, or when the budget is spent.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) fn seek(
        &mut self,
        view: &View<'_>,
        at: &RowKey,
        budget: &Budget,
    ) -> Result<Option<RowKey>, ServiceError> {
        match self {
            Self::Few(keys) => {
                drop_before(keys, at);
                Ok(keys.front().cloned())
            }
            Self::Lane(lane) => lane.seek(view, at, budget),
            Self::All(all) => {
                let mut at = at.clone();
                loop {
                    let begun = at.clone();
                    for keys in &mut *all {
                        match keys.seek(view, &at, budget)? {
                            Some(found) => at = found,
                            None => return Ok(None),
                        }
                    }
                    if at == begun {
                        return Ok(Some(at));
                    }
                }
            }
            Self::Any(any) => {
                let mut first: Option<RowKey> = None;
                for keys in any {
                    let found = keys.seek(view, at, budget)?;
                    first = match (first, found) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    };
                }
                // One that could not look as far as the others may have an earlier key.
                Ok(first.filter(|_| !budget.is_spent()))
            }
        }
    }

    /// What is left when nothing is followed that has `most` keys or more; `None` when that is nothing.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) fn narrow(self, view: &View<'_>, at: &RowKey, most: usize) -> Result<Option<Self>, ServiceError> {
        Ok(match self {
            Self::All(all) => {
                let mut narrow = Vec::new();
                for keys in all {
                    narrow.extend(keys.narrow(view, at, most)?);
                }
                (!narrow.is_empty()).then_some(Self::All(narrow))
            }
            other => (other.count(view, at, most)? < most).then_some(other),
        })
    }

    /// How many keys there are from `at` on, or more; `most` if there are as many.
    fn count(&self, view: &View<'_>, at: &RowKey, most: usize) -> Result<usize, ServiceError> {
        match self {
            Self::Few(keys) => Ok(keys.len().min(most)),
            Self::Lane(lane) => lane.count(view, at, most),
            Self::All(all) => all
                .iter()
                .try_fold(most, |least, keys| Ok(least.min(keys.count(view, at, least)?))),
            Self::Any(any) => any.iter().try_fold(0, |sum, keys| {
                Ok((sum + keys.count(view, at, most.saturating_sub(sum))?).min(most))
            }),
        }
    }
}

fn drop_before(keys: &mut VecDeque<RowKey>, at: &RowKey) {
    while keys.front().is_some_and(|key| key < at) {
        keys.pop_front();
    }
}

impl Lane {
    fn of(from: String, parameters: Vec<Value>, least: RowKey) -> Self {
        Self {
            from,
            parameters,
            least,
            piece: VecDeque::new(),
            size: PIECE.0,
            used: 0,
            is_last: false,
        }
    }

    fn seek(&mut self, view: &View<'_>, at: &RowKey, budget: &Budget) -> Result<Option<RowKey>, ServiceError> {
        drop_before(&mut self.piece, at);
        if self.piece.is_empty() && !self.is_last && !budget.is_spent() {
            // Who needs one key of a few gets more at a time, who leaps far gets less.
            self.size = if self.used * WORTH >= self.size {
                (self.size * 2).min(PIECE.1)
            } else {
                (self.size / 2).max(PIECE.0)
            };
            self.read(view, at, self.size)?;
            budget.spend(self.size);
        }
        self.used += 1;
        Ok(self.piece.front().cloned())
    }

    /// Reads the piece of so many keys that begins at `at`.
    fn read(&mut self, view: &View<'_>, at: &RowKey, size: usize) -> Result<(), ServiceError> {
        let sql = format!(
            "SELECT device, module FROM {} AND (device, module) >= (?, ?) ORDER BY device, module LIMIT ?",
            self.from
        );
        let rows = view.all(&sql, params_from_iter(self.bound(at, size)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        self.is_last = rows.len() < size;
        self.piece = rows.into();
        self.used = 0;
        Ok(())
    }

    fn count(&self, view: &View<'_>, at: &RowKey, most: usize) -> Result<usize, ServiceError> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} AND (device, module) >= (?, ?) LIMIT ?)",
            self.from
        );
        let count = view.one(&sql, params_from_iter(self.bound(at, most)), |row| row.get(0))?;
        Ok(usize::try_from(count.map_or(0, to_u64)).unwrap_or(most))
    }

    fn bound(&self, at: &RowKey, limit: usize) -> Vec<Value> {
        let (device, module) = at.max(&self.least).clone();
        let limit = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        let place = [Value::Text(device), Value::Text(module), limit];
        self.parameters.iter().cloned().chain(place).collect()
    }
}

/// Where to look for devices or for modules.
#[derive(Clone, Copy)]
pub(super) struct Finder<'v> {
    pub(super) view: &'v View<'v>,
    pub(super) modules: bool,
}

impl Finder<'_> {
    const fn kind(self) -> &'static str {
        if self.modules { "module != ''" } else { "module = ''" }
    }

    /// The keys among which every match is; `None` when no index knows. At most `most` keys are read of a test.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) fn keys(self, filter: &Filter) -> Result<Option<Keys>, ServiceError> {
        match filter {
            Filter::Always => Ok(None),
            Filter::Never => Ok(Some(Keys::few([]))),
            Filter::Test(test) => self.of_tests(&test.path, &[test], MAX_OF_LANE),
            Filter::All(filters) => self.all(filters),
            Filter::Any(filters) => self.any(filters),
        }
    }

    fn all(self, filters: &[Filter]) -> Result<Option<Keys>, ServiceError> {
        let mut all = Vec::new();
        // The tests of one path are one part of its index.
        let mut paths: Vec<(&Path, Vec<&Test>)> = Vec::new();
        for filter in filters {
            match filter {
                Filter::Test(test) => match paths.iter_mut().find(|(path, _)| **path == test.path) {
                    Some((_, tests)) => tests.push(test),
                    None => paths.push((&test.path, vec![test])),
                },
                other => all.extend(self.keys(other)?),
            }
        }
        for (path, tests) in paths {
            let keys = self.of_tests(path, &tests, MAX_OF_LANE)?;
            if let Some(Keys::Few(few)) = &keys
                && few.is_empty()
            {
                return Ok(keys);
            }
            all.extend(keys);
        }
        // The shortest leads.
        all.sort_by_key(|keys| match keys {
            Keys::Few(keys) => keys.len(),
            Keys::Lane(_) | Keys::All(_) | Keys::Any(_) => usize::MAX,
        });
        Ok((!all.is_empty()).then_some(Keys::All(all)))
    }

    fn any(self, filters: &[Filter]) -> Result<Option<Keys>, ServiceError> {
        let mut few = BTreeSet::new();
        let mut others = Vec::new();
        for filter in filters {
            let keys = match filter {
                Filter::Test(test) => {
                    let most = MAX_FEW.saturating_sub(few.len());
                    self.of_tests(&test.path, &[test], most)?
                }
                other => self.keys(other)?,
            };
            match keys {
                None => return Ok(None),
                Some(Keys::Few(keys)) => few.extend(keys),
                Some(keys) => others.push(keys),
            }
            if few.len() > MAX_FEW || others.len() > MAX_LANES {
                return Ok(None);
            }
        }
        others.push(Keys::few(few));
        Ok(Some(Keys::Any(others)))
    }

    /// The keys of those that pass all these tests of a path. At most `most` are read of what could be a lane.
    fn of_tests(self, path: &Path, tests: &[&Test], most: usize) -> Result<Option<Keys>, ServiceError> {
        if path.root() == "tags" {
            let Some(rows) = tags::rows_of_tests(path, tests) else {
                return Ok(None);
            };
            let from = format!("twin_tags WHERE {} AND {}", rows.condition, self.kind());
            return if rows.is_one_value {
                self.lane(Lane::of(from, rows.parameters, RowKey::default()), most)
                    .map(Some)
            } else {
                self.few(&from, rows.parameters)
            };
        }
        let mut all = Vec::new();
        for test in tests {
            all.extend(self.of_identity(test, most)?);
        }
        Ok(match all.len() {
            0 | 1 => all.pop(),
            _ => Some(Keys::All(all)),
        })
    }

    fn of_identity(self, test: &Test, most: usize) -> Result<Option<Keys>, ServiceError> {
        let from = |condition: &str| format!("identities WHERE {} {condition}", self.kind());
        let lane = |condition: &str, parameters, least: &str| {
            let least = (least.to_owned(), String::new());
            self.lane(Lane::of(from(condition), parameters, least), most).map(Some)
        };
        match (test.path.keys().as_deref(), &test.is) {
            (Some(["deviceId"]), Is::Equal(Scalar::Text(id))) => {
                lane("AND device = ?", vec![Value::Text(id.clone())], id)
            }
            (Some(["deviceId"]), Is::AtLeast(Scalar::Text(id))) => lane("", vec![], id),
            (Some(["deviceId"]), Is::AtMost(Scalar::Text(id))) => {
                lane("AND device <= ?", vec![Value::Text(id.clone())], "")
            }
            (Some(["deviceId"]), Is::Prefix(prefix)) => match successor(prefix) {
                Some(end) => lane("AND device < ?", vec![Value::Text(end)], prefix),
                None => lane("", vec![], prefix),
            },
            (Some(["parentScopes"]), Is::Holding(Scalar::Text(scope))) if !self.modules => {
                let scopes = stored_scopes(std::slice::from_ref(scope))?;
                self.few(
                    &from("AND parent_scopes = ? AND parent_scopes != '[]'"),
                    vec![Value::Text(scopes)],
                )
            }
            (Some(["deviceScope"]), Is::Equal(Scalar::Text(scope))) if !self.modules => self.few(
                &from("AND device_scope = ? AND device_scope IS NOT NULL"),
                vec![Value::Text(scope.clone())],
            ),
            _ => Ok(None),
        }
    }

    /// The lane, or its keys where they are few.
    fn lane(self, mut lane: Lane, most: usize) -> Result<Keys, ServiceError> {
        lane.read(self.view, &RowKey::default(), most + 1)?;
        if lane.is_last {
            return Ok(Keys::Few(lane.piece));
        }
        // What was read of it may lie before where reading begins.
        lane.piece.clear();
        Ok(Keys::Lane(lane))
    }

    /// The keys of rows in any order; `None` when they are many.
    fn few(self, from: &str, parameters: Vec<Value>) -> Result<Option<Keys>, ServiceError> {
        let sql = format!("SELECT device, module FROM {from} LIMIT {}", MAX_FEW + 1);
        let found = self
            .view
            .all(&sql, params_from_iter(parameters), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((found.len() <= MAX_FEW).then(|| Keys::few(found.into_iter().collect::<BTreeSet<_>>())))
    }
}
