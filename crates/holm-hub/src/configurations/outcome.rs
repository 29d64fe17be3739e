//! What an edge says of the deployment that it has: from the twin of its `$edgeAgent`.
//!
//! Source: `hub-service-api.md` §3.5.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// How the deployment went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// It was not said of the present one.
    #[default]
    Unknown,
    /// It is in force.
    Successful,
    /// It could not be put in force.
    Failed,
}

#[derive(Deserialize)]
struct Stored<'d> {
    desired: Desired,
    #[serde(borrow)]
    reported: Reported<'d>,
}

#[derive(Deserialize)]
struct Desired {
    version: u64,
}

#[derive(Deserialize)]
struct Reported<'d> {
    #[serde(borrow)]
    properties: &'d RawValue,
}

impl Outcome {
    /// Reads the stored twin of an agent.
    pub(super) fn read(document: &str) -> Self {
        let Ok(stored) = serde_json::from_str::<Stored<'_>>(document) else {
            return Self::Unknown;
        };
        let Ok(reported) = serde_json::from_str::<Value>(stored.reported.properties.get()) else {
            return Self::Unknown;
        };
        let number = |pointer: &str| reported.pointer(pointer).and_then(Value::as_u64);
        if number("/lastDesiredVersion") != Some(stored.desired.version) {
            return Self::Unknown;
        }
        match number("/lastDesiredStatus/code") {
            Some(200) => Self::Successful,
            Some(_) => Self::Failed,
            None => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Acceptance row 65.
    #[test]
    fn what_is_said_of_another_version_is_no_outcome() {
        let read = |reported: Value| {
            let document = json!({"identity": "e/$edgeAgent", "version": 4, "tags": {},
                "desired": {"properties": {}, "metadata": {}, "version": 3},
                "reported": {"properties": reported, "metadata": {}, "version": 1}});
            Outcome::read(&document.to_string())
        };

        assert_eq!(read(json!({})), Outcome::Unknown);
        for (version, code, outcome) in [
            (3, 200, Outcome::Successful),
            (3, 400, Outcome::Failed),
            (2, 200, Outcome::Unknown),
        ] {
            let reported = json!({"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}});
            assert_eq!(read(reported), outcome);
        }
    }
}
