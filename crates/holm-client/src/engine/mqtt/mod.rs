//! MQTT: a connection for each identity. From nothing to a session that has sent CONNECT, and on.

mod connected;

use std::collections::VecDeque;

use bytes::Bytes;
use holm_model::wire::UserName;
use holm_mqtt::{Config, Connect, Credentials, EncodeError, InvalidText, Session, Text, Version};
use holm_net::clock::instant;
use holm_net::{Connection, Stream};

use super::dial::{DialError, dial};
use super::renewal::Life;
use super::{Acknowledged, Carrier, End, Ends};
use crate::credential::NoToken;
use crate::options::Options;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no credential")]
    Token(#[source] NoToken),
    #[error(transparent)]
    Dial(DialError),
    #[error("the user name or client id has no form in MQTT")]
    Text(#[source] InvalidText),
    #[error("CONNECT has no form in MQTT")]
    Encode(#[source] EncodeError),
}

/// A connection on which CONNECT is the first thing to leave.
pub(super) struct Link {
    connection: Connection<Session, Box<dyn Stream>>,
    /// That of the token in CONNECT.
    life: Option<Life>,
}

/// Sent and not acknowledged: goes first on the next connection, marked as a repeat.
#[derive(Debug)]
struct Unacknowledged {
    packet: holm_mqtt::Message,
    acknowledged: Acknowledged,
}

/// What lasts from one connection to the next.
#[derive(Debug, Default)]
pub(super) struct Mqtt {
    kept: VecDeque<Unacknowledged>,
}

impl Carrier for Mqtt {
    type Link = Link;

    async fn connect(&mut self, options: &Options) -> Result<Link, End> {
        connect(options)
            .await
            .map_err(|error| End::Lost(holm_net::error_chain(&error)))
    }

    async fn serve(&mut self, options: &Options, ends: &mut Ends, link: Link) -> End {
        connected::serve(options, ends, &mut self.kept, link).await
    }
}

async fn connect(options: &Options) -> Result<Link, ConnectError> {
    // Returned when the handshakes are done.
    let _turn = options.turn().await;
    let token = options.make_token().await.map_err(ConnectError::Token)?;
    let (password, life) = match token {
        None => (None, None),
        Some((token, life)) => (Some(Bytes::copy_from_slice(token.text.expose().as_bytes())), Some(life)),
    };
    let session =
        Session::client(instant(), config(options), request(options, password)?).map_err(ConnectError::Encode)?;
    let stream = dial(options).await.map_err(ConnectError::Dial)?;
    Ok(Link {
        connection: Connection::new(session, stream),
        life,
    })
}

fn request(options: &Options, password: Option<Bytes>) -> Result<Connect, ConnectError> {
    let user_name = UserName {
        auth_chain: options.auth_chain.clone(),
        ..UserName::new(&options.hub_host, options.identity.clone(), &options.user_agent)
    };
    let user_name = user_name.to_string();
    let text = |text: String| Text::try_from(text).map_err(ConnectError::Text);
    Ok(Connect {
        version: Version::V311,
        client_id: text(options.identity.to_string())?,
        clean_session: false,
        keep_alive_seconds: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
        will: None,
        credentials: Some(Credentials {
            user_name: text(user_name)?,
            password,
        }),
    })
}

/// Messages from the hub that may wait for the application. Far more than any hub sends at once (Holm's sends 16): a full
/// window stops the socket from being read, and what the application waits for would stay in it.
const INBOUND_WINDOW: usize = 256;

fn config(options: &Options) -> Config {
    let usual = Config::default();
    Config {
        ping_timeout: usual.ping_timeout.min(options.keep_alive),
        inbound_window: INBOUND_WINDOW,
        outbound_window: u16::try_from(options.window.max(1)).unwrap_or(u16::MAX),
        connect_timeout: std::time::Duration::from_secs(30),
        ..usual
    }
}
