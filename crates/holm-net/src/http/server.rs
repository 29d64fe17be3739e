//! Serves HTTP/1.1 on connections: TLS from a listener, or any stream that the caller has accepted (a unix socket, say).
//!
//! A request's head must arrive within [`HEAD_DEADLINE`] of its first byte; between two requests a connection may rest for
//! [`IDLE_DEADLINE`]. When the scope stops, running requests are finished if that takes no longer than [`LAST_ANSWER`], and idle
//! connections closed. A head may have [`MAX_HEAD`] bytes; its request knows how the client wrote its names ([`Spelling`](super::Spelling)).
//! Upgrades (WebSocket) are possible.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;

use super::AnyStream;
use super::body::ResponseBody;
use super::head::{Heads, Watched};
use crate::{Listener, Peer, Scope, tls};

/// How long the head of a request may take from its first byte on; the same as the other first words of a client.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// How long an idle connection is kept.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(240);

/// How long a request that runs when the scope stops may go on.
pub const LAST_ANSWER: Duration = Duration::from_secs(2);

/// The largest head of a request, and the most that is buffered of a connection whose request is not known yet, up to the read
/// that passes it: a token, a dozen headers and a name are some KiB. More is answered 431.
pub const MAX_HEAD: usize = 64 * 1024;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away.
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// Serves one connection until it ends or the scope stops.
pub async fn serve_connection<S, H>(scope: Scope, stream: S, peer: Peer, handler: Arc<H>)
where
    S: AnyStream + 'static,
    H: Handler,
{
    let answerer: Answerer = Box::new(move |request| {
        let (handler, peer) = (Arc::clone(&handler), peer.clone());
        Box::pin(async move { handler.handle(request, peer).await })
    });
    serve_any(scope, Box::new(stream), answerer).await;
}

/// Answers the requests of one connection.
type Answerer = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;
/// An answer that is being made.
type Answering = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// Serves HTTP for whoever answers, on whatever stream: so the engine is in the program once, and not for each pair of these.
async fn serve_any(scope: Scope, stream: Box<dyn AnyStream>, answerer: Answerer) {
    let heads = Heads::default();
    let stream = Watched {
        stream,
        heads: heads.clone(),
    };
    let service = {
        let heads = heads.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(heads.complete());
            let (answering, heads) = (answerer(request), heads.clone());
            async move {
                let answer = answering.await;
                if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    heads.answered();
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_DEADLINE)
        .max_headers(100)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = heads.overdue() => return tracing::debug!("the head of an HTTP request took too long; closing"),
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;
    use crate::http;

    struct Fine;

    impl Handler for Fine {
        async fn handle(&self, _request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
            Response::new(http::body::full("fine"))
        }
    }

    /// Reads the request and never answers.
    #[derive(Default)]
    struct Never {
        begun: Arc<Notify>,
        ended: Arc<Notify>,
    }

    struct TellOnDrop(Arc<Notify>);

    impl Drop for TellOnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    impl Handler for Never {
        async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
            let _ended = TellOnDrop(Arc::clone(&self.ended));
            http::body::read_request(request.into_body(), 100).await.unwrap();
            self.begun.notify_one();
            std::future::pending().await
        }
    }

    /// What a server answers to a head with so many bytes in one header.
    async fn answer_to_head(bytes: usize) -> String {
        let (near, mut far) = tokio::io::duplex(4 * MAX_HEAD);
        let scope = Scope::new();
        tokio::spawn(serve_connection(scope, near, Peer::default(), Arc::new(Fine)));
        let head = format!(
            "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx: {}\r\n\r\n",
            "x".repeat(bytes)
        );
        far.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_head_beyond_the_limit_is_refused_and_one_within_it_is_answered() {
        let within = answer_to_head(MAX_HEAD - 1024).await;
        let beyond = answer_to_head(2 * MAX_HEAD).await;

        assert!(within.starts_with("HTTP/1.1 200 "), "{within}");
        assert!(beyond.starts_with("HTTP/1.1 431 "), "{beyond}");
    }

    /// Answers with the names of the headers.
    struct Names;

    impl Handler for Names {
        async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
            let (head, body) = request.into_parts();
            http::body::read_request(body, 100).await.unwrap();
            let names: Vec<&str> = http::Spelling::headers(&head).map(|(name, _)| name).collect();
            Response::new(http::body::full(names.join(" ")))
        }
    }

    /// Reads an answer to its end.
    async fn body_of_answer(far: &mut tokio::io::DuplexStream) -> String {
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && head.contains(&format!("content-length: {}\r\n", body.len()))
            {
                return body.to_owned();
            }
            assert!(far.read_buf(&mut answer).await.unwrap() > 0, "no more comes");
        }
    }

    #[tokio::test]
    async fn every_request_of_a_connection_has_its_names_as_they_were_written() {
        let (near, mut far) = tokio::io::duplex(4 * 1024);
        tokio::spawn(serve_connection(Scope::new(), near, Peer::default(), Arc::new(Names)));

        // The body of the first looks like a head.
        let first = b"POST / HTTP/1.1\r\nHOST: h\r\nApp-Level: 1\r\nContent-Length: 11\r\n\r\nAPP-LEVEL:2";
        far.write_all(first).await.unwrap();
        let first = body_of_answer(&mut far).await;
        far.write_all(b"GET / HTTP/1.1\r\nhost: h\r\napp-LEVEL: 1\r\n\r\n")
            .await
            .unwrap();
        let second = body_of_answer(&mut far).await;

        assert_eq!(first, "HOST App-Level Content-Length");
        assert_eq!(second, "host app-LEVEL");
    }

    #[tokio::test]
    async fn what_is_done_for_a_client_ends_when_it_goes_away() {
        let (near, mut far) = tokio::io::duplex(1024);
        let handler = Arc::new(Never::default());
        tokio::spawn(serve_connection(
            Scope::new(),
            near,
            Peer::default(),
            Arc::clone(&handler),
        ));
        let request = b"POST /devices/query HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}";

        far.write_all(request).await.unwrap();
        handler.begun.notified().await;
        drop(far);

        let ended = tokio::time::timeout(Duration::from_secs(60), handler.ended.notified());
        ended.await.expect("the future is dropped");
    }
}
