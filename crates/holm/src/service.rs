//! The operator's end of a hub's service API: a connection string, a token, a request, an answer or an error in words.

#[cfg(feature = "hub")]
mod fleet;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use holm_identity::connection_string::Credential;
use holm_identity::tls::{Roots, client_config};
use holm_identity::{SasToken, ServiceConnectionString};
use holm_model::Timestamp;
use holm_net::http::Client;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
#[cfg(feature = "hub")]
use rustls::ClientConfig;
use serde_json::Value;

/// The version of the published API that is spoken.
const API_VERSION: &str = "2021-04-12";
/// How long a token made here is valid, in seconds.
const TOKEN_SECONDS: i64 = 600;
/// The largest answer that is read: a page of a thousand twins.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How long an answer may take: the longest method call, and the way there and back.
const PATIENCE: Duration = Duration::from_secs(620);

/// A hub, as seen by an operator.
#[derive(Debug)]
pub(crate) struct Service {
    connection: ServiceConnectionString,
    #[cfg(feature = "hub")]
    tls: Arc<ClientConfig>,
    client: Client,
}

/// An answer of the hub.
#[derive(Debug)]
pub(crate) struct Answer {
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "queries read it"))]
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    /// For the hub of a connection string, trusting the system's authorities and those in `ca_file`. A host name may carry
    /// a port (`localhost:8443`), where the published 443 is taken.
    pub(crate) fn new(text: &str, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let connection =
            ServiceConnectionString::parse(text.trim()).context("the hub's connection string is unusable")?;
        let system = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
        let mut roots = Roots::none()
            .with_system(system.as_deref())
            .context("the system's authorities can't be read")?;
        if let Some(file) = ca_file {
            roots = roots
                .with_file(file)
                .with_context(|| format!("`{}` can't be read", file.display()))?;
        }
        let tls = client_config(roots, None).context("TLS can't be set up")?;
        let (host, port) = split_port(&connection.host_name);
        let tls = Arc::new(tls);
        let client = Client::new(Arc::clone(&tls), host, port);
        Ok(Self {
            connection,
            #[cfg(feature = "hub")]
            tls,
            client,
        })
    }

    /// The hub's host name.
    pub(crate) fn host(&self) -> &str {
        self.client.host()
    }

    /// Sends a request with a JSON body, and reads a JSON answer (`Null` for none).
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = self.request(method, path, headers, "application/json; charset=utf-8", body)?;
        let (status, headers, bytes) = self
            .client
            .send(request, MAX_ANSWER, PATIENCE)
            .await
            .map_err(|error| self.unreached(error))?;
        if !status.is_success() {
            bail!(Refused::new(status, &bytes));
        }
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).context("the hub's answer is not JSON")?
        };
        Ok(Answer { headers, body })
    }

    /// Makes what is not there yet. Where the hub says that it is, what it adds is for programs ("send `If-Match`"): people are told what
    /// is there, `what`, and the commands that go on from it, `way_out`.
    pub(crate) async fn create(&self, path: &str, body: &Value, what: &str, way_out: &str) -> anyhow::Result<Value> {
        let made = self.call(Method::PUT, path, &[], Some(body)).await;
        made.map(|made| made.body).map_err(|error| match error.downcast_ref() {
            Some(Refused {
                status: StatusCode::CONFLICT,
                ..
            }) => anyhow!("{what} is there already; {way_out}"),
            _ => error,
        })
    }

    /// Sends a request whose answer comes piece by piece.
    pub(crate) async fn open(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let request = self.request(Method::GET, path, &[], "application/json", Bytes::new())?;
        let response = self.client.open(request).await.map_err(|error| self.unreached(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = holm_net::http::body::read(response.into_body(), MAX_ANSWER)
            .await
            .context("the hub's answer broke off")?;
        bail!(Refused::new(status, &bytes))
    }

    /// Sends a request without a body, and gives what came with success: status, headers, bytes.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(StatusCode, HeaderMap, Bytes)> {
        let request = self.request(method, path, headers, "application/json", Bytes::new())?;
        let answer = self.client.send(request, MAX_ANSWER, PATIENCE).await;
        let (status, headers, bytes) = answer.map_err(|error| self.unreached(error))?;
        if !status.is_success() {
            bail!(Refused::new(status, &bytes));
        }
        Ok((status, headers, bytes))
    }

    /// Sends bytes with headers of the caller's.
    pub(crate) async fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> anyhow::Result<()> {
        self.send_bytes(Method::POST, path, headers, body).await
    }

    async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<()> {
        let request = self.request(method, path, headers, "application/octet-stream", body)?;
        let (status, _, bytes) = self
            .client
            .send(request, MAX_ANSWER, PATIENCE)
            .await
            .map_err(|error| self.unreached(error))?;
        if status.is_success() {
            Ok(())
        } else {
            bail!(Refused::new(status, &bytes))
        }
    }

    /// The error for a hub that can't be reached, with the way out where it is known.
    fn unreached(&self, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
        let told = format!("the hub `{}` can't be reached", self.connection.host_name);
        unreached(told, error)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}{separator}api-version={API_VERSION}"))
            .header("Authorization", self.token())
            .header("Content-Type", content_type)
            .header("User-Agent", concat!("holm/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).context("the request has no form in HTTP")
    }

    fn token(&self) -> String {
        match &self.connection.credential {
            Credential::Token(token) => token.expose().to_owned(),
            Credential::Key { key, policy } => {
                let expiry = Timestamp::from(SystemTime::now()).unix_seconds() + TOKEN_SECONDS;
                SasToken::sign(self.client.host(), expiry, policy.as_deref(), key)
                    .to_text()
                    .expose()
                    .to_owned()
            }
            Credential::Certificate => String::new(),
        }
    }
}

fn split_port(host: &str) -> (String, u16) {
    match host.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) if !name.contains(':') => (name.to_owned(), port),
        _ => (host.to_owned(), 443),
    }
}

/// What the hub did not do.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    text: String,
}

impl Refused {
    fn new(status: StatusCode, body: &[u8]) -> Self {
        let text = refusal(status, body);
        Self { status, text }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

/// An error of the hub, in one line for people: its text and the code that programs know.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = parsed.get("Message").and_then(Value::as_str).unwrap_or_default();
    if let (Some(code), Some(text)) = (parsed.get("errorCode"), parsed.get("message").and_then(Value::as_str)) {
        return format!("{text} ({code}, HTTP {})", status.as_u16());
    }
    if let Ok(inner) = serde_json::from_str::<Value>(message)
        && let Some(text) = inner.get("message").and_then(Value::as_str)
    {
        return format!("{text} ({}, HTTP {})", inner["errorCode"], status.as_u16());
    }
    if let Some(text) = xml_message(body) {
        return format!("{text} (HTTP {})", status.as_u16());
    }
    match message.strip_prefix("ErrorCode:").and_then(|rest| rest.split_once(';')) {
        Some((code, text)) => format!("{text} ({code}, HTTP {})", status.as_u16()),
        None if message.is_empty() => format!("{} (HTTP {})", String::from_utf8_lossy(body), status.as_u16()),
        None => format!("{message} (HTTP {})", status.as_u16()),
    }
}

/// The text of an error as the blob store writes it, without what follows for its logs.
fn xml_message(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.strip_prefix("<?xml")?;
    let (_, rest) = text.split_once("<Message>")?;
    let (message, _) = rest.split_once('\n')?;
    Some(message.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

fn unreached(told: String, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let why = holm_net::error_chain(&error);
    if why.contains("UnknownIssuer") {
        return anyhow!("{told}: {why}; give its authority, `ca.pem` in its data directory, by `--ca` or HOLM_CA");
    }
    anyhow::Error::new(error).context(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_error_is_shown_as_its_text_and_code() {
        let body = br#"{"Message":"ErrorCode:DeviceNotFound;device `d` is not registered","ExceptionMessage":"x"}"#;

        assert_eq!(
            refusal(StatusCode::NOT_FOUND, body),
            "device `d` is not registered (DeviceNotFound, HTTP 404)"
        );
    }

    #[test]
    fn a_nested_error_is_shown_by_its_inner_text() {
        let body = br#"{"Message":"{\"errorCode\":404103,\"message\":\"Timed out\"}","ExceptionMessage":""}"#;

        assert_eq!(refusal(StatusCode::NOT_FOUND, body), "Timed out (404103, HTTP 404)");
    }

    #[test]
    fn a_hub_whose_authority_is_not_known_comes_with_the_way_out() {
        let shown = |why: &str| {
            format!(
                "{:#}",
                unreached("no hub".to_owned(), std::io::Error::other(why.to_owned()))
            )
        };

        let unknown = shown("invalid peer certificate: UnknownIssuer");

        assert!(
            unknown.starts_with("no hub: ") && unknown.ends_with("by `--ca` or HOLM_CA"),
            "{unknown}"
        );
        assert_eq!(shown("refused"), "no hub: refused");
    }

    #[test]
    fn a_port_in_the_host_name_is_taken() {
        assert_eq!(split_port("localhost:8443"), ("localhost".into(), 8443));
        assert_eq!(split_port("hub.test"), ("hub.test".into(), 443));
    }
}
