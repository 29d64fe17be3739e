//! Writes one blob through a container's URL that carries its own permission (SAS), in pieces.
//!
//! ```text
//! append blob   PUT ?…                     x-ms-blob-type: AppendBlob, empty     one request for each piece after it:
//!               PUT ?comp=appendblock&…    x-ms-blob-condition-appendpos: bytes so far
//! block blob    PUT ?comp=block&blockid=…  a request for each piece, then PUT ?comp=blocklist
//! ```
//!
//! A piece is sent up to three times. One whose answer was lost is not appended twice: the position says that it is there.
//!
//! Source: `edge-agent.md` §2.6; the published protocol of blob storage.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holm_model::wire::percent;
use holm_net::http::client::send_over;
use holm_net::http::{Client, ClientError, body};
use holm_net::tls::HandshakeError;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use rustls::ClientConfig;

/// The version of the protocol that is spoken.
const VERSION: &str = "2019-12-12";
/// What is sent at once. A piece must arrive within [`PATIENCE`]: at 9.6 kbit/s that is this much.
pub(super) const PIECE: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a piece is sent at most; published: two retries.
const ATTEMPTS: u32 = 3;
const RETRY_WAIT: Duration = Duration::from_secs(1);
const LARGEST_ANSWER: usize = 64 * 1024;

/// Why a blob was not written.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum BlobError {
    /// No such URL.
    #[error("`sasUrl` {0}")]
    Url(&'static str),
    /// The store can't be reached. The URL is not shown: it is a key.
    #[error("the store `{host}` can't be reached")]
    Unreachable {
        /// Where.
        host: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// It refuses.
    #[error("the store `{host}` answered {status}: {answer}")]
    Refused {
        /// Where.
        host: String,
        /// The status.
        status: StatusCode,
        /// Its words.
        answer: String,
    },
}

/// A container to write into.
#[derive(Clone)]
pub(in crate::agent) struct Container {
    tls: Arc<ClientConfig>,
    has_tls: bool,
    host: String,
    port: u16,
    path: String,
    query: String,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// How pieces become a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Append,
    Block,
}

impl Container {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`BlobError::Url`].
    pub(in crate::agent) fn read(url: &str, tls: &Arc<ClientConfig>) -> Result<Self, BlobError> {
        if url.contains("$upstream") {
            return Err(BlobError::Url(
                "leads to the edge above, and nested edges are not yet supported",
            ));
        }
        let uri: Uri = url.parse().map_err(|_| BlobError::Url("is no URL"))?;
        let has_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(BlobError::Url("must begin with `https://`")),
        };
        let host = uri.host().ok_or(BlobError::Url("names no host"))?;
        let query = uri.query().ok_or(BlobError::Url(
            "carries no permission; give the URL of a container with its SAS token",
        ))?;
        Ok(Self {
            tls: Arc::clone(tls),
            has_tls,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if has_tls { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
            query: query.to_owned(),
        })
    }

    /// Begins a blob of this name.
    pub(super) async fn begin(&self, name: &str, kind: Kind, content_type: &str) -> Result<Blob<'_>, BlobError> {
        let segments: Vec<String> = name.split('/').map(percent::encode).collect();
        let blob = Blob {
            container: self,
            path: format!("{}/{}", self.path, segments.join("/")),
            kind,
            content_type: content_type.to_owned(),
            written: 0,
            blocks: Vec::new(),
        };
        if kind == Kind::Append {
            let headers = [
                ("x-ms-blob-type", "AppendBlob"),
                ("x-ms-blob-content-type", content_type),
            ];
            blob.put("", &headers, Bytes::new()).await?;
        }
        Ok(blob)
    }

    async fn send(
        &self,
        target: &str,
        headers: &[(&str, &str)],
        piece: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let authority = format!("{}:{}", self.host, self.port);
        let authority = if [443, 80].contains(&self.port) {
            self.host.clone()
        } else {
            authority
        };
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(target)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("x-ms-version", VERSION);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(piece))
            .map_err(|_| ClientError::TimedOut(Duration::ZERO))?;
        if self.has_tls {
            let client = Client::new(Arc::clone(&self.tls), &self.host, self.port);
            let (status, _, answer) = client.send(request, LARGEST_ANSWER, PATIENCE).await?;
            return Ok((status, answer));
        }
        let exchange = async {
            let stream = tokio::net::TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|source| {
                let peer = format!("{}:{}", self.host, self.port);
                ClientError::Connect(HandshakeError::Unreachable { peer, source })
            })?;
            let (head, incoming) = send_over(stream, request).await?.into_parts();
            let answer = body::read(incoming, LARGEST_ANSWER).await.map_err(ClientError::Body)?;
            Ok((head.status, answer))
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or(Err(ClientError::TimedOut(PATIENCE)))
    }
}

/// A blob that is being written.
pub(super) struct Blob<'a> {
    container: &'a Container,
    path: String,
    kind: Kind,
    content_type: String,
    written: usize,
    blocks: Vec<String>,
}

impl Blob<'_> {
    /// Writes a piece.
    pub(super) async fn write(&mut self, piece: Vec<u8>) -> Result<(), BlobError> {
        if piece.is_empty() {
            return Ok(());
        }
        let length = piece.len();
        match self.kind {
            Kind::Append => {
                let position = self.written.to_string();
                let headers = [("x-ms-blob-condition-appendpos", position.as_str())];
                self.put("comp=appendblock&", &headers, piece.into()).await?;
            }
            Kind::Block => {
                let id = STANDARD.encode(format!("{:08}", self.blocks.len()));
                let parameters = format!("comp=block&blockid={}&", percent::encode(&id));
                self.put(&parameters, &[], piece.into()).await?;
                self.blocks.push(id);
            }
        }
        self.written += length;
        Ok(())
    }

    /// Makes it whole.
    pub(super) async fn finish(self) -> Result<(), BlobError> {
        if self.kind == Kind::Append {
            return Ok(());
        }
        let blocks: String = self.blocks.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{blocks}</BlockList>");
        let headers = [("x-ms-blob-content-type", self.content_type.as_str())];
        self.put("comp=blocklist&", &headers, list.into()).await
    }

    async fn put(&self, parameters: &str, headers: &[(&str, &str)], piece: Bytes) -> Result<(), BlobError> {
        let host = || self.container.host.clone();
        let target = format!("{}?{parameters}{}", self.path, self.container.query);
        for attempt in 1..=ATTEMPTS {
            let is_last = attempt == ATTEMPTS;
            match self.container.send(&target, headers, piece.clone()).await {
                Ok((status, _)) if status.is_success() => return Ok(()),
                // An earlier attempt has arrived, though its answer has not.
                Ok((StatusCode::PRECONDITION_FAILED, _)) if attempt > 1 && self.kind == Kind::Append => return Ok(()),
                Ok((status, answer)) if is_last || !status.is_server_error() => {
                    let answer = String::from_utf8_lossy(&answer);
                    return Err(BlobError::Refused {
                        host: host(),
                        status,
                        answer: answer.chars().take(300).collect(),
                    });
                }
                Err(source) if is_last => return Err(BlobError::Unreachable { host: host(), source }),
                Ok(_) | Err(_) => tokio::time::sleep(RETRY_WAIT).await,
            }
        }
        // The last attempt returns above.
        Ok(())
    }
}
