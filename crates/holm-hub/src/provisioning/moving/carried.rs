//! What goes with a device: read at the hub where it was.

use holm_model::{DeviceId, Identity, ModuleId};
use serde_json::{Map, Value, json};

use super::settling::is_unfinished;
use crate::provisioning::linked::Trouble;
use crate::provisioning::place::Place;

/// What goes with a device.
pub(super) struct Carried {
    pub(super) status: Value,
    pub(super) reason: Value,
    pub(super) twin: Value,
    pub(super) reported: Value,
    pub(super) modules: Vec<CarriedModule>,
}

/// A module of such a device.
pub(super) struct CarriedModule {
    pub(super) identity: Identity,
    /// As the registry shows it.
    pub(super) document: Value,
    pub(super) twin: Value,
    pub(super) reported: Value,
}

impl Carried {
    /// `None` where there is nothing: the device has gone from there.
    pub(super) async fn read(place: &Place<'_>, device: &DeviceId) -> Result<Option<Self>, Trouble> {
        let identity = Identity::of_device(device.clone());
        let found = place.identity(&identity).await?.filter(|found| !is_unfinished(found));
        let (Some(found), Some(twin)) = (found, place.twin(&identity).await?) else {
            return Ok(None);
        };
        let mut modules = Vec::new();
        for module in place.modules(device).await? {
            let Some(Ok(id)) = module["moduleId"].as_str().map(ModuleId::new) else {
                return Err(Trouble::passing("a module there has no id"));
            };
            let identity = Identity::of_module(device.clone(), id);
            if let Some(twin) = place.twin(&identity).await? {
                modules.push(CarriedModule {
                    identity,
                    document: module,
                    twin: settable(&twin),
                    reported: reported(&twin),
                });
            }
        }
        Ok(Some(Self {
            status: found["status"].clone(),
            reason: found["statusReason"].clone(),
            twin: settable(&twin),
            reported: reported(&twin),
            modules,
        }))
    }
}

/// What a back end may write of a twin that it has read.
pub(super) fn settable(twin: &Value) -> Value {
    json!({
        "tags": without_marks(&twin["tags"]),
        "properties": { "desired": without_marks(&twin["properties"]["desired"]) },
    })
}

/// What a device has reported, of a twin that a back end has read.
fn reported(twin: &Value) -> Value {
    Value::Object(without_marks(&twin["properties"]["reported"]))
}

fn without_marks(section: &Value) -> Map<String, Value> {
    let members = section.as_object().into_iter().flatten();
    let own = members.filter(|(name, _)| !name.starts_with('$'));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}
