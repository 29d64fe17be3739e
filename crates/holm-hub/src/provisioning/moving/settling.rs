//! A device is made what it is to be, at the hub where it will be.

use holm_model::{DeviceId, Identity, ModuleId};
use serde_json::{Value, json};

use super::carried::{Carried, CarriedModule, settable};
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
            put_twins(place, &identity, &carried.twin, &carried.reported).await?;
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
    let (status, reason) = match carried {
        Some(carried) => {
            put_twins(place, &identity, &carried.twin, &carried.reported).await?;
            put_modules(place, device, carried.modules).await?;
            (carried.status, carried.reason)
        }
        None => {
            let twin = moving.initial_twin.clone().unwrap_or_else(|| json!({}));
            place.put_twin(&identity, &settable(&twin)).await?;
            (json!("enabled"), Value::Null)
        }
    };
    (document["status"], document["statusReason"]) = (status, reason);
    place.put(&identity, &document, true).await?;
    Ok(true)
}

async fn put_twins(place: &Place<'_>, identity: &Identity, twin: &Value, reported: &Value) -> Result<(), Trouble> {
    place.put_twin(identity, twin).await?;
    place.put_reported(identity, reported).await
}

async fn put_modules(place: &Place<'_>, device: &DeviceId, modules: Vec<CarriedModule>) -> Result<(), Trouble> {
    if modules.is_empty() {
        return Ok(());
    }
    let there = place.modules(device).await?;
    for CarriedModule {
        identity,
        document: module,
        twin,
        reported,
    } in modules
    {
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
        put_twins(place, &identity, &twin, &reported).await?;
    }
    Ok(())
}
