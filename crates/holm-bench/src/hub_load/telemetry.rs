//! Telemetry of many devices, as fast as their windows allow; it counts what was acknowledged.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use holm_amqp::{DeliveryTag, Event, Message, NewLink, Outbound, Outcome, SendError};
use tokio::task::JoinSet;

use super::Protocol;
use super::amqp::Device;
use super::fleet::{Fleet, name};
use crate::brokers::hub::Hub;
use crate::client::{Login, Target};
use crate::clock::{SECOND, now_ns};
use crate::load::{self, Plan, PublisherPlan};
use crate::process::usage_of;
use crate::schedule::Pace;

/// Messages of a device that wait for their acknowledgement.
pub(super) const WINDOW: u16 = 16;
const BYTES: usize = 256;
/// How long the last acknowledgements may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a load.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) acknowledged: u64,
    seconds: f64,
    pub(super) hub_us: f64,
    pub(super) generator_us: f64,
}

impl Load {
    #[expect(clippy::cast_precision_loss, reason = "a count of seconds of load")]
    pub(super) fn per_second(&self) -> f64 {
        self.acknowledged as f64 / self.seconds
    }
}

pub(super) async fn run(hub: &Hub, fleet: &Fleet, protocol: Protocol, duration: Duration) -> Result<Load> {
    match protocol {
        Protocol::Mqtt => mqtt(hub, fleet, duration).await,
        Protocol::Amqp => amqp(hub, fleet, duration).await,
    }
}

/// A load over MQTT of some of the devices, as fast as their windows allow.
pub(super) fn plan(hub: &Hub, fleet: &Fleet, devices: std::ops::Range<usize>, duration: Duration) -> Result<Plan> {
    let publisher = |number| -> Result<PublisherPlan> {
        Ok(PublisherPlan {
            login: Login {
                client_id: name(number),
                credentials: Some((Fleet::user_name(number), fleet.token(number)?)),
                clean_session: true,
            },
            topic: format!("devices/{}/messages/events/", name(number)),
        })
    };
    Ok(Plan {
        target: Target {
            address: ([127, 0, 0, 1], hub.mqtt_port()).into(),
            tls: Some(fleet.tls.clone()),
        },
        publishers: devices.map(publisher).collect::<Result<_>>()?,
        listeners: Vec::new(),
        payload_bytes: BYTES,
        window: WINDOW,
        pace: Pace::Closed,
        duration,
        warm_up: Duration::ZERO,
        patience: PATIENCE,
        servers: vec![hub.pid()],
    })
}

async fn mqtt(hub: &Hub, fleet: &Fleet, duration: Duration) -> Result<Load> {
    let outcome = load::run(&plan(hub, fleet, 0..fleet.count, duration)?).await?;
    Ok(Load {
        acknowledged: outcome.acknowledged,
        seconds: outcome.acknowledged_seconds,
        hub_us: outcome.server_us_per_message(),
        generator_us: outcome.generator_us_per_message(),
    })
}

async fn amqp(hub: &Hub, fleet: &Fleet, duration: Duration) -> Result<Load> {
    let mut devices = Vec::with_capacity(fleet.count);
    for number in 0..fleet.count {
        let mut device = Device::connect(hub, fleet, number).await?;
        let address = format!("/devices/{}/messages/events", name(number));
        let link = device.attach(NewLink::sender("telemetry", address.as_str())).await?;
        devices.push((device, link));
    }
    let pids = [hub.pid()];
    let (of_hub, of_generator) = (usage_of(&pids)?, usage_of(&[std::process::id()])?);
    let start_ns = now_ns();
    let end_ns = start_ns + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let give_up_ns = end_ns + u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let mut senders = JoinSet::new();
    for (device, link) in devices {
        senders.spawn(send(device, link, end_ns, give_up_ns));
    }
    let (mut acknowledged, mut last_ns) = (0, start_ns);
    while let Some(done) = senders.join_next().await {
        let (count, last) = done.context("a sender broke off")??;
        acknowledged += count;
        last_ns = last_ns.max(last);
    }
    let hub_used = usage_of(&pids)?.since(of_hub);
    let generator_used = usage_of(&[std::process::id()])?.since(of_generator);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run, and its messages")]
    let (seconds, messages) = ((last_ns - start_ns) as f64 / SECOND as f64, acknowledged.max(1) as f64);
    Ok(Load {
        acknowledged,
        seconds,
        hub_us: hub_used.cpu_seconds * 1e6 / messages,
        generator_us: generator_used.cpu_seconds * 1e6 / messages,
    })
}

/// Sends to the end and waits for what is not acknowledged; how many were, and when the last of them.
async fn send(mut device: Device, link: holm_amqp::LinkId, end_ns: u64, give_up_ns: u64) -> Result<(u64, u64)> {
    let payload = Message::of_data(Bytes::from(vec![b'x'; BYTES])).to_bytes();
    let (mut sent, mut acknowledged, mut last_ns) = (0u64, 0u64, 0);
    loop {
        let now = now_ns();
        let waiting = sent - acknowledged;
        if (now >= end_ns && waiting == 0) || now >= give_up_ns {
            break;
        }
        if now < end_ns {
            for _ in waiting..u64::from(WINDOW) {
                let outbound = Outbound {
                    tag: DeliveryTag::from(sent),
                    format: 0,
                    payload: payload.clone(),
                    settled: false,
                };
                match device.link.session_mut().send(link, &outbound) {
                    Ok(_) => sent += 1,
                    Err(SendError::NoCredit | SendError::WindowFull | SendError::QueueFull) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let left = Duration::from_nanos(give_up_ns - now);
        let Ok(event) = tokio::time::timeout(left, device.link.next_event()).await else {
            break;
        };
        match event {
            Event::Settled {
                outcome: Some(Outcome::Accepted),
                ..
            } => {
                acknowledged += 1;
                last_ns = now_ns();
            }
            Event::Settled { outcome, .. } => bail!("a message came to {outcome:?}"),
            Event::Detached { error, .. } => bail!("the link is gone: {error:?}"),
            Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
            _ => {}
        }
    }
    if acknowledged < sent {
        bail!("{} messages were not acknowledged", sent - acknowledged);
    }
    Ok((acknowledged, last_ns))
}
