//! The real hub, in memory's network: started, ended and asked by the simulation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use holm_gateway::{CloseReason, Gateway, Profile};
use holm_hub::events::{From, TELEMETRY};
use holm_hub::{Clock, HubBackend, HubConfig, RestApi};
use holm_identity::tls::server_config;
use holm_identity::{ProofOfKeyVerifier, SasToken, SymmetricKey};
use holm_model::{Message, SystemProperty, Timestamp};
use holm_net::http::serve_connection;
use holm_net::{Peer, Scope, tls};
use http_body_util::BodyExt as _;
use hyper::{Method, Request};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::DuplexStream;

use crate::network::Network;
use crate::time::WallClock;

/// Its name.
pub const HOST: &str = "hub.sim";
/// Partitions of its event log.
const PARTITIONS: u16 = 2;

/// A hub and its machine.
#[derive(Debug)]
pub struct Hub {
    data: PathBuf,
    clock: WallClock,
    network: Network,
    running: Option<Running>,
    /// The next event to be read, by partition.
    next: [u64; PARTITIONS as usize],
}

#[derive(Debug)]
struct Running {
    hub: holm_hub::Hub,
    gateway: Gateway<HubBackend>,
    scope: Scope,
}

/// Serves what comes in over the network. Clones are the same.
#[derive(Clone)]
struct Doors {
    gateway: Gateway<HubBackend>,
    rest: Arc<RestApi>,
    tls: Arc<ServerConfig>,
    scope: Scope,
}

impl Doors {
    async fn mqtt(self, stream: DuplexStream) {
        if let Ok(stream) = tls::accept(self.tls, stream, "a client").await {
            self.gateway.serve_mqtt_stream(stream, Peer::default()).await;
        }
    }

    async fn amqp(self, stream: DuplexStream) {
        if let Ok(stream) = tls::accept(self.tls, stream, "a client").await {
            self.gateway.serve_amqp_stream(stream, Peer::default()).await;
        }
    }

    async fn https(self, stream: DuplexStream) {
        if let Ok(stream) = tls::accept(self.tls, stream, "a client").await {
            serve_connection(self.scope, stream, Peer::default(), self.rest).await;
        }
    }
}

impl Hub {
    /// A hub in an empty directory, running.
    pub async fn start(data: &Path, clock: &WallClock, network: &Network) -> Self {
        let mut hub = Self {
            data: data.to_owned(),
            clock: clock.of_another(),
            network: network.clone(),
            running: None,
            next: [0; PARTITIONS as usize],
        };
        hub.open().await;
        hub
    }

    /// Whether it runs.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it on what its directory holds.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn open(&mut self) {
        let told = self.clock.clone();
        let clock = Clock::new(move || Timestamp::from_unix_millis(told.millis()));
        let config = HubConfig {
            partitions: PARTITIONS,
            ..HubConfig::new(&self.data, HOST)
        };
        let hub = holm_hub::Hub::open_with_clock(config, clock)
            .await
            .expect("the hub starts");
        let scope = Scope::new();
        let mut config =
            server_config(hub.certificate().clone(), Arc::new(ProofOfKeyVerifier)).expect("TLS can be set up");
        config.time_provider = Arc::new(self.clock.clock());
        let gateway = Gateway::new(
            Arc::new(hub.backend().clone()),
            hub.signals().directory().clone(),
            Profile::hub(),
            scope.clone(),
        );
        let gateway = gateway.with_clock(self.clock.clock());
        let doors = Doors {
            gateway: gateway.clone(),
            rest: Arc::new(hub.rest_handler().clone()),
            tls: Arc::new(config),
            scope: scope.clone(),
        };
        let (mqtt, amqp, https) = (doors.clone(), doors.clone(), doors);
        let (of_mqtt, of_amqp, of_https) = (scope.clone(), scope.clone(), scope.clone());
        self.network.listen(HOST, 8883, move |stream| {
            of_mqtt.spawn_until_stopped(mqtt.clone().mqtt(stream));
        });
        self.network.listen(HOST, 5671, move |stream| {
            of_amqp.spawn_until_stopped(amqp.clone().amqp(stream));
        });
        self.network.listen(HOST, 443, move |stream| {
            of_https.spawn_until_stopped(https.clone().https(stream));
        });
        self.running = Some(Running { hub, gateway, scope });
    }

    /// Ends it: its connections break without a word first.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(&mut self) {
        self.network.take_off(HOST);
        let Some(Running { hub, gateway, scope }) = self.running.take() else {
            return;
        };
        gateway.close_all(CloseReason::ShuttingDown);
        scope
            .drain(std::time::Duration::from_secs(30))
            .await
            .expect("its sessions end");
        drop(gateway);
        hub.end_streams();
        hub.close().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the hub runs when it is asked")
    }

    /// The file of its certificate authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    /// Asks its service API as its owner, without the network. Gives the answer's body.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_call(method.clone(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// [`Hub::call`] that gives the status.
    ///
    /// # Panics
    /// When its answer is no JSON.
    pub async fn try_call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let hub = &self.running().hub;
        let policies = hub.policies().await.expect("the hub's policies can be read");
        let owner = policies.into_iter().find(|policy| policy.name == "iothubowner");
        let key = owner.expect("every hub has an owner").primary;
        let token = SasToken::sign(HOST, self.clock.millis() / 1000 + 3600, Some("iothubowner"), &key);
        let path = if path.starts_with("/holm/") {
            path.to_owned()
        } else {
            format!("{path}?api-version=2021-04-12")
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", token.to_text().expose())
            .body(match body {
                Value::Null => Bytes::new(),
                body => Bytes::from(body.to_string()),
            })
            .expect("the path is a path");
        let answer = hub.rest_handler().answer(request, &Arc::from([])).await;
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.expect("the answer is in memory").to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("no JSON: {bytes:?}: {error}"))
        };
        (head.status.as_u16(), body)
    }

    /// An identity's key, as the registry has it; `None` when there is no such identity.
    ///
    /// # Panics
    /// When the registry holds no key for it.
    pub async fn key(&self, identity: &str) -> Option<SymmetricKey> {
        let path = match identity.split_once('/') {
            None => format!("/devices/{identity}"),
            Some((device, module)) => format!("/devices/{device}/modules/{module}"),
        };
        let (status, document) = self.try_call(Method::GET, &path, &Value::Null).await;
        let key = document["authentication"]["symmetricKey"]["primaryKey"].as_str()?;
        (status == 200).then(|| SymmetricKey::from_base64(key).expect("the registry's keys are base64"))
    }

    /// A twin.
    pub async fn twin(&self, identity: &str) -> Value {
        self.call(Method::GET, &format!("/twins/{}", twin_path(identity)), &Value::Null)
            .await
    }

    /// Changes desired properties, as an operator does.
    pub async fn desire(&self, identity: &str, patch: &Value) {
        let body = serde_json::json!({"properties": {"desired": patch}});
        self.call(Method::PATCH, &format!("/twins/{}", twin_path(identity)), &body)
            .await;
    }

    /// The events that have come since the last call, in the order of their partition, with the time of their arrival.
    ///
    /// # Panics
    /// When the log can't be read.
    pub fn take_events(&mut self) -> Vec<(Message, Timestamp)> {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for (partition, next) in (0..PARTITIONS).zip(&mut self.next) {
            let reader = running.hub.events().reader(partition, From::Sequence(*next));
            let mut reader = reader.expect("the partition is there");
            while let Some(stored) = reader.try_next().expect("the log can be read") {
                assert!(stored.sequence >= *next, "the log goes back");
                *next = stored.sequence + 1;
                let message = Message::decode(stored.payload).expect("the log holds messages");
                // The hub tells of its registry and twins in the same log.
                let source = message.system.get(SystemProperty::MessageSource);
                if source.is_none_or(|source| source == TELEMETRY) {
                    taken.push((message, stored.enqueued));
                }
            }
        }
        taken
    }
}

fn twin_path(identity: &str) -> String {
    identity.replacen('/', "/modules/", 1)
}
