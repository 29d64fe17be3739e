//! The commands of `az iot` that matter most (`hub-service-api.md` §8, the ones with a star), as the requests that they make.
//!
//! ```text
//! az("iot hub device-identity delete --device-id d1", [delete("/devices/d1").if_match("\"*\"").is(204)])
//!                                                       request               headers       what the command wants to read
//! ```
//!
//! The tool itself is in no registry that the tests may use. Paths, headers and bodies are those of its public source (version 0.25):
//! members that are None are left out by its serialiser, so they are here. Each table is a story: its commands are carried out in
//! their order, and what an answer says is kept and sent on as the tool does, `{name}` in a text.
//!
//! Three of the forty speak AMQP and are in `tests/tests/peers/service_messages.rs`. The screens of IoT Explorer are told in the same
//! way.

mod deployments;
mod explorer;
mod identities;
mod provisioning;
mod starred;
mod twins;

use std::collections::BTreeMap;

use holm_gateway::Subscriptions;
use holm_gateway::session::Command as ToDevice;
use holm_model::MethodResponse;
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::support::{Reply, TestHub};

#[tokio::test]
async fn the_requests_of_the_original_command_line_about_identities_are_answered_as_it_reads_them() {
    carry_out(identities::commands()).await;
}

#[tokio::test]
async fn the_requests_of_the_original_command_line_about_twins_are_answered_as_it_reads_them() {
    carry_out(twins::commands()).await;
}

#[tokio::test]
async fn the_requests_of_the_original_command_line_about_deployments_are_answered_as_it_reads_them() {
    carry_out(deployments::commands()).await;
}

#[tokio::test]
async fn the_requests_of_the_original_command_line_about_provisioning_are_answered_as_it_reads_them() {
    carry_out(provisioning::commands()).await;
}

#[tokio::test]
async fn the_requests_of_iot_explorer_are_answered_as_its_screens_read_them() {
    carry_out(explorer::screens()).await;
}

/// A command, and the requests that it makes.
struct Az {
    line: &'static str,
    /// The version that is asked for, where it is not that of the kind of call.
    version: Option<&'static str>,
    calls: Vec<Call>,
}

fn az(line: &'static str, calls: impl Into<Vec<Call>>) -> Az {
    Az {
        line,
        version: None,
        calls: calls.into(),
    }
}

/// A request, and what of its answer the command uses.
struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    /// A document that was kept, under what is sent.
    over: Option<&'static str>,
    body: Option<Value>,
    /// Which identity answers a method meanwhile, and with what.
    answered: Option<(&'static str, i32, Value)>,
    /// Whether twins must have what configurations want before.
    is_settled: bool,
    /// A device that registers before, and its group.
    registers: Option<(&'static str, &'static str)>,
    status: u16,
    reads: Vec<(&'static str, Expected)>,
    keeps: Vec<(&'static str, &'static str)>,
    item_type: Option<&'static str>,
}

enum Expected {
    Is(Value),
    IsThere,
    Counts(usize),
}

fn call(method: Method, path: &str) -> Call {
    Call {
        method,
        path: path.to_owned(),
        headers: Vec::new(),
        over: None,
        body: None,
        answered: None,
        is_settled: false,
        registers: None,
        status: 200,
        reads: Vec::new(),
        keeps: Vec::new(),
        item_type: None,
    }
}

fn get(path: &str) -> Call {
    call(Method::GET, path)
}

fn put(path: &str, body: Value) -> Call {
    call(Method::PUT, path).sends(body)
}

fn patch(path: &str, body: Value) -> Call {
    call(Method::PATCH, path).sends(body)
}

fn post(path: &str, body: Value) -> Call {
    call(Method::POST, path).sends(body)
}

fn delete(path: &str) -> Call {
    call(Method::DELETE, path).is(204)
}

/// A page of a query, as every command that reads many things asks for it.
fn query(path: &str, text: &str) -> Call {
    post(path, json!({ "query": text })).header("cache-control", "no-cache, must-revalidate")
}

impl Call {
    fn sends(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Sends a document that was kept, with the members of the body in the place of its own.
    const fn over(mut self, kept: &'static str) -> Self {
        self.over = Some(kept);
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn if_match(self, etag: &'static str) -> Self {
        self.header("if-match", etag)
    }

    /// `--top`, and what the tool asks for by itself.
    fn at_most(self, count: &'static str) -> Self {
        self.header("x-ms-max-item-count", count)
    }

    fn answered_by(mut self, identity: &'static str, status: i32, payload: Value) -> Self {
        self.answered = Some((identity, status, payload));
        self
    }

    const fn when_registered(mut self, id: &'static str, group: &'static str) -> Self {
        self.registers = Some((id, group));
        self
    }

    const fn when_settled(mut self) -> Self {
        self.is_settled = true;
        self
    }

    const fn is(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The member at a JSON pointer is this.
    fn reads(mut self, pointer: &'static str, expected: impl Into<Value>) -> Self {
        self.reads.push((pointer, Expected::Is(expected.into())));
        self
    }

    /// The member at a JSON pointer is there and not null.
    fn needs(mut self, pointer: &'static str) -> Self {
        self.reads.push((pointer, Expected::IsThere));
        self
    }

    /// The array or object at a JSON pointer has so many members.
    fn counts(mut self, pointer: &'static str, count: usize) -> Self {
        self.reads.push((pointer, Expected::Counts(count)));
        self
    }

    const fn items(mut self, item_type: &'static str) -> Self {
        self.item_type = Some(item_type);
        self
    }

    /// Keeps a member of the answer under a name.
    fn keep(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.keeps.push((name, pointer));
        self
    }
}

type Kept = BTreeMap<&'static str, Value>;

async fn carry_out(commands: Vec<Az>) {
    let hub = TestHub::start().await;
    let mut kept = Kept::new();
    for command in commands {
        for call in command.calls {
            let at = format!("{}: {} {}", command.line, call.method, call.path);
            let reply = send(&hub, &call, command.version, &kept).await;
            check(&at, &call, &reply, &kept);
            for (name, pointer) in call.keeps {
                let value = reply.json().pointer(pointer).cloned();
                kept.insert(name, value.unwrap_or_else(|| panic!("{at}: nothing at `{pointer}`")));
            }
        }
    }
}

async fn send(hub: &TestHub, call: &Call, version: Option<&str>, kept: &Kept) -> Reply {
    if call.is_settled {
        hub.settle().await;
    }
    if let Some((id, group)) = call.registers {
        provisioning::register(hub, id, group).await;
    }
    let path = filled(&call.path, kept);
    let is_provisioning = ["/enroll", "/registrations"].iter().any(|root| path.starts_with(root));
    let (usual, token) = if is_provisioning {
        ("2021-10-01", provisioning::token(hub))
    } else {
        ("2024-03-31", hub.token_of("iothubowner").await)
    };
    let mark = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{mark}api-version={}", version.unwrap_or(usual));
    let texts: Vec<(&str, String)> = call
        .headers
        .iter()
        .map(|(name, value)| (*name, filled(value, kept)))
        .collect();
    let mut headers = vec![
        ("authorization", token.as_str()),
        ("content-type", "application/json; charset=utf-8"),
        ("accept-language", "en-US"),
        ("x-ms-client-request-id", "8f1f7b5e-c75c-11f0-a5e8-0242ac110002"),
        (
            "user-agent",
            "python/3.12 msrest/0.7.1 msrest_azure/0.6.4 iothubserviceclient/ IoTPlatformCliExtension/0.25.0",
        ),
    ];
    headers.extend(texts.iter().map(|(name, value)| (*name, value.as_str())));
    let body = match (&call.body, call.over) {
        (None, None) => String::new(),
        (body, None) => substituted(body.clone().unwrap_or_default(), kept).to_string(),
        (body, Some(name)) => {
            let mut document = kept[name].clone();
            let members = substituted(body.clone().unwrap_or_else(|| json!({})), kept);
            for (member, value) in members.as_object().unwrap() {
                document[member] = value.clone();
            }
            document.to_string()
        }
    };
    let asking = hub.raw(call.method.clone(), &path, &headers, body.into());
    let Some((identity, status, payload)) = &call.answered else {
        return asking.await;
    };
    let mut client = hub.connect(identity, Subscriptions::METHODS).await;
    let answering = async {
        let ToDevice::Invoke(_, reply) = client.inbox.next().await else {
            panic!("no call");
        };
        let (status, payload) = (*status, payload.clone());
        reply.send(Ok(MethodResponse { status, payload })).unwrap();
    };
    let (reply, ()) = tokio::join!(asking, answering);
    client.disconnect().await;
    reply
}

#[track_caller]
fn check(at: &str, call: &Call, reply: &Reply, kept: &Kept) {
    assert_eq!(reply.status, call.status, "{at}: {:?}", reply.body);
    if [202, 204].contains(&call.status) {
        assert!(reply.body.is_empty(), "{at}");
        return;
    }
    if let Some(item_type) = call.item_type {
        assert_eq!(reply.header("x-ms-item-type"), Some(item_type), "{at}");
    }
    let document = reply.json();
    for (pointer, expected) in &call.reads {
        let found = document.pointer(pointer).unwrap_or(&Value::Null);
        let is_met = match expected {
            Expected::Is(value) => *found == substituted(value.clone(), kept),
            Expected::IsThere => !found.is_null(),
            Expected::Counts(count) => match found {
                Value::Array(items) => items.len() == *count,
                Value::Object(members) => members.len() == *count,
                _ => false,
            },
        };
        assert!(is_met, "{at}: `{pointer}` is {found} in {document}");
    }
}

/// A text with what was kept in the place of `{name}`.
fn filled(text: &str, kept: &Kept) -> String {
    kept.iter().fold(text.to_owned(), |text, (name, value)| match value {
        Value::String(value) => text.replace(&format!("{{{name}}}"), value),
        _ => text,
    })
}

/// A document whose texts are filled; one that is nothing but `{name}` becomes what was kept.
fn substituted(value: Value, kept: &Kept) -> Value {
    match value {
        Value::String(text) => {
            let name = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            match name.and_then(|name| kept.get(name)) {
                Some(whole) => whole.clone(),
                None => Value::String(filled(&text, kept)),
            }
        }
        Value::Array(items) => items.into_iter().map(|item| substituted(item, kept)).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, substituted(value, kept)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}
