//! Addresses of AMQP links, and the user names of SASL: which of a node's things a client wants, and whose.
//!
//! ```text
//! /devices/{d}/messages/events                      telemetry; for a receiver of a module: its inputs
//! /devices/{d}/messages/devicebound                 cloud-to-device messages
//! /devices/{d}/methods/devicebound                  method calls and their answers
//! /devices/{d}/twin                                 twin requests and their answers
//! …/devices/{d}/modules/{m}/…                       the same of a module
//! amqps://hub.test:5671/devices/…                   the same, as C and C# write it
//!
//! dev1@sas.hub    dev1/modules/modA@sas.hub    service@sas.root.hub       users of SASL PLAIN
//! ```
//!
//! The fixed words have any case, ids have theirs. C# encodes ids and Node and Java do not, and an id may itself hold `%41`,
//! so an address has up to two readings; whose proof is there tells which one was meant.
//!
//! Source: `hub-device-protocols.md` §3.1 and §3.3.

use super::percent;
use crate::{DeviceId, Identity, ModuleId};

/// What a link of a device or module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// `messages/events`.
    Events,
    /// `messages/devicebound`.
    DeviceBound,
    /// `methods/devicebound`.
    Methods,
    /// `twin`.
    Twin,
}

/// The address of a device's or module's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// What it is for.
    pub kind: LinkKind,
    /// Whose it is, with the ids decoded.
    pub identity: Identity,
    /// Whose it is if the ids were not encoded, where that is somebody else.
    pub literal: Option<Identity>,
}

impl LinkAddress {
    /// Reads an address; `None` if it is none of a device or module.
    #[must_use]
    pub fn parse(address: &str) -> Option<Self> {
        let path = path(address)?;
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        let (devices, rest) = segments.split_first()?;
        let (device, rest) = rest.split_first()?;
        if !devices.eq_ignore_ascii_case("devices") {
            return None;
        }
        let (module, rest) = match rest {
            [modules, module, rest @ ..] if modules.eq_ignore_ascii_case("modules") => (Some(*module), rest),
            _ => (None, rest),
        };
        let is = |words: &[&str]| {
            rest.len() == words.len()
                && rest
                    .iter()
                    .zip(words)
                    .all(|(found, word)| found.eq_ignore_ascii_case(word))
        };
        let kind = if is(&["messages", "events"]) {
            LinkKind::Events
        } else if is(&["messages", "devicebound"]) {
            LinkKind::DeviceBound
        } else if is(&["methods", "devicebound"]) {
            LinkKind::Methods
        } else if is(&["twin"]) {
            LinkKind::Twin
        } else {
            return None;
        };
        let (identity, literal) = readings(device, module)?;
        Some(Self {
            kind,
            identity,
            literal,
        })
    }
}

/// The path of an address, without the slash before it: all of it but a scheme and a host.
#[must_use]
pub fn path(address: &str) -> Option<&str> {
    match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map(|(_, path)| path),
        None => Some(address.strip_prefix('/').unwrap_or(address)),
    }
}

/// Who the user of SASL PLAIN is; the password is a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaslUser {
    /// A device or module.
    Identity(Identity),
    /// A shared access policy.
    Policy(String),
}

impl SaslUser {
    /// Reads a user; `None` if it has not the published form. What stands for the hub is a hint and not looked at.
    #[must_use]
    pub fn parse(user: &str) -> Option<Self> {
        // Ids may hold an `@`.
        let (name, realm) = user.rsplit_once('@')?;
        let realm = realm
            .get(..4)
            .filter(|sas| sas.eq_ignore_ascii_case("sas."))
            .and_then(|_| realm.get(4..))?;
        if realm.len() > 5 && realm.get(..5).is_some_and(|root| root.eq_ignore_ascii_case("root.")) {
            let policy = percent::decode(name).into_owned();
            return (!policy.is_empty()).then_some(Self::Policy(policy));
        }
        let segments: Vec<&str> = name.split('/').collect();
        let (device, module) = match segments.as_slice() {
            [device] => (*device, None),
            [device, modules, module] if modules.eq_ignore_ascii_case("modules") => (*device, Some(*module)),
            _ => return None,
        };
        readings(device, module).map(|(identity, _)| Self::Identity(identity))
    }
}

/// The identity with its ids decoded, and as they stand if that is another one.
fn readings(device: &str, module: Option<&str>) -> Option<(Identity, Option<Identity>)> {
    let identity = |read: &dyn Fn(&str) -> String| {
        let device = DeviceId::new(&read(device)).ok()?;
        let module = module.map(|module| ModuleId::new(&read(module))).transpose().ok()?;
        Some(Identity { device, module })
    };
    let literal = identity(&str::to_owned);
    match identity(&|text| percent::decode(text).into_owned()) {
        Some(decoded) => {
            let other = literal.filter(|literal| *literal != decoded);
            Some((decoded, other))
        }
        None => literal.map(|literal| (literal, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> (LinkKind, String, Option<String>) {
        let address = LinkAddress::parse(address).unwrap();
        let literal = address.literal.map(|identity| identity.to_string());
        (address.kind, address.identity.to_string(), literal)
    }

    #[test]
    fn paths_and_uris_are_read_in_any_case() {
        let dev1 = |kind| (kind, "dev1".to_owned(), None);
        let module = |kind| (kind, "dev1/modA".to_owned(), None);

        assert_eq!(parse("/devices/dev1/messages/events"), dev1(LinkKind::Events));
        assert_eq!(parse("devices/dev1/messages/deviceBound"), dev1(LinkKind::DeviceBound));
        assert_eq!(
            parse("amqps://hub.test:5671/Devices/dev1/Methods/DeviceBound"),
            dev1(LinkKind::Methods)
        );
        assert_eq!(parse("/devices/dev1/twin/"), dev1(LinkKind::Twin));
        assert_eq!(
            parse("amqps://hub.test/devices/dev1/modules/modA/messages/events"),
            module(LinkKind::Events)
        );
    }

    #[test]
    fn ids_keep_their_case_and_have_two_readings_when_they_could_be_encoded() {
        assert_eq!(
            parse("/devices/Dev%2B1/modules/%24edgeHub/twin"),
            (
                LinkKind::Twin,
                "Dev+1/$edgeHub".to_owned(),
                Some("Dev%2B1/%24edgeHub".to_owned())
            )
        );
        assert_eq!(parse("/devices/a%zz/twin"), (LinkKind::Twin, "a%zz".to_owned(), None));
    }

    #[test]
    fn a_device_may_be_called_like_a_word() {
        assert_eq!(
            parse("/devices/modules/messages/events"),
            (LinkKind::Events, "modules".to_owned(), None)
        );
    }

    #[test]
    fn other_addresses_are_none() {
        for other in [
            "",
            "/",
            "$cbs",
            "/devices",
            "/devices/dev1",
            "/devices//twin",
            "/devices/dev1/messages",
            "/devices/dev1/messages/events/more",
            "/messages/devicebound",
            "amqps://hub.test",
            "/devices/a b/twin",
        ] {
            assert_eq!(LinkAddress::parse(other), None, "{other}");
        }
    }

    #[test]
    fn users_of_sasl_are_read() {
        let identity = |text: &str| Some(SaslUser::Identity(text.parse().unwrap()));

        assert_eq!(SaslUser::parse("dev1@sas.hub"), identity("dev1"));
        assert_eq!(SaslUser::parse("dev1@sas.hub.test"), identity("dev1"));
        assert_eq!(SaslUser::parse("dev%401/modules/m@sas.hub"), identity("dev@1/m"));
        assert_eq!(
            SaslUser::parse("service@sas.root.hub"),
            Some(SaslUser::Policy("service".to_owned()))
        );
        for other in ["", "dev1", "dev1@hub", "@sas.hub", "a/b@sas.hub", "@sas.root.hub"] {
            assert_eq!(SaslUser::parse(other), None, "{other}");
        }
    }
}
