//! A hub of a test: a process of the binary on a loopback address and in a directory of its own.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::address::Address;
use crate::certificate::Certificate;
use crate::daemon::{Daemon, Directory};
use crate::link::Link;
use crate::monitor::Monitor;
use crate::need;
use crate::sas::{Token, encode};
use crate::service::Service;
use crate::small_disk::SmallDisk;
use crate::wire::tls::{self, Place};
use crate::wire::{amqp, mqtt};

/// The port of MQTT, which no SDK lets one choose.
pub const MQTT_PORT: u16 = 8883;
/// The port of AMQP, which no SDK lets one choose.
pub const AMQP_PORT: u16 = 5671;
/// The port of HTTPS and WebSocket, which no SDK lets one choose.
pub const HTTPS_PORT: u16 = 443;

/// Enough for what a test stores, quickly filled.
pub(crate) const DISK_MEBIBYTES: u32 = 24;

/// A hub. It ends with this value.
#[derive(Debug)]
pub struct Hub {
    daemon: Daemon,
    service: Service,
    address: Address,
    /// What clients call it, if that is no address, and the command under which they find it by that.
    named: Option<(String, Vec<String>)>,
    /// Its address, or that of the link before it.
    name: Ipv4Addr,
    /// Goes before the directory that it is mounted in, and after the process that uses it.
    disk: Option<SmallDisk>,
    directory: Directory,
    words: Words,
}

/// The command that is run: `holm hub run`, or `holm dps run`.
type Words = [&'static str; 2];
const HUB: Words = ["hub", "run"];

/// A device of the registry, with what it needs to connect.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// The module, if it is one.
    pub module: Option<String>,
    /// Primary key; empty for certificates.
    pub primary_key: String,
    /// Secondary key; empty for certificates.
    pub secondary_key: String,
    /// What its SDK is given.
    pub connection_string: String,
}

impl Device {
    /// `device` or `device/module`.
    #[must_use]
    pub fn identity(&self) -> String {
        self.module
            .as_ref()
            .map_or_else(|| self.id.clone(), |module| format!("{}/{module}", self.id))
    }
}

impl Hub {
    /// Starts a hub and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        let address = Address::take();
        let name = address.ip();
        Self::start_as(address, name, None, Directory::new(), None, HUB)
    }

    /// Starts a provisioning service in a process of its own, which is no hub.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn start_provisioning_service() -> Self {
        let address = Address::take();
        let name = address.ip();
        Self::start_as(address, name, None, Directory::new(), None, ["dps", "run"])
    }

    /// Starts a hub that its clients know by a name. `holm` finds it when it is run under a command, which is made for that.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn start_named(host: &str, under: Vec<String>) -> Self {
        let address = Address::take();
        let name = address.ip();
        Self::start_as(
            address,
            name,
            Some((host.to_owned(), under)),
            Directory::new(),
            None,
            HUB,
        )
    }

    /// Starts a hub whose data is on a disk of its own that the test can fill.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn start_on_small_disk() -> Self {
        let directory = Directory::new();
        let disk = SmallDisk::mount(&directory.path().join("hub"), DISK_MEBIBYTES);
        let address = Address::take();
        let name = address.ip();
        Self::start_as(address, name, None, directory, Some(disk), HUB)
    }

    /// Starts a hub whose clients reach it over a link that the test can cut. What the test itself asks by
    /// [`service`](Self::service) and [`mqtt`](Self::mqtt) does not go over the link.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn start_behind_link() -> (Self, Link) {
        let address = Address::take();
        let link = Link::open(address.ip(), &[MQTT_PORT, AMQP_PORT, HTTPS_PORT]);
        (
            Self::start_as(address, link.ip(), None, Directory::new(), None, HUB),
            link,
        )
    }

    #[track_caller]
    fn start_as(
        address: Address,
        name: Ipv4Addr,
        named: Option<(String, Vec<String>)>,
        directory: Directory,
        disk: Option<SmallDisk>,
        words: Words,
    ) -> Self {
        let shown = named
            .as_ref()
            .map_or_else(|| name.to_string(), |(host, _)| host.clone());
        let daemon = spawn(&directory, &address, &shown, words);
        let ca = directory.path().join("hub/ca.pem");
        let place = Place {
            ip: IpAddr::V4(address.ip()),
            name: IpAddr::V4(name),
        };
        let service = Service::new(String::new(), ca.clone(), place, HTTPS_PORT);
        let mut hub = Self {
            daemon,
            service,
            address,
            named,
            name,
            disk,
            directory,
            words,
        };
        hub.wait_until_ready();
        let data = hub.data();
        let text = run(
            need::holm(),
            &["hub", "connection-string", "--data", &data.to_string_lossy()],
        );
        hub.service = Service::new(text.trim().to_owned(), ca, place, HTTPS_PORT);
        hub
    }

    /// Ends the hub as a crash would, and starts it again on the same data and address.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// Ends the hub as a crash would.
    pub fn crash(&mut self) {
        self.daemon.kill();
    }

    /// Starts a hub that has ended, on the same data and address.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn restart(&mut self) {
        self.daemon = spawn(&self.directory, &self.address, &self.host(), self.words);
        self.wait_until_ready();
    }

    /// Ends the hub as a crash would, and starts it again with these options beside the usual ones.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn restart_with(&mut self, options: &[&str]) {
        self.crash();
        let mut command = self.run_command();
        command.args(options);
        self.daemon = Daemon::start("hub", self.directory.path(), &mut command);
        self.wait_until_ready();
    }

    /// Asks the hub to end, as an operator would.
    ///
    /// # Panics
    /// When it does not end in time, or not with success.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.daemon.terminate();
        assert!(status.success(), "the hub ended with {status} after SIGTERM");
    }

    /// The process.
    #[must_use]
    pub const fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The host name, which is an address where no name was given.
    #[must_use]
    pub fn host(&self) -> String {
        let named = self.named.as_ref();
        named.map_or_else(|| self.name.to_string(), |(host, _)| host.clone())
    }

    /// Its own address, whatever is before it.
    #[must_use]
    pub const fn ip(&self) -> Ipv4Addr {
        self.address.ip()
    }

    const fn place(&self) -> Place {
        Place {
            ip: IpAddr::V4(self.address.ip()),
            name: IpAddr::V4(self.name),
        }
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("hub")
    }

    /// The disk of the data directory.
    ///
    /// # Panics
    /// When the hub was not started by [`start_on_small_disk`](Self::start_on_small_disk).
    #[must_use]
    #[track_caller]
    pub const fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("the hub was started on a small disk")
    }

    /// The command that starts this hub once more, to be run by the caller.
    #[must_use]
    pub fn run_command(&self) -> Command {
        run_command(&self.directory, &self.address, &self.host(), self.words)
    }

    /// A directory for files of the test; it ends with the hub.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The CA that clients must trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.data().join("ca.pem")
    }

    /// REST, as the owner.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// The connection string for clients of Event Hubs.
    ///
    /// # Panics
    /// When the command fails.
    #[must_use]
    #[track_caller]
    pub fn event_hub_connection_string(&self) -> String {
        let data = self.data();
        let arguments = [
            "hub",
            "connection-string",
            "--event-hub",
            "--data",
            &data.to_string_lossy(),
        ];
        run(need::holm(), &arguments).trim().to_owned()
    }

    /// The command line `holm`, speaking to this hub; returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn holm(&self, arguments: &[&str]) -> String {
        let done = self.command(arguments).output().expect("the binary can be started");
        let log = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "holm {arguments:?} ended with {}: {log}",
            done.status
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// The command line `holm`, speaking to this hub, to be started by the caller.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let under = self.named.iter().flat_map(|(_, under)| under).map(OsString::from);
        let mut words = under.chain([need::holm().into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .args(arguments)
            .env("HOLM_HUB", self.service.connection_string());
        command.env("SSL_CERT_FILE", self.ca());
        command
    }

    /// Creates a device with keys made by the hub.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    #[track_caller]
    pub fn create_device(&self, id: &str) -> Device {
        self.create_device_with(id, &json!({"deviceId": id}))
    }

    /// Creates a device as a document says.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    #[track_caller]
    pub fn create_device_with(&self, id: &str, document: &Value) -> Device {
        let path = format!("/devices/{}", encode(id));
        let made = self.service.call("PUT", &path, Some(document));
        self.described(id, None, &made)
    }

    /// Creates an edge device with keys made by the hub.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    #[track_caller]
    pub fn create_edge_device(&self, id: &str) -> Device {
        let body = json!({"deviceId": id, "capabilities": {"iotEdge": true}});
        let made = self
            .service
            .call("PUT", &format!("/devices/{}", encode(id)), Some(&body));
        self.described(id, None, &made)
    }

    /// Creates a device below an edge device.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    #[track_caller]
    pub fn create_child(&self, id: &str, parent: &str) -> Device {
        let above = self.service.call("GET", &format!("/devices/{}", encode(parent)), None);
        self.create_device_with(id, &json!({"deviceId": id, "deviceScope": above["deviceScope"]}))
    }

    /// Creates a module with keys made by the hub.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    #[track_caller]
    pub fn create_module(&self, device: &str, module: &str) -> Device {
        let path = format!("/devices/{}/modules/{}", encode(device), encode(module));
        let made = self
            .service
            .call("PUT", &path, Some(&json!({"deviceId": device, "moduleId": module})));
        self.described(device, Some(module), &made)
    }

    /// A device with keys as the registry has it.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn find_device(&self, id: &str) -> Device {
        let found = self.service.call("GET", &format!("/devices/{}", encode(id)), None);
        self.described(id, None, &found)
    }

    /// A module as the registry has it.
    ///
    /// # Errors
    /// What the hub answered, when it has none.
    pub fn find_module(&self, device: &str, module: &str) -> std::result::Result<Device, String> {
        let path = format!("/devices/{}/modules/{}", encode(device), encode(module));
        let answer = self.service.try_call("GET", &path, &[], None);
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        if answer.status == 200 {
            Ok(self.described(device, Some(module), &answer.json()))
        } else {
            Err(String::from_utf8_lossy(&answer.body).into_owned())
        }
    }

    /// Creates a device that proves itself by a certificate with one of these thumbprints.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    #[track_caller]
    pub fn create_x509_device(&self, id: &str, primary: &str, secondary: &str) -> Device {
        let thumbprints = json!({"primaryThumbprint": primary, "secondaryThumbprint": secondary});
        let body = json!({"deviceId": id, "authentication": {"type": "selfSigned", "x509Thumbprint": thumbprints}});
        let made = self
            .service
            .call("PUT", &format!("/devices/{}", encode(id)), Some(&body));
        self.described(id, None, &made)
    }

    /// Everything that the hub's log holds and will hold, as `holm monitor` prints it.
    ///
    /// # Panics
    /// When the command can't be started.
    #[must_use]
    #[track_caller]
    pub fn monitor(&self) -> Monitor {
        Monitor::start(self)
    }

    /// An MQTT connection on which nothing is said yet.
    ///
    /// # Errors
    /// When the TLS handshake fails.
    pub fn mqtt(&self, certificate: Option<&Certificate>) -> Result<mqtt::Client> {
        let stream = tls::connect(self.place(), MQTT_PORT, &self.ca(), certificate)?;
        Ok(mqtt::Client::new(stream))
    }

    /// An AMQP connection on which nothing is said yet.
    ///
    /// # Errors
    /// When the TLS handshake fails.
    pub fn amqp(&self) -> Result<amqp::Client> {
        let stream = tls::connect(self.place(), AMQP_PORT, &self.ca(), None)?;
        Ok(amqp::Client::new(stream))
    }

    /// CONNECT as the Python SDK sends it, with a fresh token of the primary key.
    #[must_use]
    pub fn connect_packet(&self, device: &Device) -> mqtt::Connect {
        let token = Token::sign(&device.primary_key, &self.resource(device), 3600);
        mqtt::Connect::new(&self.host(), &device.identity(), Some(token.text()))
    }

    /// An MQTT connection of a device, welcomed.
    ///
    /// # Panics
    /// When the hub does not welcome it.
    #[must_use]
    #[track_caller]
    pub fn connected(&self, device: &Device) -> mqtt::Client {
        let mut client = self.mqtt(None).unwrap_or_else(|error| panic!("{error:#}"));
        client
            .open(&self.connect_packet(device))
            .unwrap_or_else(|error| panic!("{}: {error:#}", device.identity()));
        client
    }

    /// The resource of a device's token, percent-encoded as the Python SDK does it.
    #[must_use]
    pub fn resource(&self, device: &Device) -> String {
        let module = device
            .module
            .as_ref()
            .map_or_else(String::new, |module| format!("/modules/{module}"));
        encode(&format!("{}/devices/{}{module}", self.host(), device.id))
    }

    fn described(&self, device: &str, module: Option<&str>, made: &Value) -> Device {
        let authentication = &made["authentication"];
        let key = |name: &str| {
            authentication["symmetricKey"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let primary_key = key("primaryKey");
        let credential = match authentication["type"].as_str() {
            Some("selfSigned" | "certificateAuthority") => "x509=true".to_owned(),
            _ => format!("SharedAccessKey={primary_key}"),
        };
        let module_part = module.map_or_else(String::new, |module| format!("ModuleId={module};"));
        Device {
            id: device.to_owned(),
            module: module.map(str::to_owned),
            connection_string: format!("HostName={};DeviceId={device};{module_part}{credential}", self.host()),
            secondary_key: key("secondaryKey"),
            primary_key,
        }
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let ca = self.ca();
        let place = self.place();
        let ip = place.ip;
        self.daemon.wait_until("a hub that listens", || {
            for port in [MQTT_PORT, AMQP_PORT, HTTPS_PORT] {
                TcpStream::connect_timeout(&SocketAddr::new(ip, port), Duration::from_secs(1))
                    .map_err(|error| format!("{ip}:{port}: {error}"))?;
            }
            tls::connect(place, HTTPS_PORT, &ca, None)
                .map(drop)
                .map_err(|error| format!("{error:#}"))
        });
    }
}

fn spawn(directory: &Directory, address: &Address, name: &str, words: Words) -> Daemon {
    let mut command = run_command(directory, address, name, words);
    Daemon::start("hub", directory.path(), &mut command)
}

fn run_command(directory: &Directory, address: &Address, name: &str, words: Words) -> Command {
    let ip = address.ip().to_string();
    let mut command = Command::new(need::holm());
    command
        .args(words)
        .args(["--hostname", name, "--bind", &ip, "--data"])
        .arg(directory.path().join("hub"));
    command.args([
        "--mqtt-port",
        &MQTT_PORT.to_string(),
        "--https-port",
        &HTTPS_PORT.to_string(),
    ]);
    command
}

#[track_caller]
fn run(program: PathBuf, arguments: &[&str]) -> String {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .expect("the binary can be started");
    let log = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "holm {arguments:?} ended with {}: {log}",
        done.status
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}
