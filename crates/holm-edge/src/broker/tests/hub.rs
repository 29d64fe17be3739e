//! A small hub: the real front over TLS, a registry of twins, and a list of what came in. Its link can be cut.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holm_client::{Endpoint, Transport};
use holm_gateway::{
    Admission, Attempt, AuthKind, Authority, Credential, Delivery, Directory, Earlier, Gateway, Inbox, Ingest,
    IngestError, InvokeError, Mailbox, Presence, Principal, Profile, Refusal, Resumed, Service, SessionHandle,
    SessionId, Settlement, Subscriptions, Twins,
};
use holm_identity::SasToken;
use holm_identity::ca::CertificateAuthority;
use holm_identity::client_verifier::ProofOfKeyVerifier;
use holm_identity::tls::{ReloadableCertificate, Roots, client_config, server_config};
use holm_model::error::ServiceError;
use holm_model::method::{MethodRequest, MethodResponse};
use holm_model::{Identity, Message, SystemProperty, Twin, TwinUpdate};
use holm_net::listener::ListenerOptions;
use holm_net::{Listener, Scope};
use rustls::{ClientConfig, ServerConfig};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::keys::Keys;
use super::{HUB_HOST, identity, module, until};

#[derive(Default)]
struct Registry {
    events: Vec<(Identity, Message)>,
    twins: HashMap<Identity, Twin>,
    /// By identity.
    refused: HashSet<String>,
    mail: VecDeque<Letter>,
    leases: u64,
    leased: HashMap<(SessionId, u64), Letter>,
    settled: Vec<String>,
    abandoned: usize,
    posts: u64,
}

struct Letter {
    to: Identity,
    message: Message,
    was_leased: bool,
}

/// What the small hub does for the front.
pub(crate) struct Node {
    registry: Mutex<Registry>,
    directory: Arc<Directory>,
    /// Whether messages are acknowledged.
    acknowledges: watch::Sender<bool>,
    /// Whom it lets wait before it lets them in, as identity; nobody: empty.
    detains: watch::Sender<String>,
    posted: watch::Sender<u64>,
}

impl Node {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap()
    }

    fn with_twin<T>(&self, of: &Identity, change: impl FnOnce(&mut Twin) -> T) -> T {
        let mut registry = self.registry();
        let twin = registry
            .twins
            .entry(of.clone())
            .or_insert_with(|| Twin::new(of.clone(), std::time::SystemTime::now().into()));
        change(twin)
    }
}

impl Node {
    fn lease(&self, session: SessionId, to: &Identity) -> Option<Delivery> {
        let mut registry = self.registry();
        let index = registry.mail.iter().position(|letter| letter.to == *to)?;
        let mut letter = registry.mail.remove(index)?;
        registry.leases += 1;
        let lease = registry.leases;
        let delivery = Delivery {
            message: letter.message.clone(),
            input: None,
            lease,
            redelivered: letter.was_leased,
        };
        letter.was_leased = true;
        registry.leased.insert((session, lease), letter);
        Some(delivery)
    }
}

impl Authority for Node {
    async fn authenticate(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        let name = attempt.identity.to_string();
        let mut detains = self.detains.subscribe();
        detains.wait_for(|detained| *detained != name).await.unwrap();
        let refused = |reason: &str| Refusal::NotAuthorized(reason.to_owned());
        // An edge speaks for a device below it with the key of its `$edgeHub`.
        let signer = match (&attempt.announced.auth_chain, &attempt.identity.module) {
            (Some(chain), _) if *chain == format!("{};box", attempt.identity) => module("$edgeHub"),
            (None, Some(module)) => module.clone(),
            _ => return Err(refused("a device, or a chain that is not its edge's")),
        };
        let Credential::Token(text) = &attempt.credential else {
            return Err(refused("no token"));
        };
        let token = SasToken::parse(text).map_err(|error| refused(&error.to_string()))?;
        let is_right = token.covers(&[HUB_HOST], &attempt.identity) && token.verify(&Keys::key(&signer, "primary"));
        if !is_right || self.registry().refused.contains(&attempt.identity.to_string()) {
            return Err(refused("not now"));
        }
        Ok(Admission {
            principal: Principal::Identity(attempt.identity.clone()),
            identity: attempt.identity,
            auth: AuthKind::Sas,
            thumbprint: None,
            generation_id: String::new(),
            expires: None,
            announced: attempt.announced,
        })
    }
}

impl Ingest for Node {
    type Receipt = std::pin::Pin<Box<dyn Future<Output = Result<(), IngestError>> + Send>>;

    async fn ingest(&self, from: &Admission, message: Message) -> Result<Self::Receipt, IngestError> {
        self.registry().events.push((from.identity.clone(), message));
        let mut acknowledges = self.acknowledges.subscribe();
        Ok(Box::pin(async move {
            let opened = acknowledges.wait_for(|open| *open).await;
            opened
                .map(|_| ())
                .map_err(|_| IngestError::Unavailable("gone".to_owned()))
        }))
    }
}

impl Twins for Node {
    async fn twin(&self, of: &Admission) -> Result<Value, ServiceError> {
        Ok(self.with_twin(&of.identity, |twin| twin.device_view()))
    }

    async fn patch_reported(
        &self,
        of: &Admission,
        patch: Value,
        expected: Option<u64>,
    ) -> Result<Option<u64>, ServiceError> {
        let patch = patch.as_object().unwrap();
        self.with_twin(&of.identity, |twin| {
            twin.patch_reported(patch, expected, std::time::SystemTime::now().into())
        })
        .map(|change| Some(change.version))
    }
}

impl Inbox for Node {
    async fn receive(
        &self,
        session: SessionId,
        of: &Admission,
        _: Mailbox,
        _: usize,
    ) -> Result<Vec<Delivery>, Refusal> {
        let mut posted = self.posted.subscribe();
        loop {
            posted.borrow_and_update();
            if let Some(delivery) = self.lease(session, &of.identity) {
                return Ok(vec![delivery]);
            }
            posted.changed().await.unwrap();
        }
    }

    fn settle(&self, session: SessionId, _: &Admission, _: Mailbox, lease: u64, settlement: Settlement) {
        let mut registry = self.registry();
        if let Some(letter) = registry.leased.remove(&(session, lease)) {
            match settlement {
                Settlement::Complete => registry
                    .settled
                    .push(String::from_utf8(letter.message.body.to_vec()).unwrap()),
                _ => {
                    registry.abandoned += usize::from(settlement == Settlement::Abandon);
                    registry.mail.push_front(letter);
                }
            }
        }
        drop(registry);
        self.posted.send_modify(|count| *count += 1);
    }
}

impl holm_gateway::Credentials for Node {}

impl holm_gateway::Provisioning for Node {}

impl Service for Node {
    type Events = Infallible;
    type Notices = Infallible;
}

impl Presence for Node {
    async fn opened(&self, _: &SessionHandle, _: &Admission, _: Earlier) -> Result<Resumed, Refusal> {
        Ok(Resumed::default())
    }

    async fn subscribed(
        &self,
        _: SessionId,
        _: &Admission,
        _: Subscriptions,
        _: Option<Vec<(String, u8)>>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    async fn closed(&self, session: SessionId, _: &Admission) {
        let mut registry = self.registry();
        let held: Vec<_> = registry
            .leased
            .keys()
            .filter(|(holder, _)| *holder == session)
            .copied()
            .collect();
        for key in held {
            let letter = registry.leased.remove(&key).unwrap();
            registry.mail.push_front(letter);
        }
        drop(registry);
        self.posted.send_modify(|count| *count += 1);
    }
}

/// The hub, and the link to it.
pub(crate) struct Hub {
    node: Arc<Node>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    address: SocketAddr,
    link: Mutex<Option<Scope>>,
    transport: Transport,
}

impl Hub {
    /// A hub that listens.
    pub(crate) async fn start() -> Self {
        let hub = Self::unreachable().await;
        hub.restore().await;
        hub
    }

    /// What is spoken with it.
    pub(crate) const fn transport(&self) -> Transport {
        self.transport
    }

    /// A hub whose link is cut.
    pub(crate) async fn unreachable() -> Self {
        let now = std::time::SystemTime::now().into();
        let authority = CertificateAuthority::create("test", 1, now).unwrap();
        let server = authority.issue_server(&["127.0.0.1"], 1, now).unwrap();
        let certificate = Arc::new(ReloadableCertificate::new(&server).unwrap());
        let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes()).unwrap();
        // A port that is free now; the link is at this address whenever it is up.
        let listener = listen("127.0.0.1:0".parse().unwrap()).await;
        Self {
            node: Arc::new(Node {
                registry: Mutex::default(),
                directory: Arc::default(),
                acknowledges: watch::Sender::new(true),
                detains: watch::Sender::default(),
                posted: watch::Sender::new(0),
            }),
            server: Arc::new(server_config(certificate, Arc::new(ProofOfKeyVerifier)).unwrap()),
            client: Arc::new(client_config(roots, None).unwrap()),
            address: listener.local_address().unwrap(),
            link: Mutex::default(),
            transport: super::amqp::transport(),
        }
    }

    /// Settings for a server at the hub's address that its clients trust.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.address.ip().to_string(),
            port: self.address.port(),
        }
    }

    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// Makes the hub reachable.
    pub(crate) async fn restore(&self) {
        let scope = Scope::new();
        let directory = Arc::clone(&self.node.directory);
        let gateway = Gateway::new(Arc::clone(&self.node), directory, Profile::hub(), scope.clone());
        let listener = listen(self.address).await;
        let server = Arc::clone(&self.server);
        match self.transport {
            Transport::Mqtt => scope.spawn(gateway.serve_mqtt(listener, server)),
            Transport::Amqp => scope.spawn(gateway.serve_amqp(listener, server)),
            other => panic!("this hub does not serve {other:?}"),
        };
        *self.link.lock().unwrap() = Some(scope);
    }

    /// Cuts the link: connections end, and new ones are refused.
    pub(crate) async fn cut(&self) {
        let scope = self.link.lock().unwrap().take().expect("the link is up");
        scope.drain(Duration::from_secs(10)).await.unwrap();
    }

    /// Refuses an identity, or lets it in again.
    pub(crate) fn refuse(&self, name: &str, refuse: bool) {
        let mut registry = self.node.registry();
        if refuse {
            registry.refused.insert(identity(name).to_string());
        } else {
            registry.refused.remove(&identity(name).to_string());
        }
    }

    /// Lets an identity wait for the answer to its greeting; `None`: answers everybody.
    pub(crate) fn detain(&self, name: Option<&str>) {
        let detained = name.map(|name| identity(name).to_string());
        self.node.detains.send_replace(detained.unwrap_or_default());
    }

    /// Sends a message to a device.
    pub(crate) fn post(&self, to: &str, body: &str) {
        self.post_message(to, Message::new(body.to_owned()));
    }

    /// The same with its properties.
    pub(crate) fn post_message(&self, to: &str, mut message: Message) {
        let mut registry = self.node.registry();
        registry.posts += 1;
        message
            .system
            .set(SystemProperty::SequenceNumber, registry.posts.to_string());
        registry.mail.push_back(Letter {
            to: to.parse().unwrap(),
            message,
            was_leased: false,
        });
        drop(registry);
        self.node.posted.send_modify(|count| *count += 1);
    }

    /// How often devices gave a message back.
    pub(crate) fn abandoned(&self) -> usize {
        self.node.registry().abandoned
    }

    /// Forgets what waits for devices and what they hold, as when its time is over.
    pub(crate) fn forget_mail(&self) {
        let mut registry = self.node.registry();
        registry.mail.clear();
        registry.leased.clear();
    }

    /// The bodies of messages to devices that were completed, in that order.
    pub(crate) fn settled(&self) -> Vec<String> {
        self.node.registry().settled.clone()
    }

    /// Acknowledges messages, or keeps their senders waiting.
    pub(crate) fn acknowledge(&self, acknowledges: bool) {
        self.node.acknowledges.send_replace(acknowledges);
    }

    /// What came in, as sender and message.
    pub(crate) fn events(&self) -> Vec<(Identity, Message)> {
        self.node.registry().events.clone()
    }

    /// Bodies that came in from one module, in order of first arrival.
    pub(crate) fn bodies(&self, name: &str) -> Vec<String> {
        let (mut seen, mut bodies) = (HashSet::new(), Vec::new());
        for (sender, message) in self.events() {
            let id = message.system.get(SystemProperty::MessageId).map(str::to_owned);
            if sender == identity(name) && (id.is_none() || seen.insert(id)) {
                bodies.push(String::from_utf8(message.body.to_vec()).unwrap());
            }
        }
        bodies
    }

    /// Waits until so many different messages of a module came in.
    pub(crate) async fn received(&self, name: &str, count: usize) -> Vec<String> {
        until("the hub has the messages", || self.bodies(name).len() >= count).await;
        self.bodies(name)
    }

    /// Changes desired properties, and tells the device if it is connected.
    pub(crate) fn desire(&self, name: &str, desired: Value) {
        let identity = identity(name);
        let update = TwinUpdate::of_desired(desired.as_object().unwrap().clone());
        let change = self.node.with_twin(&identity, |twin| {
            twin.patch(&update, std::time::SystemTime::now().into()).unwrap()
        });
        let session = self.node.directory.find(&identity);
        if let (Some(session), Some(news)) = (session, change.desired) {
            session.desired_changed(Value::Object(news));
        }
    }

    /// Routes of the edge, by name.
    pub(crate) fn deploy(&self, routes: Value) {
        self.desire("$edgeHub", configuration(routes, 7200));
    }

    pub(crate) fn reported(&self, name: &str) -> Map<String, Value> {
        self.node
            .with_twin(&identity(name), |twin| twin.reported().properties().clone())
    }

    pub(crate) fn is_connected(&self, name: &str) -> bool {
        self.node.directory.find(&identity(name)).is_some()
    }

    pub(crate) async fn call(&self, name: &str, method: &str, payload: Value) -> Result<MethodResponse, InvokeError> {
        let request = MethodRequest::new(method, payload).unwrap();
        self.node.directory.invoke(&identity(name), request).await
    }

    pub(crate) fn listens_to_methods(&self, name: &str) -> bool {
        let session = self.node.directory.find(&identity(name));
        session.is_some_and(|session| session.subscriptions().contains(Subscriptions::METHODS))
    }
}

/// Desired properties of `$edgeHub`.
pub(crate) fn configuration(routes: Value, seconds: i64) -> Value {
    json!({
        "schemaVersion": "1.1",
        "routes": routes,
        "storeAndForwardConfiguration": {"timeToLiveSecs": seconds},
    })
}

pub(crate) async fn listen(address: SocketAddr) -> Listener {
    Listener::bind(address, ListenerOptions::default()).await.unwrap()
}
