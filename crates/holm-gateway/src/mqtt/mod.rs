//! MQTT 3.1.1 for devices and modules.
//!
//! ```text
//!   CONNECT --admit--> who, by which proof, resumed or not --serve--> requests, deliveries, commands --> end, will
//! ```
//!
//! A device that asks the provisioning service is told by its user name, and served by `provisioning.rs`.
//!
//! One task owns a connection: everything the client sends is handled in order, and everything that is sent to it leaves
//! in the order decided here, so nothing can arrive before the SUBACK that allows it.

mod admit;
mod credentials;
mod deliver;
mod provisioning;
mod publish;
mod serve;
mod subscribe;

use holm_mqtt::{Closed, Config, Connect, DeliveryId, Event, Message, PublishError, Qos, Session, Text, Will};
use holm_net::clock::instant;
use holm_net::{Connection, Peer, Scope};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::Backend;
use crate::gateway::Gateway;
use crate::metrics::{End, Protocol};
use crate::profile::{MAX_PACKET, Profile};
use crate::session::SessionId;

/// What the answer to a twin request needs.
#[derive(Debug)]
struct Asker {
    rid: Option<String>,
    /// The publish that brought it: acknowledged when the answer is known.
    delivery: Option<DeliveryId>,
}

fn session_config(profile: &Profile) -> Config {
    Config {
        max_packet: MAX_PACKET,
        inbound_window: profile.max_unacknowledged,
        outbound_window: u16::try_from(profile.delivery_window).unwrap_or(u16::MAX),
        idle_cap: profile.idle_cap,
        ..Config::default()
    }
}

/// Serves one connection from its first byte to its last.
pub(crate) async fn serve<B, S>(gateway: &Gateway<B>, scope: &Scope, stream: S, peer: Peer, protocol: Protocol)
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let metrics = &gateway.metrics;
    let _open = metrics.open(protocol);
    let session = Session::server(instant(), session_config(&gateway.profile));
    let mut connection = Connection::new(session, stream);
    let first = tokio::select! {
        event = connection.next_event() => event,
        () = scope.stopping() => Event::Closed(Closed::ByApplication),
    };
    let end = match first {
        // Steps that every session takes once are in boxes: they are gone while it lives.
        Event::Connect(connect) => {
            if B::PROVISIONS
                && let Some(registrant) = provisioning::registrant(gateway, &connect)
            {
                let asking = (registrant, connect);
                let served = provisioning::run(gateway, scope, &mut connection, &peer, asking);
                metrics.ended.of(Box::pin(served).await).increment();
                return connection.finish().await;
            }
            // Named now: of two that greet, the later one is the newer, whoever is let in first.
            let name = SessionId::next();
            match Box::pin(admit::admit(gateway, &connect, &peer)).await {
                Ok(admitted) => {
                    let will = will_of(connect);
                    Box::pin(serve::run(
                        gateway,
                        scope,
                        &mut connection,
                        &peer,
                        (name, admitted),
                        will,
                    ))
                    .await
                }
                Err(refusal) => {
                    tracing::info!(client = %connect.client_id, peer = peer.address.map(tracing::field::display), reason = %refusal.reason, "a client was refused");
                    connection.session_mut().refuse(refusal.code);
                    metrics.refused.of(refusal.counted).increment();
                    End::Refused
                }
            }
        }
        Event::Closed(reason) => {
            tracing::debug!(peer = ?peer.address, %reason, "closed before CONNECT");
            complain(gateway, &reason, &peer, &"nobody yet");
            end(&reason).unwrap_or(End::ShuttingDown)
        }
        _ => {
            connection.session_mut().close();
            End::Violation
        }
    };
    metrics.ended.of(end).increment();
    connection.finish().await;
}

/// What outlives CONNECT; the rest of it, and the buffer in which it came, go.
#[expect(clippy::boxed_local, reason = "the box ends here, and not with the session")]
fn will_of(connect: Box<Connect>) -> Option<Will> {
    connect.will
}

/// Tells the log of the end of a connection, if the peer broke the protocol.
fn complain<B>(gateway: &Gateway<B>, reason: &Closed, peer: &Peer, who: &dyn std::fmt::Display) {
    if let Closed::Violation(violation) = reason {
        gateway.complaints.broke("MQTT", violation, peer.address, who);
    }
}

/// Why a connection ended, if it was not by this side.
const fn end(closed: &Closed) -> Option<End> {
    match closed {
        Closed::Disconnected => Some(End::Disconnected),
        Closed::Lost => Some(End::Lost),
        Closed::TimedOut(_) => Some(End::TimedOut),
        Closed::Violation(_) => Some(End::Violation),
        Closed::Refused(_) => Some(End::Refused),
        Closed::ByApplication => None,
    }
}

/// Sends a message of QoS 0; one that the connection has no room for ends it, since nothing would bring it again.
fn publish_once(session: &mut Session, topic: String, payload: impl Into<bytes::Bytes>) {
    let Ok(topic) = Text::try_from(topic) else {
        tracing::warn!("an answer was dropped: its topic has no form in MQTT");
        return;
    };
    let message = Message {
        topic,
        payload: payload.into(),
        qos: Qos::AtMostOnce,
        retain: false,
        dup: false,
    };
    match session.publish(instant(), &message) {
        Ok(_) | Err(PublishError::NotOpen) => {}
        Err(error) => {
            tracing::info!(%error, "the client does not read its answers; closing");
            session.close();
        }
    }
}
