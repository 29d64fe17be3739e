//! A device is made what it is to be, at the hub where it will be.

use holm_model::{DeviceId, Identity, ModuleId};
use serde_json::{Value, json};

use super::carried::{Carried, CarriedModule, settable};
use super::record::{Data, Move};
use crate::provisioning::enrollment::Takeover;
use crate::provisioning::linked::Trouble;
use crate::provisioning::place::Place;

/// Marks a device that is not finished.
const UNFINISHED: &str = "not finished by the provisioning service";

pub(super) fn is_unfinished(device: &Value) -> bool {
    device["status"] == "disabled" && device["statusReason"] == UNFINISHED
}

/// How a device has settled in.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// It was not there before.
    pub(super) is_made_here: bool,
    /// It was there, and not its enrollment's.
    pub(super) is_taken: bool,
    /// So it was, and its enrollment takes over none: nothing has been done.
    pub(super) is_not_its_own: bool,
    /// Which of that id it is now.
    pub(super) generation: String,
}

/// Makes a device what it is to be.
pub(super) async fn settle_in(
    place: &Place<'_>,
    device: &DeviceId,
    moving: &Move,
    carried: Option<Carried>,
) -> Result<Settled, Trouble> {
    let identity = Identity::of_device(device.clone());
    let mut there = place.identity(&identity).await?;
    let finished = there.as_ref().filter(|there| !is_unfinished(there));
    // After a crash it may have been made by this very move, which its proof tells.
    let is_taken = finished
        .is_some_and(|there| there["authentication"] != moving.authentication && !moving.known.is(&generation(there)));
    if is_taken && moving.takeover == Takeover::Refuse {
        return Ok(Settled {
            is_not_its_own: true,
            ..Settled::default()
        });
    }
    if moving.data == Data::BeginsAnew && finished.is_some() {
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
        return Ok(Settled {
            is_taken,
            generation: generation(&document),
            ..Settled::default()
        });
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
    let made = place.identity(&identity).await?;
    let generation = made.as_ref().map(generation);
    let generation = generation.ok_or_else(|| Trouble::passing("the device went while it was made"))?;
    (document["status"], document["statusReason"]) = (status, reason);
    place.put(&identity, &document, true).await?;
    Ok(Settled {
        is_made_here: true,
        is_taken,
        is_not_its_own: false,
        generation,
    })
}

fn generation(device: &Value) -> String {
    device["generationId"].as_str().unwrap_or_default().to_owned()
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
