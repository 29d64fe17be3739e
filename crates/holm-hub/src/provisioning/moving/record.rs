//! What is written down of a move, so that a crash leaves nothing out.

use holm_model::{DeviceId, RegistrationId, ServiceError, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::provisioning::enrollment::{Kind, Takeover};
use crate::provisioning::linked::Trouble;
use crate::provisioning::ownership::Known;
use crate::provisioning::registration::{Assignment, Registration, Status, Substatus, new_etag};
use crate::storage::{MoveRow, Transaction, View};

/// The most moves that wait; a device beyond it is told to come again.
pub(super) const MAX_MOVES: u32 = 1000;

/// What a move does with the data of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::provisioning) enum Data {
    /// It has none, or what is at its new hub is its.
    Begins,
    /// It goes with the device.
    Goes,
    /// The device begins anew.
    BeginsAnew,
}

/// A device at a hub.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::provisioning) struct Spot {
    pub(in crate::provisioning) hub: String,
    pub(in crate::provisioning) device: String,
}

impl Spot {
    pub(in crate::provisioning) fn of(assignment: &Assignment) -> Self {
        Self {
            hub: assignment.hub.clone(),
            device: assignment.device.to_string(),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.hub.eq_ignore_ascii_case(&other.hub) && self.device == other.device
    }
}

/// All that is needed to bring a device to its hub.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::provisioning) struct Move {
    /// The registration id as it was first written.
    pub(in crate::provisioning) id: String,
    pub(in crate::provisioning) enrollment: String,
    pub(in crate::provisioning) group: Option<String>,
    pub(in crate::provisioning) data: Data,
    pub(in crate::provisioning) from: Option<Spot>,
    pub(in crate::provisioning) to: Spot,
    /// As published: how the device will prove itself.
    pub(in crate::provisioning) authentication: Value,
    pub(in crate::provisioning) edge: bool,
    /// What to do where a device is there that is not the enrollment's.
    #[serde(default)]
    pub(in crate::provisioning) takeover: Takeover,
    /// Which device there is.
    #[serde(default)]
    pub(in crate::provisioning) known: Known,
    pub(in crate::provisioning) initial_twin: Option<Value>,
    pub(in crate::provisioning) substatus: String,
    pub(in crate::provisioning) payload: Option<Value>,
    pub(in crate::provisioning) proof: Value,
    /// When it first registered, in milliseconds.
    pub(in crate::provisioning) created: i64,
}

impl Move {
    pub(super) fn read(row: &MoveRow) -> Option<Self> {
        serde_json::from_str(row.document.expose()).ok()
    }

    pub(super) fn id(&self) -> Result<RegistrationId, ServiceError> {
        RegistrationId::new(&self.id).map_err(|error| ServiceError::server_error(error.to_string()))
    }

    /// The enrollment by which it registered.
    pub(super) fn enrollment(&self) -> Result<(Kind, RegistrationId), ServiceError> {
        let kind = if self.group.is_some() {
            Kind::Group
        } else {
            Kind::Individual
        };
        let id = RegistrationId::new(&self.enrollment);
        Ok((kind, id.map_err(|error| ServiceError::server_error(error.to_string()))?))
    }

    pub(super) fn device(spot: &Spot) -> Result<DeviceId, Trouble> {
        DeviceId::new(&spot.device).map_err(|error| Trouble {
            text: error.to_string(),
            is_final: true,
        })
    }

    /// The registration as it is while the move goes on, or as it has become.
    pub(super) fn registration(&self, status: Status, etag: i64, now: Timestamp) -> Result<Registration, ServiceError> {
        let device = DeviceId::new(&self.to.device).map_err(|error| ServiceError::server_error(error.to_string()))?;
        Ok(Registration {
            id: self.id()?,
            group: self.group.clone(),
            status,
            substatus: Substatus::of(&self.substatus).unwrap_or(Substatus::Initial),
            assignment: Some(Assignment {
                hub: self.to.hub.clone(),
                device,
            }),
            error: None,
            payload: self.payload.clone(),
            proof: self.proof.clone(),
            etag,
            created: Timestamp::from_unix_millis(self.created),
            updated: now,
        })
    }
}

/// What a registration is now: while its device is on its way it is assigned to nothing.
pub(in crate::provisioning) fn registration_now(
    view: &View<'_>,
    id: &RegistrationId,
) -> Result<Option<Registration>, ServiceError> {
    if let Some(row) = view.pending_move(id)?
        && let Some(moving) = Move::read(&row)
    {
        return moving
            .registration(Status::Assigning, row.revision, row.began)
            .map(Some);
    }
    view.registration(id)
}

/// Has a move begin, unless the same is under way.
///
/// # Errors
/// `ServiceUnavailable` where too many are.
pub(in crate::provisioning) fn begin(
    transaction: &Transaction<'_>,
    moving: &Move,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let id = moving.id()?;
    let current = transaction.pending_move(&id)?;
    if current.as_ref().and_then(Move::read).as_ref() == Some(moving) {
        return Ok(());
    }
    if current.is_none() && transaction.pending_move_count()? >= MAX_MOVES {
        let text = format!("{MAX_MOVES} devices are on their way to their hubs; come again");
        return Err(ServiceError::unavailable(text));
    }
    let document = serde_json::to_string(moving).map_err(|error| ServiceError::server_error(error.to_string()))?;
    transaction.put_move(&MoveRow {
        id: id.key().to_owned(),
        document: holm_identity::Secret::new(document),
        revision: new_etag()?,
        began: now,
    })
}
