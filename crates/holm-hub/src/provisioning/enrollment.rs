//! Enrollments: whom the hub expects, how each proves itself, and where it then belongs.
//!
//! - An *individual* enrollment is of one device, a *group* of all that prove themselves alike: by keys derived from one, or by
//!   certificates that one signed. An individual one counts before any group: so one device of a group is treated otherwise, or
//!   kept out.
//! - What an enrollment is, its device learns at its next registration, not before.
//!
//! Source: `hub-service-api.md` §7.

use std::sync::Arc;

use holm_identity::x509_auth::CertificateRefused;
use holm_identity::{CertificateDetails, SigningCertificate};
use holm_model::{DeviceId, ProvisioningError, RegistrationId, Timestamp, TwinUpdate, etag};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::Keys;
use crate::tpm::PublicArea;

/// Of one device, or of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Of one device.
    Individual,
    /// Of all that prove themselves alike.
    Group,
}

impl Kind {
    /// Its name in the database and in the header `x-ms-item-type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Individual => "enrollment",
            Self::Group => "enrollmentGroup",
        }
    }

    /// The member that holds its id.
    #[must_use]
    pub const fn id_member(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }
}

/// An enrollment.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// Of one, or of many.
    pub kind: Kind,
    /// The registration id, or the group's.
    pub id: RegistrationId,
    /// The device that it becomes; `None`: as the registration id.
    pub device: Option<DeviceId>,
    /// How a device proves itself.
    pub attestation: Attestation,
    /// Whether it becomes an edge device. Never changes.
    pub edge: bool,
    /// Whether it may register.
    pub enabled: bool,
    /// What a later registration does.
    pub reprovision: Reprovision,
    /// Whether it may become a device that is there and not its own.
    pub takeover: Takeover,
    /// Which hub it is given.
    pub allocation: Allocation,
    /// The hubs to choose from; empty: all.
    pub hubs: Vec<String>,
    /// Whom to ask, where the allocation is custom.
    pub webhook: Option<Webhook>,
    /// Whether devices have certificates made: the name of the authority, as it was given.
    pub issuance: Option<String>,
    /// Tags and desired properties of a new device, as they came.
    pub initial_twin: Option<Value>,
    /// What its owner notes.
    pub information: Option<Value>,
    /// Changes with every change; shown by [`Enrollment::etag_text`].
    pub etag: i64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

impl Enrollment {
    /// The etag as it stands in bodies.
    #[must_use]
    pub fn etag_text(&self) -> String {
        etag::of_counter(self.etag.unsigned_abs())
    }

    /// The id of the group, where it is one.
    #[must_use]
    pub fn group(&self) -> Option<&RegistrationId> {
        (self.kind == Kind::Group).then_some(&self.id)
    }
}

/// How devices prove themselves.
#[derive(Clone, Debug)]
pub enum Attestation {
    /// By tokens signed with one of two keys; in a group, with what is derived from one of them.
    SymmetricKey(Keys),
    /// By one of two certificates. Individual only.
    ClientCertificates(Certificate, Option<Certificate>),
    /// By a certificate that one of two has signed.
    SigningCertificates(Signer, Option<Signer>),
    /// By a certificate that one of two has signed which are kept by these names.
    Authorities(String, Option<String>),
    /// By a TPM. Individual only.
    Tpm(Tpm),
}

impl Attestation {
    /// The published name of the kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SymmetricKey(_) => "symmetricKey",
            Self::ClientCertificates(..) | Self::SigningCertificates(..) | Self::Authorities(..) => "x509",
            Self::Tpm(_) => "tpm",
        }
    }
}

/// A TPM, by the public areas of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm {
    /// The endorsement key, which is nobody else's.
    pub endorsement_key: PublicArea,
    /// The storage root key; `None`: any that is in the TPM.
    pub storage_root_key: Option<PublicArea>,
}

/// A certificate, with what it says of itself.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// What it says of itself.
    pub details: Arc<CertificateDetails>,
}

/// A certificate that signs others.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// What verifies.
    pub verifier: SigningCertificate,
}

impl Signer {
    /// Takes a certificate for one that signs.
    ///
    /// # Errors
    /// `ArgumentInvalid`, naming the member at `path`.
    pub fn new(certificate: Certificate, path: &str) -> Result<Self, ProvisioningError> {
        let refused =
            |why: String| ProvisioningError::argument_invalid(format!("`{path}` can't sign for devices: {why}"));
        if !certificate.details.is_issuer() {
            let why = if certificate.details.may_sign {
                "it is not marked as that of a certificate authority; give the one that signs"
            } else {
                "the uses of its key do not include `keyCertSign`; give one that may sign certificates"
            };
            return Err(refused(why.to_owned()));
        }
        let verifier = SigningCertificate::new(&certificate.der);
        let verifier = verifier.map_err(|error: CertificateRefused| refused(holm_net::error_chain(&error)))?;
        Ok(Self {
            der: certificate.der,
            verifier,
        })
    }
}

/// What a registration of a device does that has one. Source: `hub-service-api.md` §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reprovision {
    /// Whether it may get another hub.
    pub update_hub_assignment: bool,
    /// Whether it keeps its data; else it begins anew with the initial twin.
    pub migrate_device_data: bool,
}

impl Default for Reprovision {
    fn default() -> Self {
        Self {
            update_hub_assignment: true,
            migrate_device_data: true,
        }
    }
}

/// What happens where a device of that id is at the hub already, which another enrollment or somebody by hand has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Takeover {
    /// It becomes that device, by its own proof, as in the original.
    #[default]
    Allow,
    /// Its registration fails.
    Refuse,
}

impl Takeover {
    /// The word for it in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        }
    }
}

/// Which hub a device is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// One of several, always the same for the same registration id.
    #[default]
    Hashed,
    /// As [`Allocation::Hashed`]: the way to each hub is not measured.
    GeoLatency,
    /// The first of the list.
    Static,
    /// What a webhook says.
    Custom,
}

impl Allocation {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Hashed, "hashed"),
        (Self::GeoLatency, "geoLatency"),
        (Self::Static, "static"),
        (Self::Custom, "custom"),
    ];

    /// The published name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == self);
        found.map_or("hashed", |(_, name)| name)
    }

    /// Reads the published name, in any case.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name));
        found.map(|(allocation, _)| allocation)
    }
}

/// Who decides over a custom allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is asked.
    pub url: String,
    /// The version of the interface that it was written for.
    pub api_version: String,
}

/// Reads an initial twin. Whether a twin can hold it is another question, see [`check_initial_twin`].
///
/// # Errors
/// `ArgumentInvalid`.
pub(super) fn initial_twin(document: &Value) -> Result<TwinUpdate, ProvisioningError> {
    let update = TwinUpdate::from_json(document.to_string().as_bytes());
    update
        .map_err(|error| ProvisioningError::argument_invalid(format!("`initialTwin` can't be used: {}", error.message)))
}

/// Checks an initial twin that somebody gives: the twin of a new device must be able to hold it.
///
/// # Errors
/// `ArgumentInvalid` naming the path, such as `initialTwin.properties.desired.a`.
pub(super) fn check_initial_twin(document: &Value) -> Result<(), ProvisioningError> {
    let checked = initial_twin(document)?.check_initial("initialTwin");
    checked.map_err(|error| ProvisioningError::argument_invalid(error.message))
}
