//! What the provisioning service goes by, beside enrollments: an interface of our own. The original has it in its resource
//! manager.
//!
//! ```text
//! GET    /holm/v1/provisioning/policies                  as /holm/v1/policies, with permissions of the service
//! GET    /holm/v1/provisioning/policies/{name}
//! PUT    /holm/v1/provisioning/policies/{name}
//! DELETE /holm/v1/provisioning/policies/{name}
//! POST   /holm/v1/provisioning/policies/{name}/rotate
//! GET    /holm/v1/provisioning/hubs                      [{"hostName","policy","isOwn","allocationWeight","applyAllocationPolicy","etag"}]
//! GET    /holm/v1/provisioning/hubs/{host}
//! PUT    /holm/v1/provisioning/hubs/{host}               {"connectionString"?,"certificateAuthority"?,"allocationWeight"?,"applyAllocationPolicy"?}
//! DELETE /holm/v1/provisioning/hubs/{host}
//! GET    /holm/v1/provisioning/certificates              [{"name","info","isVerified","etag",…}]
//! GET    /holm/v1/provisioning/certificates/{name}
//! PUT    /holm/v1/provisioning/certificates/{name}       {"certificate"?,"isVerified"?}; with If-Match it changes
//! DELETE /holm/v1/provisioning/certificates/{name}
//! POST   /holm/v1/provisioning/certificates/{name}/code      {…,"verificationCode"}
//! POST   /holm/v1/provisioning/certificates/{name}/verify    {"certificate"}
//! ```
//!
//! What opens a linked hub is written and never read.
//!
//! Errors have the provisioning service's form.

use holm_identity::Secret;
use holm_model::{ProvisioningCode, ProvisioningError};
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::RestApi;
use super::answer::{Answer, json as answer_json, json_with_etag, no_content};
use super::policies::{PutBody, RotateBody, with_keys, without_keys};
use super::provisioning::{Call, not_allowed};
use crate::policies::{PolicyError, Rotation};
use crate::provisioning::{CertificateWish, HubWish, ProvisioningRights};

/// What a path below `/holm/v1/provisioning` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Policies,
    Policy(String),
    RotatePolicy(String),
    Hubs,
    Hub(String),
    Certificates,
    Certificate(String),
    CertificateCode(String),
    VerifyCertificate(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CertificateBody {
    certificate: Option<String>,
    is_verified: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofBody {
    certificate: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HubBody {
    connection_string: Option<String>,
    certificate_authority: Option<String>,
    allocation_weight: Option<u32>,
    apply_allocation_policy: Option<bool>,
    // What was read may be sent back.
    #[serde(rename = "hostName")]
    _host_name: Option<Value>,
    #[serde(rename = "policy")]
    _policy: Option<Value>,
    #[serde(rename = "isOwn")]
    _is_own: Option<Value>,
    #[serde(rename = "etag")]
    _etag: Option<Value>,
}

impl Setting {
    /// Reads the decoded segments behind `/holm/v1/provisioning`.
    pub(super) fn of(segments: &[String]) -> Option<Self> {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        Some(match parts.as_slice() {
            ["policies"] => Self::Policies,
            ["policies", name] => Self::Policy((*name).to_owned()),
            ["policies", name, "rotate"] => Self::RotatePolicy((*name).to_owned()),
            ["hubs"] => Self::Hubs,
            ["certificates"] => Self::Certificates,
            ["certificates", name] => Self::Certificate((*name).to_owned()),
            ["certificates", name, "code"] => Self::CertificateCode((*name).to_owned()),
            ["certificates", name, "verify"] => Self::VerifyCertificate((*name).to_owned()),
            ["hubs", host] => Self::Hub((*host).to_owned()),
            _ => return None,
        })
    }

    /// Which permission a request wants. Who may change policies may do everything, since it could make itself one that may.
    pub(super) const fn right(&self) -> ProvisioningRights {
        match self {
            Self::Policies | Self::Policy(_) | Self::RotatePolicy(_) => ProvisioningRights::ALL,
            _ => ProvisioningRights::SERVICE_CONFIG,
        }
    }
}

impl From<PolicyError> for ProvisioningError {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        match error {
            PolicyError::NotFound(_) => Self::not_found(text),
            PolicyError::Exists(_) => Self::new(ProvisioningCode::Conflict, text),
            PolicyError::Refused(error) => error.into(),
        }
    }
}

impl RestApi {
    pub(super) async fn provisioning_setting(
        &self,
        call: &Call<'_>,
        setting: Setting,
    ) -> Result<Answer, ProvisioningError> {
        match setting {
            Setting::Policies => {
                if call.method != Method::GET {
                    return Err(not_allowed(call.method, "GET"));
                }
                let all: Vec<Value> = self
                    .backend
                    .provisioning
                    .policies()
                    .list()
                    .iter()
                    .map(without_keys)
                    .collect();
                Ok(answer_json(&Value::Array(all)))
            }
            Setting::Policy(name) => self.provisioning_policy(call, &name).await,
            Setting::RotatePolicy(name) => {
                if call.method != Method::POST {
                    return Err(not_allowed(call.method, "POST"));
                }
                let rotation = if call.body.is_empty() {
                    Rotation::Roll
                } else {
                    read::<RotateBody>(call)?.rotation()?
                };
                let policies = self.backend.provisioning.policies();
                let rotated = policies.rotate(&name, rotation, call.if_match()).await?;
                Ok(json_with_etag(&with_keys(&rotated)))
            }
            Setting::Hubs => {
                if call.method != Method::GET {
                    return Err(not_allowed(call.method, "GET"));
                }
                Ok(answer_json(&Value::Array(self.backend.provisioning.hubs())))
            }
            Setting::Hub(host) => self.linked_hub(call, &host).await,
            Setting::Certificates => {
                if call.method != Method::GET {
                    return Err(not_allowed(call.method, "GET"));
                }
                Ok(answer_json(&Value::Array(self.backend.provisioning.certificates())))
            }
            Setting::Certificate(name) => self.kept_certificate(call, &name).await,
            Setting::CertificateCode(name) => {
                if call.method != Method::POST {
                    return Err(not_allowed(call.method, "POST"));
                }
                let code = self.backend.provisioning.verification_code(&name, call.if_match());
                Ok(json_with_etag(&code.await?))
            }
            Setting::VerifyCertificate(name) => {
                if call.method != Method::POST {
                    return Err(not_allowed(call.method, "POST"));
                }
                let proof = read::<ProofBody>(call)?.certificate;
                let service = &self.backend.provisioning;
                let verified = service.verify_certificate(&name, &proof, call.if_match());
                Ok(json_with_etag(&verified.await?))
            }
        }
    }

    async fn kept_certificate(&self, call: &Call<'_>, name: &str) -> Result<Answer, ProvisioningError> {
        let service = &self.backend.provisioning;
        match *call.method {
            Method::GET => Ok(json_with_etag(&service.certificate(name)?)),
            Method::PUT => {
                let body: CertificateBody = read(call)?;
                let wish = CertificateWish {
                    certificate: body.certificate,
                    is_verified: body.is_verified,
                };
                let put = service.put_certificate(name, wish, call.if_match());
                Ok(json_with_etag(&put.await?))
            }
            Method::DELETE => {
                service.remove_certificate(name, call.if_match()).await?;
                Ok(no_content())
            }
            _ => Err(not_allowed(call.method, "GET, PUT or DELETE")),
        }
    }

    async fn linked_hub(&self, call: &Call<'_>, host: &str) -> Result<Answer, ProvisioningError> {
        let service = &self.backend.provisioning;
        match *call.method {
            Method::GET => Ok(json_with_etag(&service.hub(host)?)),
            Method::PUT => {
                let body: HubBody = read(call)?;
                let wish = HubWish {
                    connection_string: body.connection_string.filter(|text| !text.is_empty()).map(Secret::new),
                    authority: body.certificate_authority,
                    weight: body.allocation_weight,
                    is_allocated: body.apply_allocation_policy,
                };
                let put = service.put_hub(host, wish, call.if_match());
                Ok(json_with_etag(&put.await?))
            }
            Method::DELETE => {
                service.remove_hub(host, call.if_match()).await?;
                Ok(no_content())
            }
            _ => Err(not_allowed(call.method, "GET, PUT or DELETE")),
        }
    }

    async fn provisioning_policy(&self, call: &Call<'_>, name: &str) -> Result<Answer, ProvisioningError> {
        let policies = self.backend.provisioning.policies();
        match *call.method {
            Method::GET => Ok(json_with_etag(&with_keys(&policies.get(name)?))),
            Method::PUT => {
                let wish = read::<PutBody>(call)?.wish()?;
                let policy = policies.put(name, wish, call.if_match()).await?;
                Ok(json_with_etag(&with_keys(&policy)))
            }
            Method::DELETE => {
                policies.remove(name, call.if_match()).await?;
                Ok(no_content())
            }
            _ => Err(not_allowed(call.method, "GET, PUT or DELETE")),
        }
    }
}

fn read<T: DeserializeOwned>(call: &Call<'_>) -> Result<T, ProvisioningError> {
    serde_json::from_slice(call.body)
        .map_err(|error| ProvisioningError::argument_invalid(format!("the body is not what this call takes: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_setting_is_told_apart() {
        let of = |path: &str| Setting::of(&path.split('/').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("policies/a"), Some(Setting::Policy("a".to_owned())));
        assert_eq!(of("policies/a/rotate"), Some(Setting::RotatePolicy("a".to_owned())));
        assert_eq!(of("hubs/hub.test"), Some(Setting::Hub("hub.test".to_owned())));
        for other in ["", "policies/a/b", "hubs/a/b", "colours"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
