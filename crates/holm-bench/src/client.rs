//! One MQTT connection of the generator: to where, as whom, and the first two steps of every client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use holm_mqtt::{Config, Connect, Credentials, Event, Granted, Qos, Session, Subscription, Text, Version};
use holm_net::Connection;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long a connection, its login or a subscription may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Any stream of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> ByteStream for S {}

/// A session over TCP or TLS.
pub type Link = Connection<Session, Box<dyn ByteStream>>;

/// Where a broker listens. Clones share the TLS settings, and so their memory of sessions.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// With what TLS is spoken; none for plain TCP. The server's certificate must be for the IP address.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Who a client says it is.
#[derive(Clone, Debug)]
pub struct Login {
    /// The client id.
    pub client_id: String,
    /// User name and password; a broker for tests wants none.
    pub credentials: Option<(String, String)>,
    /// Whether the broker forgets the client when it goes.
    pub clean_session: bool,
}

impl Login {
    /// A client without a password, forgotten when it goes.
    #[must_use]
    pub fn anonymous(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            credentials: None,
            clean_session: true,
        }
    }

    fn connect(&self) -> Result<Connect> {
        let credentials = match &self.credentials {
            None => None,
            Some((user_name, password)) => Some(Credentials {
                user_name: Text::try_from(user_name.as_str()).context("the user name")?,
                password: Some(Bytes::copy_from_slice(password.as_bytes())),
            }),
        };
        Ok(Connect {
            version: Version::V311,
            client_id: Text::try_from(self.client_id.as_str()).context("the client id")?,
            clean_session: self.clean_session,
            keep_alive_seconds: 240,
            will: None,
            credentials,
        })
    }
}

/// Connects and logs in. `window` is how many publishes may wait for their acknowledgement, in either direction.
///
/// # Errors
/// There is no connection, or the broker does not let the client in within a minute.
pub async fn connect(target: &Target, login: &Login, window: u16) -> Result<Link> {
    let attempt = async {
        let stream = open(target).await?;
        let config = Config {
            outbound_window: window,
            inbound_window: 4096,
            max_events: 4096,
            ..Config::default()
        };
        let session = Session::client(Instant::now(), config, login.connect()?)?;
        let mut link = Connection::new(session, stream);
        match link.next_event().await {
            Event::Connected { .. } => Ok(link),
            Event::Closed(reason) => Err(anyhow::Error::new(reason).context("the broker closed the connection")),
            other => bail!("the broker's first word was {other:?}"),
        }
    };
    tokio::time::timeout(PATIENCE, attempt)
        .await
        .unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()))
        .with_context(|| format!("`{}` can't log in at {}", login.client_id, target.address))
}

async fn open(target: &Target) -> Result<Box<dyn ByteStream>> {
    if let Some(config) = &target.tls {
        let host = target.address.ip().to_string();
        let stream = holm_net::tls::connect(
            Arc::clone(config),
            &holm_net::Dialer::default(),
            &host,
            target.address.port(),
        )
        .await?;
        return Ok(Box::new(stream));
    }
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Subscribes at QoS 1 and waits for the answer.
///
/// # Errors
/// The broker refused, or said something else first, or nothing within a minute.
pub async fn subscribe(link: &mut Link, filter: &str) -> Result<()> {
    let wanted = Subscription {
        filter: Text::try_from(filter).context("the topic filter")?,
        qos: Qos::AtLeastOnce,
    };
    link.session_mut().subscribe(Instant::now(), vec![wanted])?;
    let answer = tokio::time::timeout(PATIENCE, link.next_event())
        .await
        .with_context(|| format!("no answer to the subscription within {} s", PATIENCE.as_secs()))?;
    match answer {
        Event::Subscribed { granted, .. } if granted == [Granted::Qos(Qos::AtLeastOnce)] => Ok(()),
        other => bail!("`{filter}` was not granted at QoS 1: {other:?}"),
    }
}
