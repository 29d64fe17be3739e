//! HTTP requests over TLS, over TCP alone where it is asked for, or over a stream in hand. A connection serves one request: what Holm asks over HTTP is rare, and a
//! kept connection would be one more thing that can be half open on a bad link.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use super::AnyStream;
use super::body::{self, BodyError, ResponseBody};
use crate::Dialer;
use crate::tls::{self, HandshakeError};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("no connection")]
    Connect(#[source] HandshakeError),
    /// The connection broke before the answer.
    #[error("the connection broke before the answer")]
    Broken(#[source] hyper::Error),
    /// The answer did not come in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The answer's body could not be read.
    #[error("the answer could not be read")]
    Body(#[source] BodyError),
}

/// Sends requests to one host and port.
#[derive(Clone, Debug)]
pub struct Client {
    /// `None`: without TLS.
    tls: Option<Arc<ClientConfig>>,
    dialer: Dialer,
    host: String,
    port: u16,
}

impl Client {
    /// A client for `host:port`; no connection is made yet.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, host: impl Into<String>, port: u16) -> Self {
        Self {
            tls: Some(tls),
            dialer: Dialer::default(),
            host: host.into(),
            port,
        }
    }

    /// A client without TLS, for a host on a network that can be trusted.
    #[must_use]
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        Self {
            tls: None,
            dialer: Dialer::default(),
            host: host.into(),
            port,
        }
    }

    /// The same, connecting by `dialer`.
    #[must_use]
    pub fn with_dialer(mut self, dialer: Dialer) -> Self {
        self.dialer = dialer;
        self
    }

    /// The host that is asked.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request and reads the whole answer, of at most `limit` bytes, within `patience`.
    ///
    /// # Errors
    /// [`ClientError`]. An answer with an error status is an answer.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
        patience: Duration,
    ) -> Result<(StatusCode, hyper::HeaderMap, Bytes), ClientError> {
        let exchange = async {
            let (head, incoming) = self.open(request).await?.into_parts();
            let bytes = body::read(incoming, limit).await.map_err(ClientError::Body)?;
            Ok((head.status, head.headers, bytes))
        };
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(ClientError::TimedOut(patience)))
    }

    /// Sends a request and gives the answer as soon as its head is there; its body comes as the server sends it.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Broken`].
    pub async fn open<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let authority = if self.port == 443 {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        };
        if let Ok(value) = HeaderValue::from_str(&authority) {
            request.headers_mut().entry(HOST).or_insert(value);
        }
        let (host, port) = (&self.host, self.port);
        let Some(tls) = &self.tls else {
            let stream = self.dialer.dial(host, port).await.map_err(|source| {
                let peer = format!("{host}:{port}");
                ClientError::Connect(HandshakeError::Unreachable { peer, source })
            })?;
            return send_over(stream, request).await;
        };
        let stream = tls::connect(Arc::clone(tls), &self.dialer, host, port)
            .await
            .map_err(ClientError::Connect)?;
        send_over(stream, request).await
    }
}

/// Sends a request over a stream in hand (a unix socket, say). The request must carry a `Host` header.
///
/// # Errors
/// [`ClientError::Broken`].
pub async fn send_over<S, B>(stream: S, request: Request<B>) -> Result<Response<Incoming>, ClientError>
where
    S: AnyStream + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request = request.map(|body| body.map_err(io::Error::other).boxed_unsync());
    send_any(Box::new(stream), request).await
}

/// Sends any request over any stream: so the engine is in the program once, and not for each pair of these.
async fn send_any(
    stream: Box<dyn AnyStream>,
    request: Request<ResponseBody>,
) -> Result<Response<Incoming>, ClientError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(ClientError::Broken)?;
    // The task lives as long as the answer's body is being read or the upgraded stream used, and ends with it.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "an HTTP connection of ours ended early");
        }
    });
    sender.send_request(request).await.map_err(ClientError::Broken)
}
