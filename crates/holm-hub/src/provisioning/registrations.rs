//! Registrations as back ends read and delete them.

use holm_model::{ProvisioningError, RegistrationId};
use serde_json::Value;

use super::{Kind, Provisioning, Registration, check_etag, enrollments, is_full, moving};

impl Provisioning {
    /// What became of the device of a registration id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn registration(&self, id: RegistrationId) -> Result<Registration, ProvisioningError> {
        let missing = no_registration(&id);
        let found = self.0.repository.read(move |view| moving::registration_now(view, &id));
        found.await?.ok_or(missing)
    }

    /// Forgets what became of a device: its next registration is its first. The device stays.
    ///
    /// # Errors
    /// `NotFound`, `PreconditionFailed`.
    pub async fn forget(&self, id: RegistrationId, if_match: Option<String>) -> Result<(), ProvisioningError> {
        let now = self.0.clock.now();
        let done = self.0.repository.change(move |transaction| {
            let Some(current) = moving::registration_now(transaction, &id)? else {
                return Ok(Err(no_registration(&id)));
            };
            if let Err(refused) = check_etag(&current.etag_text(), if_match.as_deref(), &id) {
                return Ok(Err(refused));
            }
            transaction.remove_move(&id)?;
            transaction.remove_registration(&id)?;
            if let Some(assignment) = &current.assignment {
                transaction.forget_provisioned(&assignment.device)?;
            }
            transaction.record("registration.delete", &current.id, Some(&current.etag_text()), now)?;
            Ok(Ok(()))
        });
        done.await?
    }

    /// What became of the devices of a group, behind `after`, at most `most`, and the id behind which others are.
    ///
    /// # Errors
    /// `NotFound` when there is no such group.
    pub async fn registrations(
        &self,
        group: RegistrationId,
        after: String,
        most: u32,
    ) -> Result<(Vec<Value>, Option<String>), ProvisioningError> {
        let missing = enrollments::not_found(Kind::Group, &group);
        let read = self.0.repository.read(move |view| {
            let found = view.registrations_of(&group, &after, most)?;
            // Those of a group that has gone are still to be seen.
            if found.is_empty() && view.enrollment(Kind::Group, &group)?.is_none() {
                return Ok(None);
            }
            let next = is_full(found.len(), most).then(|| found.last().map(|last| last.id.key().to_owned()));
            let documents: Vec<_> = found.iter().map(Registration::to_json).collect();
            Ok(Some((documents, next.flatten())))
        });
        read.await?.ok_or(missing)
    }
}

pub(super) fn no_registration(id: &RegistrationId) -> ProvisioningError {
    ProvisioningError::not_found(format!("nobody has registered as `{id}`"))
}
