//! The topics of PUBLISH, both directions, as the five SDKs write and parse them.
//!
//! ```text
//! up    devices/{d}[/modules/{m}]/messages/events/{bag}               Telemetry
//!       $iothub/twin/GET/?$rid={rid}                                  TwinGet
//!       $iothub/twin/PATCH/properties/reported/?$rid={rid}            TwinPatchReported
//!       $iothub/methods/res/{status}/?$rid={rid}                      MethodResponse
//!       $iothub/credentials/POST/issueCertificate/?$rid={rid}         IssueCertificate
//! down  devices/{d}[/modules/{m}]/messages/devicebound/{bag}          CloudToDevice
//!       devices/{d}/modules/{m}/inputs/{input}/{bag}                  Input
//!       $iothub/methods/POST/{name}/?$rid={rid}                       Method
//!       $iothub/twin/res/{status}/?$rid={rid}[&$version={n}]          TwinResponse
//!       $iothub/twin/PATCH/properties/desired/?$version={n}           DesiredPatch
//!       $iothub/credentials/res/{status}/?$rid={rid}                  (only written)
//! ```
//!
//! A `rid` is opaque and echoed byte for byte: C uses `atol`, Java any text. Nothing may follow it in what we write,
//! because C# takes the rest of the topic.
//!
//! Source: `hub-device-protocols.md` §2.2, §2.4–2.7, `edge-broker.md` §1.6.

use crate::Identity;

/// Why a topic or filter can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No topic of this form exists.
    #[error("the topic `{0}` does not exist; use `devices/…` and `$iothub/…` topics as published")]
    Unknown(String),
    /// The topic belongs to another identity than the one that logged in.
    #[error("the topic `{topic}` belongs to `{owner}`; this connection is `{own}`")]
    Foreign {
        /// The refused topic.
        topic: String,
        /// Whose it is, as the topic says.
        owner: String,
        /// Who asked for it.
        own: Identity,
    },
    /// A number in the topic is missing or not a number.
    #[error("`{part}` in the topic `{topic}` must be a whole number")]
    Number {
        /// The refused topic.
        topic: String,
        /// Which part of it.
        part: &'static str,
    },
}

/// How much of a refused topic an error repeats, in characters: a topic may have 64 KiB.
const SHOWN_CHARS: usize = 200;

pub(super) fn shown(topic: &str) -> String {
    topic.chars().take(SHOWN_CHARS).collect()
}

/// What a client publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTopic<'t> {
    /// A message from a device, or from a module; its output is `$.on` in the bag.
    Telemetry {
        /// The device, as it stands in the topic.
        device: &'t str,
        /// The module, as it stands in the topic.
        module: Option<&'t str>,
        /// The property bag, without a trailing slash.
        bag: &'t str,
    },
    /// Asks for the whole twin.
    TwinGet {
        /// To be echoed; without it there is no answer.
        rid: Option<&'t str>,
    },
    /// Changes reported properties.
    TwinPatchReported {
        /// To be echoed; without it there is no answer.
        rid: Option<&'t str>,
        /// The version that the client believes to be current (Java).
        version: Option<u64>,
    },
    /// Asks for a certificate.
    IssueCertificate {
        /// To be echoed; without it there is no answer.
        rid: Option<&'t str>,
    },
    /// Answers a direct method.
    MethodResponse {
        /// The device's own status.
        status: i32,
        /// Which call.
        rid: Option<&'t str>,
    },
}

impl<'t> ClientTopic<'t> {
    /// Reads a topic that the identity `own` published to.
    ///
    /// # Errors
    /// [`TopicError`]; the connection is then closed.
    pub fn parse(topic: &'t str, own: &Identity) -> Result<Self, TopicError> {
        let parsed = Self::parse_any(topic)?;
        match parsed {
            Self::Telemetry { device, module, .. } if !is_own(device, module, own) => {
                Err(foreign(topic, device, module, own))
            }
            _ => Ok(parsed),
        }
    }

    /// Reads a topic of any identity, for a connection that speaks for several; the caller checks the ids.
    ///
    /// # Errors
    /// [`TopicError`], never `Foreign`.
    pub fn parse_any(topic: &'t str) -> Result<Self, TopicError> {
        let unknown = || TopicError::Unknown(shown(topic));
        if let Some(rest) = topic.strip_prefix("devices/") {
            let (device, module, rest) = owner(rest).ok_or_else(unknown)?;
            let bag = bag_after(rest, "messages/events").ok_or_else(unknown)?;
            return Ok(Self::Telemetry { device, module, bag });
        }
        let rest = topic.strip_prefix("$iothub/").ok_or_else(unknown)?;
        if let Some(query) = query_after(rest, "twin/GET") {
            return Ok(Self::TwinGet {
                rid: value(query, "$rid"),
            });
        }
        if let Some(query) = query_after(rest, "twin/PATCH/properties/reported") {
            let version = version(topic, query)?;
            return Ok(Self::TwinPatchReported {
                rid: value(query, "$rid"),
                version,
            });
        }
        if let Some(query) = query_after(rest, "credentials/POST/issueCertificate") {
            return Ok(Self::IssueCertificate {
                rid: value(query, "$rid"),
            });
        }
        let answer = rest.strip_prefix("methods/res/").ok_or_else(unknown)?;
        let (status, query) = answer.split_once('/').unwrap_or((answer, ""));
        Ok(Self::MethodResponse {
            status: status.parse().map_err(|_| number(topic, "status"))?,
            rid: value(query.strip_prefix('?').unwrap_or(query), "$rid"),
        })
    }

    /// The topic of telemetry of `own`, or of an output when the bag names one.
    #[must_use]
    pub fn telemetry(own: &Identity, bag: &str) -> String {
        format!("{}/messages/events/{bag}", path(own))
    }

    /// The topic that asks for the twin.
    #[must_use]
    pub fn twin_get(rid: &str) -> String {
        format!("$iothub/twin/GET/?$rid={rid}")
    }

    /// The topic that changes reported properties.
    #[must_use]
    pub fn twin_patch_reported(rid: &str) -> String {
        format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}")
    }

    /// The topic that answers a method.
    #[must_use]
    pub fn method_response(status: i32, rid: &str) -> String {
        format!("$iothub/methods/res/{status}/?$rid={rid}")
    }
}

/// What a hub or an edge delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTopic<'t> {
    /// A cloud-to-device message.
    CloudToDevice {
        /// The property bag.
        bag: &'t str,
    },
    /// A message for an input of a module.
    Input {
        /// Which input.
        input: &'t str,
        /// The property bag.
        bag: &'t str,
    },
    /// A method call; the payload is JSON.
    Method {
        /// Which method.
        name: &'t str,
        /// To be echoed in the answer.
        rid: &'t str,
    },
    /// The answer to a twin operation.
    TwinResponse {
        /// As in HTTP.
        status: u16,
        /// Which operation.
        rid: &'t str,
        /// The new version of the reported section, where the server tells it.
        version: Option<u64>,
    },
    /// Changed desired properties.
    DesiredPatch {
        /// The new version of the desired section.
        version: Option<u64>,
    },
}

impl<'t> ServerTopic<'t> {
    /// Reads a topic that was delivered to the identity `own`.
    ///
    /// # Errors
    /// [`TopicError`]; the message is then not for us.
    pub fn parse(topic: &'t str, own: &Identity) -> Result<Self, TopicError> {
        let unknown = || TopicError::Unknown(shown(topic));
        if let Some(rest) = topic.strip_prefix("devices/") {
            let (device, module, rest) = owner(rest).ok_or_else(unknown)?;
            if !is_own(device, module, own) {
                return Err(foreign(topic, device, module, own));
            }
            if let Some(bag) = bag_after(rest, "messages/devicebound") {
                return Ok(Self::CloudToDevice { bag });
            }
            let rest = rest.strip_prefix("inputs/").ok_or_else(unknown)?;
            let (input, bag) = rest.split_once('/').unwrap_or((rest, ""));
            return Ok(Self::Input {
                input,
                bag: without_slash(bag),
            });
        }
        let rest = topic.strip_prefix("$iothub/").ok_or_else(unknown)?;
        if let Some(call) = rest.strip_prefix("methods/POST/") {
            let (name, rid) = call.rsplit_once("/?$rid=").ok_or_else(unknown)?;
            return Ok(Self::Method { name, rid });
        }
        if let Some(answer) = rest.strip_prefix("twin/res/") {
            let (status, query) = answer.split_once("/?").ok_or_else(unknown)?;
            return Ok(Self::TwinResponse {
                status: status.parse().map_err(|_| number(topic, "status"))?,
                rid: value(query, "$rid").ok_or_else(unknown)?,
                version: version(topic, query)?,
            });
        }
        let query = query_after(rest, "twin/PATCH/properties/desired").ok_or_else(unknown)?;
        Ok(Self::DesiredPatch {
            version: version(topic, query)?,
        })
    }

    /// The topic of a cloud-to-device message; `bag` from [`bag::cloud_to_device`](super::bag::cloud_to_device).
    #[must_use]
    pub fn cloud_to_device(receiver: &Identity, bag: &str) -> String {
        format!("{}/messages/devicebound/{bag}", path(receiver))
    }

    /// The topic of a message to an input; `bag` from [`bag::input`](super::bag::input).
    #[must_use]
    pub fn input(receiver: &Identity, input: &str, bag: &str) -> String {
        let device = receiver.device.as_str();
        let module = receiver.module.as_ref().map(|module| ["/modules/", module.as_str()]);
        let parts = ["devices/", device].into_iter().chain(module.into_iter().flatten());
        let parts = parts.chain(["/inputs/", input, "/", bag]);
        // Written for each message: made once, at its length.
        let mut topic = String::with_capacity(parts.clone().map(str::len).sum());
        topic.extend(parts);
        topic
    }

    /// The topic of a method call.
    #[must_use]
    pub fn method(name: &str, rid: &str) -> String {
        format!("$iothub/methods/POST/{name}/?$rid={rid}")
    }

    /// The topic of the answer to a twin operation; `version` on an accepted change at the hub.
    #[must_use]
    pub fn twin_response(status: u16, rid: &str, version: Option<u64>) -> String {
        match version {
            None => format!("$iothub/twin/res/{status:03}/?$rid={rid}"),
            Some(version) => format!("$iothub/twin/res/{status:03}/?$rid={rid}&$version={version}"),
        }
    }

    /// The topic of the answer to a request for a certificate. C# takes what follows `$rid=` as a whole.
    #[must_use]
    pub fn certificate_response(status: u16, rid: &str) -> String {
        format!("$iothub/credentials/res/{status:03}/?$rid={rid}")
    }

    /// The topic of changed desired properties.
    #[must_use]
    pub fn desired_patch(version: u64) -> String {
        format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
    }
}

/// `devices/{d}` or `devices/{d}/modules/{m}`.
pub(super) fn path(identity: &Identity) -> String {
    match &identity.module {
        None => format!("devices/{}", identity.device),
        Some(module) => format!("devices/{}/modules/{module}", identity.device),
    }
}

/// Splits what follows `devices/` into device, module and the rest.
pub(super) fn owner(after_devices: &str) -> Option<(&str, Option<&str>, &str)> {
    let (device, rest) = after_devices.split_once('/')?;
    match rest.strip_prefix("modules/") {
        None => Some((device, None, rest)),
        Some(rest) => {
            let (module, rest) = rest.split_once('/')?;
            Some((device, Some(module), rest))
        }
    }
}

pub(super) fn is_own(device: &str, module: Option<&str>, own: &Identity) -> bool {
    own.device.as_str() == device && own.module.as_ref().map(crate::ModuleId::as_str) == module
}

pub(super) fn foreign(topic: &str, device: &str, module: Option<&str>, own: &Identity) -> TopicError {
    TopicError::Foreign {
        topic: shown(topic),
        owner: shown(&module.map_or_else(|| device.to_owned(), |module| format!("{device}/{module}"))),
        own: own.clone(),
    }
}

fn number(topic: &str, part: &'static str) -> TopicError {
    TopicError::Number {
        topic: shown(topic),
        part,
    }
}

/// The bag that follows `prefix`, which may also end the topic; `None` when the topic has another form.
fn bag_after<'t>(rest: &'t str, prefix: &str) -> Option<&'t str> {
    let after = rest.strip_prefix(prefix)?;
    if after.is_empty() {
        return Some("");
    }
    after.strip_prefix('/').map(without_slash)
}

/// Node ends outputs, Java module topics and C# every topic with a slash of its own: one is taken off, never more.
fn without_slash(bag: &str) -> &str {
    bag.strip_suffix('/').unwrap_or(bag)
}

/// The query of `{prefix}/?{query}`; the slash, the question mark and the query may be missing.
fn query_after<'t>(rest: &'t str, prefix: &str) -> Option<&'t str> {
    let after = rest.strip_prefix(prefix)?;
    match after.strip_prefix('/') {
        Some(query) => Some(query.strip_prefix('?').unwrap_or(query)),
        None => after.is_empty().then_some(after),
    }
}

/// The raw value of the first `name` in a query.
fn value<'t>(query: &'t str, name: &str) -> Option<&'t str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

fn version(topic: &str, query: &str) -> Result<Option<u64>, TopicError> {
    value(query, "$version")
        .map(|version| version.parse().map_err(|_| number(topic, "$version")))
        .transpose()
}

#[cfg(test)]
mod tests;
