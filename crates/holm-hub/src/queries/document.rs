//! Documents for queries: as much of a twin as a query reads.
//!
//! A whole twin is what a service reads of it. Most conditions need little of it, and reading a million rows, that is what
//! counts: members that are cheap are put together here; one that is not makes the whole twin.

use holm_model::{DeviceId, Identity, ModuleId, ServiceError, Timestamp, etag};
use holm_query::twin::Roots;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::presence::Presence;
use crate::storage::{FleetRow, RowKey, View};
use crate::twins;

/// Members that are in the stored twin.
const OF_TWIN: &[&str] = &["tags", "version", "etag", "properties.desired", "properties.reported"];
/// Members that only a whole twin has.
const COSTLY: &[&str] = &[
    "deviceEtag",
    "cloudToDeviceMessageCount",
    "x509Thumbprint",
    "configurations",
    "attributes",
];

/// Whether a document with these members needs the stored twin.
pub(super) fn needs_twin(roots: &Roots) -> bool {
    !is_whole(roots) && OF_TWIN.iter().any(|member| roots.has(member))
}

fn is_whole(roots: &Roots) -> bool {
    *roots == Roots::All || COSTLY.iter().any(|member| roots.has(member))
}

/// The identity of a row.
pub(super) fn identity(key: &RowKey) -> Result<Identity, ServiceError> {
    let damaged = || ServiceError::server_error("the hub's database holds a damaged identity");
    let module = match key.1.as_str() {
        "" => None,
        module => Some(ModuleId::new(module).map_err(|_| damaged())?),
    };
    let device = DeviceId::new(&key.0).map_err(|_| damaged())?;
    Ok(Identity { device, module })
}

/// The members of a twin that `roots` names, or more.
///
/// # Errors
/// When the database can't be read.
pub(super) fn document(
    view: &View<'_>,
    presence: &Presence,
    key: &RowKey,
    row: &FleetRow,
    roots: &Roots,
) -> Result<Value, ServiceError> {
    if is_whole(roots) {
        return twins::whole(view, presence, &identity(key)?);
    }
    let mut document = Map::new();
    let mut set = |member: &str, value: Value| {
        if roots.has(member) {
            document.insert(member.to_owned(), value);
        }
    };
    set("deviceId", json!(key.0));
    if !key.1.is_empty() {
        set("moduleId", json!(key.1));
    }
    set("status", json!(if row.enabled { "enabled" } else { "disabled" }));
    set("statusReason", json!(row.status_reason));
    set(
        "statusUpdateTime",
        json!(Timestamp::from_unix_millis(row.status_updated)),
    );
    set("authenticationType", json!(row.authentication));
    set("capabilities", json!({"iotEdge": row.edge}));
    set("deviceScope", json!(row.device_scope));
    if roots.has("parentScopes") {
        set("parentScopes", parse(&row.parent_scopes)?);
    }
    if ["connectionState", "lastActivityTime", "modelId"]
        .iter()
        .any(|member| roots.has(member))
    {
        let activity = twins::activity(view, presence, &identity(key)?)?;
        set(
            "connectionState",
            json!(if activity.connected {
                "Connected"
            } else {
                "Disconnected"
            }),
        );
        set("lastActivityTime", json!(activity.last_activity));
        set("modelId", json!(activity.model_id));
    }
    if needs_twin(roots) {
        add_twin(&mut document, &row.twin, roots)?;
    }
    Ok(Value::Object(document))
}

/// The stored form of a twin, with its parts as they are written.
#[derive(Deserialize)]
struct Stored<'t> {
    version: u64,
    #[serde(borrow)]
    tags: &'t RawValue,
    #[serde(borrow)]
    desired: StoredSection<'t>,
    #[serde(borrow)]
    reported: StoredSection<'t>,
}

#[derive(Deserialize)]
struct StoredSection<'t> {
    #[serde(borrow)]
    properties: &'t RawValue,
    #[serde(borrow)]
    metadata: &'t RawValue,
    version: u64,
}

/// Puts what is named of the stored form of a twin into its published form. What is not is passed over, and not made into values.
fn add_twin(document: &mut Map<String, Value>, stored: &str, roots: &Roots) -> Result<(), ServiceError> {
    let twin: Stored<'_> = parse(stored)?;
    if roots.has("tags") {
        document.insert("tags".to_owned(), parse(twin.tags.get())?);
    }
    if roots.has("etag") {
        document.insert("etag".to_owned(), json!(etag::of_counter(twin.version)));
    }
    let mut properties = Map::new();
    for (section, stored) in [("desired", &twin.desired), ("reported", &twin.reported)] {
        let member = format!("properties.{section}");
        if !roots.has(&member) {
            continue;
        }
        let mut published: Map<String, Value> = parse(stored.properties.get())?;
        if roots.has(&format!("{member}.$metadata")) {
            published.insert("$metadata".to_owned(), parse(stored.metadata.get())?);
        }
        published.insert("$version".to_owned(), stored.version.into());
        properties.insert(section.to_owned(), Value::Object(published));
    }
    if !properties.is_empty() {
        document.insert("properties".to_owned(), Value::Object(properties));
    }
    if roots.has("version") {
        document.insert("version".to_owned(), twin.version.into());
    }
    Ok(())
}

fn parse<'t, T: Deserialize<'t>>(json: &'t str) -> Result<T, ServiceError> {
    serde_json::from_str(json).map_err(|_| ServiceError::server_error("the hub's database holds a damaged twin"))
}

#[cfg(test)]
mod tests {
    use holm_model::Twin;
    use holm_model::twin::TwinFacts;

    use super::*;

    /// Members that are put together here, but for those of the twin itself.
    const CHEAP: &[&str] = &[
        "deviceId",
        "moduleId",
        "status",
        "statusReason",
        "statusUpdateTime",
        "authenticationType",
        "capabilities",
        "deviceScope",
        "parentScopes",
        "connectionState",
        "lastActivityTime",
        "modelId",
    ];

    #[test]
    fn every_member_of_a_twin_is_known_here() {
        let twin = Twin::new("d/m".parse().unwrap(), Timestamp::NEVER).service_view(&TwinFacts::default());

        for member in twin
            .as_object()
            .unwrap()
            .keys()
            .filter(|member| *member != "properties")
        {
            let known = [CHEAP, OF_TWIN, COSTLY].concat().contains(&member.as_str());
            assert!(known, "{member}");
        }
    }

    #[test]
    fn the_stored_twin_becomes_the_published_one() {
        let mut twin = Twin::new("d".parse().unwrap(), Timestamp::NEVER);
        let patch = json!({"fw": {"a": 1}});
        twin.patch_reported(patch.as_object().unwrap(), None, Timestamp::NEVER)
            .unwrap();
        let stored = serde_json::to_string(&twin).unwrap();
        let metadata = ["properties.desired.$metadata", "properties.reported.$metadata"];
        let members = OF_TWIN.iter().chain(&metadata);
        let roots = Roots::Some(members.map(|member| (*member).to_owned()).collect());

        let mut document = Map::new();
        add_twin(&mut document, &stored, &roots).unwrap();

        let published = twin.service_view(&TwinFacts::default());
        assert_eq!(document.len(), 4);
        for (member, value) in &document {
            assert_eq!(value, &published[member], "{member}");
        }
    }
}
