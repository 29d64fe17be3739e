//! A keeper over a small registry that speaks the scope calls over real HTTPS.

use std::collections::BTreeMap;
use std::sync::Mutex;

use holm_identity::certificate::TlsIdentity;
use holm_identity::tls::{Roots, client_config, server_config};
use holm_identity::{CertificateAuthority, ProofOfKeyVerifier, ReloadableCertificate, SasToken};
use holm_model::Timestamp;
use holm_net::http::{Client, Handler, ResponseBody, body, serve_tls};
use holm_net::{Listener, ListenerOptions, Peer, Scope};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response};
use serde_json::{Value, json};

use super::*;
use crate::broker::tests::keys::Keys;
use crate::broker::tests::{module, soon, until};
use crate::state::Vault;

/// Devices of one page.
const PAGE: usize = 2;

#[derive(Debug, Default)]
struct Registry {
    devices: Mutex<BTreeMap<String, Value>>,
    calls: Mutex<Vec<String>>,
}

impl Registry {
    fn add(&self, id: &str, is_edge: bool) {
        let device = json!({"deviceId": id, "generationId": "1", "status": "enabled", "capabilities": {"iotEdge": is_edge},
            "authentication": {"type": "sas", "symmetricKey": {
                "primaryKey": "MDEyMzQ1Njc4OWFiY2RlZg==", "secondaryKey": "MDEyMzQ1Njc4OWFiY2RlZg=="}}});
        self.devices.lock().unwrap().insert(id.to_owned(), device);
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn answer(&self, call: &str, given: &Value) -> (u16, Value) {
        let devices = self.devices.lock().unwrap();
        match call {
            "devicesAndModulesInTargetDeviceScope" => {
                let after = given["continuationLink"].as_str().unwrap_or_default();
                let behind: Vec<_> = devices
                    .iter()
                    .filter(|(id, _)| id.as_str() > after)
                    .take(PAGE)
                    .collect();
                let link = behind.last().filter(|_| behind.len() == PAGE).map(|(id, _)| id);
                let page: Vec<_> = behind.iter().map(|(_, device)| device).collect();
                (200, json!({"devices": page, "modules": [], "continuationLink": link}))
            }
            "getDeviceAndModuleOnBehalfOf" => match devices.get(given["targetDeviceId"].as_str().unwrap()) {
                Some(device) => (200, json!({"devices": [device], "modules": null})),
                None => (404, json!({"Message": "ErrorCode:DeviceNotFound;no"})),
            },
            _ => (405, Value::Null),
        }
    }
}

impl Handler for Registry {
    async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
        let token = SasToken::parse(request.headers()[AUTHORIZATION].to_str().unwrap()).unwrap();
        let asker = "box/$edgeHub".parse().unwrap();
        assert!(token.covers(&["hub.test"], &asker) && token.verify(&Keys::key(&module("$edgeHub"), "primary")));
        let (head, incoming) = request.into_parts();
        let call = head.uri.path().rsplit('/').next().unwrap().to_owned();
        let bytes = body::read(incoming, 65536).await.unwrap();
        let (status, answer) = self.answer(&call, &serde_json::from_slice(&bytes).unwrap());
        self.calls.lock().unwrap().push(call);
        Response::builder()
            .status(status)
            .body(body::full(answer.to_string()))
            .unwrap()
    }
}

struct Bench {
    registry: Arc<Registry>,
    children: Arc<Children>,
    state: State,
    link: watch::Sender<LinkState>,
    scope: Scope,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// A keeper whose link is down.
    async fn new() -> Self {
        let now = Timestamp::from(std::time::SystemTime::now());
        let authority = CertificateAuthority::create("hub", 10, now).unwrap();
        let server: TlsIdentity = authority.issue_server(&["localhost"], 10, now).unwrap();
        let certificate = Arc::new(ReloadableCertificate::new(&server).unwrap());
        let tls = Arc::new(server_config(certificate, Arc::new(ProofOfKeyVerifier)).unwrap());
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(address, ListenerOptions::default()).await.unwrap();
        let port = listener.local_address().unwrap().port();
        let (registry, scope) = (Arc::new(Registry::default()), Scope::new());
        scope.spawn(serve_tls(scope.clone(), listener, tls, Arc::clone(&registry)));
        let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes()).unwrap();
        let hub = Client::new(Arc::new(client_config(roots, None).unwrap()), "localhost", port);

        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::in_directory(&directory.path().join("keys")).await.unwrap();
        let state = State::open(&directory.path().join("state.db"), vault).await.unwrap();
        let (children, asks) = Children::new();
        let children = Arc::new(children);
        let link = watch::Sender::new(link_is(false));
        let keeper = Keeper::new(KeeperParts {
            children: Arc::clone(&children),
            asks,
            api: ScopeApi::new(
                Arc::new(Keys::of(&[])),
                hub,
                Duration::from_secs(20),
                holm_net::Clock::system(),
            ),
            state: state.clone(),
            link: link.subscribe(),
            refusals: Refusals::default(),
        });
        scope.spawn_until_stopped(keeper.run());
        Self {
            registry,
            children,
            state,
            link,
            scope,
            _directory: directory,
        }
    }

    /// The link comes up, and everybody is looked at.
    async fn linked(&self) {
        self.link.send_replace(link_is(true));
        until("the hub has told", || self.children.is_loaded()).await;
    }

    fn knows(&self, id: &str) -> bool {
        self.children.contains(&id.parse().unwrap())
    }
}

fn link_is(connected: bool) -> LinkState {
    LinkState {
        connected,
        since: Timestamp::NEVER,
        reason: None,
    }
}

#[tokio::test]
async fn everybody_is_learned_page_by_page_and_known_after_a_restart() {
    let bench = Bench::new().await;
    for id in ["a", "b", "c", "d"] {
        bench.registry.add(id, false);
    }
    bench.registry.add("box", true);
    bench.registry.add("edge2", true);

    bench.linked().await;

    assert!(["a", "b", "c", "d"].iter().all(|id| bench.knows(id)));
    assert_eq!(
        bench.children.count(),
        4,
        "this edge itself and edges below it are not among them"
    );
    let noted = async {
        while bench.state.document(DOCUMENT).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon(noted).await;
    let (again, _) = Children::new();
    restore(&again, &bench.state).await;
    assert!(again.is_loaded());
    assert_eq!(again.count(), 4);
}

#[tokio::test]
async fn who_comes_and_goes_is_learned_on_the_next_look() {
    let bench = Bench::new().await;
    bench.registry.add("a", false);
    bench.linked().await;

    bench.registry.add("b", false);
    bench.registry.devices.lock().unwrap().remove("a");
    soon(bench.children.refresh()).await.unwrap();

    assert!(bench.knows("b") && !bench.knows("a"));
    let (kept, lost) = bench.state.children().await.unwrap();
    assert_eq!((kept.len(), lost), (1, 0));
}

#[tokio::test]
async fn one_at_the_door_is_asked_about_at_once_and_the_same_one_not_again() {
    let bench = Bench::new().await;
    bench.linked().await;
    bench.registry.add("late", false);
    let late = "late".parse().unwrap();

    assert!(soon(bench.children.ask(&late)).await);
    assert!(bench.knows("late"));
    let calls = bench.registry.calls();

    assert!(!soon(bench.children.ask(&late)).await);
    assert_eq!(bench.registry.calls(), calls);
}

#[tokio::test]
async fn strangers_at_the_door_do_not_make_the_hub_be_asked_at_will() {
    let bench = Bench::new().await;
    bench.linked().await;
    let began = std::time::Instant::now();

    let mut told = 0;
    for number in 0..200 {
        told += u64::from(soon(bench.children.ask(&format!("stranger{number}").parse().unwrap())).await);
    }

    let allowed = u64::from(BURST) + began.elapsed().as_secs() + 1;
    assert!((u64::from(BURST)..=allowed).contains(&told), "{told} of {allowed}");
    assert_eq!(bench.children.count(), 0);
}

#[tokio::test]
async fn with_the_link_down_nobody_waits_and_nothing_is_asked() {
    let bench = Bench::new().await;

    assert!(!soon(bench.children.ask(&"late".parse().unwrap())).await);
    assert!(soon(bench.children.refresh()).await.is_err());

    assert_eq!(bench.registry.calls(), 0);
    bench.scope.drain(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn one_that_the_hub_has_no_more_is_gone() {
    let bench = Bench::new().await;
    bench.registry.add("a", false);
    bench.linked().await;
    bench.registry.devices.lock().unwrap().remove("a");

    bench.children.hint(&"a".parse().unwrap());

    until("it is gone", || !bench.knows("a")).await;
}
