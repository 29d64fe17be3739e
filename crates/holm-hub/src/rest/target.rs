//! What a path names.
//!
//! Clients differ: a slash may stand at the end, words of the path come in any case, ids are percent-encoded once, and
//! IoT Explorer encodes the whole path (`/devices%2Fd1`). Source: `hub-service-api.md` §2.1, §2.2.

use std::borrow::Cow;

use holm_model::configuration::{ConfigurationId, InvalidConfigurationId};
use holm_model::wire::{http, percent};
use holm_model::{DeviceId, Identity, InvalidId, ModuleId};

use super::routing::RoutingCall;
use super::scope::ScopeCall;
use super::twin_history::HistoryCall;
use crate::notices::{LockToken, NoticeKind};

/// A resource of the service API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/devices`
    Devices,
    /// `/holm/v1/devices`
    DevicePages,
    /// `/devices/keys/regenerate`
    RegenerateKeys,
    /// `/devices/{id}`, `/devices/{id}/modules/{m}`
    Identity(Identity),
    /// `/devices/{id}/modules`
    Modules(DeviceId),
    /// `/devices/{id}/modules/$edgeHub/devicesAndModulesInTargetDeviceScope` and its like
    Scope(DeviceId, ScopeCall),
    /// `/holm/v1/devices/{id}/children`
    Children(DeviceId),
    /// `/devices/{id}/messages/deviceBound`
    CloudToDevice(DeviceId),
    /// `/devices/{id}/commands`
    Commands(DeviceId),
    /// `/messages/serviceBound/feedback`, `…/filenotifications`
    Notices(NoticeKind),
    /// `…/{lock}`, and `…/{lock}/abandon`; `None` is no lock that was ever given out
    Notice(NoticeKind, Option<LockToken>, Verb),
    /// `/holm/v1/feedback`
    Feedback,
    /// `/devices/{id}/applyConfigurationContent`
    ApplyContent(DeviceId),
    /// `/configurations`
    Configurations,
    /// `/configurations/{id}`
    Configuration(ConfigurationId),
    /// `/configurations/testQueries`
    TestQueries,
    /// `/holm/v1/configurations/plan`
    PlanConfiguration,
    /// `/holm/v1/devices/{id}/configurations`, `/holm/v1/devices/{id}/modules/{m}/configurations`
    Explanation(Identity),
    /// `/devices/query`
    Query,
    /// `/jobs/v2/{id}`
    ScheduledJob(String),
    /// `/jobs/v2/{id}/cancel`
    CancelScheduledJob(String),
    /// `/jobs/v2/query`
    ScheduledJobs,
    /// `/twins/{id}`, `/twins/{id}/modules/{m}`
    Twin(Identity),
    /// `/twins/{id}/methods`, `/twins/{id}/modules/{m}/methods`
    Methods(Identity),
    /// `/digitaltwins/{id}`
    DigitalTwin(DeviceId),
    /// `/digitaltwins/{id}/commands/{c}`, and `/digitaltwins/{id}/components/{p}/commands/{c}` as method `p*c`
    Command(DeviceId, String),
    /// `/jobs/create`
    CreateTransfer,
    /// `/jobs`
    Transfers,
    /// `/jobs/{id}`
    Transfer(String),
    /// `/holm/v1/containers/{name}`
    Container(String),
    /// `/holm/v1/twins/{id}/reported`, `/holm/v1/twins/{id}/modules/{m}/reported`
    Reported(Identity),
    /// `/holm/v1/twins/{id}/history`, `/holm/v1/twins/{id}/modules/{m}/history`, and what is below
    TwinHistory(Identity, HistoryCall),
    /// `/statistics/devices`
    DeviceStatistics,
    /// `/statistics/service`
    ServiceStatistics,
    /// `/devices/{id}/files`
    Upload(DeviceId),
    /// `/devices/{id}/files/notifications`, and the upload where it stands at the end
    UploadReport(DeviceId, Option<String>),
    /// `/holm/v1/files`
    Files,
    /// `/holm/v1/events`
    Events,
    /// `/holm/v1/partitions`
    Partitions,
    /// `/holm/v1/consumer-groups`
    ConsumerGroups,
    /// `/holm/v1/consumer-groups/{name}`
    ConsumerGroup(String),
    /// `/holm/v1/policies`
    Policies,
    /// `/holm/v1/policies/{name}`
    Policy(String),
    /// `/holm/v1/policies/{name}/rotate`
    RotatePolicy(String),
    /// `/holm/v1/audit`
    Audit,
    /// `/holm/v1/backup`
    Backup,
    /// `/holm/v1/routing`, and what is below
    Routing(RoutingCall),
}

/// What a path below a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Complete,
    Abandon,
}

/// Why a path names nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unroutable {
    /// There is no such resource.
    Unknown,
    /// An id in it breaks the rules.
    Id(InvalidId),
    /// The id of a configuration in it does.
    ConfigurationId(InvalidConfigurationId),
    /// It is not percent-encoded UTF-8.
    Encoding,
    /// Nothing stands between two of its slashes. What remained without it would name something else:
    /// `/devices//commands` the device `commands`.
    EmptySegment,
}

impl From<InvalidId> for Unroutable {
    fn from(error: InvalidId) -> Self {
        Self::Id(error)
    }
}

impl From<InvalidConfigurationId> for Unroutable {
    fn from(error: InvalidConfigurationId) -> Self {
        Self::ConfigurationId(error)
    }
}

impl Target {
    /// Reads a raw path, without the query; also gives the decoded path, without the slashes at its ends, for the scope of
    /// tokens.
    ///
    /// # Errors
    /// [`Unroutable`].
    pub(super) fn parse(raw: &str) -> Result<(Self, String), Unroutable> {
        let segments = decoded_segments(raw)?;
        match Self::of(&segments) {
            Err(Unroutable::Unknown) if segments.first().is_some_and(|first| first.contains('/')) => {
                // The whole path was encoded: what was one segment is several.
                let whole = segments.join("/");
                let segments = http::segments(&whole).ok_or(Unroutable::EmptySegment)?;
                let segments: Vec<String> = segments.into_iter().map(str::to_owned).collect();
                Ok((Self::of(&segments)?, segments.join("/")))
            }
            target => Ok((target?, segments.join("/"))),
        }
    }

    fn of(segments: &[String]) -> Result<Self, Unroutable> {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        let device = |id: &str| DeviceId::new(id);
        let module = |id: &str, module: &str| {
            Ok::<_, InvalidId>(Identity::of_module(DeviceId::new(id)?, ModuleId::new(module)?))
        };
        Ok(match parts.as_slice() {
            [a] if is(a, "devices") => Self::Devices,
            [a, b] if is(a, "devices") && is(b, "query") => Self::Query,
            [a, b, c] if is(a, "jobs") && is(b, "v2") && is(c, "query") => Self::ScheduledJobs,
            [a, b, id] if is(a, "jobs") && is(b, "v2") => Self::ScheduledJob((*id).to_owned()),
            [a, b, id, d] if is(a, "jobs") && is(b, "v2") && is(d, "cancel") => {
                Self::CancelScheduledJob((*id).to_owned())
            }
            [a, b, c] if is(a, "devices") && is(b, "keys") && is(c, "regenerate") => Self::RegenerateKeys,
            [a, id] if is(a, "devices") => Self::Identity(Identity::of_device(device(id)?)),
            [a, id, b] if is(a, "devices") && is(b, "modules") => Self::Modules(device(id)?),
            [a, id, b] if is(a, "devices") && is(b, "commands") => Self::Commands(device(id)?),
            [a, id, b] if is(a, "devices") && is(b, "applyConfigurationContent") => Self::ApplyContent(device(id)?),
            [a, id, b, m] if is(a, "devices") && is(b, "modules") => Self::Identity(module(id, m)?),
            [a, id, b, m, c] if is(a, "devices") && is(b, "modules") && is(m, "$edgeHub") => {
                Self::Scope(device(id)?, ScopeCall::of(c).ok_or(Unroutable::Unknown)?)
            }
            [a, id, b, c] if is(a, "devices") && is(b, "messages") && is(c, "deviceBound") => {
                Self::CloudToDevice(device(id)?)
            }
            [a, id, b] if is(a, "devices") && is(b, "files") => Self::Upload(device(id)?),
            [a, id, b, c] if is(a, "devices") && is(b, "files") && is(c, "notifications") => {
                Self::UploadReport(device(id)?, None)
            }
            [a, id, b, c, upload] if is(a, "devices") && is(b, "files") && is(c, "notifications") => {
                Self::UploadReport(device(id)?, Some((*upload).to_owned()))
            }
            [a] if is(a, "configurations") => Self::Configurations,
            [a, b] if is(a, "configurations") && is(b, "testQueries") => Self::TestQueries,
            [a, id] if is(a, "configurations") => Self::Configuration(ConfigurationId::new(id)?),
            [a, b, kind] if is(a, "messages") && is(b, "serviceBound") => Self::Notices(notice_kind(kind)?),
            [a, b, kind, lock] if is(a, "messages") && is(b, "serviceBound") => {
                Self::Notice(notice_kind(kind)?, lock.parse().ok(), Verb::Complete)
            }
            [a, b, kind, lock, c] if is(a, "messages") && is(b, "serviceBound") && is(c, "abandon") => {
                Self::Notice(notice_kind(kind)?, lock.parse().ok(), Verb::Abandon)
            }
            [a, id] if is(a, "twins") => Self::Twin(Identity::of_device(device(id)?)),
            [a, id, b] if is(a, "twins") && is(b, "methods") => Self::Methods(Identity::of_device(device(id)?)),
            [a, id, b, m] if is(a, "twins") && is(b, "modules") => Self::Twin(module(id, m)?),
            [a, id, b, m, c] if is(a, "twins") && is(b, "modules") && is(c, "methods") => Self::Methods(module(id, m)?),
            [a, id] if is(a, "digitaltwins") => Self::DigitalTwin(device(id)?),
            [a, id, b, c] if is(a, "digitaltwins") && is(b, "commands") => Self::Command(device(id)?, (*c).to_owned()),
            [a, id, b, p, d, c] if is(a, "digitaltwins") && is(b, "components") && is(d, "commands") => {
                Self::Command(device(id)?, format!("{p}*{c}"))
            }
            [a, b] if is(a, "jobs") && is(b, "create") => Self::CreateTransfer,
            [a] if is(a, "jobs") => Self::Transfers,
            [a, id] if is(a, "jobs") => Self::Transfer((*id).to_owned()),
            [a, b] if is(a, "statistics") && is(b, "devices") => Self::DeviceStatistics,
            [a, b] if is(a, "statistics") && is(b, "service") => Self::ServiceStatistics,
            ["holm", "v1", "devices"] => Self::DevicePages,
            ["holm", "v1", "devices", id, "children"] => Self::Children(device(id)?),
            ["holm", "v1", "configurations", "plan"] => Self::PlanConfiguration,
            ["holm", "v1", "devices", id, "configurations"] => Self::Explanation(Identity::of_device(device(id)?)),
            ["holm", "v1", "devices", id, "modules", m, "configurations"] => Self::Explanation(module(id, m)?),
            ["holm", "v1", "files"] => Self::Files,
            ["holm", "v1", "events"] => Self::Events,
            ["holm", "v1", "partitions"] => Self::Partitions,
            ["holm", "v1", "consumer-groups"] => Self::ConsumerGroups,
            ["holm", "v1", "consumer-groups", name] => Self::ConsumerGroup((*name).to_owned()),
            ["holm", "v1", "containers", name] => Self::Container((*name).to_owned()),
            ["holm", "v1", "twins", id, "reported"] => Self::Reported(Identity::of_device(device(id)?)),
            ["holm", "v1", "twins", id, "modules", m, "reported"] => Self::Reported(module(id, m)?),
            ["holm", "v1", "twins", id, "modules", m, "history", rest @ ..] => {
                Self::TwinHistory(module(id, m)?, history_call(rest)?)
            }
            ["holm", "v1", "twins", id, "history", rest @ ..] => {
                Self::TwinHistory(Identity::of_device(device(id)?), history_call(rest)?)
            }
            ["holm", "v1", "policies"] => Self::Policies,
            ["holm", "v1", "policies", name] => Self::Policy((*name).to_owned()),
            ["holm", "v1", "policies", name, "rotate"] => Self::RotatePolicy((*name).to_owned()),
            ["holm", "v1", "audit"] => Self::Audit,
            ["holm", "v1", "backup"] => Self::Backup,
            ["holm", "v1", "routing", rest @ ..] => Self::Routing(RoutingCall::of(rest).ok_or(Unroutable::Unknown)?),
            ["holm", "v1", "feedback"] => Self::Feedback,
            _ => return Err(Unroutable::Unknown),
        })
    }

    /// Whether the resource is one of ours, without `api-version`.
    #[must_use]
    pub(super) const fn is_own(&self) -> bool {
        matches!(
            self,
            Self::Events
                | Self::PlanConfiguration
                | Self::Backup
                | Self::Explanation(_)
                | Self::Partitions
                | Self::Children(_)
                | Self::Files
                | Self::Feedback
                | Self::ConsumerGroups
                | Self::ConsumerGroup(_)
                | Self::DevicePages
                | Self::Policies
                | Self::Policy(_)
                | Self::RotatePolicy(_)
                | Self::Audit
                | Self::Container(_)
                | Self::Reported(_)
                | Self::TwinHistory(..)
                | Self::Routing(_)
        )
    }
}

fn history_call(rest: &[&str]) -> Result<HistoryCall, Unroutable> {
    let call = match rest {
        [] => HistoryCall::of(None),
        [word] => HistoryCall::of(Some(word)),
        _ => None,
    };
    call.ok_or(Unroutable::Unknown)
}

fn notice_kind(word: &str) -> Result<NoticeKind, Unroutable> {
    let all = [
        ("feedback", NoticeKind::Feedback),
        ("filenotifications", NoticeKind::FileNotification),
    ];
    let found = all.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, kind)| kind).ok_or(Unroutable::Unknown)
}

fn decoded_segments(raw: &str) -> Result<Vec<String>, Unroutable> {
    let segments = http::segments(raw).ok_or(Unroutable::EmptySegment)?;
    segments
        .into_iter()
        .map(|segment| decode(segment).ok_or(Unroutable::Encoding))
        .collect()
}

/// Undoes percent-encoding; `None` when what results is not UTF-8.
fn decode(text: &str) -> Option<String> {
    percent::try_decode(text).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target::parse(path).unwrap().0
    }

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn every_spelling_of_a_path_names_the_same() {
        for path in [
            "/devices/d1",
            "/devices/d1/",
            "/Devices/d1",
            "/devices%2Fd1",
            "/devices%2fd1",
        ] {
            assert_eq!(target(path), Target::Identity(identity("d1")), "{path}");
        }
        for path in ["/devices/d1/messages/deviceBound", "/devices/d1/messages/devicebound"] {
            assert_eq!(target(path), Target::CloudToDevice(DeviceId::new("d1").unwrap()));
        }
        for path in ["/devices/d1/modules/$edgeAgent", "/devices/d1/modules/%24edgeAgent"] {
            assert_eq!(target(path), Target::Identity(identity("d1/$edgeAgent")), "{path}");
        }
        assert_eq!(target("/devices/"), Target::Devices);
        assert_eq!(
            target("/twins/d%231/modules/m/methods"),
            Target::Methods(identity("d#1/m"))
        );
    }

    #[test]
    fn ids_are_decoded_once_and_keep_their_case() {
        assert_eq!(target("/devices/a%2541"), Target::Identity(identity("a%41")));
        assert_eq!(target("/devices/D1"), Target::Identity(identity("D1")));
    }

    #[test]
    fn what_names_nothing_is_told_from_a_broken_id() {
        assert_eq!(Target::parse("/"), Err(Unroutable::Unknown));
        assert_eq!(Target::parse("/jobs/v3/x"), Err(Unroutable::Unknown));
        assert!(matches!(
            Target::parse("/configurations/A"),
            Err(Unroutable::ConfigurationId(_))
        ));
        assert!(matches!(Target::parse("/devices/dev%201"), Err(Unroutable::Id(_))));
        // An escape that is none stays as it stands: ids may hold `%`.
        assert_eq!(target("/devices/%zz"), Target::Identity(identity("%zz")));
        assert_eq!(Target::parse("/devices/%ff"), Err(Unroutable::Encoding));
    }

    #[test]
    fn an_id_that_is_missing_between_two_slashes_is_not_passed_over() {
        for path in [
            "/devices//commands",
            "/devices//modules",
            "//devices",
            "/devices/d1//",
            "/devices%2F%2Fcommands",
            "/twins//methods",
            "/holm/v1/policies//rotate",
        ] {
            assert_eq!(Target::parse(path), Err(Unroutable::EmptySegment), "{path}");
        }
    }

    #[test]
    fn the_decoded_path_is_what_tokens_name() {
        assert_eq!(Target::parse("/devices/%24d/").unwrap().1, "devices/$d");
        assert_eq!(Target::parse("/devices%2Fd1").unwrap().1, "devices/d1");
    }
}
