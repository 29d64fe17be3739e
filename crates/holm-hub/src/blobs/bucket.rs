//! Files of the blob store as objects in a bucket of an S3-compatible store.
//!
//! Requests are signed in their address and sent by the HTTP client that everything else uses; a connection serves one request. The
//! bucket is named in the path, which every such store understands. Devices never speak with it: they know the published blob
//! interface alone, so the hub stays in between.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_identity::Roots;
use holm_identity::tls::client_config;
use holm_net::http::{Client, ResponseBody, body};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use rusty_s3::actions::{ListObjectsV2, S3Action};
use rusty_s3::{Bucket as Signer, Credentials, UrlStyle};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::away::{Away, AwayError, Doing};
use crate::config::S3Config;

/// How long the signature of a request is good: as long as a body may take.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// How long the store may take to answer, once it has the request.
const ANSWER: Duration = Duration::from_secs(60);
/// What is read of a list, and of an error.
const MAX_DOCUMENT: usize = 4 * 1024 * 1024;
/// What is read from disk at a time.
const PIECE: usize = 64 * 1024;

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    signer: Signer,
    credentials: Credentials,
    client: Client,
    host: String,
    prefix: String,
}

impl Bucket {
    /// The bucket of a configuration; nothing is asked of it yet.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(super) fn open(config: &S3Config) -> Result<Self, String> {
        let endpoint = &config.endpoint;
        let wrong = |why: String| format!("`{endpoint}` is no address of a store: {why}");
        let url = endpoint.parse().map_err(|error| wrong(format!("{error}")))?;
        let (name, region) = (config.bucket.clone(), config.region.clone());
        let signer = Signer::new(url, UrlStyle::Path, name, region).map_err(|error| wrong(error.to_string()))?;
        let credentials = Credentials::new(config.access_key.clone(), config.secret_key.expose());
        let base = signer.base_url();
        let host = base.host_str().ok_or_else(|| wrong("it has no host".to_owned()))?;
        let client = if base.scheme() == "https" {
            let system = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
            let roots = Roots::none().with_system(system.as_deref());
            let tls = roots.and_then(|roots| client_config(roots, None));
            let tls =
                tls.map_err(|error| format!("TLS to `{endpoint}` can't be set up: {}", holm_net::error_chain(&error)))?;
            Client::new(Arc::new(tls), host, base.port().unwrap_or(443))
        } else {
            Client::plain(host, base.port().unwrap_or(80))
        };
        // As it is signed: with the port where it is not the usual one.
        let host = base
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self {
            signer,
            credentials,
            client,
            host,
            prefix: config.prefix.clone(),
        })
    }

    fn object(&self, file: &str) -> String {
        format!("{}{file}", self.prefix)
    }

    fn request<'a>(&self, method: Method, action: &impl S3Action<'a>) -> hyper::http::request::Builder {
        let url = action.sign(SIGNED_FOR);
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        Request::builder().method(method).uri(target).header(HOST, &self.host)
    }

    async fn send(&self, request: hyper::http::Result<Request<ResponseBody>>) -> Result<Response<Incoming>, AwayError> {
        let request = request.map_err(|error| AwayError(error.to_string()))?;
        let answer = self.client.open(request).await;
        let answer = answer.map_err(|error| AwayError(holm_net::error_chain(&error)))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = body::read(answer.into_body(), MAX_DOCUMENT).await.unwrap_or_default();
        let text: String = String::from_utf8_lossy(&text).chars().take(400).collect();
        Err(AwayError(format!("the bucket answers {status}: {text}")))
    }

    async fn store(&self, file: &str, path: &Path, size: u64) -> Result<(), AwayError> {
        let object = self.object(file);
        let action = self.signer.put_object(Some(&self.credentials), &object);
        let content = File::open(path).await.map_err(|error| AwayError(error.to_string()))?;
        let (pieces, body) = mpsc::channel(2);
        let request = self
            .request(Method::PUT, &action)
            .header(CONTENT_LENGTH, size)
            .body(body::streamed(body));
        let (sent, ()) = tokio::join!(
            tokio::time::timeout(SIGNED_FOR, self.send(request)),
            read_into(content, pieces)
        );
        sent.unwrap_or_else(|_| Err(late())).map(drop)
    }

    async fn list(&self) -> Result<Vec<String>, AwayError> {
        let (mut names, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut action = self.signer.list_objects_v2(Some(&self.credentials));
            if !self.prefix.is_empty() {
                action.with_prefix(self.prefix.clone());
            }
            if let Some(token) = next {
                action.with_continuation_token(token);
            }
            let answer = within(self.send(self.request(Method::GET, &action).body(body::empty()))).await?;
            let document = body::read(answer.into_body(), MAX_DOCUMENT).await;
            let document = document.map_err(|error| AwayError(error.to_string()))?;
            let page = ListObjectsV2::parse_response(&String::from_utf8_lossy(&document));
            let page = page.map_err(|error| AwayError(format!("the list of the bucket can't be read: {error}")))?;
            let files = page
                .contents
                .iter()
                .filter_map(|object| object.key.strip_prefix(&self.prefix));
            names.extend(files.map(str::to_owned));
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(names);
            }
        }
    }
}

impl Away for Bucket {
    fn put<'a>(&'a self, file: &'a str, path: &'a Path, size: u64) -> Doing<'a, ()> {
        Box::pin(self.store(file, path, size))
    }

    fn read<'a>(&'a self, file: &'a str, from: u64, length: u64) -> Doing<'a, ResponseBody> {
        Box::pin(async move {
            let object = self.object(file);
            let action = self.signer.get_object(Some(&self.credentials), &object);
            let last = from + length.saturating_sub(1);
            let request = self
                .request(Method::GET, &action)
                .header(RANGE, format!("bytes={from}-{last}"))
                .body(body::empty());
            let answer = within(self.send(request)).await?;
            if answer.status() != StatusCode::PARTIAL_CONTENT {
                return Err(AwayError(format!(
                    "the bucket answers a range with {}",
                    answer.status()
                )));
            }
            Ok(answer.into_body().map_err(io::Error::other).boxed_unsync())
        })
    }

    fn remove<'a>(&'a self, file: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            let object = self.object(file);
            let action = self.signer.delete_object(Some(&self.credentials), &object);
            let request = self.request(Method::DELETE, &action).body(body::empty());
            within(self.send(request)).await.map(drop)
        })
    }

    fn names(&self) -> Doing<'_, Vec<String>> {
        Box::pin(self.list())
    }
}

async fn within<T>(doing: impl Future<Output = Result<T, AwayError>>) -> Result<T, AwayError> {
    tokio::time::timeout(ANSWER, doing)
        .await
        .unwrap_or_else(|_| Err(late()))
}

fn late() -> AwayError {
    AwayError("the bucket did not answer in time".to_owned())
}

/// Reads a file piece by piece until its end, an error, or the reader's.
async fn read_into(mut file: File, pieces: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let piece = match file.read_buf(&mut piece).await {
            Ok(0) => return,
            Ok(_) => Ok(piece.into()),
            Err(error) => Err(error),
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}
