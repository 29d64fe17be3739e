//! Makes one page of a result: rows by key, groups, or rows in an order that the query asks for.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use holm_model::ServiceError;
use holm_query::twin::{Collection, Query, SortKey};
use serde_json::Value;
use tokio::time::Instant;

use super::continuation::{Continuation, GroupMark};
use super::document::document;
use super::source::Source;
use super::{Limits, MAX_BYTES, jobs};
use crate::presence::Presence;
use crate::storage::{RowKey, Scanned, View};

type Made = (Vec<Value>, Option<Continuation>);

/// Reads the page that begins at `from`; `None` where the effort is not enough for it.
///
/// # Errors
/// As [`super::Queries::page`].
pub(super) fn read(
    view: &View<'_>,
    presence: &Presence,
    query: &Query,
    from: &Continuation,
    limits: &Limits,
) -> Result<Option<Made>, ServiceError> {
    let wanted = from.left.map_or(limits.most, |left| {
        usize::try_from(left).unwrap_or(limits.most).min(limits.most)
    });
    if wanted == 0 {
        return Ok(Some((Vec::new(), None)));
    }
    if query.collection() == Collection::Jobs {
        return jobs::read(view, query, from, wanted, limits).map(Some);
    }
    let source = Source::new(view, presence, query, limits);
    let made = if query.is_grouped() {
        source.groups(from, wanted)?
    } else if query.is_sorted() {
        source.sorted(from, wanted)?
    } else {
        source.rows(from, wanted)?
    };
    let Some((items, next)) = made else {
        return Ok(None);
    };
    let given = u64::try_from(items.len()).unwrap_or(u64::MAX);
    let left = from.left.map(|left| left.saturating_sub(given));
    let next = next
        .filter(|_| left != Some(0))
        .map(|next| Continuation { left, ..next });
    Ok(Some((items, next)))
}

/// Items with a bound on their size.
#[derive(Default)]
pub(super) struct Items {
    pub(super) items: Vec<Value>,
    bytes: usize,
}

impl Items {
    pub(super) fn push(&mut self, item: Value) {
        self.bytes = self.bytes.saturating_add(item.to_string().len());
        self.items.push(item);
    }

    pub(super) fn is_full(&self, wanted: usize) -> bool {
        self.items.len() >= wanted || self.bytes >= MAX_BYTES
    }
}

impl Source<'_> {
    /// Rows in the order of their keys.
    fn rows(&self, from: &Continuation, wanted: usize) -> Result<Option<Made>, ServiceError> {
        let mut items = Items::default();
        let mut last: Option<RowKey> = None;
        let mut more = false;
        // How long to look for one more than fits, which says that there is more; set when the page is full.
        let mut look_until = None;
        let is_all = from
            .left
            .is_some_and(|left| usize::try_from(left).is_ok_and(|left| left <= wanted));
        let scanned = self.each_row(from.key.as_ref(), &mut |key, row| {
            // Each page gets on by a row at least.
            let is_over = self.limits.is_over() || look_until.is_some_and(|until| Instant::now() >= until);
            if last.is_some() && is_over {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            let matched = match &row {
                Some(row) => self.matched(&key, row)?,
                None => None,
            };
            if let (Some(document), Some(row)) = (matched, &row) {
                if items.is_full(wanted) {
                    more = true;
                    return Ok(ControlFlow::Break(()));
                }
                items.push(self.query.show(&self.complete(document, &key, row)?));
                if is_all && items.items.len() >= wanted {
                    return Ok(ControlFlow::Break(()));
                }
                if items.is_full(wanted) {
                    look_until = Some(Instant::now() + self.limits.look);
                }
            }
            last = Some(key);
            Ok(ControlFlow::Continue(()))
        })?;
        if scanned == Scanned::Part {
            if !items.is_full(wanted) {
                return Ok(None);
            }
            more = true;
        }
        let next = more.then(|| Continuation {
            key: last.or_else(|| from.key.clone()),
            ..Continuation::default()
        });
        Ok(Some((items.items, next)))
    }

    fn groups(&self, from: &Continuation, wanted: usize) -> Result<Option<Made>, ServiceError> {
        let Some(groups) = self.grouped()? else {
            return Ok(None);
        };
        let mut items = Items::default();
        let mut next = None;
        let mut last = None;
        let after = from.group.as_ref().map(|group| group.find(&groups));
        for (group, row) in groups.rows_after(after.as_deref()) {
            if items.is_full(wanted) {
                next = last.map(|last: &str| Continuation {
                    group: Some(GroupMark::of(last)),
                    ..Continuation::default()
                });
                break;
            }
            items.push(row);
            last = Some(group);
        }
        Ok(Some((items.items, next)))
    }

    /// Keeps the keys of a page and one more, and makes the documents when it is known which they are.
    fn sorted(&self, from: &Continuation, wanted: usize) -> Result<Option<Made>, ServiceError> {
        let begin = from.sorted.clone().zip(from.key.clone());
        let mut first: BTreeSet<(SortKey, RowKey)> = BTreeSet::new();
        let scanned = self.each_match(&mut |key, document| {
            let place = (self.query.sort_key(&document), key);
            if begin.as_ref().is_none_or(|begin| place > *begin) {
                first.insert(place);
                if first.len() > wanted + 1 {
                    first.pop_last();
                }
            }
            Ok(())
        })?;
        if scanned == Scanned::Part {
            return Ok(None);
        }
        let mut items = Items::default();
        let mut last = None;
        let mut next = None;
        for (place, key) in first {
            if items.is_full(wanted) {
                next = last;
                break;
            }
            if let Some(row) = self.view.fleet_row(&key)? {
                items.push(
                    self.query
                        .show(&document(self.view, self.presence, &key, &row, &self.shown)?),
                );
            }
            last = Some(Continuation {
                key: Some(key),
                sorted: Some(place),
                ..Continuation::default()
            });
        }
        Ok(Some((items.items, next)))
    }
}

#[cfg(test)]
mod tests;
