//! Sends the figures of `/metrics` to a collector of OpenTelemetry: OTLP over HTTP, in JSON.
//!
//! ```text
//!   every interval: figures ──otlp.rs──> JSON ──POST {endpoint}/v1/metrics──> collector
//! ```
//!
//! - Counters are sent as they stand since the start (cumulative), so a report that does not arrive costs nothing but itself, and
//!   nothing is kept for a collector that is away.
//! - One request at a time, with a deadline: a collector that hangs holds nothing up.
//! - What goes wrong is told once, and that it is over, too.
//!
//! Source: OTLP 1.x, "OTLP/HTTP" and "JSON Protobuf Encoding".

mod otlp;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holm_net::error_chain;
use holm_net::http::client::send_over;
use holm_net::http::{Client, body};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use crate::config::{Otel, OtelEndpoint};
use crate::metrics::EdgeMetrics;

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read; it says little.
const MAX_ANSWER: usize = 64 * 1024;
/// The most of an answer that is shown.
const MAX_SHOWN: usize = 200;

/// Why a report did not arrive.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("no connection to `{0}`")]
    Connect(String, #[source] std::io::Error),
    #[error("the request has no form in HTTP")]
    Form(#[source] hyper::http::Error),
    #[error("the collector did not answer")]
    Http(#[source] holm_net::http::ClientError),
    #[error("the collector's answer broke off")]
    Body(#[source] body::BodyError),
    #[error("the collector did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    #[error("the collector refused it with status {0}: {1}")]
    Refused(StatusCode, String),
}

/// Sends for ever.
pub(crate) async fn run(otel: Otel, metrics: EdgeMetrics, tls: Arc<ClientConfig>) {
    let began = SystemTime::now();
    let mut is_told = false;
    let mut ticks = tokio::time::interval(otel.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let figures = metrics.read().await.into_figures();
        let report = otlp::report(&figures, &resource(&metrics), (began, SystemTime::now()));
        match send(&otel.endpoint, &tls, report.to_string().into()).await {
            Ok(()) if is_told => {
                is_told = false;
                tracing::info!("figures reach the collector again");
            }
            Ok(()) => {}
            Err(error) if is_told => {
                tracing::debug!(error = %error_chain(&error), "figures do not reach the collector")
            }
            Err(error) => {
                is_told = true;
                tracing::warn!(error = %error_chain(&error), "figures do not reach the collector; it is tried again");
            }
        }
    }
}

/// Who reports, in the names of OpenTelemetry's semantic conventions where they have one.
fn resource(metrics: &EdgeMetrics) -> [(&'static str, String); 5] {
    let labels = metrics.labels();
    [
        ("service.name", "holm-edge".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", labels.instance.clone()),
        ("device.id", labels.device.clone()),
        ("holm.hub", labels.hub.clone()),
    ]
}

async fn send(to: &OtelEndpoint, tls: &Arc<ClientConfig>, report: Bytes) -> Result<(), SendError> {
    let exchange = async {
        let authority = if to.host.contains(':') {
            format!("[{}]:{}", to.host, to.port)
        } else {
            format!("{}:{}", to.host, to.port)
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/v1/metrics", to.path))
            .header(HOST, &authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(report))
            .map_err(SendError::Form)?;
        let answer = if to.is_tls {
            let client = Client::new(Arc::clone(tls), &to.host, to.port);
            client.open(request).await.map_err(SendError::Http)?
        } else {
            let stream = TcpStream::connect((to.host.as_str(), to.port)).await;
            let stream = stream.map_err(|error| SendError::Connect(authority, error))?;
            send_over(stream, request).await.map_err(SendError::Http)?
        };
        let status = answer.status();
        let said = body::read(answer.into_body(), MAX_ANSWER)
            .await
            .map_err(SendError::Body)?;
        if status.is_success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let end = said.floor_char_boundary(MAX_SHOWN);
        Err(SendError::Refused(
            status,
            said.get(..end).unwrap_or_default().to_owned(),
        ))
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or(Err(SendError::TimedOut))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn tls() -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let roots = rustls::RootCertStore::empty();
        Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
    }

    /// A collector that answers one request with a status, and gives what it was sent.
    async fn collector(status: &'static str) -> (OtelEndpoint, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/tenant", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"{\"a\":1}") {
                stream.read_buf(&mut got).await.unwrap();
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(got).unwrap()
        });
        (endpoint.parse().unwrap(), task)
    }

    #[tokio::test]
    async fn a_report_is_posted_to_the_published_path_as_json() {
        let (endpoint, got) = collector("200 OK").await;

        send(&endpoint, &tls(), Bytes::from_static(b"{\"a\":1}")).await.unwrap();

        let got = got.await.unwrap().to_lowercase();
        assert!(got.starts_with("post /tenant/v1/metrics http/1.1\r\n"), "{got}");
        assert!(got.contains("content-type: application/json"), "{got}");
        assert!(got.contains(&format!("host: 127.0.0.1:{}", endpoint.port)), "{got}");
    }

    #[tokio::test]
    async fn what_a_collector_refuses_is_told_and_one_that_is_away_is_no_harm() {
        let (endpoint, got) = collector("400 Bad Request").await;

        let refused = send(&endpoint, &tls(), Bytes::from_static(b"{\"a\":1}"))
            .await
            .unwrap_err();
        got.await.unwrap();
        let away = send(&endpoint, &tls(), Bytes::from_static(b"{}")).await.unwrap_err();

        assert!(
            matches!(refused, SendError::Refused(StatusCode::BAD_REQUEST, _)),
            "{refused}"
        );
        assert!(matches!(away, SendError::Connect(..)), "{away}");
    }
}
