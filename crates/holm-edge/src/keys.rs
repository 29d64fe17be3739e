//! What the parts of the edge ask of whoever guards the keys: who the modules of this device are, and signatures in their
//! name. Key bytes never cross this line.

use holm_model::{DeviceId, ModuleId};
use tokio::sync::watch;

/// The identities of this device's modules, with their keys behind it.
pub trait ModuleKeys: Send + Sync + 'static {
    /// The device that this edge is.
    fn device(&self) -> &DeviceId;

    /// The hub's host name, as it stands in tokens and user names.
    fn hub_host(&self) -> &str;

    /// The generation of a module's identity at the hub; `None` when this device has no such module. The runtime's own
    /// modules (`$edgeAgent`, `$edgeHub`) are modules like others here.
    fn generation(&self, module: &ModuleId) -> Option<String>;

    /// The modules that exist now.
    fn modules(&self) -> Vec<ModuleId>;

    /// HMAC-SHA256 of `data` with the module's primary key; `None` when there is no such module.
    fn sign(&self, module: &ModuleId, data: &[u8]) -> Option<[u8; 32]>;

    /// Whether `signature` is the HMAC-SHA256 of `data` with the module's primary or secondary key; compared in constant
    /// time.
    fn verify(&self, module: &ModuleId, data: &[u8], signature: &[u8]) -> bool;

    /// Changes each time the set of modules or one of their generations has changed. `0` means that it was never loaded:
    /// nobody can be told yet that they do not exist.
    fn changes(&self) -> watch::Receiver<u64>;
}
