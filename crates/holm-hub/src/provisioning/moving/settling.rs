//! A device is made what it is to be, at the hub where it will be.

use holm_model::{DeviceId, Identity, ModuleId};
use serde_json::{Value, json};

use super::carried::{Carried, settable};
use super::record::{Data, Move};
use crate::provisioning::linked::Trouble;
use crate::provisioning::place::Place;

/// Marks a device that is not finished.
const UNFINISHED: &str = "not finished by the provisioning service";

pub(super) fn is_unfinished(device: &Value) -> bool {
    device["status"] == "disabled" && device["statusReason"] == UNFINISHED
}

/// Makes a device what it is to be; says whether it was not there before.
pub(super) async fn settle_in(
    place: &Place<'_>,
    device: &DeviceId,
    moving: &Move,
    carried: Option<Carried>,
) -> Result<bool, Trouble> {
    let identity = Identity::of_device(device.clone());
    let mut there = place.identity(&identity).await?;
    if moving.data == Data::BeginsAnew && there.as_ref().is_some_and(|there| !is_unfinished(there)) {
        place.remove(device).await?;
        there = None;
    }
    if let Some(mut document) = there.clone().filter(|there| !is_unfinished(there)) {
        let becomes_edge = moving.edge && document["capabilities"]["iotEdge"] != true;
        if document["authentication"] != moving.authentication || becomes_edge {
            document["authentication"] = moving.authentication.clone();
            document["capabilities"] = json!({ "iotEdge": moving.edge || document["capabilities"]["iotEdge"] == true });
            place.put(&identity, &document, true).await?;
        }
        if let Some(carried) = carried {
            place.put_twin(&identity, &carried.twin).await?;
            put_modules(place, device, carried.modules).await?;
        }
        return Ok(false);
    }
    let mut document = json!({
        "deviceId": device,
        "status": "disabled",
        "statusReason": UNFINISHED,
        "authentication": moving.authentication,
        "capabilities": { "iotEdge": moving.edge },
    });
    place.put(&identity, &document, there.is_some()).await?;
    let (twin, modules, status, reason) = match carried {
        Some(carried) => (carried.twin, carried.modules, carried.status, carried.reason),
        None => {
            let twin = moving.initial_twin.clone().unwrap_or_else(|| json!({}));
            (settable(&twin), Vec::new(), json!("enabled"), Value::Null)
        }
    };
    place.put_twin(&identity, &twin).await?;
    put_modules(place, device, modules).await?;
    (document["status"], document["statusReason"]) = (status, reason);
    place.put(&identity, &document, true).await?;
    Ok(true)
}

async fn put_modules(
    place: &Place<'_>,
    device: &DeviceId,
    modules: Vec<(Identity, Value, Value)>,
) -> Result<(), Trouble> {
    if modules.is_empty() {
        return Ok(());
    }
    let there = place.modules(device).await?;
    for (identity, module, twin) in modules {
        let is_there = there.iter().any(|known| known["moduleId"] == module["moduleId"]);
        let document = json!({
            "deviceId": device,
            "moduleId": module["moduleId"],
            "authentication": module["authentication"],
            "managedBy": module["managedBy"],
        });
        // The keys of the runtime's own modules are the edge's to give, which it does when it comes to a hub.
        if !identity.module.as_ref().is_some_and(ModuleId::is_system) {
            place.put(&identity, &document, is_there).await?;
        }
        place.put_twin(&identity, &twin).await?;
    }
    Ok(())
}
