//! The twin: what an identity should be and what it says it is.
//!
//! ```text
//! service --tags, desired--> Twin --desired--> device      version, etag: +1 with each change of tags or desired
//! device  --reported-------> Twin --reported-> service     $version of a section: +1 with each change of that section
//! ```
//!
//! A twin lives here as a value; each operation is given the time and either changes the twin as a whole or refuses and
//! leaves it as it was. Storing, telling the device and checking the etag are the caller's.
//!
//! Invariants: no change moves a version back (adopting an upstream twin that was made anew may); `$metadata` mirrors the
//! tree of its section; a section obeys [`rules`]; no section holds null except within arrays.
//!
//! Source: `hub-service-api.md` §2.4, `hub-device-protocols.md` §2.6 and §7.

pub mod patch;
pub mod rules;
mod section;
mod update;
mod view;

pub use section::Section;
pub use update::{TwinUpdate, reported_from_json};
pub use view::TwinFacts;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ErrorCode, ServiceError};
use crate::{Identity, Timestamp, etag};
use rules::Limit;

/// The twin of a device or module. Its serialised form is the stored form; the published forms are
/// [`Twin::device_view`] and [`Twin::service_view`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    #[serde(with = "identity_text")]
    identity: Identity,
    version: u64,
    tags: Map<String, Value>,
    desired: Section,
    reported: Section,
}

/// What a change of tags or desired properties did.
#[derive(Clone, Debug, PartialEq)]
pub struct TwinChange {
    /// The new version of the twin.
    pub version: u64,
    /// What to send to the device: changed keys, null for deleted ones, and `$version`; `None` when desired properties
    /// were not touched. After a replacement it holds the complete set, and nulls for what is gone.
    pub desired: Option<Map<String, Value>>,
    /// Whether tags were touched.
    pub tags: bool,
}

/// What a change of reported properties did.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedChange {
    /// The version of the reported section, for the answer to the device.
    pub version: u64,
    /// The patch as applied, with `$version`, for those who follow the twin; `None` when the patch was empty.
    pub reported: Option<Map<String, Value>>,
}

impl Twin {
    /// The twin of an identity that was just made: version 2, both sections at `$version` 1 and empty.
    #[must_use]
    pub fn new(identity: Identity, now: Timestamp) -> Self {
        Self {
            identity,
            version: 2,
            tags: Map::new(),
            desired: Section::new(now),
            reported: Section::new(now),
        }
    }

    /// Whose twin it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Counts the changes of tags and desired properties.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The etag, unquoted; it follows the version.
    #[must_use]
    pub fn etag(&self) -> String {
        etag::of_counter(self.version)
    }

    /// What services note about the identity; the device never sees it.
    #[must_use]
    pub const fn tags(&self) -> &Map<String, Value> {
        &self.tags
    }

    /// What the identity should be.
    #[must_use]
    pub const fn desired(&self) -> &Section {
        &self.desired
    }

    /// What the identity says it is.
    #[must_use]
    pub const fn reported(&self) -> &Section {
        &self.reported
    }

    /// Merges tags and desired properties (`PATCH`). A part that is absent or empty is not touched.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the path that breaks a rule; `DeviceModelMaxPropertiesExceeded` naming the section that
    /// would be too large. The twin is then as it was.
    pub fn patch(&mut self, update: &TwinUpdate, now: Timestamp) -> Result<TwinChange, ServiceError> {
        let tags = update.tags.as_ref().filter(|tags| !tags.is_empty());
        let desired = update.desired.as_ref().filter(|desired| !desired.is_empty());
        let new_tags = tags
            .map(|tags| {
                rules::check(tags, Limit::Tags)?;
                let mut merged = self.tags.clone();
                patch::apply(&mut merged, tags);
                rules::check_size(&merged, Limit::Tags)?;
                Ok::<_, ServiceError>(merged)
            })
            .transpose()?;
        let new_desired = desired
            .map(|desired| self.desired.patched(desired, Limit::Desired, now))
            .transpose()?;
        let told = desired
            .zip(new_desired.as_ref())
            .map(|(patch, new)| new.with_version(patch));
        Ok(self.commit(new_tags, new_desired, told))
    }

    /// Replaces tags and desired properties as wholes (`PUT`). A part that is absent is not touched; an empty one empties.
    ///
    /// # Errors
    /// As [`Twin::patch`].
    pub fn replace(&mut self, update: &TwinUpdate, now: Timestamp) -> Result<TwinChange, ServiceError> {
        let new_tags = update
            .tags
            .as_ref()
            .map(|tags| {
                rules::check(tags, Limit::Tags)?;
                let new = patch::without_nulls(tags);
                rules::check_size(&new, Limit::Tags)?;
                Ok::<_, ServiceError>(new)
            })
            .transpose()?;
        let new_desired = update
            .desired
            .as_ref()
            .map(|desired| self.desired.replaced(desired, Limit::Desired, now))
            .transpose()?;
        let told = new_desired.as_ref().map(|new| {
            let gone = patch::diff(self.desired.properties(), new.properties());
            new.with_version(&patch::merge(&gone, new.properties()))
        });
        Ok(self.commit(new_tags, new_desired, told))
    }

    fn commit(
        &mut self,
        tags: Option<Map<String, Value>>,
        desired: Option<Section>,
        told: Option<Map<String, Value>>,
    ) -> TwinChange {
        if tags.is_some() || desired.is_some() {
            self.version += 1;
        }
        let tags_touched = tags.is_some();
        if let Some(tags) = tags {
            self.tags = tags;
        }
        if let Some(desired) = desired {
            self.desired = desired;
        }
        TwinChange {
            version: self.version,
            desired: told,
            tags: tags_touched,
        }
    }

    /// Merges what the identity reports. An empty patch is accepted and changes nothing.
    ///
    /// # Errors
    /// `PreconditionFailed` when `expected_version` is given and not the section's; `ArgumentInvalid` naming the path that
    /// breaks a rule; `MessageTooLarge` when the section would be too large. The twin is then as it was.
    pub fn patch_reported(
        &mut self,
        patch: &Map<String, Value>,
        expected_version: Option<u64>,
        now: Timestamp,
    ) -> Result<ReportedChange, ServiceError> {
        let current = self.reported.version();
        if let Some(expected) = expected_version.filter(|expected| *expected != current) {
            return Err(ServiceError::precondition_failed(format!(
                "the reported properties have version {current}, not {expected}; read the twin and try again"
            )));
        }
        if patch.is_empty() {
            return Ok(ReportedChange {
                version: current,
                reported: None,
            });
        }
        let new = self
            .reported
            .patched(patch, Limit::Reported, now)
            .map_err(|error| match error.code {
                ErrorCode::DeviceModelMaxPropertiesExceeded => {
                    ServiceError::new(ErrorCode::MessageTooLarge, error.message)
                }
                _ => error,
            })?;
        self.reported = new;
        Ok(ReportedChange {
            version: self.reported.version(),
            reported: Some(self.reported.with_version(patch)),
        })
    }

    /// Takes over a whole desired section with its version, as an edge does after reading the twin upstream. Returns what
    /// to tell the device: the difference, or `None` when there is none.
    pub fn adopt_desired(
        &mut self,
        properties: Map<String, Value>,
        version: u64,
        now: Timestamp,
    ) -> Option<Map<String, Value>> {
        let difference = patch::diff(self.desired.properties(), &properties);
        self.desired = Section::adopted(properties, Limit::Desired, version, now);
        (!difference.is_empty()).then(|| self.desired.with_version(&difference))
    }

    /// Takes over a whole reported section with its version, as an edge does after reading the twin upstream.
    pub fn adopt_reported(&mut self, properties: Map<String, Value>, version: u64, now: Timestamp) {
        self.reported = Section::adopted(properties, Limit::Reported, version, now);
    }
}

mod identity_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::Identity;

    pub(super) fn serialize<S: Serializer>(identity: &Identity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(identity)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
