//! Documents for queries: as much of a twin as a query reads.
//!
//! A whole twin is what a service reads of it. Most conditions need little of it, and reading a million rows, that is what
//! counts: members that are cheap are put together here; one that is not makes the whole twin.

use holm_model::{DeviceId, Identity, ModuleId, ServiceError, Timestamp, etag};
use holm_query::twin::Roots;
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

/// Moves what is named out of the stored form of a twin into its published form.
fn add_twin(document: &mut Map<String, Value>, stored: &str, roots: &Roots) -> Result<(), ServiceError> {
    let mut twin = parse(stored)?;
    if roots.has("tags") {
        document.insert("tags".to_owned(), twin["tags"].take());
    }
    if roots.has("etag") {
        document.insert(
            "etag".to_owned(),
            json!(etag::of_counter(twin["version"].as_u64().unwrap_or_default())),
        );
    }
    let mut properties = Map::new();
    for (section, member) in [("desired", "properties.desired"), ("reported", "properties.reported")] {
        if roots.has(member) {
            let mut stored = twin[section].take();
            let mut published = stored["properties"].take();
            published["$metadata"] = stored["metadata"].take();
            published["$version"] = stored["version"].take();
            properties.insert(section.to_owned(), published);
        }
    }
    if !properties.is_empty() {
        document.insert("properties".to_owned(), Value::Object(properties));
    }
    if roots.has("version") {
        document.insert("version".to_owned(), twin["version"].take());
    }
    Ok(())
}

fn parse(json: &str) -> Result<Value, ServiceError> {
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
        let roots = Roots::Some(OF_TWIN.iter().map(|member| (*member).to_owned()).collect());

        let mut document = Map::new();
        add_twin(&mut document, &stored, &roots).unwrap();

        let published = twin.service_view(&TwinFacts::default());
        assert_eq!(document.len(), 4);
        for (member, value) in &document {
            assert_eq!(value, &published[member], "{member}");
        }
    }
}
