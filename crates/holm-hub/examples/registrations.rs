//! How many devices with certificates a hub provisions in a second.
//!
//! ```sh
//! cargo run --release -p holm-hub --example registrations -- 10000 64
//! ```
//!
//! The first number is how many devices there are, the second how many register at once. Each has a key and a certificate of its
//! own, signed by the authority of a group, and does what an SDK does over HTTPS: a TLS handshake without resumption in which it
//! proves its key, `PUT …/register`, and on the same connection `GET …/operations/{id}`, with its chain verified for each. A
//! registration counts when the device has been told its hub; the device and the registration are then on disk. Devices and hub
//! share this machine.

// A stopwatch needs a place to print.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use holm_gateway::provisioning::Provisioning as _;
use holm_gateway::{Gateway, Profile};
use holm_hub::provisioning::Kind;
use holm_hub::{Hub, HubBackend, HubConfig};
use holm_identity::tls::{client_config, server_config};
use holm_identity::{CertificateAuthority, ProofOfKeyVerifier, Roots, TlsIdentity};
use holm_model::{RegistrationId, Timestamp};
use holm_net::http::{Handler, ResponseBody, body, serve_tls};
use holm_net::{Dialer, Listener, ListenerOptions, Peer, Scope, tls};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

/// The name that the hub goes by here.
const HOST: &str = "127.0.0.1";
/// The largest answer.
const MAX_ANSWER: usize = 64 * 1024;

/// The part of the hub's face that devices without a hub know.
struct Front(Gateway<HubBackend>);

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        match self.0.answer_provisioning(request, &peer).await {
            Ok(answer) => answer,
            Err(_) => {
                let mut response = Response::new(body::empty());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let devices = arguments.next().transpose()?.unwrap_or(5000);
    let at_once = arguments.next().transpose()?.unwrap_or(64).max(1);
    let directory = tempfile::tempdir()?;
    let hub = Hub::open(HubConfig::new(directory.path().join("data"), HOST)).await?;
    let scope = Scope::new();
    let port = listen(&hub, &scope).await?;

    let now = Timestamp::from(std::time::SystemTime::now());
    let maker = CertificateAuthority::create("Plant", 3650, now)?;
    enroll(&hub, &maker).await?;
    let began = Instant::now();
    let issue = |number: usize| maker.issue_client(&format!("device-{number:06}"), &[""; 0], 365, now);
    let made: Vec<TlsIdentity> = (0..devices).map(issue).collect::<Result<_, _>>()?;
    println!("{devices} certificates made in {:.1} s", began.elapsed().as_secs_f64());

    let trusted = hub.ca_pem()?;
    let id_scope = hub.backend().id_scope().ok_or("the hub provisions nobody")?.to_owned();
    let began = Instant::now();
    let registering = made.iter().enumerate().map(|(number, identity)| {
        let (trusted, id_scope) = (&trusted, &id_scope);
        async move {
            let roots = Roots::none().with_pem(trusted.as_bytes())?;
            let began = Instant::now();
            let config = client_config(roots, Some(identity))?;
            register(config, port, id_scope, &format!("device-{number:06}")).await?;
            Ok::<_, Failure>(began.elapsed())
        }
    });
    let outcomes: Vec<_> = futures_util::stream::iter(registering)
        .buffer_unordered(at_once)
        .collect()
        .await;
    let took = began.elapsed();
    let mut waits = outcomes.into_iter().collect::<Result<Vec<Duration>, _>>()?;
    report(&mut waits, took, at_once);
    scope.stop();
    hub.close().await;
    Ok(())
}

async fn listen(hub: &Hub, scope: &Scope) -> Result<u16, Failure> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(address, ListenerOptions::default()).await?;
    let port = listener.local_address()?.port();
    let tls = server_config(hub.certificate().clone(), Arc::new(ProofOfKeyVerifier))?;
    let directory = hub.signals().directory().clone();
    let gateway = Gateway::new(
        Arc::new(hub.backend().clone()),
        directory,
        Profile::hub(),
        scope.clone(),
    );
    scope.spawn(serve_tls(
        scope.clone(),
        listener,
        Arc::new(tls),
        Arc::new(Front(gateway)),
    ));
    Ok(port)
}

async fn enroll(hub: &Hub, maker: &CertificateAuthority) -> Result<(), Failure> {
    let document = json!({ "attestation": { "type": "x509", "x509": { "signingCertificates": {
        "primary": { "certificate": maker.certificate_pem() } } } } });
    let Value::Object(document) = document else {
        return Err("a group is an object".into());
    };
    let id = RegistrationId::new("plant")?;
    let service = hub.backend().provisioning();
    service.put(Kind::Group, Some(id), document, None).await?;
    Ok(())
}

/// Does what an SDK does, but for its pause before it asks.
async fn register(config: rustls::ClientConfig, port: u16, id_scope: &str, id: &str) -> Result<(), Failure> {
    let stream = tls::connect(Arc::new(config), &Dialer::default(), HOST, port).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let path = format!("/{id_scope}/registrations/{id}");
    let mut ask = async |method: &str, what: &str, said: &'static [u8]| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}/{what}?api-version=2021-06-01"))
            .header("Host", HOST)
            .header("Content-Type", "application/json")
            .body(Full::new(Bytes::from_static(said)))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let bytes = body::read(answer.into_body(), MAX_ANSWER).await?;
        let told: Value = serde_json::from_slice(&bytes)?;
        Ok::<_, Failure>((status, told))
    };
    let (status, begun) = ask("PUT", "register", b"{}").await?;
    let operation = begun["operationId"].as_str().filter(|_| status == StatusCode::ACCEPTED);
    let operation = operation.ok_or_else(|| format!("{id} was refused: {begun}"))?;
    let (_, ended) = ask("GET", &format!("operations/{operation}"), b"").await?;
    if ended["status"] != "assigned" || ended["registrationState"]["deviceId"] != id {
        return Err(format!("{id} was not assigned: {ended}").into());
    }
    drop(sender);
    driving.await??;
    Ok(())
}

fn report(waits: &mut [Duration], took: Duration, at_once: usize) {
    waits.sort_unstable();
    let at = |part: usize| {
        waits
            .get(waits.len().saturating_sub(1) * part / 100)
            .copied()
            .unwrap_or_default()
    };
    #[allow(clippy::cast_precision_loss, reason = "devices are far fewer than 2^52")]
    let rate = waits.len() as f64 / took.as_secs_f64();
    println!(
        "{} registrations in {:.1} s, {at_once} at once: {rate:.0}/s; one takes {:.1} ms (median), {:.1} ms (p99)",
        waits.len(),
        took.as_secs_f64(),
        at(50).as_secs_f64() * 1000.0,
        at(99).as_secs_f64() * 1000.0,
    );
}
