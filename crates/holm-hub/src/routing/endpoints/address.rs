//! A server that messages go to: host, port, and TLS where its address asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use holm_identity::tls::client_config;
use holm_identity::{Roots, TlsIdentity};
use holm_net::{Dialer, Stream, error_chain, tls};
use hyper::Uri;
use rustls::ClientConfig;

use crate::routing::definition::{BrokerSettings, DefinitionError};

/// Where a server is, and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    dialer: Dialer,
}

impl Address {
    /// Reads the address of settings. `secure` is the scheme that means TLS, `port` the port if none is named.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub(super) fn read(
        settings: &BrokerSettings,
        secure: &str,
        port: impl Fn(bool) -> u16,
    ) -> Result<Self, DefinitionError> {
        let wrong = |text: String| DefinitionError::new("url", text);
        let uri: Uri = settings
            .server
            .url
            .parse()
            .map_err(|error| wrong(format!("is no address: {error}")))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has something behind the host and port; leave it out".to_owned()));
        }
        let host = uri.host().ok_or_else(|| wrong("has no host".to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_secure = uri.scheme_str() == Some(secure);
        let tls = if is_secure {
            Some(Arc::new(tls_config(settings)?))
        } else {
            refuse_tls(settings, secure)?;
            None
        };
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or_else(|| port(is_secure)),
            tls,
            dialer: Dialer::default(),
        })
    }

    /// Connects, with the handshake of TLS where there is one. The caller sets the deadline.
    ///
    /// # Errors
    /// What happened, in words for an operator.
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        match &self.tls {
            None => self.dial().await,
            Some(config) => {
                let stream = tls::connect(Arc::clone(config), &self.dialer, &self.host, self.port).await;
                Ok(stream.map_err(|error| error_chain(&error))?)
            }
        }
    }

    /// Connects without TLS, for a protocol that begins it by itself.
    ///
    /// # Errors
    /// As [`Address::connect`].
    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, String> {
        let stream = self.dialer.dial(&self.host, self.port).await;
        stream.map_err(|error| format!("can't connect to `{}:{}`: {error}", self.host, self.port))
    }
}

fn tls_config(settings: &BrokerSettings) -> Result<ClientConfig, DefinitionError> {
    let identity = match (&settings.client_certificate, &settings.client_key) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            let identity = TlsIdentity::from_pem(chain.as_bytes(), key.expose().as_bytes());
            Some(identity.map_err(|error| DefinitionError::new("clientCertificate", error_chain(&error)))?)
        }
        (Some(_), None) => {
            return Err(DefinitionError::new(
                "clientKey",
                "is missing; `clientCertificate` needs it",
            ));
        }
        (None, Some(_)) => {
            return Err(DefinitionError::new(
                "clientCertificate",
                "is missing; `clientKey` is its key",
            ));
        }
    };
    trusting(settings.server.ca.as_deref(), identity.as_ref())
}

/// TLS to a server whose certificate `ca` may have signed, or, without one, those that the system trusts.
///
/// # Errors
/// [`DefinitionError`]: `ca` has no certificates.
pub(super) fn trusting(ca: Option<&str>, identity: Option<&TlsIdentity>) -> Result<ClientConfig, DefinitionError> {
    let roots = match ca {
        Some(pem) => Roots::none().with_pem(pem.as_bytes()),
        None => {
            let system = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
            Roots::none().with_system(system.as_deref())
        }
    };
    let config = roots.and_then(|roots| client_config(roots, identity));
    config.map_err(|error| DefinitionError::new("ca", error_chain(&error)))
}

/// Without TLS what is meant for it would have no effect.
fn refuse_tls(settings: &BrokerSettings, secure: &str) -> Result<(), DefinitionError> {
    let given = [
        ("ca", settings.server.ca.is_some()),
        ("clientCertificate", settings.client_certificate.is_some()),
        ("clientKey", settings.client_key.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((member, _)) => Err(DefinitionError::new(
            member,
            format!("has no effect without TLS; begin `url` with `{secure}://`, or leave it out"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::routing::definition::Members;

    fn read(settings: Value) -> Result<Address, DefinitionError> {
        let mut members = Members::new(settings.as_object().unwrap().clone());
        let settings = BrokerSettings::read(&mut members, &["mqtt", "mqtts"], 1)?;
        Address::read(&settings, "mqtts", |secure| if secure { 8883 } else { 1883 })
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (url, host, port) in [
            ("mqtt://broker.test", "broker.test", 1883),
            ("mqtt://broker.test:7/", "broker.test", 7),
            ("mqtt://[::1]:7", "::1", 7),
        ] {
            let address = read(json!({ "url": url })).unwrap();

            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert!(address.tls.is_none());
        }
        for url in ["mqtt://h/path", "mqtt://h?a=b"] {
            assert_eq!(read(json!({ "url": url })).unwrap_err().member, "url", "{url}");
        }
    }

    #[test]
    fn what_tls_can_not_use_names_its_member() {
        let wrong = |settings: Value| read(settings).unwrap_err();

        let ca = wrong(json!({ "url": "mqtts://h", "ca": "no certificate" }));
        let plain = wrong(json!({ "url": "mqtt://h", "ca": "no certificate" }));
        let key_alone = wrong(json!({ "url": "mqtt://h", "clientKey": "no key" }));
        let without_certificate = wrong(json!({ "url": "mqtts://h", "clientKey": "no key" }));

        assert_eq!(ca.member, "ca");
        assert!(plain.member == "ca" && plain.text.contains("mqtts://"), "{plain}");
        assert_eq!(key_alone.member, "clientKey");
        assert_eq!(without_certificate.member, "clientCertificate");
    }
}
