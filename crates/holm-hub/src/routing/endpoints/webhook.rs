//! Messages as requests to an HTTP server.
//!
//! ```text
//! a batch        POST url   Content-Type: application/json; charset=utf-8
//!                [{"EnqueuedTimeUtc": "…", "Properties": {…}, "SystemProperties": {…}, "Body": JSON | "base64"}, …]
//! or a message   POST url   Content-Type: what the message says     its body as it is; properties as headers `iothub-app-NAME`,
//!                `iothub-SYSTEM-PROPERTY`
//! each           Holm-Endpoint-Sequence: FIRST-LAST, Authorization: Bearer TOKEN, Holm-Signature: sha256=HEX
//!
//! 2xx                              taken
//! 400, 413, 415, 422               it can never be taken: a batch is sent again in halves, until the one message is found
//! anything else, or no answer      not now (`Retry-After` counts)
//! ```
//!
//! The shape of a batch is the one in which the original writes messages to storage: the body of a message that says that it is JSON in
//! UTF-8 stands as JSON, any other in base64. The signature is HMAC-SHA256 over the time in `Holm-Time`, a dot, and the body, so that
//! a receiver can refuse what is old. A connection serves one request, as everywhere where Holm asks over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holm_model::{SystemProperty, hex};
use holm_net::http::Client;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};

use super::address::trusting;
use super::record;
use crate::Clock;
use crate::routing::definition::{DefinitionError, ServerSettings, WebhookSettings};
use crate::routing::endpoint::{Endpoint, Limits, Routed, SendError, Surroundings};

/// The most bytes of an answer that are read; nothing in it counts but what is said about errors.
const MAX_ANSWER: usize = 64 * 1024;
/// The most characters of an answer that are shown to operators.
const SHOWN: usize = 200;

/// An HTTP server that takes messages.
#[derive(Debug)]
pub(super) struct Webhook {
    client: Client,
    target: String,
    url: String,
    per_message: bool,
    headers: HeaderMap,
    hmac: Option<ring::hmac::Key>,
    timeout: Duration,
    max_messages: usize,
    clock: Clock,
}

impl Webhook {
    /// Makes the endpoint; no connection is made yet.
    ///
    /// # Errors
    /// [`DefinitionError`] for certificates that can't be read.
    pub(super) fn new(settings: &WebhookSettings, surroundings: &Surroundings) -> Result<Self, DefinitionError> {
        let (client, target) = client(&settings.server)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
                return Err(DefinitionError::new("headers", format!("`{name}` can't be sent")));
            };
            headers.insert(name, value);
        }
        if let Some(token) = &settings.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| DefinitionError::new("token", "has signs that no header can have"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let key = settings.hmac_key.as_ref();
        Ok(Self {
            client,
            target,
            url: settings.server.url.clone(),
            per_message: settings.per_message,
            headers,
            hmac: key.map(|key| ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.expose().as_bytes())),
            timeout: settings.server.timeout,
            max_messages: usize::try_from(settings.max_messages).unwrap_or(usize::MAX),
            clock: surroundings.clock.clone(),
        })
    }

    async fn deliver(&self, batch: &[Routed]) -> Result<(), SendError> {
        // How many at once: all, until a request is refused for what it holds.
        let mut size = if self.per_message { 1 } else { batch.len() };
        let mut delivered = 0;
        while let Some(left) = batch.get(delivered..).filter(|left| !left.is_empty()) {
            let part = left.get(..size.min(left.len())).unwrap_or(left);
            match self.request(part).await {
                Outcome::Taken => delivered += part.len(),
                Outcome::Refused(why) if part.len() == 1 => {
                    return Err(SendError::Never { index: delivered, why });
                }
                Outcome::Refused(_) => size = part.len().div_ceil(2),
                Outcome::Later(why, after) => {
                    return Err(SendError::Later { delivered, after, why });
                }
            }
        }
        Ok(())
    }

    async fn request(&self, part: &[Routed]) -> Outcome {
        let request = match (part, self.per_message) {
            ([routed], true) => single(routed),
            _ => together(part),
        };
        let request = request.and_then(|(headers, body)| self.signed(part, headers, body));
        let request = match request {
            Ok(request) => request,
            Err(why) => return Outcome::Refused(why),
        };
        match self.client.send(request, MAX_ANSWER, self.timeout).await {
            Err(error) => Outcome::Later(holm_net::error_chain(&error), None),
            Ok((status, headers, body)) => judged(status, &headers, &body),
        }
    }

    fn signed(&self, part: &[Routed], mut headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let time = self.clock.now().to_string();
        if let (Some(first), Some(last)) = (part.first(), part.last()) {
            let range = format!("{}-{}", first.sequence, last.sequence);
            headers.insert("holm-endpoint-sequence", header(&range)?);
        }
        headers.insert("holm-time", header(&time)?);
        if let Some(key) = &self.hmac {
            let mut context = ring::hmac::Context::with_key(key);
            context.update(time.as_bytes());
            context.update(b".");
            context.update(&body);
            let signature = hex::encode(context.sign().as_ref());
            headers.insert("holm-signature", header(&format!("sha256={signature}"))?);
        }
        headers.extend(self.headers.clone());
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.target)
            .body(Full::new(body));
        let mut request = request.map_err(|error| format!("the request can't be made: {error}"))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    Refused(String),
    Later(String, Option<Duration>),
}

/// Which answers say that the same request can never be taken. Those about who asks (401, 403, 404, 405) can be put right at either
/// end, and messages wait for it.
fn judged(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Outcome {
    if status.is_success() {
        return Outcome::Taken;
    }
    let text = String::from_utf8_lossy(body);
    let shown: String = text.trim().chars().take(SHOWN).collect();
    let why = match shown.is_empty() {
        true => format!("the server answered {status}"),
        false => format!("the server answered {status}: {shown}"),
    };
    match status {
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Outcome::Refused(why),
        _ => {
            let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let after = after.and_then(|seconds| seconds.trim().parse().ok());
            Outcome::Later(why, after.map(Duration::from_secs))
        }
    }
}

impl Endpoint for Webhook {
    fn send<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(self.deliver(batch))
    }

    fn limits(&self) -> Limits {
        Limits {
            messages: self.max_messages,
            ..Limits::USUAL
        }
    }

    fn describe(&self) -> String {
        format!("POST {}", self.url)
    }
}

fn client(server: &ServerSettings) -> Result<(Client, String), DefinitionError> {
    let wrong = || DefinitionError::new("url", "is no address of a web server");
    let uri: Uri = server.url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    if uri.scheme_str() == Some("http") {
        return Ok((Client::plain(host, uri.port_u16().unwrap_or(80)), target));
    }
    let tls = trusting(server.ca.as_deref(), None)?;
    Ok((Client::new(Arc::new(tls), host, uri.port_u16().unwrap_or(443)), target))
}

fn header(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("`{text}` can't be sent as a header"))
}

/// A request for many messages.
fn together(part: &[Routed]) -> Result<(HeaderMap, Bytes), String> {
    let records: Result<Vec<_>, _> = part.iter().map(record::to_line).collect();
    let records = records.map_err(|error| format!("the message can't be written as JSON: {error}"))?;
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    let body = [b"[".as_slice(), &records.join(&b','), b"]"].concat();
    Ok((headers, body.into()))
}

/// A request for one message: properties that no header can hold are left out of the headers, since the body is what counts.
fn single(routed: &Routed) -> Result<(HeaderMap, Bytes), String> {
    let mut headers = HeaderMap::new();
    let said = routed
        .system(SystemProperty::ContentType)
        .unwrap_or("application/octet-stream");
    headers.insert(CONTENT_TYPE, header(said)?);
    let system = record::system_properties(&routed.message.system);
    let system = system.map(|(name, value)| (system_header(name), value));
    let application = routed.message.properties.iter();
    let application = application.map(|(name, value)| (format!("iothub-app-{name}"), value.unwrap_or_default()));
    for (name, value) in system.chain(application) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    Ok((headers, routed.message.body.clone()))
}

/// `iothub-contenttype`; a name that begins so by itself stays as it is.
fn system_header(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.starts_with("iothub-") {
        true => name,
        false => format!("iothub-{name}"),
    }
}
