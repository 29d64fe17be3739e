//! The hub's registry as a device may use it: its own modules, with its own token, or its certificate.

use bytes::Bytes;
use holm_identity::sas::resource_uri;
use holm_identity::{KeySlot, SasToken, Secret, SymmetricKey};
use holm_model::wire::percent;
use holm_model::{Identity, ModuleId, Timestamp};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{IdentitiesError, IdentitiesOptions};
use crate::security::Security;

/// The version that the original identity service speaks.
const API_VERSION: &str = "2017-11-08-preview";
/// The largest answer: a list of fifty modules has 50 KiB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// A token for one call. The original gives it 30 s, and a clock that is a little off then breaks everything.
const TOKEN_LIFE_SECONDS: i64 = 3600;
/// What the original calls itself.
pub(super) const MANAGED_BY: &str = "IotEdge";

/// A module as the registry shows it.
#[derive(Clone, Debug)]
pub(super) struct Registered {
    pub(super) id: ModuleId,
    pub(super) generation: String,
    pub(super) managed_by: String,
    /// Primary and secondary, where the hub shows them.
    pub(super) keys: Option<(Secret, Secret)>,
}

impl Registered {
    pub(super) fn has(&self, keys: &ModuleSecrets) -> Option<bool> {
        let (primary, secondary) = self.keys.as_ref()?;
        let same =
            |shown: &Secret, own: &SymmetricKey| SymmetricKey::from_base64(shown.expose()).is_ok_and(|key| key == *own);
        Some(same(primary, &keys.primary) && same(secondary, &keys.secondary))
    }

    pub(super) fn is_managed_here(&self) -> bool {
        self.managed_by.eq_ignore_ascii_case(MANAGED_BY)
    }
}

/// The two keys of a module, on their way to the hub.
pub(super) struct ModuleSecrets {
    primary: SymmetricKey,
    secondary: SymmetricKey,
}

impl ModuleSecrets {
    pub(super) async fn of(security: &Security, id: &ModuleId, generation: &str) -> Result<Self, IdentitiesError> {
        let key = async |slot| {
            let handle = holm_identity::KeyHandle::of_module(security.master_key().clone(), id, generation, slot);
            security.keys().export(&handle).await.map_err(IdentitiesError::KeyStore)
        };
        Ok(Self {
            primary: key(KeySlot::Primary).await?,
            secondary: key(KeySlot::Secondary).await?,
        })
    }
}

pub(super) struct HubApi<'a> {
    pub(super) security: &'a Security,
    pub(super) options: &'a IdentitiesOptions,
    pub(super) now: Timestamp,
}

impl HubApi<'_> {
    pub(super) async fn list(&self) -> Result<Vec<Registered>, IdentitiesError> {
        let operation = "list the modules of this device";
        let answer = self.call(operation, Method::GET, "", None).await?;
        let modules = answer.as_array().ok_or_else(|| malformed(operation, "not a list"))?;
        modules.iter().map(|module| read(operation, module)).collect()
    }

    pub(super) async fn create(&self, id: &ModuleId) -> Result<Registered, IdentitiesError> {
        let operation = format!("create module `{id}`");
        let body = json!({
            "moduleId": id,
            "deviceId": self.security.device(),
            "managedBy": MANAGED_BY,
            "authentication": {"type": "sas"},
        });
        let answer = self
            .call(&operation, Method::PUT, &path_of(id), Some((body, false)))
            .await?;
        read(&operation, &answer)
    }

    pub(super) async fn set_keys(
        &self,
        module: &Registered,
        keys: &ModuleSecrets,
    ) -> Result<Registered, IdentitiesError> {
        let operation = format!("set the keys of module `{}`", module.id);
        let body = json!({
            "moduleId": module.id,
            "deviceId": self.security.device(),
            "generationId": module.generation,
            "managedBy": if module.managed_by.is_empty() { MANAGED_BY } else { &module.managed_by },
            "authentication": {"type": "sas", "symmetricKey": {
                "primaryKey": keys.primary.to_base64().expose(),
                "secondaryKey": keys.secondary.to_base64().expose(),
            }},
        });
        let answer = self
            .call(&operation, Method::PUT, &path_of(&module.id), Some((body, true)))
            .await?;
        read(&operation, &answer)
    }

    /// A module that is not there any more is fine.
    pub(super) async fn delete(&self, id: &ModuleId) -> Result<(), IdentitiesError> {
        let operation = format!("delete module `{id}`");
        match self.call(&operation, Method::DELETE, &path_of(id), None).await {
            Ok(_) => Ok(()),
            Err(IdentitiesError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call(
        &self,
        operation: &str,
        method: Method,
        below: &str,
        body: Option<(Value, bool)>,
    ) -> Result<Value, IdentitiesError> {
        let request = self.request(operation, method, below, body).await?;
        let (client, patience) = (&self.options.hub, self.options.timeout);
        let (status, _, bytes) =
            client
                .send(request, MAX_ANSWER, patience)
                .await
                .map_err(|source| IdentitiesError::Unreachable {
                    operation: operation.to_owned(),
                    source,
                })?;
        if !status.is_success() {
            return Err(IdentitiesError::Refused {
                operation: operation.to_owned(),
                status,
                message: message_of(&bytes),
            });
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| malformed(operation, error.to_string()))
    }

    async fn request(
        &self,
        operation: &str,
        method: Method,
        below: &str,
        body: Option<(Value, bool)>,
    ) -> Result<Request<Full<Bytes>>, IdentitiesError> {
        let device = self.security.device();
        let scope = resource_uri(self.security.hub_host(), &Identity::of_device(device.clone()));
        let path = format!(
            "/devices/{}/modules{below}?api-version={API_VERSION}",
            percent::encode(device.as_str())
        );
        let mut request = Request::builder().method(method.clone()).uri(path);
        if let Some(signer) = self.security.device_signer() {
            let expiry = self.now.unix_seconds() + TOKEN_LIFE_SECONDS;
            let token = SasToken::sign_with(&scope, expiry, None, &signer);
            let token = token.await.map_err(IdentitiesError::KeyStore)?;
            request = request.header(AUTHORIZATION, token.to_text().expose());
        }
        let is_update = body.as_ref().is_some_and(|(_, is_update)| *is_update);
        if is_update || method == Method::DELETE {
            request = request.header(IF_MATCH, "*");
        }
        let bytes = match body {
            Some((body, _)) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(bytes))
            .map_err(|error| malformed(operation, error.to_string()))
    }
}

fn path_of(id: &ModuleId) -> String {
    format!("/{}", percent::encode(id.as_str()))
}

fn read(operation: &str, module: &Value) -> Result<Registered, IdentitiesError> {
    let text = |name: &str| module.get(name).and_then(Value::as_str);
    let id = text("moduleId").ok_or_else(|| malformed(operation, "`moduleId` is missing"))?;
    let id = ModuleId::new(id).map_err(|error| malformed(operation, format!("`moduleId` is not an id: {error}")))?;
    let key = |name: &str| {
        let key = module.pointer(&format!("/authentication/symmetricKey/{name}"));
        key.and_then(Value::as_str)
            .filter(|key| !key.is_empty())
            .map(Secret::new)
    };
    Ok(Registered {
        id,
        generation: text("generationId")
            .ok_or_else(|| malformed(operation, "`generationId` is missing"))?
            .to_owned(),
        managed_by: text("managedBy").unwrap_or_default().to_owned(),
        keys: key("primaryKey").zip(key("secondaryKey")),
    })
}

/// The text of a published error body, else the body as it is, in short.
fn message_of(bytes: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(bytes).ok();
    let text = parsed.as_ref().and_then(|body| {
        let names = ["Message", "message", "ExceptionMessage"];
        names.iter().find_map(|name| body.get(name).and_then(Value::as_str))
    });
    let text = text.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
    text.chars().take(300).collect()
}

fn malformed(operation: &str, reason: impl Into<String>) -> IdentitiesError {
    IdentitiesError::Answer {
        operation: operation.to_owned(),
        reason: reason.into(),
    }
}
