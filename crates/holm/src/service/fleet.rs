//! What commands on a whole fleet need of a hub besides: the program for devices does without them.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use holm_client::Credential as ClientCredential;
use holm_client::credential::KeyTokens;
use holm_identity::SymmetricKey;
use holm_identity::connection_string::Credential;
use holm_model::Identity;
use hyper::Method;
use rustls::ClientConfig;
use serde_json::Value;

use super::{MAX_ANSWER, PATIENCE, Refused, Service};

impl Service {
    /// The hub's host name as its connection strings have it, with the port where that is not the published one.
    pub(crate) fn full_host(&self) -> &str {
        &self.connection.host_name
    }

    /// Whom it trusts.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// With what an identity of this hub proves itself: its key, or that of the policy. `None` where there is no key.
    pub(crate) fn tokens_of(&self, identity: &Identity, key: Option<&SymmetricKey>) -> Option<ClientCredential> {
        let tokens = match (key, &self.connection.credential) {
            (Some(key), _) => KeyTokens::new(key.clone(), self.host(), identity),
            (None, Credential::Key { key, policy }) => {
                KeyTokens::new(key.clone(), self.host(), identity).of_policy(policy.clone())
            }
            (None, Credential::Token(_) | Credential::Certificate) => return None,
        };
        Some(ClientCredential::Tokens(Arc::new(tokens)))
    }

    /// Asks for a page of a list by POST; also gives what asks for the next one, if there is one.
    pub(crate) async fn page(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<(Value, Option<String>)> {
        let (_, told, bytes) = self.exchange(Method::POST, path, headers).await?;
        let next = told.get("x-ms-continuation").and_then(|value| value.to_str().ok());
        let page = serde_json::from_slice(&bytes).context("the hub's answer is not JSON")?;
        Ok((page, next.map(str::to_owned)))
    }

    /// Changes many identities at once; gives what was not done of it.
    pub(crate) async fn bulk(&self, items: &Value) -> anyhow::Result<Vec<Value>> {
        let body = Bytes::from(items.to_string());
        let request = self.request(Method::POST, "/devices", &[], "application/json; charset=utf-8", body)?;
        let answer = self.client.send(request, MAX_ANSWER, PATIENCE).await;
        let (status, _, bytes) = answer.map_err(|error| self.unreached(error))?;
        // What failed in part is told in the same form as what did not.
        let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match told.get("errors") {
            Some(Value::Array(errors)) => Ok(errors.clone()),
            _ => bail!(Refused::new(status, &bytes)),
        }
    }

    /// Stores bytes.
    pub(crate) async fn put_bytes(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> anyhow::Result<()> {
        self.send_bytes(Method::PUT, path, headers, body).await
    }
}
