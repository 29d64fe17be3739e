//! AMQP: a session for each identity, on a connection that identities may share.
//!
//! ```text
//!   client ─ seat ─┐                      ┌─ $cbs pair: a token for each identity, anew at 85 % of its life
//!   client ─ seat ─┼─ Shared: connection ─┼─ session: telemetry │ devicebound │ inputs │ methods ⇄ │ twin ⇄
//!   client ─ seat ─┘    and its driver    └─ session: …
//! ```
//!
//! - A fault of an identity costs its session; the loss of the connection costs all of them theirs, and each comes back by itself.
//! - What may wait for a client is bounded by the credit that its links give: no client holds up the others of its connection.
//!
//! Source: `hub-device-protocols.md` §3.

mod arriving;
mod cbs;
mod driver;
mod links;
mod messages;
mod pool;
mod sending;
mod serving;
mod shared;

use std::collections::VecDeque;

use holm_amqp::AmqpError;
use holm_amqp::condition::{NOT_FOUND, UNAUTHORIZED_ACCESS};
use holm_identity::sas::resource_uri;
use holm_model::Message;
use holm_net::Scope;

pub use pool::Connections;

use super::renewal::Life;
use super::{Acknowledged, Carrier, End, Ends};
use crate::credential::{Credential, Token};
use crate::options::Options;
use cbs::NotTaken;
use shared::{Seat, Shared};

/// Sent and not acknowledged: goes first on the next session.
#[derive(Debug)]
struct Unacknowledged {
    message: Box<Message>,
    acknowledged: Acknowledged,
}

/// A session of an identity that was let in.
pub(super) struct Link {
    seat: Seat,
    life: Option<Life>,
}

/// What lasts from one session to the next.
#[derive(Debug)]
pub(super) struct Amqp {
    connections: Connections,
    kept: VecDeque<Unacknowledged>,
}

impl Amqp {
    pub(super) fn new(options: &Options, scope: Scope) -> Self {
        let shared = match options.credential {
            Credential::Tokens(_) => options.connections.clone(),
            // Its TLS session says who it is: nobody else may speak on it.
            Credential::Certificate => None,
        };
        Self {
            connections: shared.unwrap_or_else(|| Connections::new(scope)),
            kept: VecDeque::new(),
        }
    }
}

impl Carrier for Amqp {
    type Link = Link;

    async fn connect(&mut self, options: &Options) -> Result<Link, End> {
        // Returned when the token is taken: thousands don't ask for that at once.
        let _turn = options.turn().await;
        self.connections.enter(options).await
    }

    async fn serve(&mut self, options: &Options, ends: &mut Ends, link: Link) -> End {
        serving::serve(options, ends, &mut self.kept, link).await
    }
}

/// Makes a token and has it taken.
async fn authenticate(options: &Options, shared: &Shared) -> Result<Option<Life>, End> {
    let token = make_token(options).await?;
    prove(options, shared, token).await
}

async fn make_token(options: &Options) -> Result<Option<(Token, Life)>, End> {
    let token = options.make_token().await;
    token.map_err(|error| End::Lost(format!("no credential: {}", holm_net::error_chain(&error))))
}

/// Has a token taken.
async fn prove(options: &Options, shared: &Shared, token: Option<(Token, Life)>) -> Result<Option<Life>, End> {
    let Some((token, life)) = token else {
        return Ok(None);
    };
    let audience = resource_uri(&options.hub_host, &options.identity);
    let chain = options.auth_chain.as_deref();
    match shared.put_token(&audience, &token.text, chain).await {
        Ok(()) => Ok(Some(life)),
        Err(NotTaken::Refused(reason)) => Err(End::Refused(reason)),
        Err(NotTaken::Failed(reason)) => Err(End::Lost(reason)),
    }
}

/// The end of an identity's session, by the error that the node above gave.
fn end_of(what: &str, error: Option<&AmqpError>) -> End {
    let Some(error) = error else {
        return End::Lost(format!("the node above ended {what}"));
    };
    let reason = format!("the node above ended {what}: {error}");
    match error.condition.as_str() {
        UNAUTHORIZED_ACCESS | NOT_FOUND => End::Refused(reason),
        _ => End::Lost(reason),
    }
}
