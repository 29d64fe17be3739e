//! Identities with keys that follow from their names.

use std::collections::BTreeMap;
use std::sync::Mutex;

use holm_identity::sas::resource_uri;
use holm_identity::{SasToken, SymmetricKey};
use holm_model::{DeviceId, Identity, ModuleId};
use tokio::sync::watch;

use super::{HUB_HOST, module};
use crate::keys::ModuleKeys;

pub(crate) struct Keys {
    device: DeviceId,
    generations: Mutex<BTreeMap<ModuleId, String>>,
    changes: watch::Sender<u64>,
}

impl Keys {
    pub(crate) fn of(modules: &[&str]) -> Self {
        let generation = |name: &&str| (module(name), format!("g-{name}"));
        Self {
            device: DeviceId::new("box").unwrap(),
            generations: Mutex::new(modules.iter().chain(&["$edgeHub"]).map(generation).collect()),
            changes: watch::Sender::new(1),
        }
    }

    pub(crate) fn never_loaded() -> Self {
        let keys = Self::of(&[]);
        keys.changes.send_replace(0);
        keys
    }

    pub(crate) fn add(&self, module: &ModuleId) {
        let generation = format!("g-{module}");
        self.generations.lock().unwrap().insert(module.clone(), generation);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.generations.lock().unwrap().remove(&module(name));
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn key(module: &ModuleId, slot: &str) -> SymmetricKey {
        SymmetricKey::from_bytes(format!("a key of sixteen bytes or more: {module} {slot}")).unwrap()
    }

    /// A token as the module would make it.
    pub(crate) fn token(identity: &Identity, host: &str, expires: i64, key: &SymmetricKey) -> String {
        let token = SasToken::sign(&resource_uri(host, identity), expires, None, key);
        token.to_text().expose().to_owned()
    }
}

impl ModuleKeys for Keys {
    fn device(&self) -> &DeviceId {
        &self.device
    }

    fn hub_host(&self) -> &str {
        HUB_HOST
    }

    fn generation(&self, module: &ModuleId) -> Option<String> {
        self.generations.lock().unwrap().get(module).cloned()
    }

    fn modules(&self) -> Vec<ModuleId> {
        self.generations.lock().unwrap().keys().cloned().collect()
    }

    fn sign(&self, module: &ModuleId, data: &[u8]) -> Option<[u8; 32]> {
        self.generation(module)
            .map(|_| Self::key(module, "primary").hmac_sha256(data))
    }

    fn verify(&self, module: &ModuleId, data: &[u8], signature: &[u8]) -> bool {
        let slots = ["primary", "secondary"];
        slots
            .iter()
            .any(|slot| Self::key(module, slot).verify_hmac_sha256(data, signature))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
