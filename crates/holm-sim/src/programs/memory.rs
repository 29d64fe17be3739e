//! What a program remembers of its twin, and what must hold of the versions that it is told.

use holm_model::twin::patch;
use serde_json::{Map, Value};

use super::Surroundings;

/// What a program remembers of its twin, over its restarts.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The reported section, as it was told that it is.
    pub said: Map<String, Value>,
    /// A report was sent and its outcome is not known.
    pub unsure: bool,
    /// The desired section, as it was told.
    pub told: Map<String, Value>,
    /// The highest versions that it was told: desired, reported.
    versions: (u64, u64),
    pub(super) reports: u64,
    /// Methods that it called, or answered.
    pub methods: u64,
}

fn section(twin: &Value, name: &str) -> (Map<String, Value>, u64) {
    let mut properties = twin[name].as_object().cloned().unwrap_or_default();
    let version = properties.remove("$version").and_then(|version| version.as_u64());
    (properties, version.unwrap_or_else(|| panic!("no version in {twin}")))
}

/// Takes the twin as the edge tells it.
pub(super) fn take_twin(own: &Surroundings, name: &str, twin: &Value, settles_reported: bool) {
    let ((desired, desired_version), (reported, reported_version)) =
        (section(twin, "desired"), section(twin, "reported"));
    own.remember(name, |memory| {
        // An answer may be overtaken by a change that came after it was made.
        if desired_version >= memory.versions.0 {
            memory.versions.0 = desired_version;
            memory.told = desired;
        }
        assert!(
            reported_version >= memory.versions.1,
            "{name}: the reported version went back from {} to {reported_version}",
            memory.versions.1
        );
        memory.versions.1 = reported_version;
        if settles_reported && memory.unsure {
            memory.said = reported;
            memory.unsure = false;
        } else if !memory.unsure {
            assert_eq!(
                reported, memory.said,
                "{name}: its own reports, as the edge has them, and as it made them"
            );
        }
    });
}

/// Takes a change of desired properties.
pub(super) fn take_change(own: &Surroundings, name: &str, changes: &Map<String, Value>) {
    let mut changes = changes.clone();
    let version = changes.remove("$version").and_then(|version| version.as_u64());
    let version = version.unwrap_or_else(|| panic!("{name}: a change without a version"));
    own.remember(name, |memory| {
        // One that a twin read in between has told already.
        if version <= memory.versions.0 {
            return;
        }
        patch::apply(&mut memory.told, &changes);
        memory.versions.0 = version;
    });
}
