//! Takes over a configuration of IoT Edge: `config.toml` of 1.2 and later, which has the form of ours, and `config.yaml` of
//! 1.1. What became of every key is told.
//!
//! ```text
//! config.toml ──table of keys──> used: taken · without effect: left out, why · not yet: can't be kept, what instead
//! config.yaml ──yaml.rs──> leaves ──old.rs──> the same, under their names of today
//! ```
//!
//! Nothing is invented: the text that comes out holds only what was in the one that went in. Whether that is enough for an edge
//! is for [`super::EdgeConfig::parse`] to say.

mod old;
mod yaml;

use toml_edit::{DocumentMut, Item, TableLike, value};

use super::Problem;
use super::keys::{self, Treatment};

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `config.toml` of IoT Edge 1.2 and later.
    Toml,
    /// `config.yaml` of IoT Edge 1.1.
    Yaml,
}

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The new configuration.
    pub text: String,
    /// Keys that stand in it as they were.
    pub taken: Vec<String>,
    /// Keys that stand in it under another name, or in another form: which one.
    pub changed: Vec<(String, String)>,
    /// Keys that have no effect here: why.
    pub left_out: Vec<(String, String)>,
    /// Keys that do something which is not done here yet: what instead.
    pub not_kept: Vec<(String, String)>,
}

/// Why a file can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not TOML.
    #[error("it is not TOML")]
    Toml(#[source] Problem),
    /// It is not YAML, or has a form of it that no such configuration has.
    #[error("line {line}: {reason}")]
    Yaml {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The smallest configuration: a device that is known by its connection string.
#[must_use]
pub fn minimal(connection_string: &str) -> String {
    let mut document = DocumentMut::new();
    put(&mut document, "provisioning.source", "manual");
    put(
        &mut document,
        "provisioning.connection_string",
        connection_string.trim(),
    );
    document.to_string()
}

/// Takes a file over.
///
/// # Errors
/// [`ImportError`].
pub fn import(text: &str, form: Form) -> Result<Imported, ImportError> {
    match form {
        Form::Yaml => Ok(old::import(yaml::leaves(text)?)),
        Form::Toml => {
            let document = text.parse::<DocumentMut>();
            let mut document = document.map_err(|error| ImportError::Toml(Problem::syntax(text, &error)))?;
            let mut imported = Imported::default();
            sift(&mut imported, "", document.as_table_mut());
            imported.text = document.to_string();
            Ok(imported)
        }
    }
}

/// Takes out of a table what has no effect or can't be kept. Tables that are empty then go, too.
fn sift(imported: &mut Imported, above: &str, table: &mut dyn TableLike) {
    let names: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let path = if above.is_empty() {
            name.clone()
        } else {
            format!("{above}.{name}")
        };
        let Some(item) = table.get_mut(&name) else { continue };
        if keys::has_parts(&path)
            && let Some(below) = item.as_table_like_mut()
        {
            sift(imported, &path, below);
            if below.is_empty() {
                table.remove(&name);
            }
            continue;
        }
        let why = match keys::find(&path).map(|key| key.treatment) {
            Some(Treatment::Used) => refused_value(&path, item),
            Some(Treatment::NoEffect(why)) => Some((false, why)),
            Some(Treatment::NotYet(instead)) => Some((true, instead)),
            None => Some((true, "it is not known; `docs/configuration.md` names all that are")),
        };
        match why {
            None => imported.taken.push(path),
            Some((is_lost, why)) => {
                table.remove(&name);
                let told = (path, why.to_owned());
                if is_lost {
                    imported.not_kept.push(told);
                } else {
                    imported.left_out.push(told);
                }
            }
        }
    }
}

/// A key that is used, with a value that is not: whether something is lost, and why.
fn refused_value(path: &str, item: &Item) -> Option<(bool, &'static str)> {
    (path == "listen.management_uri" && !item.as_str().is_some_and(|uri| uri.starts_with("unix://"))).then_some((
        false,
        "the edge makes its socket itself, without systemd; give `unix:///var/run/iotedge/mgmt.sock` for the place that the original's tools know",
    ))
}

/// Sets a dotted key.
fn put(document: &mut DocumentMut, path: &str, text: impl Into<toml_edit::Value>) {
    let mut names: Vec<&str> = path.split('.').collect();
    let Some(last) = names.pop() else { return };
    let mut table = document.as_table_mut();
    for name in names {
        let below = table.entry(name).or_insert_with(toml_edit::table);
        let Some(below) = below.as_table_mut() else { return };
        table = below;
    }
    table.insert(last, value(text));
}

#[cfg(test)]
mod tests {
    use super::super::EdgeConfig;
    use super::*;

    fn names(pairs: &[(String, String)]) -> Vec<&str> {
        pairs.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn a_published_config_toml_keeps_what_works_here_and_tells_of_everything_else() {
        let text = r#"
hostname = "pump-7"
[provisioning]
source = "manual"
connection_string = "HostName=h.test;DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg=="
[agent]
name = "edgeAgent"
type = "docker"
[agent.config]
image = "mcr.microsoft.com/azureiotedge-agent:1.5"
[agent.env]
UpstreamProtocol = "AmqpWs"
RuntimeLogLevel = "debug"
[connect]
workload_uri = "unix:///var/run/iotedge/workload.sock"
management_uri = "unix:///var/run/iotedge/mgmt.sock"
[listen]
workload_uri = "fd://aziot-edged.workload.socket"
management_uri = "fd://aziot-edged.mgmt.socket"
[moby_runtime]
uri = "unix:///var/run/docker.sock"
network = "azure-iot-edge"
[image_garbage_collection]
enabled = true
[own]
thing = 1
"#;

        let imported = import(text, Form::Toml).unwrap();

        let taken = [
            "hostname",
            "provisioning.source",
            "provisioning.connection_string",
            "agent.env.UpstreamProtocol",
            "moby_runtime.uri",
            "moby_runtime.network",
        ];
        assert_eq!(imported.taken, taken);
        assert!(
            names(&imported.left_out).contains(&"agent.config")
                && names(&imported.left_out).contains(&"agent.env.RuntimeLogLevel")
                && names(&imported.left_out).contains(&"listen.management_uri")
        );
        assert_eq!(names(&imported.not_kept), ["image_garbage_collection", "own"]);
        let config = EdgeConfig::parse(&imported.text).unwrap();
        assert_eq!(config.config.hostname, "pump-7");
        assert_eq!(config.notes, Vec::<String>::new());
    }

    #[test]
    fn a_config_yaml_of_1_1_comes_under_the_names_of_today() {
        let text = r#"
# Provisioning mode and settings
provisioning:
  source: "manual"
  device_connection_string: "HostName=h.test;DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg=="
  dynamic_reprovisioning: false
agent:
  name: "edgeAgent"
  type: "docker"
  env:
    UpstreamProtocol: "Amqp"
  config:
    image: "mcr.microsoft.com/azureiotedge-agent:1.1"
    auth: {}
    createOptions:
      HostConfig:
        Binds:
          - "/a:/a"
hostname: 'pump-7'   # its name
certificates:
  device_ca_cert: "/etc/ca/cert.pem"
  device_ca_pk: "file:///etc/ca/key.pem"
  trusted_ca_certs: "/etc/ca/roots.pem"
connect:
  management_uri: "unix:///var/run/iotedge/mgmt.sock"
  workload_uri: "unix:///var/run/iotedge/workload.sock"
listen:
  management_uri: "fd://iotedge.mgmt.socket"
  workload_uri: "fd://iotedge.socket"
homedir: "/var/lib/iotedge"
moby_runtime:
  uri: "unix:///var/run/docker.sock"
"#;

        let imported = import(text, Form::Yaml).unwrap();

        let config = EdgeConfig::parse(&imported.text).unwrap().config;
        assert_eq!(
            (config.hostname.as_str(), config.hub.host.as_str()),
            ("pump-7", "h.test")
        );
        assert_eq!(config.trust_bundle_cert, Some("/etc/ca/roots.pem".into()));
        let ca = super::super::EdgeCa::Files {
            cert: "/etc/ca/cert.pem".into(),
            pk: "/etc/ca/key.pem".into(),
        };
        assert_eq!(config.edge_ca, ca);
        assert_eq!(config.hub.protocol, holm_client::Transport::Amqp);
        assert!(
            names(&imported.left_out).contains(&"homedir"),
            "{:?}",
            imported.left_out
        );
        assert_eq!(imported.not_kept, []);
        assert!(
            imported
                .changed
                .contains(&("certificates.device_ca_cert".to_owned(), "edge_ca.cert".to_owned()))
        );
    }

    #[test]
    fn what_is_provisioned_otherwise_is_told_and_is_not_enough() {
        let text = "provisioning:\n  source: dps\n  scope_id: x\n  attestation:\n    method: tpm\nhostname: a\n";

        let imported = import(text, Form::Yaml).unwrap();

        assert_eq!(
            names(&imported.not_kept),
            [
                "provisioning.source",
                "provisioning.scope_id",
                "provisioning.attestation.method"
            ]
        );
        assert!(EdgeConfig::parse(&imported.text).is_err());
    }

    #[test]
    fn a_minimal_configuration_is_one() {
        let text = minimal(" HostName=h.test;DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==\n");

        assert_eq!(EdgeConfig::parse(&text).unwrap().config.hub.host, "h.test");
    }
}
