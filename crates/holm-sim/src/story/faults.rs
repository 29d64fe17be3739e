//! The faults of a story: which, how often, and what each does.

use std::time::Duration;

use holm_queue::testing::CrashStyle;
use serde_json::{Value, json};

use super::{CHILD, DAY, HOUR, MINUTE, REPORTERS, SLOW, Story};
use crate::network::Line;
use crate::programs::{Kind, Program};

/// A fault, and how often it comes: so many times in the sum of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    EdgeKilled,
    EdgeStopped,
    PowerCut,
    PowerCutWithoutClock,
    ModuleDies,
    ChildDies,
    DiskFull,
    ClockAhead,
    ClockBehind,
    HubRestarted,
    DesiredChanged,
}

const FAULTS: [(Fault, u64); 11] = [
    (Fault::EdgeKilled, 4),
    (Fault::EdgeStopped, 2),
    (Fault::PowerCut, 4),
    (Fault::PowerCutWithoutClock, 2),
    (Fault::ModuleDies, 4),
    (Fault::ChildDies, 2),
    (Fault::DiskFull, 2),
    (Fault::ClockAhead, 1),
    (Fault::ClockBehind, 1),
    (Fault::HubRestarted, 2),
    (Fault::DesiredChanged, 4),
];

impl Story {
    pub(super) fn draw(&mut self) -> Fault {
        let sum = FAULTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.below(sum);
        for (fault, weight) in FAULTS {
            if drawn < weight {
                return fault;
            }
            drawn -= weight;
        }
        Fault::EdgeKilled
    }

    pub(super) async fn inflict(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.journal.note(format_args!("{fault:?}"));
        match fault {
            Fault::EdgeKilled => {
                self.device.kill_edge().await;
                self.away(5 * MINUTE).await;
            }
            Fault::EdgeStopped => {
                self.device.stop_edge().await;
                self.away(5 * MINUTE).await;
            }
            Fault::PowerCut => self.cut_power().await,
            Fault::PowerCutWithoutClock => {
                self.device.clock.forget();
                self.cut_power().await;
                let while_wrong = self.chance.between(MINUTE, 20 * MINUTE);
                self.work_for(while_wrong).await;
                self.journal.note("somebody sets the clock");
                self.device.clock.set_ahead(0);
            }
            Fault::ModuleDies => {
                let names = ["sensor-a", "sensor-b", "watcher", "caller"];
                let name = names[usize::try_from(self.chance.below(4)).expect("below four")];
                self.device.modules.crash(name);
            }
            Fault::ChildDies => {
                self.child = None;
                self.away(HOUR).await;
                self.child = Some(Program::start(&self.surroundings, CHILD, Kind::Sensor));
            }
            Fault::DiskFull => {
                self.device.disk.set_capacity(Some(self.device.disk.used()));
                self.away(HOUR).await;
                self.device.disk.set_capacity(None);
            }
            Fault::ClockAhead | Fault::ClockBehind => {
                let days = i64::try_from((90 * DAY).as_millis()).expect("ninety days are a number");
                let by = if fault == Fault::ClockAhead { days } else { -days };
                self.device.clock.set_ahead(by);
                let while_wrong = self.chance.between(5 * MINUTE, 3 * HOUR);
                self.work_for(while_wrong).await;
                self.device.clock.set_ahead(0);
            }
            Fault::HubRestarted => {
                self.hub.end().await;
                self.away(5 * MINUTE).await;
                self.hub.open().await;
            }
            Fault::DesiredChanged => {
                let index = usize::try_from(self.chance.below(3)).expect("below three");
                let value = if self.chance.one_in(3) {
                    Value::Null
                } else {
                    json!({"n": self.chance.below(1000)})
                };
                let patch = json!({format!("w{}", self.chance.below(3)): value});
                self.hub.desire(REPORTERS[index], &patch).await;
            }
        }
        self.device.start().await;
    }

    async fn cut_power(&mut self) {
        let style = if self.chance.one_in(3) {
            CrashStyle::LoseAll
        } else {
            CrashStyle::Torn(self.chance.draw())
        };
        self.device.cut_power(style).await;
        self.away(10 * MINUTE).await;
        self.device.start().await;
    }

    pub(super) async fn change_link(&mut self) {
        let drawn = self.chance.below(6);
        self.links += 1;
        match drawn {
            0 => {
                let seconds = 60 + self.chance.below(240);
                self.flap(seconds).await;
                return;
            }
            1 => self.journal_line(SLOW),
            2 => self.journal_line(Line::HalfOpen),
            3 => self.journal_line(Line::Cut),
            _ => self.journal_line(Line::Up),
        }
        self.away(30 * MINUTE).await;
    }

    pub(super) fn journal_line(&self, line: Line) {
        self.journal.note(format_args!("the link is {line:?}"));
        self.device.uplink.set_line(line);
    }

    pub(super) async fn flap(&mut self, seconds: u64) {
        self.journal.note("the link flaps");
        for second in 0..seconds {
            let line = if second % 2 == 0 { Line::Up } else { Line::Cut };
            self.device.uplink.set_line(line);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.check();
    }
}
