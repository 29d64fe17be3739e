//! An edge of a test: a process of the binary, its configuration, and modules that hold an original SDK.
//!
//! Modules are the programs of `tests/python` and `tests/node`. The edge starts them, as processes or in containers; they call
//! in at the test's [`Switchboard`], and are steered like those that a test starts itself.

mod deployment;
mod engine_turn;
mod process;
mod setup;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::address::Address;
use crate::control::{Control, Switchboard};
use crate::daemon::{Daemon, Directory};
use crate::hub::{Device, HTTPS_PORT, Hub, MQTT_PORT};
use crate::need;
use crate::patience;
use crate::processes;
use crate::sdk::{Language, program_of};
use crate::small_disk::SmallDisk;
use crate::wire::http::{self, Answer};
use crate::wire::mqtt;
use crate::wire::tls::{self, Place};

pub use deployment::{IMAGE, Runtime, SdkModule, deploy, manifest, reported, wait_until_reported};
pub use process::configuration;
pub use setup::{DataOn, Setup};

use deployment::program_name;
use engine_turn::EngineTurn;
use process::{NO_ENGINE, after_reboot, own_program, run_command, spawn, write};
use setup::Disk;

/// An edge; it ends with this value. Its modules end too: they are this test's, not a device's.
#[derive(Debug)]
pub struct Edge {
    daemon: Daemon,
    switchboard: Switchboard,
    address: Address,
    hostname: String,
    /// Goes before the directory that it is mounted in, and after the process that uses it.
    disk: Option<Disk>,
    directory: Directory,
    engine: Option<EngineTurn>,
    setup: Setup,
    /// How often its device was started anew.
    boots: u32,
}

impl Edge {
    /// Starts an edge of a device of the hub. Its host name is its loopback address.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start(hub: &Hub, device: &Device) -> Self {
        Self::start_with(hub, device, Setup::default())
    }

    /// Starts an edge that is other than usual. Its host name is its loopback address.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start_with(hub: &Hub, device: &Device, setup: Setup) -> Self {
        let address = Address::take();
        let hostname = address.ip().to_string();
        Self::start_as(hub, device, address, hostname, Ipv4Addr::LOCALHOST, None, setup)
    }

    /// Starts an edge whose data is on a disk of its own that the test can fill.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start_on_small_disk(hub: &Hub, device: &Device) -> Self {
        let setup = Setup {
            data: DataOn::SmallDisk,
            ..Setup::default()
        };
        Self::start_with(hub, device, setup)
    }

    /// Starts an edge whose power can be cut ([`power_cut`](Self::power_cut)).
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start_on_power_disk(hub: &Hub, device: &Device) -> Self {
        let setup = Setup {
            data: DataOn::PowerDisk,
            ..Setup::default()
        };
        Self::start_with(hub, device, setup)
    }

    /// Starts an edge whose modules are in containers: they reach it, and the test, by a name.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start_for_containers(hub: &Hub, device: &Device) -> Self {
        let name = "edge.test".to_owned();
        let turn = Some(EngineTurn::take());
        let setup = Setup::default();
        Self::start_as(hub, device, Address::take(), name, Ipv4Addr::UNSPECIFIED, turn, setup)
    }

    /// Starts an edge that is named by its loopback address and has modules of both kinds.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start_beside_containers(hub: &Hub, device: &Device) -> Self {
        let address = Address::take();
        let name = address.ip().to_string();
        let turn = Some(EngineTurn::take());
        let setup = Setup::default();
        Self::start_as(hub, device, address, name, Ipv4Addr::UNSPECIFIED, turn, setup)
    }

    #[track_caller]
    fn start_as(
        hub: &Hub,
        device: &Device,
        address: Address,
        hostname: String,
        listen: Ipv4Addr,
        engine: Option<EngineTurn>,
        setup: Setup,
    ) -> Self {
        let directory = Directory::new();
        let disk = Disk::mount(setup.data, &directory.path().join("edge"));
        let mut config = configuration(hub, device, address.ip(), &hostname, directory.path());
        if engine.is_some() {
            config = config.replace(NO_ENGINE, "");
        }
        if let Some(lines) = &setup.provisioning {
            let usual = format!(
                "source = \"manual\"\nconnection_string = \"{}\"\n",
                device.connection_string
            );
            config = config.replace(&usual, lines);
        }
        if let Some(socket) = &setup.engine {
            config = config.replace("/nonexistent/docker.sock", &socket.to_string_lossy());
        }
        config = config.replace("[holm]\n", &format!("[holm]\n{}\n", setup.holm.join("\n")));
        write(&directory.path().join("edge.toml"), &config, 0o600);
        for language in [Language::Python, Language::Node] {
            let (interpreter, file) = program_of(language, "device");
            let script = format!("#!/bin/sh\nexec {} {}\n", interpreter.display(), file.display());
            write(
                &directory.path().join("modules").join(program_name(language)),
                &script,
                0o755,
            );
        }
        let mut edge = Self {
            daemon: spawn(&directory, &setup),
            switchboard: Switchboard::open(IpAddr::V4(listen)),
            address,
            hostname,
            disk,
            directory,
            engine,
            setup,
            boots: 0,
        };
        edge.wait_until_ready();
        edge
    }

    /// The process.
    #[must_use]
    pub const fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("edge")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("edge.toml")
    }

    /// The management socket, as `-H` takes it.
    #[must_use]
    pub fn socket_uri(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Waits until the edge is connected to its hub.
    ///
    /// # Panics
    /// When it is not for long.
    #[track_caller]
    pub fn wait_for_link(&self) {
        patience::wait("the link", patience::long(), || {
            let status = self.status();
            if status["link"]["connected"] == true {
                Ok(())
            } else {
                Err(status["link"].to_string())
            }
        });
    }

    /// Its certificate authority, which devices below it trust: a file.
    ///
    /// # Panics
    /// When the edge does not tell.
    #[must_use]
    #[track_caller]
    pub fn ca(&self) -> PathBuf {
        let config = self.directory.path().join("edge.toml");
        let pem = self.holm(&["ca", "--config", &config.to_string_lossy()]);
        let path = self.directory.path().join("edge-ca.pem");
        write(&path, &pem, 0o644);
        path
    }

    /// An MQTT connection to it on which nothing is said yet.
    ///
    /// # Errors
    /// When the TLS handshake fails.
    pub fn mqtt(&self, ca: &Path) -> anyhow::Result<mqtt::Client> {
        let ip = IpAddr::V4(self.ip());
        let stream = tls::connect(Place { ip, name: ip }, MQTT_PORT, ca, None)?;
        Ok(mqtt::Client::new(stream))
    }

    /// Asks its HTTPS port, with exactly these headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> anyhow::Result<Answer> {
        let ip = IpAddr::V4(self.ip());
        let stream = tls::connect(Place { ip, name: ip }, HTTPS_PORT, &self.ca(), None)?;
        let host = self.ip().to_string();
        let mut all = vec![("Host", host.as_str())];
        all.extend(headers);
        http::request(stream, method, target, &all, body)
    }

    /// Its address.
    #[must_use]
    pub const fn ip(&self) -> Ipv4Addr {
        self.address.ip()
    }

    /// The disk of the data directory.
    ///
    /// # Panics
    /// When the edge was not started by [`start_on_small_disk`](Self::start_on_small_disk).
    #[must_use]
    #[track_caller]
    pub const fn disk(&self) -> &SmallDisk {
        match &self.disk {
            Some(Disk::Small(disk)) => disk,
            _ => panic!("the edge was started on a small disk"),
        }
    }

    /// Cuts the power of the device: from one moment on nothing reaches its disk, and edge, supervisors and modules die.
    /// Returns when the disk has power again, with what was synced; [`restart`](Self::restart) then, and the edge sees a
    /// device that was started anew.
    ///
    /// # Panics
    /// When the edge was not started by [`start_on_power_disk`](Self::start_on_power_disk), or something goes on.
    #[track_caller]
    pub fn power_cut(&mut self) {
        let Some(Disk::Power(disk)) = &self.disk else {
            panic!("the edge was started on a disk whose power can be cut");
        };
        disk.cut();
        self.daemon.kill();
        processes::end_modules(&self.data());
        // Waits until nobody uses it any more.
        disk.power_on();
        self.boots += 1;
    }

    /// The command that starts this edge once more, to be run by the caller.
    #[must_use]
    pub fn run_command(&self) -> Command {
        let command = run_command(&self.directory, &self.setup);
        match self.boots {
            0 => command,
            boots => after_reboot(boots, self.directory.path(), &command),
        }
    }

    /// An MQTT connection of a module, welcomed. Waits until the edge knows the module by the key that the hub's registry
    /// shows, which is the edge's own choice.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn connected(&self, hub: &Hub, device: &Device, module: &str) -> mqtt::Client {
        let ca = self.directory.path().join("edge-ca.pem");
        let config = self.directory.path().join("edge.toml");
        std::fs::write(&ca, self.holm(&["ca", "--config", &config.to_string_lossy()])).expect("a file can be written");
        let ip = IpAddr::V4(self.ip());
        patience::wait(&format!("a welcome for `{module}`"), patience::long(), || {
            let module = hub.find_module(&device.id, module)?;
            let stream = tls::connect(Place { ip, name: ip }, MQTT_PORT, &ca, None);
            let mut client = mqtt::Client::new(stream.map_err(|error| format!("{error:#}"))?);
            let welcome = client.open(&hub.connect_packet(&module));
            welcome.map(|_| client).map_err(|error| format!("{error:#}"))
        })
    }

    /// Ends the edge as a crash would. Its modules go on.
    pub fn crash(&mut self) {
        self.daemon.kill();
    }

    /// Asks the edge to end. Its modules go on.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.daemon.terminate()
    }

    /// Starts an edge that has ended, on the same data and address.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn restart(&mut self) {
        self.daemon = Daemon::start("edge", self.directory.path(), &mut self.run_command());
        self.wait_until_ready();
    }

    /// Puts a program where this edge is started from, as an installation does: beside it, and renamed. From then on the edge
    /// has a file of its own.
    ///
    /// # Panics
    /// When there is no room for it.
    #[track_caller]
    pub fn install(&self, program: &Path) {
        let own = own_program(&self.directory);
        let new = own.with_extension("new");
        std::fs::create_dir_all(own.parent().unwrap_or(&own)).expect("a directory of the test can be made");
        std::fs::copy(program, &new).unwrap_or_else(|error| panic!("`{}` can't be copied: {error}", program.display()));
        std::fs::rename(&new, &own).expect("a file can be renamed");
    }

    /// The file of its own program; it is there after [`install`](Self::install).
    #[must_use]
    pub fn program(&self) -> PathBuf {
        own_program(&self.directory)
    }

    /// Which build runs, as the edge says itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn build(&self) -> String {
        self.status()["build"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for the next module that calls in, whichever it is.
    ///
    /// # Panics
    /// When none does, with the end of the edge's log.
    #[must_use]
    #[track_caller]
    pub fn accept(&self) -> Control {
        self.switchboard.accept()
    }

    /// Waits for these modules to call in, in any order, and returns them in this one.
    ///
    /// # Panics
    /// When one does not.
    #[must_use]
    #[track_caller]
    pub fn accept_all<const N: usize>(&self, names: [&str; N]) -> [Control; N] {
        let mut called: Vec<Control> = Vec::new();
        while called.len() < N {
            called.push(self.accept());
        }
        names.map(|name| {
            let index = called.iter().position(|control| control.name() == name);
            called.swap_remove(index.unwrap_or_else(|| panic!("`{name}` did not call in; there are {called:?}")))
        })
    }

    /// Says that a deployment of this test makes a container of this name, so that it is removed at the end.
    ///
    /// # Panics
    /// When the edge was not started for containers.
    #[track_caller]
    pub fn owns_container(&self, name: &'static str) {
        let turn = self
            .engine
            .as_ref()
            .expect("the edge was started by `start_for_containers`");
        turn.containers.borrow_mut().push(name);
    }

    /// The management command, speaking to this edge; returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn holm(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(need::holm());
        command
            .arg("edge")
            .args(arguments)
            .env("IOTEDGE_HOST", format!("unix://{}", self.socket().display()));
        let done = command.output().expect("the binary can be started");
        let log = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "holm edge {arguments:?} ended with {}: {log}",
            done.status
        );
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// How the edge stands, as it says itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Value {
        let text = self.holm(&["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("`holm edge status` printed `{text}`: {error}"))
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("mgmt.sock")
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let socket = self.socket();
        self.daemon.wait_until("an edge that answers", || {
            std::os::unix::net::UnixStream::connect(&socket)
                .map(drop)
                .map_err(|error| error.to_string())
        });
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Modules outlive their edge by design; a deployment without them ends them, and it may not come any more. What
        // restarts them is the edge, so it goes first.
        self.daemon.kill();
        processes::end_modules(&self.data());
    }
}
