//! Proof of identity: who holds which key, and how that is shown on the wire.
//!
//! Shared keys and the tokens made with them, the key store that guards them, X.509 certificates, and the TLS settings that
//! let a peer show one. What a peer may do once it is known is decided elsewhere, and so is where keys of the registry are
//! kept.
//!
//! This crate opens no socket and reads neither the clock nor the environment: the time is an argument. It touches the file
//! system in two places, [`key_store::FileKeyStore`] and the files of a certificate authority, and takes randomness from the
//! operating system.

pub mod ca;
pub mod certificate;
pub mod client_verifier;
pub mod connection_string;
pub mod key_store;
pub mod private_file;
pub mod sas;
pub mod secret;
pub mod symmetric_key;
pub mod tls;
pub mod x509_auth;

pub use ca::CertificateAuthority;
pub use certificate::{CertificateDetails, CertificateInfo, TlsIdentity};
pub use client_verifier::ProofOfKeyVerifier;
pub use connection_string::{Credential, DeviceConnectionString, ServiceConnectionString};
pub use key_store::{FileKeyStore, KeyHandle, KeyName, KeyStore, Signer, StoredKey};
pub use sas::{Resource, SasToken, Scope};
pub use secret::Secret;
pub use symmetric_key::{KeySlot, SymmetricKey};
pub use tls::{ReloadableCertificate, Roots};
pub use x509_auth::{SigningCertificate, Thumbprint};
