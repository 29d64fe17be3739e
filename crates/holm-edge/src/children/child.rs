//! One device or module below this edge: read from the hub's document, and its proofs checked.
//!
//! | proof | what is checked |
//! | --- | --- |
//! | token | names the identity at the hub or at this edge (without regard to case), not ended, signed with one of two keys; of a module, also with its device's |
//! | certificate by thumbprint | one of two, and its dates |
//! | certificate by authority | leads to one of the operator's roots, and its common name is the device |
//!
//! The edge's own authority vouches for nobody here: it gives every module a certificate with the module's name in it, and a
//! module must not become a device of that name.
//!
//! Source: `edge-broker.md` §1.3.

use holm_gateway::{AuthKind, Credential};
use holm_identity::sas::Scope;
use holm_identity::x509_auth::{Thumbprint, authority_vouches_for, thumbprint_matches};
use holm_identity::{SasToken, SigningCertificate, SymmetricKey};
use holm_model::{Identity, ModuleId, Timestamp};
use holm_net::error_chain;
use serde_json::{Value, json};

/// A device or module, as the hub told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Another one is another device of the same name.
    pub generation: String,
    /// Whether it may connect.
    pub enabled: bool,
    proof: Proof,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    Keys(SymmetricKey, SymmetricKey),
    Thumbprints(Vec<Thumbprint>),
    Authority,
    None,
}

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// How.
    pub auth: AuthKind,
    /// When the proof ends.
    pub expires: Option<Timestamp>,
    /// Under what: see `Children::grant`.
    pub grant: String,
}

/// Why a proof is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Denied {
    text: String,
    /// Whether it could be good if the hub were asked again.
    pub may_be_stale: bool,
}

impl Denied {
    fn for_good(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            may_be_stale: false,
        }
    }

    fn for_now(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            may_be_stale: true,
        }
    }

    pub(super) fn unknown(identity: &Identity) -> Self {
        let text =
            format!("`{identity}` is not below this edge; make the edge its parent with `holm device children add`");
        Self::for_now(text)
    }

    pub(super) fn disabled(identity: &Identity) -> Self {
        Self::for_now(format!("`{identity}` is disabled"))
    }
}

/// What a proof is checked against.
pub(super) struct Case<'a> {
    pub(super) identity: &'a Identity,
    pub(super) hosts: &'a [String],
    pub(super) now: Timestamp,
    pub(super) authorities: &'a [SigningCertificate],
}

impl Child {
    /// Reads a document of the registry. `None` when it has not the published form.
    pub fn read(document: &Value) -> Option<Self> {
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let key = |name: &str| SymmetricKey::from_base64(text(&format!("/authentication/symmetricKey/{name}"))?).ok();
        let print = |name: &str| text(&format!("/authentication/x509Thumbprint/{name}"))?.parse().ok();
        let proof = match text("/authentication/type")
            .unwrap_or("none")
            .to_ascii_lowercase()
            .as_str()
        {
            "sas" => Proof::Keys(key("primaryKey")?, key("secondaryKey")?),
            "selfsigned" => {
                let prints = [print("primaryThumbprint"), print("secondaryThumbprint")];
                Proof::Thumbprints(prints.into_iter().flatten().collect())
            }
            "certificateauthority" => Proof::Authority,
            _ => Proof::None,
        };
        Some(Self {
            generation: text("/generationId")?.to_owned(),
            // Modules have no status of their own.
            enabled: text("/status").is_none_or(|status| status.eq_ignore_ascii_case("enabled")),
            proof,
        })
    }

    /// The members of the document that [`Child::read`] reads.
    #[must_use]
    pub fn document(&self) -> Value {
        let authentication = match &self.proof {
            Proof::Keys(primary, secondary) => json!({"type": "sas", "symmetricKey": {
                "primaryKey": primary.to_base64().expose(), "secondaryKey": secondary.to_base64().expose()}}),
            Proof::Thumbprints(prints) => {
                let print = |index: usize| prints.get(index).map(Thumbprint::as_str);
                json!({"type": "selfSigned", "x509Thumbprint": {
                    "primaryThumbprint": print(0), "secondaryThumbprint": print(1)}})
            }
            Proof::Authority => json!({"type": "certificateAuthority"}),
            Proof::None => json!({"type": "none"}),
        };
        json!({
            "generationId": self.generation,
            "status": if self.enabled { "enabled" } else { "disabled" },
            "authentication": authentication,
        })
    }

    /// Checks a proof. `device` is the device of a module.
    pub(super) fn judge(
        &self,
        case: &Case<'_>,
        credential: &Credential,
        device: Option<&Self>,
    ) -> Result<Proved, Denied> {
        match credential {
            Credential::Token(text) => self.judge_token(case, text, device),
            Credential::Certificate(chain) => {
                match &self.proof {
                    Proof::Thumbprints(prints) => thumbprint_matches(chain, prints, case.now).map(drop),
                    Proof::Authority => {
                        if case.authorities.is_empty() {
                            let text = "no authority can vouch for it; give one in `trust_bundle_cert`";
                            return Err(Denied::for_good(text));
                        }
                        authority_vouches_for(chain, case.authorities, &case.identity.device, case.now)
                    }
                    Proof::Keys(..) | Proof::None => {
                        let text = format!("`{}` does not log in by a certificate", case.identity);
                        return Err(Denied::for_now(text));
                    }
                }
                .map_err(|error| Denied::for_now(error_chain(&error)))?;
                Ok(proved(AuthKind::X509, None))
            }
            Credential::None => Err(Denied::for_good(format!(
                "`{}` sent neither a token nor a certificate",
                case.identity
            ))),
        }
    }

    fn judge_token(&self, case: &Case<'_>, text: &str, device: Option<&Self>) -> Result<Proved, Denied> {
        let token = SasToken::parse(text).map_err(|error| Denied::for_good(error.to_string()))?;
        if token.policy().is_some() {
            return Err(Denied::for_good(
                "a token of a shared access policy opens nothing on an edge",
            ));
        }
        if !is_audience(&token, case.hosts, case.identity) {
            return Err(Denied::for_good(format!("the token is for `{}`", token.raw_resource())));
        }
        if token.is_expired(case.now) {
            return Err(Denied::for_good(
                "the token has expired; check the clock of whoever made it",
            ));
        }
        if !self.has_signed(&token) && !device.is_some_and(|device| device.has_signed(&token)) {
            return Err(Denied::for_now(format!(
                "the token was not signed with a key of `{}`",
                case.identity
            )));
        }
        let expires = Timestamp::from_unix_seconds(token.expiry_seconds());
        Ok(proved(AuthKind::Sas, Some(expires)))
    }

    fn has_signed(&self, token: &SasToken) -> bool {
        match &self.proof {
            Proof::Keys(primary, secondary) => token.verify(primary) || token.verify(secondary),
            Proof::Thumbprints(_) | Proof::Authority | Proof::None => false,
        }
    }
}

const fn proved(auth: AuthKind, expires: Option<Timestamp>) -> Proved {
    Proved {
        auth,
        expires,
        grant: String::new(),
    }
}

/// Whether a token names the identity. Case counts neither in host names nor in ids (`edge-broker.md` §1.3). A scope that is
/// wider than the identity is refused: only a policy could sign for it.
pub(crate) fn is_audience(token: &SasToken, hosts: &[String], identity: &Identity) -> bool {
    let resource = token.resource();
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let (device, module) = match &resource.scope {
        Scope::Device(device) => (device, None),
        Scope::Module(device, module) => (device, Some(module)),
        _ => return false,
    };
    let is_here = hosts.iter().any(|host| same(host, &resource.host));
    let is_module = match (module, &identity.module) {
        (None, None) => true,
        (Some(named), Some(own)) => same(named.as_str(), own.as_str()),
        _ => false,
    };
    (is_here && is_module && same(device.as_str(), identity.device.as_str())) || token.covers(hosts, identity)
}

/// The identity of a document of the registry.
pub(super) fn identity_of(document: &Value) -> Option<Identity> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let device = holm_model::DeviceId::new(text("deviceId")?).ok()?;
    let module = text("moduleId").map(ModuleId::new).transpose().ok()?;
    Some(Identity { device, module })
}
