//! A test language: a hub in a directory of its own with a clock that is turned by hand, requests as a policy or device,
//! and devices that speak to the backend as a protocol front would.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holm_gateway::session::SessionInbox;
use holm_gateway::{
    Admission, Announced, Attempt, Authority, Credential, Delivery, Earlier, Inbox, Mailbox, Presence, Refusal,
    SessionHandle, Settlement, Subscriptions,
};
use holm_hub::{Clock, Hub, HubConfig};
use holm_identity::{SasToken, SymmetricKey};
use holm_model::{Identity, Timestamp};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, Request};
use serde_json::{Value, json};

pub(crate) const HOST: &str = "hub.test";
/// 2027-01-15T08:00:00Z.
pub(crate) const START: i64 = 1_800_000_000_000;

pub(crate) struct TestHub {
    pub(crate) hub: Hub,
    pub(crate) directory: tempfile::TempDir,
    now: Arc<AtomicI64>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks an error in all places where clients look.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, name: &str) {
        assert_eq!(
            (self.status, self.header("iothub-errorcode")),
            (status, Some(name)),
            "{:?}",
            self.body
        );
        let body = self.json();
        let message = body["Message"].as_str().unwrap();
        assert!(body["ExceptionMessage"].is_string());
        if !message.starts_with('{') {
            let (code, text) = message.split_once(';').unwrap();
            assert_eq!(code, format!("ErrorCode:{name}"));
            assert!(!text.is_empty());
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{:?}", self.body);
        self.json()
    }
}

impl TestHub {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(directory: tempfile::TempDir) -> Self {
        Self::start_at(directory, START, |_| ()).await
    }

    /// Starts with a configuration that differs from the usual.
    pub(crate) async fn start_with(change: impl FnOnce(&mut HubConfig)) -> Self {
        Self::start_at(tempfile::tempdir().unwrap(), START, change).await
    }

    async fn start_at(directory: tempfile::TempDir, now: i64, change: impl FnOnce(&mut HubConfig)) -> Self {
        let now = Arc::new(AtomicI64::new(now));
        let told = Arc::clone(&now);
        let clock = Clock::new(move || Timestamp::from_unix_millis(told.load(Ordering::SeqCst)));
        let mut config = HubConfig::new(directory.path().join("data"), HOST);
        change(&mut config);
        let hub = Hub::open_with_clock(config, clock).await.unwrap();
        Self { hub, directory, now }
    }

    /// Ends the hub and starts it anew in the same directory, at the same time.
    pub(crate) async fn restart(self) -> Self {
        self.hub.close().await;
        Self::start_at(self.directory, self.now.load(Ordering::SeqCst), |_| ()).await
    }

    /// Starts a second hub on what the disk holds now, as after a power cut: nothing of that was closed in good order.
    pub(crate) async fn cut_power(self) -> Self {
        self.cut_power_and(|_| ()).await
    }

    /// As [`TestHub::cut_power`]; changes the second hub's directory before it starts.
    pub(crate) async fn cut_power_and(self, change: impl FnOnce(&Path)) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_all(self.directory.path(), copy.path());
        change(copy.path());
        // Its tasks would go on beside those of the second, and tell the same servers the same things.
        self.hub.close().await;
        Self::start_at(copy, self.now.load(Ordering::SeqCst), |_| ()).await
    }

    pub(crate) fn turn_clock(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub(crate) fn now_seconds(&self) -> i64 {
        self.now.load(Ordering::SeqCst) / 1000
    }

    pub(crate) async fn policy_key(&self, name: &str) -> SymmetricKey {
        let policies = self.hub.policies().await.unwrap();
        policies.into_iter().find(|policy| policy.name == name).unwrap().primary
    }

    pub(crate) async fn token_of(&self, policy: &str) -> String {
        let key = self.policy_key(policy).await;
        let host = &self.hub.config().hostname;
        let token = SasToken::sign(host, self.now_seconds() + 3600, Some(policy), &key);
        token.to_text().expose().to_owned()
    }

    /// A request as `iothubowner`.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let token = self.token_of("iothubowner").await;
        let mut all = vec![("authorization", token.as_str())];
        all.extend(headers);
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = if path.starts_with("/holm/") {
            path.to_owned()
        } else {
            format!("{path}{mark}api-version=2021-04-12")
        };
        self.raw(method, &path, &all, body.into()).await
    }

    /// What the log holds, as our own interface tells it.
    pub(crate) async fn events_of(&self, query: &str) -> Vec<Value> {
        let reply = self.get(&format!("/holm/v1/events?{query}")).await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What the log holds of a device, as soon as that is so many events.
    pub(crate) async fn told_of(&self, device: &str, count: usize) -> Vec<Value> {
        self.events_of(&format!("device={device}&follow=true&max={count}"))
            .await
    }

    /// A request with exactly these headers and this address.
    pub(crate) async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let certificates: Arc<[_]> = Arc::from([]);
        let answer = self
            .hub
            .rest_handler()
            .answer(request.body(body).unwrap(), &certificates)
            .await;
        let (head, body) = answer.into_parts();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PUT, path, &[], body.to_string()).await
    }

    pub(crate) async fn update(&self, path: &str, etag: &str, body: Value) -> Reply {
        self.call(Method::PUT, path, &[("if-match", etag)], body.to_string())
            .await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PATCH, path, &[], body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, &[], body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, &[("if-match", "\"*\"")], "").await
    }

    /// Makes a device and gives its document.
    pub(crate) async fn device(&self, id: &str) -> Value {
        self.put(&format!("/devices/{id}"), json!({ "deviceId": id }))
            .await
            .ok()
    }

    pub(crate) async fn edge_device(&self, id: &str) -> Value {
        let body = json!({ "deviceId": id, "capabilities": { "iotEdge": true } });
        self.put(&format!("/devices/{id}"), body).await.ok()
    }

    /// The token that a device's own SDK would make.
    pub(crate) async fn device_token(&self, identity: &str) -> String {
        let path = match identity.split_once('/') {
            None => format!("/devices/{identity}"),
            Some((device, module)) => format!("/devices/{device}/modules/{module}"),
        };
        let document = self.get(&path).await.ok();
        let key = document["authentication"]["symmetricKey"]["primaryKey"]
            .as_str()
            .unwrap();
        let key = SymmetricKey::from_base64(key).unwrap();
        let resource = format!("{HOST}{path}");
        let token = SasToken::sign(&resource, self.now_seconds() + 3600, None, &key);
        token.to_text().expose().to_owned()
    }

    pub(crate) async fn authenticate(&self, identity: &str, credential: Credential) -> Result<Admission, Refusal> {
        let attempt = Attempt {
            identity: identity.parse().unwrap(),
            credential,
            announced: Announced::default(),
        };
        self.hub.backend().authenticate(attempt).await
    }

    /// Connects a device as a protocol front would.
    pub(crate) async fn connect(&self, identity: &str, subscriptions: Subscriptions) -> Client<'_> {
        self.connect_as(identity, subscriptions, None).await
    }

    /// Connects a device that announces a model.
    pub(crate) async fn connect_as(
        &self,
        identity: &str,
        subscriptions: Subscriptions,
        model: Option<&str>,
    ) -> Client<'_> {
        let token = self.device_token(identity).await;
        let mut admission = self.authenticate(identity, Credential::Token(token)).await.unwrap();
        admission.announced.model_id = model.map(str::to_owned);
        let (handle, inbox) = SessionHandle::new(admission.identity.clone());
        self.hub
            .backend()
            .opened(&handle, &admission, Earlier::Resumed)
            .await
            .unwrap();
        self.hub.signals().directory().enter(&handle);
        handle.set_subscriptions(subscriptions);
        self.hub.signals().directory().subscribed();
        Client {
            hub: self,
            handle,
            inbox,
            admission,
        }
    }
}

/// A connected device.
pub(crate) struct Client<'h> {
    pub(crate) hub: &'h TestHub,
    pub(crate) handle: SessionHandle,
    pub(crate) inbox: SessionInbox,
    pub(crate) admission: Admission,
}

impl Client<'_> {
    pub(crate) async fn disconnect(self) {
        self.hub.hub.signals().directory().leave(&self.handle);
        self.hub.hub.backend().closed(self.handle.id(), &self.admission).await;
    }
}

impl Client<'_> {
    pub(crate) async fn receive(&self, most: usize) -> Vec<Delivery> {
        let backend = self.hub.hub.backend();
        let receiving = backend.receive(self.handle.id(), &self.admission, Mailbox::CloudToDevice, most);
        receiving.await.unwrap()
    }

    pub(crate) fn settle(&self, delivery: &Delivery, settlement: Settlement) {
        let backend = self.hub.hub.backend();
        backend.settle(
            self.handle.id(),
            &self.admission,
            Mailbox::CloudToDevice,
            delivery.lease,
            settlement,
        );
    }

    /// Takes the first message under a lock of so many seconds.
    pub(crate) async fn take(&self, seconds: Option<u64>) -> Option<Delivery> {
        let backend = self.hub.hub.backend();
        let lock = seconds.map(Duration::from_secs);
        let taken = backend.take(self.handle.id(), &self.admission, Mailbox::CloudToDevice, lock);
        taken.await.unwrap()
    }

    /// Settles, and waits until that is on disk; whether there was such a lease.
    pub(crate) async fn settle_durably(&self, delivery: &Delivery, settlement: Settlement) -> bool {
        let backend = self.hub.hub.backend();
        let (session, mailbox) = (self.handle.id(), Mailbox::CloudToDevice);
        let settled = backend.settle_durably(session, &self.admission, mailbox, delivery.lease, settlement);
        settled.await.unwrap()
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&copy).unwrap();
            copy_all(&entry.path(), &copy);
        } else {
            std::fs::copy(entry.path(), copy).unwrap();
        }
    }
}

pub(crate) fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}
