//! What modules ask of the keys through the workload API: encryption, and certificates of their own.

use std::sync::Arc;

use holm_identity::key_store::{AeadContext, KeyStoreError};
use holm_identity::{CertificateAuthority, TlsIdentity};
use holm_model::{ModuleId, Timestamp};

use super::{LEAF_DAYS, Security, SecurityError};

impl Security {
    /// Encrypts for a module and generation: no other module, and no later module of the same name, can decrypt it.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn encrypt(
        &self,
        module: &ModuleId,
        generation: &str,
        iv: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, KeyStoreError> {
        let associated_data = format!("{module}{generation}");
        let context = AeadContext {
            iv,
            associated_data: associated_data.as_bytes(),
        };
        self.keys.encrypt(&self.encryption_key, context, plaintext).await
    }

    /// Decrypts what [`Security::encrypt`] gave with the same module, generation and initialisation vector.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn decrypt(
        &self,
        module: &ModuleId,
        generation: &str,
        iv: &[u8],
        ciphertext: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyStoreError> {
        let associated_data = format!("{module}{generation}");
        let context = AeadContext {
            iv,
            associated_data: associated_data.as_bytes(),
        };
        self.keys.decrypt(&self.encryption_key, context, ciphertext).await
    }

    /// A server certificate for a module: for the common name that it asks for, and its own id.
    ///
    /// # Errors
    /// [`SecurityError::Authority`], also when the name can't stand in a certificate.
    pub fn issue_module_server(
        &self,
        module: &ModuleId,
        common_name: &str,
        now: Timestamp,
    ) -> Result<TlsIdentity, SecurityError> {
        let id = module.as_str().trim_start_matches('$');
        self.authority()
            .issue_server(&[common_name, id], LEAF_DAYS, now)
            .map_err(SecurityError::Authority)
    }

    /// A client certificate that says which module its holder is.
    ///
    /// # Errors
    /// [`SecurityError::Authority`].
    pub fn issue_module_identity(&self, module: &ModuleId, now: Timestamp) -> Result<TlsIdentity, SecurityError> {
        let uri = format!(
            "URI: azureiot://{}/devices/{}/modules/{module}",
            self.hub_host(),
            self.device()
        );
        self.authority()
            .issue_client(module.as_str(), &[uri], LEAF_DAYS, now)
            .map_err(SecurityError::Authority)
    }

    fn authority(&self) -> Arc<CertificateAuthority> {
        Arc::clone(&self.lock().authorities.current)
    }
}
