//! What a provisioning service goes by: made at the first start of a hub that has one, and then kept, since devices carry it.

use holm_identity::SymmetricKey;
use holm_model::ServiceError;

use super::MAX_GROUPS;
use super::access::{ProvisioningPolicy, ProvisioningRights};
use super::enrollment::{Enrollment, Kind};
use crate::random;
use crate::registry::Keys;
use crate::storage::{KeptCertificate, LinkedHub, ProvisioningSettings, RightSet as _, Transaction};

/// What a service begins with.
pub(super) struct Prepared {
    pub(super) settings: ProvisioningSettings,
    pub(super) policies: Vec<ProvisioningPolicy>,
    pub(super) groups: Vec<Enrollment>,
    pub(super) hubs: Vec<LinkedHub>,
    pub(super) certificates: Vec<KeptCertificate>,
}

/// Reads what there is, and makes settings and policy of a new service.
pub(super) fn prepare(transaction: &Transaction<'_>) -> Result<Prepared, ServiceError> {
    let settings = match transaction.provisioning_settings()? {
        Some(settings) => settings,
        None => {
            let made = make()?;
            transaction.put_provisioning_settings(&made)?;
            made
        }
    };
    if transaction.policies::<ProvisioningRights>()?.is_empty() {
        let keys = Keys::generate()?;
        transaction.put_policy(&ProvisioningPolicy {
            name: ProvisioningRights::OWNER.to_owned(),
            primary: keys.primary,
            secondary: keys.secondary,
            rights: ProvisioningRights::ALL,
        })?;
    }
    let groups = transaction.enrollments(Kind::Group, "", MAX_GROUPS)?;
    Ok(Prepared {
        settings,
        policies: transaction.policies()?,
        groups,
        hubs: transaction.linked_hubs()?,
        certificates: transaction.kept_certificates()?,
    })
}

/// `0ne` and eight digits, as published.
fn make() -> Result<ProvisioningSettings, ServiceError> {
    let number = u32::from_be_bytes(random::bytes()?);
    let secret: [u8; 32] = random::bytes()?;
    let secret = SymmetricKey::from_bytes(secret).map_err(|error| ServiceError::server_error(error.to_string()))?;
    Ok(ProvisioningSettings {
        id_scope: format!("0ne{number:08X}"),
        secret,
    })
}
