//! The operator's end of a Holm hub: what a run has to set up there, and what arrives in its event log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use holm_identity::sas::resource_uri;
use holm_identity::{Credential, Roots, SasToken, ServiceConnectionString, SymmetricKey};
use holm_model::{DeviceId, Identity, Timestamp};
use holm_net::http::Client;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, IF_MATCH};
use hyper::{Method, Request};
use serde_json::Value;

/// The version of the published API.
const API_VERSION: &str = "2021-04-12";
/// How long a token is good: longer than any run.
const TOKEN_SECONDS: i64 = 24 * 3600;
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;
/// The longest line of the event log: a message of 256 KiB in base64, and its properties.
const MAX_LINE: usize = 1024 * 1024;

/// A hub, as its owner speaks to it.
#[derive(Clone)]
pub struct Service {
    client: Client,
    token: String,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("host", &self.client.host())
            .finish_non_exhaustive()
    }
}

impl Service {
    /// The owner's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// For the hub of a service connection string, at a port of its own, trusting its `ca.pem`.
    ///
    /// # Errors
    /// The connection string has no key, or the file no certificate.
    pub fn new(connection_string: &str, port: u16, ca: &Path) -> Result<Self> {
        let connection = ServiceConnectionString::parse(connection_string.trim())?;
        let Credential::Key { key, policy } = &connection.credential else {
            bail!("the connection string has no key");
        };
        let token = SasToken::sign(&connection.host_name, expiry(), policy.as_deref(), key);
        let tls = holm_identity::tls::client_config(Roots::none().with_file(ca)?, None)?;
        Ok(Self {
            client: Client::new(Arc::new(tls), connection.host_name, port),
            token: token.to_text().expose().to_owned(),
        })
    }

    /// The same hub, as a device speaks to it: what the edge does for its own modules.
    #[must_use]
    pub fn as_device(&self, device: &DeviceId, key: &SymmetricKey) -> Self {
        let resource = resource_uri(self.client.host(), &Identity::of_device(device.clone()));
        let token = SasToken::sign(&resource, expiry(), None, key);
        Self {
            client: self.client.clone(),
            token: token.to_text().expose().to_owned(),
        }
    }

    /// Creates what is at a path.
    ///
    /// # Errors
    /// There is no answer, or it does not tell success: it exists, say.
    pub async fn create(&self, path: &str, body: &Value) -> Result<()> {
        self.call(Method::PUT, path, None, body).await
    }

    /// Replaces what is at a path, or for a twin changes it, whatever its version is.
    ///
    /// # Errors
    /// There is no answer, or it does not tell success.
    pub async fn change(&self, method: Method, path: &str, body: &Value) -> Result<()> {
        self.call(method, path, Some("*"), body).await
    }

    async fn call(&self, method: Method, path: &str, version: Option<&str>, body: &Value) -> Result<()> {
        let mut request = self.request(method, path, Bytes::from(body.to_string()))?;
        if let Some(version) = version {
            request.headers_mut().insert(IF_MATCH, HeaderValue::from_str(version)?);
        }
        let (status, _, answer) = self.client.send(request, MAX_ANSWER, PATIENCE).await?;
        if !status.is_success() {
            bail!(
                "the hub answered {path} with {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(())
    }

    /// Follows the event log from now on.
    ///
    /// # Errors
    /// There is no answer, or it does not tell success.
    pub async fn follow(&self) -> Result<HubEvents> {
        let path = "/holm/v1/events?from=latest&follow=true";
        let response = self.client.open(self.request(Method::GET, path, Bytes::new())?).await?;
        if !response.status().is_success() {
            bail!("the hub answered {path} with {}", response.status());
        }
        Ok(HubEvents {
            body: response.into_body(),
            pending: BytesMut::new(),
        })
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        Request::builder()
            .method(method)
            .uri(format!("{path}{separator}api-version={API_VERSION}"))
            .header("Authorization", &self.token)
            .header("Content-Type", "application/json; charset=utf-8")
            .body(Full::new(body))
            .context("the request can't be written")
    }
}

fn expiry() -> i64 {
    Timestamp::from(SystemTime::now()).unix_seconds() + TOKEN_SECONDS
}

/// The event log of a hub, as it grows.
#[derive(Debug)]
pub struct HubEvents {
    body: Incoming,
    /// What came of the next line.
    pending: BytesMut,
}

impl HubEvents {
    /// The body of the next event. Cancel-safe.
    ///
    /// # Errors
    /// The answer broke off or is not what it should be.
    pub async fn next(&mut self) -> Result<Bytes> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                if let Some(body) = body(&line)? {
                    return Ok(body);
                }
                continue;
            }
            if self.pending.len() > MAX_LINE {
                bail!("the hub sent a line of more than {MAX_LINE} bytes");
            }
            let frame = self.body.frame().await.context("the hub ended the event log")??;
            if let Some(bytes) = frame.data_ref() {
                self.pending.extend_from_slice(bytes);
            }
        }
    }
}

/// The body of an event, none for an empty line.
fn body(line: &[u8]) -> Result<Option<Bytes>> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let event: Value = serde_json::from_slice(line).context("a line of the event log is not JSON")?;
    let text = event.get("body").and_then(Value::as_str).unwrap_or_default();
    let encoding = event.get("bodyEncoding").and_then(Value::as_str);
    Ok(Some(match encoding {
        Some("base64") => Bytes::from(STANDARD.decode(text).context("a body is not base64")?),
        _ => Bytes::copy_from_slice(text.as_bytes()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    #[test]
    fn a_stamp_is_found_in_a_body_that_is_not_text_and_in_one_that_happens_to_be() {
        let stamp = |due_ns| Stamp {
            run: 1,
            publisher: 2,
            sequence: 3,
            due_ns,
        };
        let binary = STANDARD.encode(stamp(u64::MAX).payload(64));
        let line = format!("{{\"bodyEncoding\":\"base64\",\"body\":\"{binary}\"}}\n");
        let text = serde_json::json!({
            "bodyEncoding": "text",
            "body": String::from_utf8(stamp(5).payload(64).to_vec()).unwrap(),
        });

        let binary = body(line.as_bytes()).unwrap().unwrap();
        let text = body(text.to_string().as_bytes()).unwrap().unwrap();

        assert_eq!(Stamp::read(&binary), Some(stamp(u64::MAX)));
        assert_eq!(Stamp::read(&text), Some(stamp(5)));
        assert_eq!(body(b"\n").unwrap(), None);
    }
}
