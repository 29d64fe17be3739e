//! A client of AMQP 1.0 that says what a test tells it to: rhea, in a program of its own (`tests/node/amqp_client.js`).
//!
//! ```text
//! let mut client = Amqp::start(&hub);
//! client.log_in("a", &hub, &device);                         a connection `a`, no SASL, a token on `$cbs`
//! client.attach("a", "events", "sender", &address, …)        a link `events`; its name is the test's
//! client.send("events", json!({"body": "…"}))                the outcome
//! client.message("mail")                                     what came on a link, with the types of AMQP
//! ```
//!
//! Connections, sessions and links go by names that the test gives, each unique in one client. A value with a type of AMQP is
//! `{"ulong": 0}`, `{"uuid": "…"}` and so on; a plain text is a string.

use std::ops::{Deref, DerefMut};

use serde_json::{Value, json};

use crate::control::Failure;
use crate::edge::Edge;
use crate::hub::{AMQP_PORT, Device, HTTPS_PORT, Hub};
use crate::sas::Token;
use crate::sdk::{Running, Sdk};

/// The path of AMQP in WebSocket, as the Node and Python SDKs ask for it.
const WEBSOCKET_PATH: &str = "/$iothub/websocket?iothub-no-client-cert=true";

/// The program, and where its connections go.
#[derive(Debug)]
pub struct Amqp {
    running: Running,
    place: Value,
}

impl Deref for Amqp {
    type Target = Running;
    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Amqp {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

impl Amqp {
    /// Starts a client of a hub.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start(hub: &Hub) -> Self {
        Self {
            running: Sdk::amqp_client(hub).start(),
            place: json!({"host": hub.host(), "port": AMQP_PORT, "ca": hub.ca()}),
        }
    }

    /// Its connections go to an edge from now on.
    #[must_use]
    #[track_caller]
    pub fn through(mut self, edge: &Edge) -> Self {
        self.place = json!({"host": edge.ip().to_string(), "port": AMQP_PORT, "ca": edge.ca()});
        self
    }

    /// Its connections go by WebSocket from now on.
    #[must_use]
    pub fn in_websocket(mut self) -> Self {
        self.place["port"] = HTTPS_PORT.into();
        self.place["path"] = WEBSOCKET_PATH.into();
        self
    }

    /// Opens a connection; `more` says how: `mechanism`, `user`, `password`, `certificate`, `key`, `idle`.
    ///
    /// # Errors
    /// When it is refused.
    #[track_caller]
    pub fn try_open(&mut self, connection: &str, more: &Value) -> Result<Value, Failure> {
        let command = merged(&[&self.place, &json!({"connection": connection}), more]);
        self.running.try_call("open", command)
    }

    /// Opens a connection without SASL.
    #[track_caller]
    pub fn open(&mut self, connection: &str) -> Value {
        self.try_open(connection, &json!({}))
            .unwrap_or_else(|failure| panic!("`{connection}` was not opened: {failure:?}"))
    }

    /// Sends a token to `$cbs`; what was answered: `status`, `description`, `correlation_id`.
    #[track_caller]
    pub fn put_token(&mut self, connection: &str, token: &str) -> Value {
        let command = json!({"connection": connection, "token": token, "message_id": "put"});
        self.running.call("put_token", command)
    }

    /// Proves an identity on a connection, which must succeed.
    #[track_caller]
    pub fn prove(&mut self, connection: &str, hub: &Hub, device: &Device) {
        let answer = self.put_token(connection, &token(hub, device, 3600));
        assert_eq!(answer["status"], json!({"int": 200}), "{answer}");
    }

    /// Opens a connection and proves an identity on it.
    #[track_caller]
    pub fn log_in(&mut self, connection: &str, hub: &Hub, device: &Device) {
        self.open(connection);
        self.prove(connection, hub, device);
    }

    /// Attaches a link; `more` says how: `session`, `snd`, `rcv`, `credit`, `properties`, `name`. What was answered.
    ///
    /// # Errors
    /// The condition and the description when it is refused.
    #[track_caller]
    pub fn try_attach(
        &mut self,
        connection: &str,
        link: &str,
        role: &str,
        address: &str,
        more: &Value,
    ) -> Result<Value, Failure> {
        let link = json!({"connection": connection, "link": link, "role": role, "address": address});
        self.running.try_call("attach", merged(&[&link, more]))
    }

    /// A sending link that must be taken.
    #[track_caller]
    pub fn sender(&mut self, connection: &str, link: &str, address: &str) -> Value {
        self.try_attach(connection, link, "sender", address, &json!({}))
            .unwrap_or_else(|failure| panic!("`{link}` to `{address}` was refused: {failure:?}"))
    }

    /// A receiving link that must be taken, with credit.
    #[track_caller]
    pub fn receiver(&mut self, connection: &str, link: &str, address: &str, credit: u32) -> Value {
        self.try_attach(connection, link, "receiver", address, &json!({"credit": credit}))
            .unwrap_or_else(|failure| panic!("`{link}` to `{address}` was refused: {failure:?}"))
    }

    /// Gives any command that must succeed, and forgets the answer.
    #[track_caller]
    pub fn run(&mut self, action: &str, arguments: Value) {
        self.running.call(action, arguments);
    }

    /// Sends a message; its outcome.
    ///
    /// # Errors
    /// The condition with which the link was detached instead.
    #[track_caller]
    pub fn try_send(&mut self, link: &str, message: &Value) -> Result<Value, Failure> {
        self.running
            .try_call("send", merged(&[&json!({"link": link}), message]))
    }

    /// Sends a message that must be accepted.
    #[track_caller]
    pub fn send(&mut self, link: &str, message: &Value) {
        let outcome = self.try_send(link, message);
        let outcome = outcome.unwrap_or_else(|failure| panic!("`{link}` was detached: {failure:?}"));
        assert_eq!(outcome["outcome"], "accepted", "{outcome}");
    }

    /// The next message on a link.
    #[track_caller]
    pub fn message(&mut self, link: &str) -> Value {
        self.running.event("message", |event| event["link"] == link)
    }

    /// Waits until a link is detached; with what was told.
    #[track_caller]
    pub fn detached(&mut self, link: &str) -> Value {
        self.running.event("detached", |event| event["link"] == link)
    }

    /// Says what became of a message.
    #[track_caller]
    pub fn settle(&mut self, message: &Value, outcome: &str) {
        let command = json!({"delivery": message["delivery"], "outcome": outcome});
        self.running.call("settle", command);
    }

    /// Asks on a sending link of a twin, and waits for the answer on the receiving one.
    #[track_caller]
    pub fn ask_twin(&mut self, links: [&str; 2], id: &Value, annotations: &Value, body: &str) -> Value {
        let request =
            json!({"properties": {"correlation_id": id}, "annotations": annotations, "body": body, "settled": true});
        self.running
            .call("send", merged(&[&json!({"link": links[0]}), &request]));
        let fits = |event: &Value| event["link"] == links[1] && event["properties"]["correlation_id"] == *id;
        self.running.event("message", fits)
    }
}

/// The address of a link of an identity.
#[must_use]
pub fn address(device: &Device, rest: &str) -> String {
    let module = device.module.as_ref();
    let module = module.map_or_else(String::new, |module| format!("/modules/{module}"));
    format!("/devices/{}{module}/{rest}", device.id)
}

/// A token of an identity, by its primary key.
#[must_use]
pub fn token(hub: &Hub, device: &Device, seconds: i64) -> String {
    Token::sign(&device.primary_key, &hub.resource(device), seconds).text()
}

fn merged(parts: &[&Value]) -> Value {
    let members = parts.iter().filter_map(|part| part.as_object()).flatten();
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}
