//! What a hub bears: telemetry of a thousand devices over MQTT and AMQP, ten thousand devices that do nothing, method calls.
//!
//! ```text
//!   hub, fresh ── devices registered ──┬─ telemetry, as fast as windows allow, acknowledged when on disk ── messages a second
//!                                      ├─ a reader of the Event Hub, from the first event on               ── events a second
//!                                      ├─ one device that sends fifty times its share               ── what the others feel
//!                                      ├─ reported properties of all devices, confirmed when on disk     ── updates a second
//!                                      ├─ method calls, one after the other                              ── round trips
//!                                      └─ connections that do nothing, in steps                          ── memory of each
//! ```
//!
//! The generator shares the machine's processors with the hub. The raw sync rate of the disk and the load average stand beside.

mod amqp;
mod catch_up;
mod fairness;
mod fleet;
mod idle;
mod methods;
mod telemetry;
mod twins;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::brokers::hub::Hub;
use crate::disk;
use crate::figures::Figure;
use crate::machine::load_average;

/// For how long the disk is tried.
const SYNC_FOR: Duration = Duration::from_secs(1);

/// How devices speak to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT over TLS.
    Mqtt,
    /// AMQP over TLS.
    Amqp,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Mqtt, Self::Amqp];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::Amqp => "AMQP",
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Devices that send.
    pub senders: usize,
    /// For how long they do.
    pub duration: Duration,
    /// Devices that are connected and do nothing.
    pub idle: usize,
    /// Method calls.
    pub calls: usize,
}

impl Size {
    /// As the limits speak of it.
    pub const FULL: Self = Self {
        senders: 1000,
        duration: Duration::from_secs(10),
        idle: 10_000,
        calls: 1000,
    };
    /// To see that it works.
    pub const QUICK: Self = Self {
        senders: 20,
        duration: Duration::from_secs(1),
        idle: 100,
        calls: 20,
    };
}

/// Measures a hub in a directory; `tell` hears of each figure as it comes.
///
/// # Errors
/// The hub does not start, or a client fails.
pub async fn run(directory: &Path, size: Size, tell: impl Fn(&Figure)) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut add = |figure: Figure| {
        tell(&figure);
        figures.push(figure);
    };
    for protocol in Protocol::ALL {
        let sync = disk::sync_rate(directory, 256, SYNC_FOR)?;
        let place = directory.join(format!("hub-{}", protocol.name()));
        let hub = Hub::start(&place).await?;
        let fleet = fleet::Fleet::register(&hub, size.senders).await?;
        let load = telemetry::run(&hub, &fleet, protocol, size.duration).await?;
        let limit = match protocol {
            Protocol::Mqtt => "≥ 20,000",
            Protocol::Amqp => "≥ 15,000",
        };
        add(Figure {
            name: format!("durable telemetry over {}", protocol.name()),
            value: format!("{:.0} messages/s", load.per_second()),
            limit: limit.to_owned(),
            how: format!(
                "256 B, {} devices with {} unacknowledged each, TLS; {:.1} µs of the hub's processor time a message, {:.1} of the generator's; \
                 one sync after the other: {:.0}/s; load {}. The largest unit of the original: 6,000/s",
                size.senders,
                telemetry::WINDOW,
                load.hub_us,
                load.generator_us,
                sync.per_second,
                load_average(),
            ),
        });
        if protocol == Protocol::Mqtt {
            let read = catch_up::run(&hub, &fleet, load.acknowledged).await?;
            add(Figure {
                name: "a reader of events that catches up".to_owned(),
                value: format!("{:.0} events/s", read.per_second),
                limit: "≥ 100,000".to_owned(),
                how: format!(
                    "{} events of 256 B in 4 partitions, one connection over AMQP and TLS; {:.1} µs of the hub's processor time an event, {:.1} of the reader's; load {}",
                    read.events,
                    read.hub_us,
                    read.reader_us,
                    load_average(),
                ),
            });
            let fairness = fairness::run(&hub, &fleet, size.duration).await?;
            add(Figure {
                name: "acknowledgement beside one device that sends fifty times its share".to_owned(),
                value: format!("{:.1} ×", fairness.beside_ms / fairness.quiet_ms),
                limit: "≤ 2 ×".to_owned(),
                how: format!(
                    "99th percentile of the others: {:.2} ms with it, {:.2} ms without; 100 devices with 10 messages a second each; load {}",
                    fairness.beside_ms,
                    fairness.quiet_ms,
                    load_average(),
                ),
            });
            let updates = twins::run(&hub, &fleet, size.duration).await?;
            add(Figure {
                name: "durable updates of twins".to_owned(),
                value: format!("{:.0} updates/s", updates.per_second),
                limit: "≥ 5,000".to_owned(),
                how: format!(
                    "reported properties over MQTT and TLS, {} devices with {} unconfirmed each, history kept; {:.0} µs of the hub's processor time an \
                     update; one sync after the other: {:.0}/s; load {}. The largest unit of the original: 250/s",
                    size.senders,
                    twins::WINDOW,
                    updates.hub_us,
                    sync.per_second,
                    load_average(),
                ),
            });
        }
        let calls = methods::run(&hub, &fleet, protocol, size.calls).await?;
        add(Figure {
            name: format!("method round trip over {}, 99th percentile", protocol.name()),
            value: format!("{:.2} ms", calls.p99_ms),
            limit: "< 5 ms".to_owned(),
            how: format!(
                "{} calls one after the other, median {:.2} ms; each with a TLS connection of its own to the service API; load {}",
                size.calls,
                calls.p50_ms,
                load_average(),
            ),
        });
        drop(hub);
        std::fs::remove_dir_all(&place)?;
    }
    for protocol in Protocol::ALL {
        let place = directory.join(format!("hub-idle-{}", protocol.name()));
        let hub = Hub::start(&place).await?;
        let fleet = fleet::Fleet::register(&hub, size.idle).await?;
        let idle = idle::run(&hub, &fleet, protocol).await?;
        let limit = match protocol {
            Protocol::Mqtt => "≤ 12 KiB",
            Protocol::Amqp => "≤ 24 KiB",
        };
        add(Figure {
            name: format!("an idle device over {}", protocol.name()),
            value: format!("{:.1} KiB", idle.kib_each),
            limit: limit.to_owned(),
            how: format!(
                "{} connected, TLS, {}; all at once, {:.0} let in a second, {} attempts in vain; resident {} MiB with all, {} MiB with none",
                size.idle,
                idle.holds,
                idle.per_second,
                idle.failed,
                idle.with_all_kib / 1024,
                idle.with_none_kib / 1024,
            ),
        });
        drop(hub);
        std::fs::remove_dir_all(&place)?;
    }
    Ok(figures)
}
