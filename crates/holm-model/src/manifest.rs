//! What shall run on an edge: the desired properties of `$edgeAgent` and `$edgeHub`, the deployment that carries both, and
//! what the edge reports about it.
//!
//! ```text
//! DeploymentContent --hub: per module--> desired properties of twins
//!                                          |-- $edgeAgent --> AgentDesired     modules to run
//!                                          |-- $edgeHub ----> EdgeHubDesired   routes, store and forward
//!                                          `-- others: the user's own
//! AgentReported, EdgeHubReported --edge--> reported properties
//! ```
//!
//! A desired section is read whole or refused whole, so the configuration in force is always one that somebody deployed.
//! A refusal names everything that is wrong, and carries the code that the edge reports as `lastDesiredStatus`. Unknown
//! members are passed over: hubs add their own (`configuration`, `$version`).
//!
//! Source: `edge-agent.md` §1 and §2.5, `edge-broker.md` §6.

mod agent;
mod content;
mod create_options;
mod edge_hub;
mod fields;
mod module;
mod reported;

pub use agent::{AgentDesired, RegistryCredential, RuntimeSettings};
pub use content::{DeploymentContent, ModuleContent};
pub(crate) use content::{desired_path, parse_unique, remove_path, set_path};
pub use create_options::chunks as create_options_chunks;
pub use edge_hub::{EdgeHubDesired, ForwardOrder, RouteSpec, StoreAndForward, WhenFull};
pub use module::{ImagePullPolicy, LAST_STARTUP_ORDER, ModuleSpec, ModuleStatus, ModuleType, RestartPolicy};
pub use reported::{
    AgentReported, BuildVersion, ClientReported, DesiredStatus, EdgeHubReported, ModuleReported, Platform,
    RuntimeReported, RuntimeSettingsReported, RuntimeStatus, SystemModulesReported, client_key,
};

/// Why desired properties can't be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nothing was deployed yet.
    #[error("This device has an empty configuration for the edge agent. Please set a deployment manifest.")]
    Empty,
    /// The agent's schema version can't be read.
    #[error("Invalid desired properties schema version {0}")]
    SchemaVersion(String),
    /// The agent's schema version is newer than, or foreign to, what is known here.
    #[error("The desired properties schema version {0} is not compatible with the expected version 1.1.0")]
    SchemaTooNew(String),
    /// Something in `$edgeAgent` breaks a rule; each with its path.
    #[error("Agent configuration format is invalid. {}", .0.join("; "))]
    Agent(Vec<String>),
    /// Something in `$edgeHub` breaks a rule; each with its path.
    #[error("{}", .0.join("; "))]
    EdgeHub(Vec<String>),
}

impl ConfigError {
    /// The code for `lastDesiredStatus`: 400, 412 or 417.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Empty => 417,
            Self::SchemaVersion(_) | Self::SchemaTooNew(_) => 412,
            Self::Agent(_) | Self::EdgeHub(_) => 400,
        }
    }
}

/// Reads `major.minor[.patch]`.
fn schema_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split('.').map(|number| number.parse::<u32>());
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let is_rest_numeric = numbers.all(|number| number.is_ok());
    is_rest_numeric.then_some((major, minor))
}

/// Whether a desired section holds nothing but what the hub adds.
fn is_empty(desired: &serde_json::Map<String, serde_json::Value>) -> bool {
    desired.keys().all(|name| name.starts_with('$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_version_has_two_numbers_or_three() {
        assert_eq!(schema_version("1.0"), Some((1, 0)));
        assert_eq!(schema_version("1.1.0"), Some((1, 1)));
        for text in ["", "1", "x", "1.x", "1.0.x", "-1.0"] {
            assert_eq!(schema_version(text), None, "{text}");
        }
    }

    #[test]
    fn codes_are_the_published_ones() {
        assert_eq!(ConfigError::Empty.code(), 417);
        assert_eq!(ConfigError::SchemaTooNew("2.0".into()).code(), 412);
        assert_eq!(ConfigError::Agent(vec![]).code(), 400);
    }
}
