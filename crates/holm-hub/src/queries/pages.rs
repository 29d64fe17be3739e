//! Makes one page of a result: rows by key, groups, or rows in an order that the query asks for.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use holm_model::ServiceError;
use holm_query::twin::{Collection, Filter, Groups, Query, Roots, SortKey};
use serde_json::Value;
use tokio::time::Instant;

use super::continuation::{Continuation, GroupMark};
use super::document::{document, needs_twin};
use super::{Limits, MAX_BYTES, MAX_GROUP_BYTES, MAX_GROUPS, jobs, too_much};
use crate::presence::Presence;
use crate::storage::{FleetRow, RowKey, Scan, View};

type Made = (Vec<Value>, Option<Continuation>);

/// Reads the page that begins at `from`.
///
/// # Errors
/// As [`super::Queries::page`].
pub(super) fn read(
    view: &View<'_>,
    presence: &Presence,
    query: &Query,
    from: &Continuation,
    limits: &Limits,
) -> Result<Made, ServiceError> {
    let wanted = from.left.map_or(limits.most, |left| {
        usize::try_from(left).unwrap_or(limits.most).min(limits.most)
    });
    if wanted == 0 {
        return Ok((Vec::new(), None));
    }
    if query.collection() == Collection::Jobs {
        return jobs::read(view, query, from, wanted, limits);
    }
    let source = Source {
        view,
        presence,
        query,
        limits,
        filter: query.filter(),
        condition: query.condition_roots(),
        shown: query.roots(),
    };
    let (items, next) = if query.is_grouped() {
        source.groups(from, wanted)?
    } else if query.is_sorted() {
        source.sorted(from, wanted)?
    } else {
        source.rows(from, wanted)?
    };
    let given = u64::try_from(items.len()).unwrap_or(u64::MAX);
    let left = from.left.map(|left| left.saturating_sub(given));
    let next = next
        .filter(|_| left != Some(0))
        .map(|next| Continuation { left, ..next });
    Ok((items, next))
}

struct Source<'s> {
    view: &'s View<'s>,
    presence: &'s Presence,
    query: &'s Query,
    limits: &'s Limits,
    filter: Filter,
    /// What the condition reads.
    condition: Roots,
    /// What everything reads.
    shown: Roots,
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
    fn rows(&self, from: &Continuation, wanted: usize) -> Result<Made, ServiceError> {
        let mut items = Items::default();
        let mut last: Option<RowKey> = None;
        let mut more = false;
        // How long to look for one more than fits, which says that there is more; set when the page is full.
        let mut look_until = None;
        let is_all = from
            .left
            .is_some_and(|left| usize::try_from(left).is_ok_and(|left| left <= wanted));
        self.each_row(from.key.as_ref(), &mut |key, row| {
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
        let next = more.then(|| Continuation {
            key: last.or_else(|| from.key.clone()),
            ..Continuation::default()
        });
        Ok((items.items, next))
    }

    fn groups(&self, from: &Continuation, wanted: usize) -> Result<Made, ServiceError> {
        let mut groups = Groups::new(self.query, MAX_GROUPS, MAX_GROUP_BYTES);
        self.each_match(&mut |_, document| {
            groups
                .add(&document)
                .map_err(|error| ServiceError::argument_invalid(error.to_string()))
        })?;
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
        Ok((items.items, next))
    }

    /// Keeps the keys of a page and one more, and makes the documents when it is known which they are.
    fn sorted(&self, from: &Continuation, wanted: usize) -> Result<Made, ServiceError> {
        let begin = from.sorted.clone().zip(from.key.clone());
        let mut first: BTreeSet<(SortKey, RowKey)> = BTreeSet::new();
        self.each_match(&mut |key, document| {
            let place = (self.query.sort_key(&document), key);
            if begin.as_ref().is_none_or(|begin| place > *begin) {
                first.insert(place);
                if first.len() > wanted + 1 {
                    first.pop_last();
                }
            }
            Ok(())
        })?;
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
        Ok((items.items, next))
    }

    /// Every match with all that the query reads; refused when that takes too long.
    fn each_match(&self, take: &mut dyn FnMut(RowKey, Value) -> Result<(), ServiceError>) -> Result<(), ServiceError> {
        self.each_row(None, &mut |key, row| {
            if self.limits.is_over() {
                return Err(too_much());
            }
            if let Some(row) = row
                && let Some(document) = self.matched(&key, &row)?
            {
                let document = self.complete(document, &key, &row)?;
                take(key, document)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn each_row(
        &self,
        after: Option<&RowKey>,
        take: &mut dyn FnMut(RowKey, Option<FleetRow>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let scan = Scan {
            filter: &self.filter,
            modules: self.query.collection() == Collection::Modules,
            after,
            twins: needs_twin(&self.condition) || needs_twin(&self.shown),
        };
        self.view.scan(scan, &mut |key, row| {
            self.limits.check()?;
            take(key, row)
        })
    }

    /// What the condition reads of a row, if it matches.
    fn matched(&self, key: &RowKey, row: &FleetRow) -> Result<Option<Value>, ServiceError> {
        let read = document(self.view, self.presence, key, row, &self.condition)?;
        Ok(self.query.matches(&read).then_some(read))
    }

    /// What the whole query reads of a row.
    fn complete(&self, read: Value, key: &RowKey, row: &FleetRow) -> Result<Value, ServiceError> {
        if self.shown == self.condition {
            return Ok(read);
        }
        document(self.view, self.presence, key, row, &self.shown)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use std::time::Duration;

    use holm_model::{Timestamp, Twin};

    use super::*;
    use crate::registry::Entry;
    use crate::storage::Repository;

    async fn fleet(directory: &tempfile::TempDir) -> Repository {
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        repository
            .change(|transaction| {
                for id in ["d1", "d2", "d3", "d4", "d5"] {
                    let entry = Entry::new(id.parse().unwrap(), Timestamp::NEVER)?;
                    transaction.put_entry(&entry)?;
                    transaction.put_twin(&Twin::new(entry.identity, Timestamp::NEVER))?;
                }
                Ok(())
            })
            .await
            .unwrap();
        repository
    }

    /// Limits of a page that has no time left.
    fn over(given_up: bool) -> Limits {
        Limits {
            most: 10,
            until: Instant::now(),
            look: Duration::ZERO,
            given_up: Arc::new(AtomicBool::new(given_up)),
        }
    }

    /// Limits of a page of so many that has time, and does not look for more.
    fn of(most: usize) -> Limits {
        Limits {
            most,
            until: Instant::now() + Duration::from_secs(3600),
            ..over(false)
        }
    }

    async fn page(
        repository: &Repository,
        text: &str,
        from: Continuation,
        limits: Limits,
    ) -> Result<Made, ServiceError> {
        let query = Query::parse(text).unwrap();
        repository
            .read(move |view| read(view, &Presence::default(), &query, &from, &limits))
            .await
    }

    #[tokio::test]
    async fn a_page_whose_time_is_over_goes_on_where_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;

        // The condition is one that no index knows, and the last device alone meets it.
        let text = "SELECT deviceId FROM devices WHERE ENDSWITH(deviceId, '5')";
        let (mut found, mut pages, mut from) = (Vec::new(), 0, Continuation::default());
        loop {
            let (items, next) = page(&repository, text, from, over(false)).await.unwrap();
            found.extend(items);
            pages += 1;
            match next {
                Some(next) => from = next,
                None => break,
            }
        }

        assert_eq!(found, [serde_json::json!({"deviceId": "d5"})]);
        assert!(pages > 1, "{pages}");
    }

    #[tokio::test]
    async fn who_wants_the_first_few_gets_them_without_the_others_being_read() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;
        let direct = rusqlite::Connection::open(directory.path().join("hub.db")).unwrap();
        direct
            .execute("UPDATE twins SET document = 'damaged' WHERE device = 'd3'", [])
            .unwrap();

        let text = "SELECT TOP 2 deviceId FROM devices WHERE version > 0";
        let first = Continuation::start(&Query::parse(text).unwrap());
        let (items, next) = page(&repository, text, first, of(100)).await.unwrap();

        assert_eq!((items.len(), next), (2, None));
        let text = text.replace("TOP 2 ", "");
        let all = page(&repository, &text, Continuation::default(), of(100));
        assert!(all.await.is_err());
    }

    #[tokio::test]
    async fn a_full_page_does_not_look_long_for_more() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;

        let text = "SELECT deviceId FROM devices WHERE ENDSWITH(deviceId, '1')";
        let (items, next) = page(&repository, text, Continuation::default(), of(1)).await.unwrap();

        assert_eq!(items.len(), 1);
        let (items, next) = page(&repository, text, next.expect("there may be more"), of(1))
            .await
            .unwrap();
        assert_eq!((items.len(), next), (0, None));
    }

    #[tokio::test]
    async fn a_whole_whose_time_is_over_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;

        for text in ["SELECT COUNT() FROM devices", "SELECT * FROM devices ORDER BY deviceId"] {
            let refused = page(&repository, text, Continuation::default(), over(false)).await;
            assert!(
                refused.is_err_and(|error| error.message.contains("condition")),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn reading_ends_when_nobody_waits() {
        let directory = tempfile::tempdir().unwrap();
        let repository = fleet(&directory).await;

        for text in [
            "SELECT * FROM devices",
            "SELECT COUNT() FROM devices",
            "SELECT * FROM devices.jobs",
        ] {
            let ended = page(&repository, text, Continuation::default(), over(true)).await;
            assert!(
                ended.is_err_and(|error| error.message.contains("nobody waits")),
                "{text}"
            );
        }
    }
}
