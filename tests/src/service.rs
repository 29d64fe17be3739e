//! The hub's REST interface, called as its owner.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use crate::sas::{Token, encode, part};
use crate::wire::http::{self, Answer};
use crate::wire::tls::{self, Place};

/// The version that today's SDKs ask for.
const API_VERSION: &str = "2021-04-12";

/// A caller with a service connection string.
#[derive(Clone, Debug)]
pub struct Service {
    connection_string: String,
    ca: PathBuf,
    place: Place,
    port: u16,
}

impl Service {
    /// A caller that trusts a CA, and goes to a place whatever the connection string says.
    #[must_use]
    pub const fn new(connection_string: String, ca: PathBuf, place: Place, port: u16) -> Self {
        Self {
            connection_string,
            ca,
            place,
            port,
        }
    }

    /// The connection string.
    #[must_use]
    pub fn connection_string(&self) -> &str {
        &self.connection_string
    }

    /// A token of the policy, for the whole hub.
    #[must_use]
    pub fn token(&self) -> String {
        let key = part(&self.connection_string, "SharedAccessKey");
        let policy = part(&self.connection_string, "SharedAccessKeyName");
        Token::sign(key, &encode(part(&self.connection_string, "HostName")), 3600)
            .of_policy(policy)
            .text()
    }

    /// Calls; `headers` come beside authorisation and content type. The path has no query.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Answer> {
        let token = self.token();
        let mut all = vec![
            ("Authorization", token.as_str()),
            ("Content-Type", "application/json; charset=utf-8"),
        ];
        all.extend(headers);
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        self.send(method, &format!("{path}?api-version={API_VERSION}"), &all, &body)
    }

    /// Calls with exactly these headers and this target.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let host = part(&self.connection_string, "HostName");
        let stream = tls::connect(self.place, self.port, &self.ca, None)?;
        let mut all = vec![("Host", host)];
        all.extend(headers);
        http::request(stream, method, target, &all, body)
    }

    /// Asks for another protocol on a connection, and gives the status that came; the connection is closed then.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn upgrade(&self, target: &str, headers: &[(&str, &str)]) -> Result<u16> {
        let host = part(&self.connection_string, "HostName");
        let stream = tls::connect(self.place, self.port, &self.ca, None)?;
        let mut all = vec![("Host", host)];
        all.extend(headers);
        http::status_of_get(stream, target, &all)
    }

    /// Calls and expects success.
    ///
    /// # Panics
    /// When the answer is not 2xx; with the whole answer.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.try_call(method, path, &[], body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error:#}"));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {} {text}",
            answer.status
        );
        answer.json()
    }
}
