//! What the protocol fronts ask of a hub, answered by its parts.
//!
//! A message from a device touches no SQL: it is stamped, appended to the partition of its device and acknowledged when
//! the log's commit is on disk.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use holm_gateway::{
    Admission, Attempt, AuthKind, Delivery, Earlier, IngestError, Mailbox, Principal, Refusal, Resumed, SessionHandle,
    SessionId, Settlement, Subscriptions,
};
use holm_model::error::ErrorCode;
use holm_model::message::MAX_DEVICE_TO_CLOUD_BYTES;
use holm_model::{Message, ServiceError, SystemProperty, Timestamp};
use serde_json::Value;

use crate::actor::Actor;
use crate::authority::Authority;
use crate::c2d::Mailboxes;
use crate::events::notice;
use crate::events::{self, ConnectionStates, ConsumerGroups, EventLog, LogError, Readers, Receipt};
use crate::metrics::{MessageRefusal, Metrics, Settled, TwinPart};
use crate::notices::Notices;
use crate::policies::Policies;
use crate::presence::Presence;
use crate::provisioning::Provisioning;
use crate::routing::{Routing, Source};
use crate::service::Endpoint;
use crate::storage::Repository;
use crate::twins::Twins;
use crate::{Clock, Signals};

/// A hub, as the protocol fronts see it. Clones are the same.
#[derive(Clone, Debug)]
pub struct HubBackend {
    pub(crate) authority: Authority,
    pub(crate) repository: Repository,
    pub(crate) log: EventLog,
    pub(crate) twins: Twins,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) notices: Notices,
    pub(crate) presence: Presence,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) groups: ConsumerGroups,
    pub(crate) readers: Readers,
    pub(crate) connections: ConnectionStates,
    pub(crate) endpoint: Endpoint,
    pub(crate) policies: Policies,
    pub(crate) provisioning: Provisioning,
    pub(crate) routing: Routing,
}

impl HubBackend {
    /// What waits for back ends: feedback and notifications of files.
    #[must_use]
    pub const fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The messages that wait for devices.
    #[must_use]
    pub const fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Where messages go.
    #[must_use]
    pub const fn routing(&self) -> &Routing {
        &self.routing
    }

    /// The provisioning service.
    #[must_use]
    pub const fn provisioning(&self) -> &Provisioning {
        &self.provisioning
    }

    /// Whether what devices and operators send reaches the disk.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    pub fn health(&self) -> Result<(), String> {
        self.log.health().map_err(|error| holm_net::error_chain(&error))?;
        self.repository.health().map_err(|error| error.message)
    }
}

impl HubBackend {
    /// Writes events of those who connected and disconnected, as far as they are due.
    pub(crate) async fn tell_connections(&self) {
        let due = self.connections.take_due(self.clock.now());
        if due.is_empty() {
            return;
        }
        let events: Vec<_> = due
            .iter()
            .map(|change| notice::connection_state(&self.endpoint.hub_name, change))
            .collect();
        let signals = self.signals.clone();
        let told = self.repository.change_then(
            move |transaction| events.iter().try_for_each(|event| transaction.emit(event)),
            move |()| signals.outbox_filled(),
        );
        if let Err(error) = told.await {
            tracing::warn!(%error, "connections are not told of yet");
            self.connections.give_back(&due);
        }
    }
}

/// Resolves when a message is on disk.
#[derive(Debug)]
pub struct IngestReceipt(Receipt);

impl Future for IngestReceipt {
    type Output = Result<(), IngestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(unavailable)
    }
}

fn unavailable(error: LogError) -> IngestError {
    IngestError::Unavailable(holm_net::error_chain(&error))
}

impl holm_gateway::Authority for HubBackend {
    async fn authenticate(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        self.authority.admit(attempt).await
    }

    async fn verify(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        self.authority.check(attempt).await
    }

    async fn verify_policy(&self, token: &str) -> Result<Option<Timestamp>, Refusal> {
        self.authority.check_policy(token).map(Some)
    }
}

impl holm_gateway::Ingest for HubBackend {
    type Receipt = IngestReceipt;

    async fn ingest(&self, from: &Admission, mut message: Message) -> Result<IngestReceipt, IngestError> {
        let size = message.counted_bytes();
        if size > MAX_DEVICE_TO_CLOUD_BYTES {
            self.metrics.messages_refused.of(MessageRefusal::TooLarge).increment();
            return Err(IngestError::TooLarge {
                size,
                limit: MAX_DEVICE_TO_CLOUD_BYTES,
            });
        }
        let now = self.clock.now();
        stamp(&mut message, from, now);
        self.presence.heard(&from.identity, now);
        let device = &from.identity.device;
        let receipt = self.routing.append(device, Source::DeviceMessages, &message, now).await;
        match receipt {
            Ok(receipt) => {
                self.metrics.messages.increment();
                self.metrics.message_bytes.add(u64::try_from(size).unwrap_or(u64::MAX));
                Ok(IngestReceipt(receipt))
            }
            Err(error) => {
                self.metrics
                    .messages_refused
                    .of(MessageRefusal::Unavailable)
                    .increment();
                Err(unavailable(error))
            }
        }
    }
}

/// Writes on a message what the hub knows of its sender; what the sender may have said of itself is replaced.
fn stamp(message: &mut Message, from: &Admission, now: Timestamp) {
    let stamped = SystemProperty::ALL.iter().filter(|name| name.is_stamped());
    for name in stamped {
        message.system.remove(*name);
    }
    let scope = match (&from.principal, from.identity.is_module()) {
        (Principal::Policy(_), _) => "hub",
        (_, true) => "module",
        (_, false) => "device",
    };
    let (kind, issuer) = match from.auth {
        AuthKind::Sas => ("sas", "iothub"),
        AuthKind::X509 => ("x509", "external"),
    };
    let method = format!(r#"{{"scope":"{scope}","type":"{kind}","issuer":"{issuer}"}}"#);
    let system = &mut message.system;
    system.set(SystemProperty::ConnectionDeviceId, from.identity.device.as_str());
    if let Some(module) = &from.identity.module {
        system.set(SystemProperty::ConnectionModuleId, module.as_str());
    }
    system.set(SystemProperty::ConnectionAuthMethod, method);
    system.set(SystemProperty::ConnectionAuthGenerationId, from.generation_id.as_str());
    system.set(SystemProperty::EnqueuedTime, now.to_string());
    system.set(SystemProperty::MessageSource, events::TELEMETRY);
    if let Some(model) = &from.announced.model_id {
        system.set(SystemProperty::ModelId, model.as_str());
    }
}

impl holm_gateway::Twins for HubBackend {
    async fn twin(&self, of: &Admission) -> Result<Value, ServiceError> {
        self.presence.heard(&of.identity, self.clock.now());
        self.twins.device_view(of.identity.clone()).await
    }

    async fn patch_reported(
        &self,
        of: &Admission,
        patch: Value,
        expected: Option<u64>,
    ) -> Result<Option<u64>, ServiceError> {
        self.presence.heard(&of.identity, self.clock.now());
        let changed = match holm_model::twin::reported_from_json(patch.to_string().as_bytes()) {
            Ok(patch) => {
                let reporting = self.twins.report(of.identity.clone(), patch, expected);
                Actor::from(&of.principal).does(reporting).await
            }
            Err(error) => Err(error),
        };
        self.metrics.twin_change(TwinPart::Reported, &changed);
        changed.map(Some)
    }
}

impl holm_gateway::Inbox for HubBackend {
    async fn receive(
        &self,
        session: SessionId,
        of: &Admission,
        mailbox: Mailbox,
        most: usize,
    ) -> Result<Vec<Delivery>, Refusal> {
        // Only devices are sent messages by the cloud, and routes to inputs are an edge's: those boxes stay empty, and
        // who waits at them waits until its session ends.
        if mailbox == Mailbox::Inputs || of.identity.is_module() {
            return std::future::pending().await;
        }
        let device = &of.identity.device;
        let received = self.mailboxes.receive(session, device, most).await;
        received.map_err(|error| refusal(&error))
    }

    fn settle(&self, session: SessionId, of: &Admission, mailbox: Mailbox, lease: u64, settlement: Settlement) {
        if mailbox == Mailbox::CloudToDevice {
            self.count_settled(settlement);
            self.mailboxes.settle(session, &of.identity.device, lease, settlement);
        }
    }

    async fn take(
        &self,
        holder: SessionId,
        of: &Admission,
        mailbox: Mailbox,
        lock: Option<Duration>,
    ) -> Result<Option<Delivery>, ServiceError> {
        // As in `receive`: these boxes stay empty.
        if mailbox == Mailbox::Inputs || of.identity.is_module() {
            return Ok(None);
        }
        self.mailboxes.take(holder, &of.identity.device, lock).await
    }

    async fn settle_durably(
        &self,
        holder: SessionId,
        of: &Admission,
        mailbox: Mailbox,
        lease: u64,
        settlement: Settlement,
    ) -> Result<bool, ServiceError> {
        if mailbox == Mailbox::Inputs || of.identity.is_module() {
            return Ok(false);
        }
        let device = &of.identity.device;
        let settled = self.mailboxes.settle_durably(holder, device, lease, settlement).await;
        if settled == Ok(true) {
            self.count_settled(settlement);
        }
        settled
    }
}

impl HubBackend {
    fn count_settled(&self, settlement: Settlement) {
        let outcome = match settlement {
            Settlement::Complete => Settled::Completed,
            Settlement::Abandon => Settled::Abandoned,
            Settlement::Reject => Settled::Rejected,
            Settlement::Release => Settled::Released,
        };
        self.metrics.c2d_settled.of(outcome).increment();
    }
}

impl holm_gateway::Presence for HubBackend {
    async fn opened(&self, session: &SessionHandle, of: &Admission, earlier: Earlier) -> Result<Resumed, Refusal> {
        if !self.signals.opened(session) {
            return Err(Refusal::Unavailable(format!(
                "`{}` was removed, disabled or given another key while it logged in; it is to log in again",
                of.identity
            )));
        }
        let resumed = self.resume(of, earlier).await;
        match &resumed {
            Ok(_) => {
                let model = of.announced.model_id.as_deref().unwrap_or_default();
                let now = self.clock.now();
                self.presence.connected(&of.identity, model, now);
                self.connections.changed(&of.identity, &of.generation_id, true, now);
            }
            Err(_) => {
                self.signals.closed(session.id(), &of.identity);
            }
        }
        resumed
    }

    async fn subscribed(
        &self,
        _session: SessionId,
        of: &Admission,
        _all: Subscriptions,
        filters: Option<Vec<(String, u8)>>,
    ) -> Result<(), Refusal> {
        let Some(filters) = filters else {
            return Ok(());
        };
        let identity = of.identity.clone();
        self.repository
            .change(move |transaction| {
                if transaction.session(&identity)?.as_ref() == Some(&filters) {
                    return Ok(());
                }
                transaction.put_session(&identity, &filters)
            })
            .await
            .map_err(|error| refusal(&error))
    }

    async fn closed(&self, session: SessionId, of: &Admission) {
        if self.signals.closed(session, &of.identity) {
            let now = self.clock.now();
            self.presence.disconnected(&of.identity, now);
            self.connections.changed(&of.identity, &of.generation_id, false, now);
        }
        self.mailboxes.release(session, &of.identity.device);
    }
}

impl HubBackend {
    async fn resume(&self, of: &Admission, earlier: Earlier) -> Result<Resumed, Refusal> {
        if earlier == Earlier::LeftAlone {
            return Ok(Resumed::default());
        }
        let identity = of.identity.clone();
        let left = self.repository.read(move |view| view.session(&identity)).await;
        let left = left.map_err(|error| refusal(&error))?;
        let Some(filters) = left else {
            return Ok(Resumed::default());
        };
        if earlier == Earlier::Resumed {
            return Ok(Resumed { present: true, filters });
        }
        let identity = of.identity.clone();
        self.repository
            .change(move |transaction| transaction.remove_session(&identity))
            .await
            .map(|()| Resumed::default())
            .map_err(|error| refusal(&error))
    }
}

fn refusal(error: &ServiceError) -> Refusal {
    match error.code {
        ErrorCode::DeviceNotFound | ErrorCode::ModuleNotFound => Refusal::NotAuthorized(error.message.clone()),
        _ => Refusal::Unavailable(error.message.clone()),
    }
}
