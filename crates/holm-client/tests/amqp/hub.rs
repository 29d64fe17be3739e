//! A small hub on the server role of holm-amqp, over TLS on loopback: it does what a test tells it, and notes what it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use holm_amqp::message::Properties;
use holm_amqp::performative::{Attach, Role};
use holm_amqp::{
    Acceptance, Allowance, AmqpError, Body, Config, Connection, Event, Fields, Limits, LinkId, Message, MessageId,
    Outbound, Outcome, SaslCode, Symbol, Text, Value,
};
use holm_client::credential::KeyTokens;
use holm_client::{Client, Connections, Credential, Endpoint, Events, Interests, Options, Transport};
use holm_identity::tls::{ReloadableCertificate, Roots, client_config, server_config};
use holm_identity::{CertificateAuthority, ProofOfKeyVerifier, SymmetricKey};
use holm_model::{Identity, Timestamp};
use holm_net::{Scope, tls};
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that a client may have on their way.
pub(crate) const WINDOW: usize = 4;

/// What a test may ask of one connection before it has done any of it.
const MOST_ACTS: usize = 1024;

type Act = Box<dyn FnOnce(&mut Served) + Send>;

/// What the hub was told, and how it behaves.
#[derive(Default)]
pub(crate) struct Notes {
    /// Connections that were opened.
    pub(crate) connections: usize,
    /// Tokens that came, by `name`.
    pub(crate) tokens: Vec<String>,
    /// Links that were attached: address, whether the client sends, and its properties.
    pub(crate) attached: Vec<(String, bool, Fields)>,
    /// Bodies of telemetry, by address.
    pub(crate) events: Vec<(String, String)>,
    /// Answers of methods: status and body.
    pub(crate) answers: Vec<(i64, String)>,
    /// What became of messages to clients.
    pub(crate) outcomes: Vec<Option<Outcome>>,
    /// Addresses of links that a client detached.
    pub(crate) detached: Vec<String>,
    /// Sessions that a client ended.
    pub(crate) ended: usize,
    /// Addresses whose token is refused.
    pub(crate) refused: Vec<String>,
    /// Whether telemetry gets an outcome.
    pub(crate) holds: bool,
    /// The next outcome of telemetry, once.
    pub(crate) once: Option<Outcome>,
    /// The most sessions of a connection.
    pub(crate) sessions: Option<u16>,
    /// What a connection allows before a token of it was taken.
    pub(crate) strangers: Option<Allowance>,
}

/// The hub.
pub(crate) struct Hub {
    notes: Arc<Mutex<Notes>>,
    acts: Arc<Mutex<Vec<mpsc::Sender<Act>>>>,
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    pub(crate) scope: Scope,
    pub(crate) shared: Connections,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let now = Timestamp::from(SystemTime::now());
        let authority = CertificateAuthority::create("test", 1, now).unwrap();
        let identity = authority.issue_server(&["127.0.0.1"], 1, now).unwrap();
        let certificate = Arc::new(ReloadableCertificate::new(&identity).unwrap());
        let server = Arc::new(server_config(certificate, Arc::new(ProofOfKeyVerifier)).unwrap());
        let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let scope = Scope::new();
        let hub = Self {
            notes: Arc::default(),
            acts: Arc::default(),
            endpoint,
            tls: Arc::new(client_config(roots, None).unwrap()),
            shared: Connections::new(scope.clone()),
            scope,
        };
        let listening = listen(
            listener,
            server,
            Arc::clone(&hub.notes),
            Arc::clone(&hub.acts),
            hub.scope.clone(),
        );
        hub.scope.spawn_until_stopped(listening);
        hub
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// Waits until the notes are so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Notes) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(&self.notes()) {
            assert!(
                Instant::now() < deadline,
                "{what} did not come: {:?}",
                self.notes().events
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Does something on the newest connection.
    pub(crate) fn act(&self, act: impl FnOnce(&mut Served) + Send + 'static) {
        let told = self.acts.lock().unwrap().last().unwrap().try_send(Box::new(act));
        assert!(told.is_ok(), "the connection is there, and has little to do");
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.acts.lock().unwrap().clear();
    }

    pub(crate) fn options(&self, identity: &str, interests: Interests) -> Options {
        let identity: Identity = identity.parse().unwrap();
        let tokens = KeyTokens::new(SymmetricKey::from_bytes([7; 32]).unwrap(), "hub.test", &identity);
        let credential = Credential::Tokens(Arc::new(tokens));
        let mut options = Options::new(identity, "hub.test", credential, Arc::clone(&self.tls));
        options.endpoint = self.endpoint.clone();
        options.transport = Transport::Amqp;
        options.interests = interests;
        options.window = WINDOW;
        options.longest_retry_wait = Duration::from_millis(200);
        options.connections = Some(self.shared.clone());
        options
    }

    pub(crate) fn client(&self, identity: &str, interests: Interests) -> (Client, Events) {
        Client::start(&self.scope, self.options(identity, interests))
    }
}

async fn listen(
    listener: TcpListener,
    server: Arc<ServerConfig>,
    notes: Arc<Mutex<Notes>>,
    acts: Arc<Mutex<Vec<mpsc::Sender<Act>>>>,
    scope: Scope,
) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let (server, notes, acts) = (Arc::clone(&server), Arc::clone(&notes), Arc::clone(&acts));
        scope.spawn_until_stopped(async move {
            let Ok(stream) = tls::accept(server, stream, peer).await else {
                return;
            };
            let (act, acted) = mpsc::channel(MOST_ACTS);
            acts.lock().unwrap().push(act);
            let mut config = Config::default();
            {
                let mut notes = notes.lock().unwrap();
                notes.connections += 1;
                if let Some(most) = notes.sessions {
                    config.channel_max = most - 1;
                }
                if let Some(allowance) = notes.strangers {
                    config.allowance = allowance;
                }
            }
            let session = Connection::server(Instant::now(), Arc::new(config));
            let served = Served {
                connection: session,
                links: HashMap::new(),
                tag: 0,
                notes,
            };
            serve(served, stream, acted).await;
        });
    }
}

async fn serve<S>(served: Served, stream: S, mut acts: mpsc::Receiver<Act>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut connection = holm_net::Connection::new(served, stream);
    loop {
        tokio::select! {
            event = connection.next_event() => {
                if matches!(event, Event::Closed(_)) {
                    return connection.finish().await;
                }
                connection.session_mut().handle(event);
            }
            act = acts.recv() => match act {
                Some(act) => act(connection.session_mut()),
                // The line is cut.
                None => return,
            },
        }
    }
}

/// A connection as the hub sees it.
pub(crate) struct Served {
    pub(crate) connection: Connection,
    /// By address and whether the client sends.
    links: HashMap<(String, bool), LinkId>,
    tag: u64,
    notes: Arc<Mutex<Notes>>,
}

impl Served {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Authenticate { .. } => {
                self.connection.authenticate(Instant::now(), SaslCode::Ok);
            }
            Event::Attach { link, attach } => self.attach(link, &attach),
            Event::Delivery(delivery) => {
                let message = Message::decode(&delivery.payload, Limits::default()).unwrap();
                let address = self.links.iter().find(|(_, link)| **link == delivery.link);
                let address = address.map(|((address, _), _)| address.clone()).unwrap();
                let mut outcome = Some(Outcome::Accepted);
                if address == "$cbs" {
                    self.put_token(&message);
                } else if address.ends_with("/twin") {
                    self.twin(&address, &message);
                } else if address.ends_with("/methods/devicebound") {
                    let status = message
                        .application_properties
                        .get("IoThub-status")
                        .and_then(Value::as_i64);
                    self.notes
                        .lock()
                        .unwrap()
                        .answers
                        .push((status.unwrap(), text(&message)));
                } else {
                    let mut notes = self.notes.lock().unwrap();
                    notes.events.push((address, text(&message)));
                    outcome = if notes.holds {
                        None
                    } else {
                        notes.once.take().or(outcome)
                    };
                }
                if let (Some(id), Some(outcome)) = (delivery.id, outcome) {
                    self.connection.settle(id, outcome);
                }
            }
            Event::Settled { outcome, .. } => self.notes.lock().unwrap().outcomes.push(outcome),
            Event::Ended { .. } => self.notes.lock().unwrap().ended += 1,
            Event::Detached { link, .. } => {
                let gone = self.links.extract_if(|_, known| *known == link);
                let gone = gone.map(|((address, _), _)| address);
                self.notes.lock().unwrap().detached.extend(gone);
            }
            _ => {}
        }
    }

    fn attach(&mut self, link: LinkId, attach: &Attach) {
        let client_sends = attach.role == Role::Sender;
        let address = if client_sends {
            attach.target.as_ref().and_then(|target| target.address.clone())
        } else {
            attach.source.as_ref().and_then(|source| source.address.clone())
        };
        let address = address.unwrap().to_string();
        self.notes
            .lock()
            .unwrap()
            .attached
            .push((address.clone(), client_sends, attach.properties.clone()));
        self.links.insert((address, client_sends), link);
        assert!(self.connection.accept_link(link, Acceptance::of(attach)));
    }

    fn put_token(&mut self, request: &Message) {
        let name = request
            .application_properties
            .get("name")
            .and_then(Value::as_str)
            .unwrap()
            .to_owned();
        assert!(matches!(request.body, Body::Value(Value::String(_))));
        let is_refused = {
            let mut notes = self.notes.lock().unwrap();
            notes.tokens.push(name.clone());
            notes.refused.contains(&name)
        };
        let mut answer = Message::of_value(Value::Null);
        answer.properties = Some(Box::new(Properties {
            correlation_id: request.properties.as_ref().unwrap().message_id.clone(),
            ..Properties::default()
        }));
        let status = if is_refused { 401 } else { 200 };
        if !is_refused {
            self.connection.set_allowance(Allowance::default());
        }
        answer
            .application_properties
            .push(Text::from_static("status-code"), status);
        answer
            .application_properties
            .push(Text::from_static("status-description"), "said");
        self.send("$cbs", &answer);
    }

    fn twin(&mut self, address: &str, request: &Message) {
        let said = |name: &str| request.message_annotations.get(name).and_then(Value::as_str);
        let (status, body) = match said("operation").unwrap() {
            "GET" => (200, r#"{"desired":{"$version":1},"reported":{"$version":1}}"#),
            "PATCH" => (204, ""),
            _ => (200, ""),
        };
        let mut answer = Message::of_data(body);
        answer.message_annotations.push(Symbol::from_static("status"), status);
        answer.message_annotations.push(Symbol::from_static("version"), 7_i64);
        answer.properties = Some(Box::new(Properties {
            correlation_id: request.properties.as_ref().unwrap().correlation_id.clone(),
            ..Properties::default()
        }));
        self.send(address, &answer);
    }

    /// Sends a message on the link that a client receives on.
    pub(crate) fn send(&mut self, address: &str, message: &Message) {
        let link = self.links[&(address.to_owned(), false)];
        self.tag += 1;
        let delivery = Outbound {
            tag: self.tag.into(),
            format: 0,
            payload: message.to_bytes(),
            settled: !address.ends_with("devicebound"),
        };
        self.connection.send_later(link, &delivery).unwrap();
    }

    /// Ends the session of a link.
    pub(crate) fn end_session(&mut self, address: &str, error: AmqpError) {
        let link = self.links[&(address.to_owned(), true)];
        assert!(self.connection.end(link.session(), Some(error)));
    }
}

impl holm_net::Protocol for Served {
    type Event = Event;

    fn input_buffer(&mut self) -> &mut bytes::BytesMut {
        self.connection.input_buffer()
    }
    fn handle_input(&mut self, now: Instant) {
        self.connection.handle_input(now);
    }
    fn handle_end(&mut self) {
        self.connection.handle_end();
    }
    fn wants_input(&self) -> bool {
        self.connection.wants_input()
    }
    fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }
    fn poll_transmit(&mut self, out: &mut bytes::BytesMut) {
        self.connection.poll_transmit(out);
    }
    fn poll_event(&mut self, wanted: &impl Fn(&Event) -> bool) -> Option<Event> {
        self.connection.poll_event_where(wanted)
    }
}

fn text(message: &Message) -> String {
    String::from_utf8(message.body.data().unwrap_or_default().to_vec()).unwrap()
}

/// A call of a method.
pub(crate) fn call(name: &str, id: MessageId) -> Message {
    let mut message = Message::of_data("{\"a\":1}");
    message
        .application_properties
        .push(Text::from_static("IoThub-methodname"), name);
    message.properties = Some(Box::new(Properties {
        correlation_id: Some(id),
        ..Properties::default()
    }));
    message
}
