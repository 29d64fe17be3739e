//! A hub that is killed again and again under devices that go on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::tally::Tally;
use super::{Chance, Plan};
use crate::hub::{Device, Hub};
use crate::patience;
use crate::wire::mqtt::{Client, Packet};

/// Messages that a device has on the way at once.
const WINDOW: usize = 16;

/// A device that sends numbers, and again those that were not acknowledged.
struct Sender {
    device: Device,
    acknowledged: u64,
}

pub(super) fn run(plan: Plan) -> Vec<String> {
    let mut chance = Chance(plan.seed);
    let mut hub = Hub::start();
    let ids = ["dev1", "dev2", "dev3"];
    let mut senders = ids.map(|id| Sender {
        device: hub.create_device(id),
        acknowledged: 0,
    });
    let end = Instant::now() + plan.time;
    let mut kills = 0;
    while Instant::now() < end {
        let round = chance.millis(50, 2000);
        std::thread::scope(|scope| {
            let hub = &hub;
            for sender in &mut senders {
                scope.spawn(move || sender.send_for(hub, round));
            }
            std::thread::sleep(round);
        });
        hub.crash();
        hub.restart();
        kills += 1;
    }
    let acknowledged = senders.each_ref().map(|sender| sender.acknowledged);
    let tally = read_all(&hub, &ids, &acknowledged);
    tally.assert_in_order();
    vec![
        format!("kills {kills}, acknowledged {}", acknowledged.iter().sum::<u64>()),
        format!("lost 0, duplicates {}", tally.duplicates()),
    ]
}

impl Sender {
    /// Sends until the time is over or the hub is gone; what is on the way then is not waited for.
    fn send_for(&mut self, hub: &Hub, time: Duration) {
        let end = Instant::now() + time;
        let mut client: Client = hub.connected(&self.device);
        let topic = format!("devices/{}/messages/events/", self.device.id);
        let mut on_the_way = std::collections::VecDeque::new();
        let mut next = self.acknowledged;
        while Instant::now() < end {
            while on_the_way.len() < WINDOW {
                let body = json!({"number": next}).to_string();
                let Ok(id) = client.publish(&topic, 1, false, body.as_bytes()) else {
                    return;
                };
                on_the_way.push_back(id);
                next += 1;
            }
            match client.receive(patience::short()) {
                Ok(Some(Packet::Puback(id))) => {
                    assert_eq!(
                        on_the_way.pop_front(),
                        Some(id),
                        "acknowledgements keep the order of sending"
                    );
                    self.acknowledged += 1;
                }
                Ok(Some(other)) => panic!("a PUBACK was expected; it came {other:?}"),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

fn read_all(hub: &Hub, ids: &[&str], acknowledged: &[u64]) -> Tally {
    let mut monitor = hub.monitor();
    let mut tally = Tally::default();
    let missing = |tally: &Tally| {
        ids.iter()
            .zip(acknowledged)
            .any(|(id, &count)| tally.of(id).next < count)
    };
    while missing(&tally) {
        let Some(event) = monitor.take(patience::long()) else {
            panic!("acknowledged {acknowledged:?}; of these the log holds {tally:?}");
        };
        let number = event.body["number"]
            .as_u64()
            .unwrap_or_else(|| panic!("not ours: {}", event.line));
        tally.add(&event.device, number);
    }
    tally
}
