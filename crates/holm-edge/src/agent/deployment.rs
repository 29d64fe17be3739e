//! Which deployment is in force: the desired properties of `$edgeAgent`, the last of them that could be read, and both kept
//! over restarts.
//!
//! ```text
//! twin or patch --> received (desired, version) --parse--> good: in force, kept | bad: status for the report
//! ```
//!
//! - A deployment that can't be read changes nothing: the last good one stays in force, also after a restart without a hub.
//! - A patch is applied only when it is the next version; else the whole twin must be read.
//!
//! Source: `edge-agent.md` §1.4 and §2.1.

use holm_model::manifest::{AgentDesired, ConfigError, DesiredStatus};
use holm_model::twin::patch;
use serde_json::{Map, Value, json};

/// The name of the document in the state.
pub(super) const DOCUMENT: &str = "agent.deployment";

/// What was deployed.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// The desired properties as received last, without what the hub adds.
    received: Option<(Map<String, Value>, u64)>,
    in_force: Option<InForce>,
    refused: Option<ConfigError>,
}

/// The deployment that is carried out.
#[derive(Clone, Debug)]
pub struct InForce {
    /// As the manifest says.
    pub desired: AgentDesired,
    properties: Map<String, Value>,
    version: u64,
}

impl Deployment {
    /// From the document of an earlier run. A document that can't be read counts as none; the hub has the original.
    #[must_use]
    pub fn from_document(document: Option<Value>) -> Self {
        let mut deployment = Self::default();
        let Some(document) = document else { return deployment };
        let version = document.get("version").and_then(Value::as_u64).unwrap_or(0);
        if let Some(Value::Object(properties)) = document.get("desired") {
            deployment.read(properties.clone(), version);
            // What was received must come from the hub anew: it may have changed since.
            deployment.received = None;
        }
        deployment
    }

    /// What to keep: the deployment in force.
    #[must_use]
    pub fn to_document(&self) -> Option<Value> {
        let in_force = self.in_force.as_ref()?;
        Some(json!({"desired": in_force.properties, "version": in_force.version}))
    }

    /// The deployment that is carried out.
    #[must_use]
    pub const fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// The version that the report speaks of: the last one received, or that of the deployment from before the restart.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        let received = self.received.as_ref().map(|(_, version)| *version);
        received
            .or_else(|| self.in_force.as_ref().map(|in_force| in_force.version))
            .filter(|version| *version > 0)
    }

    /// Why the last deployment is not in force.
    #[must_use]
    pub fn refusal(&self) -> Option<DesiredStatus> {
        self.refused.as_ref().map(DesiredStatus::from)
    }

    /// Takes the desired section of a whole twin. Says whether it was news.
    pub fn take_twin(&mut self, desired: &Value) -> bool {
        let (properties, version) = split(desired);
        if self
            .received
            .as_ref()
            .is_some_and(|known| known.1 == version && known.0 == properties)
        {
            return false;
        }
        self.read(properties, version);
        true
    }

    /// Takes a patch. `false` when it does not follow what is known, so that the whole twin must be read.
    #[must_use]
    pub fn take_patch(&mut self, desired: &Value) -> bool {
        let (changes, version) = split(desired);
        let Some((mut properties, known)) = self.received.clone() else {
            return false;
        };
        if version != known + 1 {
            return version <= known;
        }
        patch::apply(&mut properties, &changes);
        self.read(properties, version);
        true
    }

    fn read(&mut self, properties: Map<String, Value>, version: u64) {
        match AgentDesired::parse(&properties) {
            Ok(desired) => {
                self.refused = None;
                self.in_force = Some(InForce {
                    desired,
                    properties: properties.clone(),
                    version,
                });
            }
            Err(error) => {
                tracing::warn!(version, error = %error, "the deployment can't be used; the last good one stays in force");
                self.refused = Some(error);
            }
        }
        self.received = Some((properties, version));
    }
}

fn split(desired: &Value) -> (Map<String, Value>, u64) {
    let mut properties = desired.as_object().cloned().unwrap_or_default();
    let version = properties.get("$version").and_then(Value::as_u64).unwrap_or(0);
    properties.retain(|name, _| !name.starts_with('$'));
    (properties, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(version: u64, image: &str) -> Value {
        json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}, "$version": version, "$metadata": {},
            "modules": {"m": {"type": "docker", "status": "running", "settings": {"image": image}}}})
    }

    fn image(deployment: &Deployment) -> &str {
        let module = deployment.in_force().unwrap().desired.modules.values().next().unwrap();
        &module.image
    }

    #[test]
    fn a_deployment_that_cannot_be_read_leaves_the_last_good_one_in_force() {
        let mut deployment = Deployment::default();
        deployment.take_twin(&desired(1, "a:1"));

        let mut bad = desired(2, "a:2");
        bad["modules"]["m"]["status"] = json!("perhaps");
        deployment.take_twin(&bad);

        assert_eq!(image(&deployment), "a:1");
        assert_eq!(deployment.version(), Some(2));
        assert_eq!(deployment.refusal().unwrap().code, 400);
        let mut newer = desired(3, "a:1");
        newer["schemaVersion"] = json!("2.0");
        deployment.take_twin(&newer);
        assert_eq!(deployment.refusal().unwrap().code, 412);
        deployment.take_twin(&json!({"$version": 4}));
        assert_eq!(deployment.refusal().unwrap().code, 417);
    }

    #[test]
    fn patches_are_applied_only_in_order() {
        let mut deployment = Deployment::default();
        assert!(!deployment.take_patch(&json!({"$version": 1})));
        deployment.take_twin(&desired(4, "a:1"));

        let patch = |version| json!({"modules": {"m": {"settings": {"image": "a:2"}}}, "$version": version});
        assert!(!deployment.take_patch(&patch(6)));
        assert_eq!(image(&deployment), "a:1");
        assert!(deployment.take_patch(&patch(5)));
        assert_eq!(image(&deployment), "a:2");
        assert!(deployment.take_patch(&patch(5)));
        assert_eq!(deployment.version(), Some(5));
    }

    #[test]
    fn a_restart_has_the_last_good_deployment() {
        let mut deployment = Deployment::default();
        deployment.take_twin(&desired(4, "a:1"));
        deployment.take_twin(&json!({"schemaVersion": "9.0", "$version": 5}));

        let mut restarted = Deployment::from_document(deployment.to_document());

        assert_eq!(image(&restarted), "a:1");
        assert_eq!((restarted.version(), restarted.refusal()), (Some(4), None));
        assert!(!restarted.take_patch(&json!({"$version": 5})));
        assert!(restarted.take_twin(&desired(4, "a:1")));
    }
}
