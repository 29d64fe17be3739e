//! The configuration file, and the name that it gives the device.

use super::{Check, Finding, Group, Looking, Subject, Verdict};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "aziot-edged-config-well-formed",
        group: Group::Configuration,
        about: "the configuration file can be used",
        look: well_formed,
    },
    Check {
        id: "hostname",
        group: Group::Configuration,
        about: "modules and devices can find the edge by its host name",
        look: hostname,
    },
];

/// A label of a name in the domain name system; RFC 1035 §2.3.4.
const LONGEST_LABEL: usize = 63;
/// What a certificate's common name holds.
const LONGEST_HOSTNAME: usize = 64;

fn well_formed(subject: &Subject) -> Looking<'_> {
    let verdict = match &subject.config {
        Ok(loaded) if loaded.notes.is_empty() => Verdict::Fine(None),
        Ok(loaded) => Verdict::Fine(Some(format!("keys without effect here: {}", loaded.notes.join("; ")))),
        Err(reason) => Verdict::Fatal(Finding::new(
            format!("`{}`: {reason}", subject.file.display()),
            "correct what it names; docs/configuration.md lists every key",
        )),
    };
    Box::pin(std::future::ready(verdict))
}

fn hostname(subject: &Subject) -> Looking<'_> {
    Box::pin(async move {
        let config = match subject.config() {
            Ok(config) => config,
            Err(verdict) => return verdict,
        };
        let name = config.hostname.as_str();
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Verdict::Fine(Some(format!("it is the address {name}")));
        }
        let is_label = |label: &str| {
            let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            inside
                && !label.is_empty()
                && label.len() <= LONGEST_LABEL
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > LONGEST_HOSTNAME || !name.split('.').all(is_label) {
            return Verdict::error(
                format!("`hostname` is `{name}`, which is no name of a host"),
                "give `hostname` labels of letters, digits and `-` between dots, 64 characters at most, or an address",
            );
        }
        if tokio::net::lookup_host((name, 0)).await.is_ok() {
            return Verdict::Fine(None);
        }
        let uname = rustix::system::uname();
        let machine = uname.nodename().to_string_lossy().into_owned();
        if machine.eq_ignore_ascii_case(name) || name.split('.').next() == Some(machine.as_str()) {
            return Verdict::Fine(Some(
                "this device itself does not resolve it; containers get it from the edge".to_owned(),
            ));
        }
        Verdict::warning(
            format!("`hostname` is `{name}`; this machine is `{machine}`, and nothing here resolves `{name}`"),
            "see that downstream devices resolve it to this machine, or give this machine's name or address",
        )
    })
}
