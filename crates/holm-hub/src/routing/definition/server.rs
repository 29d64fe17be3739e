//! What settings say of a server that messages go to: the same for all kinds that reach one over a network.

use std::time::Duration;

use holm_identity::Secret;
use hyper::Uri;
use serde_json::{Value, json};

use super::settings::{LONGEST_PEM, LONGEST_TEXT};
use super::{DefinitionError, Members};

/// The most bytes of an address.
const LONGEST_URL: usize = 2048;

/// A server, and how long is waited for it.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Its address, without user and password: it is shown.
    pub url: String,
    /// Who may have signed its certificate, instead of those that the system trusts; PEM.
    pub ca: Option<String>,
    /// How long it may take to let us in, and to answer or acknowledge; 1 to 300 s, default 30 s.
    pub timeout: Duration,
}

/// A server that asks who we are, and acknowledges messages one by one.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Where it is.
    pub server: ServerSettings,
    /// Who logs in.
    pub user: Option<String>,
    /// And how.
    pub password: Option<Secret>,
    /// The certificate that is shown to it, with its chain; PEM.
    pub client_certificate: Option<String>,
    /// Its key; PEM.
    pub client_key: Option<Secret>,
    /// The most messages that wait for their acknowledgement at once; 1 to 1000. Some brokers hold few.
    pub max_in_flight: u16,
}

impl ServerSettings {
    /// Takes the members; `url` must have one of the schemes.
    pub(super) fn read(members: &mut Members, schemes: &[&str]) -> Result<Self, DefinitionError> {
        Ok(Self {
            url: url(members, schemes)?,
            ca: members.text("ca", LONGEST_PEM)?,
            timeout: members
                .seconds("timeoutSeconds", 1..=300)?
                .unwrap_or(Duration::from_secs(30)),
        })
    }

    pub(super) fn write(&self) -> Value {
        json!({
            "url": self.url,
            "ca": self.ca,
            "timeoutSeconds": self.timeout.as_secs(),
        })
    }
}

impl BrokerSettings {
    /// Takes the members; `in_flight` messages may be on their way if nothing is said.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub(in crate::routing) fn read(
        members: &mut Members,
        schemes: &[&str],
        in_flight: u16,
    ) -> Result<Self, DefinitionError> {
        let max_in_flight = members.number("maxInFlight", 1..=1000)?;
        let settings = Self {
            server: ServerSettings::read(members, schemes)?,
            user: members.text("user", LONGEST_TEXT)?,
            password: members.secret("password")?,
            client_certificate: members.text("clientCertificate", LONGEST_PEM)?,
            client_key: members.secret("clientKey")?,
            max_in_flight: max_in_flight.map_or(in_flight, |given| u16::try_from(given).unwrap_or(u16::MAX)),
        };
        if settings.password.is_some() && settings.user.is_none() {
            // MQTT-3.1.2-22; NATS looks for the user first.
            return Err(DefinitionError::new("user", "is missing; a password needs one"));
        }
        Ok(settings)
    }

    /// The members that only brokers have, without secrets.
    pub(super) fn write(&self) -> Value {
        json!({
            "user": self.user,
            "clientCertificate": self.client_certificate,
            "maxInFlight": self.max_in_flight,
        })
    }

    pub(super) const fn secrets(&self) -> [(&'static str, &Option<Secret>); 2] {
        [("password", &self.password), ("clientKey", &self.client_key)]
    }
}

/// An address with a host and one of the schemes; nobody's password in it, since it is shown.
fn url(members: &mut Members, schemes: &[&str]) -> Result<String, DefinitionError> {
    let text = members.required_text("url", LONGEST_URL)?;
    let wrong = |text: String| DefinitionError::new("url", text);
    let uri: Uri = text.parse().map_err(|error| wrong(format!("is no address: {error}")))?;
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("has no host".to_owned()))?;
    if !schemes.iter().any(|scheme| uri.scheme_str() == Some(scheme)) {
        return Err(wrong(format!("must begin with {}://", schemes.join(":// or "))));
    }
    if authority.as_str().contains('@') {
        return Err(wrong(
            "has a user or password; give them as members of their own".to_owned(),
        ));
    }
    Ok(text)
}
