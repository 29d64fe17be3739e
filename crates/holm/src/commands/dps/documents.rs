//! Enrollments as the published interface has them, made of what was said on the command line.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cli::{Allocation, DpsRules, Reprovision, Takeover};

/// By keys, or by these certificates.
pub(super) fn attestation(member: &str, first: Option<&Path>, second: Option<&Path>) -> anyhow::Result<Value> {
    let Some(first) = first else {
        return Ok(json!({ "type": "symmetricKey" }));
    };
    let mut pair = json!({ "primary": { "certificate": read(first)? } });
    if let Some(second) = second {
        pair["secondary"] = json!({ "certificate": read(second)? });
    }
    Ok(json!({ "type": "x509", "x509": { member: pair } }))
}

/// By a certificate that one has signed which is kept by this name.
pub(super) fn by_kept(first: &str, second: Option<&str>) -> Value {
    json!({ "type": "x509", "x509": { "caReferences": { "primary": first, "secondary": second } } })
}

/// An enrollment that goes by these rules.
pub(super) fn document(rules: DpsRules, attestation: Value) -> Value {
    let mut document = json!({
        "attestation": attestation,
        "capabilities": capabilities(rules.edge),
        "provisioningStatus": if rules.disabled { "disabled" } else { "enabled" },
        "allocationPolicy": allocation(rules.allocation),
        "reprovisionPolicy": reprovision(rules.reprovision),
    });
    if !rules.hubs.is_empty() {
        document["iotHubs"] = json!(rules.hubs);
    }
    if let Some(url) = rules.webhook {
        document["customAllocationDefinition"] = webhook(&url);
    }
    if rules.issue_certificates {
        document["clientCertificateIssuancePolicy"] = by_the_hub();
    }
    if let Some(what) = rules.takeover {
        document["deviceTakeover"] = takeover(what);
    }
    if let Some(twin) = rules.initial_twin {
        document["initialTwin"] = twin;
    }
    document
}

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("`{}` can't be read", file.display()))
}

pub(super) fn capabilities(edge: bool) -> Value {
    json!({ "iotEdge": edge })
}

pub(super) fn allocation(what: Allocation) -> Value {
    json!(match what {
        Allocation::Hashed => "hashed",
        Allocation::Static => "static",
        Allocation::Custom => "custom",
    })
}

pub(super) fn reprovision(what: Reprovision) -> Value {
    json!({
        "updateHubAssignment": what != Reprovision::Never,
        "migrateDeviceData": what == Reprovision::Migrate,
    })
}

pub(super) fn takeover(what: Takeover) -> Value {
    json!(match what {
        Takeover::Allow => "allow",
        Takeover::Refuse => "refuse",
    })
}

pub(super) fn webhook(url: &str) -> Value {
    json!({ "webhookUrl": url, "apiVersion": "2021-10-01" })
}

/// Certificates are made by the hub's own authority.
pub(super) fn by_the_hub() -> Value {
    json!({ "certificateAuthorityName": "hub" })
}
