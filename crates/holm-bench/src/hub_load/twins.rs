//! Reported properties of many devices, as fast as a window allows; it counts what was confirmed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use holm_mqtt::{Event, Message, Qos, Text};
use tokio::task::JoinSet;

use super::fleet::{Fleet, name};
use crate::brokers::hub::Hub;
use crate::client::{self, Link, Login, Target};
use crate::clock::{SECOND, now_ns};
use crate::process::usage_of;

/// Updates of a device that wait for their confirmation.
pub(super) const WINDOW: u16 = 4;
/// How long the last confirmations may take.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWERS: &str = "$iothub/twin/res/";

/// What came of the updates.
#[derive(Debug)]
pub(super) struct Updates {
    pub(super) per_second: f64,
    pub(super) hub_us: f64,
}

pub(super) async fn run(hub: &Hub, fleet: &Fleet, duration: Duration) -> Result<Updates> {
    let mut devices = Vec::with_capacity(fleet.count);
    for number in 0..fleet.count {
        devices.push(connect(hub, fleet, number).await?);
    }
    let pids = [hub.pid()];
    let before = usage_of(&pids)?;
    let start_ns = now_ns();
    let end_ns = start_ns + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let give_up_ns = end_ns + u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let mut updating = JoinSet::new();
    for link in devices {
        updating.spawn(update(link, end_ns, give_up_ns));
    }
    let (mut confirmed, mut last_ns) = (0, start_ns);
    while let Some(done) = updating.join_next().await {
        let (count, last) = done.context("a device broke off")??;
        confirmed += count;
        last_ns = last_ns.max(last);
    }
    let used = usage_of(&pids)?.since(before);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run, and its updates")]
    let (seconds, updates) = ((last_ns - start_ns) as f64 / SECOND as f64, confirmed.max(1) as f64);
    Ok(Updates {
        per_second: updates / seconds,
        hub_us: used.cpu_seconds * 1e6 / updates,
    })
}

async fn connect(hub: &Hub, fleet: &Fleet, number: usize) -> Result<Link> {
    let target = Target {
        address: ([127, 0, 0, 1], hub.mqtt_port()).into(),
        tls: Some(fleet.tls.clone()),
    };
    let login = Login {
        client_id: name(number),
        credentials: Some((Fleet::user_name(number), fleet.token(number)?)),
        clean_session: true,
    };
    let mut link = client::connect(&target, &login, 2 * WINDOW).await?;
    client::subscribe(&mut link, "$iothub/twin/res/#").await?;
    Ok(link)
}

/// Updates to the end and waits for what is not confirmed; how many were, and when the last of them.
async fn update(mut link: Link, end_ns: u64, give_up_ns: u64) -> Result<(u64, u64)> {
    let (mut asked, mut confirmed, mut last_ns) = (0u64, 0u64, 0);
    loop {
        let now = now_ns();
        let waiting = asked - confirmed;
        if (now >= end_ns && waiting == 0) || now >= give_up_ns {
            break;
        }
        if now < end_ns {
            for _ in waiting..u64::from(WINDOW) {
                asked += 1;
                link.session_mut().publish(Instant::now(), &request(asked)?)?;
            }
        }
        let left = Duration::from_nanos(give_up_ns - now);
        let Ok(event) = tokio::time::timeout(left, link.next_event()).await else {
            break;
        };
        match event {
            Event::Publish { message, .. } => {
                let topic = message.topic.as_str();
                let status = topic.strip_prefix(ANSWERS).and_then(|rest| rest.split('/').next());
                if status != Some("204") {
                    bail!("an update came to `{topic}`");
                }
                confirmed += 1;
                last_ns = now_ns();
            }
            Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
            _ => {}
        }
    }
    if confirmed < asked {
        bail!("{} updates were not confirmed", asked - confirmed);
    }
    Ok((confirmed, last_ns))
}

fn request(number: u64) -> Result<Message> {
    Ok(Message {
        topic: Text::try_from(format!("$iothub/twin/PATCH/properties/reported/?$rid={number}"))?,
        payload: Bytes::from(format!(
            r#"{{"round":{number},"state":{{"temperature":{}}}}}"#,
            number % 90
        )),
        qos: Qos::AtMostOnce,
        ..Message::default()
    })
}
