//! Which lane of the queue a delivery waits in: one for each endpoint and priority.
//!
//! ```text
//!   upstream/p0 … upstream/p2000000000        module/<module>/<input>/p<priority>
//!   aside/<sender>/p<priority>                upstream, for a sender that can't be sent for
//! ```
//!
//! A lane is made when the first message for it comes and stays while messages wait in it, even when no route names its
//! endpoint any more: they were acknowledged to their senders. Empty ones that no route names are removed when the broker
//! opens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use holm_model::{Identity, ModuleId};
use holm_query::Sink;
use holm_queue::{AppendError, LaneError, LaneId, LaneKind, Queue};
use tokio::sync::watch;

/// An endpoint at one priority. The order is that of urgency within an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneName {
    pub(super) endpoint: Sink,
    /// The sender that was set aside; only upstream.
    pub(super) aside: Option<Identity>,
    /// 0 to 9, or the published number of the default.
    pub(super) priority: u32,
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, &self.aside) {
            (Sink::Upstream, None) => write!(f, "upstream/p{}", self.priority),
            (Sink::Upstream, Some(sender)) => write!(f, "aside/{sender}/p{}", self.priority),
            (Sink::Module { module, input }, _) => write!(f, "module/{module}/{input}/p{}", self.priority),
        }
    }
}

impl LaneName {
    /// The lane of an endpoint, for all senders.
    pub(super) const fn of(endpoint: Sink, priority: u32) -> Self {
        Self {
            endpoint,
            aside: None,
            priority,
        }
    }

    /// The lane upstream of a sender that was set aside.
    pub(super) const fn aside(sender: Identity, priority: u32) -> Self {
        Self {
            endpoint: Sink::Upstream,
            aside: Some(sender),
            priority,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (endpoint, priority) = text.rsplit_once("/p")?;
        let priority = priority.parse().ok()?;
        if let Some(sender) = endpoint.strip_prefix("aside/") {
            return Some(Self::aside(sender.parse().ok()?, priority));
        }
        let endpoint = if endpoint == "upstream" {
            Sink::Upstream
        } else {
            let (module, input) = endpoint.strip_prefix("module/")?.split_once('/')?;
            Sink::Module {
                module: ModuleId::new(module).ok()?,
                input: input.to_owned(),
            }
        };
        Some(Self::of(endpoint, priority))
    }
}

/// The lanes of a broker's queue.
#[derive(Debug)]
pub(super) struct Lanes {
    queue: Queue,
    /// Read for each delivery that meets a new endpoint, written when a lane is made; held for a look-up.
    known: RwLock<BTreeMap<LaneName, LaneId>>,
    changes: watch::Sender<u64>,
}

impl Lanes {
    /// The lanes that a queue has. Empty ones whose endpoint is not `wanted` are removed.
    pub(super) fn open(queue: Queue, wanted: impl Fn(&Sink) -> bool) -> Self {
        let mut known = BTreeMap::new();
        for lane in queue.lanes() {
            if lane.name == super::dead_letters::LANE {
                continue;
            }
            let Some(name) = LaneName::parse(&lane.name) else {
                tracing::warn!(
                    lane = lane.name,
                    "the queue has a lane that is none of ours; its messages stay where they are"
                );
                continue;
            };
            let is_empty = queue.depth(lane.id).is_none_or(|depth| depth.records == 0);
            let is_wanted = name.aside.is_none() && wanted(&name.endpoint);
            if is_empty && !is_wanted && queue.remove_lane(lane.id).is_ok() {
                continue;
            }
            known.insert(name, lane.id);
        }
        Self {
            queue,
            known: RwLock::new(known),
            changes: watch::Sender::new(0),
        }
    }

    /// The lane of an endpoint and priority; made if it is new. Waits while the queue is busy.
    pub(super) async fn ensure(&self, name: &LaneName) -> Result<LaneId, LaneError> {
        loop {
            if let Some(lane) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name) {
                return Ok(*lane);
            }
            match self.queue.lane(&name.to_string(), LaneKind::UntilAcknowledged) {
                Ok(lane) => {
                    self.known
                        .write()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(name.clone(), lane);
                    self.changes.send_modify(|count| *count += 1);
                    return Ok(lane);
                }
                Err(LaneError::Append(AppendError::Busy { .. })) => self.queue.room().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a lane in which nothing waits.
    pub(super) fn remove(&self, name: &LaneName) -> Result<(), LaneError> {
        let Some(lane) = self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name) else {
            return Ok(());
        };
        self.queue.remove_lane(lane).inspect_err(|_| {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(name.clone(), lane);
        })
    }

    /// Every lane with its name, by endpoint and urgency.
    pub(super) fn all(&self) -> Vec<(LaneName, LaneId)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, lane)| (name.clone(), *lane)).collect()
    }

    /// Changes when a lane was made.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) const fn queue(&self) -> &Queue {
        &self.queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_what_it_shows() {
        for text in [
            "upstream/p0",
            "upstream/p2000000000",
            "module/a.b/in/p3",
            "module/m/odd/p/name/p9",
            "aside/box/watcher/p3",
            "aside/leaf/p2000000000",
        ] {
            assert_eq!(LaneName::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "upstream",
            "upstream/px",
            "module/m/p1",
            "other/m/i/p1",
            "aside/p1",
            "aside/a/b/c/p1",
            "module/b d/i/p1",
        ] {
            assert_eq!(LaneName::parse(text), None, "{text}");
        }
    }
}
