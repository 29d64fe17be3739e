//! An edge with a broker, on a disk that can crash, and modules that talk to it.

use std::sync::Arc;
use std::time::Duration;

use holm_gateway::session::SessionInbox;
use holm_gateway::{
    Admission, Announced, Attempt, AuthKind, Authority, Command, Credential, Delivery, Earlier, Inbox, Ingest,
    IngestError, Mailbox, Presence, Principal, Refusal, SessionHandle, Settlement, Subscriptions, Twins,
};
use holm_identity::SymmetricKey;
use holm_model::manifest::BuildVersion;
use holm_model::{Message, SystemProperty};
use holm_net::{Clock, Scope};
use holm_queue::testing::{CrashStyle, MemoryFiles};
use holm_queue::{Options as QueueOptions, Queue};
use serde_json::Value;
use tempfile::TempDir;

use super::hub::{Hub, configuration};
use super::keys::Keys;
use super::{EDGE_HOST, identity, soon, until};
use crate::broker::{Broker, BrokerOptions, Receipt};
use crate::children::{self, Child, Children};
use crate::keys::ModuleKeys;
use crate::state::{State, Vault};
use crate::uplink::{Uplink, UplinkSettings};

pub(super) struct Edge {
    pub(super) broker: Arc<Broker>,
    pub(super) scope: Scope,
    pub(super) files: MemoryFiles,
    pub(super) state: State,
    pub(super) children: Arc<Children>,
    disk: TempDir,
}

impl Edge {
    /// An edge that was never started before.
    pub(super) async fn start(hub: &Hub, keys: &Arc<Keys>) -> Self {
        Self::open(hub, keys, MemoryFiles::new(), tempfile::tempdir().unwrap()).await
    }

    /// An edge that has these routes in force and does not need the hub for them.
    pub(super) async fn with_routes(hub: &Hub, keys: &Arc<Keys>, routes: Value) -> Self {
        Self::with_configuration(hub, keys, configuration(routes, 7200)).await
    }

    pub(super) async fn with_configuration(hub: &Hub, keys: &Arc<Keys>, desired: Value) -> Self {
        hub.desire("$edgeHub", desired.clone());
        let disk = tempfile::tempdir().unwrap();
        let state = open_state(&disk).await;
        let document = serde_json::json!({"version": 1, "desired": desired});
        state
            .put_document(crate::broker::CONFIGURATION, &document)
            .await
            .unwrap();
        drop(state);
        Self::open(hub, keys, MemoryFiles::new(), disk).await
    }

    async fn open(hub: &Hub, keys: &Arc<Keys>, files: MemoryFiles, disk: TempDir) -> Self {
        let scope = Scope::new();
        let state = open_state(&disk).await;
        let children = Children::new().0;
        children::restore(&children, &state).await;
        let children = Arc::new(children);
        let keys: Arc<dyn ModuleKeys> = Arc::clone(keys) as _;
        let settings = UplinkSettings {
            longest_retry_wait: Duration::from_millis(200),
            transport: hub.transport(),
            ..UplinkSettings::new(hub.endpoint(), hub.tls())
        };
        let uplink = Uplink::new(settings, Arc::clone(&keys), scope.clone());
        let options = BrokerOptions {
            hostname: EDGE_HOST.to_owned(),
            version: BuildVersion::default(),
            children: Arc::clone(&children),
            queue: QueueOptions::default(),
            memory_bytes: None,
            scope: scope.clone(),
            clock: Clock::system(),
        };
        let open = |queue| Ok(Queue::open_on(Arc::new(files.clone()), queue).unwrap());
        let broker = Broker::open_with(open, keys, uplink, state.clone(), options)
            .await
            .unwrap();
        Self {
            broker,
            scope,
            files,
            state,
            children,
            disk,
        }
    }

    /// The hub tells of the devices below this edge; they have the keys of [`child_key`].
    pub(super) async fn adopt(&self, names: &[&str]) {
        let told = names.iter().map(|name| (name.parse().unwrap(), child(name)));
        let changed = self.children.replace(told.collect());
        let put = changed
            .put
            .into_iter()
            .map(|(identity, child)| (identity, child.document()));
        self.state
            .change_children(put.collect(), changed.removed)
            .await
            .unwrap();
    }

    /// A session of a device below this edge.
    pub(super) async fn device(&self, name: &str) -> Module {
        let token = Keys::token(&name.parse().unwrap(), EDGE_HOST, FAR, &child_key(name));
        let admission = self.admit(name, token).await.unwrap();
        self.session(admission).await
    }

    pub(super) async fn admit(&self, name: &str, token: String) -> Result<Admission, Refusal> {
        let attempt = Attempt {
            identity: name.parse().unwrap(),
            credential: Credential::Token(token),
            announced: Announced::default(),
        };
        soon(self.broker.authenticate(attempt)).await
    }

    /// The process dies without a word, and what the disk did not have is gone; then it starts again.
    pub(super) async fn crash(self, hub: &Hub, keys: &Arc<Keys>) -> Self {
        let Self {
            broker,
            scope,
            files,
            state,
            disk,
            ..
        } = self;
        files.crash(CrashStyle::LoseAll);
        scope.drain(Duration::from_secs(10)).await.unwrap();
        drop((broker, state));
        Self::open(hub, keys, files, disk).await
    }

    pub(super) async fn linked(&self) {
        let mut link = self.broker.link();
        soon(link.wait_for(|link| link.connected)).await.unwrap();
    }

    pub(super) async fn unlinked(&self) {
        let mut link = self.broker.link();
        soon(link.wait_for(|link| !link.connected)).await.unwrap();
    }

    /// Hands in a message and gives its receipt.
    pub(super) async fn ingest(&self, from: &str, message: Message) -> Result<Receipt, IngestError> {
        self.broker.ingest(&admission(from), message).await
    }

    /// Sends a message and waits until it is safe. Its id is its body.
    pub(super) async fn send(&self, from: &str, output: &str, body: &str) {
        let receipt = self.ingest(from, message(output, body)).await.unwrap();
        soon(receipt).await.unwrap();
    }

    pub(super) async fn module(&self, name: &str) -> Module {
        self.session(admission(name)).await
    }

    async fn session(&self, admission: Admission) -> Module {
        let (handle, inbox) = SessionHandle::new(admission.identity.clone());
        self.broker
            .opened(&handle, &admission, Earlier::Discarded)
            .await
            .unwrap();
        self.broker.directory().enter(&handle);
        Module {
            broker: Arc::clone(&self.broker),
            handle,
            inbox,
            admission,
        }
    }

    /// Waits until nothing waits for the hub.
    pub(super) async fn drained(&self) {
        until("everything is forwarded", || {
            self.broker.status().upstream.messages == 0
        })
        .await;
    }
}

async fn open_state(disk: &TempDir) -> State {
    let vault = Vault::in_directory(&disk.path().join("keys")).await.unwrap();
    State::open(&disk.path().join("state.db"), vault).await.unwrap()
}

/// A moment at which no test runs any more, in seconds since 1970.
const FAR: i64 = 9_000_000_000;

pub(super) fn child_key(name: &str) -> SymmetricKey {
    SymmetricKey::from_bytes(format!("a key of a device below: {name}")).unwrap()
}

fn child(name: &str) -> Child {
    let key = child_key(name).to_base64();
    let keys = serde_json::json!({"primaryKey": key.expose(), "secondaryKey": key.expose()});
    let document = serde_json::json!({"generationId": "1", "authentication": {"type": "sas", "symmetricKey": keys}});
    Child::read(&document).unwrap()
}

pub(super) fn message(output: &str, body: &str) -> Message {
    let mut message = Message::new(body.to_owned());
    message.system.set(SystemProperty::OutputName, output);
    message.system.set(SystemProperty::MessageId, body);
    message
}

pub(super) fn admission(name: &str) -> Admission {
    Admission {
        principal: Principal::Identity(identity(name)),
        identity: identity(name),
        auth: AuthKind::Sas,
        thumbprint: None,
        generation_id: format!("g-{name}"),
        expires: None,
        announced: Announced::default(),
    }
}

/// A module's session, as the front holds it.
pub(super) struct Module {
    broker: Arc<Broker>,
    pub(super) handle: SessionHandle,
    inbox: SessionInbox,
    pub(super) admission: Admission,
}

impl Module {
    /// Waits for up to so many messages.
    pub(super) async fn receive(&self, most: usize) -> Vec<Delivery> {
        soon(self.waiting(most)).await
    }

    /// Waits for up to so many cloud-to-device messages.
    pub(super) async fn mail(&self, most: usize) -> Vec<Delivery> {
        let (id, admission) = (self.handle.id(), &self.admission);
        let mail = self.broker.receive(id, admission, Mailbox::CloudToDevice, most);
        soon(mail).await.unwrap()
    }

    /// The twin, as the device reads it.
    pub(super) async fn twin(&self) -> Value {
        soon(self.broker.twin(&self.admission)).await.unwrap()
    }

    /// Reports, and waits until that is kept.
    pub(super) async fn report(&self, patch: Value) {
        let reported = self.broker.patch_reported(&self.admission, patch, None);
        soon(reported).await.unwrap();
    }

    pub(super) fn complete_mail(&self, delivery: &Delivery) {
        self.settle_mail(delivery, Settlement::Complete);
    }

    pub(super) fn settle_mail(&self, delivery: &Delivery, settlement: Settlement) {
        let (id, admission) = (self.handle.id(), &self.admission);
        self.broker
            .settle(id, admission, Mailbox::CloudToDevice, delivery.lease, settlement);
    }

    /// Hands in a message of a device and waits until it is safe. Its id is its body.
    pub(super) async fn send(&self, body: &str) {
        let mut message = Message::new(body.to_owned());
        message.system.set(SystemProperty::MessageId, body);
        let receipt = self.broker.ingest(&self.admission, message).await.unwrap();
        soon(receipt).await.unwrap();
    }

    pub(super) async fn waiting(&self, most: usize) -> Vec<Delivery> {
        let (id, admission) = (self.handle.id(), &self.admission);
        self.broker.receive(id, admission, Mailbox::Inputs, most).await.unwrap()
    }

    /// Receives exactly so many, one window after the other, without settling them.
    pub(super) async fn receive_all(&self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.receive(count - all.len()).await);
        }
        all
    }

    pub(super) fn settle(&self, delivery: &Delivery, settlement: Settlement) {
        let (id, admission) = (self.handle.id(), &self.admission);
        self.broker
            .settle(id, admission, Mailbox::Inputs, delivery.lease, settlement);
    }

    pub(super) fn complete(&self, deliveries: &[Delivery]) {
        deliveries
            .iter()
            .for_each(|delivery| self.settle(delivery, Settlement::Complete));
    }

    pub(super) async fn subscribe(&self, all: Subscriptions) {
        self.handle.set_subscriptions(all);
        self.broker.directory().subscribed();
        let told = self.broker.subscribed(self.handle.id(), &self.admission, all, None);
        told.await.unwrap();
    }

    /// The next command from the node.
    pub(super) async fn command(&mut self) -> Command {
        soon(self.inbox.next()).await
    }

    /// The next change of desired properties.
    pub(super) async fn desired(&mut self) -> Value {
        match self.command().await {
            Command::DesiredChanged(news) => news,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn leave(self) {
        self.broker.directory().leave(&self.handle);
        self.broker.closed(self.handle.id(), &self.admission).await;
    }
}

/// The bodies of deliveries.
pub(super) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let body = |delivery: &Delivery| String::from_utf8(delivery.message.body.to_vec()).unwrap();
    deliveries.iter().map(body).collect()
}
