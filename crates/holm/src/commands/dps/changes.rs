//! `holm dps enrollment|group update` and `renew-key`: an enrollment is read, changed and written back, if nobody has changed it in
//! between.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use holm_identity::SymmetricKey;
use hyper::Method;
use ring::rand::SystemRandom;
use serde_json::{Map, Value, json};

use super::show::show;
use super::{Kind, documents, path};
use crate::cli::{Allocation, DpsRuleChanges, HubAccess, RenewedKey};
use crate::commands::hub_access;
use crate::output::WrongUse;

/// What is to be otherwise.
pub(super) struct Change {
    /// Members of the enrollment; null takes one away.
    members: Map<String, Value>,
    /// The pair of the attestation that changes, with what changes in it.
    pair: Option<(&'static str, Map<String, Value>)>,
    etag: Option<String>,
}

impl Change {
    pub(super) fn new(rules: DpsRuleChanges) -> anyhow::Result<Self> {
        let allocation = rules.allocation;
        if rules.webhook.is_some() && allocation.is_some_and(|allocation| allocation != Allocation::Custom) {
            bail!(WrongUse(documents::UNASKED.to_owned()));
        }
        let mut change = Self {
            members: Map::new(),
            pair: None,
            etag: rules.etag,
        };
        change.set("reprovisionPolicy", rules.reprovision.map(documents::reprovision));
        change.set("deviceTakeover", rules.takeover.map(documents::takeover));
        change.set("allocationPolicy", rules.allocation.map(documents::allocation));
        change.set("iotHubs", (!rules.hubs.is_empty()).then(|| json!(rules.hubs)));
        change.set("iotHubs", rules.any_hub.then_some(Value::Null));
        let webhook = rules.webhook.map(|url| documents::webhook(&url));
        change.set("customAllocationDefinition", webhook);
        let issued = |is_issued| {
            if is_issued {
                documents::by_the_hub()
            } else {
                Value::Null
            }
        };
        let issued = rules.issue_certificates.map(issued);
        change.set("clientCertificateIssuancePolicy", issued);
        change.set("initialTwin", rules.initial_twin);
        Ok(change)
    }

    pub(super) fn set(&mut self, member: &str, value: Option<Value>) {
        self.members.extend(value.map(|value| (member.to_owned(), value)));
    }

    /// Certificates under `member` of the attestation; those that are not given stay.
    pub(super) fn certificates(
        &mut self,
        member: &'static str,
        first: Option<PathBuf>,
        second: Option<PathBuf>,
        no_second: bool,
    ) -> anyhow::Result<()> {
        let mut pair = Map::new();
        for (name, file) in [("primary", first), ("secondary", second)] {
            if let Some(file) = file {
                pair.insert(name.to_owned(), json!({ "certificate": documents::read(&file)? }));
            }
        }
        if no_second {
            pair.insert("secondary".to_owned(), Value::Null);
        }
        if !pair.is_empty() {
            self.pair = Some((member, pair));
        }
        Ok(())
    }

    /// Kept certificates, by their names.
    pub(super) fn kept(&mut self, first: Option<String>, second: Option<String>) {
        let named = [("primary", first), ("secondary", second)];
        let named = named
            .into_iter()
            .filter_map(|(name, kept)| Some((name.to_owned(), json!(kept?))));
        let mut pair: Map<_, _> = named.collect();
        if pair.is_empty() {
            return;
        }
        // Said with a name: there is no second one any more.
        if let Some((_, said)) = self.pair.take() {
            pair.extend(said);
        }
        self.pair = Some(("caReferences", pair));
    }

    fn apply(self, document: &mut Value) -> anyhow::Result<()> {
        let names_webhook = self.members.contains_key("customAllocationDefinition");
        if let Value::Object(own) = document {
            own.extend(self.members);
        }
        if names_webhook && document["allocationPolicy"] != documents::allocation(Allocation::Custom) {
            bail!(documents::UNASKED);
        }
        let Some((mut member, change)) = self.pair else {
            return Ok(());
        };
        let x509 = &document["attestation"]["x509"];
        // To have no second one is said alike of certificates and of their names.
        let has_no_second = change.values().all(Value::is_null);
        if has_no_second && x509["caReferences"].is_object() {
            member = "caReferences";
        }
        let mut pair = x509[member].as_object().cloned().unwrap_or_default();
        pair.extend(change);
        document["attestation"] = json!({ "type": "x509", "x509": { member: pair } });
        Ok(())
    }
}

/// Changes an enrollment, and shows it.
pub(super) async fn update(kind: Kind, id: &str, change: Change, hub: &HubAccess) -> anyhow::Result<()> {
    if change.members.is_empty() && change.pair.is_none() {
        let told = "there is nothing to change; say what is to be otherwise, see `--help`";
        bail!(WrongUse(told.to_owned()));
    }
    let (service, path) = (hub_access::open(hub)?, path(kind, id));
    let mut document = service.call(Method::GET, &path, &[], None).await?.body;
    let read = document["etag"].as_str().unwrap_or("*").to_owned();
    let etag = change.etag.clone().unwrap_or(read);
    change.apply(&mut document)?;
    let headers = [("If-Match", etag.as_str())];
    let changed = service.call(Method::PUT, &path, &headers, Some(&document)).await?;
    show(&service, kind, &changed.body, false, hub.json).await
}

/// Gives an enrollment other keys, and shows it with them.
pub(super) async fn renew_key(kind: Kind, id: &str, key: RenewedKey, hub: &HubAccess) -> anyhow::Result<()> {
    let (service, path) = (hub_access::open(hub)?, path(kind, id));
    let mut document = service.call(Method::GET, &path, &[], None).await?.body;
    let etag = document["etag"].as_str().unwrap_or("*").to_owned();
    // Read after the etag: keys that somebody has changed in between are not written over.
    let keys = format!("{path}/attestationmechanism");
    let mut attestation = service.call(Method::POST, &keys, &[], None).await?.body;
    let keys = &mut attestation["symmetricKey"];
    if keys["primaryKey"].is_null() {
        bail!("`{id}` has no keys: its devices prove themselves otherwise");
    }
    let (primary, secondary) = (keys["primaryKey"].take(), keys["secondaryKey"].take());
    let (primary, secondary) = match key {
        RenewedKey::Primary => (new_key()?, secondary),
        RenewedKey::Secondary => (primary, new_key()?),
        RenewedKey::Both => (new_key()?, new_key()?),
        RenewedKey::Swap => (secondary, primary),
    };
    *keys = json!({ "primaryKey": primary, "secondaryKey": secondary });
    document["attestation"] = attestation;
    let headers = [("If-Match", etag.as_str())];
    let changed = service.call(Method::PUT, &path, &headers, Some(&document)).await?;
    show(&service, kind, &changed.body, true, hub.json).await
}

fn new_key() -> anyhow::Result<Value> {
    let key = SymmetricKey::generate(&SystemRandom::new()).context("no key can be made")?;
    Ok(json!(key.to_base64().expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> DpsRuleChanges {
        DpsRuleChanges {
            reprovision: None,
            takeover: None,
            allocation: None,
            hubs: Vec::new(),
            any_hub: false,
            issue_certificates: None,
            webhook: None,
            initial_twin: None,
            etag: None,
        }
    }

    #[test]
    fn what_is_not_said_stays_and_what_is_taken_away_is_null() {
        let mut document = json!({ "iotHubs": ["a.test"], "allocationPolicy": "static", "deviceId": "d" });
        let changes = DpsRuleChanges {
            any_hub: true,
            allocation: Some(Allocation::Hashed),
            issue_certificates: Some(false),
            ..rules()
        };

        Change::new(changes)
            .and_then(|change| change.apply(&mut document))
            .unwrap();

        assert_eq!(
            document,
            json!({ "iotHubs": null, "allocationPolicy": "hashed", "deviceId": "d", "clientCertificateIssuancePolicy": null })
        );
    }

    #[test]
    fn a_webhook_that_would_never_be_asked_is_refused() {
        let webhook = || DpsRuleChanges {
            webhook: Some("https://decides.test".to_owned()),
            ..rules()
        };
        let said = |allocation| DpsRuleChanges {
            allocation: Some(allocation),
            ..webhook()
        };
        let of = |allocation: &str| {
            let mut document = json!({ "allocationPolicy": allocation });
            Change::new(webhook()).and_then(|change| change.apply(&mut document))
        };

        let (otherwise, custom) = (
            Change::new(said(Allocation::Static)).map(drop),
            Change::new(said(Allocation::Custom)),
        );

        assert!(otherwise.is_err_and(|error| error.is::<WrongUse>()) && custom.is_ok());
        let told = of("hashed").unwrap_err().to_string();
        assert!(told.contains("--allocation custom") && of("custom").is_ok(), "{told}");
    }

    #[test]
    fn one_of_two_certificates_changes_and_the_other_stays() {
        let names = json!({ "attestation": { "type": "x509", "x509": { "caReferences": { "primary": "a", "secondary": "b" } } } });
        let of = |change: Change| {
            let mut document = names.clone();
            change.apply(&mut document).unwrap();
            document["attestation"]["x509"]["caReferences"].clone()
        };
        let mut second = Change::new(rules()).unwrap();
        second.kept(None, Some("c".to_owned()));
        let mut first = Change::new(rules()).unwrap();
        first.certificates("signingCertificates", None, None, true).unwrap();
        first.kept(Some("b".to_owned()), None);
        let mut without = Change::new(rules()).unwrap();
        without.certificates("signingCertificates", None, None, true).unwrap();

        assert_eq!(of(second), json!({ "primary": "a", "secondary": "c" }));
        assert_eq!(of(first), json!({ "primary": "b", "secondary": null }));
        assert_eq!(of(without), json!({ "primary": "a", "secondary": null }));
    }
}
