//! Many identities in one request: a bulk change, and new keys.
//!
//! ```text
//! POST /devices                     [{"id":"d1","importMode":"create",…}] -> 200, or 400 when anything failed, with the same body
//!                                   {"isSuccessful":false,"errors":[{"deviceId":…,"errorCode":"DeviceAlreadyExists",…}],"warnings":[]}
//! POST /devices/keys/regenerate     {"policyKey":"primaryKey","devices":[{"id":"d1","moduleId":null}]} -> 200, or 207 with errors
//! ```
//!
//! Source: `hub-service-api.md` §2.2, §2.3.

use std::collections::HashSet;

use holm_model::{DeviceId, ErrorCode, Identity, ModuleId, ServiceError};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::registry::{MAX_BULK, PolicyKey, bulk_items};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RegenerateBody {
    policy_key: String,
    devices: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    id: String,
    #[serde(default)]
    module_id: Option<String>,
}

impl Named {
    fn identity(&self) -> Result<Identity, ServiceError> {
        let invalid = |error: holm_model::InvalidId| ServiceError::argument_invalid(error.to_string());
        let module = self.module_id.as_deref().filter(|module| !module.is_empty());
        Ok(Identity {
            device: DeviceId::new(&self.id).map_err(invalid)?,
            module: module.map(ModuleId::new).transpose().map_err(invalid)?,
        })
    }
}

impl RestApi {
    /// What C# takes for the result and not for a failure has the header: any other 400 it throws.
    pub(super) async fn bulk(&self, call: Call) -> Result<Answer, Failure> {
        let outcome = self.registry.bulk(bulk_items(&call.body)?).await?;
        let is_successful = outcome.errors.is_empty();
        let errors: Vec<Value> = outcome.errors.iter().map(Value::from).collect();
        let document = json!({ "isSuccessful": is_successful, "errors": errors, "warnings": [] });
        if is_successful {
            return Ok(answer::json(&document));
        }
        Ok(answer::failed_with(ErrorCode::BulkRegistryOperationFailure, &document))
    }

    pub(super) async fn regenerate_keys(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let body: RegenerateBody = read(&call)?;
        let which = PolicyKey::of(&body.policy_key)?;
        if body.devices.len() > MAX_BULK {
            let text = format!(
                "`devices` has {} items; send at most {MAX_BULK} at once",
                body.devices.len()
            );
            return Err(ServiceError::argument_invalid(text).into());
        }
        let identities: Vec<Identity> = body.devices.iter().map(Named::identity).collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = identities.iter().find(|identity| !seen.insert(*identity)) {
            let text = format!("`{twice}` stands more than once in the request; name it once");
            return Err(ServiceError::new(ErrorCode::DeviceDefinedMultipleTimes, text).into());
        }
        let (mut rotated, mut errors) = (Vec::new(), Vec::new());
        for (identity, keys) in self.registry.regenerate_keys(identities, which).await? {
            let mut told = json!({ "id": identity.device, "moduleId": identity.module });
            match keys {
                Ok(keys) => {
                    told["primaryKey"] = json!(keys.primary.to_base64().expose());
                    told["secondaryKey"] = json!(keys.secondary.to_base64().expose());
                    rotated.push(told);
                }
                Err(error) => {
                    told["errorCode"] = json!(error.code.name());
                    told["errorStatus"] = json!(error.message);
                    errors.push(told);
                }
            }
        }
        let status = if errors.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::MULTI_STATUS
        };
        let document = json!({ "policyKey": body.policy_key, "rotatedKeys": rotated, "errors": errors });
        Ok(answer::json_as(status, &document))
    }
}
