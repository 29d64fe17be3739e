//! `/healthz` and `/metrics` on a local port, in plain HTTP: for whoever watches the process.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use holm_net::http::{Handler, ResponseBody, body, serve_connection};
use holm_net::{Listener, ListenerOptions, ListeningSockets, Peer, Scope};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

/// Connections to the page at once.
const MAX_CONNECTIONS: usize = 32;

/// What the page shows.
pub(crate) trait Status: Send + Sync + 'static {
    /// Whether the service does its work; if not, why.
    fn health(&self) -> Result<(), String>;
    /// The figures, in Prometheus' text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;
}

struct Page<S>(S);

impl<S: Status> Handler for Page<S> {
    async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let (status, text) = match request.uri().path() {
            "/healthz" | "/metrics" if !is_read => (
                StatusCode::METHOD_NOT_ALLOWED,
                "this page is only read: GET or HEAD\n".to_owned(),
            ),
            "/healthz" => match self.0.health() {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => (StatusCode::OK, self.0.metrics().await),
            _ => (
                StatusCode::NOT_FOUND,
                "there are `/healthz` and `/metrics`\n".to_owned(),
            ),
        };
        let mut response = Response::new(body::full(text));
        *response.status_mut() = status;
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// Opens the page's port.
pub(crate) fn bind(sockets: &ListeningSockets, address: SocketAddr) -> anyhow::Result<Listener> {
    let options = ListenerOptions {
        max_connections: MAX_CONNECTIONS,
    };
    Ok(Listener::open(sockets, address, options)?)
}

/// Serves the page until the scope stops.
pub(crate) fn serve(scope: &Scope, listener: Listener, status: impl Status) -> anyhow::Result<SocketAddr> {
    let bound = listener.local_address().context("the status page has no address")?;
    let (page, connections) = (Arc::new(Page(status)), scope.clone());
    scope.spawn_until_stopped(async move {
        loop {
            let admitted = listener.accept().await;
            let (page, scope) = (Arc::clone(&page), connections.clone());
            connections.spawn(async move {
                let _permit = admitted.permit;
                let peer = Peer {
                    address: Some(admitted.peer),
                    ..Peer::default()
                };
                serve_connection(scope, admitted.stream, peer, page).await;
            });
        }
    });
    Ok(bound)
}
