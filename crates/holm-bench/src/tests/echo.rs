//! A broker of a few lines: whatever is published goes to every client that subscribed to anything, after it is acknowledged.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holm_mqtt::{Config, Event, Granted, Message, Outcome, Qos, Refusal, Session};
use holm_net::{Connection, Scope};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What goes wrong; messages are counted from 0 over all publishers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// This message is acknowledged and not delivered.
    pub(super) swallow: Option<u64>,
    /// This message is neither acknowledged nor delivered.
    pub(super) ignore: Option<u64>,
    /// This message is delivered twice.
    pub(super) repeat: Option<u64>,
    /// At this message the whole broker does nothing for a while.
    pub(super) stall: Option<(u64, Duration)>,
    /// Nobody is let in.
    pub(super) refuse: bool,
}

/// A broker that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Echo {
    address: SocketAddr,
    scope: Scope,
}

/// What the connections share.
#[derive(Debug)]
struct Shared {
    faults: Faults,
    arrived: Mutex<u64>,
    subscribers: Mutex<Vec<mpsc::Sender<Message>>>,
    /// Held while a message is handled, so that a stall stalls everyone.
    turn: tokio::sync::Mutex<()>,
}

impl Echo {
    pub(super) async fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let scope = Scope::new();
        let shared = Arc::new(Shared {
            faults,
            arrived: Mutex::new(0),
            subscribers: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let clients = scope.clone();
        scope.spawn_until_stopped(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                clients.spawn_until_stopped(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, scope }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let config = Config {
        outbound_window: 8192,
        ..Config::default()
    };
    let mut connection = Connection::new(Session::server(Instant::now(), config), stream);
    let (sender, mut inbox) = mpsc::channel::<Message>(1024);
    loop {
        let may_send = connection.session().can_publish();
        tokio::select! {
            event = connection.next_event() => {
                if handle(connection.session_mut(), &shared, &sender, event).await {
                    break;
                }
            }
            message = inbox.recv(), if may_send => {
                connection.session_mut().publish(Instant::now(), &message.unwrap()).unwrap();
            }
        }
    }
    connection.finish().await;
}

/// True when the connection has ended.
async fn handle(session: &mut Session, shared: &Shared, own: &mpsc::Sender<Message>, event: Event) -> bool {
    match event {
        Event::Connect(_) if shared.faults.refuse => assert!(session.refuse(Refusal::NotAuthorized)),
        Event::Connect(_) => assert!(session.accept(Instant::now(), false)),
        Event::Subscribe { request, filters } => {
            shared.subscribers.lock().unwrap().push(own.clone());
            session
                .suback(request, &vec![Granted::Qos(Qos::AtLeastOnce); filters.len()])
                .unwrap();
        }
        Event::Publish { message, delivery } => {
            let _turn = shared.turn.lock().await;
            let number = {
                let mut arrived = shared.arrived.lock().unwrap();
                *arrived += 1;
                *arrived - 1
            };
            let faults = shared.faults;
            if let Some((at, stall)) = faults.stall.filter(|(at, _)| *at == number) {
                tokio::time::sleep(stall).await;
                assert_eq!(at, number);
            }
            if faults.ignore == Some(number) {
                return false;
            }
            let copies = match number {
                _ if faults.swallow == Some(number) => 0,
                _ if faults.repeat == Some(number) => 2,
                _ => 1,
            };
            assert!(session.acknowledge(delivery.unwrap(), Outcome::Accept));
            let subscribers = shared.subscribers.lock().unwrap().clone();
            for subscriber in subscribers.iter().flat_map(|it| std::iter::repeat_n(it, copies)) {
                subscriber.send(message.clone()).await.unwrap();
            }
        }
        Event::Closed(_) => return true,
        _ => {}
    }
    false
}
