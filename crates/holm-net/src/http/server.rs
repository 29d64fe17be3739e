//! Serves HTTP/1.1 on connections: TLS from a listener, or any stream that the caller has accepted (a unix socket, say).
//!
//! A request's head must arrive within [`HEAD_DEADLINE`]. When the scope stops, running requests are finished and idle
//! connections closed. Upgrades (WebSocket) are possible.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::ResponseBody;
use crate::{Listener, Scope, tls};

/// How long the head of a request may take, and how long an idle connection is kept.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(240);

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The address, on TCP.
    pub address: Option<SocketAddr>,
    /// The certificates shown in the TLS handshake, leaf first. The handshake proved the leaf's key; nothing else is
    /// checked yet.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The process at the other end of a unix socket.
    pub unix: Option<UnixPeer>,
}

/// The process at the other end of a unix socket, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its user.
    pub uid: u32,
    /// Its process id, if it is in our process namespace.
    pub pid: Option<i32>,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away.
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// Serves one connection until it ends or the scope stops.
pub async fn serve_connection<S, H>(scope: Scope, stream: S, peer: Peer, handler: Arc<H>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let service = service_fn(move |request| {
        let (handler, peer) = (Arc::clone(&handler), peer.clone());
        async move { Ok::<_, Infallible>(handler.handle(request, peer).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = scope.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "an HTTP connection ended early");
    }
}

/// Serves HTTPS on a listener until the scope stops.
pub async fn serve_tls<H: Handler>(scope: Scope, listener: Listener, config: Arc<ServerConfig>, handler: Arc<H>) {
    loop {
        let admitted = tokio::select! {
            admitted = listener.accept() => admitted,
            () = scope.stopping() => return,
        };
        let (connections, config, handler) = (scope.clone(), Arc::clone(&config), Arc::clone(&handler));
        scope.spawn(async move {
            let _permit = admitted.permit;
            match tls::accept(config, admitted.stream, admitted.peer).await {
                Ok(stream) => {
                    let certificates = tls::client_certificates(&stream).into();
                    let peer = Peer {
                        address: Some(admitted.peer),
                        certificates,
                        unix: None,
                    };
                    serve_connection(connections, stream, peer, handler).await;
                }
                Err(error) => tracing::debug!(error = %error_chain(&error), "no HTTPS connection"),
            }
        });
    }
}

/// An error and its causes on one line, joined by `: `.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
