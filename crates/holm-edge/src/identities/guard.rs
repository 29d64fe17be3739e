//! What the workload API asks of whoever guards keys and certificates.

use holm_identity::TlsIdentity;
use holm_identity::ca::AuthorityError;
use holm_identity::key_store::KeyStoreError;
use holm_model::ModuleId;
use holm_net::error_chain;

use super::Identities;
use crate::keys::ModuleKeys as _;
use crate::security::SecurityError;
use crate::workload::{Guard, GuardError, Guarding, Issued};

impl Identities {
    /// Nothing is done in the name of a module that this device does not have.
    fn check(&self, module: &ModuleId) -> Result<(), GuardError> {
        match self.generation(module) {
            Some(_) => Ok(()),
            None => Err(GuardError::UnknownModule(module.clone())),
        }
    }
}

impl Guard for Identities {
    fn sign<'a>(&'a self, module: &'a ModuleId, data: &'a [u8]) -> Guarding<'a, [u8; 32]> {
        let signature = crate::keys::ModuleKeys::sign(self, module, data);
        Box::pin(async move { signature.ok_or_else(|| GuardError::UnknownModule(module.clone())) })
    }

    fn encrypt<'a>(
        &'a self,
        module: &'a ModuleId,
        generation: &'a str,
        plaintext: &'a [u8],
        initialization_vector: &'a [u8],
    ) -> Guarding<'a, Vec<u8>> {
        Box::pin(async move {
            self.check(module)?;
            let encrypted = self
                .security
                .encrypt(module, generation, initialization_vector, plaintext);
            encrypted.await.map_err(refused)
        })
    }

    fn decrypt<'a>(
        &'a self,
        module: &'a ModuleId,
        generation: &'a str,
        ciphertext: &'a [u8],
        initialization_vector: &'a [u8],
    ) -> Guarding<'a, Vec<u8>> {
        Box::pin(async move {
            self.check(module)?;
            let decrypted = self
                .security
                .decrypt(module, generation, initialization_vector, ciphertext);
            decrypted.await.map(|plaintext| plaintext.to_vec()).map_err(refused)
        })
    }

    fn server_certificate<'a>(&'a self, module: &'a ModuleId, common_name: &'a str) -> Guarding<'a, Issued> {
        Box::pin(async move {
            self.check(module)?;
            issued(
                self.security
                    .issue_module_server(module, common_name, self.options.clock.now().into()),
            )
        })
    }

    fn identity_certificate<'a>(&'a self, module: &'a ModuleId) -> Guarding<'a, Issued> {
        Box::pin(async move {
            self.check(module)?;
            issued(
                self.security
                    .issue_module_identity(module, self.options.clock.now().into()),
            )
        })
    }

    fn trust_bundle(&self) -> Guarding<'_, String> {
        Box::pin(async move {
            let bundle = self.security.trust_bundle_pem(self.options.clock.now().into());
            bundle.map_err(|error| GuardError::Failed(error_chain(&error)))
        })
    }
}

/// What can't be decrypted, and a missing initialisation vector, are the caller's fault; a store that fails is ours.
fn refused(error: KeyStoreError) -> GuardError {
    let text = error_chain(&error);
    match error {
        KeyStoreError::Aead(_) => GuardError::Invalid(text),
        _ => GuardError::Failed(text),
    }
}

fn issued(identity: Result<TlsIdentity, SecurityError>) -> Result<Issued, GuardError> {
    let identity = identity.map_err(|error| match &error {
        SecurityError::Authority(AuthorityError::Name(_)) => GuardError::Invalid(error_chain(&error)),
        _ => GuardError::Failed(error_chain(&error)),
    })?;
    let info = identity
        .info()
        .map_err(|error| GuardError::Failed(error_chain(&error)))?;
    Ok(Issued {
        private_key_pem: identity.key_pem().expose().to_owned(),
        certificate_pem: identity.chain_pem(),
        expiration: info.not_after,
    })
}
