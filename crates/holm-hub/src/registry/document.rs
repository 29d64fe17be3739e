//! Devices and modules as the published interfaces write them.
//!
//! What only the hub may write (`generationId`, `etag`, `connectionState`, times, counts) is passed over on input. On output
//! nothing is missing: C# has no room for null times, and the command line tools index into all parts of
//! `authentication`. Source: `hub-service-api.md` §2.3.

use holm_identity::SymmetricKey;
use holm_identity::x509_auth::Thumbprint;
use holm_model::{ErrorCode, ServiceError, strict_json};
use serde_json::{Map, Value, json};

use super::{Authentication, Entry, Keys, Thumbprints};
use crate::storage::Activity;

/// What a caller wants a device or module to be. `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `deviceId`, which must be the one in the path.
    pub device_id: Option<String>,
    /// `moduleId`, which must be the one in the path.
    pub module_id: Option<String>,
    /// `status`.
    pub enabled: Option<bool>,
    /// `statusReason`; `Some(None)` clears it.
    pub status_reason: Option<Option<String>>,
    /// `authentication`.
    pub authentication: WishedAuthentication,
    /// `capabilities.iotEdge`.
    pub edge: Option<bool>,
    /// `deviceScope`; empty for none.
    pub device_scope: Option<String>,
    /// `parentScopes`.
    pub parent_scopes: Option<Vec<String>>,
    /// `managedBy`.
    pub managed_by: Option<String>,
}

/// What a caller says of authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WishedAuthentication {
    kind: Option<String>,
    keys: Option<Keys>,
    thumbprints: Option<Thumbprints>,
}

/// The longest `statusReason`, in characters.
const MAX_STATUS_REASON_CHARS: usize = 128;

impl Wish {
    /// Reads a device or module.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the member that breaks a rule; `DeserializationError` when the body is not JSON.
    pub fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let document = strict_json::parse(body).map_err(|error| {
            ServiceError::new(
                ErrorCode::DeserializationError,
                format!("the body can't be read: {error}"),
            )
        })?;
        let Value::Object(document) = document else {
            return Err(ServiceError::argument_invalid("the body must be a JSON object"));
        };
        let capabilities = object(&document, "capabilities")?;
        Ok(Self {
            device_id: text(&document, "deviceId")?,
            module_id: text(&document, "moduleId")?,
            enabled: status(&document)?,
            status_reason: status_reason(&document)?,
            authentication: authentication(&document)?,
            edge: capabilities
                .map(|capabilities| boolean(capabilities, "iotEdge"))
                .transpose()?
                .flatten(),
            device_scope: text(&document, "deviceScope")?,
            parent_scopes: texts(&document, "parentScopes")?,
            managed_by: text(&document, "managedBy")?.filter(|name| !name.is_empty()),
        })
    }
}

impl WishedAuthentication {
    /// What the caller's words mean for an identity that has `current` so far (`None` when it is new): what is not said
    /// stays, and keys that were never given are made here.
    ///
    /// Empty keys on an update keep the stored ones: Python and Node send them so on plain status updates, and new keys
    /// would cut the device off.
    ///
    /// # Errors
    /// `ArgumentInvalid` when the parts do not fit together.
    pub fn resolve(self, current: Option<&Authentication>) -> Result<Authentication, ServiceError> {
        let kind = match (&self.kind, current) {
            (Some(kind), _) => kind.clone(),
            (None, Some(current)) => current.kind().to_owned(),
            (None, None) if self.thumbprints.is_some() => "selfSigned".to_owned(),
            (None, None) => "sas".to_owned(),
        };
        match kind.to_ascii_lowercase().as_str() {
            "sas" => match (self.keys, current) {
                (Some(keys), _) => Ok(Authentication::Sas(keys)),
                (None, Some(Authentication::Sas(keys))) => Ok(Authentication::Sas(keys.clone())),
                (None, _) => Ok(Authentication::Sas(Keys::generate()?)),
            },
            "selfsigned" => match (self.thumbprints, current) {
                (Some(prints), _) => Ok(Authentication::SelfSigned(prints)),
                (None, Some(Authentication::SelfSigned(prints))) => Ok(Authentication::SelfSigned(prints.clone())),
                (None, _) => Err(ServiceError::argument_invalid(
                    "`authentication.x509Thumbprint` is missing; give at least one thumbprint for `selfSigned`",
                )),
            },
            "certificateauthority" => Ok(Authentication::CertificateAuthority),
            "none" => Ok(Authentication::None),
            _ => Err(ServiceError::argument_invalid(format!(
                "`authentication.type` is `{kind}`; give `sas`, `selfSigned`, `certificateAuthority` or `none`"
            ))),
        }
    }
}

/// A device or module as a service reads it; `waiting` is the number of cloud-to-device messages that wait for it.
#[must_use]
pub fn to_json(entry: &Entry, activity: &Activity, waiting: u32) -> Value {
    let mut document = json!({
        "deviceId": entry.identity.device,
        "generationId": entry.generation,
        "etag": entry.etag_text(),
        "connectionState": if activity.connected { "Connected" } else { "Disconnected" },
        "connectionStateUpdatedTime": activity.state_updated,
        "lastActivityTime": activity.last_activity,
        "cloudToDeviceMessageCount": waiting,
        "authentication": authentication_json(&entry.authentication),
    });
    let extra = match &entry.identity.module {
        Some(module) => json!({
            "moduleId": module,
            "managedBy": entry.managed_by,
        }),
        None => json!({
            "status": if entry.enabled { "enabled" } else { "disabled" },
            "statusReason": entry.status_reason,
            "statusUpdatedTime": entry.status_updated,
            "capabilities": { "iotEdge": entry.edge },
            "deviceScope": entry.device_scope,
            "parentScopes": entry.parent_scopes,
        }),
    };
    if let (Value::Object(document), Value::Object(extra)) = (&mut document, extra) {
        document.extend(extra);
    }
    document
}

/// A proof as a service reads it.
pub(crate) fn authentication_json(authentication: &Authentication) -> Value {
    let (mut keys, mut prints) = ((None, None), (None, None));
    match authentication {
        Authentication::Sas(both) => {
            let base64 = |key: &SymmetricKey| Some(key.to_base64().expose().to_owned());
            keys = (base64(&both.primary), base64(&both.secondary));
        }
        Authentication::SelfSigned(both) => {
            prints = (
                both.0.as_ref().map(Thumbprint::as_str),
                both.1.as_ref().map(Thumbprint::as_str),
            );
        }
        Authentication::CertificateAuthority | Authentication::None => {}
    }
    json!({
        "type": authentication.kind(),
        "symmetricKey": { "primaryKey": keys.0, "secondaryKey": keys.1 },
        "x509Thumbprint": { "primaryThumbprint": prints.0, "secondaryThumbprint": prints.1 },
    })
}

fn wrong(name: &str, expected: &str) -> ServiceError {
    ServiceError::argument_invalid(format!("`{name}` must be {expected}"))
}

fn text(document: &Map<String, Value>, name: &str) -> Result<Option<String>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(name, "a string")),
    }
}

fn boolean(document: &Map<String, Value>, name: &str) -> Result<Option<bool>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(wrong(name, "true or false")),
    }
}

fn object<'d>(document: &'d Map<String, Value>, name: &str) -> Result<Option<&'d Map<String, Value>>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(wrong(name, "an object")),
    }
}

fn texts(document: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(|| wrong(name, "an array of strings")),
        Some(_) => Err(wrong(name, "an array of strings")),
    }
}

fn status(document: &Map<String, Value>) -> Result<Option<bool>, ServiceError> {
    match text(document, "status")? {
        None => Ok(None),
        Some(status) if status.eq_ignore_ascii_case("enabled") => Ok(Some(true)),
        Some(status) if status.eq_ignore_ascii_case("disabled") => Ok(Some(false)),
        Some(_) => Err(wrong("status", "`enabled` or `disabled`")),
    }
}

fn status_reason(document: &Map<String, Value>) -> Result<Option<Option<String>>, ServiceError> {
    if !document.contains_key("statusReason") {
        return Ok(None);
    }
    let reason = text(document, "statusReason")?;
    if reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > MAX_STATUS_REASON_CHARS)
    {
        return Err(wrong(
            "statusReason",
            &format!("at most {MAX_STATUS_REASON_CHARS} characters long"),
        ));
    }
    Ok(Some(reason))
}

fn authentication(document: &Map<String, Value>) -> Result<WishedAuthentication, ServiceError> {
    let Some(authentication) = object(document, "authentication")? else {
        return Ok(WishedAuthentication::default());
    };
    Ok(WishedAuthentication {
        kind: text(authentication, "type")?.filter(|kind| !kind.is_empty()),
        keys: keys(authentication)?,
        thumbprints: thumbprints(authentication)?,
    })
}

/// Empty means absent: SDKs send `{}`, null and empty text.
fn given(document: &Map<String, Value>, name: &str) -> Result<Option<String>, ServiceError> {
    Ok(text(document, name)?.filter(|text| !text.is_empty()))
}

fn keys(authentication: &Map<String, Value>) -> Result<Option<Keys>, ServiceError> {
    let Some(pair) = object(authentication, "symmetricKey")? else {
        return Ok(None);
    };
    let read = |name: &str, text: &str| {
        SymmetricKey::from_base64(text).map_err(|error| {
            ServiceError::argument_invalid(format!("`authentication.symmetricKey.{name}` can't be used: {error}"))
        })
    };
    match (given(pair, "primaryKey")?, given(pair, "secondaryKey")?) {
        (None, None) => Ok(None),
        (Some(primary), Some(secondary)) => Ok(Some(Keys {
            primary: read("primaryKey", &primary)?,
            secondary: read("secondaryKey", &secondary)?,
        })),
        _ => Err(ServiceError::argument_invalid(
            "`authentication.symmetricKey` has one key; give both, or none to have them made",
        )),
    }
}

fn thumbprints(authentication: &Map<String, Value>) -> Result<Option<Thumbprints>, ServiceError> {
    let Some(pair) = object(authentication, "x509Thumbprint")? else {
        return Ok(None);
    };
    let read = |name: &str| {
        let bare = given(pair, name)?.map(|text| text.replace([' ', ':'], ""));
        bare.map(|text| {
            text.parse::<Thumbprint>().map_err(|error| {
                ServiceError::argument_invalid(format!("`authentication.x509Thumbprint.{name}` can't be used: {error}"))
            })
        })
        .transpose()
    };
    let both = (read("primaryThumbprint")?, read("secondaryThumbprint")?);
    Ok((both != (None, None)).then_some(both))
}
