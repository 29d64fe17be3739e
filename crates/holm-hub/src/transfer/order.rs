//! What is ordered with a job, and where its blobs are.

use holm_model::{ErrorCode, ServiceError};
use serde::{Deserialize, Serialize};

/// What a job does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It reads devices from a blob.
    Import,
    /// It writes all devices to a blob.
    Export,
}

impl Kind {
    /// The published word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Export => "export",
        }
    }
}

/// A job as it was ordered. Signatures are not kept: they were checked.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Order {
    /// What it does.
    pub kind: Kind,
    /// The container that an import reads.
    pub input_container: Option<String>,
    /// The blob in it.
    pub input_blob: String,
    /// The container for what is written.
    pub output_container: String,
    /// The blob that an export writes.
    pub output_blob: String,
    /// Whether an export leaves out keys.
    pub exclude_keys: bool,
    /// The blob of configurations, in the same container, where they are exported or imported too.
    #[serde(default)]
    pub configurations_blob: Option<String>,
}

impl Order {
    /// The blob of devices, if nobody names another. Source: `hub-service-api.md` §2.6.
    pub const DEVICES: &'static str = "devices.txt";
    /// The blob of configurations, if nobody names another. Source: `hub-service-api.md` §2.6.
    pub const CONFIGURATIONS: &'static str = "configurations.txt";
    /// The blob of errors of an import.
    pub const ERRORS: &'static str = "importErrors.log";

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads an order as it is stored.
    ///
    /// # Errors
    /// `ServerError` when it is damaged.
    pub fn from_text(text: &str) -> Result<Self, ServiceError> {
        let damaged = |_| ServiceError::new(ErrorCode::ServerError, "what was ordered with the job can't be read");
        serde_json::from_str(text).map_err(damaged)
    }
}
