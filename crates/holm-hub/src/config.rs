//! What a hub is told at its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "s3")]
use holm_identity::Secret;

use crate::events;

/// The configuration of a hub.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The data directory: database, event log, certificates. One hub at a time uses it.
    pub data: PathBuf,
    /// The name that clients know the hub by: in connection strings, tokens and the server certificate.
    pub hostname: String,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port of MQTT over TLS. Default 8883.
    pub mqtt_port: u16,
    /// The port of AMQP over TLS. Default 5671.
    pub amqp_port: u16,
    /// The port of HTTPS and WebSocket. Default 443.
    pub https_port: u16,
    /// Where health and metrics are served; `None`: nowhere.
    pub metrics_bind: Option<SocketAddr>,
    /// Partitions of the event log, 2 to 32; counts at the first start only, since it decides which partition a device's
    /// messages are in. Default 4.
    pub partitions: u16,
    /// Of what the hub tells `events` by events of its own; once a route names a source, routes alone decide for it.
    pub event_sources: EventSources,
    /// Below it endpoints of message routing may write files; `None`: `routed` in the data directory.
    pub routed_files: Option<PathBuf>,
    /// How long events are kept, 1 to 7 days. Default 1 day.
    pub retention: Duration,
    /// The most bytes of events kept in each partition; the oldest go first. Default 1 GiB.
    pub retention_bytes: u64,
    /// Bounds of the cloud-to-device messages of a device. The lock counts for callers without a session (HTTPS).
    pub c2d: QueueBounds,
    /// Bounds of the feedback on these messages.
    pub feedback: QueueBounds,
    /// Bounds of the notifications of files.
    pub file_notifications: QueueBounds,
    /// Files of devices; `None`: the hub takes none.
    pub files: Option<FileConfig>,
    /// Whether this process is a provisioning service and no hub: devices are given to linked hubs alone. Default false.
    pub provisioning_only: bool,
    /// The most clients let in each second over MQTT and AMQP, at least [`HubConfig::LEAST_LOGINS`]; those above wait up to
    /// 10 s, then are told to come again. Default `None`: no limit but the machine's.
    pub logins_per_second: Option<NonZeroU32>,
    /// The most devices that register each minute; those above are told when to come again. Default `None`: no limit but the
    /// machine's.
    pub registrations_per_minute: Option<NonZeroU32>,
    /// How many days the certificates live that are made for devices which register, 1 to 3650. Default 90. Too short, and a device
    /// that was away can't log in any more before it registers again; too long, and a stolen key is good for as long.
    pub issued_certificate_days: u32,
    /// What is kept of who changed what.
    pub audit: ChangeBounds,
    /// What is kept of what twins were; an age of zero keeps nothing.
    pub twin_history: ChangeBounds,
}

/// Where files of devices go, and how they come.
#[derive(Clone, Debug)]
pub struct FileConfig {
    /// The directory of the blob store; `None`: `blobs` in the data directory.
    pub directory: Option<PathBuf>,
    /// The bucket that keeps the files instead; the directory then holds what is on its way there.
    #[cfg(feature = "s3")]
    pub s3: Option<S3Config>,
    /// The most bytes of all files. Default 10 GiB. What is beyond it is refused; nothing is deleted for it.
    pub quota: u64,
    /// How long a device may take for an upload, 1 minute to 24 hours. Default 1 hour.
    pub upload_life: Duration,
    /// Whether back ends are told of each file. Default true.
    pub notifications: bool,
}

/// A bucket of an S3-compatible store.
#[cfg(feature = "s3")]
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Where the store is, such as `https://s3.eu-west-1.amazonaws.com`; `http://` for one on a network that can be trusted.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The name of the access key.
    pub access_key: String,
    /// The access key.
    pub secret_key: Secret,
    /// What stands before the names of objects. Objects of such names are this hub's alone: those that it does not know
    /// are removed.
    pub prefix: String,
}

impl FileConfig {
    /// What is allowed as life of an upload.
    pub const UPLOAD_LIFE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(24 * 3600);

    /// What is wrong, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if Self::UPLOAD_LIFE.contains(&self.upload_life) {
            return Ok(());
        }
        let given = self.upload_life.as_secs_f64();
        Err(format!("the life of an upload is {given} s; give 60 s to 24 hours"))
    }
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            directory: None,
            #[cfg(feature = "s3")]
            s3: None,
            quota: 10 << 30,
            upload_life: Duration::from_secs(3600),
            notifications: true,
        }
    }
}

/// How long and how often something is offered to those who are to take it.
///
/// Source: `hub-service-api.md` §5.2, §5.3; `hub-device-protocols.md` §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// How long it waits if its sender does not say; then it is given up. 1 minute to 2 days; default 1 hour.
    pub time_to_live: Duration,
    /// How long it is held for one who has taken it, 5 to 300 s; default 60 s. Too short, and the slow get it twice; too long,
    /// and what a dead one held comes late.
    pub lock: Duration,
    /// How often it is offered to those who abandon it, 1 to 100; default 10.
    pub max_deliveries: u32,
}

impl QueueBounds {
    /// What is allowed as time to live.
    pub const TIME_TO_LIVE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(48 * 3600);
    /// What is allowed as lock.
    pub const LOCK: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(300);
    /// What is allowed as number of deliveries.
    pub const MAX_DELIVERIES: RangeInclusive<u32> = 1..=100;

    /// What is wrong, if anything; `of` says whose bounds they are.
    pub(crate) fn check(&self, of: &str) -> Result<(), String> {
        let seconds = |time: Duration| time.as_secs_f64();
        if !Self::TIME_TO_LIVE.contains(&self.time_to_live) {
            let given = seconds(self.time_to_live);
            return Err(format!("the time to live of {of} is {given} s; give 60 s to 2 days"));
        }
        if !Self::LOCK.contains(&self.lock) {
            return Err(format!("the lock of {of} is {} s; give 5 to 300 s", seconds(self.lock)));
        }
        if !Self::MAX_DELIVERIES.contains(&self.max_deliveries) {
            let given = self.max_deliveries;
            return Err(format!("the deliveries of {of} are {given}; give 1 to 100"));
        }
        Ok(())
    }
}

impl Default for QueueBounds {
    fn default() -> Self {
        Self {
            time_to_live: Duration::from_secs(3600),
            lock: Duration::from_secs(60),
            max_deliveries: 10,
        }
    }
}

/// How long, and how many, changes are known that somebody made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeBounds {
    /// The oldest that is kept.
    pub age: Duration,
    /// The most that are kept; the oldest go first. A record has some 200 bytes.
    pub records: u64,
}

impl ChangeBounds {
    /// Of twins: 7 days, a million changes.
    pub const TWINS: Self = Self {
        age: Duration::from_secs(7 * 24 * 3600),
        records: 1_000_000,
    };
    /// Of the audit log: 90 days, a million records of each kind.
    pub const AUDIT: Self = Self {
        age: Duration::from_secs(90 * 24 * 3600),
        records: 1_000_000,
    };
}

/// Of what the hub tells those who read its events, beside what devices send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSources {
    /// Twins that changed. Default yes.
    pub twin_changes: bool,
    /// Devices and modules that were made and removed. Default yes.
    pub lifecycle: bool,
    /// Devices and modules that connected and disconnected, each at most once a minute. Default no: a fleet that reconnects
    /// would write as many events.
    pub connection_states: bool,
    /// What jobs did with devices and modules. Default no.
    pub device_jobs: bool,
    /// Digital twins that changed. Default no: the twins that changed are told already.
    pub digital_twin_changes: bool,
}

impl EventSources {
    /// Whether events of that published name are told.
    #[must_use]
    pub fn has(&self, source: &str) -> bool {
        match source {
            events::TWIN_CHANGES => self.twin_changes,
            events::LIFECYCLE => self.lifecycle,
            events::CONNECTION_STATES => self.connection_states,
            events::DEVICE_JOBS => self.device_jobs,
            events::DIGITAL_TWIN_CHANGES => self.digital_twin_changes,
            _ => true,
        }
    }
}

impl Default for EventSources {
    fn default() -> Self {
        Self {
            twin_changes: true,
            lifecycle: true,
            connection_states: false,
            device_jobs: false,
            digital_twin_changes: false,
        }
    }
}

impl HubConfig {
    /// The least limit of logins: what the smallest unit of the original lets in each second (`hub-service-api.md` §9).
    pub const LEAST_LOGINS: u32 = 100;

    /// The defaults for a data directory and host name.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, hostname: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            hostname: hostname.into(),
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mqtt_port: 8883,
            amqp_port: 5671,
            https_port: 443,
            metrics_bind: None,
            partitions: 4,
            event_sources: EventSources::default(),
            routed_files: None,
            retention: Duration::from_secs(24 * 3600),
            retention_bytes: 1 << 30,
            c2d: QueueBounds::default(),
            feedback: QueueBounds::default(),
            file_notifications: QueueBounds::default(),
            files: Some(FileConfig::default()),
            provisioning_only: false,
            logins_per_second: None,
            registrations_per_minute: None,
            issued_certificate_days: 90,
            audit: ChangeBounds::AUDIT,
            twin_history: ChangeBounds::TWINS,
        }
    }

    /// The directory below which endpoints of message routing may write.
    #[must_use]
    pub fn routed_files(&self) -> PathBuf {
        let own = || self.data.join("routed");
        self.routed_files.clone().unwrap_or_else(own)
    }

    /// The names that the hub goes by, in its certificate and in tokens: host name, `localhost`, bind address.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.hostname.clone(), "localhost".to_owned()];
        let addresses = if self.bind.is_unspecified() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            self.bind
        };
        names.push(addresses.to_string());
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.to_ascii_lowercase()));
        names
    }

    /// The host of service connection strings: with the HTTPS port where it is not the published one.
    #[must_use]
    pub fn service_host(&self) -> String {
        match self.https_port {
            0 | 443 => self.hostname.clone(),
            port => format!("{}:{port}", self.hostname),
        }
    }

    /// The names that tokens may name the hub by: those of the certificate, and the same with a port that is not the
    /// published one, since some SDKs sign what the connection string says.
    #[must_use]
    pub fn token_hosts(&self) -> Vec<String> {
        let mut hosts = self.names();
        if !matches!(self.https_port, 0 | 443) {
            let with_port: Vec<_> = hosts.iter().map(|host| format!("{host}:{}", self.https_port)).collect();
            hosts.extend(with_port);
        }
        hosts
    }

    /// The first label of the host name, which the published interfaces call the hub's name; an IP address has no labels, and is it
    /// whole.
    #[must_use]
    pub fn hub_name(&self) -> String {
        let is_address = self.hostname.parse::<IpAddr>().is_ok();
        let label = self.hostname.split('.').next().filter(|_| !is_address);
        label.unwrap_or(&self.hostname).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_hub_is_its_first_label_or_its_whole_address() {
        for (host, name) in [
            ("hub.test", "hub"),
            ("hub", "hub"),
            ("127.0.0.1", "127.0.0.1"),
            ("10.hub.test", "10"),
            ("::1", "::1"),
        ] {
            assert_eq!(HubConfig::new("/nowhere", host).hub_name(), name);
        }
    }
}
