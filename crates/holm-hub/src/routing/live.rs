//! The endpoints that work now: a lane and a task each.

use std::collections::BTreeMap;
use std::time::Duration;

use holm_net::Scope;
use holm_queue::{LaneId, LaneKind, Queue};
use tokio::task::JoinHandle;

use super::definition::{EndpointDefinition, EndpointName};
use super::delivery::{DeadLetters, Delivery, Unusable, millis};
use super::endpoint::Surroundings;
use super::endpoints;
use super::health::Health;
use crate::events::EventLog;

/// Begins the names of lanes of endpoints; no partition is called so.
const PREFIX: &str = "endpoint:";
/// How long a task may take to end before it is left to itself.
const END: Duration = Duration::from_secs(5);

/// An endpoint that works.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) definition: EndpointDefinition,
    pub(super) revision: i64,
    pub(super) lane: LaneId,
    pub(super) health: Health,
    work: Option<Work>,
}

#[derive(Debug)]
struct Work {
    scope: Scope,
    task: JoinHandle<()>,
}

/// An endpoint as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) definition: EndpointDefinition,
    pub(super) revision: i64,
    pub(super) made: i64,
}

impl Stored {
    /// The name of its lane: no other endpoint has it, not even one that comes under the same name later.
    pub(super) fn lane_name(&self) -> String {
        format!("{PREFIX}{}:{}", self.definition.name, self.made)
    }

    /// Finds or makes its lane.
    pub(super) fn lane(&self, queue: &Queue) -> Result<LaneId, holm_queue::LaneError> {
        queue.lane(&self.lane_name(), LaneKind::UntilAcknowledged)
    }
}

/// Removes the lanes of endpoints that are no more; tells how many messages waited in them.
pub(super) fn remove_other_lanes(queue: &Queue, endpoints: &[Stored]) {
    let names: Vec<_> = endpoints.iter().map(Stored::lane_name).collect();
    let lanes = queue.lanes().into_iter();
    for lane in lanes.filter(|lane| lane.name.starts_with(PREFIX) && !names.contains(&lane.name)) {
        let waiting = queue.depth(lane.id).unwrap_or_default().records;
        match queue.remove_lane(lane.id) {
            Ok(()) => tracing::info!(
                lane = lane.name,
                waiting,
                "an endpoint was removed, with what waited for it"
            ),
            Err(error) => {
                tracing::warn!(lane = lane.name, %error, "the lane of an endpoint stays until the next start")
            }
        }
    }
}

/// What tasks of endpoints are given.
pub(super) struct Ground<'g> {
    pub(super) log: &'g EventLog,
    pub(super) scope: &'g Scope,
    pub(super) surroundings: &'g Surroundings,
}

/// Makes the endpoints that work those that are stored: ends what is gone or changed, begins what is new or changed.
pub(super) async fn bring_about(
    live: &std::sync::RwLock<BTreeMap<EndpointName, Live>>,
    endpoints: &[Stored],
    ground: &Ground<'_>,
) {
    let is_same = |name: &EndpointName, live: &Live| {
        let mut stored = endpoints.iter();
        stored.any(|stored| stored.definition.name == *name && stored.revision == live.revision)
    };
    let (mut ended, mut health) = (Vec::new(), BTreeMap::new());
    {
        let mut all = live.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (name, live) in all.iter_mut().filter(|(name, live)| !is_same(name, live)) {
            health.insert((name.clone(), live.lane), live.health.clone());
            ended.extend(live.work.take());
        }
    }
    // Before another one begins in the same lane.
    for Work { scope, mut task } in ended {
        scope.stop();
        if tokio::time::timeout(END, &mut task).await.is_err() {
            task.abort();
        }
    }
    remove_other_lanes(ground.log.queue(), endpoints);
    let mut all = live.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.retain(|name, live| is_same(name, live));
    for stored in endpoints {
        if all.contains_key(&stored.definition.name) {
            continue;
        }
        let lane = match stored.lane(ground.log.queue()) {
            Ok(lane) => lane,
            Err(error) => {
                let endpoint = stored.definition.name.as_str();
                tracing::error!(endpoint, %error, "an endpoint has no lane; nothing is routed to it before the next start");
                continue;
            }
        };
        let health = health
            .remove(&(stored.definition.name.clone(), lane))
            .unwrap_or_default();
        let begun = begin(stored, lane, health, endpoints, ground);
        all.insert(stored.definition.name.clone(), begun);
    }
}

fn begin(stored: &Stored, lane: LaneId, health: Health, endpoints: &[Stored], ground: &Ground<'_>) -> Live {
    let definition = stored.definition.clone();
    let surroundings = Surroundings {
        lane: stored.lane_name().into(),
        ..ground.surroundings.clone()
    };
    let opened = endpoints::open(&definition.settings, &surroundings).map_err(|error| error.to_string());
    health.unusable(opened.as_ref().err().cloned());
    let endpoint = opened.unwrap_or_else(|why| {
        tracing::error!(
            endpoint = definition.name.as_str(),
            why,
            "an endpoint can't be used as it is defined"
        );
        Box::new(Unusable(why))
    });
    let dead_letters = definition.dead_letter.as_ref().and_then(|name| {
        let to = endpoints.iter().find(|stored| stored.definition.name == *name)?;
        Some(DeadLetters {
            lane: to.lane(ground.log.queue()).ok()?,
            max_waiting_millis: millis(to.definition.max_waiting),
        })
    });
    let delivery = Delivery {
        name: definition.name.to_string(),
        log: ground.log.clone(),
        lane,
        health: health.clone(),
        dead_letters,
        max_waiting_bytes: definition.max_waiting_bytes,
        clock: surroundings.clock.clone(),
    };
    let scope = ground.scope.child();
    let stop = scope.clone();
    let task = scope.spawn(Box::pin(async move { delivery.run(endpoint, stop.stopping()).await }));
    Live {
        definition,
        revision: stored.revision,
        lane,
        health,
        work: Some(Work { scope, task }),
    }
}
