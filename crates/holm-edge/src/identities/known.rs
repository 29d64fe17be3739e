//! What is known of the modules, in memory and on disk.

use std::collections::BTreeMap;
use std::path::Path;

use holm_identity::private_file;
use holm_model::{DeviceId, ModuleId};
use serde::{Deserialize, Serialize};

use super::IdentitiesError;

/// The format of the file.
pub(super) const FORMAT: u32 = 1;
/// Fifty modules of a deployment take a tenth of this.
const MAX_BYTES: u64 = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    format: u32,
    hub: String,
    device: DeviceId,
    pub(super) modules: BTreeMap<ModuleId, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) generation: String,
    pub(super) managed_by: String,
    /// The hub has our keys.
    pub(super) has_keys: bool,
    /// It was in a deployment here, so it may be deleted when it is in none any more.
    pub(super) was_deployed: bool,
    /// Since when it is known, in seconds since 1970; 0 in files of releases that did not note it.
    #[serde(default)]
    pub(super) known_since: i64,
}

/// A module as the management API tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityInfo {
    /// Its id.
    pub module_id: ModuleId,
    /// Who looks after it.
    pub managed_by: String,
    /// Which module of this name it is.
    pub generation_id: String,
    /// How it proves itself: `sas`.
    pub auth_type: String,
}

impl Known {
    pub(super) fn new(hub: &str, device: &DeviceId) -> Self {
        Self {
            format: FORMAT,
            hub: hub.to_owned(),
            device: device.clone(),
            modules: BTreeMap::new(),
        }
    }

    pub(super) fn belongs_to(&self, hub: &str, device: &DeviceId) -> bool {
        self.hub.eq_ignore_ascii_case(hub) && self.device == *device
    }

    pub(super) fn generation(&self, module: &ModuleId) -> Option<&str> {
        self.modules.get(module).map(|entry| entry.generation.as_str())
    }

    pub(super) fn modules(&self) -> Vec<ModuleId> {
        self.modules.keys().cloned().collect()
    }

    pub(super) fn generations(&self) -> Vec<(&ModuleId, &str)> {
        let all = self.modules.iter();
        all.map(|(id, entry)| (id, entry.generation.as_str())).collect()
    }

    pub(super) fn list(&self) -> Vec<IdentityInfo> {
        let all = self.modules.iter();
        all.map(|(id, entry)| IdentityInfo {
            module_id: id.clone(),
            managed_by: entry.managed_by.clone(),
            generation_id: entry.generation.clone(),
            auth_type: "sas".to_owned(),
        })
        .collect()
    }
}

pub(super) fn load(path: &Path) -> Result<Option<Known>, IdentitiesError> {
    let bytes = match private_file::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(IdentitiesError::Cache(error)),
    };
    match serde_json::from_slice::<Known>(&bytes) {
        Ok(known) if known.format == FORMAT => Ok(Some(known)),
        _ if is_of_another_format(&bytes) => Err(IdentitiesError::CacheContent(path.to_owned())),
        _ => {
            let kept = path.with_extension("json.damaged");
            std::fs::rename(path, &kept).map_err(|source| IdentitiesError::CacheDamaged {
                path: path.to_owned(),
                source,
            })?;
            tracing::error!(
                kept = %kept.display(),
                "the memory of identities is damaged and was put aside: modules can't log in until the hub is reached"
            );
            Ok(None)
        }
    }
}

/// Whether another release has written it.
fn is_of_another_format(bytes: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    value
        .and_then(|value| value.get("format")?.as_u64())
        .is_some_and(|format| format != u64::from(FORMAT))
}

pub(super) fn store(path: &Path, known: &Known) -> Result<(), IdentitiesError> {
    let text = serde_json::to_vec_pretty(known).expect("names and texts always have a form in JSON");
    private_file::write(path, &text).map_err(IdentitiesError::Cache)
}
