//! The command line: names, options, and what `--help` says of them.

mod access;
#[cfg(feature = "hub")]
mod backup;
#[cfg(feature = "hub")]
mod bounds;
mod c2d;
#[cfg(feature = "hub")]
mod changes;
#[cfg(feature = "hub")]
mod configuration;
#[cfg(all(feature = "hub", feature = "edge"))]
mod demo;
mod device;
#[cfg(feature = "hub")]
mod dps;
#[cfg(feature = "edge")]
mod edge;
mod file;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod job;
mod module;
#[cfg(feature = "hub")]
mod policy;
#[cfg(feature = "hub")]
mod query;
#[cfg(feature = "hub")]
mod routing;
#[cfg(feature = "hub")]
mod serving;
#[cfg(feature = "hub")]
mod simulate;
pub(crate) mod values;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};

use crate::build;
use crate::logging::LogFormat;
use crate::output::WrongUse;

pub(crate) use access::{HubAccess, Login};
#[cfg(feature = "hub")]
pub(crate) use backup::{Backup, BackupVerb, Restore};
pub(crate) use c2d::{Ack, C2d, Feedback, Send};
#[cfg(feature = "hub")]
pub(crate) use configuration::{Aim, Configuration};
#[cfg(all(feature = "hub", feature = "edge"))]
pub(crate) use demo::Demo;
#[cfg(feature = "hub")]
pub(crate) use device::Timeouts;
pub(crate) use device::{Auth, Children, Deploy, Device, DeviceStatus, Method, Monitor, Shown};
#[cfg(feature = "hub")]
pub(crate) use dps::{
    Allocation, Common as DpsCommon, Dps, DpsCertificate, DpsHub, DpsRun, Enrollment, Group as DpsGroup,
    Registration as DpsRegistration, Reprovision, RuleChanges as DpsRuleChanges, Rules as DpsRules, Share, Takeover,
};
#[cfg(feature = "edge")]
pub(crate) use edge::{Check, CheckOutput, Config, DeadLetters, Edge, Level, OnDevice, Socket, SupportBundle, System};
pub(crate) use file::File;
#[cfg(feature = "hub")]
pub(crate) use hub::{ConsumerGroup, Hub, HubRun};
#[cfg(feature = "hub")]
pub(crate) use job::{Job, JobStatus, Schedule};
pub(crate) use module::{
    DeviceArgument, DeviceFilter, Module, OneModule, Properties, RenewedKey, Target, TargetArgument, Twin, TwinChange,
    WhichKey,
};
#[cfg(feature = "hub")]
pub(crate) use policy::{Audit, DpsRight, HubRight, Policy};
#[cfg(feature = "hub")]
pub(crate) use query::Query;
#[cfg(feature = "hub")]
pub(crate) use routing::{
    Endpoint, EndpointSettings, Enrichment, EnrichmentRule, OneRule, Route, RouteRule, RouteTest,
};
#[cfg(feature = "hub")]
pub(crate) use simulate::Simulate;

/// Edge computing that anyone can run: a hub, an edge on each device, modules, and the tools to operate them.
#[derive(Debug, Parser)]
#[command(name = "holm", version = build::text(), after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// How log lines look: `text` or `json` [else HOLM_LOG_FORMAT, else text]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub(crate) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// How log lines look.
    pub(crate) fn log_format(&self) -> Result<LogFormat, WrongUse> {
        let read = |text: &str| LogFormat::from_str(text, true).map_err(|_| "give `text` or `json`".to_owned());
        match self.log_format {
            Some(format) => Ok(format),
            None => Ok(values::variable("HOLM_LOG_FORMAT", read)?.unwrap_or_default()),
        }
    }
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, or the method that was called answered with a status of 400 or more, or the message \
                          that was waited for is not with its device; 2 wrong command line, told before a hub is asked; 3 the demo lost a message.\n\
                          HOLM_LOG says how much is logged (info, debug, holm_edge=debug,info, …).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell the whole story on this machine: a hub, an edge, three modules, a link that is cut.
    #[cfg(all(feature = "hub", feature = "edge"))]
    Demo(Demo),
    /// Run the hub, and what belongs to its data directory.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Hub(Hub),
    /// Run the edge, and look at the one that runs on this device.
    #[cfg(feature = "edge")]
    #[command(subcommand)]
    Edge(Edge),
    /// Remember a hub's connection string for the commands below.
    Login(Login),
    /// Devices of a hub.
    #[command(subcommand)]
    Device(Device),
    /// Modules of a device.
    #[command(subcommand)]
    Module(Module),
    /// Twins of devices and modules.
    #[command(subcommand)]
    Twin(Twin),
    /// Ask which devices or modules there are, with which tags and properties: `SELECT * FROM devices WHERE …`.
    #[cfg(feature = "hub")]
    Query(Query),
    /// Jobs: change twins or call a method of many devices, now or at a time.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Job(Job),
    /// Direct methods.
    #[command(subcommand)]
    Method(Method),
    /// Cloud-to-device messages: send, throw away, learn what became of them.
    #[command(subcommand)]
    C2d(C2d),
    /// Files of devices.
    #[command(subcommand)]
    File(File),
    /// The provisioning service: devices that are expected, and what became of them.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Dps(Dps),
    /// Give one edge device its deployment.
    Deploy(Deploy),
    /// Deployments to all edge devices for which a condition holds.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Deployment(Configuration),
    /// Settings of all devices or modules for which a condition holds.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Configuration(Configuration),
    /// Read the messages that have reached the hub.
    Monitor(Monitor),
    /// Routes of a hub: which messages go to which endpoint.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Route(Route),
    /// Endpoints of message routing: where messages can go, and how they are.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Endpoint(Endpoint),
    /// Properties that the hub adds to messages.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Enrichment(Enrichment),
    /// Shared access policies of a hub: who may do what, and by which keys.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Policy(Policy<HubRight>),
    /// Show who changed what at a hub, the oldest first.
    #[cfg(feature = "hub")]
    Audit(Audit),
    /// Print what a shell needs to complete commands, such as `holm completions bash > /etc/bash_completion.d/holm`.
    #[cfg(feature = "hub")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Simulate a fleet of devices and edges at a hub, over the real protocols.
    #[cfg(feature = "hub")]
    Simulate(Simulate),
    /// Run a ready-made module (as an edge does).
    Run {
        /// Which one.
        #[arg(value_parser = PossibleValuesParser::new(holm_modules::NAMES))]
        name: String,
    },
    /// The supervisor of a process module (as an edge starts it).
    #[cfg(feature = "edge")]
    #[command(hide = true)]
    Supervise {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

#[cfg(all(test, feature = "hub", feature = "edge"))]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn where_one_of_two_is_needed_the_error_names_both() {
        for (line, one, other) in [
            ("holm simulate", "--devices", "--edges"),
            ("holm twin update -d d", "--desired", "--tags"),
            ("holm job update-twins j --where *", "--desired", "--tags"),
            ("holm c2d send -d d", "TEXT", "--file"),
            ("holm device children remove d", "CHILDREN", "--all"),
            ("holm edge dead-letters resend", "IDS", "--all"),
        ] {
            let told = parsed(line).expect_err(line);

            assert!(told.contains(one) && told.contains(other), "{line}: {told}");
        }
    }

    #[test]
    fn a_device_is_the_argument_or_its_option_and_never_both() {
        for command in [
            "device create",
            "device show",
            "device update --edge true",
            "device renew-key --key both",
            "device connection-string",
            "device delete",
            "module list",
            "twin show",
            "twin update --tags {}",
            "twin history",
            "deployment explain",
            "configuration explain",
            "c2d purge",
        ] {
            for taken in ["d", "-d d", "--device d"] {
                assert!(parsed(&format!("holm {command} {taken}")).is_ok(), "{command} {taken}");
            }
            for refused in ["", " d -d d", " d d"] {
                let told = parsed(&format!("holm {command}{refused}")).expect_err(command);
                assert!(
                    told.contains("DEVICE") || told.contains("'d'"),
                    "{command}{refused}: {told}"
                );
            }
        }
    }

    #[test]
    fn a_device_stands_before_what_is_its_or_is_named_by_its_option() {
        for (command, its) in [
            ("module create", "m"),
            ("module show", "m"),
            ("module delete", "m"),
            ("module renew-key --key both", "m"),
            ("module connection-string", "m"),
            ("method invoke --payload 1", "m"),
            ("twin restore", "7"),
            ("deploy", "manifest.json"),
        ] {
            for taken in [
                format!("d {its}"),
                format!("-d d {its}"),
                format!("{its} -d d"),
                format!("{its} --device d --json"),
            ] {
                let read = parsed(&format!("holm {command} {taken}"));
                assert!(read.is_ok(), "{command} {taken}: {}", read.unwrap_err());
            }
            for refused in [its.to_owned(), format!("d -d d {its}"), format!("d {its} {its}")] {
                assert!(
                    parsed(&format!("holm {command} {refused}")).is_err(),
                    "{command} {refused}"
                );
            }
        }
        let Ok(Command::Module(Module::Show { which, .. })) = parsed("holm module show d m").map(|cli| cli.command)
        else {
            panic!("it is a command on a module");
        };
        assert_eq!((which.device(), which.module.as_str()), ("d", "m"));
    }

    #[test]
    fn where_a_device_is_a_filter_it_may_be_left_out() {
        for command in ["monitor", "file list", "audit"] {
            for taken in ["", " d", " -d d", " --device d"] {
                assert!(parsed(&format!("holm {command}{taken}")).is_ok(), "{command}{taken}");
            }
            assert!(parsed(&format!("holm {command} d -d d")).is_err(), "{command}");
        }
        assert!(parsed("holm audit --target d/m").is_ok() && parsed("holm audit d/m --target d/m").is_err());
        assert!(parsed("holm monitor d -m m").is_ok() && parsed("holm monitor -m m").is_err());
        assert!(parsed("holm monitor --partition 1").is_ok() && parsed("holm monitor d --partition 1").is_err());
    }

    #[test]
    fn a_job_begins_at_a_time_and_a_call_waits_within_the_published_bounds() {
        for good in [
            "job update-twins j --where * --tags {} --start 2026-01-02T03:04:05Z --max-seconds 60",
            "job call j m --where * --timeout 300 --connect-timeout 300",
            "method invoke d m --connect-timeout 0",
        ] {
            assert!(parsed(&format!("holm {good}")).is_ok(), "{good}");
        }
        for (wrong, named) in [
            ("job call j m --where * --start tomorrow", "2026-01-02T03:04:05Z"),
            ("job call j m --where * --max-seconds 2592001", "2592000"),
            ("job call j m --where * --connect-timeout 301", "300"),
            ("method invoke d m --connect-timeout 301", "300"),
            ("method invoke d m --timeout 4", "300"),
        ] {
            let told = parsed(&format!("holm {wrong}")).expect_err(wrong);
            assert!(told.contains(named), "{wrong}: {told}");
        }
    }

    #[test]
    fn an_empty_id_is_a_wrong_command_line_and_told_to_be_empty() {
        for (line, named) in [
            ("device show ", "DEVICE"),
            ("device create --device=", "DEVICE"),
            ("device children list ", "PARENT"),
            ("device children add p ", "CHILDREN"),
            ("module show -d d ", "MODULE"),
            ("module list ", "DEVICE"),
            ("twin show d --module=", "MODULE"),
            ("method invoke -d= m", "DEVICE"),
            ("method invoke -d d ", "NAME"),
            ("c2d purge --device=", "DEVICE"),
            ("c2d send --device= x", "DEVICE"),
            ("file list --device=", "DEVICE"),
            ("file get ", "NAME"),
            ("monitor --device=", "DEVICE"),
            ("deploy --device= m.json", "DEVICE"),
            ("job show ", "ID"),
            ("job call --where=* j ", "NAME"),
            ("deployment show ", "ID"),
            ("configuration explain ", "DEVICE"),
            ("dps enrollment show ", "ID"),
            ("dps group delete ", "ID"),
            ("dps registration list --group=", "ID"),
            ("dps certificate code ", "NAME"),
            ("policy show ", "NAME"),
            ("route show ", "NAME"),
        ] {
            let told = parsed(&format!("holm {line}")).expect_err(line);

            assert!(told.contains("it is empty") && told.contains(named), "{line}: {told}");
        }
    }

    #[test]
    fn a_state_that_no_job_has_is_refused_with_those_that_there_are() {
        let of_job = parsed("holm job list --status bogus").expect_err("it is no state");
        let of_device = parsed("holm job devices j --status bogus").expect_err("it is no state");

        assert!(of_job.contains("queued") && of_job.contains("cancelled"), "{of_job}");
        assert!(
            of_device.contains("pending") && of_device.contains("canceled"),
            "{of_device}"
        );
        assert!(
            parsed("holm job devices j --status Cancelled").is_ok()
                && parsed("holm job list --status canceled").is_ok()
        );
    }
}
