//! A broker on our engine: what is sent to `echo` comes back from it, decoded and encoded again.

use std::collections::{BTreeMap, VecDeque};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_amqp::{
    Acceptance, AmqpError, Closed, Config, Connection, Credentials, Event, Limits, LinkId, Message, Outbound, Outcome,
    Role, SaslCode, condition,
};

use crate::client::password;
use crate::driver::Driver;

/// A broker on a port of its own.
pub(crate) struct Broker {
    port: u16,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Broker {
    pub(crate) fn start(max_frame_size: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = std::thread::spawn(move || accept_all(&listener, max_frame_size, &told));
        Self { port, ends, thread }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Ends the broker: what clients did wrong, as far as they were not told to.
    pub(crate) fn stop(self) -> Vec<String> {
        self.ends.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.join().unwrap()
    }
}

fn accept_all(listener: &TcpListener, max_frame_size: u32, ends: &AtomicBool) -> Vec<String> {
    let config = Arc::new(Config {
        max_frame_size,
        // So that a client that beats too seldom is noticed.
        idle_timeout: Duration::from_secs(2),
        ..Config::default()
    });
    let mut serving = Vec::new();
    loop {
        let socket = listener.accept().unwrap().0;
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let connection = Connection::server(Instant::now(), Arc::clone(&config));
        serving.push(std::thread::spawn(move || {
            Session {
                driver: Driver::new(connection, socket),
                nodes: BTreeMap::new(),
                echo: None,
                waiting: VecDeque::new(),
                sent: 0,
            }
            .serve()
        }));
    }
    serving
        .into_iter()
        .filter_map(|thread| thread.join().unwrap())
        .collect()
}

/// One client.
struct Session {
    driver: Driver,
    /// The node of each link.
    nodes: BTreeMap<LinkId, String>,
    /// Where echoes go.
    echo: Option<LinkId>,
    waiting: VecDeque<(LinkId, Bytes)>,
    sent: u64,
}

impl Session {
    /// Serves it to its end: why that was, if not in order.
    fn serve(mut self) -> Option<String> {
        loop {
            while let Some(event) = self.driver.connection.poll_event() {
                if let Event::Closed(reason) = event {
                    self.driver.turn();
                    let in_order = matches!(reason, Closed::ByPeer(None) | Closed::Lost | Closed::Refused(_));
                    return (!in_order).then(|| reason.to_string());
                }
                self.handle(event);
            }
            self.pump();
            self.driver.turn();
        }
    }

    fn handle(&mut self, event: Event) {
        let connection = &mut self.driver.connection;
        match event {
            Event::Authenticate { credentials, .. } => {
                let code = match credentials {
                    Credentials::Plain { .. } if credentials != password() => SaslCode::Auth,
                    _ => SaslCode::Ok,
                };
                assert!(connection.authenticate(Instant::now(), code), "it waits");
            }
            Event::Attach { link, attach } => {
                let address = match attach.role {
                    Role::Sender => attach.target.as_ref().and_then(|target| target.address.clone()),
                    Role::Receiver => attach.source.as_ref().and_then(|source| source.address.clone()),
                };
                let node = address.map(|address| address.to_string()).unwrap_or_default();
                if node == "refused" {
                    connection.refuse_link(link, AmqpError::new(condition::NOT_FOUND, "no node `refused`"));
                    return;
                }
                let acceptance = Acceptance {
                    window: 10,
                    ..Acceptance::of(&attach)
                };
                assert!(connection.accept_link(link, acceptance), "it waits");
                if node == "three" && attach.role == Role::Receiver {
                    let numbers = (0..3i64).map(|number| (link, Message::of_value(number).to_bytes()));
                    self.waiting.extend(numbers);
                }
                if node == "echo" && attach.role == Role::Receiver {
                    self.echo = Some(link);
                }
                self.nodes.insert(link, node);
            }
            Event::Delivery(delivery) => {
                let node = self.nodes.get(&delivery.link).map(String::as_str);
                let outcome = match node {
                    Some("rejected") => Outcome::Rejected(Some(Box::new(AmqpError::new("test:rejected", "as asked")))),
                    Some("released") => Outcome::Released,
                    Some("modified") => Outcome::Modified(Box::default()),
                    _ => Outcome::Accepted,
                };
                if let (Some("echo"), Some(link)) = (node, self.echo) {
                    let message = Message::decode(&delivery.payload, Limits::default()).unwrap();
                    self.waiting.push_back((link, message.to_bytes()));
                }
                if let Some(id) = delivery.id {
                    assert!(connection.settle(id, outcome), "it waits");
                }
            }
            _ => {}
        }
    }

    /// Sends what waits, and gives credit back that is wanted back.
    fn pump(&mut self) {
        while let Some((link, payload)) = self.waiting.front() {
            self.sent += 1;
            let delivery = Outbound {
                tag: self.sent.into(),
                format: 0,
                payload: payload.clone(),
                settled: false,
            };
            if self.driver.connection.send(*link, &delivery).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
        for link in self.nodes.keys() {
            self.driver.connection.give_credit_back(*link);
        }
    }
}
