//! Files of devices: what devices ask when they upload, and the list for operators.
//!
//! ```text
//! POST /devices/{d}/files                        {"blobName":"a/b.jpg"} -> where and by what it may be stored
//! POST /devices/{d}/files/notifications[/{id}]   {"correlationId":"…","isSuccess":true,…} -> 204
//! GET  /holm/v1/files?device=&after=&top=        (ours)
//! ```
//!
//! Source: `hub-device-protocols.md` §4.3.

use holm_model::{DeviceId, ServiceError};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, page_size, read};
use crate::blobs::CONTAINER;
use crate::files::{Files, MAX_LISTED};
use crate::storage::Blob;

#[derive(Deserialize)]
struct BeginBody {
    #[serde(rename = "blobName")]
    blob_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReportBody {
    correlation_id: Option<String>,
    is_success: bool,
    status_code: Option<i64>,
    status_description: Option<String>,
}

impl RestApi {
    fn files(&self) -> Result<&Files, Failure> {
        // Which name goes with a hub without storage is not published.
        let text = "this hub takes no files: its operator has turned them off (`holm hub run --no-files`)";
        self.files
            .as_ref()
            .ok_or_else(|| Failure::with_status(StatusCode::FORBIDDEN, text))
    }

    pub(super) async fn begin_upload(&self, call: Call, device: DeviceId) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let files = self.files()?;
        let body: BeginBody = read(&call)?;
        let begun = files.begin(device, &body.blob_name).await?;
        Ok(answer::json(&json!({
            "correlationId": begun.correlation,
            "hostName": files.host(),
            "containerName": CONTAINER,
            "blobName": begun.blob,
            "sasToken": begun.signature,
        })))
    }

    pub(super) async fn report_upload(
        &self,
        call: Call,
        device: DeviceId,
        correlation: Option<String>,
    ) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let files = self.files()?;
        let body: ReportBody = read(&call)?;
        let Some(correlation) = correlation.or(body.correlation_id) else {
            let text = "`correlationId` is missing; give it in the body or at the end of the path";
            return Err(ServiceError::argument_invalid(text).into());
        };
        files.finish(device.clone(), &correlation, body.is_success).await?;
        if !body.is_success {
            let (status, why) = (body.status_code, body.status_description.unwrap_or_default());
            let why: String = why.chars().take(200).collect();
            tracing::info!(%device, status, why, "a device reports that an upload failed");
        }
        Ok(answer::no_content())
    }

    pub(super) async fn list_files(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        const KNOWN: [&str; 4] = ["device", "after", "top", "api-version"];
        if let Some(name) = call.query.names().find(|name| !KNOWN.contains(name)) {
            let text = format!("there is no parameter `{name}`; give `device`, `after`, `top`");
            return Err(ServiceError::argument_invalid(text).into());
        }
        let files = self.files()?;
        let device = call.query.get("device").filter(|device| !device.is_empty());
        let device = device
            .map(DeviceId::new)
            .transpose()
            .map_err(|error| ServiceError::argument_invalid(format!("`device`: {error}")))?;
        let most = page_size(&call, MAX_LISTED)?;
        let after = call.query.get("after").unwrap_or_default().to_owned();
        let blobs = files.list(device, after, most).await?;
        let all: Vec<Value> = blobs.iter().map(|blob| shown(files, blob)).collect();
        Ok(answer::json(&Value::Array(all)))
    }
}

fn shown(files: &Files, blob: &Blob) -> Value {
    let said: Value = serde_json::from_str(&blob.headers).unwrap_or_default();
    json!({
        "deviceId": blob.name.split('/').next(),
        "blobName": blob.name,
        "blobUri": files.address(&blob.name),
        "blobSizeInBytes": blob.size,
        "lastUpdatedTime": blob.modified,
        "contentType": said["content-type"],
        "etag": blob.etag,
    })
}
