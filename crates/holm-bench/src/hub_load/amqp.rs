//! A device over AMQP, as much of it as a load needs: a token to `$cbs`, then its links.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holm_amqp::{
    ApplicationProperties, Body, Config, Connection as Session, Credentials, DeliveryTag, Event, LinkId, Login,
    Message, NewLink, Outbound, Properties, SessionId, Text, Value,
};
use holm_net::Connection;

use super::fleet::{Fleet, name};
use crate::brokers::hub::Hub;
use crate::client::ByteStream;

const PATIENCE: Duration = Duration::from_secs(60);

/// A device that is connected and proved itself.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) link: Connection<Session, Box<dyn ByteStream>>,
    pub(super) session: SessionId,
}

impl Device {
    pub(super) async fn connect(hub: &Hub, fleet: &Fleet, number: usize) -> Result<Self> {
        Self::connect_with(hub, fleet, &fleet.token(number)?)
            .await
            .with_context(|| format!("`{}` can't log in", name(number)))
    }

    /// Whoever has that token.
    pub(super) async fn connect_with(hub: &Hub, fleet: &Fleet, token: &str) -> Result<Self> {
        let connecting = Self::log_in(hub, fleet, token);
        tokio::time::timeout(PATIENCE, connecting)
            .await
            .unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()))
    }

    async fn log_in(hub: &Hub, fleet: &Fleet, token: &str) -> Result<Self> {
        let dialer = holm_net::Dialer::default();
        let stream = holm_net::tls::connect(Arc::clone(&fleet.tls), &dialer, "127.0.0.1", hub.amqp_port()).await?;
        let login = Login {
            credentials: Some(Credentials::Anonymous),
            hostname: Some(Text::from_static("127.0.0.1")),
            properties: holm_amqp::Fields::new(),
        };
        let session = Session::client(Instant::now(), Arc::new(Config::default()), login);
        let stream: Box<dyn ByteStream> = Box::new(stream);
        let mut link = Connection::new(session, stream);
        match link.next_event().await {
            Event::Opened(_) => {}
            other => bail!("the hub's first word was {other:?}"),
        }
        let session = link.session_mut().begin()?;
        let mut device = Self { link, session };
        device.prove(token).await?;
        Ok(device)
    }

    async fn prove(&mut self, token: &str) -> Result<()> {
        let requests = self.attach(NewLink::sender("cbs-out", "$cbs")).await?;
        let answers = self.attach(NewLink::receiver("cbs-in", "$cbs", 4)).await?;
        let request = Message {
            properties: Some(Box::new(Properties {
                message_id: Some("1".into()),
                ..Properties::default()
            })),
            application_properties: ApplicationProperties::new()
                .with(Text::from_static("operation"), "put-token")
                .with(Text::from_static("type"), "servicebus.windows.net:sastoken")
                .with(Text::from_static("name"), "127.0.0.1"),
            body: Body::Value(Value::from(token)),
            ..Message::default()
        };
        let request = Outbound {
            tag: DeliveryTag::from(1u64),
            format: 0,
            payload: request.to_bytes(),
            settled: true,
        };
        self.link.session_mut().send_later(requests, &request)?;
        loop {
            match self.link.next_event().await {
                Event::Delivery(delivery) if delivery.link == answers => {
                    let answer = Message::decode(&delivery.payload, holm_amqp::Limits::default())?;
                    let status = answer.application_properties.get("status-code").and_then(Value::as_i64);
                    return match status {
                        Some(200) => Ok(()),
                        other => bail!("the token was answered with {other:?}"),
                    };
                }
                Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
                _ => {}
            }
        }
    }

    /// Attaches a link and waits until the hub took it.
    pub(super) async fn attach(&mut self, new: NewLink) -> Result<LinkId> {
        let wanted = self.link.session_mut().attach(self.session, new)?;
        loop {
            match self.link.next_event().await {
                Event::Attached { link, .. } if link == wanted => return Ok(link),
                Event::Detached { link, error, .. } if link == wanted => {
                    bail!("the hub refused a link: {:?}", error.map(|error| error.to_string()))
                }
                Event::Closed(reason) => bail!("the hub closed the connection: {reason}"),
                _ => {}
            }
        }
    }
}
