//! A server that messages go to: host, port, and TLS where its address asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use holm_identity::tls::client_config;
use holm_identity::{Roots, Secret, TlsIdentity};
use holm_net::{Dialer, Stream, error_chain, tls};
use hyper::Uri;
use rustls::ClientConfig;

use crate::routing::definition::DefinitionError;

/// Where a server is, and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    dialer: Dialer,
}

/// What TLS is to use, as it stands in settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct TlsSettings<'a> {
    /// Who may have signed the server's certificate; `None`: those that the system trusts.
    pub(super) ca: Option<&'a str>,
    /// The certificate that we show.
    pub(super) certificate: Option<&'a str>,
    /// And its key.
    pub(super) key: Option<&'a Secret>,
}

impl Address {
    /// Reads the address of settings. `secure` is the scheme that means TLS, `port` the port if none is named.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub(super) fn read(
        url: &str,
        secure: &str,
        port: impl Fn(bool) -> u16,
        settings: TlsSettings<'_>,
    ) -> Result<Self, DefinitionError> {
        let wrong = |text: String| DefinitionError::new("url", text);
        let uri: Uri = url.parse().map_err(|error| wrong(format!("is no address: {error}")))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has something behind the host and port; leave it out".to_owned()));
        }
        let host = uri.host().ok_or_else(|| wrong("has no host".to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_secure = uri.scheme_str() == Some(secure);
        let tls = if is_secure {
            Some(Arc::new(settings.read()?))
        } else {
            settings.refuse(secure)?;
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

impl TlsSettings<'_> {
    fn read(self) -> Result<ClientConfig, DefinitionError> {
        let roots = match self.ca {
            Some(pem) => Roots::none().with_pem(pem.as_bytes()),
            None => {
                let system = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
                Roots::none().with_system(system.as_deref())
            }
        };
        let roots = roots.map_err(|error| DefinitionError::new("ca", error_chain(&error)))?;
        let identity = match (self.certificate, self.key) {
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
        client_config(roots, identity.as_ref()).map_err(|error| DefinitionError::new("ca", error_chain(&error)))
    }

    /// Without TLS what is meant for it would have no effect.
    fn refuse(self, secure: &str) -> Result<(), DefinitionError> {
        let given = [
            ("ca", self.ca.is_some()),
            ("clientCertificate", self.certificate.is_some()),
            ("clientKey", self.key.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((member, _)) => Err(DefinitionError::new(
                member,
                format!("has no effect without TLS; begin `url` with `{secure}://`, or leave it out"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: TlsSettings<'_> = TlsSettings {
        ca: None,
        certificate: None,
        key: None,
    };

    fn read(url: &str, settings: TlsSettings<'_>) -> Result<Address, DefinitionError> {
        Address::read(url, "mqtts", |secure| if secure { 8883 } else { 1883 }, settings)
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (url, host, port) in [
            ("mqtt://broker.test", "broker.test", 1883),
            ("mqtt://broker.test:7/", "broker.test", 7),
            ("mqtt://[::1]:7", "::1", 7),
        ] {
            let address = read(url, NOTHING).unwrap();

            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert!(address.tls.is_none());
        }
        assert_eq!(read("mqtt://h/path", NOTHING).unwrap_err().member, "url");
        assert_eq!(read("mqtt://h?a=b", NOTHING).unwrap_err().member, "url");
    }

    #[test]
    fn what_tls_can_not_use_names_its_member() {
        let key = Secret::new("no key");
        let ca = TlsSettings {
            ca: Some("no certificate"),
            ..NOTHING
        };
        let key_alone = TlsSettings {
            key: Some(&key),
            ..NOTHING
        };

        assert_eq!(read("mqtts://h", ca).unwrap_err().member, "ca");
        let plain = read("mqtt://h", ca).unwrap_err();
        assert!(plain.member == "ca" && plain.text.contains("mqtts://"), "{plain}");
        assert_eq!(read("mqtt://h", key_alone).unwrap_err().member, "clientKey");
    }
}
