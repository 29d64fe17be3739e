//! `holm hub …`: run the hub, or read what belongs to its data directory. `holm dps run` runs the same without the hub.

mod backup;
mod consumer_group;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use holm_gateway::http::{answer, websocket};
use holm_gateway::metrics::Exposition;
use holm_gateway::{Gateway, Profile};
use holm_hub::blobs::MAX_OPEN_FILES;
use holm_hub::files::Files;
use holm_hub::{EventSources, FileConfig, Hub, HubBackend, HubConfig, RestApi};
use holm_identity::ProofOfKeyVerifier;
use holm_identity::tls::server_config;
use holm_net::http::{Handler, ResponseBody, serve_tls};
use holm_net::{Listener, ListenerOptions, ListeningSockets, Peer, Scope};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use crate::cli;
use crate::open_files;
use crate::output::{self, WrongUse};
use crate::signals::{Signals, Told, notify};
use crate::status_page::{self, Status};

/// How long running work may take to end at a stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// The paths of WebSockets at a hub: that of devices and back ends, that of clients of Event Hubs, and those of devices that ask the
/// provisioning service with C# and Java.
const WEBSOCKET_PATHS: [&str; 4] = ["/$iothub/websocket", "/$servicebus/websocket", "", "/mqtt"];

pub(crate) async fn run(command: cli::Hub) -> anyhow::Result<()> {
    match command {
        cli::Hub::Run(options) => serve(*options).await,
        cli::Hub::Backup(command) => backup::run(*command).await,
        cli::Hub::Restore(options) => backup::restore(&options),
        cli::Hub::ConsumerGroup(command) => consumer_group::run(command).await,
        cli::Hub::IdScope { data, json } => {
            let scope = holm_hub::hub::id_scope(&data).context("no id scope")?;
            if json {
                output::json(&json!({ "idScope": scope }));
            } else {
                output::line(&scope);
            }
            Ok(())
        }
        cli::Hub::ConnectionString {
            data,
            event_hub,
            dps,
            json,
        } => {
            let text = if event_hub {
                holm_hub::hub::event_hub_connection_string(&data)
            } else if dps {
                holm_hub::hub::provisioning_connection_string(&data)
            } else {
                holm_hub::hub::connection_string(&data)
            };
            let text = text.context("no connection string")?;
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
    if options.event_sources.len() > 1 && options.event_sources.iter().any(|source| source == "none") {
        bail!(WrongUse(
            "`--event-sources` has `none` beside others; give `none` alone, or leave it out".to_owned()
        ));
    }
    let mut signals = Signals::listen()?;
    let mut config = options.serving.config();
    #[cfg(feature = "s3")]
    let s3 = s3(&options)?;
    let tells = |source: &str| options.event_sources.iter().any(|wanted| wanted == source);
    config.event_sources = EventSources {
        twin_changes: tells("twinChangeEvents"),
        lifecycle: tells("deviceLifecycleEvents"),
        connection_states: tells("deviceConnectionStateEvents"),
        device_jobs: tells("deviceJobLifecycleEvents"),
        digital_twin_changes: tells("digitalTwinChangeEvents"),
    };
    config.routed_files.clone_from(&options.routed_files);
    config.files = (!options.no_files).then(|| FileConfig {
        directory: options.blobs.clone(),
        #[cfg(feature = "s3")]
        s3,
        quota: options.blob_quota,
        upload_life: options.upload_life,
        notifications: !options.no_file_notifications,
    });
    config.logins_per_second = options.max_logins_per_second.and_then(NonZeroU32::new);
    config.registrations_per_minute = options.max_registrations_per_minute.and_then(NonZeroU32::new);
    config.issued_certificate_days = options.issued_certificate_days;
    config.audit = options.changes.audit();
    config.twin_history = options.changes.twins();
    config.c2d = options.bounds.c2d();
    config.feedback = options.bounds.feedback();
    config.file_notifications = options.bounds.file_notifications();
    let room = Room::new(open_files::raise(), options.max_https_connections);
    run_until_told(config, options.status, options.check, room, &mut signals).await
}

/// How many connections a hub has open at a time. A connection is an open file; beyond what the system permits nothing could be
/// stored any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Over MQTT and AMQP together.
    devices: usize,
    /// Over HTTPS and WebSocket. Apart from the others, so that operators get in to a hub that is full of devices.
    https: usize,
}

impl Room {
    /// Files beside those of connections and what they store and read: database, event log, endpoints of routing.
    const OTHER_FILES: u64 = 512;
    /// As many as a semaphore counts with ease; each costs some 15 KiB.
    const MOST: u64 = 10_000_000;
    /// Over HTTPS, if nobody says.
    const USUAL_HTTPS: u64 = 20_000;

    /// What so many files leave room for.
    pub(crate) fn new(files: u64, https: Option<u32>) -> Self {
        let connections = files.saturating_sub(Self::OTHER_FILES.min(files / 2)).min(Self::MOST);
        let quarter = connections / 4;
        let https = match https {
            Some(given) => u64::from(given).min(connections / 2),
            None => quarter.min(Self::USUAL_HTTPS),
        };
        // Who stores or reads a file has that open too.
        let files = u64::try_from(MAX_OPEN_FILES).unwrap_or(u64::MAX).min(https);
        let count = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
        Self {
            devices: count(connections.saturating_sub(https + files)),
            https: count(https),
        }
    }
}

/// Runs a hub, or a provisioning service that is none.
pub(crate) async fn run_until_told(
    config: HubConfig,
    status: SocketAddr,
    is_check: bool,
    room: Room,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    if is_check {
        let data = config.data.clone();
        let hub = Hub::open(config).await.context("the hub can't start")?;
        hub.close().await;
        output::line(&format!("`{}` is in order", data.display()));
        return Ok(());
    }
    // Before anything is written: a hub that can't be reached leaves no data directory behind.
    let ports = Ports::bind(&config, status, room).await?;
    let hub = Hub::open(config).await.context("the hub can't start")?;

    let scope = Scope::new();
    let outcome = serve_until_told(ports, &hub, &scope, signals).await;
    notify("STOPPING=1");
    hub.end_streams();
    if let Err(left) = scope.drain(DRAIN_DEADLINE).await {
        tracing::warn!(left, "connections were cut: they did not end in time");
    }
    hub.close().await;
    tracing::info!("the hub has stopped");
    outcome
}

#[cfg(feature = "s3")]
fn s3(options: &cli::HubRun) -> anyhow::Result<Option<holm_hub::S3Config>> {
    let (Some(endpoint), Some(bucket)) = (&options.s3_endpoint, &options.s3_bucket) else {
        return Ok(None);
    };
    let key = |name| {
        let value = std::env::var(name);
        value.with_context(|| format!("`{name}` is not set; it holds an access key of the bucket"))
    };
    Ok(Some(holm_hub::S3Config {
        endpoint: endpoint.clone(),
        bucket: bucket.clone(),
        region: options.s3_region.clone(),
        prefix: options.s3_prefix.clone(),
        access_key: key("AWS_ACCESS_KEY_ID")?,
        secret_key: holm_identity::Secret::new(key("AWS_SECRET_ACCESS_KEY")?),
    }))
}

/// The sockets of a hub.
struct Ports {
    mqtt: Listener,
    amqp: Listener,
    https: Listener,
    status: Listener,
}

impl Ports {
    async fn bind(config: &HubConfig, status: SocketAddr, room: Room) -> anyhow::Result<Self> {
        let bind = |port, max_connections| {
            let address = SocketAddr::new(config.bind, port);
            Listener::bind(address, ListenerOptions { max_connections })
        };
        let mqtt = bind(config.mqtt_port, room.devices).await?;
        let amqp = bind(config.amqp_port, room.devices).await?.sharing(&mqtt);
        tracing::info!(
            devices = room.devices,
            https = room.https,
            "connections that may be open at a time"
        );
        Ok(Self {
            mqtt,
            amqp,
            https: bind(config.https_port, room.https).await?,
            status: status_page::bind(&ListeningSockets::default(), status)?,
        })
    }
}

async fn serve_until_told(ports: Ports, hub: &Hub, scope: &Scope, signals: &mut Signals) -> anyhow::Result<()> {
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
    let gateway = Gateway::new(backend, directory, Profile::hub(), scope.clone())
        .with_logins_per_second(hub.config().logins_per_second);
    scope.spawn(gateway.clone().serve_mqtt(mqtt, Arc::clone(&tls)));
    scope.spawn(gateway.clone().serve_amqp(amqp, Arc::clone(&tls)));
    let front = Arc::new(Front {
        gateway,
        rest: hub.rest_handler().clone(),
        is_hub: !hub.config().provisioning_only,
    });
    scope.spawn(serve_tls(scope.clone(), https, tls, Arc::clone(&front)));
    let page = HubStatus {
        backend: hub.backend().clone(),
        front: front.gateway.clone(),
        files: hub.files().cloned(),
    };
    let status = status_page::serve(scope, status, page)?;

    tracing::info!(mqtt = %mqtt_address, amqp = %amqp_address, https = %https_address, status = %status, hostname = hub.config().hostname, "the hub is ready");
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
    /// Else it is a provisioning service alone.
    is_hub: bool,
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        let path = request.uri().path().trim_end_matches('/');
        let is_websocket = WEBSOCKET_PATHS.iter().any(|known| path.eq_ignore_ascii_case(known));
        if is_websocket && websocket::is_upgrade(&request) {
            return self.gateway.upgrade(request, peer);
        }
        let request = match self.gateway.answer_provisioning(request, &peer).await {
            Ok(answer) => {
                self.rest.answered(answer.status());
                return answer;
            }
            Err(request) => request,
        };
        if !self.is_hub {
            if RestApi::is_provisioning(request.uri().path()) {
                return self.rest.handle(request, peer).await;
            }
            let text = "this is a provisioning service and no hub; ask the hub that it names";
            return answer::json(StatusCode::NOT_FOUND, &json!({ "errorCode": 404_001, "message": text }));
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
    files: Option<Files>,
}

impl Status for HubStatus {
    fn health(&self) -> Result<(), String> {
        self.backend.health()
    }

    async fn metrics(&self) -> String {
        let mut out = Exposition::default();
        self.front.metrics().write("holm_hub", &mut out);
        self.backend.write_metrics(&mut out).await;
        if let Some(files) = &self.files {
            files.write_metrics(&mut out);
        }
        out.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_files_leave_room_for_and_operators_have_theirs() {
        let room = |files, https| {
            let room = Room::new(files, https);
            (room.devices, room.https)
        };

        assert_eq!(room(1_048_576, None), (1_027_040, 20_000));
        assert_eq!(room(20_512, None), (13_976, 5_000));
        assert_eq!(room(20_512, Some(200)), (19_600, 200));
        assert_eq!(room(20_512, Some(u32::MAX)), (8_976, 10_000));
        assert_eq!(room(0, None), (1, 1));
        assert_eq!(room(u64::MAX, None), (9_978_976, 20_000));
    }
}
