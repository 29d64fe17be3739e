//! From nothing to a byte stream: TLS, and a WebSocket where the transport wants one.

use std::sync::Arc;

use holm_net::Stream;
use holm_net::tls::{self, HandshakeError};
use holm_net::websocket::{self, UpgradeError};

use crate::options::Options;

/// Where both protocols have their WebSocket.
const PATH: &str = "/$iothub/websocket";

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("no connection")]
    Tls(#[source] HandshakeError),
    #[error("no WebSocket")]
    WebSocket(#[source] UpgradeError),
}

pub(super) async fn dial(options: &Options) -> Result<Box<dyn Stream>, DialError> {
    let endpoint = &options.endpoint;
    let tls = tls::connect(Arc::clone(&options.tls), &options.dialer, &endpoint.host, endpoint.port);
    let stream = tls.await.map_err(DialError::Tls)?;
    let Some(subprotocol) = options.transport.subprotocol() else {
        return Ok(stream);
    };
    let upgrade = websocket::connect(stream, &endpoint.host, PATH, subprotocol);
    Ok(Box::new(Box::pin(upgrade).await.map_err(DialError::WebSocket)?))
}
