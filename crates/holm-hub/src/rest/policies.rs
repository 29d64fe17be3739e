//! Shared access policies: an interface of our own. The original has it in its resource manager.
//!
//! ```text
//! GET    /holm/v1/policies                  [{"name","rights":[…],"etag"}]
//! GET    /holm/v1/policies/{name}           the same with "primaryKey" and "secondaryKey"
//! PUT    /holm/v1/policies/{name}           {"rights":["RegistryRead",…], "primaryKey"?, "secondaryKey"?}; with If-Match it changes
//! DELETE /holm/v1/policies/{name}           204
//! POST   /holm/v1/policies/{name}/rotate    {"key":"roll"|"primary"|"secondary"|"swap"}
//! ```
//!
//! Who may do this may do everything, since it could make itself a policy that may: so all rights are asked for.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use holm_model::ServiceError;

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::policies::{PolicyError, PolicyWish, Rotation};
use crate::storage::{Policy, RightSet};

/// What a policy is to be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PutBody {
    rights: Option<Vec<String>>,
    primary_key: Option<String>,
    secondary_key: Option<String>,
    // What was read may be sent back.
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "etag")]
    _etag: Option<String>,
}

impl PutBody {
    /// The same in terms of the service that has the policy.
    pub(super) fn wish<R: RightSet>(self) -> Result<PolicyWish<R>, ServiceError> {
        Ok(PolicyWish {
            rights: self.rights.map(|names| rights_of(&names)).transpose()?,
            primary: self.primary_key,
            secondary: self.secondary_key,
        })
    }
}

/// How keys are to be rotated.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    #[serde(default)]
    key: Option<String>,
}

impl RotateBody {
    pub(super) fn rotation(&self) -> Result<Rotation, ServiceError> {
        self.key.as_deref().map_or(Ok(Rotation::Roll), Rotation::of)
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        match error {
            PolicyError::NotFound(_) => Self::with_status(StatusCode::NOT_FOUND, text),
            PolicyError::Exists(_) => Self::with_status(StatusCode::CONFLICT, text),
            PolicyError::Refused(error) => error.into(),
        }
    }
}

impl RestApi {
    pub(super) fn policies(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(call, "GET"));
        }
        let all: Vec<Value> = self.backend.policies.list().iter().map(without_keys).collect();
        Ok(answer::json(&Value::Array(all)))
    }

    pub(super) async fn policy(&self, call: Call, name: String) -> Result<Answer, Failure> {
        let policies = &self.backend.policies;
        match call.method {
            Method::GET => Ok(shown(&policies.get(&name)?)),
            Method::PUT => {
                let wish = read::<PutBody>(&call)?.wish()?;
                Ok(shown(&policies.put(&name, wish, call.if_match()).await?))
            }
            Method::DELETE => {
                policies.remove(&name, call.if_match()).await?;
                Ok(answer::no_content())
            }
            _ => Err(not_allowed(&call, "GET, PUT or DELETE")),
        }
    }

    pub(super) async fn rotate_policy(&self, call: Call, name: String) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let rotation = if call.body.is_empty() {
            Rotation::Roll
        } else {
            read::<RotateBody>(&call)?.rotation()?
        };
        let if_match = call.if_match();
        Ok(shown(&self.backend.policies.rotate(&name, rotation, if_match).await?))
    }
}

fn rights_of<R: RightSet>(names: &[String]) -> Result<R, ServiceError> {
    let right = |name: &String| {
        R::of_name(name).ok_or_else(|| {
            let known = R::everything().names().join(", ");
            let shown: String = name.chars().take(50).collect();
            ServiceError::argument_invalid(format!("there is no right `{shown}`; give some of {known}"))
        })
    };
    let rights: Vec<R> = names.iter().map(right).collect::<Result<_, _>>()?;
    Ok(R::union(rights))
}

/// A policy as it is listed.
pub(super) fn without_keys<R: RightSet>(policy: &Policy<R>) -> Value {
    json!({ "name": policy.name, "rights": policy.rights.names(), "etag": policy.etag() })
}

/// A policy as it is shown by itself.
pub(super) fn with_keys<R: RightSet>(policy: &Policy<R>) -> Value {
    let mut document = without_keys(policy);
    document["primaryKey"] = json!(policy.primary.to_base64().expose());
    document["secondaryKey"] = json!(policy.secondary.to_base64().expose());
    document
}

fn shown<R: RightSet>(policy: &Policy<R>) -> Answer {
    answer::json_with_etag(&with_keys(policy))
}
