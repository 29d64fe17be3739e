//! Files of devices: an upload is begun here, goes to the blob store, and is reported here.
//!
//! ```text
//! begin ──> Open(blob, until) ──finish(success)──> gone; the blob is there, and back ends are told of it (in one change)
//!                │     '─────────finish(failure)─> gone
//!                '── time over ──────────────────> gone
//! ```
//!
//! - An upload is open in the database: a hub that restarts knows it, and the signature that went with it stays good.
//! - A device has at most [`MAX_OPEN`] of them. What one begins, another can't report.
//! - Back ends are told of blobs that exist, and of nothing else.
//!
//! Source: `hub-device-protocols.md` §4.3, `hub-service-api.md` §5.3.

use std::sync::Arc;

use holm_gateway::metrics::Exposition;
use holm_model::wire::percent;
use holm_model::{DeviceId, ErrorCode, ServiceError, hex};
use serde_json::json;

use crate::Clock;
use crate::blobs::{Blobs, CONTAINER, check_name};
use crate::config::FileConfig;
use crate::notices::{NoticeKind, Notices};
use crate::storage::{Blob, OpenUpload, Repository};

/// The most uploads of a device that are open. Source: `hub-device-protocols.md` §7.
pub const MAX_OPEN: u64 = 10;
/// The most blobs of one answer.
pub const MAX_LISTED: u32 = 1000;

/// The files of a hub's devices. Clones are the same.
#[derive(Clone, Debug)]
pub struct Files {
    repository: Repository,
    blobs: Blobs,
    notices: Notices,
    clock: Clock,
    config: FileConfig,
    /// The host by which clients reach the store.
    host: Arc<str>,
}

/// What a device is told to upload by.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Names the upload.
    pub correlation: String,
    /// The blob to store, with the device before its name.
    pub blob: String,
    /// The query that lets it be stored, with the `?` before it.
    pub signature: String,
}

impl Files {
    pub(crate) fn new(
        repository: Repository,
        blobs: Blobs,
        notices: Notices,
        clock: Clock,
        config: FileConfig,
        host: &str,
    ) -> Self {
        Self {
            repository,
            blobs,
            notices,
            clock,
            config,
            host: host.into(),
        }
    }

    /// The store that the files are in.
    #[must_use]
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The host by which clients reach the store.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where a blob is.
    #[must_use]
    pub fn address(&self, blob: &str) -> String {
        let path: Vec<_> = blob.split('/').map(percent::encode).collect();
        format!("https://{}/{CONTAINER}/{}", self.host, path.join("/"))
    }

    /// Writes the figures of the store.
    pub fn write_metrics(&self, out: &mut Exposition) {
        out.gauge(
            "holm_hub_blob_bytes",
            "Bytes of the files of devices, each counted as 4 KiB at least, and of what is being stored.",
            self.blobs.used(),
        );
        out.gauge("holm_hub_blob_limit_bytes", "How many there may be.", self.config.quota);
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// `ArgumentInvalid` for a name that no blob may have; `DeviceMaximumActiveFileUploadLimitExceeded`.
    pub async fn begin(&self, device: DeviceId, name: &str) -> Result<Begun, ServiceError> {
        let blob = format!("{device}/{name}");
        if name.is_empty() {
            return Err(ServiceError::argument_invalid(
                "`blobName` is empty; give the file a name",
            ));
        }
        check_name(&blob).map_err(|why| {
            ServiceError::argument_invalid(format!("`blobName`, with the device's id before it, {why}"))
        })?;
        let digits = crate::random::bytes::<16>()?;
        let correlation = hex::encode(&digits);
        let now = self.clock.now();
        let life = i64::try_from(self.config.upload_life.as_millis()).unwrap_or(i64::MAX);
        let upload = OpenUpload {
            device: device.to_string(),
            blob: blob.clone(),
            expires: now.plus_millis(life),
        };
        let (named, expires) = (correlation.clone(), upload.expires);
        self.repository
            .change(move |transaction| {
                if transaction.open_uploads(&device, now)? >= MAX_OPEN {
                    return Err(ServiceError::new(
                        ErrorCode::DeviceMaximumActiveFileUploadLimitExceeded,
                        format!(
                            "{MAX_OPEN} uploads of device `{device}` are open, the most allowed; report what became of them, or wait until their time is over"
                        ),
                    ));
                }
                transaction.add_upload(&named, &upload)
            })
            .await?;
        Ok(Begun {
            signature: self.blobs.upload_signature(&blob, expires),
            correlation,
            blob,
        })
    }

    /// Takes a device's report on an upload.
    ///
    /// # Errors
    /// `ArgumentInvalid` where the device has no such upload, or says that it was stored and it is not.
    pub async fn finish(&self, device: DeviceId, correlation: &str, is_stored: bool) -> Result<(), ServiceError> {
        let (now, files, correlation) = (self.clock.now(), self.clone(), correlation.to_owned());
        let notices = self.notices.clone();
        let change = move |transaction: &crate::storage::Transaction<'_>| {
            let open = transaction.upload(&correlation)?;
            let open = open.filter(|open| open.device == device.as_str() && open.expires > now);
            let Some(open) = open else {
                return Err(ServiceError::argument_invalid(
                    "no upload of this `correlationId` is open; it was reported before, its time is over, or it is another device's",
                ));
            };
            let stored = transaction.blob(&open.blob)?;
            transaction.remove_upload(&correlation)?;
            if !is_stored {
                return Ok(Vec::new());
            }
            let Some(blob) = stored else {
                return Err(ServiceError::argument_invalid(format!(
                    "`isSuccess` is true, and `{}` was not stored; store it first, or report a failure",
                    open.blob
                )));
            };
            if !files.config.notifications {
                return Ok(Vec::new());
            }
            let body = files.notification(&device, &blob, now).to_string();
            let written = Notices::write(transaction, NoticeKind::FileNotification, now, body.as_bytes())?;
            Ok(vec![written])
        };
        let announced = self
            .repository
            .change_then(change, move |written| notices.announce(written));
        announced.await.map(|_| ())
    }

    fn notification(&self, device: &DeviceId, blob: &Blob, now: holm_model::Timestamp) -> serde_json::Value {
        json!({
            "deviceId": device,
            "blobUri": self.address(&blob.name),
            "blobName": blob.name,
            "lastUpdatedTime": blob.modified,
            "blobSizeInBytes": blob.size,
            "enqueuedTimeUtc": now,
        })
    }

    /// Blobs in order of their names after `after`, of one device if one is given; at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn list(&self, device: Option<DeviceId>, after: String, most: u32) -> Result<Vec<Blob>, ServiceError> {
        self.repository
            .read(move |view| view.blobs(device.as_ref(), &after, most))
            .await
    }
}
