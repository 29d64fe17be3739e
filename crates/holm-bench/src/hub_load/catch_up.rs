//! A client of the Event Hub that reads all partitions from the first event on.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use holm_amqp::{Event, NewLink, Value};

use super::amqp::Device;
use super::fleet::Fleet;
use crate::brokers::hub::Hub;
use crate::clock::{SECOND, now_ns};
use crate::process::usage_of;

/// Partitions of a hub, if nobody says otherwise.
const PARTITIONS: u16 = 4;
/// Deliveries that may be on their way in a partition: more than the SDKs ask for, so that it is the hub that is measured.
const CREDIT: u32 = 5000;
/// How long the next event may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) events: u64,
    pub(super) per_second: f64,
    pub(super) hub_us: f64,
    pub(super) reader_us: f64,
}

/// Reads so many events.
pub(super) async fn run(hub: &Hub, fleet: &Fleet, wanted: u64) -> Result<CatchUp> {
    let mut reader = Device::connect_with(hub, fleet, hub.owner_token()).await?;
    let event_hub = event_hub(&mut reader).await?;
    let pids = [hub.pid()];
    let (of_hub, of_reader) = (usage_of(&pids)?, usage_of(&[std::process::id()])?);
    let start_ns = now_ns();
    for partition in 0..PARTITIONS {
        let address = format!("{event_hub}/ConsumerGroups/$Default/Partitions/{partition}");
        let new = NewLink::receiver(format!("events-{partition}"), address, CREDIT);
        reader.link.session_mut().attach(reader.session, new)?;
    }
    let mut events = 0;
    while events < wanted {
        match tokio::time::timeout(PATIENCE, reader.link.next_event()).await {
            Ok(Event::Delivery(_)) => events += 1,
            Ok(Event::Detached { error, .. }) => bail!("a partition is gone: {error:?}"),
            Ok(Event::Closed(reason)) => bail!("the hub closed the connection: {reason}"),
            Ok(_) => {}
            Err(_) => bail!("{events} of {wanted} events came, and then none within {PATIENCE:?}"),
        }
    }
    let nanos = now_ns() - start_ns;
    let hub_used = usage_of(&pids)?.since(of_hub);
    let reader_used = usage_of(&[std::process::id()])?.since(of_reader);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run, and its events")]
    let (seconds, count) = (nanos as f64 / SECOND as f64, events.max(1) as f64);
    Ok(CatchUp {
        events,
        per_second: count / seconds,
        hub_us: hub_used.cpu_seconds * 1e6 / count,
        reader_us: reader_used.cpu_seconds * 1e6 / count,
    })
}

/// The name of the Event Hub, to which the hub sends on who asks for its events.
async fn event_hub(reader: &mut Device) -> Result<String> {
    let new = NewLink::receiver("events", "/messages/events", 1);
    let asked = reader.link.session_mut().attach(reader.session, new)?;
    loop {
        match reader.link.next_event().await {
            Event::Detached { link, error, .. } if link == asked => {
                let error = error.context("the hub detached a link without a reason")?;
                let address = error.info.get("address").and_then(Value::as_str);
                let address = address.with_context(|| format!("the hub sends nobody on: {error}"))?;
                let name = address.rsplit('/').next().unwrap_or_default();
                return Ok(name.to_owned());
            }
            Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
            _ => {}
        }
    }
}
