use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex as StdMutex;

use holm_identity::certificate::TlsIdentity;
use holm_identity::tls::{Roots, client_config, server_config};
use holm_identity::{CertificateAuthority, ProofOfKeyVerifier, ReloadableCertificate, SasToken, SymmetricKey};
use holm_model::wire::percent;
use holm_model::{Identity, Timestamp};
use holm_net::http::{Handler, ResponseBody, body, serve_tls};
use holm_net::{Listener, ListenerOptions, Peer, Scope};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, IF_MATCH};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::*;
use crate::config::{DeviceProof, EdgeCa};
use crate::security::SecurityOptions;

/// A registry with the shapes of the published one, over real HTTPS.
#[derive(Debug, Default)]
struct Registry {
    modules: StdMutex<BTreeMap<String, Value>>,
    log: StdMutex<Vec<String>>,
    made: StdMutex<u32>,
}

impl Registry {
    fn add(&self, id: &str, managed_by: &str) {
        let mut made = self.made.lock().unwrap();
        *made += 1;
        let module = json!({"moduleId": id, "deviceId": "dev1", "generationId": format!("g{made}"), "managedBy": managed_by,
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "aGVsbG8gaGVsbG8gaGVsbG8=", "secondaryKey": "aGVsbG8gaGVsbG8gaGVsbG8="}}});
        self.modules.lock().unwrap().insert(id.to_owned(), module);
    }

    fn names(&self) -> Vec<String> {
        self.modules.lock().unwrap().keys().cloned().collect()
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn answer(&self, method: &Method, id: Option<&str>, given: &Value, is_update: bool) -> (u16, Value) {
        match (method, id) {
            (&Method::GET, None) => (200, json!(self.modules.lock().unwrap().values().collect::<Vec<_>>())),
            (&Method::PUT, Some(id)) if !is_update => {
                self.add(id, given["managedBy"].as_str().unwrap());
                (200, self.modules.lock().unwrap()[id].clone())
            }
            (&Method::PUT, Some(id)) => {
                let mut modules = self.modules.lock().unwrap();
                modules.get_mut(id).unwrap()["authentication"] = given["authentication"].clone();
                (200, modules[id].clone())
            }
            (&Method::DELETE, Some(id)) if is_update => match self.modules.lock().unwrap().remove(id) {
                Some(_) => (204, Value::Null),
                None => (404, json!({"Message": "ErrorCode:ModuleNotFound;gone"})),
            },
            _ => (405, Value::Null),
        }
    }
}

impl Handler for Registry {
    async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
        let token = SasToken::parse(request.headers()[AUTHORIZATION].to_str().unwrap()).unwrap();
        let device = Identity::of_device("dev1".parse().unwrap());
        if !token.verify(&device_key()) || !token.covers(&["hub.test"], &device) {
            return Response::builder()
                .status(401)
                .body(body::full("{\"Message\":\"no\"}"))
                .unwrap();
        }
        let (head, incoming) = request.into_parts();
        assert_eq!(head.uri.query(), Some("api-version=2017-11-08-preview"));
        let bytes = body::read(incoming, 65536).await.unwrap();
        let given = serde_json::from_slice(&bytes).unwrap_or_default();
        let id = head
            .uri
            .path()
            .strip_prefix("/devices/dev1/modules/")
            .map(|id| percent::decode(id).into_owned());
        if head.method != Method::GET {
            self.log
                .lock()
                .unwrap()
                .push(format!("{} {}", head.method, id.clone().unwrap()));
        }
        let is_update = head.headers.contains_key(IF_MATCH);
        let (status, answer) = self.answer(&head.method, id.as_deref(), &given, is_update);
        let text = if answer.is_null() {
            String::new()
        } else {
            answer.to_string()
        };
        Response::builder().status(status).body(body::full(text)).unwrap()
    }
}

fn device_key() -> SymmetricKey {
    SymmetricKey::from_bytes(*b"0123456789abcdef").unwrap()
}

fn module(id: &str) -> ModuleId {
    ModuleId::new(id).unwrap()
}

struct Bench {
    directory: tempfile::TempDir,
    registry: Arc<Registry>,
    hub: Client,
    scope: Scope,
}

impl Bench {
    async fn new() -> Self {
        let now = Timestamp::from(std::time::SystemTime::now());
        let authority = CertificateAuthority::create("hub", 10, now).unwrap();
        let server: TlsIdentity = authority.issue_server(&["localhost"], 10, now).unwrap();
        let certificate = Arc::new(ReloadableCertificate::new(&server).unwrap());
        let tls = Arc::new(server_config(certificate, Arc::new(ProofOfKeyVerifier)).unwrap());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default())
            .await
            .unwrap();
        let port = listener.local_address().unwrap().port();
        let (registry, scope) = (Arc::new(Registry::default()), Scope::new());
        scope.spawn(serve_tls(scope.clone(), listener, tls, Arc::clone(&registry)));
        let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes()).unwrap();
        let hub = Client::new(Arc::new(client_config(roots, None).unwrap()), "localhost", port);
        let directory = tempfile::tempdir().unwrap();
        registry.add("$edgeAgent", "");
        registry.add("$edgeHub", "");
        Self {
            directory,
            registry,
            hub,
            scope,
        }
    }

    async fn open(&self) -> Identities {
        open(self.directory.path(), self.hub.clone()).await
    }

    async fn open_without_hub(&self) -> Identities {
        self.scope.drain(Duration::from_secs(10)).await.unwrap();
        self.open().await
    }
}

async fn open(data: &Path, hub: Client) -> Identities {
    let security = SecurityOptions {
        data: data.to_owned(),
        device: DeviceId::new("dev1").unwrap(),
        hub_host: "hub.test".to_owned(),
        proof: DeviceProof::Key(device_key()),
        edge_ca: EdgeCa::QuickStart { days: 10 },
        trust_bundle_cert: None,
        system_roots: None,
        names: vec!["edge".to_owned()],
    };
    let security = Security::open(security, std::time::SystemTime::now().into())
        .await
        .unwrap();
    let options = IdentitiesOptions {
        cache: data.join("identities.json"),
        hub,
        timeout: Duration::from_secs(20),
        clock: Clock::system(),
        refusals: Refusals::default(),
    };
    Identities::open(Arc::new(security), options).unwrap()
}

/// Nothing of any module is on its way.
fn at_once(_: &ModuleId) -> bool {
    true
}

fn wanted(ids: &[&str]) -> BTreeSet<ModuleId> {
    ids.iter().map(|id| module(id)).collect()
}

/// Whether the hub would accept a signature of the edge for a module.
fn hub_accepts(registry: &Registry, identities: &Identities, id: &str) -> bool {
    let modules = registry.modules.lock().unwrap();
    let key = modules[id]["authentication"]["symmetricKey"]["primaryKey"]
        .as_str()
        .unwrap();
    let signature = identities.sign(&module(id), b"data").unwrap();
    SymmetricKey::from_base64(key)
        .unwrap()
        .verify_hmac_sha256(b"data", &signature)
}

#[tokio::test]
async fn a_deployment_makes_its_modules_and_sets_keys_that_the_hub_accepts() {
    let bench = Bench::new().await;
    bench.registry.add("ready", "IotEdge");
    bench.registry.add("foreign", "");
    let identities = bench.open().await;
    assert_eq!(*identities.changes().borrow(), 0);

    identities
        .update(Some(&wanted(&["ready", "made"])), &at_once)
        .await
        .unwrap();

    assert_eq!(
        bench.registry.names(),
        ["$edgeAgent", "$edgeHub", "foreign", "made", "ready"]
    );
    for id in ["$edgeAgent", "$edgeHub", "made", "ready"] {
        assert!(hub_accepts(&bench.registry, &identities, id), "{id}");
    }
    assert!(!hub_accepts(&bench.registry, &identities, "foreign"));
    assert_eq!(*identities.changes().borrow(), 1);

    bench.registry.take_log();
    identities
        .update(Some(&wanted(&["ready", "made"])), &at_once)
        .await
        .unwrap();
    assert_eq!(bench.registry.take_log(), Vec::<String>::new());
    assert_eq!(*identities.changes().borrow(), 1);
}

#[tokio::test]
async fn only_modules_that_were_deployed_here_are_deleted() {
    let bench = Bench::new().await;
    bench.registry.add("coming", "IotEdge");
    let identities = bench.open().await;
    identities.update(Some(&wanted(&["old"])), &at_once).await.unwrap();

    identities.update(Some(&wanted(&[])), &at_once).await.unwrap();

    assert_eq!(bench.registry.names(), ["$edgeAgent", "$edgeHub", "coming"]);
    assert_eq!(identities.generation(&module("old")), None);
    assert_eq!(identities.sign(&module("old"), b"data"), None);
}

#[tokio::test]
async fn a_module_that_was_never_deployed_here_is_deleted_when_no_deployment_can_be_on_its_way_for_it() {
    let bench = Bench::new().await;
    bench.registry.add("left", "IotEdge");
    bench.registry.add("foreign", "");
    bench.open().await.update(None, &at_once).await.unwrap();
    let cache = bench.directory.path().join("identities.json");
    let mut known: Value = serde_json::from_slice(&std::fs::read(&cache).unwrap()).unwrap();
    known["modules"]["left"]["known_since"] = 0.into();
    holm_identity::private_file::write(&cache, known.to_string().as_bytes()).unwrap();

    let identities = bench.open().await;
    identities.update(Some(&wanted(&[])), &at_once).await.unwrap();

    assert_eq!(bench.registry.names(), ["$edgeAgent", "$edgeHub", "foreign"]);
}

#[tokio::test]
async fn a_module_with_messages_on_their_way_stays_until_they_have_arrived() {
    let bench = Bench::new().await;
    let identities = bench.open().await;
    identities.update(Some(&wanted(&["old"])), &at_once).await.unwrap();

    let staying = identities.update(Some(&wanted(&[])), &|_| false).await.unwrap();

    assert_eq!(staying, [module("old")]);
    assert!(hub_accepts(&bench.registry, &identities, "old"));
    assert_eq!(identities.update(Some(&wanted(&[])), &at_once).await.unwrap(), []);
    assert_eq!(bench.registry.names(), ["$edgeAgent", "$edgeHub"]);
}

#[tokio::test]
async fn without_a_deployment_nothing_is_deleted_and_the_runtime_gets_its_keys() {
    let bench = Bench::new().await;
    let identities = bench.open().await;
    identities.update(Some(&wanted(&["a"])), &at_once).await.unwrap();

    identities.update(None, &at_once).await.unwrap();

    assert_eq!(bench.registry.names(), ["$edgeAgent", "$edgeHub", "a"]);
    assert!(hub_accepts(&bench.registry, &identities, "$edgeHub"));
}

#[tokio::test]
async fn a_restart_without_hub_signs_and_verifies_as_before() {
    let bench = Bench::new().await;
    let before = bench.open().await;
    before.update(Some(&wanted(&["a"])), &at_once).await.unwrap();
    let signature = before.sign(&module("a"), b"data").unwrap();

    let after = bench.open_without_hub().await;

    assert_eq!(*after.changes().borrow(), 1);
    assert!(after.verify(&module("a"), b"data", &signature));
    assert!(!after.verify(&module("a"), b"other", &signature));
    assert!(matches!(
        after.update(None, &at_once).await,
        Err(IdentitiesError::Unreachable { .. })
    ));
    assert_eq!(after.sign(&module("a"), b"data"), Some(signature));
}

#[tokio::test]
async fn a_module_that_was_made_again_has_another_key() {
    let bench = Bench::new().await;
    let identities = bench.open().await;
    identities.update(Some(&wanted(&["a"])), &at_once).await.unwrap();
    let old = identities.sign(&module("a"), b"data").unwrap();

    bench.registry.add("a", "IotEdge");
    identities.update(Some(&wanted(&["a"])), &at_once).await.unwrap();

    assert!(!identities.verify(&module("a"), b"data", &old));
    assert!(hub_accepts(&bench.registry, &identities, "a"));
    assert_eq!(*identities.changes().borrow(), 2);
}

#[tokio::test]
async fn a_refusal_tells_what_was_asked_and_what_the_hub_said() {
    let bench = Bench::new().await;
    let identities = bench.open().await;
    let name = holm_identity::KeyName::new("device-id").unwrap();
    let wrong = SymmetricKey::from_bytes(*b"another key 1234").unwrap();
    identities.security.keys().import(&name, wrong).await.unwrap();

    let error = identities.update(None, &at_once).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        "the hub refused to list the modules of this device (status 401 Unauthorized): no"
    );
}

#[tokio::test]
async fn a_memory_of_another_format_is_refused_and_a_damaged_one_is_put_aside() {
    let bench = Bench::new().await;
    drop(bench.open().await);
    let path = bench.directory.path().join("identities.json");
    holm_identity::private_file::write(&path, b"{\"format\": 7}").unwrap();

    assert!(matches!(known::load(&path), Err(IdentitiesError::CacheContent(named)) if named == path));
    for damaged in [&b""[..], b"{\"format\": 1", b"\0\0\0\0"] {
        holm_identity::private_file::write(&path, damaged).unwrap();

        assert!(known::load(&path).unwrap().is_none());

        assert!(!path.exists() && path.with_extension("json.damaged").exists());
    }
}
