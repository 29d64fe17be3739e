//! Connection strings: where a hub is and how to log in there, in one line.
//!
//! ```text
//! device:   HostName=hub.test;DeviceId=dev1;SharedAccessKey=MDEy…ZWY=
//! module:   HostName=hub.test;DeviceId=dev1;ModuleId=modA;SharedAccessKey=…;GatewayHostName=edge.test
//! X.509:    HostName=hub.test;DeviceId=dev1;x509=true
//! service:  HostName=hub.test;SharedAccessKeyName=iothubowner;SharedAccessKey=…
//! ```
//!
//! Pairs are split at `;`, a name from its value at the first `=` (keys end in `=`). Names are compared without case, as some
//! tools do; an unknown or repeated name is refused, because a misspelled one would otherwise be ignored in silence.
//! Nothing of a value is shown in an error.
//!
//! Source: `hub-device-protocols.md` §1.1, `hub-service-api.md` §1.

use std::net::IpAddr;

use holm_model::{DeviceId, Identity, InvalidId, ModuleId};

use crate::secret::Secret;
use crate::symmetric_key::{InvalidKey, SymmetricKey};

/// Why a text is not a connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnectionString {
    /// A part is not `name=value`.
    #[error("part {0} of the connection string is not `name=value`; separate the parts by `;`")]
    NotAPair(usize),
    /// A name that means nothing here.
    #[error("the connection string holds the unknown name `{name}`; known are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// What is known.
        known: &'static str,
    },
    /// A name occurs twice.
    #[error("the connection string holds `{0}` more than once; give it once")]
    Repeated(&'static str),
    /// A name that must be there is not, or has no value.
    #[error("a value for `{0}` is missing in the connection string; copy the string whole")]
    Missing(&'static str),
    /// A host name that cannot be one.
    #[error("the `{0}` of the connection string is not a host name; give a DNS name or an IP address, without port")]
    Host(&'static str),
    /// An id that breaks the rules.
    #[error("the `{name}` of the connection string is not an id")]
    Id {
        /// `DeviceId` or `ModuleId`.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidId,
    },
    /// A key that is none.
    #[error("the `SharedAccessKey` of the connection string is not a key")]
    Key(#[source] InvalidKey),
    /// No credential, or several.
    #[error("the connection string needs exactly one of {0}")]
    OneCredential(&'static str),
    /// `x509` with another value than `true` or `false`.
    #[error("the `x509` of the connection string is neither `true` nor `false`")]
    X509,
}

/// How to log in.
#[derive(Clone, Debug)]
pub enum Credential {
    /// With tokens signed by this key.
    Key {
        /// The key: the identity's own, or that of the policy.
        key: SymmetricKey,
        /// The hub policy that the key belongs to; `None`: the identity itself.
        policy: Option<String>,
    },
    /// With a token that was made elsewhere.
    Token(Secret),
    /// With a client certificate, which is configured apart.
    Certificate,
}

/// A connection string of a device or module.
#[derive(Clone, Debug)]
pub struct DeviceConnectionString {
    /// The hub, as identity strings and token scopes name it.
    pub host_name: String,
    /// Who logs in.
    pub identity: Identity,
    /// With what.
    pub credential: Credential,
    /// Connect here instead of to the hub.
    pub gateway_host_name: Option<String>,
}

/// A connection string of a back end or operator: a policy of the hub.
#[derive(Clone, Debug)]
pub struct ServiceConnectionString {
    /// The hub.
    pub host_name: String,
    /// With what to log in; never [`Credential::Certificate`], and a key always has its policy.
    pub credential: Credential,
}

const DEVICE_NAMES: &str = "HostName, DeviceId, ModuleId, SharedAccessKey, SharedAccessKeyName, SharedAccessSignature, \
                            x509 and GatewayHostName";
const SERVICE_NAMES: &str = "HostName, SharedAccessKeyName, SharedAccessKey and SharedAccessSignature; a string with \
                             `DeviceId` is for a device";

impl DeviceConnectionString {
    /// Reads a connection string of a device or module.
    ///
    /// # Errors
    /// [`InvalidConnectionString`] naming the part.
    pub fn parse(text: &str) -> Result<Self, InvalidConnectionString> {
        let parts = Parts::split(text, DEVICE_NAMES, |_| true)?;
        let device = parts.id::<DeviceId>("DeviceId", parts.device_id)?;
        let device = device.ok_or(InvalidConnectionString::Missing("DeviceId"))?;
        Ok(Self {
            host_name: parts.required_host_name()?,
            identity: Identity {
                device,
                module: parts.id::<ModuleId>("ModuleId", parts.module_id)?,
            },
            credential: parts.device_credential()?,
            gateway_host_name: parts
                .gateway_host_name
                .map(|host| host_name("GatewayHostName", host))
                .transpose()?,
        })
    }

    /// The host to connect to: the gateway if there is one.
    #[must_use]
    pub fn connect_to(&self) -> &str {
        self.gateway_host_name.as_deref().unwrap_or(&self.host_name)
    }

    /// The string as it is handed over.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let mut text = format!("HostName={};DeviceId={}", self.host_name, self.identity.device);
        if let Some(module) = &self.identity.module {
            text.push_str(&format!(";ModuleId={module}"));
        }
        self.credential.write(&mut text);
        if let Some(gateway) = &self.gateway_host_name {
            text.push_str(&format!(";GatewayHostName={gateway}"));
        }
        Secret::new(text)
    }
}

impl ServiceConnectionString {
    /// Reads a connection string of a hub policy.
    ///
    /// # Errors
    /// [`InvalidConnectionString`] naming the part.
    pub fn parse(text: &str) -> Result<Self, InvalidConnectionString> {
        let of_service = |name| matches!(name, Name::Host | Name::Policy | Name::Key | Name::Signature);
        let parts = Parts::split(text, SERVICE_NAMES, of_service)?;
        Ok(Self {
            host_name: parts.required_host_name()?,
            credential: parts.service_credential()?,
        })
    }

    /// The string as it is handed over.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let mut text = format!("HostName={}", self.host_name);
        self.credential.write(&mut text);
        Secret::new(text)
    }
}

impl Credential {
    fn write(&self, text: &mut String) {
        match self {
            Self::Key { key, policy } => {
                if let Some(policy) = policy {
                    text.push_str(&format!(";SharedAccessKeyName={policy}"));
                }
                text.push_str(";SharedAccessKey=");
                text.push_str(key.to_base64().expose());
            }
            Self::Token(token) => {
                text.push_str(";SharedAccessSignature=");
                text.push_str(token.expose());
            }
            Self::Certificate => text.push_str(";x509=true"),
        }
    }
}

#[derive(Clone, Copy)]
enum Name {
    Host,
    Device,
    Module,
    Key,
    Policy,
    Signature,
    X509,
    Gateway,
}

impl Name {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Host, "HostName"),
        (Self::Device, "DeviceId"),
        (Self::Module, "ModuleId"),
        (Self::Key, "SharedAccessKey"),
        (Self::Policy, "SharedAccessKeyName"),
        (Self::Signature, "SharedAccessSignature"),
        (Self::X509, "x509"),
        (Self::X509, "X509Cert"),
        (Self::Gateway, "GatewayHostName"),
    ];

    fn find(text: &str) -> Option<(Self, &'static str)> {
        Self::ALL.into_iter().find(|(_, name)| name.eq_ignore_ascii_case(text))
    }
}

/// The values, not yet looked at.
#[derive(Default)]
struct Parts<'a> {
    host_name: Option<&'a str>,
    device_id: Option<&'a str>,
    module_id: Option<&'a str>,
    key: Option<&'a str>,
    policy: Option<&'a str>,
    signature: Option<&'a str>,
    x509: Option<&'a str>,
    gateway_host_name: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(
        text: &'a str,
        known: &'static str,
        allowed: impl Fn(Name) -> bool,
    ) -> Result<Self, InvalidConnectionString> {
        let mut parts = Self::default();
        for (index, pair) in text.trim().split(';').enumerate() {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair
                .split_once('=')
                .ok_or(InvalidConnectionString::NotAPair(index + 1))?;
            let unknown = || InvalidConnectionString::Unknown {
                name: name.chars().take(64).collect(),
                known,
            };
            let (found, spelling) = Name::find(name)
                .filter(|(name, _)| allowed(*name))
                .ok_or_else(unknown)?;
            if value.is_empty() {
                return Err(InvalidConnectionString::Missing(spelling));
            }
            if parts.slot(found).replace(value).is_some() {
                return Err(InvalidConnectionString::Repeated(spelling));
            }
        }
        Ok(parts)
    }

    const fn slot(&mut self, name: Name) -> &mut Option<&'a str> {
        match name {
            Name::Host => &mut self.host_name,
            Name::Device => &mut self.device_id,
            Name::Module => &mut self.module_id,
            Name::Key => &mut self.key,
            Name::Policy => &mut self.policy,
            Name::Signature => &mut self.signature,
            Name::X509 => &mut self.x509,
            Name::Gateway => &mut self.gateway_host_name,
        }
    }

    fn required_host_name(&self) -> Result<String, InvalidConnectionString> {
        let host = self.host_name.ok_or(InvalidConnectionString::Missing("HostName"))?;
        host_name("HostName", host)
    }

    fn id<T: std::str::FromStr<Err = InvalidId>>(
        &self,
        name: &'static str,
        value: Option<&str>,
    ) -> Result<Option<T>, InvalidConnectionString> {
        value
            .map(|value| {
                value
                    .parse()
                    .map_err(|source| InvalidConnectionString::Id { name, source })
            })
            .transpose()
    }

    fn key(&self, key: &str) -> Result<Credential, InvalidConnectionString> {
        Ok(Credential::Key {
            key: SymmetricKey::from_base64(key).map_err(InvalidConnectionString::Key)?,
            policy: self.policy.map(str::to_owned),
        })
    }

    fn device_credential(&self) -> Result<Credential, InvalidConnectionString> {
        let x509 = match self.x509 {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            Some(_) => return Err(InvalidConnectionString::X509),
        };
        match (self.key, self.signature, x509) {
            (Some(key), None, false) => self.key(key),
            (None, Some(token), false) => Ok(Credential::Token(Secret::new(token))),
            (None, None, true) => Ok(Credential::Certificate),
            _ => Err(InvalidConnectionString::OneCredential(
                "`SharedAccessKey`, `SharedAccessSignature` and `x509=true`",
            )),
        }
    }

    fn service_credential(&self) -> Result<Credential, InvalidConnectionString> {
        match (self.key, self.signature) {
            (Some(_), None) if self.policy.is_none() => Err(InvalidConnectionString::Missing("SharedAccessKeyName")),
            (Some(key), None) => self.key(key),
            (None, Some(token)) => Ok(Credential::Token(Secret::new(token))),
            _ => Err(InvalidConnectionString::OneCredential(
                "`SharedAccessKey` and `SharedAccessSignature`",
            )),
        }
    }
}

fn host_name(name: &'static str, text: &str) -> Result<String, InvalidConnectionString> {
    // A port may follow, where a hub is not on the published ones (`localhost:8443`).
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => text,
    };
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let named = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if (named && !host.is_empty() && text.len() <= 253) || bare.parse::<IpAddr>().is_ok() {
        Ok(bare.to_owned())
    } else {
        Err(InvalidConnectionString::Host(name))
    }
}

#[cfg(test)]
mod tests;
