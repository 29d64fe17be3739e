//! Message routing, with web servers of the test's own as endpoints: what its tests are written in.

mod changes;
mod delivery;
mod rules;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holm_model::{Message, SystemProperty};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{Client, TestHub};

const ROUTING: &str = "/holm/v1/routing";
/// How long a test waits for a state; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// No test sends more requests before it looks.
const REQUESTS: usize = 1024;

/// A request as the web server got it, after it was answered with success.
struct Taken {
    headers: HeaderMap,
    body: Bytes,
}

/// A web server that takes messages, or not.
struct Receiver {
    url: String,
    taken: mpsc::Receiver<Taken>,
    messages: VecDeque<Value>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Answers everything so; otherwise with success.
    status: Option<u16>,
    /// A request with this text in it is answered with 400.
    poison: Option<&'static str>,
    refused: usize,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let (sender, taken) = mpsc::channel(REQUESTS);
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, sender) = (Arc::clone(&shared), sender.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (shared, sender) = (Arc::clone(&shared), sender.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let status = shared.lock().unwrap().answer(&body);
                        if status == 200 {
                            drop(sender.try_send(Taken {
                                headers: head.headers,
                                body,
                            }));
                        }
                        let answer = Response::builder()
                            .status(status)
                            .body(Full::new(Bytes::from("so it is")));
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                    drop(connection.await);
                });
            }
        });
        Self {
            url,
            taken,
            messages: VecDeque::new(),
            state,
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    async fn request(&mut self) -> Taken {
        let taken = tokio::time::timeout(PATIENCE, self.taken.recv()).await;
        taken.expect("no request came").unwrap()
    }

    /// The next message of a batch.
    async fn message(&mut self) -> Value {
        while self.messages.is_empty() {
            let batch: Vec<Value> = serde_json::from_slice(&self.request().await.body).unwrap();
            self.messages.extend(batch);
        }
        self.messages.pop_front().unwrap()
    }

    /// The bodies of the next messages.
    async fn bodies(&mut self, count: usize) -> Vec<Value> {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            bodies.push(self.message().await["Body"].clone());
        }
        bodies
    }

    fn has_nothing(&mut self) -> bool {
        self.messages.is_empty() && self.taken.try_recv().is_err()
    }
}

impl State {
    fn answer(&mut self, body: &Bytes) -> u16 {
        let is_poisoned = |poison: &str| String::from_utf8_lossy(body).contains(poison);
        let status = match (self.status, self.poison) {
            (Some(status), _) => status,
            (None, Some(poison)) if is_poisoned(poison) => 400,
            (None, _) => 200,
        };
        self.refused += usize::from(status != 200);
        status
    }
}

impl TestHub {
    async fn endpoint(&self, name: &str, receiver: &Receiver, more: Value) {
        let mut document = json!({ "kind": "webhook", "url": receiver.url });
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.put(&format!("{ROUTING}/endpoints/{name}"), document).await.ok();
    }

    async fn route(&self, name: &str, condition: &str, endpoint: &str) {
        let document = json!({ "condition": condition, "endpoint": endpoint });
        self.put(&format!("{ROUTING}/routes/{name}"), document).await.ok();
    }

    async fn fallback(&self, enabled: bool) {
        self.put(&format!("{ROUTING}/fallback"), json!({ "enabled": enabled }))
            .await
            .ok();
    }

    async fn health(&self, endpoint: &str) -> Value {
        self.get(&format!("{ROUTING}/endpoints/{endpoint}")).await.ok()["health"].clone()
    }

    /// Waits until what is told of an endpoint is so.
    async fn until(&self, endpoint: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let health = self.health(endpoint).await;
                if is_so(&health) {
                    return health;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(health) => health,
            Err(_) => panic!("it stays {}", self.health(endpoint).await),
        }
    }

    /// The bodies of what devices sent, as readers of `events` see it.
    async fn events(&self) -> Vec<Value> {
        let reply = self.get("/holm/v1/events?source=Telemetry").await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone())
            .collect()
    }
}

impl Client<'_> {
    async fn send(&self, body: Value, level: &str) {
        let mut message = Message::new(body.to_string());
        message.system.set(SystemProperty::ContentType, "application/json");
        message.system.set(SystemProperty::ContentEncoding, "utf-8");
        message.properties.set("level", Some(level.to_owned()));
        self.publish(message).await.unwrap();
    }
}
