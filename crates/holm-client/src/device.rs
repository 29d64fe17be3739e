//! A device or module with a connection string.

use std::path::Path;
use std::sync::Arc;

use holm_identity::connection_string::{Credential as Known, InvalidConnectionString};
use holm_identity::tls::{Roots, TlsError, client_config};
use holm_identity::{DeviceConnectionString, SasToken};

use crate::credential::{Credential, KeyTokens, MakingToken, Token, TokenSource};
use crate::options::{Endpoint, Options, Transport};

/// Why a connection string gives no options.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDevice {
    /// The variable is not set.
    #[error("the variable `{0}` is not set; give it the device's connection string")]
    Missing(String),
    /// The connection string is wrong.
    #[error("the connection string is unusable")]
    ConnectionString(#[source] InvalidConnectionString),
    /// A ready-made token can't be read.
    #[error("the `SharedAccessSignature` of the connection string is no token")]
    Token(#[source] holm_identity::sas::InvalidToken),
    /// The authorities to trust can't be read.
    #[error("the authorities to trust can't be read")]
    Tls(#[source] TlsError),
}

/// A token that was made elsewhere: it is used until it ends.
#[derive(Debug)]
struct GivenToken(Token);

impl TokenSource for GivenToken {
    fn make(&self, _now: holm_model::Timestamp) -> MakingToken<'_> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// Options for a connection string, trusting `roots`. A certificate (`x509=true`) must be in `roots`' place by the caller:
/// replace [`Options::tls`].
///
/// # Errors
/// [`InvalidDevice`].
pub fn from_connection_string(text: &str, roots: Roots) -> Result<Options, InvalidDevice> {
    let device = DeviceConnectionString::parse(text).map_err(InvalidDevice::ConnectionString)?;
    let host = device.connect_to().to_owned();
    let credential = match device.credential {
        Known::Key { key, policy } => {
            let tokens = KeyTokens::new(key, &device.host_name, &device.identity).of_policy(policy);
            Credential::Tokens(Arc::new(tokens))
        }
        Known::Token(text) => {
            let expires = SasToken::parse(text.expose())
                .map_err(InvalidDevice::Token)?
                .expiry_seconds();
            let expires = holm_model::Timestamp::from_unix_seconds(expires);
            Credential::Tokens(Arc::new(GivenToken(Token { text, expires })))
        }
        Known::Certificate => Credential::Certificate,
    };
    let tls = client_config(roots, None).map_err(InvalidDevice::Tls)?;
    let mut options = Options::new(device.identity, &device.host_name, credential, Arc::new(tls));
    options.endpoint = Endpoint {
        host,
        port: Transport::Mqtt.default_port(),
    };
    Ok(options)
}

/// Options for the connection string in a variable of this process, trusting the system's authorities (`SSL_CERT_FILE`
/// names others).
///
/// # Errors
/// [`InvalidDevice`].
pub fn from_environment(variable: &str) -> Result<Options, InvalidDevice> {
    let text = std::env::var(variable).map_err(|_| InvalidDevice::Missing(variable.to_owned()))?;
    let file = std::env::var_os("SSL_CERT_FILE");
    let roots = Roots::none()
        .with_system(file.as_deref().map(Path::new))
        .map_err(InvalidDevice::Tls)?;
    from_connection_string(&text, roots)
}
