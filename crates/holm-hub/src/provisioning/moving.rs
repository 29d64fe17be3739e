//! Devices on their way to a hub that is not this process's own, or away from one.
//!
//! ```text
//! registration --> move (on disk, with all that it needs) --> what is carried is read at the old hub
//!                                                         --> the device is made at the new one, disabled, with twin and modules
//!                                                         --> it is enabled
//!                                    one transaction:     --> the registration says so; the old device is left over
//!                                                         --> the left-over device is removed
//! ```
//!
//! - At every moment the device is whole at one hub at least: it goes from the old one when the registration names the new one,
//!   and what was not finished at the new one is disabled there.
//! - Every step may be done again: a crash begins the move anew and leaves nothing out.
//! - A hub that does not answer is asked again for [`PATIENCE`]; then the registration has failed, and the device may register
//!   again. A left-over device is waited for as long as its hub is linked.
//! - Of one device one thing is done at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holm_model::{DeviceId, Identity, ModuleId, ProvisioningCode, RegistrationId, ServiceError, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::enrollment::Kind;
use super::linked::{LinkedService, Trouble};
use super::place::Place;
use super::registration::{Assignment, Registration, Status, Substatus, new_etag};
use super::{Provisioning, Shared};
use crate::actor::Actor;
use crate::storage::{Leftover, MoveRow, Transaction, View};

/// How long a hub may not answer before a registration has failed: what a device waits that asks for its state.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most moves that wait; a device beyond it is told to come again.
pub(super) const MAX_MOVES: u32 = 1000;
/// How many are done at once.
const AT_ONCE: usize = 32;
/// How many left-over devices of a hub are looked at at once.
const LEFTOVERS: u32 = 50;
/// The longest pause before something is tried again: a move, and a left-over device.
const LONGEST_PAUSE: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(60));
/// How long the database is left alone when it can't be read.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// Marks a device that is not finished.
const UNFINISHED: &str = "not finished by the provisioning service";

/// What a move does with the data of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Data {
    /// It has none, or what is at its new hub is its.
    Begins,
    /// It goes with the device.
    Goes,
    /// The device begins anew.
    BeginsAnew,
}

/// A device at a hub.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spot {
    pub(super) hub: String,
    pub(super) device: String,
}

impl Spot {
    pub(super) fn of(assignment: &Assignment) -> Self {
        Self {
            hub: assignment.hub.clone(),
            device: assignment.device.to_string(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.hub.eq_ignore_ascii_case(&other.hub) && self.device == other.device
    }
}

/// All that is needed to bring a device to its hub.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Move {
    /// The registration id as it was first written.
    pub(super) id: String,
    pub(super) enrollment: String,
    pub(super) group: Option<String>,
    pub(super) data: Data,
    pub(super) from: Option<Spot>,
    pub(super) to: Spot,
    /// As published: how the device will prove itself.
    pub(super) authentication: Value,
    pub(super) edge: bool,
    pub(super) initial_twin: Option<Value>,
    pub(super) substatus: String,
    pub(super) payload: Option<Value>,
    pub(super) proof: Value,
    /// When it first registered, in milliseconds.
    pub(super) created: i64,
}

impl Move {
    fn read(row: &MoveRow) -> Option<Self> {
        serde_json::from_str(row.document.expose()).ok()
    }

    fn id(&self) -> Result<RegistrationId, ServiceError> {
        RegistrationId::new(&self.id).map_err(|error| ServiceError::server_error(error.to_string()))
    }

    fn device(spot: &Spot) -> Result<DeviceId, Trouble> {
        DeviceId::new(&spot.device).map_err(|error| Trouble {
            text: error.to_string(),
            is_final: true,
        })
    }

    /// The registration as it is while the move goes on, or as it has become.
    fn registration(&self, status: Status, etag: i64, now: Timestamp) -> Result<Registration, ServiceError> {
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
pub(super) fn registration_now(view: &View<'_>, id: &RegistrationId) -> Result<Option<Registration>, ServiceError> {
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
pub(super) fn begin(transaction: &Transaction<'_>, moving: &Move, now: Timestamp) -> Result<(), ServiceError> {
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

/// What is to be done at a hub.
enum Job {
    Move(MoveRow, Box<Move>),
    Clear(Leftover),
}

impl Job {
    /// Whose: of one device one thing is done at a time.
    fn device(&self) -> &str {
        match self {
            Self::Move(_, moving) => &moving.to.device,
            Self::Clear(leftover) => &leftover.device,
        }
    }

    /// What it is, for the pause before it is tried again.
    fn name(&self) -> String {
        match self {
            Self::Move(row, _) => format!("move {} {}", row.id, row.revision),
            Self::Clear(leftover) => format!("clear {} {}", leftover.hub, leftover.device),
        }
    }

    const fn longest_pause(&self) -> Duration {
        match self {
            Self::Move(..) => LONGEST_PAUSE.0,
            Self::Clear(_) => LONGEST_PAUSE.1,
        }
    }
}

/// What runs, and what waits to be tried again.
#[derive(Default)]
struct Work {
    running: JoinSet<(String, String, Option<Duration>)>,
    busy: HashSet<String>,
    /// When, and how often it was tried.
    later: HashMap<String, (Instant, u32)>,
}

impl Work {
    fn begin(&mut self, shared: &Arc<Shared>, jobs: Vec<Job>) {
        let (now, names) = (Instant::now(), jobs.iter().map(Job::name).collect::<HashSet<_>>());
        // What is no longer wanted is no longer waited for.
        self.later.retain(|name, _| names.contains(name));
        for job in jobs {
            let name = job.name();
            let waits = self.later.get(&name).is_some_and(|(at, _)| *at > now);
            if waits || self.running.len() >= AT_ONCE || !self.busy.insert(job.device().to_owned()) {
                continue;
            }
            let shared = Arc::clone(shared);
            self.running.spawn(async move {
                let (device, longest) = (job.device().to_owned(), job.longest_pause());
                let is_done = shared.carry_out(job).await;
                (name, device, (!is_done).then_some(longest))
            });
        }
    }

    fn ended(&mut self, name: String, device: &str, again: Option<Duration>) {
        self.busy.remove(device);
        let Some(longest) = again else {
            self.later.remove(&name);
            return;
        };
        let tried = self.later.get(&name).map_or(0, |(_, tried)| tried + 1);
        let pause = Duration::from_secs(1 << tried.min(6)).min(longest);
        self.later.insert(name, (Instant::now() + pause, tried));
    }

    fn next(&self) -> Option<Instant> {
        self.later.values().map(|(at, _)| *at).min()
    }
}

impl Provisioning {
    /// Brings devices to their hubs; never ends.
    pub(crate) async fn run(self) {
        let shared = self.0;
        let mut work = Work::default();
        loop {
            match shared.jobs().await {
                Ok(jobs) => work.begin(&shared, jobs),
                Err(error) => {
                    tracing::warn!(%error, "devices on their way to their hubs wait");
                    tokio::time::sleep(DATABASE_PAUSE).await;
                    continue;
                }
            }
            let next = work.next();
            let pause = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.moving.notified() => {}
                Some(ended) = work.running.join_next(), if !work.running.is_empty() => match ended {
                    Ok((name, device, again)) => work.ended(name, &device, again),
                    Err(error) => tracing::error!(%error, "a device on its way to its hub was left where it was; the next start goes on"),
                },
                () = pause => {}
            }
        }
    }
}

impl Shared {
    async fn jobs(&self) -> Result<Vec<Job>, ServiceError> {
        let hubs: Vec<String> = self.hubs.all().iter().map(|hub| hub.host.clone()).collect();
        self.repository
            .read(move |view| {
                let rows = view.pending_moves(MAX_MOVES)?;
                let read = |row: MoveRow| Move::read(&row).map(|moving| Job::Move(row, Box::new(moving)));
                let mut jobs: Vec<Job> = rows.into_iter().filter_map(read).collect();
                for hub in hubs {
                    jobs.extend(view.leftovers(&hub, LEFTOVERS)?.into_iter().map(Job::Clear));
                }
                Ok(jobs)
            })
            .await
    }

    /// Whether that is done, for good or not.
    async fn carry_out(&self, job: Job) -> bool {
        let done = match job {
            Job::Move(row, moving) => {
                let actor = Actor::Enrollment(moving.enrollment.clone());
                actor.does(self.carry_move(&row, *moving)).await
            }
            Job::Clear(leftover) => self.clear(leftover).await,
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(%error, "what a device's way to its hub has come to is not written yet");
            false
        })
    }

    async fn carry_move(&self, row: &MoveRow, moving: Move) -> Result<bool, ServiceError> {
        let hub = moving.to.hub.clone();
        match self.bring(&moving).await {
            Ok(is_made_here) => {
                let (now, revision) = (self.clock.now(), row.revision);
                let finished = self
                    .repository
                    .change(move |transaction| finish(transaction, &moving, revision, is_made_here, now));
                if let Some(registration) = finished.await? {
                    tracing::info!(registration = %registration.id, hub, status = registration.status.name(), substatus = registration.substatus.name(), "a device has come to its hub");
                }
                self.moving.notify_one();
                Ok(true)
            }
            Err(trouble) => {
                let now = self.clock.now();
                let waited = Duration::from_millis(u64::try_from(now.millis_since(row.began)).unwrap_or(0));
                if !trouble.is_final && waited < PATIENCE {
                    tracing::info!(
                        registration = moving.id,
                        hub,
                        why = trouble.text,
                        "a device is not at its hub yet"
                    );
                    return Ok(false);
                }
                tracing::warn!(
                    registration = moving.id,
                    hub,
                    why = trouble.text,
                    "a device did not come to its hub"
                );
                let revision = row.revision;
                let text = format!("the hub `{hub}` did not take the device: {}", trouble.text);
                let failed = self
                    .repository
                    .change(move |transaction| fail(transaction, &moving, revision, text, now));
                failed.await?;
                Ok(true)
            }
        }
    }

    fn place(&self, host: &str) -> Result<Place<'_>, Trouble> {
        let hub = self.hubs.find(host);
        let hub = hub.ok_or_else(|| Trouble {
            text: format!("the hub `{host}` is not linked"),
            is_final: true,
        })?;
        if hub.connection_string.is_none() {
            return Ok(Place::Own(&self.own));
        }
        let service = LinkedService::new(&hub, self.clock.clone());
        service.map(Place::Linked).map_err(|error| Trouble {
            text: error.message,
            is_final: true,
        })
    }

    /// Makes the device at its hub, and says whether it was not there before.
    async fn bring(&self, moving: &Move) -> Result<bool, Trouble> {
        let (device, target) = (Move::device(&moving.to)?, self.place(&moving.to.hub)?);
        let (hub, name) = (moving.to.hub.clone(), moving.to.device.clone());
        let kept = self
            .repository
            .change(move |transaction| transaction.remove_leftover(&hub, &name));
        kept.await.map_err(|error| Trouble::passing(error.message))?;
        let carried = match &moving.from {
            Some(from) if moving.data == Data::Goes && !from.is_same(&moving.to) => {
                let source = self.place(&from.hub)?;
                let read = Carried::read(&source, &Move::device(from)?).await;
                read.map_err(|trouble| Trouble {
                    text: format!("its data can't be had from `{}`: {}", from.hub, trouble.text),
                    ..trouble
                })?
            }
            _ => None,
        };
        settle_in(&target, &device, moving, carried).await
    }

    async fn clear(&self, leftover: Leftover) -> Result<bool, ServiceError> {
        let Leftover { hub, device, .. } = &leftover;
        let removed = async {
            let place = self.place(hub)?;
            let device = DeviceId::new(device).map_err(|error| Trouble::passing(error.to_string()))?;
            if leftover.if_unfinished {
                let there = place.identity(&Identity::of_device(device.clone())).await?;
                if !there.as_ref().is_some_and(is_unfinished) {
                    return Ok(());
                }
            }
            place.remove(&device).await
        };
        match removed.await {
            Ok(()) => tracing::info!(device, hub, "a device has gone from the hub where it was before"),
            Err(trouble) if trouble.is_final => {
                tracing::warn!(
                    device,
                    hub,
                    why = trouble.text,
                    "a device stays at the hub where it was before; remove it there"
                );
            }
            Err(trouble) => {
                tracing::info!(
                    device,
                    hub,
                    why = trouble.text,
                    "a device is still at the hub where it was before"
                );
                return Ok(false);
            }
        }
        let (hub, device) = (hub.clone(), device.clone());
        let written = self
            .repository
            .change(move |transaction| transaction.remove_leftover(&hub, &device));
        written.await.map(|()| true)
    }
}

fn is_unfinished(device: &Value) -> bool {
    device["status"] == "disabled" && device["statusReason"] == UNFINISHED
}

/// What goes with a device.
struct Carried {
    status: Value,
    reason: Value,
    twin: Value,
    modules: Vec<(Identity, Value, Value)>,
}

impl Carried {
    /// `None` where there is nothing: the device has gone from there.
    async fn read(place: &Place<'_>, device: &DeviceId) -> Result<Option<Self>, Trouble> {
        let identity = Identity::of_device(device.clone());
        let found = place.identity(&identity).await?.filter(|found| !is_unfinished(found));
        let (Some(found), Some(twin)) = (found, place.twin(&identity).await?) else {
            return Ok(None);
        };
        let mut modules = Vec::new();
        for module in place.modules(device).await? {
            let Some(Ok(id)) = module["moduleId"].as_str().map(ModuleId::new) else {
                return Err(Trouble::passing("a module there has no id"));
            };
            let identity = Identity::of_module(device.clone(), id);
            if let Some(twin) = place.twin(&identity).await? {
                modules.push((identity, module, settable(&twin)));
            }
        }
        Ok(Some(Self {
            status: found["status"].clone(),
            reason: found["statusReason"].clone(),
            twin: settable(&twin),
            modules,
        }))
    }
}

/// What a back end may write of a twin that it has read.
fn settable(twin: &Value) -> Value {
    let without_marks = |section: &Value| {
        let members = section.as_object().into_iter().flatten();
        let own = members.filter(|(name, _)| !name.starts_with('$'));
        own.map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<_, _>>()
    };
    json!({
        "tags": without_marks(&twin["tags"]),
        "properties": { "desired": without_marks(&twin["properties"]["desired"]) },
    })
}

/// Makes a device what it is to be; says whether it was not there before.
async fn settle_in(
    place: &Place<'_>,
    device: &DeviceId,
    moving: &Move,
    carried: Option<Carried>,
) -> Result<bool, Trouble> {
    let identity = Identity::of_device(device.clone());
    let mut there = place.identity(&identity).await?;
    if moving.data == Data::BeginsAnew && there.as_ref().is_some_and(|there| !is_unfinished(there)) {
        place.remove(device).await?;
        there = None;
    }
    if let Some(mut document) = there.clone().filter(|there| !is_unfinished(there)) {
        let becomes_edge = moving.edge && document["capabilities"]["iotEdge"] != true;
        if document["authentication"] != moving.authentication || becomes_edge {
            document["authentication"] = moving.authentication.clone();
            document["capabilities"] = json!({ "iotEdge": moving.edge || document["capabilities"]["iotEdge"] == true });
            place.put(&identity, &document, true).await?;
        }
        if let Some(carried) = carried {
            place.put_twin(&identity, &carried.twin).await?;
            put_modules(place, device, carried.modules).await?;
        }
        return Ok(false);
    }
    let mut document = json!({
        "deviceId": device,
        "status": "disabled",
        "statusReason": UNFINISHED,
        "authentication": moving.authentication,
        "capabilities": { "iotEdge": moving.edge },
    });
    place.put(&identity, &document, there.is_some()).await?;
    let (twin, modules, status, reason) = match carried {
        Some(carried) => (carried.twin, carried.modules, carried.status, carried.reason),
        None => {
            let twin = moving.initial_twin.clone().unwrap_or_else(|| json!({}));
            (settable(&twin), Vec::new(), json!("enabled"), Value::Null)
        }
    };
    place.put_twin(&identity, &twin).await?;
    put_modules(place, device, modules).await?;
    (document["status"], document["statusReason"]) = (status, reason);
    place.put(&identity, &document, true).await?;
    Ok(true)
}

async fn put_modules(
    place: &Place<'_>,
    device: &DeviceId,
    modules: Vec<(Identity, Value, Value)>,
) -> Result<(), Trouble> {
    if modules.is_empty() {
        return Ok(());
    }
    let there = place.modules(device).await?;
    for (identity, module, twin) in modules {
        let is_there = there.iter().any(|known| known["moduleId"] == module["moduleId"]);
        let document = json!({
            "deviceId": device,
            "moduleId": module["moduleId"],
            "authentication": module["authentication"],
            "managedBy": module["managedBy"],
        });
        // The keys of the runtime's own modules are the edge's to give, which it does when it comes to a hub.
        if !identity.module.as_ref().is_some_and(ModuleId::is_system) {
            place.put(&identity, &document, is_there).await?;
        }
        place.put_twin(&identity, &twin).await?;
    }
    Ok(())
}

/// The device is at its hub: the registration says so, if it is still to be so.
fn finish(
    transaction: &Transaction<'_>,
    moving: &Move,
    revision: i64,
    is_made_here: bool,
    now: Timestamp,
) -> Result<Option<Registration>, ServiceError> {
    let id = moving.id()?;
    let current = transaction.pending_move(&id)?;
    let goes = |spot: &Spot| {
        transaction.put_leftover(&Leftover {
            hub: spot.hub.clone(),
            device: spot.device.clone(),
            if_unfinished: false,
        })
    };
    if current.as_ref().is_none_or(|current| current.revision != revision) {
        // Something else was decided meanwhile.
        let next = current.as_ref().and_then(Move::read).map(|next| next.to);
        let last = transaction.registration(&id)?.and_then(|last| last.assignment);
        let is_wanted = [next, last.as_ref().map(Spot::of)]
            .iter()
            .flatten()
            .any(|spot| spot.is_same(&moving.to));
        if is_made_here && !is_wanted {
            goes(&moving.to)?;
        }
        return Ok(None);
    }
    transaction.remove_move(&id)?;
    let before = transaction.registration(&id)?;
    let kind = if moving.group.is_some() {
        Kind::Group
    } else {
        Kind::Individual
    };
    let enrollment = RegistrationId::new(&moving.enrollment);
    let enrollment = enrollment.map_err(|error| ServiceError::server_error(error.to_string()))?;
    let enrollment = transaction.enrollment(kind, &enrollment)?;
    if !enrollment.as_ref().is_some_and(|enrollment| enrollment.enabled) {
        if is_made_here {
            goes(&moving.to)?;
        }
        let Some(enrollment) = enrollment else { return Ok(None) };
        let mut registration = before.map_or_else(|| moving.registration(Status::Disabled, 0, now), Ok)?;
        let text = format!("the enrollment `{}` is disabled", enrollment.id);
        registration.status = Status::Disabled;
        registration.assignment = moving.from.as_ref().and(registration.assignment);
        registration.error = Some((ProvisioningCode::Unauthorized.number(), text));
        (registration.etag, registration.updated) = (new_etag()?, now);
        transaction.put_registration(&registration)?;
        return Ok(Some(registration));
    }
    let registration = moving.registration(Status::Assigned, new_etag()?, now)?;
    transaction.put_registration(&registration)?;
    if let Some(from) = moving.from.as_ref().filter(|from| !from.is_same(&moving.to)) {
        goes(from)?;
    }
    Ok(Some(registration))
}

/// The device did not come to its hub: it stays where it is.
fn fail(
    transaction: &Transaction<'_>,
    moving: &Move,
    revision: i64,
    text: String,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let id = moving.id()?;
    if transaction
        .pending_move(&id)?
        .is_none_or(|current| current.revision != revision)
    {
        return Ok(());
    }
    transaction.remove_move(&id)?;
    let mut registration = moving.registration(Status::Failed, new_etag()?, now)?;
    let before = transaction.registration(&id)?;
    registration.assignment = before.and_then(|before| before.assignment);
    registration.error = Some((ProvisioningCode::HubFailed.number(), text));
    transaction.put_registration(&registration)?;
    let stays = registration.assignment.as_ref().map(Spot::of);
    if stays.is_none_or(|stays| !stays.is_same(&moving.to)) {
        transaction.put_leftover(&Leftover {
            hub: moving.to.hub.clone(),
            device: moving.to.device.clone(),
            if_unfinished: true,
        })?;
    }
    Ok(())
}
