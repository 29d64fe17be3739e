//! Deliveries that modules have completed: counted, timed, and acknowledged in the queue, those that came together in runs.

use std::ops::Range;
use std::time::{Duration, Instant};

use holm_model::{Message, ModuleId, SystemProperty};
use holm_query::Sink;
use holm_queue::LaneId;

use super::Broker;
use super::figures::Way;
use super::leases::Leased;

/// The way of the message before: those of one sender mostly follow one another.
#[derive(Default)]
pub(super) struct LastWay(Option<Known>);

struct Known {
    sender: String,
    output: String,
    lane: LaneId,
    way: Way,
}

impl LastWay {
    /// The way that a delivery to a module is about to go.
    pub(super) fn of(&mut self, broker: &Broker, module: &ModuleId, message: &Message, delivery: &Leased) -> Way {
        let output = message.system.get(SystemProperty::OutputName).unwrap_or_default();
        let (sender, lane) = (delivery.record.sender(), delivery.lane);
        if let Some(known) = &self.0
            && (known.sender.as_str(), known.output.as_str(), known.lane) == (sender, output, lane)
        {
            return known.way.clone();
        }
        let sink = Sink::Module {
            module: module.clone(),
            input: delivery.input.as_ref().to_owned(),
        };
        let way = broker.way(message, sender, lane, &sink, delivery.priority);
        self.0 = Some(Known {
            sender: sender.to_owned(),
            output: output.to_owned(),
            lane,
            way: way.clone(),
        });
        way
    }
}

impl Broker {
    /// Deliveries have reached their module, in this order.
    pub(super) fn completed(&self, deliveries: impl Iterator<Item = Leased>) {
        let (now, moment) = (self.millis(), Instant::now());
        let mut positions: Vec<(LaneId, Range<u64>)> = Vec::new();
        let mut times: Vec<(Duration, Duration)> = Vec::new();
        let mut way: Option<Way> = None;
        let mut count = 0;
        for delivery in deliveries {
            count += 1;
            let position = delivery.record.position;
            // A module has few lanes, and what it acknowledges follows on what it acknowledged before.
            let run = positions.iter_mut().rev().find(|(lane, _)| *lane == delivery.lane);
            match run.filter(|(_, run)| run.end == position) {
                Some((_, run)) => run.end += 1,
                None => positions.push((delivery.lane, position..position + 1)),
            }
            let Some((began, its_way)) = delivery.handed else {
                continue;
            };
            if let Some(before) = way.take_if(|before| !before.is(&its_way)) {
                before.arrived_all(&times);
                times.clear();
            }
            way.get_or_insert(its_way);
            let process_time = Duration::from_millis(now.saturating_sub(delivery.record.enqueued_at));
            times.push((moment.saturating_duration_since(began), process_time));
        }
        if let Some(way) = way {
            way.arrived_all(&times);
        }
        self.counters.delivered.add(count);
        for (lane, positions) in positions {
            if let Err(error) = self.lanes.queue().acknowledge(lane, positions) {
                tracing::warn!(%error, "deliveries could not be marked as done; they may come again after a restart");
            }
        }
    }
}
