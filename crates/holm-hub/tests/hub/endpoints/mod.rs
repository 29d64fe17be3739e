//! Endpoints of message routing against the real servers: mosquitto, `nats-server`. What is published is read back by other clients than
//! ours.

#![allow(clippy::print_stderr, reason = "who runs the tests is told what was skipped")]

mod files;
mod mosquitto;
mod nats;
#[cfg(feature = "parquet")]
mod parquet;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holm_hub::Clock;
use holm_hub::routing::{Endpoint, EndpointDefinition, Routed, SendError, Source, Surroundings, endpoints};
use holm_identity::{CertificateAuthority, TlsIdentity};
use holm_model::{Message, SystemProperty, Timestamp};
use serde_json::Value;

/// Far longer than anything here takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that a test has started; it ends with this value.
struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// Starts a server that listens on `port` and waits until it does.
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child };
        wait_for("the server's port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    /// Kills it.
    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A certificate authority with a server's and a client's certificate, as files and as text.
struct Certificates {
    ca: String,
    client: TlsIdentity,
    directory: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Self {
        let now = Clock::system().now();
        let authority = CertificateAuthority::create("tests", 30, now).unwrap();
        let server = authority.issue_server(&["localhost", "127.0.0.1"], 30, now).unwrap();
        let client = authority.issue_client("hub", &[] as &[&str], 30, now).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let certificates = Self {
            ca: authority.certificate_pem(),
            client,
            directory,
        };
        std::fs::write(certificates.path("ca.pem"), &certificates.ca).unwrap();
        let (chain, key) = (certificates.path("server.pem"), certificates.path("server-key.pem"));
        server.store(Path::new(&chain), Path::new(&key)).unwrap();
        certificates
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A port for a server that comes and goes. It is none of those that the system gives out by itself (from 32768 on), which another test
/// could get while the server is away; each process of the tests begins elsewhere.
fn free_port() -> u16 {
    const FIRST: u32 = 16_384;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = (0..FIRST).map(|_| {
        let step = std::process::id()
            .wrapping_mul(16)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + step % FIRST).unwrap()
    });
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("there is a free port")
}

/// Where programs are, or none with the reason said. In CI they must be there.
fn programs<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| {
        let places = std::env::split_paths(&places).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        places.map(|place| place.join(name)).find(|path| path.is_file())
    };
    let found = names.map(|name| (name, find(name)));
    if let Some((missing, _)) = found.iter().find(|(_, path)| path.is_none()) {
        assert!(
            std::env::var_os("CI").is_none() && std::env::var_os("HOLM_E2E_PEERS").is_none(),
            "`{missing}` is missing; `cargo xtask setup` prepares it"
        );
        eprintln!("SKIPPED, because `{missing}` is missing; `cargo xtask setup` prepares it");
        return None;
    }
    Some(found.map(|(_, path)| path.unwrap()))
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < PATIENCE, "{what} is not there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn open(files: &Path, definition: Value) -> Box<dyn Endpoint> {
    let Value::Object(definition) = definition else {
        panic!("a definition is an object");
    };
    let definition = EndpointDefinition::read("hot".parse().unwrap(), definition).unwrap();
    let surroundings = Surroundings {
        hub_name: "hub".into(),
        lane: "routed/hot/1".into(),
        files: Arc::new(files.to_owned()),
        clock: Clock::system(),
    };
    endpoints::open(&definition.settings, &surroundings).unwrap()
}

fn routed(sequence: u64) -> Routed {
    let mut message = Message::new(format!("{{\"n\":{sequence}}}"));
    message.system.set(SystemProperty::ConnectionDeviceId, "d1");
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::ContentEncoding, "utf-8");
    message.properties.set("level", Some("high".into()));
    Routed {
        sequence,
        enqueued: Timestamp::from_unix_millis(1_767_323_045_123),
        source: Source::DeviceMessages,
        partition: 3,
        message,
    }
}

/// Why an endpoint does not take anything now.
async fn why_not(endpoint: &mut dyn Endpoint) -> String {
    match endpoint.send(&batch(1..3)).await {
        Err(SendError::Later { delivered: 0, why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn batch(sequences: std::ops::Range<u64>) -> Vec<Routed> {
    sequences.map(routed).collect()
}

/// Sends until the endpoint takes it, as the hub does.
async fn send_until_taken(endpoint: &mut dyn Endpoint, batch: &[Routed]) {
    let begun = Instant::now();
    let mut sent = 0;
    while let Err(refused) = endpoint.send(&batch[sent..]).await {
        let SendError::Later { delivered, .. } = refused else {
            panic!("{refused}");
        };
        assert!(begun.elapsed() < PATIENCE, "{refused}");
        sent += delivered;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
