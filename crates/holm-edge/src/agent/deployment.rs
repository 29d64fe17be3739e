//! The desired properties of `$edgeAgent`, as they come from the hub, and the rollout of what they say.
//!
//! ```text
//! twin or patch --> received (desired, version) --read--> good: an edition for the rollout | bad: status for the report
//! ```
//!
//! - A deployment that can't be read changes nothing: what is in force stays so, also after a restart without a hub.
//! - A patch is applied only when it is the next version; else the whole twin must be read.
//!
//! Source: `edge-agent.md` §1.4 and §2.1.

use holm_model::manifest::{AgentDesired, ConfigError, DesiredStatus};
use holm_model::twin::patch;
use serde_json::{Map, Value};

use super::rollout::{Edition, Rollout};

/// The name of the document in the state.
pub(super) const DOCUMENT: &str = "agent.deployment";

/// What was deployed.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// The desired properties as received last, without what the hub adds.
    received: Option<(Map<String, Value>, u64)>,
    unreadable: Option<ConfigError>,
    /// What has become of those that could be read.
    pub(super) rollout: Rollout,
}

/// What came of desired properties.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// They are known already.
    Known,
    /// They don't follow what is known: the whole twin must be read.
    Gap,
    /// They can't be read; the report says why.
    Unreadable,
    /// This is wanted now.
    Edition(Edition),
}

impl Deployment {
    /// From the document of an earlier run. What can't be read counts as not there; the hub has the original.
    #[must_use]
    pub fn from_document(document: Option<&Value>) -> Self {
        Self {
            // What was received must come from the hub anew: it may have changed since.
            received: None,
            unreadable: None,
            rollout: Rollout::from_document(document),
        }
    }

    /// What modules are kept by.
    #[must_use]
    pub fn in_force(&self) -> Option<&AgentDesired> {
        self.rollout.in_force().map(|edition| &*edition.desired)
    }

    /// Why the last deployment can't be used, and its version.
    #[must_use]
    pub fn refusal(&self) -> Option<(Option<u64>, DesiredStatus)> {
        let error = self.unreadable.as_ref()?;
        let version = self.received.as_ref().map(|(_, version)| *version);
        Some((version, DesiredStatus::from(error)))
    }

    /// Takes the desired section of a whole twin.
    pub fn take_twin(&mut self, desired: &Value) -> Taken {
        let (properties, version) = split(desired);
        if self
            .received
            .as_ref()
            .is_some_and(|known| known.1 == version && known.0 == properties)
        {
            return Taken::Known;
        }
        self.read(properties, version)
    }

    /// Takes a patch.
    pub fn take_patch(&mut self, desired: &Value) -> Taken {
        let (changes, version) = split(desired);
        let Some((mut properties, known)) = self.received.clone() else {
            return Taken::Gap;
        };
        if version <= known {
            return Taken::Known;
        }
        if version != known + 1 {
            return Taken::Gap;
        }
        patch::apply(&mut properties, &changes);
        self.read(properties, version)
    }

    fn read(&mut self, properties: Map<String, Value>, version: u64) -> Taken {
        self.received = Some((properties.clone(), version));
        match Edition::read(properties, version) {
            Ok(edition) => {
                self.unreadable = None;
                Taken::Edition(edition)
            }
            Err(error) => {
                self.tell(version, &error);
                self.unreadable = Some(error);
                Taken::Unreadable
            }
        }
    }
}

impl Deployment {
    fn tell(&self, version: u64, error: &ConfigError) {
        match (error, self.rollout.in_force()) {
            (ConfigError::Empty, None) => {
                tracing::info!(
                    version,
                    "nothing was deployed to this device yet; `holm deploy` at the hub does"
                );
            }
            (_, None) => {
                tracing::warn!(version, %error, "the deployment can't be used, and nothing was deployed before it")
            }
            (_, Some(edition)) => {
                let in_force = edition.version;
                tracing::warn!(version, in_force, %error, "the deployment can't be used; the one before stays in force");
            }
        }
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
    use holm_model::Timestamp;
    use serde_json::json;

    use super::super::rollout::Event;
    use super::*;

    fn desired(version: u64, image: &str) -> Value {
        json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}, "$version": version, "$metadata": {},
            "modules": {"m": {"type": "docker", "status": "running", "settings": {"image": image}}}})
    }

    fn image(taken: &Taken) -> &str {
        let Taken::Edition(edition) = taken else {
            panic!("{taken:?}")
        };
        &edition.desired.modules.values().next().unwrap().image
    }

    #[test]
    fn a_deployment_that_cannot_be_read_says_why_and_wants_nothing() {
        let mut deployment = Deployment::default();
        assert_eq!(image(&deployment.take_twin(&desired(1, "a:1"))), "a:1");

        let mut bad = desired(2, "a:2");
        bad["modules"]["m"]["status"] = json!("perhaps");
        assert_eq!(deployment.take_twin(&bad), Taken::Unreadable);

        let (version, status) = deployment.refusal().unwrap();
        assert_eq!((version, status.code), (Some(2), 400));
        let mut newer = desired(3, "a:1");
        newer["schemaVersion"] = json!("2.0");
        deployment.take_twin(&newer);
        assert_eq!(deployment.refusal().unwrap().1.code, 412);
        deployment.take_twin(&json!({"$version": 4}));
        assert_eq!(deployment.refusal().unwrap().1.code, 417);
        deployment.take_twin(&desired(5, "a:1"));
        assert_eq!(deployment.refusal(), None);
    }

    #[test]
    fn patches_are_applied_only_in_order() {
        let mut deployment = Deployment::default();
        assert_eq!(deployment.take_patch(&json!({"$version": 1})), Taken::Gap);
        deployment.take_twin(&desired(4, "a:1"));

        let patch = |version| json!({"modules": {"m": {"settings": {"image": "a:2"}}}, "$version": version});
        assert_eq!(deployment.take_patch(&patch(6)), Taken::Gap);
        assert_eq!(image(&deployment.take_patch(&patch(5))), "a:2");
        assert_eq!(deployment.take_patch(&patch(5)), Taken::Known);
    }

    #[test]
    fn a_restart_has_what_was_in_force_and_hears_of_the_rest_from_the_hub() {
        let mut deployment = Deployment::default();
        let Taken::Edition(edition) = deployment.take_twin(&desired(4, "a:1")) else {
            panic!()
        };
        let at = Timestamp::from_unix_seconds(1);
        deployment.rollout = deployment.rollout.after(Event::Deployed { edition, at }).unwrap();
        deployment.take_twin(&json!({"schemaVersion": "9.0", "$version": 5}));

        let mut restarted = Deployment::from_document(deployment.rollout.to_document().as_ref());

        assert_eq!(restarted.rollout, deployment.rollout);
        assert_eq!(restarted.refusal(), None);
        assert_eq!(restarted.take_patch(&json!({"$version": 5})), Taken::Gap);
        assert_eq!(image(&restarted.take_twin(&desired(4, "a:1"))), "a:1");
    }
}
