//! `holm dps …`, at a running hub.

mod certificates;
mod changes;
mod devices;
mod documents;
mod hubs;
#[cfg(feature = "hub")]
mod serve;
mod show;

use anyhow::Context;
use holm_identity::SymmetricKey;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::{hub_access, policy};
use crate::cli::{Dps, DpsCommon, DpsGroup, DpsRegistration, Enrollment, HubAccess};
use crate::output;
use crate::service::Service;

use documents::{attestation, by_kept, document};
use show::{in_words, show};

/// How many items are asked for at a time.
const PAGE: &str = "500";

/// Of one device, or of many.
#[derive(Clone, Copy)]
enum Kind {
    Individual,
    Group,
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::Individual => "/enrollments",
            Self::Group => "/enrollmentGroups",
        }
    }

    /// As the command calls it.
    const fn noun(self) -> &'static str {
        match self {
            Self::Individual => "enrollment",
            Self::Group => "group",
        }
    }

    const fn id(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }
}

pub(crate) async fn run(command: Dps) -> anyhow::Result<()> {
    match command {
        #[cfg(feature = "hub")]
        Dps::Run(options) => serve::run(*options).await,
        Dps::Enrollment(Enrollment::Create {
            id,
            device_id,
            certificate,
            secondary_certificate,
            signed_by,
            tpm_endorsement_key,
            tpm_storage_root_key,
            rules,
            hub,
        }) => {
            documents::check_name(&id, certificate.as_deref())?;
            documents::check_name(&id, secondary_certificate.as_deref())?;
            let attestation = match (tpm_endorsement_key, signed_by) {
                (Some(endorsement), _) => json!({
                    "type": "tpm",
                    "tpm": { "endorsementKey": endorsement, "storageRootKey": tpm_storage_root_key },
                }),
                (None, Some(name)) => by_kept(&name, None),
                (None, None) => attestation(
                    "clientCertificates",
                    certificate.as_deref(),
                    secondary_certificate.as_deref(),
                )?,
            };
            let mut document = document(*rules, attestation)?;
            document["registrationId"] = json!(id);
            if let Some(device) = device_id {
                document["deviceId"] = json!(device);
            }
            create(Kind::Individual, &id, &document, &hub).await
        }
        Dps::Enrollment(Enrollment::Update {
            id,
            device_id,
            certificate,
            secondary_certificate,
            no_secondary,
            signed_by,
            rules,
            hub,
        }) => {
            documents::check_name(&id, certificate.as_deref())?;
            documents::check_name(&id, secondary_certificate.as_deref())?;
            let mut change = changes::Change::new(*rules)?;
            change.set("deviceId", device_id.map(|device| json!(device)));
            change.certificates("clientCertificates", certificate, secondary_certificate, no_secondary)?;
            change.kept(signed_by, None);
            changes::update(Kind::Individual, &id, change, &hub).await
        }
        Dps::Enrollment(Enrollment::Common(command)) => common(Kind::Individual, command).await,
        Dps::Group(DpsGroup::Create {
            id,
            signing_certificate,
            secondary_signing_certificate,
            signed_by,
            secondary_signed_by,
            rules,
            hub,
        }) => {
            let (first, second) = (signing_certificate.as_deref(), secondary_signing_certificate.as_deref());
            let attestation = match signed_by {
                Some(name) => by_kept(&name, secondary_signed_by.as_deref()),
                None => attestation("signingCertificates", first, second)?,
            };
            let mut document = document(rules, attestation)?;
            document["enrollmentGroupId"] = json!(id);
            create(Kind::Group, &id, &document, &hub).await
        }
        Dps::Group(DpsGroup::Update {
            id,
            signing_certificate,
            secondary_signing_certificate,
            no_secondary,
            signed_by,
            secondary_signed_by,
            rules,
            hub,
        }) => {
            let mut change = changes::Change::new(*rules)?;
            let (first, second) = (signing_certificate, secondary_signing_certificate);
            change.certificates("signingCertificates", first, second, no_secondary)?;
            change.kept(signed_by, secondary_signed_by);
            changes::update(Kind::Group, &id, change, &hub).await
        }
        Dps::Group(DpsGroup::DeviceKey { id, registration, hub }) => device_key(&id, &registration, &hub).await,
        Dps::Group(DpsGroup::Common(command)) => common(Kind::Group, command).await,
        Dps::Registration(command) => registration(command).await,
        Dps::Hub(command) => hubs::run(command).await,
        Dps::Certificate(command) => certificates::run(command).await,
        Dps::Policy(command) => policy::run(command, policy::OF_DPS).await,
    }
}

fn path(kind: Kind, id: &str) -> String {
    format!("{}/{}", kind.path(), percent::encode(id))
}

async fn create(kind: Kind, id: &str, document: &Value, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let noun = kind.noun();
    let (what, way_out) = (
        format!("{noun} `{id}`"),
        format!("`holm dps {noun} update {id}` changes it"),
    );
    let made = service.create(&path(kind, id), document, &what, &way_out).await?;
    show(&service, kind, &made, true, hub.json).await
}

async fn common(kind: Kind, command: DpsCommon) -> anyhow::Result<()> {
    match command {
        DpsCommon::Show { id, keys, hub } => {
            let service = hub_access::open(&hub)?;
            let found = service.call(Method::GET, &path(kind, &id), &[], None).await?.body;
            show(&service, kind, &found, keys, hub.json).await
        }
        DpsCommon::List { hub } => list(kind, &hub).await,
        DpsCommon::Enable { id, with_device, hub } => set_all(kind, &id, "enabled", with_device, &hub).await,
        DpsCommon::Disable { id, with_device, hub } => set_all(kind, &id, "disabled", with_device, &hub).await,
        DpsCommon::RenewKey { id, key, hub } => changes::renew_key(kind, &id, key, &hub).await,
        DpsCommon::Delete { id, hub } => {
            let service = hub_access::open(&hub)?;
            service
                .call(Method::DELETE, &path(kind, &id), &[("If-Match", "*")], None)
                .await?;
            said(&id, "deleted", hub.json);
            Ok(())
        }
    }
}

/// Prints one JSON document, also of an enrollment whose devices could not all follow.
async fn set_all(kind: Kind, id: &str, status: &str, with_device: bool, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    if !with_device {
        set_status(&service, kind, id, status).await?;
        said(id, status, hub.json);
        return Ok(());
    }
    // Asked before and after: what registers meanwhile shows its device before the change or not at all.
    let mut registrations = devices::registrations(&service, kind, id).await?;
    set_status(&service, kind, id, status).await?;
    let mut changed = Vec::new();
    let following = async {
        registrations.extend(devices::registrations(&service, kind, id).await?);
        devices::set_status(&service, &registrations, status, &mut changed).await
    };
    let followed = following.await;
    if hub.json {
        output::json(&json!({ "id": id, status: true, "devices": changed }));
    } else {
        said(id, status, false);
        changed.iter().for_each(|device| said(device, status, false));
    }
    followed
}

async fn set_status(service: &Service, kind: Kind, id: &str, status: &str) -> anyhow::Result<()> {
    let path = path(kind, id);
    let mut document = service.call(Method::GET, &path, &[], None).await?.body;
    let etag = document["etag"].as_str().unwrap_or("*").to_owned();
    document["provisioningStatus"] = json!(status);
    let headers = [("If-Match", etag.as_str())];
    service.call(Method::PUT, &path, &headers, Some(&document)).await?;
    Ok(())
}

fn said(id: &str, what: &str, as_json: bool) {
    if as_json {
        output::json(&json!({ "id": id, what: true }));
    } else {
        output::note(&format!("`{id}` is {what}"));
    }
}

async fn list(kind: Kind, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let items = pages(&service, &format!("{}/query", kind.path())).await?;
    if hub.json {
        output::json(&json!(items));
        return Ok(());
    }
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            vec![
                text(item, kind.id()),
                text(item, "provisioningStatus"),
                text(&item["attestation"], "type"),
                text(item, "allocationPolicy"),
                item.get("registrationState").map_or_else(|| "-".to_owned(), in_words),
            ]
        })
        .collect();
    match kind {
        Kind::Individual => {
            output::table(&["ENROLLMENT", "STATUS", "PROOF", "ALLOCATION", "REGISTRATION"], &rows);
        }
        Kind::Group => {
            let rows: Vec<_> = rows.into_iter().map(|row| row.into_iter().take(4).collect()).collect();
            output::table(&["GROUP", "STATUS", "PROOF", "ALLOCATION"], &rows);
        }
    }
    Ok(())
}

async fn pages(service: &Service, path: &str) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let mut headers = vec![("x-ms-max-item-count", PAGE)];
        if !next.is_empty() {
            headers.push(("x-ms-continuation", next.as_str()));
        }
        let (page, told) = service.page(path, &headers).await?;
        let Value::Array(page) = page else {
            anyhow::bail!("the hub's answer is not a list");
        };
        items.extend(page);
        match told {
            Some(told) => next = told,
            None => return Ok(items),
        }
    }
}

async fn device_key(id: &str, registration: &str, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let path = format!("{}/attestationmechanism", path(Kind::Group, id));
    let attestation = service.call(Method::POST, &path, &[], None).await?.body;
    let key = attestation["symmetricKey"]["primaryKey"].as_str();
    let key = key.with_context(|| format!("the devices of `{id}` prove themselves by certificates, not by keys"))?;
    let key = SymmetricKey::from_base64(key).context("the group's key can't be used")?;
    let derived = key.derive_for_registration(registration).to_base64();
    if hub.json {
        output::json(&json!({ "registrationId": registration, "key": derived.expose() }));
    } else {
        output::line(derived.expose());
    }
    Ok(())
}

async fn registration(command: DpsRegistration) -> anyhow::Result<()> {
    match command {
        DpsRegistration::Show { id, hub } => {
            let path = format!("/registrations/{}", percent::encode(&id));
            let found = hub_access::open(&hub)?.call(Method::GET, &path, &[], None).await?.body;
            if hub.json {
                output::json(&found);
            } else {
                output::indented(&found);
            }
        }
        DpsRegistration::List { group, hub } => {
            let path = format!("/registrations/{}/query", percent::encode(&group));
            let items = pages(&hub_access::open(&hub)?, &path).await?;
            if hub.json {
                output::json(&json!(items));
                return Ok(());
            }
            let row = |item: &Value| {
                vec![
                    text(item, "registrationId"),
                    text(item, "status"),
                    text(item, "assignedHub"),
                    text(item, "deviceId"),
                    text(item, "lastUpdatedDateTimeUtc"),
                ]
            };
            let rows: Vec<_> = items.iter().map(row).collect();
            output::table(&["REGISTRATION", "STATUS", "HUB", "DEVICE", "UPDATED"], &rows);
        }
        DpsRegistration::Delete { id, hub } => {
            let path = format!("/registrations/{}", percent::encode(&id));
            let service = hub_access::open(&hub)?;
            service.call(Method::DELETE, &path, &[("If-Match", "*")], None).await?;
            said(&id, "forgotten", hub.json);
        }
    }
    Ok(())
}

fn text(item: &Value, name: &str) -> String {
    item.get(name).and_then(Value::as_str).unwrap_or("-").to_owned()
}
