//! Method calls through the service API, one after the other, to a device that answers at once.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use holm_amqp::{
    ApplicationProperties, DeliveryTag, Event, Limits, Message, NewLink, Outbound, Properties, Text, Value,
};
use holm_mqtt::Qos;
use serde_json::json;

use super::Protocol;
use super::amqp::Device;
use super::fleet::{Fleet, name};
use crate::brokers::hub::Hub;
use crate::client::{self, Login, Target};
use crate::histogram::Histogram;

/// What came of the calls.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

pub(super) async fn run(hub: &Hub, fleet: &Fleet, protocol: Protocol, count: usize) -> Result<Calls> {
    let path = format!("/twins/{}/methods", name(0));
    let body = json!({ "methodName": "ping", "payload": { "n": 1 }, "responseTimeoutInSeconds": 30 });
    let calling = async {
        let mut trips = Histogram::default();
        for call in 0..=count {
            let began = Instant::now();
            hub.call(&path, &body).await?;
            // The first one finds everything cold.
            if call > 0 {
                trips.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        anyhow::Ok(trips)
    };
    let trips = match protocol {
        Protocol::Mqtt => {
            let mut device = listen_by_mqtt(hub, fleet).await?;
            tokio::select! {
                trips = calling => trips?,
                failed = answer_by_mqtt(&mut device) => return failed.and_then(|()| bail!("the device went away")),
            }
        }
        Protocol::Amqp => {
            let device = Device::connect(hub, fleet, 0).await?;
            let mut device = Answering::over_amqp(device).await?;
            tokio::select! {
                trips = calling => trips?,
                failed = device.answer() => return failed.and_then(|()| bail!("the device went away")),
            }
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call")]
    let ms = |per_mille| trips.quantile(per_mille).unwrap_or_default() as f64 / 1e6;
    Ok(Calls {
        p50_ms: ms(500),
        p99_ms: ms(990),
    })
}

async fn listen_by_mqtt(hub: &Hub, fleet: &Fleet) -> Result<client::Link> {
    let target = Target {
        address: ([127, 0, 0, 1], hub.mqtt_port()).into(),
        tls: Some(fleet.tls.clone()),
    };
    let login = Login {
        client_id: name(0),
        credentials: Some((Fleet::user_name(0), fleet.token(0)?)),
        clean_session: true,
    };
    let mut link = client::connect(&target, &login, 16).await?;
    client::subscribe(&mut link, "$iothub/methods/POST/#").await?;
    Ok(link)
}

async fn answer_by_mqtt(device: &mut client::Link) -> Result<()> {
    loop {
        match device.next_event().await {
            holm_mqtt::Event::Publish { message, .. } => {
                let topic = message.topic.as_str();
                let (_, rid) = topic.split_once("$rid=").context("a call has no request id")?;
                let answer = holm_mqtt::Message {
                    topic: holm_mqtt::Text::try_from(format!("$iothub/methods/res/200/?$rid={rid}"))?,
                    payload: bytes::Bytes::from_static(b"{}"),
                    qos: Qos::AtMostOnce,
                    ..holm_mqtt::Message::default()
                };
                device.session_mut().publish(Instant::now(), &answer)?;
            }
            holm_mqtt::Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
            _ => {}
        }
    }
}

/// A device over AMQP that answers method calls.
#[derive(Debug)]
struct Answering {
    device: Device,
    answers: holm_amqp::LinkId,
    sent: u64,
}

impl Answering {
    async fn over_amqp(mut device: Device) -> Result<Self> {
        let address = format!("/devices/{}/methods/devicebound", name(0));
        let channel = |link: NewLink| NewLink {
            properties: holm_amqp::Fields::new().with(
                holm_amqp::Symbol::from_static("com.microsoft:channel-correlation-id"),
                "methods:1",
            ),
            ..link
        };
        let answers = device
            .attach(channel(NewLink::sender("answers", address.as_str())))
            .await?;
        device
            .attach(channel(NewLink::receiver("calls", address.as_str(), 16)))
            .await?;
        Ok(Self {
            device,
            answers,
            sent: 0,
        })
    }

    async fn answer(&mut self) -> Result<()> {
        loop {
            match self.device.link.next_event().await {
                Event::Delivery(call) => {
                    let call = Message::decode(&call.payload, Limits::default())?;
                    let answer = Message {
                        properties: Some(Box::new(Properties {
                            correlation_id: call.properties.and_then(|properties| properties.correlation_id),
                            ..Properties::default()
                        })),
                        application_properties: ApplicationProperties::new()
                            .with(Text::from_static("IoThub-status"), Value::Int(200)),
                        ..Message::of_data("{}")
                    };
                    self.sent += 1;
                    let outbound = Outbound {
                        tag: DeliveryTag::from(self.sent),
                        format: 0,
                        payload: answer.to_bytes(),
                        settled: true,
                    };
                    self.device.link.session_mut().send_later(self.answers, &outbound)?;
                }
                Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
                _ => {}
            }
        }
    }
}
