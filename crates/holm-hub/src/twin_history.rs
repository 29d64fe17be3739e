//! The history of a twin: what it was at a time or version, who changed it, and what differs.
//!
//! ```text
//! now ──undo──> before the last change ──undo──> … ──undo──> the oldest that is kept
//! ```
//!
//! Of each change the way back is kept, as a merge patch of each section: its size is that of the change, and the twin itself is kept
//! once. A section holds no null outside of arrays, so a merge patch leads from any state to any other. Times of single properties
//! (`$metadata`) are not kept.
//!
//! There is one state on the way, which each undo changes in place; what a change did is worked out of its undo and that state. So
//! a page takes memory and time by the size of the changes, within `MAX_BYTES` and `MAX_TIME`. Where a page ends the state is
//! kept for a while (`PageEnds`), so that the next one does not begin at the present again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_model::twin::patch;
use holm_model::{ErrorCode, Identity, ServiceError, Timestamp, Twin, TwinUpdate};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::registry::Entry;
use crate::storage::{Transaction, TwinChangeRow, View};

/// The most changes of one answer.
pub const MAX_LISTED: u32 = 1000;
/// The most bytes of JSON of one answer, one change more or less.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long one answer reads.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Changes that are read at a time on the way back.
const PAGE: u32 = 100;
/// The most ends of pages that are remembered. A state has at most some 100 KiB.
const MAX_PAGE_ENDS: usize = 16;

/// A point in the history of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// As it was when it had this version of tags and desired properties, with what was reported until the next.
    Version(u64),
    /// As it was at this moment.
    Time(Timestamp),
}

impl Point {
    /// Reads a version or a time, ISO 8601.
    ///
    /// # Errors
    /// `ArgumentInvalid`.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        let version = text.parse().ok().map(Self::Version);
        let point = version.or_else(|| Timestamp::parse(text).map(Self::Time));
        point.ok_or_else(|| {
            let shown: String = text.chars().take(50).collect();
            ServiceError::argument_invalid(format!("`{shown}` is no point of a history; give a version or a time"))
        })
    }
}

/// What a twin was.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    version: u64,
    tags: Map<String, Value>,
    desired: Side,
    reported: Side,
}

#[derive(Clone, Debug, PartialEq)]
struct Side {
    properties: Map<String, Value>,
    version: u64,
}

/// What leads back over a change. What it did not touch is not there.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Undo {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<UndoSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reported: Option<UndoSide>,
}

#[derive(Debug, Deserialize, Serialize)]
struct UndoSide {
    version: u64,
    patch: Map<String, Value>,
}

/// A change, and what it did.
#[derive(Clone, Debug)]
pub struct Step {
    change: u64,
    at: Timestamp,
    actor: String,
    operation: String,
    version: u64,
    desired_version: u64,
    reported_version: u64,
    changed: Value,
}

impl State {
    fn of(twin: &Twin) -> Self {
        let side = |section: &holm_model::twin::Section| Side {
            properties: section.properties().clone(),
            version: section.version(),
        };
        Self {
            version: twin.version(),
            tags: twin.tags().clone(),
            desired: side(twin.desired()),
            reported: side(twin.reported()),
        }
    }

    const fn change(&self) -> u64 {
        self.version + self.reported.version
    }

    fn back(&mut self, undo: &Undo) {
        self.version = undo.version;
        if let Some(tags) = &undo.tags {
            patch::apply(&mut self.tags, tags);
        }
        for (side, undo) in [(&mut self.desired, &undo.desired), (&mut self.reported, &undo.reported)] {
            if let Some(undo) = undo {
                patch::apply(&mut side.properties, &undo.patch);
                side.version = undo.version;
            }
        }
    }

    /// What the change did that led to this state: merge patches of what it changed.
    fn changed(&self, undo: &Undo) -> Value {
        let side = |side: &Side, undo: &Option<UndoSide>| {
            let patch = undo.as_ref().map(|undo| patch::invert(&side.properties, &undo.patch));
            patch.unwrap_or_default()
        };
        let tags = undo.tags.as_ref().map(|undo| patch::invert(&self.tags, undo));
        told(
            tags.unwrap_or_default(),
            side(&self.desired, &undo.desired),
            side(&self.reported, &undo.reported),
        )
    }

    /// Whether nobody has changed the twin before: it was just made.
    const fn is_first(&self) -> bool {
        self.version == 2 && self.reported.version == 1
    }

    /// What to write so that the twin is again as it was; what its device reports is the device's.
    #[must_use]
    pub fn to_update(&self) -> TwinUpdate {
        TwinUpdate {
            tags: Some(self.tags.clone()),
            desired: Some(self.desired.properties.clone()),
        }
    }

    /// In the form of a twin, without `$metadata`.
    #[must_use]
    pub fn to_json(&self, identity: &Identity) -> Value {
        let side = |side: &Side| {
            let mut properties = side.properties.clone();
            properties.insert("$version".to_owned(), json!(side.version));
            properties
        };
        json!({
            "deviceId": identity.device,
            "moduleId": identity.module,
            "version": self.version,
            "tags": self.tags,
            "properties": { "desired": side(&self.desired), "reported": side(&self.reported) },
        })
    }

    /// What leads to another state: merge patches of what differs.
    #[must_use]
    pub fn difference(&self, to: &Self) -> Value {
        told(
            patch::diff(&self.tags, &to.tags),
            patch::diff(&self.desired.properties, &to.desired.properties),
            patch::diff(&self.reported.properties, &to.reported.properties),
        )
    }
}

/// Patches in the form of a twin, without those that do nothing.
fn told(tags: Map<String, Value>, desired: Map<String, Value>, reported: Map<String, Value>) -> Value {
    let members = |members: [(&str, Map<String, Value>); 2]| -> Map<String, Value> {
        let members = members.into_iter().filter(|(_, patch)| !patch.is_empty());
        members.map(|(name, patch)| (name.to_owned(), patch.into())).collect()
    };
    let properties = members([("desired", desired), ("reported", reported)]);
    members([("tags", tags), ("properties", properties)]).into()
}

impl Step {
    /// The change's number: one more than that of the change before.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.change
    }

    /// Who, when, and what the change did.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "change": self.change,
            "time": self.at,
            "actor": self.actor,
            "operation": self.operation,
            "version": self.version,
            "desiredVersion": self.desired_version,
            "reportedVersion": self.reported_version,
            "changed": self.changed,
        })
    }
}

/// Keeps what leads back from `after` to `before`.
pub(crate) fn keep(
    transaction: &Transaction<'_>,
    before: &Twin,
    after: &Twin,
    operation: &str,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let side = |before: &holm_model::twin::Section, after: &holm_model::twin::Section| {
        (before.version() != after.version()).then(|| UndoSide {
            version: before.version(),
            patch: patch::diff(after.properties(), before.properties()),
        })
    };
    let tags = patch::diff(after.tags(), before.tags());
    let undo = Undo {
        version: before.version(),
        tags: (!tags.is_empty()).then_some(tags),
        desired: side(before.desired(), after.desired()),
        reported: side(before.reported(), after.reported()),
    };
    let undo = serde_json::to_string(&undo).map_err(|_| damaged(after.identity()))?;
    let change = after.version() + after.reported().version();
    transaction.keep_twin_change(after.identity(), change, operation, &undo, now)
}

/// The states at which pages ended: where the next page begins. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageEnds(Arc<Mutex<VecDeque<PageEnd>>>);

#[derive(Debug)]
struct PageEnd {
    identity: Identity,
    /// Another device of the same id has another history.
    generation: String,
    state: State,
}

impl PageEnds {
    /// Takes the state from which it is shortest to the change `last`.
    fn take(&self, entry: &Entry, last: u64) -> Option<State> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ends
            .iter()
            .enumerate()
            .filter(|(_, end)| end.identity == entry.identity && end.generation == entry.generation)
            .filter(|(_, end)| end.state.change() >= last)
            .min_by_key(|(_, end)| end.state.change())
            .map(|(at, _)| at)?;
        ends.remove(found).map(|end| end.state)
    }

    fn keep(&self, entry: &Entry, state: State) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.len() >= MAX_PAGE_ENDS {
            ends.pop_front();
        }
        ends.push_back(PageEnd {
            identity: entry.identity.clone(),
            generation: entry.generation.clone(),
            state,
        });
    }
}

/// The changes of a twin up to `last`, newest first, at most `most`. There may be fewer although there are more behind them, but there
/// is one at least where there is any.
///
/// # Errors
/// `ThrottlingBacklogTimeout` where `last` is too far back to be reached at once; the next try goes on from there.
pub(crate) fn steps(
    view: &View<'_>,
    (entry, twin): (&Entry, &Twin),
    last: Option<u64>,
    most: u32,
    ends: &PageEnds,
) -> Result<Vec<Step>, ServiceError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let begin = last.and_then(|last| ends.take(entry, last));
    let mut walk = Walk::from(view, twin, begin);
    let (mut steps, mut bytes) = (Vec::new(), 0);
    while let Some((row, undo)) = walk.next()? {
        if steps.len() >= most || bytes >= MAX_BYTES || (walk.is_over() && !steps.is_empty()) {
            break;
        }
        if walk.is_over() {
            ends.keep(entry, walk.state);
            return Err(too_long(twin.identity()));
        }
        if last.is_none_or(|last| row.change <= last) {
            let changed = walk.state.changed(&undo);
            bytes += changed.to_string().len();
            steps.push(Step {
                change: row.change,
                at: row.at,
                actor: row.actor,
                operation: row.operation,
                version: walk.state.version,
                desired_version: walk.state.desired.version,
                reported_version: walk.state.reported.version,
                changed,
            });
        }
        walk.state.back(&undo);
    }
    ends.keep(entry, walk.state);
    Ok(steps)
}

/// What a twin was at a point.
///
/// # Errors
/// `ArgumentInvalid` for a version that is not there yet; `InvalidOperation` for a point that is not kept any more, and for one before
/// the twin was made; `ThrottlingBacklogTimeout` for one that is too far back to be reached.
pub(crate) fn state_at(view: &View<'_>, (entry, twin): (&Entry, &Twin), point: Point) -> Result<State, ServiceError> {
    let now = State::of(twin);
    match point {
        Point::Version(version) if version > now.version => {
            let text = format!("the twin has version {}, and no version {version} yet", now.version);
            return Err(ServiceError::argument_invalid(text));
        }
        Point::Version(version) if version == now.version => return Ok(now),
        Point::Time(time) if entry.made().is_some_and(|made| time < made) => {
            let made = entry.made().unwrap_or(time);
            let text = format!("`{}` was made at {made}, and was not there before", twin.identity());
            return Err(ServiceError::new(ErrorCode::InvalidOperation, text));
        }
        Point::Version(_) | Point::Time(_) => {}
    }
    let mut walk = Walk::from(view, twin, Some(now));
    let mut oldest = None;
    while let Some((row, undo)) = walk.next()? {
        if walk.is_over() {
            return Err(too_long(twin.identity()));
        }
        // The state after the change was there from the change on.
        if matches!(point, Point::Time(time) if row.at <= time) {
            return Ok(walk.state);
        }
        walk.state.back(&undo);
        if matches!(point, Point::Version(version) if walk.state.version == version) {
            return Ok(walk.state);
        }
        oldest = Some(row.at);
    }
    if matches!(point, Point::Time(_)) && walk.state.is_first() {
        return Ok(walk.state);
    }
    let begin = oldest.map_or_else(
        || "it holds no change".to_owned(),
        |oldest| format!("it begins at {oldest}"),
    );
    let text = format!("the history of `{}` does not go back so far: {begin}", twin.identity());
    Err(ServiceError::new(ErrorCode::InvalidOperation, text))
}

/// The way back from a state.
struct Walk<'v> {
    view: &'v View<'v>,
    identity: &'v Identity,
    state: State,
    rows: std::vec::IntoIter<TwinChangeRow>,
    until: Instant,
}

impl<'v> Walk<'v> {
    /// From the present if nothing else is given.
    fn from(view: &'v View<'v>, twin: &'v Twin, state: Option<State>) -> Self {
        Self {
            view,
            identity: twin.identity(),
            state: state.unwrap_or_else(|| State::of(twin)),
            rows: Vec::new().into_iter(),
            until: Instant::now() + MAX_TIME,
        }
    }

    /// The change that led to the state, and what leads back over it; the caller takes that step.
    fn next(&mut self) -> Result<Option<(TwinChangeRow, Undo)>, ServiceError> {
        if self.rows.as_slice().is_empty() {
            let rows = self.view.twin_changes(self.identity, self.state.change(), PAGE)?;
            self.rows = rows.into_iter();
        }
        // A change that is not kept (the history was turned off for a while) ends what can be known.
        let Some(row) = self.rows.next().filter(|row| row.change == self.state.change()) else {
            return Ok(None);
        };
        let undo = serde_json::from_str(&row.undo).map_err(|_| damaged(self.identity))?;
        Ok(Some((row, undo)))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

fn too_long(identity: &Identity) -> ServiceError {
    let text = format!(
        "the history of `{identity}` is too long to be read so far back in {} s; try again, or give a later point",
        MAX_TIME.as_secs()
    );
    ServiceError::new(ErrorCode::ThrottlingBacklogTimeout, text)
}

fn damaged(identity: &Identity) -> ServiceError {
    ServiceError::server_error(format!("the history of the twin of `{identity}` is damaged"))
}
