//! A Holm edge's broker in a process of its own, for measurement: the real gateway, broker, queue and uplink on real TLS. Only
//! the keys are simpler: all modules have one, from a file, so that the generator can sign for each.
//!
//! The process ends when its standard input does, or when it is told to.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use holm_client::Endpoint;
use holm_edge::broker::{Broker, BrokerOptions};
use holm_edge::children::Children;
use holm_edge::keys::ModuleKeys;
use holm_edge::state::{State, Vault};
use holm_edge::uplink::{Uplink, UplinkSettings};
use holm_gateway::{Gateway, Profile};
use holm_identity::sas::resource_uri;
use holm_identity::tls::{ReloadableCertificate, Roots, client_config, server_config};
use holm_identity::{ProofOfKeyVerifier, SasToken, SymmetricKey, TlsIdentity};
use holm_model::manifest::BuildVersion;
use holm_model::wire::{ClientTopic, UserName};
use holm_model::{DeviceId, Identity, ModuleId, Timestamp};
use holm_net::{Listener, ListenerOptions, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::client::Login;

/// The document of the edge's state that holds the routes in force (`docs/formats/edge-state.md`).
const CONFIGURATION: &str = "broker.configuration";
/// How long connections may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a token is good: longer than any run.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// How an edge is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EdgeSettings {
    /// The device that it is.
    pub device: String,
    /// Its modules, without the runtime's own.
    pub modules: Vec<String>,
    /// The key of every module, base64.
    pub key: String,
    /// The hub's host name, which is an address too.
    pub hub_host: String,
    /// The hub's port of MQTT; nothing has to listen there.
    pub hub_port: u16,
    /// Whom to trust above.
    pub hub_ca: PathBuf,
    /// The port to listen on, on 127.0.0.1.
    pub port: u16,
    /// Where state and messages are.
    pub data: PathBuf,
    /// The server's certificate with its chain, PEM.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub chain_key: PathBuf,
    /// Messages are kept in so many bytes of memory; none: on disk.
    pub memory_bytes: Option<u64>,
    /// The route, in the route language.
    pub route: String,
}

impl EdgeSettings {
    /// The desired properties of `$edgeHub`.
    #[must_use]
    pub fn desired(&self) -> Value {
        json!({
            "schemaVersion": "1.1",
            "routes": { "bench": self.route },
            "storeAndForwardConfiguration": { "timeToLiveSecs": 7200 },
        })
    }

    /// The login of a module.
    ///
    /// # Errors
    /// A name or the key is wrong.
    pub fn login(&self, module: &str) -> Result<Login> {
        let identity = self.identity(module)?;
        let key = SymmetricKey::from_base64(&self.key)?;
        let expiry = Timestamp::from(SystemTime::now()).unix_seconds() + TOKEN_SECONDS;
        let token = SasToken::sign(&resource_uri(&self.hub_host, &identity), expiry, None, &key);
        let user_name = UserName::new(&self.hub_host, identity.clone(), "holm-bench");
        Ok(Login {
            client_id: identity.to_string(),
            credentials: Some((user_name.to_string(), token.to_text().expose().to_owned())),
            clean_session: true,
        })
    }

    /// The topic to which a module publishes its output.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn output_topic(&self, module: &str) -> Result<String> {
        Ok(ClientTopic::telemetry(&self.identity(module)?, "%24.on=bench"))
    }

    /// What a module subscribes to for its inputs.
    #[must_use]
    pub fn input_filter(&self, module: &str) -> String {
        format!("devices/{}/modules/{module}/inputs/#", self.device)
    }

    fn identity(&self, module: &str) -> Result<Identity> {
        Ok(Identity::of_module(
            DeviceId::new(&self.device)?,
            ModuleId::new(module)?,
        ))
    }
}

/// Runs an edge until standard input ends or a signal says so. Prints `ready` when it listens.
///
/// # Errors
/// What is missing or wrong.
pub async fn serve(settings: &EdgeSettings, ready: impl FnOnce()) -> Result<()> {
    let mut told = signal(SignalKind::terminate())?;
    let scope = Scope::new();
    let keys: Arc<dyn ModuleKeys> = Arc::new(OneKey::new(settings)?);
    let vault = Vault::in_directory(&settings.data.join("keys")).await?;
    let state = State::open(&settings.data.join("state.db"), vault).await?;
    let document = json!({ "version": 1, "desired": settings.desired() });
    state.put_document(CONFIGURATION, &document).await?;

    let hub_tls = client_config(Roots::none().with_file(&settings.hub_ca)?, None)?;
    let endpoint = Endpoint {
        host: settings.hub_host.clone(),
        port: settings.hub_port,
    };
    let uplink = UplinkSettings::new(endpoint, Arc::new(hub_tls));
    let uplink = Uplink::new(uplink, Arc::clone(&keys), scope.clone());
    let options = BrokerOptions {
        hostname: "localhost".to_owned(),
        version: BuildVersion::default(),
        children: Arc::new(Children::new().0),
        queue: holm_queue::Options::default(),
        memory_bytes: settings.memory_bytes,
        scope: scope.clone(),
        clock: holm_net::Clock::system(),
    };
    let queue = settings.data.join("messages");
    let broker = Broker::open(&queue, keys, uplink, state, options).await?;

    let certificate = TlsIdentity::load(&settings.chain, &settings.chain_key)?;
    let certificate = Arc::new(ReloadableCertificate::new(&certificate)?);
    let tls = Arc::new(server_config(certificate, Arc::new(ProofOfKeyVerifier))?);
    let directory = Arc::clone(broker.directory());
    let gateway = Gateway::new(Arc::clone(&broker), directory, Profile::edge(), scope.clone());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port));
    let listener = Listener::bind(address, ListenerOptions::default()).await?;
    scope.spawn(gateway.serve_mqtt(listener, tls));
    ready();

    tokio::select! {
        _ = told.recv() => {}
        _ = owner_is_gone() => {}
    }
    let drained = scope.drain(DRAIN_DEADLINE).await;
    broker.close().await;
    drained.map_err(|left| anyhow!("{left} tasks were cut: they did not end in time"))
}

/// Resolves when standard input ends. The thread that waits for it ends with the process.
fn owner_is_gone() -> oneshot::Receiver<()> {
    let (gone, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        drop(gone);
    });
    told
}

/// Every module has the same key.
struct OneKey {
    device: DeviceId,
    hub_host: String,
    modules: BTreeSet<ModuleId>,
    key: SymmetricKey,
    changes: watch::Sender<u64>,
}

impl OneKey {
    fn new(settings: &EdgeSettings) -> Result<Self> {
        let modules = settings.modules.iter().map(|name| Ok(ModuleId::new(name)?));
        let mut modules: BTreeSet<ModuleId> = modules.collect::<Result<_>>()?;
        modules.insert(ModuleId::edge_hub());
        Ok(Self {
            device: DeviceId::new(&settings.device)?,
            hub_host: settings.hub_host.clone(),
            modules,
            key: SymmetricKey::from_base64(&settings.key).context("the key of the modules")?,
            changes: watch::Sender::new(1),
        })
    }
}

impl ModuleKeys for OneKey {
    fn device(&self) -> &DeviceId {
        &self.device
    }

    fn hub_host(&self) -> &str {
        &self.hub_host
    }

    fn generation(&self, module: &ModuleId) -> Option<String> {
        self.modules.contains(module).then(|| "1".to_owned())
    }

    fn modules(&self) -> Vec<ModuleId> {
        self.modules.iter().cloned().collect()
    }

    fn sign(&self, module: &ModuleId, data: &[u8]) -> Option<[u8; 32]> {
        self.modules.contains(module).then(|| self.key.hmac_sha256(data))
    }

    fn verify(&self, module: &ModuleId, data: &[u8], signature: &[u8]) -> bool {
        self.modules.contains(module) && self.key.verify_hmac_sha256(data, signature)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
