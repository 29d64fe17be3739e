//! What a token opens, read from its `sr`.
//!
//! ```text
//! hub.test                                  Host         everything
//! hub.test/devices                          AllDevices   every device and module
//! hub.test/devices/dev1                     Device       dev1, not its modules
//! hub.test/devices/dev1/modules/modA        Module       modA of dev1
//! hub.test/messages/events, scope/registrations/r1       Other
//! ```
//!
//! Clients write the same scope in several ways: encoded with upper or lower hex, not encoded, or with ids that were encoded
//! before the whole was. So a text has up to three *readings*, one per number of decodings. An id may itself hold `%41`, and
//! nothing in the text says which reading was meant; a token covers an identity when any reading names it. This gives nothing
//! away for tokens of identity keys (the key holder could sign any text); the holder of a policy key who signs for `a%41` also
//! opens `aA`.
//!
//! A `+` stands for itself: form encoding uses it for a space, but neither ids nor host names hold spaces, and ids hold `+`.

use holm_model::{DeviceId, Identity, ModuleId};

use holm_model::wire::percent;

/// What part of a node a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything at the host.
    Host,
    /// Every device and module.
    AllDevices,
    /// One device, without its modules.
    Device(DeviceId),
    /// One module of a device.
    Module(DeviceId, ModuleId),
    /// Another path below the host, decoded, without the slash before it: `messages/events`, `registrations/r1`.
    Other(String),
}

/// A host and what is opened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The host as written, without scheme; for provisioning tokens this is the id scope.
    pub host: String,
    /// What is opened.
    pub scope: Scope,
}

impl Resource {
    /// Reads a raw `sr`, taking for encoded whatever can be decoded.
    pub(super) fn read(raw: &str) -> Self {
        let mut readings = readings(raw);
        let wanted = |resource: &Self| matches!(resource.scope, Scope::Device(_) | Scope::Module(..));
        let index = readings.iter().rposition(wanted).unwrap_or(readings.len() - 1);
        readings.swap_remove(index)
    }

    /// Whether this opens `identity` on a node that goes by any of the names `hosts`.
    #[must_use]
    pub fn covers(&self, hosts: &[impl AsRef<str>], identity: &Identity) -> bool {
        let here = hosts.iter().any(|host| host.as_ref().eq_ignore_ascii_case(&self.host));
        here && match &self.scope {
            Scope::Host | Scope::AllDevices => true,
            Scope::Device(device) => *device == identity.device && identity.module.is_none(),
            Scope::Module(device, module) => *device == identity.device && identity.module.as_ref() == Some(module),
            Scope::Other(_) => false,
        }
    }

    /// Whether this opens the path `path` (such as `devices/dev1` or `twins/dev1`, without a slash before it) on a node that
    /// goes by any of the names `hosts`: the scope is the path or an ancestor of it, by whole segments. For service tokens.
    #[must_use]
    pub fn covers_path(&self, hosts: &[impl AsRef<str>], path: &str) -> bool {
        self.covers_path_by(hosts, path, |path, scope| path.strip_prefix(scope))
    }

    /// As [`Resource::covers_path`], where the path is one of words, compared without case: clients of Event Hubs write
    /// `consumergroups` in tokens and `ConsumerGroups` in addresses.
    #[must_use]
    pub fn covers_words(&self, hosts: &[impl AsRef<str>], path: &str) -> bool {
        self.covers_path_by(hosts, path, |path, scope| {
            let (start, rest) = path.split_at_checked(scope.len())?;
            start.eq_ignore_ascii_case(scope).then_some(rest)
        })
    }

    fn covers_path_by(
        &self,
        hosts: &[impl AsRef<str>],
        path: &str,
        strip: impl for<'p> Fn(&'p str, &str) -> Option<&'p str>,
    ) -> bool {
        let here = hosts.iter().any(|host| host.as_ref().eq_ignore_ascii_case(&self.host));
        let below = |scope: &str| strip(path, scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        here && match &self.scope {
            Scope::Host => true,
            Scope::AllDevices => below("devices"),
            Scope::Device(device) => below(&format!("devices/{device}")),
            Scope::Module(device, module) => below(&format!("devices/{device}/modules/{module}")),
            Scope::Other(scope) => below(scope),
        }
    }
}

/// Whether any reading of a raw `sr` opens `identity`.
pub(super) fn covers(raw: &str, hosts: &[impl AsRef<str>], identity: &Identity) -> bool {
    readings(raw).iter().any(|resource| resource.covers(hosts, identity))
}

/// The scope of an identity as plain text, to be signed: `host/devices/d` or `host/devices/d/modules/m`.
#[must_use]
pub fn resource_uri(host: &str, identity: &Identity) -> String {
    match &identity.module {
        None => format!("{host}/devices/{}", identity.device),
        Some(module) => format!("{host}/devices/{}/modules/{module}", identity.device),
    }
}

/// All readings, those with fewer decodings first; at least one.
fn readings(raw: &str) -> Vec<Resource> {
    let literal = segments(raw);
    let once = percent::try_decode(raw).map(|text| segments(&text));
    // Ids that were encoded before the whole was; their slashes, if any, must not become separators.
    let twice = once.as_ref().and_then(|once| {
        once.iter()
            .map(|segment| percent::try_decode(segment).map(|text| text.into_owned()))
            .collect::<Option<Vec<_>>>()
    });
    let mut all = vec![to_resource(&literal)];
    for reading in [once, twice].into_iter().flatten() {
        let resource = to_resource(&reading);
        if !all.contains(&resource) {
            all.push(resource);
        }
    }
    all
}

/// The path segments without scheme, API version and slashes at the end.
fn segments(text: &str) -> Vec<String> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split_once("?api-version=").map_or(text, |(path, _)| path);
    let mut segments: Vec<_> = text.trim_end_matches('/').split('/').map(str::to_owned).collect();
    if segments.len() > 1 && segments.last().is_some_and(|last| last.starts_with("api-version=")) {
        segments.pop();
    }
    segments
}

fn to_resource(segments: &[String]) -> Resource {
    let (host, path) = match segments {
        [] => (String::new(), segments),
        [host, path @ ..] => (host.clone(), path),
    };
    let scope = to_scope(path).unwrap_or_else(|| Scope::Other(path.join("/")));
    Resource { host, scope }
}

fn to_scope(path: &[String]) -> Option<Scope> {
    let words: Vec<_> = path.iter().map(String::as_str).collect();
    Some(match words.as_slice() {
        [] => Scope::Host,
        ["devices"] => Scope::AllDevices,
        ["devices", device] => Scope::Device(DeviceId::new(device).ok()?),
        ["devices", device, "modules", module] => {
            Scope::Module(DeviceId::new(device).ok()?, ModuleId::new(module).ok()?)
        }
        _ => return None,
    })
}
