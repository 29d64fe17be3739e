//! Enrollments as the published interface writes them; in the database they stand in the same form, with their secrets.
//!
//! ```text
//! {"registrationId": "reg-1", "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": …, "secondaryKey": …}},
//!  "provisioningStatus": "enabled", "reprovisionPolicy": {…}, "allocationPolicy": "hashed", "iotHubs": […], …}
//! ```
//!
//! - Answers show no keys and no certificates, only what certificates say of themselves; the attestation mechanism, asked for
//!   by itself, shows all.
//! - A body is read so that nothing in it is lost: a member that stands twice and an integer of more than 64 bits are refused, as in
//!   twins, where parts of it go.
//! - So what is written back as it was read has holes: keys and certificates that are missing there stay what they were.
//!
//! Source: `hub-service-api.md` §7.

use holm_model::twin::rules;
use holm_model::{DeviceId, ProvisioningError, RegistrationId, Timestamp, strict_json};
use serde_json::{Map, Value, json};

use super::attestation::{attestation, write_attestation};
use super::enrollment::{Allocation, Enrollment, Kind, Reprovision, Takeover, Webhook, initial_twin};
use super::fields::Fields;

/// Reads the body of a request: a JSON object in which nothing can be lost.
///
/// # Errors
/// `ArgumentInvalid` naming the member that stands twice, or whose integer has more than 64 bits.
pub(crate) fn read_body(body: &[u8]) -> Result<Map<String, Value>, ProvisioningError> {
    let unreadable = |why: &str| ProvisioningError::argument_invalid(format!("the body can't be read: {why}"));
    let document = strict_json::parse(body).map_err(|error| unreadable(&error.to_string()))?;
    rules::check_literals(body, "", |_| true).map_err(|error| ProvisioningError::argument_invalid(error.message))?;
    match document {
        Value::Object(document) => Ok(document),
        _ => Err(unreadable("it is not a JSON object")),
    }
}

/// Reads the id of an enrollment from its document.
pub(super) fn id_of(kind: Kind, document: &Map<String, Value>) -> Result<RegistrationId, ProvisioningError> {
    let member = kind.id_member();
    let text = Fields::new(document, "").text(member)?;
    let text = text.ok_or_else(|| ProvisioningError::argument_invalid(format!("`{member}` is missing")))?;
    id(text, member)
}

/// Reads an id that stands at `path`.
pub(super) fn id(text: &str, path: &str) -> Result<RegistrationId, ProvisioningError> {
    RegistrationId::new(text)
        .map_err(|error| ProvisioningError::argument_invalid(format!("`{path}` can't be used: {error}")))
}

/// Reads an enrollment; `current` is what it is so far, where it exists. Etag and times are the caller's.
///
/// # Errors
/// `ArgumentInvalid` naming the member that breaks a rule.
pub(super) fn read(
    kind: Kind,
    id: RegistrationId,
    document: &Map<String, Value>,
    current: Option<&Enrollment>,
) -> Result<Enrollment, ProvisioningError> {
    let fields = Fields::new(document, "");
    let (mut allocation, mut hubs) = (allocation(fields)?, fields.texts("iotHubs")?);
    // The way in which a hub was given before there were policies.
    if let Some(host) = fields.text("iotHubHostName")? {
        (allocation, hubs) = (Allocation::Static, vec![host.to_owned()]);
    }
    let enrollment = Enrollment {
        device: device(kind, fields)?,
        attestation: attestation(kind, fields, current.map(|current| &current.attestation))?,
        edge: edge(fields, current)?,
        enabled: enabled(fields)?,
        reprovision: reprovision(fields)?,
        takeover: takeover(fields, current)?,
        webhook: webhook(fields, allocation)?,
        issuance: issuance(fields)?,
        initial_twin: object(fields, "initialTwin")?,
        information: object(fields, "optionalDeviceInformation")?,
        kind,
        id,
        allocation,
        hubs,
        etag: 0,
        created: Timestamp::NEVER,
        updated: Timestamp::NEVER,
    };
    if let Some(document) = &enrollment.initial_twin {
        initial_twin(document)?;
    }
    if enrollment.allocation == Allocation::Static && enrollment.hubs.is_empty() {
        let text = "`iotHubs` is empty; `allocationPolicy` is `static`, so give the hub";
        return Err(ProvisioningError::argument_invalid(text));
    }
    Ok(enrollment)
}

fn device(kind: Kind, fields: Fields<'_>) -> Result<Option<DeviceId>, ProvisioningError> {
    let text = fields.text("deviceId")?.filter(|_| kind == Kind::Individual);
    text.map(DeviceId::new)
        .transpose()
        .map_err(|error| ProvisioningError::argument_invalid(format!("`deviceId` can't be used: {error}")))
}

fn object(fields: Fields<'_>, name: &str) -> Result<Option<Value>, ProvisioningError> {
    Ok(fields.object(name)?.map(|object| Value::Object(object.clone())))
}

fn enabled(fields: Fields<'_>) -> Result<bool, ProvisioningError> {
    match fields.text("provisioningStatus")? {
        None => Ok(true),
        Some(status) if status.eq_ignore_ascii_case("enabled") => Ok(true),
        Some(status) if status.eq_ignore_ascii_case("disabled") => Ok(false),
        Some(_) => Err(fields.wrong("provisioningStatus", "`enabled` or `disabled`")),
    }
}

fn edge(fields: Fields<'_>, current: Option<&Enrollment>) -> Result<bool, ProvisioningError> {
    let capabilities = fields.object("capabilities")?;
    let wanted = capabilities.map(|capabilities| Fields::new(capabilities, "capabilities.").boolean("iotEdge"));
    match (wanted.transpose()?.flatten(), current) {
        (Some(wanted), Some(current)) if wanted != current.edge => Err(ProvisioningError::argument_invalid(
            "`capabilities.iotEdge` can't be changed; delete the enrollment and make another",
        )),
        (wanted, current) => Ok(wanted.unwrap_or_else(|| current.is_some_and(|current| current.edge))),
    }
}

fn reprovision(fields: Fields<'_>) -> Result<Reprovision, ProvisioningError> {
    let usual = Reprovision::default();
    let Some(policy) = fields.object("reprovisionPolicy")? else {
        return Ok(usual);
    };
    let policy = Fields::new(policy, "reprovisionPolicy.");
    let (update, migrate) = (
        policy.boolean("updateHubAssignment")?,
        policy.boolean("migrateDeviceData")?,
    );
    Ok(Reprovision {
        update_hub_assignment: update.unwrap_or(usual.update_hub_assignment),
        migrate_device_data: migrate.unwrap_or(usual.migrate_device_data),
    })
}

/// What is ours and SDKs do not write back stays what it was.
fn takeover(fields: Fields<'_>, current: Option<&Enrollment>) -> Result<Takeover, ProvisioningError> {
    let all = [Takeover::Allow, Takeover::Refuse];
    match fields.text("deviceTakeover")? {
        None => Ok(current.map_or_else(Takeover::default, |current| current.takeover)),
        Some(said) => all
            .into_iter()
            .find(|known| said.eq_ignore_ascii_case(known.name()))
            .ok_or_else(|| fields.wrong("deviceTakeover", "`allow` or `refuse`")),
    }
}

fn allocation(fields: Fields<'_>) -> Result<Allocation, ProvisioningError> {
    match fields.text("allocationPolicy")? {
        None => Ok(Allocation::default()),
        Some(name) => Allocation::of(name)
            .ok_or_else(|| fields.wrong("allocationPolicy", "`hashed`, `geoLatency`, `static` or `custom`")),
    }
}

fn issuance(fields: Fields<'_>) -> Result<Option<String>, ProvisioningError> {
    let Some(policy) = fields.object("clientCertificateIssuancePolicy")? else {
        return Ok(None);
    };
    let policy = Fields::new(policy, "clientCertificateIssuancePolicy.");
    let name = policy.text("certificateAuthorityName")?;
    let name =
        name.ok_or_else(|| policy.wrong("certificateAuthorityName", "given; here any name means the hub's own"))?;
    Ok(Some(name.to_owned()))
}

fn webhook(fields: Fields<'_>, allocation: Allocation) -> Result<Option<Webhook>, ProvisioningError> {
    let Some(definition) = fields.object("customAllocationDefinition")? else {
        return match allocation {
            Allocation::Custom => {
                Err(fields.wrong("customAllocationDefinition", "given, with `allocationPolicy` `custom`"))
            }
            _ => Ok(None),
        };
    };
    let definition = Fields::new(definition, "customAllocationDefinition.");
    let url = definition.text("webhookUrl")?;
    let is_address = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
    let url = url.filter(is_address);
    let url = url.ok_or_else(|| definition.wrong("webhookUrl", "an address, `https://…` or `http://…`"))?;
    Ok(Some(Webhook {
        url: url.to_owned(),
        api_version: definition.text("apiVersion")?.unwrap_or("2021-10-01").to_owned(),
    }))
}

/// How much of an enrollment's secrets a document shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Neither keys nor certificates: what anybody reads.
    Public,
    /// Everything: what is stored, and what is asked for by name.
    Whole,
}

/// An enrollment as a document. `registration` is the state of an individual one's device.
pub(super) fn write(enrollment: &Enrollment, shown: Shown, registration: Option<Value>) -> Value {
    let mut document = json!({
        enrollment.kind.id_member(): enrollment.id.as_str(),
        "attestation": write_attestation(&enrollment.attestation, shown),
        "capabilities": { "iotEdge": enrollment.edge },
        "provisioningStatus": if enrollment.enabled { "enabled" } else { "disabled" },
        "reprovisionPolicy": {
            "updateHubAssignment": enrollment.reprovision.update_hub_assignment,
            "migrateDeviceData": enrollment.reprovision.migrate_device_data,
        },
        "allocationPolicy": enrollment.allocation.name(),
        "etag": enrollment.etag_text(),
        "createdDateTimeUtc": enrollment.created,
        "lastUpdatedDateTimeUtc": enrollment.updated,
    });
    let optional = [
        ("deviceId", enrollment.device.as_ref().map(|device| json!(device))),
        ("iotHubs", (!enrollment.hubs.is_empty()).then(|| json!(enrollment.hubs))),
        (
            "customAllocationDefinition",
            enrollment
                .webhook
                .as_ref()
                .map(|webhook| json!({ "webhookUrl": webhook.url, "apiVersion": webhook.api_version })),
        ),
        (
            "clientCertificateIssuancePolicy",
            enrollment
                .issuance
                .as_ref()
                .map(|name| json!({ "certificateAuthorityName": name })),
        ),
        (
            "deviceTakeover",
            (enrollment.takeover != Takeover::default()).then(|| json!(enrollment.takeover.name())),
        ),
        ("initialTwin", enrollment.initial_twin.clone()),
        ("optionalDeviceInformation", enrollment.information.clone()),
        ("registrationState", registration),
    ];
    if let Value::Object(members) = &mut document {
        let given = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        members.extend(given);
    }
    document
}
