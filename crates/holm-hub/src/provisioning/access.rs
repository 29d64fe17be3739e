//! Who may use the provisioning service's back side: its own policies, and those of the hub whose process it shares.
//!
//! ```text
//! signed by a key of a policy of this service    its rights count
//! a policy of the hub                            RegistryRead reads, RegistryWrite also changes, all rights set it up
//! ```
//!
//! Both may have policies of one name: which is meant is told by the key.
//!
//! Source: `hub-service-api.md` §1, §7.

use holm_identity::SasToken;
use holm_model::{ProvisioningCode, ProvisioningError, Timestamp};

use crate::actor::Actor;
use crate::authority::Authority;
use crate::policies::PolicySet;
use crate::storage::{Policy, RightSet, Rights};

/// What a holder of a policy of the provisioning service may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvisioningRights(u8);

impl ProvisioningRights {
    /// Settings of the service: linked hubs, certificates.
    pub const SERVICE_CONFIG: Self = Self(1);
    /// Read enrollments.
    pub const ENROLLMENT_READ: Self = Self(2);
    /// Make, change and delete enrollments.
    pub const ENROLLMENT_WRITE: Self = Self(4);
    /// Register as any device.
    pub const DEVICE_CONNECT: Self = Self(8);
    /// Read registrations.
    pub const REGISTRATION_READ: Self = Self(16);
    /// Delete registrations.
    pub const REGISTRATION_WRITE: Self = Self(32);
    /// Everything; who has this may manage policies.
    pub const ALL: Self = Self(63);

    /// The hub's right that stands for it.
    const fn of_hub(self) -> Rights {
        match self {
            Self::ENROLLMENT_READ | Self::REGISTRATION_READ => Rights::REGISTRY_READ,
            Self::ENROLLMENT_WRITE | Self::REGISTRATION_WRITE => Rights::REGISTRY_WRITE,
            _ => Rights::ALL,
        }
    }
}

impl RightSet for ProvisioningRights {
    const TABLE: &'static str = "provisioning_policies";
    const RECORDED: &'static str = "provisioningPolicy";
    const OWNER: &'static str = "provisioningserviceowner";
    const KNOWN: &'static [(Self, &'static str)] = &[
        (Self::SERVICE_CONFIG, "ServiceConfig"),
        (Self::ENROLLMENT_READ, "EnrollmentRead"),
        (Self::ENROLLMENT_WRITE, "EnrollmentWrite"),
        (Self::DEVICE_CONNECT, "DeviceConnect"),
        (Self::REGISTRATION_READ, "RegistrationStatusRead"),
        (Self::REGISTRATION_WRITE, "RegistrationStatusWrite"),
    ];

    fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    fn bits(self) -> u8 {
        self.0
    }
}

/// A shared access policy of the provisioning service.
pub type ProvisioningPolicy = Policy<ProvisioningRights>;

/// Checks tokens of back ends.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) policies: PolicySet<ProvisioningRights>,
    pub(super) hosts: Vec<String>,
    pub(super) authority: Authority,
}

impl Access {
    /// Lets a back end do something at `path` (decoded, without the first slash), and tells who it is.
    ///
    /// # Errors
    /// `Unauthorized`.
    pub(super) fn permit(
        &self,
        authorization: Option<&str>,
        path: &str,
        right: ProvisioningRights,
        now: Timestamp,
    ) -> Result<Actor, ProvisioningError> {
        let token = authorization.and_then(|text| SasToken::parse(text).ok());
        let own = token.as_ref().and_then(|token| {
            let policy = token.policy().and_then(|name| self.policies.find(name))?;
            let is_signed = token.verify(&policy.primary) || token.verify(&policy.secondary);
            is_signed.then_some((token, policy))
        });
        let Some((token, policy)) = own else {
            let permitted = self.authority.permit_service(authorization, path, &[right.of_hub()]);
            return permitted.map(Actor::Policy).map_err(|error| refused(error.message));
        };
        if token.is_expired(now) {
            return Err(refused(
                "the token has ended; make a new one, and check the clock".to_owned(),
            ));
        }
        if !token.resource().covers_path(&self.hosts, path) {
            let resource = token.raw_resource();
            return Err(refused(format!(
                "the token's `sr` `{resource}` does not cover `{path}` here"
            )));
        }
        if !policy.rights.includes(right) {
            let (name, wanted) = (&policy.name, right.names().join(" + "));
            return Err(refused(format!("policy `{name}` lacks the permission {wanted}")));
        }
        Ok(Actor::ProvisioningPolicy(policy.name))
    }
}

fn refused(text: String) -> ProvisioningError {
    ProvisioningError::new(ProvisioningCode::Unauthorized, text)
}
