//! What is to run: a module as its runtime needs to know it.
//!
//! The *digest* of a spec is kept with the running module (a container's label, a supervisor's record). So what really
//! runs can be compared with what is wanted without a memory of one's own, and a lost memory recreates nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use holm_model::{ModuleId, hex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The way a module is packed and run; `type` in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// A container of a Docker-compatible engine.
    Docker,
    /// A program under a small supervisor, without any engine.
    Process,
}

impl RuntimeKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Process];

    /// The kind's name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }

    /// Reads a manifest's `type`; `None` when there is no such kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the registry is asked for the image; `imagePullPolicy` in a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// At every create, even when the tag is present.
    #[default]
    OnCreate,
    /// Not at all: the image must be present.
    Never,
}

/// Credentials for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The registry's address as the credentials name it.
    pub server_address: String,
    /// The user name.
    pub username: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("server_address", &self.server_address)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A module as its runtime needs to know it.
#[derive(Clone, PartialEq)]
pub struct ModuleSpec {
    /// The module's id; a container is named by it.
    pub id: ModuleId,
    /// Which runtime it is for.
    pub kind: RuntimeKind,
    /// `settings.image`: an image reference, or for a process the name of a program.
    pub image: String,
    /// The manifest's `version`; another one means another module. May be empty.
    pub version: String,
    /// `settings.createOptions`, joined and parsed: an object in the form of the Docker create-container body, or null.
    pub create_options: Value,
    /// The environment: the manifest's and what the edge injects. `Env` in the create options wins over it.
    pub env: BTreeMap<String, String>,
    /// Labels of the edge's own, beside those that the runtime sets.
    pub labels: BTreeMap<String, String>,
    /// The module's own directory with its workload socket. A container sees it at `/var/run/iotedge`, read-only; a process
    /// finds its path in `HOLM_MODULE_DIR`.
    pub module_dir: PathBuf,
    /// When the registry is asked for the image.
    pub pull_policy: PullPolicy,
    /// Credentials for the image's registry, if any.
    pub registry_auth: Option<RegistryAuth>,
}

impl ModuleSpec {
    /// A spec with nothing but what every module has.
    #[must_use]
    pub fn new(id: ModuleId, kind: RuntimeKind, image: impl Into<String>, module_dir: impl Into<PathBuf>) -> Self {
        Self {
            id,
            kind,
            image: image.into(),
            version: String::new(),
            create_options: Value::Null,
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            module_dir: module_dir.into(),
            pull_policy: PullPolicy::default(),
            registry_auth: None,
        }
    }

    /// A stable hash over everything that makes this module what it is, as 64 hexadecimal digits.
    ///
    /// Equal for equal specs whatever the order of keys; registry credentials are left out, since changing them does not
    /// recreate a module (`edge-agent.md` §2.2).
    #[must_use]
    pub fn digest(&self) -> String {
        // Each part is named and ended, so that no two different specs give the same bytes.
        let mut text = String::from("holm-spec-1\n");
        for (name, value) in [
            ("id", Value::from(self.id.as_str())),
            ("kind", Value::from(self.kind.as_str())),
            ("image", Value::from(self.image.as_str())),
            ("version", Value::from(self.version.as_str())),
            ("createOptions", self.create_options.clone()),
            ("env", to_value(&self.env)),
            ("labels", to_value(&self.labels)),
            ("moduleDir", Value::from(self.module_dir.to_string_lossy().as_ref())),
            ("pullPolicy", Value::from(format!("{:?}", self.pull_policy))),
        ] {
            text.push_str(name);
            text.push(' ');
            write_canonical(&value, &mut text);
            text.push('\n');
        }
        hex::encode(&Sha256::digest(text.as_bytes()))
    }
}

/// Values of environment variables may be secrets: only their names are shown.
impl fmt::Debug for ModuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleSpec")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("image", &self.image)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("module_dir", &self.module_dir)
            .finish_non_exhaustive()
    }
}

fn to_value(map: &BTreeMap<String, String>) -> Value {
    map.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect()
}

/// JSON with sorted keys, whatever order the map of `serde_json` keeps.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(item, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> ModuleSpec {
        let mut spec = ModuleSpec::new(ModuleId::new("a").unwrap(), RuntimeKind::Process, "img", "/run/a");
        spec.create_options = json!({"Cmd": ["x"], "HostConfig": {"Memory": 1, "NanoCpus": 2}});
        spec
    }

    #[test]
    fn digest_does_not_depend_on_the_order_of_keys() {
        let mut other = spec();
        other.create_options = serde_json::from_str(r#"{"HostConfig":{"NanoCpus":2,"Memory":1},"Cmd":["x"]}"#).unwrap();

        assert_eq!(spec().digest(), other.digest());
        assert_eq!(spec().digest().len(), 64);
    }

    #[test]
    fn digest_changes_with_every_part_but_the_credentials() {
        let changes: [fn(&mut ModuleSpec); 9] = [
            |s| s.id = ModuleId::new("b").unwrap(),
            |s| s.kind = RuntimeKind::Docker,
            |s| s.image = "other".into(),
            |s| s.version = "2".into(),
            |s| s.create_options = json!({}),
            |s| drop(s.env.insert("A".into(), "1".into())),
            |s| drop(s.labels.insert("A".into(), "1".into())),
            |s| s.module_dir = "/run/b".into(),
            |s| s.pull_policy = PullPolicy::Never,
        ];
        let mut digests: Vec<String> = changes
            .iter()
            .map(|change| {
                let mut changed = spec();
                change(&mut changed);
                changed.digest()
            })
            .collect();
        digests.push(spec().digest());
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 10);

        let mut with_credentials = spec();
        with_credentials.registry_auth = Some(RegistryAuth {
            server_address: "r".into(),
            username: "u".into(),
            password: "p".into(),
        });
        assert_eq!(with_credentials.digest(), spec().digest());
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut spec = spec();
        spec.env.insert("TOKEN".into(), "hunter2".into());
        spec.registry_auth = Some(RegistryAuth {
            server_address: "r".into(),
            username: "u".into(),
            password: "hunter2".into(),
        });

        let shown = format!("{spec:?} {:?}", spec.registry_auth);

        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("TOKEN"));
    }
}
