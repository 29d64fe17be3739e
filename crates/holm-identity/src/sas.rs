//! SAS tokens: a scope, an end, and a signature over both made with a shared key.
//!
//! ```text
//! SharedAccessSignature sr=hub.test%2Fdevices%2Fdev1&sig=tjl…%3D&se=1800000000&skn=device
//!                       |                            |           |             '- policy whose key signed; absent: the identity's own
//!                       |                            |           '- end, Unix seconds
//!                       |                            '- base64(HMAC-SHA256(key, sr "\n" se)), percent-encoded
//!                       '- scope that it opens, see `resource`
//! ```
//!
//! - Fields stand in any order; unknown ones are ignored; a repeated one is refused.
//! - What was signed is the *raw* text of `sr` and `se`. Clients differ in how they encode (upper or lower hex, not at all,
//!   twice), so a token that was decoded and encoded again would not verify. Only after that is `sr` decoded and read.
//! - Tokens and signatures do not print.
//!
//! Source: `hub-device-protocols.md` §1.2, `hub-service-api.md` §1.

mod resource;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_model::{Identity, Timestamp};

pub use resource::{Resource, Scope, resource_uri};

use crate::key_store::{KeyStoreError, Signer};
use crate::secret::Secret;
use crate::symmetric_key::{SymmetricKey, TAG_BYTES};
use holm_model::wire::percent;

/// How long a token is honoured after its end, for clocks that differ; also when a connection that was opened with it ends.
pub const CLOCK_SKEW_SECONDS: i64 = 300;
/// The longest token that is read, in bytes. Two ids of 128 characters, each encoded twice, and a host name take a third.
pub const MAX_TOKEN_BYTES: usize = 4096;

const SCHEME: &str = "SharedAccessSignature";

/// Why a text is not a SAS token. The messages hold nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It does not begin with the word.
    #[error("the token does not begin with `{SCHEME} `; send the token that the SDK made, whole")]
    Scheme,
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("the token has {0} bytes; at most {MAX_TOKEN_BYTES} are read")]
    TooLong(usize),
    /// A field that must be there is not.
    #[error("the token has no `{0}`; it needs `sr`, `sig` and `se`")]
    Missing(&'static str),
    /// A field occurs twice.
    #[error("the token has `{0}` more than once; give it once")]
    Repeated(&'static str),
    /// `sig` is not a signature.
    #[error("the `sig` of the token is not percent-encoded base64 of {TAG_BYTES} bytes")]
    Signature,
    /// `se` is not a number.
    #[error("the `se` of the token is not a number of seconds since 1970")]
    Expiry,
    /// `skn` is not text.
    #[error("the `skn` of the token is not percent-encoded UTF-8")]
    Policy,
}

/// A token, read or made.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    raw_resource: String,
    raw_expiry: String,
    expiry_seconds: i64,
    signature: [u8; TAG_BYTES],
    policy: Option<String>,
}

impl SasToken {
    /// Reads a token. Nothing is proved by this: see [`SasToken::verify`], [`SasToken::covers`], [`SasToken::is_expired`].
    ///
    /// # Errors
    /// [`InvalidToken`] naming the field.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLong(text.len()));
        }
        let fields = Fields::split(text)?;
        let raw_resource = fields
            .resource
            .filter(|raw| !raw.is_empty())
            .ok_or(InvalidToken::Missing("sr"))?;
        let raw_expiry = fields.expiry.ok_or(InvalidToken::Missing("se"))?;
        Ok(Self {
            raw_resource: raw_resource.to_owned(),
            raw_expiry: raw_expiry.to_owned(),
            expiry_seconds: read_expiry(raw_expiry).ok_or(InvalidToken::Expiry)?,
            signature: read_signature(fields.signature.ok_or(InvalidToken::Missing("sig"))?)?,
            policy: fields.policy.map_or(Ok(None), read_policy)?,
        })
    }

    /// Makes a token with a key in hand. `resource_uri` is plain text such as [`resource_uri`] gives; it is encoded here.
    #[must_use]
    pub fn sign(resource_uri: &str, expiry_seconds: i64, policy: Option<&str>, key: &SymmetricKey) -> Self {
        let mut token = Self::unsigned(resource_uri, expiry_seconds, policy);
        token.signature = key.hmac_sha256(token.string_to_sign().as_bytes());
        token
    }

    /// Makes a token with a key that may be in a store. `resource_uri` is plain text; it is encoded here.
    ///
    /// # Errors
    /// [`KeyStoreError`] when the key cannot be used.
    pub async fn sign_with(
        resource_uri: &str,
        expiry_seconds: i64,
        policy: Option<&str>,
        signer: &dyn Signer,
    ) -> Result<Self, KeyStoreError> {
        let mut token = Self::unsigned(resource_uri, expiry_seconds, policy);
        token.signature = signer.sign(token.string_to_sign().as_bytes()).await?;
        Ok(token)
    }

    /// A token whose signature is still to come: for whoever holds the key elsewhere. Sign [`SasToken::string_to_sign`] and
    /// add the signature with [`SasToken::with_signature`].
    #[must_use]
    pub fn unsigned(resource_uri: &str, expiry_seconds: i64, policy: Option<&str>) -> Self {
        Self {
            raw_resource: percent::encode(resource_uri),
            raw_expiry: expiry_seconds.to_string(),
            expiry_seconds,
            signature: [0; TAG_BYTES],
            policy: policy.filter(|policy| !policy.is_empty()).map(str::to_owned),
        }
    }

    /// The token with a signature made elsewhere.
    #[must_use]
    pub const fn with_signature(mut self, signature: [u8; TAG_BYTES]) -> Self {
        self.signature = signature;
        self
    }

    /// The text that is signed: the scope and the end, both exactly as they stand in the token.
    #[must_use]
    pub fn string_to_sign(&self) -> String {
        format!("{}\n{}", self.raw_resource, self.raw_expiry)
    }

    /// The signature that the token carries.
    #[must_use]
    pub const fn signature(&self) -> &[u8; TAG_BYTES] {
        &self.signature
    }

    /// Whether this key made the signature; takes the same time whichever byte differs.
    #[must_use]
    pub fn verify(&self, key: &SymmetricKey) -> bool {
        key.verify_hmac_sha256(self.string_to_sign().as_bytes(), &self.signature)
    }

    /// Whether a client of Event Hubs made the signature with this key: they sign for `sb://…`, and with the key's base64 as it
    /// stands in a connection string, where those of IoT Hub sign with the bytes that it means.
    #[must_use]
    pub fn verify_of_event_hubs(&self, key: &SymmetricKey) -> bool {
        let resource = percent::decode(&self.raw_resource);
        let is_for_it = resource
            .get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("sb://"));
        is_for_it && key.verify_hmac_sha256_by_text(self.string_to_sign().as_bytes(), &self.signature)
    }

    /// The policy whose key made the signature; `None`: a key of the identity itself.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// The scope as it stands in the token, still encoded.
    #[must_use]
    pub fn raw_resource(&self) -> &str {
        &self.raw_resource
    }

    /// What the token opens, decoded.
    #[must_use]
    pub fn resource(&self) -> Resource {
        Resource::read(&self.raw_resource)
    }

    /// Whether the token opens `identity` on a node that goes by any of the names `hosts`.
    ///
    /// Host names are compared without case, ids with it. A device's token opens the device and none of its modules; a token
    /// for the host or for `devices` opens every identity, so it must be signed by a policy, which the caller checks.
    #[must_use]
    pub fn covers(&self, hosts: &[impl AsRef<str>], identity: &Identity) -> bool {
        resource::covers(&self.raw_resource, hosts, identity)
    }

    /// The end, in seconds since 1970; a fraction is cut off, more than an `i64` holds becomes its largest value.
    #[must_use]
    pub const fn expiry_seconds(&self) -> i64 {
        self.expiry_seconds
    }

    /// The last moment at which the token is honoured: its end and [`CLOCK_SKEW_SECONDS`].
    #[must_use]
    pub const fn honoured_until(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.expiry_seconds.saturating_add(CLOCK_SKEW_SECONDS))
    }

    /// Whether the token has run out at `now`, clock skew allowed for.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.honoured_until() < now
    }

    /// The token as it is sent.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let signature = percent::encode(&STANDARD.encode(self.signature));
        let mut text = format!(
            "{SCHEME} sr={}&sig={signature}&se={}",
            self.raw_resource, self.raw_expiry
        );
        if let Some(policy) = &self.policy {
            text.push_str("&skn=");
            text.push_str(&percent::encode(policy));
        }
        Secret::new(text)
    }
}

/// Shows scope, end and policy, never the signature.
impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("raw_resource", &self.raw_resource)
            .field("raw_expiry", &self.raw_expiry)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Fields<'a> {
    resource: Option<&'a str>,
    signature: Option<&'a str>,
    expiry: Option<&'a str>,
    policy: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn split(text: &'a str) -> Result<Self, InvalidToken> {
        let (scheme, rest) = text.trim().split_once(' ').ok_or(InvalidToken::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(InvalidToken::Scheme);
        }
        let mut fields = Self::default();
        for pair in rest.trim_start().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, field) = match name {
                "sr" => ("sr", &mut fields.resource),
                "sig" => ("sig", &mut fields.signature),
                "se" => ("se", &mut fields.expiry),
                "skn" => ("skn", &mut fields.policy),
                _ => continue,
            };
            if field.replace(value).is_some() {
                return Err(InvalidToken::Repeated(name));
            }
        }
        Ok(fields)
    }
}

fn read_signature(raw: &str) -> Result<[u8; TAG_BYTES], InvalidToken> {
    let text = percent::try_decode(raw).ok_or(InvalidToken::Signature)?;
    let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| InvalidToken::Signature)?;
    bytes.try_into().map_err(|_| InvalidToken::Signature)
}

/// Digits, and a fraction that is cut off: one SDK writes a floating-point number.
fn read_expiry(raw: &str) -> Option<i64> {
    let (whole, fraction) = raw.split_once('.').unwrap_or((raw, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // Only digits are left, so the one way to fail is to be too large, and there is no upper limit.
    Some(whole.parse().unwrap_or(i64::MAX))
}

/// An empty policy is none. Form encoding writes a space as `+`, and a policy's name may hold a space but no `+`.
fn read_policy(raw: &str) -> Result<Option<String>, InvalidToken> {
    let spaced = raw.replace('+', " ");
    let policy = percent::try_decode(&spaced).ok_or(InvalidToken::Policy)?;
    Ok(Some(policy.into_owned()).filter(|policy| !policy.is_empty()))
}

#[cfg(test)]
mod tests;
