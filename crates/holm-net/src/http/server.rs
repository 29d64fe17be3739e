//! Serves HTTP/1.1 on connections: TLS from a listener, or any stream that the caller has accepted (a unix socket, say).
//!
//! A request's head must arrive within [`HEAD_DEADLINE`]. When the scope stops, running requests are finished if that takes
//! no longer than [`LAST_ANSWER`], and idle connections closed. Upgrades (WebSocket) are possible.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::ResponseBody;
use crate::{Listener, Peer, Scope, tls};

/// How long the head of a request may take, and how long an idle connection is kept.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(240);

/// How long a request that runs when the scope stops may go on.
pub const LAST_ANSWER: Duration = Duration::from_secs(2);

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
            // A client that has sent half a request, or none, would be waited for as long as for its head.
            match tokio::time::timeout(LAST_ANSWER, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "an HTTP connection ended early");
    }
}

/// Serves HTTPS on a listener until the scope stops.
pub async fn serve_tls<H: Handler>(scope: Scope, listener: Listener, config: Arc<ServerConfig>, handler: Arc<H>) {
    let connections = scope.clone();
    tls::serve(&scope, listener, config, move |stream, peer| {
        serve_connection(connections.clone(), stream, peer, Arc::clone(&handler))
    })
    .await;
}
