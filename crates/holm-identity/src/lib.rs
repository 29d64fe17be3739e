//! Proof of identity: who holds which key, and how that is shown on the wire.
//!
//! Shared keys and the tokens made with them, the key store that guards them, X.509 certificates, and the TLS settings that
//! let a peer show one. What a peer may do once it is known is decided elsewhere, and so is where keys of the registry are
//! kept.
//!
//! This crate opens no socket and reads neither the clock nor the environment: the time is an argument. It touches the file
//! system in two places, [`key_store::FileKeyStore`] and the files of a certificate authority, and takes randomness from the
//! operating system.

pub mod connection_string;
pub mod sas;
pub mod secret;
pub mod symmetric_key;

mod percent;

pub use connection_string::{Credential, DeviceConnectionString, ServiceConnectionString};
pub use sas::{Resource, SasToken, Scope};
pub use secret::Secret;
pub use symmetric_key::{KeySlot, SymmetricKey};
