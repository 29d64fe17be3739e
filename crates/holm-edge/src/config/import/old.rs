//! The keys of `config.yaml` of IoT Edge 1.1, and what they are today.

use holm_client::Transport;
use toml_edit::DocumentMut;

use super::yaml::{Leaf, Scalar};
use super::{Imported, put};

/// What becomes of a key.
enum Fate {
    /// It stands under this name now.
    Is(&'static str),
    /// The same; its value is a path or a `file://` URI, and a URI then.
    File(&'static str),
    /// The same; its value is a whole number.
    Days(&'static str),
    /// It has no effect here, for this reason.
    NoEffect(&'static str),
    /// It can't be kept; this instead.
    NotYet(&'static str),
}

use Fate::{Days, File, Is, NoEffect, NotYet};

const BUILT_IN: &str = "the agent is built in; nothing is pulled or created for it";
const PROVISIONING: &str =
    "give the device a symmetric key at its hub, and its connection string to `holm edge config mp`";

pub(super) fn import(leaves: Vec<Leaf>) -> Imported {
    let mut imported = Imported::default();
    let mut document = DocumentMut::new();
    for Leaf { path, value } in leaves {
        let text = match &value {
            Scalar::Text(text) => text.as_str(),
            Scalar::Other => "",
        };
        match fate(&path, text) {
            Is(_) | File(_) | Days(_) if value == Scalar::Other => {
                imported
                    .not_kept
                    .push((path, "its value is no plain text; write it in one line".to_owned()));
            }
            Is(name) => keep(&mut imported, &mut document, path, name, text),
            File(name) => {
                let uri = if text.starts_with("file://") {
                    text.to_owned()
                } else {
                    format!("file://{text}")
                };
                keep(&mut imported, &mut document, path, name, uri);
            }
            Days(name) => match text.parse::<i64>() {
                Ok(days) => keep(&mut imported, &mut document, path, name, days),
                Err(_) => imported.not_kept.push((path, "it is no whole number".to_owned())),
            },
            NoEffect(why) => imported.left_out.push((path, why.to_owned())),
            NotYet(instead) => imported.not_kept.push((path, instead.to_owned())),
        }
    }
    imported.text = document.to_string();
    imported
}

fn keep(
    imported: &mut Imported,
    document: &mut DocumentMut,
    path: String,
    name: &str,
    value: impl Into<toml_edit::Value>,
) {
    put(document, name, value);
    if path == name {
        imported.taken.push(path);
    } else {
        imported.changed.push((path, name.to_owned()));
    }
}

fn fate(path: &str, value: &str) -> Fate {
    match path {
        "hostname" => Is("hostname"),
        "provisioning.source" if value == "manual" => Is("provisioning.source"),
        "provisioning.authentication.method" if value == "device_connection_string" => {
            NoEffect("the connection string says it")
        }
        "provisioning.device_connection_string" | "provisioning.authentication.device_connection_string" => {
            Is("provisioning.connection_string")
        }
        "provisioning.dynamic_reprovisioning" | "provisioning.always_reprovision_on_startup" => {
            NoEffect("a device that was provisioned by hand has nowhere to ask again")
        }
        "certificates.device_ca_cert" => File("edge_ca.cert"),
        "certificates.device_ca_pk" => File("edge_ca.pk"),
        "certificates.trusted_ca_certs" => File("trust_bundle_cert"),
        "certificates.auto_generated_ca_lifetime_days" => Days("edge_ca.auto_generated_edge_ca_expiry_days"),
        "moby_runtime.uri" => Is("moby_runtime.uri"),
        "moby_runtime.network" => Is("moby_runtime.network"),
        "moby_runtime.network.name" => Is("moby_runtime.network.name"),
        "listen.management_uri" if value.starts_with("unix://") => Is("listen.management_uri"),
        "listen.management_uri" => NoEffect(
            "the edge makes its socket itself, without systemd; give `unix:///var/run/iotedge/mgmt.sock` for the place that the original's tools know",
        ),
        "listen.workload_uri" | "connect.workload_uri" => {
            NoEffect("each module has a socket of its own, and finds it in `IOTEDGE_WORKLOADURI`")
        }
        "connect.management_uri" => NoEffect("commands on the device take the socket from `-H` or `IOTEDGE_HOST`"),
        "listen.min_tls_version" => NoEffect("TLS 1.2 is the oldest that is spoken"),
        "homedir" => NoEffect("everything that the edge keeps is in `holm.data`; keys and modules are made anew there"),
        "parent_hostname" => NotYet("connect this edge to the hub itself"),
        "agent.env.UpstreamProtocol" if value.parse::<Transport>().is_ok() => Is("agent.env.UpstreamProtocol"),
        _ if is_below(path, "agent") => NoEffect(BUILT_IN),
        _ if is_below(path, "watchdog") => NoEffect(BUILT_IN),
        _ if is_below(path, "provisioning") => NotYet(PROVISIONING),
        _ => NotYet("it is not known"),
    }
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
