//! AMQP 1.0 for devices and modules, and for back ends.
//!
//! ```text
//!   SASL or none, $cbs --tokens--> proofs           attach --proofs, backend--> a client, for each identity that has a link
//!                                                     crowd of clients --front--> outcomes, deliveries, answers, changes
//! ```
//!
//! One task owns a connection and everybody on it: a gateway or a pool of an SDK has a thousand devices on one. What goes wrong
//! with one of them costs its links, never the connection.
//!
//! | file | what |
//! | --- | --- |
//! | `front.rs` | the loop: what happens next, to whom |
//! | `happenings.rs`, `ends.rs` | what happens to one client, and how a connection ends |
//! | `tokens.rs`, `cbs.rs`, `proofs.rs` | who proved what |
//! | `attach.rs` | links as they come and go |
//! | `client.rs`, `crowd.rs` | one identity that acts here, and all of them |
//! | `telemetry.rs`, `deliver.rs`, `requests.rs` | messages up, messages down, methods and twins |
//! | `untold.rs` | what waits for room on the connection |
//! | `message.rs`, `refusals.rs` | messages and errors as AMQP has them |
//! | `provisioning.rs` | devices that ask the provisioning service |
//! | `service/` | what back ends do: messages to devices, notices, the Event Hub |
//!
//! Source: `hub-device-protocols.md` §3, `hub-service-api.md` §5, §6.

mod attach;
mod cbs;
mod client;
mod crowd;
mod deliver;
mod ends;
mod front;
mod happenings;
mod message;
mod proofs;
mod provisioning;
mod refusals;
mod requests;
mod service;
mod telemetry;
mod tokens;
mod tpm;
mod untold;

use std::sync::{Arc, LazyLock};

use holm_amqp::{Allowance, Closed, Config, Symbol};
use holm_net::clock::instant;
use holm_net::{Connection, Peer, Scope};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::Backend;
use crate::gateway::Gateway;
use crate::metrics::{End, Protocol};
use front::Front;

/// Sessions and links of a peer that proved nothing yet: what any SDK opens before its token is taken.
const STRANGER: Allowance = Allowance { sessions: 4, links: 16 };

static CONFIG: LazyLock<Arc<Config>> = LazyLock::new(|| {
    Arc::new(Config {
        allowance: STRANGER,
        ..Config::default()
    })
});

/// Of a node where devices can ask for their registration: some prove themselves by a TPM.
static PROVISIONING: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let mut config = Config::clone(&CONFIG);
    config.mechanisms.push(Symbol::from_static("TPM"));
    Arc::new(config)
});

/// Serves one connection from its first byte to its last.
pub(crate) async fn serve<B, S>(gateway: &Gateway<B>, scope: &Scope, stream: S, peer: Peer, protocol: Protocol)
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let metrics = &gateway.metrics;
    let _open = metrics.open(protocol);
    let config = match gateway.backend.id_scope() {
        Some(_) => &PROVISIONING,
        None => &CONFIG,
    };
    let session = holm_amqp::Connection::server(instant(), Arc::clone(config));
    let mut connection = Connection::new(session, stream);
    let (closed, end) = Box::pin(Front::new(gateway, &mut connection, &peer).run(scope)).await;
    tracing::debug!(peer = peer.address.map(tracing::field::display), reason = %closed, "a connection has ended");
    if let Closed::Violation(violation) = &closed {
        gateway
            .complaints
            .broke("AMQP", violation, peer.address, &"a connection of AMQP");
    }
    let end = end.or_else(|| why(&closed)).unwrap_or(End::ShuttingDown);
    metrics.ended.of(end).increment();
    connection.finish().await;
}

/// Why a connection ended, if it was not by this side.
const fn why(closed: &Closed) -> Option<End> {
    match closed {
        Closed::ByPeer(_) => Some(End::Disconnected),
        Closed::Lost => Some(End::Lost),
        Closed::TimedOut(_) => Some(End::TimedOut),
        Closed::Violation(_) => Some(End::Violation),
        Closed::Refused(_) | Closed::NotOffered(..) => Some(End::Refused),
        Closed::ByApplication => None,
    }
}
