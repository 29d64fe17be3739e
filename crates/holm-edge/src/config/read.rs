//! From a document whose keys are known to a typed configuration.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use holm_client::Transport;
use holm_identity::{Credential, DeviceConnectionString, SymmetricKey};
use holm_model::DeviceId;
use holm_runtime::LogLimits;
use holm_runtime::docker::{NetworkConfig, Subnet};
use toml_edit::{Item, TableLike, Value};

use super::certificate;
use super::check::position;
use super::dps::{self, Dps};
use super::{DeviceProof, EdgeCa, EdgeConfig, HubAddress, MetricsBind, Otel, Problem};

const DEFAULT_DATA: &str = "/var/lib/holm/edge";
const DEFAULT_MODULE_PATH: &str = "/usr/lib/holm/modules";
/// Ten years. The original makes one for 90 days, and its end cuts off every device that was given it by hand; the key never
/// leaves this device, so a short life protects nothing.
const DEFAULT_CA_DAYS: u32 = 3650;
/// A call over a bad link needs this long for its TLS handshake alone.
const SHORTEST_CLOUD_TIMEOUT: u64 = 5;

/// Reads typed values and notes what is wrong with each.
pub(super) struct Reader<'a> {
    text: &'a str,
    root: &'a dyn TableLike,
    problems: &'a mut Vec<Problem>,
    pub(super) holds_secret: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, root: &'a dyn TableLike, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            text,
            root,
            problems,
            holds_secret: false,
        }
    }

    pub(super) fn item(&self, path: &str) -> Option<&'a Item> {
        let (mut table, mut segments) = (self.root, path.split('.').peekable());
        while let Some(segment) = segments.next() {
            let item = table.get(segment)?;
            if segments.peek().is_none() {
                return Some(item).filter(|item| !item.is_none());
            }
            table = item.as_table_like()?;
        }
        None
    }

    pub(super) fn problem(&mut self, item: Option<&Item>, text: impl Into<String>) {
        let at = item.and_then(Item::span).map(|span| position(self.text, span.start));
        self.problems.push(Problem { at, text: text.into() });
    }

    pub(super) fn text(&mut self, path: &str) -> Option<&'a str> {
        let item = self.item(path)?;
        let text = item.as_str();
        match text {
            None => self.problem(Some(item), format!("`{path}` must be a string")),
            Some("") => {
                self.problem(Some(item), format!("`{path}` is empty; give a value or leave it out"));
                return None;
            }
            Some(_) => {}
        }
        text
    }

    fn parsed<T: FromStr>(&mut self, path: &str, what: &str) -> Option<T> {
        let text = self.text(path)?;
        let value = text.parse().ok();
        if value.is_none() {
            let item = self.item(path);
            self.problem(item, format!("`{path}` is `{text}`, which is not {what}"));
        }
        value
    }

    pub(super) fn boolean(&mut self, path: &str) -> Option<bool> {
        let item = self.item(path)?;
        let value = item.as_bool();
        if value.is_none() {
            self.problem(Some(item), format!("`{path}` must be `true` or `false`"));
        }
        value
    }

    fn number(&mut self, path: &str, least: i64, most: i64) -> Option<i64> {
        let item = self.item(path)?;
        let value = item.as_integer().filter(|value| (least..=most).contains(value));
        if value.is_none() {
            let text = format!("`{path}` must be a whole number from {least} to {most}");
            self.problem(Some(item), text);
        }
        value
    }

    /// A port to connect to.
    fn port(&mut self, path: &str) -> Option<u16> {
        let number = self.number(path, 1, 65535)?;
        u16::try_from(number).ok()
    }

    /// A port to listen on; 0 lets the system choose.
    fn own_port(&mut self, path: &str) -> Option<u16> {
        let number = self.number(path, 0, 65535)?;
        u16::try_from(number).ok()
    }

    /// A `file://` URI or an absolute path.
    pub(super) fn file(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path)?;
        let file = text.strip_prefix("file://").unwrap_or(text);
        if Path::new(file).is_absolute() {
            return Some(file.into());
        }
        let hint = if text.starts_with("pkcs11:") {
            "PKCS #11 is not yet supported; give `file:///path`"
        } else {
            "give `file:///path` or an absolute path"
        };
        let item = self.item(path);
        self.problem(item, format!("`{path}` is not a file; {hint}"));
        None
    }

    fn directory(&mut self, path: &str, text: &str, item: &Item) -> Option<PathBuf> {
        if Path::new(text).is_absolute() {
            return Some(text.into());
        }
        self.problem(Some(item), format!("`{path}` is `{text}`; give an absolute path"));
        None
    }

    fn unix_socket(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path)?;
        let socket = text.strip_prefix("unix://").filter(|socket| socket.starts_with('/'));
        if socket.is_none() {
            let item = self.item(path);
            self.problem(
                item,
                format!(
                    "`{path}` is `{text}`; give a socket as `unix:///path` (`fd://` and TCP are not yet supported)"
                ),
            );
        }
        socket.map(PathBuf::from)
    }
}

/// The configuration; `None` when something that is required is missing or wrong, which is then noted.
pub(super) fn resolve(reader: &mut Reader<'_>) -> Option<EdgeConfig> {
    let provisioned = provisioning(reader);
    let hostname = hostname(reader);
    let data = match reader.item("holm.data") {
        Some(item) => reader
            .text("holm.data")
            .and_then(|text| reader.directory("holm.data", text, item)),
        None => Some(DEFAULT_DATA.into()),
    };
    let edge_ca = edge_ca(reader);
    let network = network(reader);
    let module_paths = module_paths(reader);
    let metrics_bind = metrics_bind(reader);
    let listen = reader.unix_socket("listen.management_uri");
    let hub_https_port = reader.port("holm.hub_https_port");
    let hub_mqtt_port = reader.port("holm.hub_mqtt_port");
    let hub_amqp_port = reader.port("holm.hub_amqp_port");
    let protocol = hub_protocol(reader);
    let cloud_timeout = reader.number("cloud_timeout_sec", 1, 3600).unwrap_or(70).unsigned_abs();
    let trust_bundle_cert = reader.file("trust_bundle_cert");
    let allow_elevated = reader.boolean("allow_elevated_docker_permissions").unwrap_or(true);
    let engine_uri = reader.text("moby_runtime.uri").unwrap_or("unix:///var/run/docker.sock");
    let bind = reader.parsed("holm.bind", "an IP address");
    let mqtt_port = reader.own_port("holm.mqtt_port").unwrap_or(8883);
    let amqp_port = reader.own_port("holm.amqp_port").unwrap_or(5671);
    let https_port = reader.own_port("holm.https_port").unwrap_or(443);
    let trial = reader
        .number("holm.deployment_trial_sec", 0, 3600)
        .unwrap_or(30)
        .unsigned_abs();
    let in_memory = reader
        .number("holm.messages_in_memory_bytes", 0, i64::MAX)
        .map(i64::unsigned_abs)
        .filter(|bytes| *bytes > 0);
    let keep_alive = reader
        .number("holm.keep_alive_sec", 1, 240)
        .unwrap_or(30)
        .unsigned_abs();
    let log = LogLimits::default();
    let log_bytes = reader
        .number("holm.log_max_bytes", 4096, i64::MAX)
        .map(i64::unsigned_abs);
    let log_files = reader
        .number("holm.log_max_files", 1, 100)
        .and_then(|files| u32::try_from(files).ok());
    let otel = otel(reader);
    let (provisioned, data) = (provisioned?, data?);
    let management_socket = listen.unwrap_or_else(|| data.join("mgmt.sock"));
    Some(EdgeConfig {
        hostname: hostname?,
        hub: HubAddress {
            host: provisioned.host,
            https_port: hub_https_port.or(provisioned.port).unwrap_or(443),
            mqtt_port: hub_mqtt_port.unwrap_or(Transport::Mqtt.default_port()),
            amqp_port: hub_amqp_port.unwrap_or(Transport::Amqp.default_port()),
            protocol,
        },
        device: provisioned.device,
        proof: provisioned.proof,
        dps: provisioned.dps,
        trust_bundle_cert,
        edge_ca: edge_ca?,
        allow_elevated_docker_permissions: allow_elevated,
        cloud_timeout: Duration::from_secs(cloud_timeout.max(SHORTEST_CLOUD_TIMEOUT)),
        engine_uri: engine_uri.to_owned(),
        network,
        management_socket,
        bind: bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        mqtt_port,
        amqp_port,
        https_port,
        metrics_bind,
        data,
        module_paths,
        log: LogLimits {
            max_bytes: log_bytes.unwrap_or(log.max_bytes),
            files: log_files.unwrap_or(log.files),
        },
        messages_in_memory: in_memory,
        deployment_trial: Duration::from_secs(trial),
        keep_alive: Duration::from_secs(keep_alive),
        otel,
    })
}

/// Which device the edge is, and of which hub.
pub(super) struct Provisioned {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) device: DeviceId,
    pub(super) proof: DeviceProof,
    /// Whom to ask instead.
    pub(super) dps: Option<Dps>,
}

fn provisioning(reader: &mut Reader<'_>) -> Option<Provisioned> {
    let source = reader.text("provisioning.source");
    let item = reader.item("provisioning.source");
    match source {
        Some("manual") => {}
        Some("dps") => return dps::read(reader),
        Some(other) => {
            let text = format!("`provisioning.source` is `{other}`; give `\"manual\"` or `\"dps\"`");
            reader.problem(item, text);
            return None;
        }
        None => {
            if item.is_none() {
                let text = "a value for `provisioning.source` is missing; give `\"manual\"` with a connection string";
                reader.problem(None, text);
            }
            return None;
        }
    }
    if let Some(item) = reader.item("provisioning.connection_string") {
        reader.holds_secret = true;
        if reader.item("provisioning.iothub_hostname").is_some() {
            reader.problem(
                Some(item),
                "give `provisioning.connection_string` or `provisioning.iothub_hostname`, not both",
            );
        }
        return connection_string(reader, item);
    }
    by_parts(reader)
}

fn connection_string(reader: &mut Reader<'_>, item: &Item) -> Option<Provisioned> {
    let text = reader.text("provisioning.connection_string")?;
    let problem = match DeviceConnectionString::parse(text) {
        Err(error) => holm_net::error_chain(&error),
        Ok(parsed) if parsed.identity.is_module() => "it is that of a module; give the device's".to_owned(),
        Ok(parsed) if parsed.gateway_host_name.is_some() => {
            "`GatewayHostName` is not yet supported; connect this edge to the hub itself".to_owned()
        }
        Ok(parsed) => match parsed.credential {
            Credential::Key { key, policy: None } => {
                let (host, port) = split_port(&parsed.host_name);
                return Some(Provisioned {
                    host,
                    port,
                    device: parsed.identity.device,
                    proof: DeviceProof::Key(key),
                    dps: None,
                });
            }
            Credential::Certificate => {
                "it has no key; give `provisioning.iothub_hostname`, `provisioning.device_id` and `provisioning.authentication` \
                 with `method = \"x509\"`"
                    .to_owned()
            }
            _ => "it must hold the device's own `SharedAccessKey`".to_owned(),
        },
    };
    reader.problem(
        Some(item),
        format!("`provisioning.connection_string` can't be used: {problem}"),
    );
    None
}

fn by_parts(reader: &mut Reader<'_>) -> Option<Provisioned> {
    const METHOD: &str = "provisioning.authentication.method";
    let method = reader.text(METHOD).unwrap_or("sas");
    let is_certificate = match method {
        "sas" => false,
        "x509" => true,
        other => {
            let item = reader.item(METHOD);
            reader.problem(item, format!("`{METHOD}` is `{other}`; give `\"sas\"` or `\"x509\"`"));
            return None;
        }
    };
    let mut required = |path: &str| {
        if reader.item(path).is_none() {
            let text = format!("a value for `{path}` is missing; give it, or `provisioning.connection_string`");
            reader.problem(None, text);
        }
        reader.text(path)
    };
    let host = required("provisioning.iothub_hostname");
    let device = required("provisioning.device_id");
    let device = device.and_then(|text| match DeviceId::new(text) {
        Ok(device) => Some(device),
        Err(error) => {
            let item = reader.item("provisioning.device_id");
            reader.problem(item, format!("`provisioning.device_id` is not an id: {error}"));
            None
        }
    });
    let proof = if is_certificate {
        certificate::read(reader, "provisioning.authentication").map(DeviceProof::Certificate)
    } else {
        device_key(reader)
    };
    let (host, port) = split_port(host?);
    Some(Provisioned {
        host,
        port,
        device: device?,
        proof: proof?,
        dps: None,
    })
}

fn device_key(reader: &mut Reader<'_>) -> Option<DeviceProof> {
    const VALUE: &str = "provisioning.authentication.device_id_pk.value";
    const URI: &str = "provisioning.authentication.device_id_pk.uri";
    match (reader.item(VALUE), reader.item(URI)) {
        (Some(item), None) => {
            reader.holds_secret = true;
            match SymmetricKey::from_base64(reader.text(VALUE)?) {
                Ok(key) => Some(DeviceProof::Key(key)),
                Err(error) => {
                    reader.problem(Some(item), format!("`{VALUE}` is not a key: {error}"));
                    None
                }
            }
        }
        (None, Some(_)) => reader.file(URI).map(DeviceProof::KeyFile),
        (found, _) => {
            reader.holds_secret |= found.is_some();
            reader.problem(found, format!("give the device's key in one of `{VALUE}` and `{URI}`"));
            None
        }
    }
}

pub(super) fn split_port(host: &str) -> (String, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => {
            (name.to_owned(), port.parse().ok())
        }
        _ => (host.to_owned(), None),
    }
}

/// At most 64 characters, since it is the common name of a certificate.
fn hostname(reader: &mut Reader<'_>) -> Option<String> {
    let given = reader.text("hostname").map(str::to_owned);
    let name = given.or_else(|| {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Some(name).filter(|name| !name.is_empty())
    });
    let is_name = |name: &str| {
        let bare = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        name.len() <= 64 && (bare || name.parse::<IpAddr>().is_ok())
    };
    let item = reader.item("hostname");
    match name {
        Some(name) if is_name(&name) => Some(name.to_ascii_lowercase()),
        Some(name) => {
            let text = format!("`hostname` is `{name}`; give a DNS name of at most 64 characters, or an IP address");
            reader.problem(item, text);
            None
        }
        None => {
            reader.problem(item, "a value for `hostname` is missing, and the machine has none");
            None
        }
    }
}

fn edge_ca(reader: &mut Reader<'_>) -> Option<EdgeCa> {
    let days = reader.number("edge_ca.auto_generated_edge_ca_expiry_days", 1, 36_500);
    let (cert, pk) = (reader.item("edge_ca.cert"), reader.item("edge_ca.pk"));
    match (cert, pk) {
        (None, None) => Some(EdgeCa::QuickStart {
            days: days
                .and_then(|days| u32::try_from(days).ok())
                .unwrap_or(DEFAULT_CA_DAYS),
        }),
        (Some(_), Some(_)) => Some(EdgeCa::Files {
            cert: reader.file("edge_ca.cert")?,
            pk: reader.file("edge_ca.pk")?,
        }),
        (one, other) => {
            reader.problem(one.or(other), "give both `edge_ca.cert` and `edge_ca.pk`, or neither");
            None
        }
    }
}

/// Ours, or what the original would take before a deployment says more.
fn hub_protocol(reader: &mut Reader<'_>) -> Transport {
    const ALL: &str = "`mqtt`, `mqtt-ws`, `amqp` or `amqp-ws`";
    let ours = reader.parsed("holm.hub_protocol", ALL);
    let original = reader.parsed("agent.env.UpstreamProtocol", ALL);
    ours.or(original).unwrap_or_default()
}

fn module_paths(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    const PATH: &str = "holm.module_paths";
    let Some(item) = reader.item(PATH) else {
        return vec![DEFAULT_MODULE_PATH.into()];
    };
    let texts: Option<Vec<&str>> = item
        .as_array()
        .and_then(|array| array.iter().map(Value::as_str).collect());
    match texts {
        Some(texts) => texts
            .into_iter()
            .filter_map(|text| reader.directory(PATH, text, item))
            .collect(),
        None => {
            reader.problem(Some(item), format!("`{PATH}` must be a list of strings"));
            Vec::new()
        }
    }
}

fn metrics_bind(reader: &mut Reader<'_>) -> MetricsBind {
    const PATH: &str = "holm.metrics_bind";
    match reader.item(PATH) {
        None => MetricsBind::Usual,
        Some(item) if item.as_str() == Some("") => MetricsBind::Nowhere,
        Some(_) => reader
            .parsed(PATH, "an address and port, such as `127.0.0.1:9600`")
            .map_or(MetricsBind::Nowhere, MetricsBind::At),
    }
}

fn otel(reader: &mut Reader<'_>) -> Option<Otel> {
    const PATH: &str = "holm.otel_endpoint";
    let seconds = reader.number("holm.otel_interval_sec", 1, 86_400).unwrap_or(60);
    let item = reader.item(PATH)?;
    let endpoint = reader.parsed(PATH, "the address of a collector, such as `http://127.0.0.1:4318`")?;
    if !cfg!(feature = "otel") {
        let text = format!(
            "`{PATH}` needs a program that was built with `--features otel`, and this one was not; leave it out, or scrape `/metrics`"
        );
        reader.problem(Some(item), text);
        return None;
    }
    Some(Otel {
        endpoint,
        interval: Duration::from_secs(seconds.unsigned_abs()),
    })
}

fn network(reader: &mut Reader<'_>) -> NetworkConfig {
    const PATH: &str = "moby_runtime.network";
    let mut network = NetworkConfig::default();
    match reader.item(PATH) {
        None => {}
        Some(item) if item.is_table_like() => {
            if let Some(name) = reader.text("moby_runtime.network.name") {
                network.name = name.to_owned();
            }
            network.ipv6 = reader.boolean("moby_runtime.network.ipv6").unwrap_or(false);
            network.subnets = subnets(reader);
        }
        Some(_) => {
            if let Some(name) = reader.text(PATH) {
                network.name = name.to_owned();
            }
        }
    }
    network
}

fn subnets(reader: &mut Reader<'_>) -> Vec<Subnet> {
    const PATH: &str = "moby_runtime.network.ipam.config";
    let Some(item) = reader.item(PATH) else {
        return Vec::new();
    };
    let mut tables: Vec<&dyn TableLike> = Vec::new();
    if let Some(array) = item.as_array() {
        tables.extend(
            array
                .iter()
                .filter_map(Value::as_inline_table)
                .map(|table| table as &dyn TableLike),
        );
    } else if let Some(array) = item.as_array_of_tables() {
        tables.extend(array.iter().map(|table| table as &dyn TableLike));
    } else {
        reader.problem(Some(item), format!("`{PATH}` must be a list of tables"));
    }
    let part = |table: &dyn TableLike, name: &str| table.get(name).and_then(Item::as_str).map(str::to_owned);
    tables
        .into_iter()
        .map(|table| Subnet {
            subnet: part(table, "subnet"),
            gateway: part(table, "gateway"),
            ip_range: part(table, "ip_range"),
        })
        .collect()
}
