//! The story: set up, measure, change the threshold, cut the link, join it, settle, compare.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holm_net::Scope;
use http_body_util::BodyExt;
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::display::Display;
use super::ledger::{Balance, Ledger};
use super::link::Link;
use super::processes::Process;
use crate::cli::Demo;
use crate::management::{LogQuery, LogStream, Management};
use crate::service::Service;

const DEVICE: &str = "pump";
const MODULES: [&str; 3] = ["sensor", "watcher", "summary"];
/// Readings in the recording that is replayed.
const RECORDING: u64 = 1268;
/// The threshold that the operator sets: from here on more is unusual.
const NEW_THRESHOLD: f64 = 4.0;
/// How long the modules may take to start.
const MODULES_DEADLINE: Duration = Duration::from_secs(30);
/// How long everything may take to arrive after the story's end.
const SETTLE_DEADLINE: Duration = Duration::from_secs(8);
const LOOPBACK: &str = "127.0.0.1";

/// What is told at the end.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    #[serde(flatten)]
    pub(super) balance: Balance,
    /// How long the link was cut.
    cut_seconds: f64,
    /// From the operator's change at the hub until the module reported it in effect; null when it never did.
    threshold_applied_ms: Option<u64>,
    /// Bytes of all messages made on the device.
    bytes_measured: u64,
    /// Bytes that left the edge for the hub, with everything that protocols and TLS add.
    bytes_sent: u64,
}

impl Summary {
    /// Shows it to a person.
    pub(super) fn show(&self, display: &Display) {
        let balance = &self.balance;
        let applied = self
            .threshold_applied_ms
            .map_or_else(|| "not seen".to_owned(), |ms| format!("{ms} ms"));
        display.say("");
        display.say(&format!("readings on the device     {:>9}", balance.readings));
        display.say(&format!(
            "alerts raised / at the hub {:>9} / {}",
            balance.alerts_raised, balance.alerts_at_hub
        ));
        display.say(&format!(
            "summaries made / at the hub{:>9} / {}",
            balance.summaries_made, balance.summaries_at_hub
        ));
        display.say(&format!("link cut for               {:>9.1} s", self.cut_seconds));
        display.say(&format!("threshold in effect after  {applied:>9}"));
        display.say(&format!(
            "bytes measured / sent      {:>9} / {}",
            self.bytes_measured, self.bytes_sent
        ));
        display.say(&format!("repeats, shown apart       {:>9}", balance.duplicates));
        display.say(&format!("lost                       {:>9}", balance.lost));
    }
}

/// Tells the story in a directory.
pub(super) async fn tell(options: &Demo, directory: &Path, display: &Display) -> anyhow::Result<Summary> {
    let began = Instant::now();
    let scope = Scope::new();
    let mut stage = Stage::set_up(options, directory, display, &scope).await?;
    let summary = stage.play(options, began, display).await;
    stage.clear(display).await;
    if let Err(left) = scope.drain(Duration::from_secs(2)).await {
        tracing::debug!(left, "tasks of the demo were still running");
    }
    summary
}

/// Everything that takes part.
struct Stage {
    hub: Process,
    edge: Process,
    service: Arc<Service>,
    management: Management,
    link: Link,
    ledger: Arc<Mutex<Ledger>>,
    edge_data: PathBuf,
}

impl Stage {
    async fn set_up(options: &Demo, directory: &Path, display: &Display, scope: &Scope) -> anyhow::Result<Self> {
        let hub_data = directory.join("hub");
        let arguments = [
            "hub",
            "run",
            "--hostname",
            LOOPBACK,
            "--bind",
            LOOPBACK,
            "--mqtt-port",
            "0",
            "--amqp-port",
            "0",
            "--https-port",
            "0",
            "--data",
        ];
        let mut arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        arguments.push(hub_data.as_os_str());
        let hub = Process::start("hub", &arguments, directory).await?;
        display.moment("the hub is up");

        let link = Link::new();
        let far_mqtt = link.open(scope, hub.address("mqtt")?).await?;
        let far_https = link.open(scope, hub.address("https")?).await?;
        let text =
            std::fs::read_to_string(hub_data.join("connection-string")).context("the hub left no connection string")?;
        let here = format!("HostName={}", hub.address("https")?);
        let text = text.trim().replacen(&format!("HostName={LOOPBACK}"), &here, 1);
        let service = Arc::new(Service::new(&text, Some(&hub_data.join("ca.pem")))?);

        let key = create_device(&service).await?;
        deploy(&service, options).await?;
        let edge_data = directory.join("edge");
        let socket = directory.join("mgmt.sock");
        let config = directory.join("edge.toml");
        write_config(
            &config,
            &Config {
                hub_ca: &hub_data.join("ca.pem"),
                key: &key,
                data: &edge_data,
                socket: &socket,
                mqtt: far_mqtt.port(),
                https: far_https.port(),
            },
        )?;
        let arguments = [
            OsStr::new("edge"),
            OsStr::new("run"),
            OsStr::new("--config"),
            config.as_os_str(),
        ];
        let edge = Process::start("edge", &arguments, directory).await?;
        display.moment("the edge is up; its modules start");

        let management = Management::new(&format!("unix://{}", socket.display()))?;
        let ledger = Arc::<Mutex<Ledger>>::default();
        for module in MODULES {
            scope.spawn_until_stopped(follow_module(management.clone(), module, Arc::clone(&ledger)));
        }
        scope.spawn_until_stopped(follow_hub(Arc::clone(&service), Arc::clone(&ledger)));
        Ok(Self {
            hub,
            edge,
            service,
            management,
            link,
            ledger,
            edge_data,
        })
    }

    async fn play(&mut self, options: &Demo, began: Instant, display: &Display) -> anyhow::Result<Summary> {
        self.wait_for_modules(display).await?;
        let total = Duration::from_secs(options.seconds);
        let at = |part: f64| began + total.mul_f64(part);

        self.watch(at(0.35), display).await?;
        display.moment(&format!(
            "an operator sets the watcher's threshold to {NEW_THRESHOLD} at the hub"
        ));
        let threshold_applied_ms = self.change_threshold().await?;
        match threshold_applied_ms {
            Some(ms) => display.moment(&format!(
                "the watcher works with it after {ms} ms, and was not restarted"
            )),
            None => display.moment("the watcher has not reported the new threshold yet"),
        }

        let mut cut_seconds = 0.0;
        if !options.no_cut {
            self.watch(at(0.45), display).await?;
            self.link.set_up(false);
            let cut = Instant::now();
            display.moment("the link is cut; everything on the device goes on");
            self.watch(at(0.75), display).await?;
            self.link.set_up(true);
            cut_seconds = cut.elapsed().as_secs_f64();
            display.moment(&format!("the link is back after {cut_seconds:.1} s"));
        }
        self.watch(at(1.0), display).await?;

        self.quiet_the_sensor().await?;
        self.settle(display).await?;
        let mut ledger = self.final_ledger().await?;
        let balance = ledger.balance();
        Ok(Summary {
            balance,
            cut_seconds,
            threshold_applied_ms,
            bytes_measured: std::mem::take(&mut ledger).bytes_measured(),
            bytes_sent: self.link.bytes_sent(),
        })
    }

    async fn wait_for_modules(&mut self, display: &Display) -> anyhow::Result<()> {
        let deadline = Instant::now() + MODULES_DEADLINE;
        loop {
            self.check()?;
            if self.balance().readings > 0 {
                display.moment("the modules run; readings come");
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "no reading came within {} s of the edge's start",
                    MODULES_DEADLINE.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Shows how things stand until a moment.
    async fn watch(&mut self, until: Instant, display: &Display) -> anyhow::Result<()> {
        loop {
            self.check()?;
            self.show(display).await;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_millis(500))).await;
        }
    }

    async fn show(&self, display: &Display) {
        let status = self
            .management
            .ask(Method::GET, "/holm/v1/status")
            .await
            .unwrap_or_default();
        let connected = status.pointer("/link/connected").and_then(Value::as_bool);
        let waiting = status.pointer("/upstream/depth").and_then(Value::as_u64);
        let balance = self.balance();
        display.standing(&format!(
            "readings {:>5}   alerts {:>4} raised, {:>4} at the hub   waiting {:>4}   link {}   {} bytes measured, {} sent",
            balance.readings,
            balance.alerts_raised,
            balance.alerts_at_hub,
            waiting.map_or_else(|| "?".to_owned(), |depth| depth.to_string()),
            match connected {
                Some(true) => "up",
                Some(false) => "down",
                None => "?",
            },
            self.lock().bytes_measured(),
            self.link.bytes_sent(),
        ));
    }

    /// Sets the threshold at the hub and waits until the module reports it.
    async fn change_threshold(&self) -> anyhow::Result<Option<u64>> {
        let began = Instant::now();
        let path = format!("/twins/{DEVICE}/modules/watcher");
        let patch = json!({ "properties": { "desired": { "threshold": NEW_THRESHOLD } } });
        self.service.call(Method::PATCH, &path, &[], Some(&patch)).await?;
        while began.elapsed() < Duration::from_secs(10) {
            let twin = self.service.call(Method::GET, &path, &[], None).await?.body;
            if twin.pointer("/properties/reported/threshold").and_then(Value::as_f64) == Some(NEW_THRESHOLD) {
                return Ok(u64::try_from(began.elapsed().as_millis()).ok());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(None)
    }

    async fn quiet_the_sensor(&self) -> anyhow::Result<()> {
        let path = format!("/twins/{DEVICE}/modules/sensor");
        let patch = json!({ "properties": { "desired": { "intervalMs": 86_400_000 } } });
        self.service.call(Method::PATCH, &path, &[], Some(&patch)).await?;
        Ok(())
    }

    /// Waits until nothing more is on its way: what was made has arrived, and nothing new is made.
    async fn settle(&mut self, display: &Display) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        let mut before = self.balance();
        let mut still = 0;
        while Instant::now() < deadline && still < 5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.check()?;
            self.show(display).await;
            let now = self.balance();
            still = if now == before && self.lock().is_settled() {
                still + 1
            } else {
                0
            };
            before = now;
        }
        Ok(())
    }

    /// Both sides read anew, from the beginning: the modules' logs, and the hub's.
    async fn final_ledger(&self) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::default();
        for module in MODULES {
            let mut lines = Lines::default();
            let mut log = self.management.log(module, &LogQuery::default()).await?;
            while let Some((stream, piece)) = log.next().await? {
                if stream == LogStream::Output {
                    lines.add(&piece, |line| ledger.module_wrote(line));
                }
            }
        }
        read_hub(&self.service, false, |event| ledger.hub_has(event)).await?;
        Ok(ledger)
    }

    /// Ends everything, the modules too, which would outlive their edge.
    async fn clear(self, display: &Display) {
        self.edge.stop().await;
        if let Err(error) = super::super::edge::remove_process_modules(&self.edge_data).await {
            display.say(&format!("modules of the demo may still run: {error:#}"));
        }
        self.hub.stop().await;
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.hub.check()?;
        self.edge.check()
    }

    fn balance(&self) -> Balance {
        self.lock().balance()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn create_device(service: &Service) -> anyhow::Result<String> {
    let body = json!({ "deviceId": DEVICE, "capabilities": { "iotEdge": true }, "authentication": { "type": "sas" } });
    let device = service
        .call(Method::PUT, &format!("/devices/{DEVICE}"), &[], Some(&body))
        .await?
        .body;
    let key = device
        .pointer("/authentication/symmetricKey/primaryKey")
        .and_then(Value::as_str);
    Ok(key.context("the hub made no key for the device")?.to_owned())
}

async fn deploy(service: &Service, options: &Demo) -> anyhow::Result<()> {
    // The whole recording passes in most of the time that there is.
    let interval = (options.seconds.saturating_sub(4).max(1) * 1000 * 9 / 10 / RECORDING).max(2);
    let module = |image: &str, env: Value| {
        json!({
            "type": "process",
            "status": "running",
            "restartPolicy": "always",
            "settings": { "image": image, "createOptions": "{}" },
            "env": env,
        })
    };
    let system = |image: &str| json!({ "type": "docker", "settings": { "image": image, "createOptions": "{}" } });
    let mut hub_module = system("holm/edge-hub");
    hub_module["status"] = json!("running");
    hub_module["restartPolicy"] = json!("always");
    let content = json!({ "modulesContent": {
        "$edgeAgent": { "properties.desired": {
            "schemaVersion": "1.1",
            "runtime": { "type": "docker", "settings": {} },
            "systemModules": { "edgeAgent": system("holm/edge-agent"), "edgeHub": hub_module },
            "modules": {
                "sensor": module("holm/sensor", json!({ "INTERVAL_MS": { "value": interval.to_string() } })),
                "watcher": module("holm/watcher", json!({})),
                "summary": module("holm/summary", json!({})),
            },
        } },
        "$edgeHub": { "properties.desired": {
            "schemaVersion": "1.1",
            "routes": {
                "toWatcher": "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint(\"/modules/watcher/inputs/readings\")",
                "toSummary": "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint(\"/modules/summary/inputs/readings\")",
                "alerts": { "route": "FROM /messages/modules/watcher/outputs/alerts INTO $upstream", "priority": 0 },
                "summaries": "FROM /messages/modules/summary/outputs/summaries INTO $upstream",
            },
            "storeAndForwardConfiguration": { "timeToLiveSecs": 7200 },
        } },
    } });
    service
        .call(
            Method::POST,
            &format!("/devices/{DEVICE}/applyConfigurationContent"),
            &[],
            Some(&content),
        )
        .await?;
    Ok(())
}

struct Config<'c> {
    hub_ca: &'c Path,
    key: &'c str,
    data: &'c Path,
    socket: &'c Path,
    mqtt: u16,
    https: u16,
}

fn write_config(file: &Path, config: &Config<'_>) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let text = format!(
        "hostname = \"{LOOPBACK}\"\n\
         trust_bundle_cert = \"file://{ca}\"\n\n\
         [provisioning]\n\
         source = \"manual\"\n\
         connection_string = \"HostName={LOOPBACK};DeviceId={DEVICE};SharedAccessKey={key}\"\n\n\
         [listen]\n\
         management_uri = \"unix://{socket}\"\n\n\
         [holm]\n\
         bind = \"{LOOPBACK}\"\n\
         mqtt_port = 0\n\
         amqp_port = 0\n\
         https_port = 0\n\
         metrics_bind = \"\"\n\
         data = \"{data}\"\n\
         hub_mqtt_port = {mqtt}\n\
         hub_https_port = {https}\n",
        ca = config.hub_ca.display(),
        key = config.key,
        socket = config.socket.display(),
        data = config.data.display(),
        mqtt = config.mqtt,
        https = config.https,
    );
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .with_context(|| format!("`{}` can't be written", file.display()))
}

/// Lines out of pieces.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, piece: &[u8], mut take: impl FnMut(&str)) {
        self.0.extend_from_slice(piece);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            take(String::from_utf8_lossy(&line).trim());
        }
    }
}

async fn follow_module(management: Management, module: &str, ledger: Arc<Mutex<Ledger>>) {
    loop {
        if let Ok(mut log) = management
            .log(
                module,
                &LogQuery {
                    follow: true,
                    ..LogQuery::default()
                },
            )
            .await
        {
            let mut lines = Lines::default();
            while let Ok(Some((stream, piece))) = log.next().await {
                if stream == LogStream::Output {
                    lines.add(&piece, |line| {
                        ledger.lock().unwrap_or_else(PoisonError::into_inner).module_wrote(line)
                    });
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Follows the hub's log; a read that breaks off begins anew, into a side of the ledger that is then exchanged.
async fn follow_hub(service: Arc<Service>, ledger: Arc<Mutex<Ledger>>) {
    loop {
        ledger.lock().unwrap_or_else(PoisonError::into_inner).forget_hub();
        let read = read_hub(&service, true, |event| {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).hub_has(event);
        });
        if let Err(error) = read.await {
            tracing::debug!(error = %format!("{error:#}"), "the hub's log broke off");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn read_hub(service: &Service, follow: bool, mut take: impl FnMut(&Value)) -> anyhow::Result<()> {
    let mut body = service
        .open(&format!(
            "/holm/v1/events?from=earliest&source=Telemetry&follow={follow}"
        ))
        .await?
        .into_body();
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        if let Some(piece) = frame.context("the hub broke off")?.data_ref() {
            lines.add(piece, |line| {
                if let Ok(event) = serde_json::from_str(line) {
                    take(&event);
                }
            });
        }
    }
    Ok(())
}
