//! A NATS JetStream as an endpoint: messages are published with a key for de-duplication, and delivered when a stream has stored them.
//!
//! ```text
//! message --> subject of the pattern   headers  Nats-Msg-Id: {hub}/{lane}/{sequence}/{ms}    the same when it comes again
//!                                               iothub-connection-device-id: d1           system properties
//!                                               iothub-app-level: high                    application properties
//!                                      payload  the body
//!         <-- {"stream":"EVENTS","seq":7}  stored    {"error":{…}}  refused    status 503  no stream covers the subject
//! ```
//!
//! - The names of headers have prefixes, so no device can say a header that the server understands (`Nats-Rollup` would empty a stream).
//! - A stream drops what it has had within its `duplicate_window`, 2 minutes unless it is set; set it to as long as the hub may be away.
//! - A server acknowledges what is in its page cache, and syncs every 2 minutes unless `sync_interval` says otherwise: a power cut there
//!   may lose what the hub has let go by then. Whoever can't bear that sets `sync_interval: always`.
//! - Only the verbs that publishing needs are spoken: INFO, CONNECT, PING, PONG, SUB, HPUB, MSG, HMSG, +OK, -ERR.
//!
//! Why not the library: `async-nats` brings 37 crates for this one verb, and a queue in memory. `docs/decisions/0019-own-nats-publisher.md` has
//! more. Source: the client protocol of NATS, version 1.

mod answer;
mod headers;
mod login;
mod nkey;
mod session;

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use holm_net::{Connection, Stream, error_chain, tls};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::address::Address;
use super::link::{Heard, Link, NotNow, Publisher, Publishes};
use super::template::{Dialect, Template};
use crate::routing::definition::{DefinitionError, NatsSettings};
use crate::routing::{Endpoint, Routed, Surroundings};
use answer::Answer;
use headers::Headers;
use login::Login;
use session::{Event, MAX_LINE, PublishError, Session};

/// The port of NATS, with TLS and without.
const PORT: u16 = 4222;

/// An endpoint of settings.
///
/// # Errors
/// [`DefinitionError`] with the member.
pub(super) fn endpoint(
    settings: &NatsSettings,
    surroundings: &Surroundings,
) -> Result<impl Endpoint + use<>, DefinitionError> {
    let jetstream = Server::new(settings, surroundings)?;
    let server = &settings.broker.server;
    let description = format!("publish {} at {}", settings.subject, server.url);
    Ok(Publisher::new(jetstream, description, server.timeout))
}

/// How to speak with the server.
#[derive(Debug)]
struct Server {
    address: Address,
    subject: Template,
    stream: Option<String>,
    login: Login,
    hub: String,
    lane: Arc<str>,
    window: usize,
}

/// What a server says of itself when a connection begins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    max_payload: usize,
    headers: bool,
    tls_required: bool,
    nonce: String,
}

impl Server {
    fn new(settings: &NatsSettings, surroundings: &Surroundings) -> Result<Self, DefinitionError> {
        let subject = Template::parse(&settings.subject, Dialect::Subject);
        if let Some(stream) = &settings.stream
            && !headers::is_plain(stream)
        {
            return Err(DefinitionError::new(
                "stream",
                "has a character that no name of a stream has",
            ));
        }
        Ok(Self {
            address: Address::read(&settings.broker, "tls", |_| PORT)?,
            subject: subject.map_err(|why| DefinitionError::new("subject", why))?,
            stream: settings.stream.clone(),
            login: Login::read(settings)?,
            hub: surroundings.hub_name.to_string(),
            lane: Arc::clone(&surroundings.lane),
            window: usize::from(settings.broker.max_in_flight),
        })
    }

    /// Waits for what the server says first, and begins TLS behind it: NATS has no port for that.
    async fn greet(&self) -> Result<(Box<dyn Stream>, Info), String> {
        let mut stream = self.address.dial().await?;
        let info = info(&mut stream).await?;
        if !info.headers {
            return Err("the server has no headers; it must be of version 2.2 or later".to_owned());
        }
        let Some(config) = &self.address.tls else {
            if info.tls_required {
                return Err("the server requires TLS; begin `url` with `tls://`".to_owned());
            }
            return Ok((stream, info));
        };
        let (host, port) = (&self.address.host, self.address.port);
        let secured = tls::connect_over(Arc::clone(config), stream, host, port).await;
        Ok((secured.map_err(|error| error_chain(&error))?, info))
    }

    /// What a stream knows a message by. With the hub's name, since hubs may share a stream; with the time, since a hub that was restored
    /// from a backup gives the sequences of lost messages to others.
    fn key(&self, routed: &Routed) -> String {
        let time = routed.enqueued.unix_millis();
        format!("{}/{}/{time}", self.hub, routed.key(&self.lane))
    }

    fn headers(&self, routed: &Routed) -> Vec<u8> {
        let mut headers = Headers::new();
        headers.own("Nats-Msg-Id", &self.key(routed));
        if let Some(stream) = &self.stream {
            headers.own("Nats-Expected-Stream", stream);
        }
        headers.message(routed);
        headers.into_bytes()
    }
}

/// Reads the first line of a server.
async fn info(stream: &mut Box<dyn Stream>) -> Result<Info, String> {
    let mut read = BytesMut::new();
    loop {
        let received = stream.read_buf(&mut read).await;
        if received.map_err(|error| format!("the connection broke: {error}"))? == 0 {
            return Err("the server closed the connection before it said anything".to_owned());
        }
        if let Some(line) = read.strip_suffix(b"\r\n") {
            let document = line.strip_prefix(b"INFO ").map(serde_json::from_slice);
            let Some(Ok(info)) = document else {
                return Err("what answers there is no NATS server".to_owned());
            };
            return Ok(info);
        }
        // Nothing comes behind the line before we have answered.
        if read.len() > MAX_LINE || read.contains(&b'\n') {
            return Err("what answers there is no NATS server".to_owned());
        }
    }
}

impl Publishes for Server {
    type Session = Session;
    type Ticket = u64;

    fn connect(&self) -> BoxFuture<'_, Result<Link<Self>, String>> {
        Box::pin(async move {
            let (stream, info) = self.greet().await?;
            let hello = self.login.hello(&info, self.address.tls.is_some())?;
            let inbox = crate::random::bytes::<12>().map_err(|error| error.message)?;
            let session = Session::new(&hello, &inbox, info.max_payload, self.window);
            let mut link = Connection::new(session, stream);
            loop {
                match link.next_event().await {
                    Event::Open => return Ok(link),
                    Event::Closed(why) => return Err(why),
                    Event::Answered { .. } => {}
                }
            }
        })
    }

    fn publish(&self, session: &mut Session, routed: &Routed) -> Result<u64, NotNow> {
        let subject = self.subject.render(&self.hub, routed);
        let published = session.publish(&subject, &self.headers(routed), &routed.message.body);
        published.map_err(|error| match error {
            PublishError::Full => NotNow::Full,
            PublishError::Closed => NotNow::Over,
            PublishError::TooLarge { .. } => NotNow::Never(error.to_string()),
        })
    }

    fn read(event: Event) -> Heard<u64> {
        match event {
            Event::Open => Heard::Nothing,
            Event::Closed(why) => Heard::Over(why),
            Event::Answered { ticket, answer } => match answer {
                Answer::Stored => Heard::Taken(ticket),
                Answer::Refused(why) => Heard::Refused(ticket, why),
                Answer::RefusedForEver(why) => Heard::RefusedForEver(ticket, why),
            },
        }
    }

    fn leave(&self, session: &mut Session) {
        session.close();
    }
}

/// Whether a session hears the same of what a server says, however the bytes come.
#[doc(hidden)]
#[must_use]
pub fn hears_nats_the_same(said: &[u8]) -> bool {
    session::hears_the_same(said)
}

#[cfg(test)]
mod tests;
