//! Programs that hold an original SDK: what to start, with which credential, over which transport.
//!
//! The programs of both languages take the same commands, so one scenario runs in each. They are described at the top of
//! `tests/python/device.py`.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::certificate::Certificate;
use crate::control::Control;
use crate::edge::Edge;
use crate::hub::{Device, Hub};
use crate::need;

/// The language of an SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `azure-iot-device`, `azure-iot-hub` from PyPI.
    Python,
    /// `azure-iot-device`, `azure-iothub` from npm.
    Node,
}

/// How a device SDK connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// MQTT on 8883.
    Mqtt,
    /// MQTT in WebSocket on 443.
    MqttWs,
    /// AMQP on 5671; the Python SDK has none.
    Amqp,
    /// AMQP in WebSocket on 443; the Python SDK has none.
    AmqpWs,
    /// Requests over HTTPS on 443; the Python SDK has none, and devices alone have it.
    Http,
}

impl Transport {
    /// The value for `HOLM_E2E_TRANSPORT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Amqp => "amqp",
            Self::AmqpWs => "amqp-ws",
            Self::Http => "http",
        }
    }
}

/// A program, to be started.
#[derive(Debug)]
pub struct Sdk {
    name: String,
    command: Command,
}

impl Sdk {
    /// The program of a device or module.
    #[must_use]
    pub fn device(language: Language, transport: Transport, hub: &Hub, device: &Device) -> Self {
        let mut sdk = Self::new(language, "device", hub);
        sdk.name = format!("{language:?} {}", device.identity());
        sdk.command.env("HOLM_E2E_TRANSPORT", transport.name());
        sdk.command.env("HOLM_E2E_CONNECTION_STRING", &device.connection_string);
        sdk
    }

    /// The program of a service.
    #[must_use]
    pub fn service(language: Language, hub: &Hub) -> Self {
        let mut sdk = Self::new(language, "service", hub);
        sdk.command
            .env("HOLM_E2E_CONNECTION_STRING", hub.service().connection_string());
        sdk
    }

    /// The program that speaks AMQP as it is told: see [`Amqp`](crate::Amqp).
    pub(crate) fn amqp_client(hub: &Hub) -> Self {
        Self::new(Language::Node, "amqp_client", hub)
    }

    pub(crate) fn new(language: Language, program: &str, hub: &Hub) -> Self {
        let (interpreter, file) = program_of(language, program);
        let mut command = Command::new(interpreter);
        command.arg(file);
        command
            .env_remove("SSL_CERT_DIR")
            .env("NO_PROXY", "*")
            .env("PYTHONUNBUFFERED", "1");
        let mut sdk = Self {
            name: format!("{language:?} {program}"),
            command,
        };
        sdk.trust(&hub.ca());
        sdk
    }

    /// The program of a reader of events; `transport` is what it takes for one.
    #[must_use]
    pub fn events(language: Language, transport: &str, hub: &Hub) -> Self {
        let mut sdk = Self::new(language, "events", hub);
        sdk.command.env("HOLM_E2E_TRANSPORT", transport);
        sdk.with_connection_string(&hub.event_hub_connection_string())
    }

    /// The program of a back end on another implementation of AMQP.
    #[must_use]
    pub fn proton(hub: &Hub) -> Self {
        let mut sdk = Self::new(Language::Python, "proton_service", hub);
        sdk.command.env("HOLM_E2E_HOST", hub.host());
        sdk
    }

    /// Over another transport than the usual one.
    #[must_use]
    pub fn over(mut self, transport: Transport) -> Self {
        self.command.env("HOLM_E2E_TRANSPORT", transport.name());
        self
    }

    /// Each client of the SDKs looks in another place for the CA that it shall trust.
    fn trust(&mut self, ca: &Path) {
        for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            self.command.env(variable, ca);
        }
    }

    /// Trusts the authority of another hub too, to which its device may be sent.
    ///
    /// # Panics
    /// When the authorities can't be read or written.
    #[must_use]
    #[track_caller]
    pub fn trusting_both(mut self, first: &Hub, second: &Hub) -> Self {
        let read = |hub: &Hub| std::fs::read_to_string(hub.ca()).expect("the authority of a hub can be read");
        let bundle = first.scratch().join("both-ca.pem");
        std::fs::write(&bundle, read(first) + &read(second)).expect("a file can be written");
        self.trust(&bundle);
        self
    }

    /// Shows a certificate instead of a token. The device must have been created for it.
    #[must_use]
    pub fn with_certificate(mut self, certificate: &Certificate) -> Self {
        self.command.env("HOLM_E2E_X509_CERTIFICATE", &certificate.certificate);
        self.command.env("HOLM_E2E_X509_KEY", &certificate.key);
        self
    }

    /// Uses another connection string.
    #[must_use]
    pub fn with_connection_string(mut self, text: &str) -> Self {
        self.command.env("HOLM_E2E_CONNECTION_STRING", text);
        self
    }

    /// Connects through an edge instead: nothing but the gateway's host name, and whom to trust, is other. Comes after
    /// [`with_connection_string`](Self::with_connection_string).
    ///
    /// # Panics
    /// When the edge's authority can't be written.
    #[must_use]
    #[track_caller]
    pub fn through(mut self, edge: &Edge, device: &Device) -> Self {
        let text = format!("{};GatewayHostName={}", device.connection_string, edge.ip());
        self.trust(&edge.ca());
        self.with_connection_string(&text)
    }

    /// Gives the program a variable of its environment.
    #[must_use]
    pub(crate) fn with(mut self, variable: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    #[track_caller]
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("`{}` can't be started: {error}", self.name));
        let input = child.stdin.take().expect("the input is a pipe");
        let output = child.stdout.take().expect("the output is a pipe");
        let control = Control::new(&self.name, output, input);
        Running { child, control }
    }
}

/// The interpreter and the file of a program, for those who start it themselves (an edge, in its modules).
#[must_use]
pub fn program_of(language: Language, program: &str) -> (PathBuf, PathBuf) {
    match language {
        Language::Python => (need::python(), need::folder("python").join(format!("{program}.py"))),
        Language::Node => {
            let node = need::find("node").unwrap_or_else(|| PathBuf::from("node"));
            (node, need::folder("node").join(format!("{program}.js")))
        }
    }
}

/// A running program; it ends with this value. Commands and events: see [`Control`].
#[derive(Debug)]
pub struct Running {
    child: Child,
    control: Control,
}

impl Running {
    /// Stops the program where it is, as if its machine hung: it reads nothing any more.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn pause(&self) {
        let told = kill_process(Pid::from_child(&self.child), Signal::STOP);
        told.expect("our own child can be signalled");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn resume(&self) {
        let told = kill_process(Pid::from_child(&self.child), Signal::CONT);
        told.expect("our own child can be signalled");
    }
}

impl Deref for Running {
    type Target = Control;
    fn deref(&self) -> &Control {
        &self.control
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Control {
        &mut self.control
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
