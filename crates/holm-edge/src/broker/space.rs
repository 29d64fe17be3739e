//! What has expired goes within a second or two, also from lanes that nobody reads.
//!
//! The head of each lane says when the next message of it expires: the messages of a lane live equally long, but where routes
//! with other times lead to the same endpoint at the same priority; what expires behind a head that lives longer goes with its
//! segment of the queue. Lanes that are being read need no help: who reads passes over what has expired.

use std::collections::HashMap;
use std::time::Duration;

use holm_model::Identity;
use holm_query::Sink;
use holm_queue::{LaneId, ReadError, Start, Visibility};
use tokio::time::MissedTickBehavior;

use super::Broker;
use super::lanes::LaneName;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// When the head of a lane expires, and which that was.
#[derive(Clone, Copy, Debug)]
struct Head {
    low_water: u64,
    expires_at: u64,
}

impl Broker {
    /// Removes what has expired, until the queue closes.
    pub(super) async fn keep_space(&self) {
        let mut heads = HashMap::new();
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let now = self.millis();
            let lanes = self.lanes.all();
            heads.retain(|lane, _| lanes.iter().any(|(_, known)| known == lane));
            for (name, lane) in lanes {
                if self.is_read(&name) {
                    continue;
                }
                match self.sweep(lane, now, &mut heads) {
                    Ok(()) => {}
                    Err(ReadError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(lane = %name, %error, "a lane can't be looked at for expired messages")
                    }
                }
            }
            self.trim_dead_letters();
        }
    }

    fn is_read(&self, name: &LaneName) -> bool {
        match &name.endpoint {
            Sink::Upstream => name.aside.is_none(),
            Sink::Module { module, .. } => {
                let identity = Identity::of_module(self.keys.device().clone(), module.clone());
                self.directory.find(&identity).is_some()
            }
        }
    }

    fn sweep(&self, lane: LaneId, now: u64, heads: &mut HashMap<LaneId, Head>) -> Result<(), ReadError> {
        let queue = self.lanes.queue();
        let Some(bounds) = queue
            .lane_bounds(lane)
            .filter(|bounds| bounds.first < bounds.durable_next)
        else {
            return Ok(());
        };
        let known = heads.get(&lane).filter(|head| head.low_water == bounds.first);
        if known.is_some_and(|head| now < head.expires_at) {
            return Ok(());
        }
        // Reading passes over what has expired, and that is then done with.
        let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable)?;
        let head = reader.try_read(1, 1)?;
        let expires_at = head.first().map_or(u64::MAX, |head| match head.expires_at {
            0 => u64::MAX,
            at => at,
        });
        let low_water = queue.low_water(lane).unwrap_or(bounds.first);
        heads.insert(lane, Head { low_water, expires_at });
        Ok(())
    }
}
