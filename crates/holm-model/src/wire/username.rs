//! The user name of an MQTT CONNECT: who connects, through what kind of client.
//!
//! ```text
//! hub.test/dev1/modA/?api-version=2021-04-12&DeviceClientType=…&model-id=…&auth-chain=…
//! host     device module  query, percent-encoded or not; order free; `?` optional
//! ```
//!
//! Tolerated: no `?`; Node's raw model id with `:` and `;`; unknown names; repeated names (the first wins); the legacy form
//! `…/api-version=V/DeviceClientType=Client/1.5.1`, in which slashes separate the parameters; slashes within a value.
//! The host is a hint and never authorises: C# puts the gateway's name there.
//!
//! Source: `hub-device-protocols.md` §2.1, `edge-broker.md` §1.4.

use std::fmt;

use super::percent;
use crate::{DeviceId, Identity, InvalidId, ModuleId};

/// Why a text is not a user name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserName {
    /// Host, device or query is missing.
    #[error("the user name lacks its {0}; give `host/device/?api-version=…` or `host/device/module/?api-version=…`")]
    Missing(&'static str),
    /// The device or module is not an id.
    #[error("the {part} in the user name is not an id")]
    Id {
        /// `device` or `module`.
        part: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidId,
    },
}

/// A parsed user name. Shown as our own client writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName {
    /// The hub's name, or a gateway's; never to be trusted.
    pub host: String,
    /// Who connects.
    pub identity: Identity,
    /// The api version; the edge demands one, the hub does not.
    pub api_version: Option<String>,
    /// The client's own name and version (`DeviceClientType`).
    pub client_type: Option<String>,
    /// The digital-twin model that the client announces.
    pub model_id: Option<String>,
    /// For whom, and through whom, an edge speaks: `leaf;edge/$edgeHub;…`.
    pub auth_chain: Option<String>,
}

impl UserName {
    /// The user name of a client of ours, with the api version that the youngest SDK sends.
    #[must_use]
    pub fn new(host: impl Into<String>, identity: Identity, client_type: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            identity,
            api_version: Some("2021-04-12".to_owned()),
            client_type: Some(client_type.into()),
            model_id: None,
            auth_chain: None,
        }
    }

    /// Reads a user name.
    ///
    /// # Errors
    /// [`InvalidUserName`] naming the part that is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidUserName> {
        let (host, rest) = text.split_once('/').ok_or(InvalidUserName::Missing("device"))?;
        if host.is_empty() {
            return Err(InvalidUserName::Missing("host"));
        }
        let (device, rest) = rest.split_once('/').ok_or(InvalidUserName::Missing("query"))?;
        let (module, query) = match rest.split_once('/') {
            Some((module, query)) if !begins_query(module) => (Some(module), query),
            _ => (None, rest),
        };
        if module.is_none() && !query.is_empty() && !begins_query(query) {
            return Err(InvalidUserName::Missing("query"));
        }
        let device = DeviceId::new(device).map_err(|source| InvalidUserName::Id { part: "device", source })?;
        let module = module
            .map(ModuleId::new)
            .transpose()
            .map_err(|source| InvalidUserName::Id { part: "module", source })?;
        let query = query
            .strip_prefix('?')
            .unwrap_or(query)
            .replace("/DeviceClientType=", "&DeviceClientType=");
        let first = |wanted: &str| {
            query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .find(|(name, _)| percent::decode(name) == wanted)
                .map(|(_, value)| percent::decode(value).into_owned())
        };
        Ok(Self {
            host: host.to_owned(),
            identity: Identity { device, module },
            api_version: first("api-version"),
            client_type: first("DeviceClientType"),
            model_id: first("model-id"),
            auth_chain: first("auth-chain"),
        })
    }
}

/// Whether a segment is the query and not a module. Ids may hold `?` and `=`, so only a leading `?` or a known name counts.
fn begins_query(segment: &str) -> bool {
    segment.starts_with('?')
        || ["api-version=", "DeviceClientType=", "model-id=", "auth-chain="]
            .iter()
            .any(|name| segment.starts_with(name) || segment.contains(&format!("&{name}")))
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/?", self.host, self.identity)?;
        let parameters = [
            ("api-version", &self.api_version),
            ("DeviceClientType", &self.client_type),
            ("model-id", &self.model_id),
            ("auth-chain", &self.auth_chain),
        ];
        let given = parameters
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)));
        for (index, (name, value)) in given.enumerate() {
            let separator = if index == 0 { "" } else { "&" };
            write!(f, "{separator}{name}={}", percent::encode(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    #[test]
    fn a_device_and_a_module_are_told_apart() {
        let device = read("hub.test/dev1/?api-version=2019-10-01&DeviceClientType=py%2F2.14.0%28x%29");
        let module = read("hub.test/dev1/$edgeAgent/?api-version=2019-10-01");

        assert_eq!(device.host, "hub.test");
        assert_eq!(device.identity.to_string(), "dev1");
        assert_eq!(device.api_version.as_deref(), Some("2019-10-01"));
        assert_eq!(device.client_type.as_deref(), Some("py/2.14.0(x)"));
        assert_eq!(module.identity.to_string(), "dev1/$edgeAgent");
    }

    /// Acceptance row 21.
    #[test]
    fn nodes_raw_model_id_unknown_names_and_a_missing_question_mark_are_tolerated() {
        let node = read("h/d/?api-version=2021-04-12&model-id=dtmi:com:ex:T;1&x=1&flag&DeviceClientType=a");
        let bare = read("h/d/api-version=2016-11-14&x=1");
        let bare_module = read("h/d/m/api-version=2016-11-14");

        assert_eq!(node.model_id.as_deref(), Some("dtmi:com:ex:T;1"));
        assert_eq!(bare.api_version.as_deref(), Some("2016-11-14"));
        assert!(!bare.identity.is_module());
        assert_eq!(bare_module.identity.to_string(), "d/m");
    }

    #[test]
    fn the_first_of_repeated_names_wins() {
        assert_eq!(
            read("h/d/?api-version=1&api-version=2").api_version.as_deref(),
            Some("1")
        );
    }

    #[test]
    fn the_legacy_form_separates_with_slashes() {
        let legacy = "h/d/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003";
        let module = "h/d/m/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003";

        for (text, identity) in [(legacy, "d"), (module, "d/m")] {
            let name = read(text);
            assert_eq!(name.identity.to_string(), identity);
            assert_eq!(name.api_version.as_deref(), Some("2017-06-30"));
            assert_eq!(
                name.client_type.as_deref(),
                Some("Microsoft.Azure.Devices.Client/1.5.1-preview-003")
            );
        }
    }

    #[test]
    fn an_auth_chain_may_hold_raw_slashes() {
        let raw = read("h/e/?api-version=1&auth-chain=leaf;e/$edgeHub");
        let encoded = read("h/e/$edgeHub/?api-version=1&auth-chain=leaf%3Be%2F%24edgeHub");

        assert_eq!(raw.auth_chain.as_deref(), Some("leaf;e/$edgeHub"));
        assert_eq!(encoded.auth_chain, raw.auth_chain);
    }

    #[test]
    fn what_is_missing_or_no_id_is_named() {
        assert_eq!(UserName::parse("h"), Err(InvalidUserName::Missing("device")));
        assert_eq!(UserName::parse("/d/?a=1"), Err(InvalidUserName::Missing("host")));
        assert_eq!(UserName::parse("h/d"), Err(InvalidUserName::Missing("query")));
        assert_eq!(UserName::parse("h/d/m"), Err(InvalidUserName::Missing("query")));
        assert!(matches!(
            UserName::parse("h/a b/?x=1"),
            Err(InvalidUserName::Id { part: "device", .. })
        ));
        assert!(matches!(
            UserName::parse("h/d/a b/?x=1"),
            Err(InvalidUserName::Id { part: "module", .. })
        ));
    }

    #[test]
    fn a_user_name_reads_back_what_it_shows() {
        let mut name = UserName::new("hub.test", "d/m".parse().unwrap(), "holm/0.1 (linux; x86_64)");
        name.model_id = Some("dtmi:a;1".to_owned());
        name.auth_chain = Some("leaf;e/$edgeHub".to_owned());

        let text = name.to_string();

        assert!(text.starts_with("hub.test/d/m/?api-version=2021-04-12&DeviceClientType=holm%2F0.1%20%28"));
        assert_eq!(UserName::parse(&text), Ok(name));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "[a-z/?&=;:%$]*|.*") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert_eq!(UserName::parse(&name.to_string()), Ok(name));
            }
        }
    }
}
