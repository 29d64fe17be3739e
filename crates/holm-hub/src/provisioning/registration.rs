//! Registrations: what became of a device that asked where it belongs.
//!
//! A record stays when its enrollment goes, so that the hub and device of a device that comes again are known; an operator
//! deletes it. Source: `hub-device-protocols.md` §5.1, `hub-service-api.md` §7.

use holm_model::{DeviceId, RegistrationId, ServiceError, Timestamp, etag};
use serde_json::{Map, Value, json};

use crate::random;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its device is on its way to its hub. Never stored: the move is.
    Assigning,
    /// It has a hub.
    Assigned,
    /// It could not be given one; the error says why.
    Failed,
    /// Its enrollment is disabled.
    Disabled,
}

impl Status {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Assigning, "assigning"),
        (Self::Assigned, "assigned"),
        (Self::Failed, "failed"),
        (Self::Disabled, "disabled"),
    ];

    /// The published name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == self);
        found.map_or("unassigned", |(_, name)| name)
    }

    /// Reads the published name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == name)
            .map(|(status, _)| status)
    }
}

/// How it came to its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Substatus {
    /// For the first time.
    Initial,
    /// From another one, with its data.
    Migrated,
    /// With nothing of its data.
    Reset,
}

impl Substatus {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Initial, "initialAssignment"),
        (Self::Migrated, "deviceDataMigrated"),
        (Self::Reset, "deviceDataReset"),
    ];

    /// The published name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == self);
        found.map_or("initialAssignment", |(_, name)| name)
    }

    /// Reads the published name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(_, known)| *known == name)
            .map(|(substatus, _)| substatus)
    }
}

/// Where a device belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The hub.
    pub hub: String,
    /// The device.
    pub device: DeviceId,
}

/// What became of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Under which id it asked, as it was first written.
    pub id: RegistrationId,
    /// The group that it came by; `None`: an enrollment of its own.
    pub group: Option<String>,
    /// How far it is.
    pub status: Status,
    /// How it came to its hub.
    pub substatus: Substatus,
    /// Where it belongs; kept while it is disabled.
    pub assignment: Option<Assignment>,
    /// Number and text, where it failed or is disabled.
    pub error: Option<(u32, String)>,
    /// What the webhook gave it.
    pub payload: Option<Value>,
    /// The member that shows how it proved itself: `symmetricKey`, `x509`.
    pub proof: Value,
    /// Changes with every change; shown by [`Registration::etag_text`].
    pub etag: i64,
    /// When it first asked.
    pub created: Timestamp,
    /// When this was written.
    pub updated: Timestamp,
}

impl Registration {
    /// The etag as it stands in bodies.
    #[must_use]
    pub fn etag_text(&self) -> String {
        etag::of_counter(self.etag.unsigned_abs())
    }

    /// Gives it another etag.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub(super) fn renew_etag(&mut self) -> Result<(), ServiceError> {
        self.etag = new_etag()?;
        Ok(())
    }

    /// As back ends read it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "registrationId": self.id.as_str(),
            "createdDateTimeUtc": self.created,
            "status": self.status.name(),
            "lastUpdatedDateTimeUtc": self.updated,
            "etag": self.etag_text(),
        });
        let mut more = Map::new();
        // Also of one that is refused now: whoever locks a device out wants to know which it was.
        if let Some(assignment) = self.assignment.as_ref().filter(|_| self.status != Status::Assigning) {
            more.insert("assignedHub".to_owned(), json!(assignment.hub));
            more.insert("deviceId".to_owned(), json!(assignment.device));
        }
        if self.status == Status::Assigned && self.assignment.is_some() {
            more.insert("substatus".to_owned(), json!(self.substatus.name()));
        }
        if let Some((number, text)) = &self.error {
            more.insert("errorCode".to_owned(), json!(number));
            more.insert("errorMessage".to_owned(), json!(text));
        }
        // Of one that is refused the payload is kept for its owner, and is not for who was refused.
        if let (Status::Assigned, Some(payload)) = (self.status, &self.payload) {
            more.insert("payload".to_owned(), payload.clone());
        }
        if let Value::Object(members) = &mut document {
            members.extend(more);
        }
        document
    }

    /// As its device reads it: also how it proved itself.
    #[must_use]
    pub fn to_device_json(&self) -> Value {
        let mut document = self.to_json();
        if let Value::Object(members) = &mut document
            && self.status != Status::Assigned
        {
            members.remove("assignedHub");
            members.remove("deviceId");
        }
        if let (Value::Object(members), Value::Object(proof)) = (&mut document, &self.proof) {
            members.extend(proof.clone());
        }
        document
    }
}

/// Random and not counted: an etag from before something was deleted and made again must not match.
pub(super) fn new_etag() -> Result<i64, ServiceError> {
    Ok(i64::from_be_bytes(random::bytes()?) & i64::MAX)
}
