//! What pages and counts are made of: the matches of a query, one by one or as many at once as the database has counted.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use holm_model::ServiceError;
use holm_query::twin::{Collection, Filter, Groups, Path, Query, Roots, TooManyGroups};
use serde_json::Value;

use super::document::{document, needs_twin};
use super::{Limits, MAX_GROUP_BYTES, MAX_GROUPS, too_much};
use crate::presence::Presence;
use crate::storage::{FleetRow, RowKey, Scan, Scanned, Show, Tallied, Tally, View};

/// A query over one snapshot.
pub(super) struct Source<'s> {
    pub(super) view: &'s View<'s>,
    pub(super) presence: &'s Presence,
    pub(super) query: &'s Query,
    pub(super) limits: &'s Limits,
    filter: Filter,
    /// What the condition reads.
    condition: Roots,
    /// What everything reads.
    pub(super) shown: Roots,
}

impl<'s> Source<'s> {
    pub(super) fn new(view: &'s View<'s>, presence: &'s Presence, query: &'s Query, limits: &'s Limits) -> Self {
        Self {
            view,
            presence,
            query,
            limits,
            filter: query.filter(),
            condition: query.condition_roots(),
            shown: query.roots(),
        }
    }

    /// Every match in its group: by counts that the database has, or else one by one. `None` where the effort is not enough.
    ///
    /// # Errors
    /// `ArgumentInvalid` when there are too many groups, or it takes too long.
    pub(super) fn grouped(&self) -> Result<Option<Groups<'s>>, ServiceError> {
        let none = || Groups::new(self.query, MAX_GROUPS, MAX_GROUP_BYTES);
        let refused = |error: TooManyGroups| ServiceError::argument_invalid(error.to_string());
        let mut groups = none();
        if let Some(paths) = self.query.paths() {
            let tallied = self.tally(&paths, &mut |document, count| {
                groups.add_many(document, count).map_err(refused)
            })?;
            match tallied {
                Tallied::Done => return Ok(Some(groups)),
                Tallied::TooLong => return Ok(None),
                Tallied::Unknown => groups = none(),
            }
        }
        let scanned = self.each_match(&mut |_, document| groups.add(&document).map_err(refused))?;
        Ok((scanned == Scanned::Whole).then_some(groups))
    }

    /// Documents that stand for so many matches each, where the database has counted them. The paths are all that is read.
    pub(super) fn tally(
        &self,
        paths: &BTreeSet<&Path>,
        take: &mut dyn FnMut(&Value, u64) -> Result<(), ServiceError>,
    ) -> Result<Tallied, ServiceError> {
        let tally = Tally {
            paths,
            filter: &self.filter,
            modules: self.query.collection() == Collection::Modules,
            effort: self.limits.effort,
        };
        self.view.tally(tally, &mut |document, count| {
            self.in_time()?;
            match self.query.matches(document) {
                true => take(document, count),
                false => Ok(()),
            }
        })
    }

    /// Whether it is still waited for, and in time.
    fn in_time(&self) -> Result<(), ServiceError> {
        self.limits.check()?;
        match self.limits.is_over() {
            true => Err(too_much()),
            false => Ok(()),
        }
    }

    /// Every match with all that the query reads; refused when that takes too long.
    pub(super) fn each_match(
        &self,
        take: &mut dyn FnMut(RowKey, Value) -> Result<(), ServiceError>,
    ) -> Result<Scanned, ServiceError> {
        self.each_row(None, &mut |key, row| {
            self.in_time()?;
            if let Some(row) = row
                && let Some(document) = self.matched(&key, &row)?
            {
                let document = self.complete(document, &key, &row)?;
                take(key, document)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// How many match, `most` at the most; refused when that takes too long.
    pub(super) fn matches(&self, most: u64) -> Result<u64, ServiceError> {
        let mut counted = 0_u64;
        let tallied = self.tally(&self.query.condition_paths().into_iter().collect(), &mut |_, count| {
            counted = counted.saturating_add(count);
            Ok(())
        })?;
        if tallied == Tallied::Done || most == 0 {
            return Ok(counted.min(most));
        }
        counted = 0;
        self.each_row(None, &mut |key, row| {
            self.in_time()?;
            if let Some(row) = row
                && self.matched(&key, &row)?.is_some()
            {
                counted += 1;
            }
            Ok(match counted < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        Ok(counted)
    }

    /// Every row behind a key, those that can't match without their contents.
    pub(super) fn each_row(&self, after: Option<&RowKey>, take: &mut Show<'_>) -> Result<Scanned, ServiceError> {
        let scan = Scan {
            filter: &self.filter,
            modules: self.query.collection() == Collection::Modules,
            after,
            twins: needs_twin(&self.condition) || needs_twin(&self.shown),
            effort: self.limits.effort,
        };
        self.view.scan(scan, &mut |key, row| {
            self.limits.check()?;
            take(key, row)
        })
    }

    /// What the condition reads of a row, if it matches.
    pub(super) fn matched(&self, key: &RowKey, row: &FleetRow) -> Result<Option<Value>, ServiceError> {
        let read = document(self.view, self.presence, key, row, &self.condition)?;
        Ok(self.query.matches(&read).then_some(read))
    }

    /// What the whole query reads of a row.
    pub(super) fn complete(&self, read: Value, key: &RowKey, row: &FleetRow) -> Result<Value, ServiceError> {
        if self.shown == self.condition {
            return Ok(read);
        }
        document(self.view, self.presence, key, row, &self.shown)
    }
}
