//! `[provisioning] source = "dps"`: the edge asks the provisioning service which device it is, and of which hub.
//!
//! ```text
//! global_endpoint, id_scope                                           whom it asks
//! attestation{method, registration_id, symmetric_key}                 as whom, by a key
//! attestation{method, [registration_id], identity_cert, identity_pk}  as whom, by a certificate: its common name is the id
//! auto_reprovisioning_mode                                            when it asks again
//! ```
//!
//! Source: `edge-agent.md` §5, §6.5.

use std::path::PathBuf;

use holm_identity::SymmetricKey;
use holm_model::RegistrationId;
use toml_edit::Item;

use super::read::{Provisioned, Reader, split_port};
use super::{DeviceProof, certificate};

/// Whom the edge asks where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dps {
    /// The service's host name.
    pub host: String,
    /// Its HTTPS port.
    pub port: u16,
    /// What it is called.
    pub id_scope: String,
    /// Under which id the edge asks; its proof is the device's.
    pub registration: RegistrationId,
    /// A file with JSON that is sent along.
    pub payload: Option<PathBuf>,
    /// When it asks again.
    pub again: Again,
}

/// When an edge that knows where it belongs asks again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// When its hub refuses it.
    #[default]
    WhenRefused,
    /// When its hub refuses it, and has let in nobody since the start.
    OnError,
    /// Also at each start.
    AtEachStart,
}

const KEY: &str = "provisioning.attestation.symmetric_key.value";
const KEY_URI: &str = "provisioning.attestation.symmetric_key.uri";

/// Reads what is configured; until the service has answered, the device goes by its registration id, and the hub by the
/// service's name.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Provisioned> {
    const METHOD: &str = "provisioning.attestation.method";
    let is_certificate = match reader.text(METHOD) {
        None | Some("symmetric_key") => false,
        Some("x509") => true,
        Some(method) => {
            let item = reader.item(METHOD);
            let text =
                format!("`{METHOD} = \"{method}\"` is not yet supported; give `\"symmetric_key\"` or `\"x509\"`");
            reader.problem(item, text);
            return None;
        }
    };
    let mut required = |path: &str| {
        if reader.item(path).is_none() {
            reader.problem(
                None,
                format!("a value for `{path}` is missing; `source = \"dps\"` needs it"),
            );
        }
        reader.text(path)
    };
    let endpoint = required("provisioning.global_endpoint");
    let scope = required("provisioning.id_scope");
    let proof = if is_certificate {
        certificate::read(reader, "provisioning.attestation").map(DeviceProof::Certificate)
    } else {
        key(reader)
    };
    let registration = registration(reader, proof.as_ref());
    let endpoint = endpoint.and_then(|text| endpoint_of(reader, text));
    let payload = match reader.item("provisioning.payload.uri") {
        Some(_) => Some(reader.file("provisioning.payload.uri")?),
        None => None,
    };
    let again = again(reader);
    let ((host, port), registration) = (endpoint?, registration?);
    Some(Provisioned {
        host: host.clone(),
        port: None,
        device: registration.device(),
        proof: proof?,
        dps: Some(Dps {
            host,
            port: port.unwrap_or(443),
            id_scope: scope?.to_owned(),
            registration,
            payload,
            again: again?,
        }),
    })
}

/// The id that is given, else the name in the certificate.
fn registration(reader: &mut Reader<'_>, proof: Option<&DeviceProof>) -> Option<RegistrationId> {
    const ID: &str = "provisioning.attestation.registration_id";
    let item = reader.item(ID);
    let text = match (item, proof) {
        (Some(_), _) => Ok(reader.text(ID)?.to_owned()),
        (None, Some(DeviceProof::Certificate(files))) => certificate::common_name(files)
            .map_err(|why| format!("a value for `{ID}` is missing, and the certificate does not tell it: {why}")),
        (None, _) => Err(format!("a value for `{ID}` is missing; `source = \"dps\"` needs it")),
    };
    let read = text.and_then(|text| {
        RegistrationId::new(&text).map_err(|error| format!("`{ID}` can't be used: `{text}`: {error}"))
    });
    read.map_err(|text| reader.problem(item, text)).ok()
}

/// A URL as in the original's file, or a host name.
fn endpoint_of(reader: &mut Reader<'_>, text: &str) -> Option<(String, Option<u16>)> {
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    if bare.is_empty() || bare.contains("://") || bare.contains('/') {
        let item = reader.item("provisioning.global_endpoint");
        let text = format!("`provisioning.global_endpoint` is `{text}`; give `https://` and a host name");
        reader.problem(item, text);
        return None;
    }
    Some(split_port(bare))
}

fn key(reader: &mut Reader<'_>) -> Option<DeviceProof> {
    match (reader.item(KEY), reader.item(KEY_URI)) {
        (Some(item), None) => {
            reader.holds_secret = true;
            let text = reader.text(KEY)?;
            let key = SymmetricKey::from_base64(text);
            key.map(DeviceProof::Key)
                .map_err(|error| reader.problem(Some(item), format!("`{KEY}` is not a key: {error}")))
                .ok()
        }
        (None, Some(_)) => reader.file(KEY_URI).map(DeviceProof::KeyFile),
        (found, _) => {
            reader.holds_secret |= found.is_some();
            let found: Option<&Item> = found;
            let text = format!("give the device's key, not its group's, in one of `{KEY}` and `{KEY_URI}`");
            reader.problem(found, text);
            None
        }
    }
}

fn again(reader: &mut Reader<'_>) -> Option<Again> {
    let always = reader.boolean("provisioning.always_reprovision_on_startup");
    match reader.text("auto_reprovisioning_mode") {
        Some("AlwaysOnStartup") => Some(Again::AtEachStart),
        None if always == Some(true) => Some(Again::AtEachStart),
        Some("OnErrorOnly") => Some(Again::OnError),
        None | Some("Dynamic") => Some(Again::WhenRefused),
        Some(other) => {
            let item = reader.item("auto_reprovisioning_mode");
            let text = format!(
                "`auto_reprovisioning_mode` is `{other}`; give `\"Dynamic\"`, `\"AlwaysOnStartup\"` or `\"OnErrorOnly\"`"
            );
            reader.problem(item, text);
            None
        }
    }
}
