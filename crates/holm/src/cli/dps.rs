//! The provisioning service of a hub.

mod rules;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(crate) use rules::{Allocation, Reprovision, RuleChanges, Rules, Takeover};

use super::{DpsRight, HubAccess, Policy, RenewedKey, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Dps {
    /// Run a provisioning service in a process of its own, which gives devices to linked hubs; a hub has one in its process
    /// already.
    #[cfg(feature = "hub")]
    Run(Box<DpsRun>),
    /// Single devices that are expected.
    #[command(subcommand)]
    Enrollment(Enrollment),
    /// Groups of devices that are expected, which prove themselves alike.
    #[command(subcommand)]
    Group(Group),
    /// What became of devices that have registered.
    #[command(subcommand)]
    Registration(Registration),
    /// The hubs that devices are given to.
    #[command(subcommand)]
    Hub(DpsHub),
    /// Certificates of authorities, which enrollments name.
    #[command(subcommand)]
    Certificate(DpsCertificate),
    /// Its shared access policies: who may do what, and by which keys.
    #[command(subcommand)]
    Policy(Policy<DpsRight>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enrollment {
    /// Expect a device. It proves itself by keys, which the hub makes, by a certificate, or by its TPM.
    Create {
        /// Its registration id.
        #[arg(value_parser = values::id)]
        id: String,
        /// The device that it becomes [default: as the registration id]
        #[arg(long, value_name = "ID")]
        device_id: Option<String>,
        /// Its certificate (PEM).
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// The certificate to change to (PEM).
        #[arg(long, value_name = "FILE", requires = "certificate")]
        secondary_certificate: Option<PathBuf>,
        /// The kept certificate that signs its certificate, by its name.
        #[arg(long, value_name = "NAME", conflicts_with = "certificate")]
        signed_by: Option<String>,
        /// The endorsement key of its TPM: base64 of the `TPM2B_PUBLIC` that the device's tools show.
        #[arg(long, value_name = "BASE64", conflicts_with_all = ["certificate", "signed_by"])]
        tpm_endorsement_key: Option<String>,
        /// The storage root key of its TPM, in the same form [default: any of that TPM]
        #[arg(long, value_name = "BASE64", requires = "tpm_endorsement_key")]
        tpm_storage_root_key: Option<String>,
        #[command(flatten)]
        rules: Box<Rules>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Change what a device is expected to be. What is not said stays; it counts from its next registration.
    Update {
        /// Its registration id.
        #[arg(value_parser = values::id)]
        id: String,
        /// The device that it becomes.
        #[arg(long, value_name = "ID")]
        device_id: Option<String>,
        /// Its certificate (PEM).
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// The certificate to change to (PEM).
        #[arg(long, value_name = "FILE")]
        secondary_certificate: Option<PathBuf>,
        /// There is no certificate to change to any more.
        #[arg(long, conflicts_with = "secondary_certificate")]
        no_secondary: bool,
        /// The kept certificate that signs its certificate, by its name.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["certificate", "secondary_certificate"])]
        signed_by: Option<String>,
        #[command(flatten)]
        rules: Box<RuleChanges>,
        #[command(flatten)]
        hub: HubAccess,
    },
    #[command(flatten)]
    Common(Common),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Expect devices. They prove themselves by keys derived from the group's, which the hub makes, or by certificates that
    /// another one has signed.
    Create {
        /// The group's id.
        #[arg(value_parser = values::id)]
        id: String,
        /// The certificate that signs those of the devices: a root or an intermediate (PEM).
        #[arg(long, value_name = "FILE")]
        signing_certificate: Option<PathBuf>,
        /// The certificate to change to (PEM).
        #[arg(long, value_name = "FILE", requires = "signing_certificate")]
        secondary_signing_certificate: Option<PathBuf>,
        /// The kept certificate that signs those of the devices, by its name.
        #[arg(long, value_name = "NAME", conflicts_with = "signing_certificate")]
        signed_by: Option<String>,
        /// The kept certificate to change to.
        #[arg(long, value_name = "NAME", requires = "signed_by")]
        secondary_signed_by: Option<String>,
        #[command(flatten)]
        rules: Rules,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Change what the devices of a group are expected to be. What is not said stays; it counts from their next registration.
    Update {
        /// The group's id.
        #[arg(value_parser = values::id)]
        id: String,
        /// The certificate that signs those of the devices: a root or an intermediate (PEM).
        #[arg(long, value_name = "FILE")]
        signing_certificate: Option<PathBuf>,
        /// The certificate to change to (PEM).
        #[arg(long, value_name = "FILE")]
        secondary_signing_certificate: Option<PathBuf>,
        /// There is no certificate to change to any more.
        #[arg(long, conflicts_with_all = ["secondary_signing_certificate", "secondary_signed_by"])]
        no_secondary: bool,
        /// The kept certificate that signs those of the devices, by its name.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["signing_certificate", "secondary_signing_certificate"])]
        signed_by: Option<String>,
        /// The kept certificate to change to.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["signing_certificate", "secondary_signing_certificate"])]
        secondary_signed_by: Option<String>,
        #[command(flatten)]
        rules: Box<RuleChanges>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Print the key of a device of a group.
    DeviceKey {
        /// The group's id.
        #[arg(value_parser = values::id)]
        id: String,
        /// The registration id of the device, as it writes it.
        #[arg(long, value_name = "ID", value_parser = values::id)]
        registration: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    #[command(flatten)]
    Common(Common),
}

/// What can be done with both.
#[derive(Debug, Subcommand)]
pub(crate) enum Common {
    /// Show one.
    Show {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// Also its keys.
        #[arg(long)]
        keys: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List all.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Let its devices register again.
    Enable {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// Also enable the devices that have registered, at the hub that is spoken to.
        #[arg(long)]
        with_device: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Let its devices register no more; those that have stay devices of the hub.
    Disable {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// Also disable the devices that have registered, at the hub that is spoken to: their connections end.
        #[arg(long)]
        with_device: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Give it a new key. Devices register by a key that is good; those that have registered are known at their hubs by the old one
    /// until they register again.
    RenewKey {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// Which key.
        #[arg(long, value_enum)]
        key: RenewedKey,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete it; its devices stay devices of the hub.
    Delete {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Registration {
    /// Show what became of a device.
    Show {
        /// Its registration id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List what became of the devices of a group.
    List {
        /// The group.
        #[arg(long, value_name = "ID", value_parser = values::id)]
        group: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Forget what became of a device: its next registration is its first. The device stays.
    Delete {
        /// Its registration id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DpsHub {
    /// Link another hub, or give anew how it is reached: devices can be given to it from then on.
    Add {
        /// The file with its connection string, of a policy with RegistryRead, RegistryWrite and ServiceConnect; `-` reads
        /// standard input.
        #[arg(long, value_name = "FILE")]
        link_file: PathBuf,
        /// The authority to trust with it (PEM), such as `ca.pem` in its data directory [default: the system's]
        #[arg(long, value_name = "FILE")]
        link_ca: Option<PathBuf>,
        #[command(flatten)]
        share: Share,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List the hubs, with that of the service's own process.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Change how many devices a hub is given.
    Update {
        /// Its host name.
        #[arg(value_parser = values::id)]
        host: String,
        #[command(flatten)]
        share: Share,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Forget a linked hub. Its devices stay there; when they register next they are given to others, and begin anew.
    Remove {
        /// Its host name.
        #[arg(value_parser = values::id)]
        host: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DpsCertificate {
    /// Keep the certificate of an authority. It counts when it is verified.
    Create {
        /// What enrollments call it: 1 to 64 letters, digits, `-`, `_` or `.`.
        #[arg(value_parser = values::id)]
        name: String,
        /// The certificate: a root or an intermediate (PEM).
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Its key is known to be its owner's.
        #[arg(long)]
        verified: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Print a code, for which the authority is to sign a certificate with the code as its common name.
    Code {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show the certificate that was signed for the code.
    Verify {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        /// The certificate for the code (PEM).
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List them.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete one: who is let in by it alone no longer is.
    Delete {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// How many devices a hub is given.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Its share, against the weights of the others [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) weight: Option<u32>,
    /// Give it devices only of enrollments that name it.
    #[arg(long, conflicts_with = "allocation")]
    pub(crate) no_allocation: bool,
    /// Give it devices of all enrollments that name no hub.
    #[arg(long)]
    pub(crate) allocation: bool,
}

#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub(crate) struct DpsRun {
    #[command(flatten)]
    pub(crate) serving: super::serving::Serving,
    /// Where `/healthz` and `/metrics` are served, in plain HTTP.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) status: std::net::SocketAddr,
    /// The most devices that register each minute; those above are told when to come again [default: as many as the machine
    /// bears]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_registrations_per_minute: Option<u32>,
    /// How many days the certificates live that are made for devices which register, 1 to 3650.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) issued_certificate_days: u32,
    /// Check settings and data directory, and stop.
    #[arg(long)]
    pub(crate) check: bool,
}
