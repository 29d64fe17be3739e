//! Devices that all connect at once, as after a restart of the hub, and then do nothing; and what the hub holds for them.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holm_amqp::NewLink;

use super::Protocol;
use super::amqp::Device;
use super::fleet::{Fleet, name};
use crate::brokers::hub::Hub;
use crate::client::{self, Link, Login, Target};
use crate::process::proportional_kib;

/// How often a device tries to connect before the load fails.
const MOST_TRIES: u32 = 5;

/// What came of it.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) kib_each: f64,
    pub(super) with_none_kib: u64,
    pub(super) with_all_kib: u64,
    pub(super) per_second: f64,
    /// Attempts that failed, of all devices.
    pub(super) failed: u32,
    /// What each device has.
    pub(super) holds: &'static str,
}

enum Held {
    #[expect(dead_code, reason = "held, so that it stays connected")]
    Mqtt(Box<Link>),
    #[expect(dead_code, reason = "held, so that it stays connected")]
    Amqp(Box<Device>),
}

pub(super) async fn run(hub: &Hub, fleet: &Fleet, protocol: Protocol) -> Result<Idle> {
    // What the first clients cost once is not theirs.
    let warm = connect(hub, fleet, protocol, 0).await?;
    let with_none_kib = proportional_kib(hub.pid())?;
    let began = Instant::now();
    let connecting = (1..fleet.count).map(|number| insist(hub, fleet, protocol, number));
    let mut connecting: FuturesUnordered<_> = connecting.collect();
    let (mut held, mut tries) = (Vec::with_capacity(fleet.count), 0u32);
    while let Some(outcome) = connecting.next().await {
        let (device, tried) = outcome?;
        held.push(device);
        tries += tried;
    }
    let failed = tries - u32::try_from(held.len())?;
    let seconds = began.elapsed().as_secs_f64();
    let with_all_kib = proportional_kib(hub.pid())?;
    #[expect(clippy::cast_precision_loss, reason = "kibibytes and a count of clients")]
    let (more, count) = (
        with_all_kib.saturating_sub(with_none_kib) as f64,
        held.len().max(1) as f64,
    );
    drop((warm, held));
    Ok(Idle {
        kib_each: more / count,
        with_none_kib,
        with_all_kib,
        per_second: count / seconds,
        failed,
        holds: match protocol {
            Protocol::Mqtt => "subscribed to cloud-to-device messages",
            Protocol::Amqp => "with a telemetry and a cloud-to-device link",
        },
    })
}

/// Connects, again and again as a device does; gives how often it tried.
async fn insist(hub: &Hub, fleet: &Fleet, protocol: Protocol, number: usize) -> Result<(Held, u32)> {
    let mut tries = 1;
    loop {
        match connect(hub, fleet, protocol, number).await {
            Ok(device) => return Ok((device, tries)),
            Err(error) if tries >= MOST_TRIES => return Err(error),
            Err(_) => {
                tokio::time::sleep(Duration::from_secs(u64::from(tries))).await;
                tries += 1;
            }
        }
    }
}

async fn connect(hub: &Hub, fleet: &Fleet, protocol: Protocol, number: usize) -> Result<Held> {
    let device = name(number);
    Ok(match protocol {
        Protocol::Mqtt => {
            let target = Target {
                address: ([127, 0, 0, 1], hub.mqtt_port()).into(),
                tls: Some(fleet.tls.clone()),
            };
            let login = Login {
                client_id: device.clone(),
                credentials: Some((Fleet::user_name(number), fleet.token(number)?)),
                clean_session: true,
            };
            let mut link = client::connect(&target, &login, 16).await?;
            client::subscribe(&mut link, &format!("devices/{device}/messages/devicebound/#")).await?;
            Held::Mqtt(Box::new(link))
        }
        Protocol::Amqp => {
            let mut link = Device::connect(hub, fleet, number).await?;
            let events = format!("/devices/{device}/messages/events");
            link.attach(NewLink::sender("telemetry", events.as_str())).await?;
            let mail = format!("/devices/{device}/messages/devicebound");
            link.attach(NewLink::receiver("mail", mail.as_str(), 16)).await?;
            Held::Amqp(Box::new(link))
        }
    })
}
