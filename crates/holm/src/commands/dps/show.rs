//! Enrollments for people: what an enrollment is, what its devices are given, and what became of them.

use hyper::Method;
use serde_json::Value;

use super::{Kind, path, text};
use crate::output;
use crate::service::Service;

/// The published JSON, or what a person needs; the keys, which are asked for by themselves, in either.
pub(super) async fn show(
    service: &Service,
    kind: Kind,
    found: &Value,
    keys: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let id = text(found, kind.id());
    let mut found = found.clone();
    let by_keys = found["attestation"]["type"] == "symmetricKey";
    if keys && by_keys {
        let path = format!("{}/attestationmechanism", path(kind, &id));
        found["attestation"] = service.call(Method::POST, &path, &[], None).await?.body;
    }
    if as_json {
        output::json(&found);
        return Ok(());
    }
    let policy = &found["reprovisionPolicy"];
    let reprovision = match (
        policy["updateHubAssignment"].as_bool(),
        policy["migrateDeviceData"].as_bool(),
    ) {
        (Some(false), _) => "never",
        (_, Some(false)) => "reset",
        _ => "migrate",
    };
    output::line(&format!("id             {id}"));
    output::line(&format!("status         {}", text(&found, "provisioningStatus")));
    output::line(&format!("proof          {}", text(&found["attestation"], "type")));
    output::line(&format!("allocation     {}", text(&found, "allocationPolicy")));
    output::line(&format!("reprovision    {reprovision}"));
    let takeover = found["deviceTakeover"].as_str().unwrap_or("allow");
    output::line(&format!("takeover       {takeover}"));
    let is_edge = found["capabilities"]["iotEdge"] == true;
    output::line(&format!("edge           {}", if is_edge { "yes" } else { "no" }));
    for (name, value) in kept(&found) {
        output::line(&format!("{name:<15}{value}"));
    }
    if let Some(state) = found.get("registrationState") {
        output::line(&format!("registration   {}", in_words(state)));
    }
    if keys && by_keys {
        let keys = &found["attestation"]["symmetricKey"];
        output::line(&format!("primary key    {}", text(keys, "primaryKey")));
        output::line(&format!("secondary key  {}", text(keys, "secondaryKey")));
    }
    Ok(())
}

/// What an enrollment says of its devices beside what each says.
fn kept(found: &Value) -> Vec<(&'static str, String)> {
    let said = |pointer: &str| found.pointer(pointer).filter(|value| !value.is_null());
    let text = |pointer: &str| said(pointer).and_then(Value::as_str).map(str::to_owned);
    let hubs = said("/iotHubs").and_then(Value::as_array).map(|hubs| {
        let hubs: Vec<_> = hubs.iter().filter_map(Value::as_str).collect();
        hubs.join(", ")
    });
    let kept = [
        ("device", text("/deviceId")),
        ("hubs", hubs.filter(|hubs| !hubs.is_empty())),
        ("webhook", text("/customAllocationDefinition/webhookUrl")),
        (
            "certificates",
            said("/clientCertificateIssuancePolicy").map(|_| "issued to those who ask".to_owned()),
        ),
        ("initial twin", said("/initialTwin").map(Value::to_string)),
    ];
    let kept = kept.into_iter();
    kept.filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `assigned to hub.test as dev1`, or why not.
pub(super) fn in_words(state: &Value) -> String {
    let status = text(state, "status");
    match (state.get("assignedHub"), state.get("errorMessage")) {
        (Some(_), _) => format!(
            "{status} to {} as {}",
            text(state, "assignedHub"),
            text(state, "deviceId")
        ),
        (None, Some(_)) => format!("{status}: {}", text(state, "errorMessage")),
        (None, None) => status,
    }
}
