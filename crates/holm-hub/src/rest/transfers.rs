//! Import and export jobs, and the containers that they read and write.
//!
//! ```text
//! POST   /jobs/create            {"type":"export","outputBlobContainerUri":"https://{hub}/containers/{name}?{signature}",…} -> the job
//! GET    /jobs, /jobs/{id}
//! DELETE /jobs/{id}              cancel, 204
//! PUT    /holm/v1/containers/{name}?life=3600    {"uri":"https://{hub}/containers/{name}?{signature}","expires":…} (ours)
//! ```
//!
//! Source: `hub-service-api.md` §2.6.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use holm_model::{ErrorCode, ServiceError};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::blobs::{CONTAINERS, check_blob_name, check_container_name};
use crate::files::Files;
use crate::storage::Transfer;
use crate::transfer::{Kind, Order, Transfers};

/// How long a container is open if nobody says, in seconds.
const LIFE: i64 = 3600;
/// The longest that it may be, in seconds.
const MAX_LIFE: i64 = 24 * 3600;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateBody {
    #[serde(rename = "type")]
    kind: String,
    input_blob_container_uri: Option<String>,
    input_blob_name: Option<String>,
    output_blob_container_uri: Option<String>,
    output_blob_name: Option<String>,
    #[serde(default)]
    exclude_keys_in_export: Option<bool>,
    storage_authentication_type: Option<String>,
    #[serde(default)]
    include_configurations: Option<bool>,
    configurations_blob_name: Option<String>,
}

impl RestApi {
    fn transfers(&self) -> Result<(&Transfers, &Files), Failure> {
        let text = "this hub has no blob store for jobs: its operator has turned it off (`holm hub run --no-files`)";
        let refused = || Failure::from(ServiceError::new(ErrorCode::BlobContainerValidationError, text));
        self.transfers.as_ref().zip(self.files.as_ref()).ok_or_else(refused)
    }

    pub(super) async fn create_transfer(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let order = self.order(&read::<CreateBody>(&call)?)?;
        let (transfers, files) = self.transfers()?;
        Ok(answer::json(&shown(&transfers.create(order).await?, files)))
    }

    fn order(&self, body: &CreateBody) -> Result<Order, Failure> {
        let kind = match body.kind.to_ascii_lowercase().as_str() {
            "import" => Kind::Import,
            "export" => Kind::Export,
            _ => {
                let shown: String = body.kind.chars().take(50).collect();
                let text = format!("`type` is `{shown}`; give `import` or `export`");
                return Err(ServiceError::argument_invalid(text).into());
            }
        };
        let is_trusted = body
            .storage_authentication_type
            .as_deref()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("identityBased"));
        let container = |name: &str, address: &Option<String>, writes: bool| {
            let address = address.as_deref().filter(|address| !address.is_empty());
            let address = address.ok_or_else(|| {
                let text = format!("`{name}` is missing; give the address of a container");
                ServiceError::new(ErrorCode::BlobContainerValidationError, text)
            })?;
            let (_, files) = self.transfers()?;
            Ok::<_, Failure>(files.blobs().container_at(address, &self.hosts, writes, is_trusted)?)
        };
        let blob = |name: &Option<String>, usual: &str| {
            let name = name.as_deref().filter(|name| !name.is_empty()).unwrap_or(usual);
            check_blob_name(name)?;
            Ok::<_, ServiceError>(name.to_owned())
        };
        let configurations = match body.include_configurations {
            Some(true) => Some(blob(&body.configurations_blob_name, Order::CONFIGURATIONS)?),
            _ => None,
        };
        let input = match kind {
            Kind::Import => Some(container(
                "inputBlobContainerUri",
                &body.input_blob_container_uri,
                false,
            )?),
            Kind::Export => None,
        };
        Ok(Order {
            kind,
            input_container: input,
            input_blob: blob(&body.input_blob_name, Order::DEVICES)?,
            output_container: container("outputBlobContainerUri", &body.output_blob_container_uri, true)?,
            output_blob: blob(&body.output_blob_name, Order::DEVICES)?,
            exclude_keys: body.exclude_keys_in_export.unwrap_or(false),
            configurations_blob: configurations,
        })
    }

    pub(super) async fn list_transfers(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let (transfers, files) = self.transfers()?;
        let all = transfers.list().await?;
        Ok(answer::json(&Value::Array(
            all.iter().map(|job| shown(job, files)).collect(),
        )))
    }

    pub(super) async fn transfer(&self, call: Call, id: String) -> Result<Answer, Failure> {
        let (transfers, files) = self.transfers()?;
        match call.method {
            Method::GET => Ok(answer::json(&shown(&transfers.get(id).await?, files))),
            Method::DELETE => {
                transfers.cancel(id).await?;
                Ok(answer::no_content())
            }
            _ => Err(not_allowed(&call, "GET or DELETE")),
        }
    }

    /// Gives the address by which a container is open for a while.
    pub(super) fn container(&self, call: &Call, name: &str) -> Result<Answer, Failure> {
        if call.method != Method::PUT {
            return Err(not_allowed(call, "PUT"));
        }
        check_container_name(name)?;
        let (_, files) = self.transfers()?;
        let life = match call.query.get("life") {
            None | Some("") => LIFE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|life| (60..=MAX_LIFE).contains(life))
                .ok_or_else(|| {
                    ServiceError::argument_invalid(format!("`life` is `{text}`; give 60 to {MAX_LIFE} seconds"))
                })?,
        };
        let expires = self.backend.clock.now().plus_millis(life * 1000);
        let signature = files.blobs().container_signature(name, expires);
        let document = json!({ "uri": format!("{}{signature}", address(files, name)), "expires": expires });
        Ok(answer::json_as(StatusCode::OK, &document))
    }
}

fn address(files: &Files, container: &str) -> String {
    format!("https://{}/{CONTAINERS}/{container}", files.host())
}

fn shown(transfer: &Transfer, files: &Files) -> Value {
    let done = match (transfer.status.as_str(), transfer.total) {
        ("completed", _) => 100,
        (_, 0) => 0,
        (_, total) => (transfer.done.saturating_mul(100) / total).min(100),
    };
    let mut document = json!({
        "jobId": transfer.id,
        "startTimeUtc": transfer.created,
        "status": transfer.status,
        "progress": done,
    });
    if let Some(ended) = transfer.ended {
        document["endTimeUtc"] = json!(ended);
    }
    if let Some(failure) = &transfer.failure {
        document["failureReason"] = json!(failure);
    }
    if let Ok(order) = Order::from_text(&transfer.order) {
        document["type"] = json!(order.kind.name());
        document["outputBlobContainerUri"] = json!(address(files, &order.output_container));
        document["excludeKeysInExport"] = json!(order.exclude_keys);
        document["includeConfigurations"] = json!(order.configurations_blob.is_some());
        if let Some(blob) = &order.configurations_blob {
            document["configurationsBlobName"] = json!(blob);
        }
        match (&order.input_container, order.kind) {
            (Some(input), Kind::Import) => {
                document["inputBlobContainerUri"] = json!(address(files, input));
                document["inputBlobName"] = json!(order.input_blob);
            }
            _ => document["outputBlobName"] = json!(order.output_blob),
        }
    }
    document
}
