//! Enrollments as the published interface has them, made of what was said on the command line.

use std::path::Path;

use anyhow::{Context as _, bail};
use holm_identity::CertificateInfo;
use holm_identity::certificate::certificates_from_pem;
use serde_json::{Value, json};

use crate::cli::{Allocation, DpsRules, Reprovision, Takeover};
use crate::output::WrongUse;

/// The service would keep the webhook and never ask it.
pub(super) const UNASKED: &str =
    "`--webhook` is asked for a hub with a custom allocation alone: give `--allocation custom` too, or leave it out";

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
pub(super) fn document(rules: DpsRules, attestation: Value) -> anyhow::Result<Value> {
    if rules.webhook.is_some() && rules.allocation != Allocation::Custom {
        bail!(WrongUse(UNASKED.to_owned()));
    }
    let mut document = json!({
        "attestation": attestation,
        "capabilities": { "iotEdge": rules.edge },
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
    Ok(document)
}

/// Checks that a certificate is that of the device of an enrollment. The hub takes any, as the original does; by one that names another no
/// device can register.
pub(super) fn check_name(id: &str, file: Option<&Path>) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    // What is no certificate in PEM the hub refuses, or reads by itself.
    let Ok(certificates) = certificates_from_pem(read(file)?.as_bytes()) else {
        return Ok(());
    };
    let first = certificates.first().map(CertificateInfo::read).transpose();
    let Ok(Some(CertificateInfo {
        subject_common_name, ..
    })) = first
    else {
        return Ok(());
    };
    let name = subject_common_name.unwrap_or_default();
    if name.eq_ignore_ascii_case(id) {
        return Ok(());
    }
    bail!(
        "the common name of the certificate in `{}` is `{name}`, and a device registers under that: enroll it as `{name}` (`--device-id` \
         gives the device another name), or give the certificate of `{id}`",
        file.display()
    )
}

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("`{}` can't be read", file.display()))
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

#[cfg(test)]
mod tests {
    use holm_identity::CertificateAuthority;
    use holm_identity::certificate::certificates_to_pem;
    use holm_model::Timestamp;

    use super::*;

    #[test]
    fn a_certificate_that_names_another_device_is_refused_with_the_way_out() {
        let now = Timestamp::from(std::time::SystemTime::now());
        let maker = CertificateAuthority::create("somebody", 30, now).unwrap();
        let leaf = maker.issue_client("pump-1", &[""; 0], 10, now).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pump.pem");
        std::fs::write(&file, certificates_to_pem(leaf.chain())).unwrap();

        let own = check_name("PUMP-1", Some(&file));
        let other = check_name("pump-2", Some(&file));
        std::fs::write(&file, "no certificate").unwrap();
        let none = check_name("pump-2", Some(&file));

        assert!(own.is_ok() && none.is_ok() && check_name("pump-2", None).is_ok());
        let told = other.unwrap_err().to_string();
        assert!(
            told.contains("pump.pem` is `pump-1`") && told.contains("of `pump-2`"),
            "{told}"
        );
    }
}
