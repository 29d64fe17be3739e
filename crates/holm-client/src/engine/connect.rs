//! From nothing to an MQTT session that has sent CONNECT.

use std::sync::Arc;

use bytes::Bytes;
use holm_model::Timestamp;
use holm_model::wire::UserName;
use holm_mqtt::{Config, Connect, Credentials, EncodeError, InvalidText, Session, Text, Version};
use holm_net::clock::instant;
use holm_net::tls::{self, HandshakeError};
use holm_net::websocket::{self, UpgradeError};
use holm_net::{Connection, Stream};

use crate::credential::{Credential, NoToken};
use crate::options::{Options, Transport};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no credential")]
    Token(#[source] NoToken),
    #[error("no connection")]
    Tls(#[source] HandshakeError),
    #[error("no WebSocket")]
    WebSocket(#[source] UpgradeError),
    #[error("the user name or client id has no form in MQTT")]
    Text(#[source] InvalidText),
    #[error("CONNECT has no form in MQTT")]
    Encode(#[source] EncodeError),
}

/// A connection on which CONNECT is the first thing to leave.
pub(super) struct Link {
    pub(super) connection: Connection<Session, Box<dyn Stream>>,
    /// When the token ends.
    pub(super) expires: Option<Timestamp>,
    /// When it was made.
    pub(super) made: Timestamp,
}

pub(super) async fn connect(options: &Options) -> Result<Link, ConnectError> {
    // Returned when the handshakes are done. The semaphore is never closed.
    let _turn = match &options.turns {
        Some(turns) => turns.acquire().await.ok(),
        None => None,
    };
    let made = options.now();
    let (password, expires) = match &options.credential {
        Credential::Certificate => (None, None),
        Credential::Tokens(source) => {
            let token = source.make(made).await.map_err(ConnectError::Token)?;
            (
                Some(Bytes::copy_from_slice(token.text.expose().as_bytes())),
                Some(token.expires),
            )
        }
    };
    let session =
        Session::client(instant(), config(options), request(options, password)?).map_err(ConnectError::Encode)?;

    let tls = tls::connect(
        Arc::clone(&options.tls),
        &options.dialer,
        &options.endpoint.host,
        options.endpoint.port,
    )
    .await
    .map_err(ConnectError::Tls)?;
    let stream: Box<dyn Stream> = match options.transport {
        Transport::Mqtt => tls,
        Transport::MqttWebSocket => {
            let upgrade = websocket::connect(tls, &options.endpoint.host, "/$iothub/websocket", "mqtt");
            Box::new(Box::pin(upgrade).await.map_err(ConnectError::WebSocket)?)
        }
    };
    Ok(Link {
        connection: Connection::new(session, stream),
        expires,
        made,
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
