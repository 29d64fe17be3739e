//! The test language of this crate: a node in memory behind a real front, and a client that speaks MQTT to it byte by byte.

#![allow(dead_code, reason = "each test file uses the part it needs")]
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that can't go on panics")]

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use holm_gateway::{
    Admission, Attempt, AuthKind, Authority, Credential, Delivery, Directory, Earlier, Gateway, Inbox, Ingest,
    IngestError, Mailbox, Presence, Principal, Profile, Refusal, Resumed, Service, SessionHandle, SessionId,
    Settlement, Subscriptions, Twins,
};
use holm_identity::ca::request::SigningRequest;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::wire::UserName;
use holm_model::{Identity, Message, ProvisioningError, Timestamp};
use holm_mqtt::{
    Closed, Config, Connect, Credentials, Event, Granted, Qos, Session, Subscription, Text, Token, Version, Will,
};
use holm_net::{Connection, Peer, Scope};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{Notify, watch};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A node in memory: it lets in whoever says `good`, keeps what it is told, and hands out what tests put in.
#[derive(Debug, Default)]
pub struct Node {
    pub state: Mutex<State>,
    pub changed: Notify,
    pub mail: Notify,
    /// Messages wait for this before they are taken in, when it is set.
    pub room: Mutex<Option<watch::Receiver<bool>>>,
    /// Receipts wait for this, when it is set.
    pub disk: Mutex<Option<watch::Receiver<usize>>>,
    /// The message of this number, counted from 1, does not get to the disk, when it is set.
    pub lost: Mutex<Option<usize>>,
    /// It provisions devices whose TPMs open this, when it is set.
    pub sealed: OnceLock<Vec<u8>>,
    /// Certificates are issued when this says so, when it is set.
    pub issuing: Mutex<Option<watch::Receiver<bool>>>,
    /// There are policies, whose tokens open everything and end then, when it is set.
    pub policies: Mutex<Option<Timestamp>>,
    /// Tells of changes of the policies.
    pub policy_changes: watch::Sender<()>,
}

/// A token of the policy `service`, for everything.
pub const POLICY_TOKEN: &str = "SharedAccessSignature sr=hub.test\
    &sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&se=4000000000&skn=service";

#[derive(Debug, Default)]
pub struct State {
    /// Messages that were brought, with room for them or not.
    pub entering: usize,
    pub ingested: Vec<(Identity, Message)>,
    /// Messages to devices that back ends brought, with room for them or not.
    pub sent: usize,
    pub reported: Vec<(Value, Option<u64>)>,
    pub twin_fails: Option<ServiceError>,
    pub kept: HashMap<Identity, Vec<(String, u8)>>,
    /// What the session that said it last listens to.
    pub listens: Subscriptions,
    pub mailbox: VecDeque<Delivery>,
    pub leased: HashMap<(SessionId, u64), Delivery>,
    pub settled: Vec<(u64, Settlement)>,
    pub closed: usize,
    pub unavailable: bool,
    pub models: Vec<Option<String>>,
    /// Certificates that were issued.
    pub issued: usize,
}

impl Node {
    pub fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until something holds of the node's state.
    pub async fn until(&self, holds: impl Fn(&State) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if holds(&self.lock()) {
                    return;
                }
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the node comes to the state that the test waits for");
    }

    /// Deletes the policies, or makes them, and tells of it.
    pub fn set_policies(&self, end: Option<Timestamp>) {
        *self.policies.lock().unwrap() = end;
        self.policy_changes.send_replace(());
    }

    pub fn put(&self, lease: u64, input: Option<&str>, message: Message) {
        let delivery = Delivery {
            message,
            input: input.map(Into::into),
            lease,
            redelivered: false,
        };
        self.lock().mailbox.push_back(delivery);
        self.mail.notify_waiters();
    }
}

impl Authority for Node {
    async fn authenticate(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        if self.lock().unavailable {
            return Err(Refusal::Unavailable("the registry is away".into()));
        }
        self.lock().models.push(attempt.announced.model_id.clone());
        let principal = match &attempt.credential {
            Credential::Token(token) if token == "good" => Some(Principal::Identity(attempt.identity.clone())),
            // Whether there are policies is seen when the session opens.
            Credential::Token(token) if token == POLICY_TOKEN => Some(Principal::Policy("service".into())),
            _ => None,
        };
        match principal {
            Some(principal) => Ok(Admission {
                principal,
                identity: attempt.identity,
                auth: AuthKind::Sas,
                thumbprint: None,
                generation_id: "g".into(),
                expires: None,
                announced: attempt.announced,
            }),
            None => Err(Refusal::NotAuthorized("wrong token".into())),
        }
    }

    async fn verify_policy(&self, token: &str) -> Result<Option<Timestamp>, Refusal> {
        self.permit_service(token, "").map(Some)
    }
}

impl Ingest for Node {
    type Receipt = std::pin::Pin<Box<dyn Future<Output = Result<(), IngestError>> + Send>>;

    async fn ingest(&self, from: &Admission, message: Message) -> Result<Self::Receipt, IngestError> {
        let size = message.counted_bytes();
        if size > 256 * 1024 {
            return Err(IngestError::TooLarge {
                size,
                limit: 256 * 1024,
            });
        }
        self.lock().entering += 1;
        self.changed.notify_waiters();
        let room = self.room.lock().unwrap().clone();
        if let Some(mut room) = room {
            room.wait_for(|room| *room).await.expect("the test keeps the room");
        }
        let number = {
            let mut state = self.lock();
            state.ingested.push((from.identity.clone(), message));
            state.ingested.len()
        };
        self.changed.notify_waiters();
        let disk = self.disk.lock().unwrap().clone();
        let is_lost = *self.lost.lock().unwrap() == Some(number);
        Ok(Box::pin(async move {
            if is_lost {
                return Err(IngestError::Unavailable("the disk is full".into()));
            }
            if let Some(mut durable) = disk {
                durable
                    .wait_for(|durable| *durable >= number)
                    .await
                    .expect("the test keeps the disk");
            }
            Ok(())
        }))
    }
}

impl Twins for Node {
    async fn twin(&self, _of: &Admission) -> Result<Value, ServiceError> {
        match self.lock().twin_fails.clone() {
            Some(error) => Err(error),
            None => Ok(json!({ "desired": { "$version": 7 }, "reported": { "$version": 3 } })),
        }
    }

    async fn patch_reported(
        &self,
        _of: &Admission,
        patch: Value,
        expected: Option<u64>,
    ) -> Result<Option<u64>, ServiceError> {
        let mut state = self.lock();
        state.reported.push((patch, expected));
        Ok(Some(3 + state.reported.len() as u64))
    }
}

impl Inbox for Node {
    async fn receive(
        &self,
        session: SessionId,
        _of: &Admission,
        _mailbox: Mailbox,
        most: usize,
    ) -> Result<Vec<Delivery>, Refusal> {
        loop {
            let mail = self.mail.notified();
            {
                let mut state = self.lock();
                let count = most.min(state.mailbox.len());
                let taken: Vec<_> = state.mailbox.drain(..count).collect();
                if !taken.is_empty() {
                    for delivery in &taken {
                        state.leased.insert((session, delivery.lease), delivery.clone());
                    }
                    return Ok(taken);
                }
            }
            mail.await;
        }
    }

    fn settle(&self, session: SessionId, _of: &Admission, _mailbox: Mailbox, lease: u64, settlement: Settlement) {
        let mut state = self.lock();
        state.leased.remove(&(session, lease));
        state.settled.push((lease, settlement));
        self.changed.notify_waiters();
    }
}

/// Issues certificates to `dev1` alone; it does not look at requests.
impl holm_gateway::Credentials for Node {
    const ISSUES: bool = true;

    async fn may_have_certificate(&self, of: &Admission) -> Result<(), ServiceError> {
        if of.identity.device.as_str() == "dev1" {
            return Ok(());
        }
        Err(ServiceError::new(ErrorCode::CertificateNotIssued, "not to this one"))
    }

    async fn issue_certificate(
        &self,
        _of: &Admission,
        _request: SigningRequest,
    ) -> Result<Vec<CertificateDer<'static>>, ServiceError> {
        let issuing = self.issuing.lock().unwrap().clone();
        if let Some(mut issuing) = issuing {
            issuing.wait_for(|go_on| *go_on).await.expect("the test keeps it");
        }
        self.lock().issued += 1;
        Ok(vec![b"leaf".to_vec().into(), b"root".to_vec().into()])
    }
}

impl holm_gateway::Provisioning for Node {
    fn id_scope(&self) -> Option<&str> {
        self.sealed.get().map(|_| "0ne1")
    }

    async fn attest(&self, applicant: &holm_gateway::provisioning::Applicant) -> Result<(), ProvisioningError> {
        match &applicant.credential {
            Credential::Token(token) if token == "good" => Ok(()),
            _ => Err(ProvisioningError::unauthorized()),
        }
    }

    async fn challenge(
        &self,
        applicant: &holm_gateway::provisioning::Applicant,
        endorsement: Bytes,
        root: Bytes,
    ) -> Result<Vec<u8>, ProvisioningError> {
        let is_known = applicant.registrant.registration_id == "reg-1" && endorsement == "EK" && root == "SRK";
        let sealed = self.sealed.get().filter(|_| is_known).cloned();
        sealed.ok_or_else(ProvisioningError::unauthorized)
    }
}

impl Service for Node {
    type Events = Infallible;
    type Notices = Infallible;

    async fn send_to_device(&self, _to: Identity, _message: Message) -> Result<u64, ServiceError> {
        self.lock().sent += 1;
        self.changed.notify_waiters();
        let room = self.room.lock().unwrap().clone();
        if let Some(mut room) = room {
            room.wait_for(|room| *room).await.expect("the test keeps the room");
        }
        Ok(1)
    }

    fn permit_session(&self, token: &str) -> Result<(), Refusal> {
        self.permit_service(token, "").map(drop)
    }

    fn policy_changes(&self) -> Option<BoxStream<'static, ()>> {
        let changes = stream::unfold(self.policy_changes.subscribe(), |mut changes| async move {
            changes.changed().await.ok().map(|()| ((), changes))
        });
        Some(changes.boxed())
    }

    fn permit_service(&self, _token: &str, _path: &str) -> Result<Timestamp, Refusal> {
        let policies = *self.policies.lock().unwrap();
        policies.ok_or_else(|| Refusal::NotAuthorized("there are no policies".into()))
    }
}

impl Presence for Node {
    async fn opened(&self, session: &SessionHandle, _of: &Admission, earlier: Earlier) -> Result<Resumed, Refusal> {
        let mut state = self.lock();
        let kept = state.kept.remove(session.identity());
        Ok(match kept {
            Some(filters) if earlier == Earlier::Resumed => {
                state.kept.insert(session.identity().clone(), filters.clone());
                Resumed { present: true, filters }
            }
            _ => Resumed::default(),
        })
    }

    async fn subscribed(
        &self,
        _session: SessionId,
        of: &Admission,
        all: Subscriptions,
        filters: Option<Vec<(String, u8)>>,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.listens = all;
        if let Some(filters) = filters {
            state.kept.insert(of.identity.clone(), filters);
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn closed(&self, session: SessionId, _of: &Admission) {
        let mut state = self.lock();
        state.closed += 1;
        let mine: Vec<_> = state
            .leased
            .keys()
            .filter(|(owner, _)| *owner == session)
            .copied()
            .collect();
        for key in mine {
            if let Some(mut delivery) = state.leased.remove(&key) {
                delivery.redelivered = true;
                state.mailbox.push_front(delivery);
            }
        }
        drop(state);
        self.changed.notify_waiters();
        self.mail.notify_waiters();
    }
}

/// A node and its front.
pub struct Fixture {
    pub node: Arc<Node>,
    pub directory: Arc<Directory>,
    pub gateway: Gateway<Node>,
    pub scope: Scope,
}

impl Fixture {
    pub fn hub() -> Self {
        Self::new(Profile::hub())
    }

    pub fn edge() -> Self {
        Self::new(Profile::edge())
    }

    /// A hub that lets in so many each second.
    pub fn hub_with_logins(per_second: u32) -> Self {
        let mut fixture = Self::hub();
        fixture.gateway = fixture.gateway.with_logins_per_second(NonZeroU32::new(per_second));
        fixture
    }

    fn new(profile: Profile) -> Self {
        let (node, directory, scope) = (Arc::<Node>::default(), Arc::<Directory>::default(), Scope::new());
        let gateway = Gateway::new(Arc::clone(&node), Arc::clone(&directory), profile, scope.clone());
        Self {
            node,
            directory,
            gateway,
            scope,
        }
    }

    /// Bytes of what a task has to hold to serve a connection, without what is in boxes.
    pub fn task_bytes(&self) -> usize {
        let (_, far) = tokio::io::duplex(1);
        size_of_val(&self.gateway.serve_mqtt_stream(Box::new(far), Peer::default()))
    }

    /// A raw connection to the front.
    pub fn dial(&self) -> DuplexStream {
        self.dial_as(Peer::default())
    }

    /// A raw connection of somebody.
    pub fn dial_as(&self, peer: Peer) -> DuplexStream {
        let (near, far) = tokio::io::duplex(1024 * 1024);
        let gateway = self.gateway.clone();
        self.scope
            .spawn(async move { gateway.serve_mqtt_stream(far, peer).await });
        near
    }

    /// Connects as an identity with everything in order.
    pub async fn connect(&self, identity: &str) -> Client {
        let (client, present) = self.try_connect(connect(identity)).await.expect("the client is let in");
        assert!(!present, "nothing to resume");
        client
    }

    /// Connects with a CONNECT of the test's own: the client and whether a session was resumed, or how it was refused.
    pub async fn try_connect(&self, connect: Connect) -> Result<(Client, bool), Closed> {
        let session = Session::client(Instant::now(), Config::default(), connect).unwrap();
        let mut client = Client {
            connection: Connection::new(session, self.dial()),
        };
        match client.event().await {
            Event::Connected { session_present } => Ok((client, session_present)),
            Event::Closed(reason) => Err(reason),
            other => panic!("unexpected before CONNACK: {other:?}"),
        }
    }
}

/// A CONNECT as the Python SDK sends it.
pub fn connect(identity: &str) -> Connect {
    let user = UserName::new("hub.test", identity.parse().unwrap(), "test").to_string();
    Connect {
        version: Version::V311,
        client_id: text(identity),
        clean_session: false,
        keep_alive_seconds: 60,
        will: None,
        credentials: Some(Credentials {
            user_name: text(&user),
            password: Some(Bytes::from_static(b"good")),
        }),
    }
}

pub fn will(topic: &str) -> Option<Will> {
    Some(Will {
        topic: text(topic),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
    })
}

pub fn text(text: &str) -> Text {
    Text::try_from(text).unwrap()
}

/// A client that is let in.
pub struct Client {
    connection: Connection<Session, DuplexStream>,
}

impl Client {
    pub async fn event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.connection.next_event())
            .await
            .expect("an event comes")
    }

    pub async fn subscribe(&mut self, filters: &[(&str, Qos)]) -> Vec<Granted> {
        let filters = filters
            .iter()
            .map(|(filter, qos)| Subscription {
                filter: text(filter),
                qos: *qos,
            })
            .collect();
        self.connection
            .session_mut()
            .subscribe(Instant::now(), filters)
            .unwrap();
        match self.event().await {
            Event::Subscribed { granted, .. } => granted,
            other => panic!("expected SUBACK: {other:?}"),
        }
    }

    pub fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Option<Token> {
        self.publish_with(topic, payload, Qos::AtLeastOnce, false)
    }

    pub fn publish_with(&mut self, topic: &str, payload: impl Into<Bytes>, qos: Qos, retain: bool) -> Option<Token> {
        let message = holm_mqtt::Message {
            topic: text(topic),
            payload: payload.into(),
            qos,
            retain,
            dup: false,
        };
        self.connection.session_mut().publish(Instant::now(), &message).unwrap()
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> (String, Bytes, bool) {
        loop {
            match self.event().await {
                Event::Publish { message, delivery } => {
                    if let Some(delivery) = delivery {
                        self.connection
                            .session_mut()
                            .acknowledge(delivery, holm_mqtt::Outcome::Accept);
                    }
                    return (message.topic.as_str().to_owned(), message.payload, message.dup);
                }
                Event::Acknowledged(_) => {}
                other => panic!("expected a message: {other:?}"),
            }
        }
    }

    /// Waits for a number of acknowledgements.
    pub async fn acknowledged(&mut self, count: usize) {
        for _ in 0..count {
            match self.event().await {
                Event::Acknowledged(_) => {}
                other => panic!("expected PUBACK: {other:?}"),
            }
        }
    }

    /// Asks for no more of these, and gives what came before that was answered. None of it is acknowledged.
    pub async fn unsubscribe_meanwhile(&mut self, filters: &[&str]) -> usize {
        let filters = filters.iter().map(|filter| text(filter)).collect();
        let session = self.connection.session_mut();
        session.unsubscribe(Instant::now(), filters).unwrap();
        let mut came = 0;
        loop {
            match self.event().await {
                Event::Publish { .. } => came += 1,
                Event::Unsubscribed { .. } => return came,
                other => panic!("expected messages and UNSUBACK: {other:?}"),
            }
        }
    }

    pub async fn unsubscribe(&mut self, filters: &[&str]) {
        let filters = filters.iter().map(|filter| text(filter)).collect();
        self.connection
            .session_mut()
            .unsubscribe(Instant::now(), filters)
            .unwrap();
        assert!(matches!(self.event().await, Event::Unsubscribed { .. }));
    }

    /// Waits until the front has closed the connection.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Event::Closed(reason) = self.event().await {
                return reason;
            }
        }
    }

    /// Moves bytes for a while and asserts that nothing arrives.
    pub async fn nothing_for(&mut self, time: Duration) {
        if let Ok(event) = tokio::time::timeout(time, self.connection.next_event()).await {
            panic!("nothing was to arrive, and there came {event:?}");
        }
    }

    /// Says goodbye and waits for the end.
    pub async fn disconnect(mut self) {
        self.connection.session_mut().close();
        self.connection.finish().await;
    }
}
