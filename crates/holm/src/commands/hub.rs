//! `holm hub …`: run the hub, or read what belongs to its data directory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use holm_gateway::http::websocket;
use holm_gateway::metrics::Exposition;
use holm_gateway::{Gateway, Profile};
use holm_hub::{FileConfig, Hub, HubBackend, HubConfig, RestApi};
use holm_identity::ProofOfKeyVerifier;
use holm_identity::tls::server_config;
use holm_net::http::{Handler, ResponseBody, serve_tls};
use holm_net::{Listener, ListenerOptions, ListeningSockets, Peer, Scope};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::json;

use crate::cli;
use crate::output;
use crate::signals::{Signals, Told, notify};
use crate::status_page::{self, Status};

/// How long running work may take to end at a stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// The path of WebSockets at a hub.
const WEBSOCKET_PATH: &str = "/$iothub/websocket";

pub(crate) async fn run(command: cli::Hub) -> anyhow::Result<()> {
    match command {
        cli::Hub::Run(options) => serve(*options).await,
        cli::Hub::ConnectionString { data, json } => {
            let text = holm_hub::hub::connection_string(&data).context("no connection string")?;
            if json {
                output::json(&json!({ "connectionString": text.expose() }));
            } else {
                output::line(text.expose());
            }
            Ok(())
        }
    }
}

async fn serve(options: cli::HubRun) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = HubConfig::new(&options.data, &options.hostname);
    config.bind = options.bind;
    config.mqtt_port = options.mqtt_port;
    config.amqp_port = options.amqp_port;
    config.https_port = options.https_port;
    config.files = (!options.no_files).then(|| FileConfig {
        directory: options.blobs.clone(),
        quota: options.blob_quota,
        upload_life: options.upload_life,
        notifications: !options.no_file_notifications,
    });
    config.c2d = options.bounds.c2d();
    config.feedback = options.bounds.feedback();
    config.file_notifications = options.bounds.file_notifications();
    if options.check {
        let hub = Hub::open(config).await.context("the hub can't start")?;
        hub.close().await;
        output::line(&format!("`{}` is in order", options.data.display()));
        return Ok(());
    }
    // Before anything is written: a hub that can't be reached leaves no data directory behind.
    let ports = Ports::bind(&options).await?;
    let hub = Hub::open(config).await.context("the hub can't start")?;

    let scope = Scope::new();
    let outcome = serve_until_told(&options, ports, &hub, &scope, &mut signals).await;
    notify("STOPPING=1");
    hub.end_streams();
    if let Err(left) = scope.drain(DRAIN_DEADLINE).await {
        tracing::warn!(left, "connections were cut: they did not end in time");
    }
    hub.close().await;
    tracing::info!("the hub has stopped");
    outcome
}

/// The sockets of a hub.
struct Ports {
    mqtt: Listener,
    amqp: Listener,
    https: Listener,
    status: Listener,
}

impl Ports {
    async fn bind(options: &cli::HubRun) -> anyhow::Result<Self> {
        let bind = |port| Listener::bind(SocketAddr::new(options.bind, port), ListenerOptions::default());
        Ok(Self {
            mqtt: bind(options.mqtt_port).await?,
            amqp: bind(options.amqp_port).await?,
            https: bind(options.https_port).await?,
            status: status_page::bind(&ListeningSockets::default(), options.status)?,
        })
    }
}

async fn serve_until_told(
    options: &cli::HubRun,
    ports: Ports,
    hub: &Hub,
    scope: &Scope,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let Ports {
        mqtt,
        amqp,
        https,
        status,
    } = ports;
    let (mqtt_address, amqp_address) = (mqtt.local_address()?, amqp.local_address()?);
    let https_address = https.local_address()?;

    let tls = server_config(hub.certificate().clone(), Arc::new(ProofOfKeyVerifier)).context("TLS can't be set up")?;
    let tls = Arc::new(tls);
    let backend = Arc::new(hub.backend().clone());
    let directory = hub.signals().directory().clone();
    let gateway = Gateway::new(backend, directory, Profile::hub(), scope.clone());
    scope.spawn(gateway.clone().serve_mqtt(mqtt, Arc::clone(&tls)));
    scope.spawn(gateway.clone().serve_amqp(amqp, Arc::clone(&tls)));
    let front = Arc::new(Front {
        gateway,
        rest: hub.rest_handler().clone(),
    });
    scope.spawn(serve_tls(scope.clone(), https, tls, Arc::clone(&front)));
    let page = HubStatus {
        backend: hub.backend().clone(),
        front: front.gateway.clone(),
    };
    let status = status_page::serve(scope, status, page)?;

    tracing::info!(mqtt = %mqtt_address, amqp = %amqp_address, https = %https_address, status = %status, hostname = options.hostname, "the hub is ready");
    output::line(&format!(
        "ready mqtt={mqtt_address} amqp={amqp_address} https={https_address} status={status}"
    ));
    notify("READY=1");
    loop {
        match signals.next().await {
            Told::Stop => return Ok(()),
            Told::Upgrade => tracing::warn!("a hub goes over to another program by a restart; this one goes on"),
            Told::Reload => match hub.reload_certificate() {
                Ok(()) => tracing::info!("the certificate was read anew"),
                Err(error) => {
                    tracing::error!(error = %holm_net::error_chain(&error), "the certificate stays what it was");
                }
            },
        }
    }
}

/// The HTTPS face of the hub: MQTT and AMQP over WebSocket, what devices ask, and the service API.
struct Front {
    gateway: Gateway<HubBackend>,
    rest: RestApi,
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        if websocket::is_upgrade(&request) && request.uri().path().eq_ignore_ascii_case(WEBSOCKET_PATH) {
            return self.gateway.upgrade(request, peer);
        }
        match self.gateway.answer_device(request, &peer).await {
            Ok(answer) => {
                self.rest.answered(answer.status());
                answer
            }
            Err(request) => self.rest.handle(request, peer).await,
        }
    }
}

struct HubStatus {
    backend: HubBackend,
    front: Gateway<HubBackend>,
}

impl Status for HubStatus {
    fn health(&self) -> Result<(), String> {
        self.backend.health()
    }

    async fn metrics(&self) -> String {
        let mut out = Exposition::default();
        self.front.metrics().write("holm_hub", &mut out);
        self.backend.write_metrics(&mut out).await;
        out.into_text()
    }
}
