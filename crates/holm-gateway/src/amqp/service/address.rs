//! The addresses of service links.
//!
//! ```text
//! sender    /messages/devicebound                              messages to devices
//! receiver  /messages/serviceBound/feedback, …/filenotifications
//! receiver  /messages/events[/$management | /ConsumerGroups/…]  sent on to the Event Hub
//! both      $management, {eh}/$management                      questions about the Event Hub
//! receiver  {eh}/ConsumerGroups/{group}/Partitions/{n}         events
//! sender    {eh}[/Partitions/{n}]                              refused: only devices send events
//! ```
//!
//! Each may come as a path or after `amqps://host[:port]` or `sb://…`; words in any case, percent-encoded or not. Source:
//! `hub-service-api.md` §5.2, §5.3, §6.

use holm_amqp::Role;
use holm_model::wire::percent;

use crate::service::NoticeKind;

/// What a service link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceAddress {
    /// Messages to devices.
    CloudToDevice,
    /// What became of them, or of uploads.
    Notices(NoticeKind),
    /// The Event Hub by the hub's own name for it: `rest` is what follows `messages/events/`, perhaps nothing.
    Redirect {
        /// The path within the Event Hub.
        rest: String,
    },
    /// Questions about the Event Hub, and answers to them.
    Management {
        /// The Event Hub, where the address names it.
        event_hub: Option<String>,
    },
    /// The events of a partition.
    Partition {
        /// The Event Hub.
        event_hub: String,
        /// The consumer group.
        group: String,
        /// The partition, as text: it may be no number.
        partition: String,
    },
    /// Events that somebody wants to send to the Event Hub.
    Produce,
}

impl ServiceAddress {
    /// Reads the address of a link whose peer has that role; `event_hub` is the name of the node's Event Hub. None when it is
    /// no address of a service link.
    #[must_use]
    pub(crate) fn parse(peer: Role, address: &str, event_hub: &str) -> Option<Self> {
        let path = path_of(address);
        let decoded = percent::decode(&path);
        let segments: Vec<&str> = decoded.split('/').filter(|segment| !segment.is_empty()).collect();
        let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
        let sends = peer == Role::Sender;
        Some(match segments.as_slice() {
            [a, b] if is(a, "messages") && is(b, "devicebound") && sends => Self::CloudToDevice,
            [a, b, c] if is(a, "messages") && is(b, "servicebound") && !sends => {
                if is(c, "feedback") {
                    Self::Notices(NoticeKind::Feedback)
                } else if is(c, "filenotifications") {
                    Self::Notices(NoticeKind::Files)
                } else {
                    return None;
                }
            }
            [a, b, rest @ ..] if is(a, "messages") && is(b, "events") => Self::Redirect { rest: rest.join("/") },
            [management] if is(management, "$management") => Self::Management { event_hub: None },
            [hub, management] if is(management, "$management") => Self::Management {
                event_hub: Some((*hub).to_owned()),
            },
            [hub, a, group, b, partition] if is(a, "consumergroups") && is(b, "partitions") && !sends => {
                Self::Partition {
                    event_hub: (*hub).to_owned(),
                    group: (*group).to_owned(),
                    partition: (*partition).to_owned(),
                }
            }
            [hub, ..] if is(hub, event_hub) && sends => Self::Produce,
            _ => return None,
        })
    }

    /// The paths of the node of which a token must open one, for the link to be let in: that of the address, and those that
    /// clients have tokens for instead. Without the first slash; compared without case.
    #[must_use]
    pub(crate) fn paths(&self, event_hub: &str) -> Vec<String> {
        // What the portal and the older SDKs call the Event Hub.
        let builtin = || "messages/events".to_owned();
        match self {
            Self::CloudToDevice => vec!["messages/devicebound".to_owned()],
            Self::Notices(NoticeKind::Feedback) => vec!["messages/servicebound/feedback".to_owned()],
            Self::Notices(NoticeKind::Files) => vec!["messages/servicebound/filenotifications".to_owned()],
            Self::Redirect { rest } => vec![builtin(), event_hub.to_owned(), below("messages/events", rest)],
            Self::Management { .. } | Self::Produce => {
                vec![event_hub.to_owned(), format!("{event_hub}/$management"), builtin()]
            }
            Self::Partition {
                event_hub,
                group,
                partition,
            } => vec![
                format!("{event_hub}/ConsumerGroups/{group}/Partitions/{partition}"),
                builtin(),
            ],
        }
    }
}

fn below(path: &str, rest: &str) -> String {
    if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}/{rest}")
    }
}

/// The path of an address, without scheme, host, and what follows a `?`.
fn path_of(address: &str) -> String {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    path.trim_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT_HUB: &str = "iothub-ehub-hub-1-0a1b2c";

    fn parse(role: Role, address: &str) -> Option<ServiceAddress> {
        ServiceAddress::parse(role, address, EVENT_HUB)
    }

    #[test]
    fn every_spelling_of_the_address_of_messages_to_devices_is_it() {
        for address in [
            "/messages/devicebound",
            "messages/devicebound/",
            "amqps://hub.test/messages/deviceBound",
            "amqps://hub.test:5671/messages/devicebound",
            "/messages%2FdeviceBound",
        ] {
            assert_eq!(
                parse(Role::Sender, address),
                Some(ServiceAddress::CloudToDevice),
                "{address}"
            );
        }
        assert_eq!(parse(Role::Receiver, "/messages/devicebound"), None);
    }

    #[test]
    fn notices_are_received_in_any_case() {
        for address in [
            "/messages/serviceBound/feedback",
            "amqps://h/messages/servicebound/feedback",
        ] {
            assert_eq!(
                parse(Role::Receiver, address),
                Some(ServiceAddress::Notices(NoticeKind::Feedback)),
                "{address}"
            );
        }
        assert_eq!(
            parse(Role::Receiver, "/messages/serviceBound/fileNotifications"),
            Some(ServiceAddress::Notices(NoticeKind::Files))
        );
        assert_eq!(parse(Role::Receiver, "/messages/serviceBound/other"), None);
        assert_eq!(parse(Role::Sender, "/messages/serviceBound/feedback"), None);
    }

    #[test]
    fn a_partition_is_named_with_its_group_whoever_spells_it() {
        let found = |group: &str| {
            Some(ServiceAddress::Partition {
                event_hub: EVENT_HUB.to_owned(),
                group: group.to_owned(),
                partition: "3".to_owned(),
            })
        };
        for (address, group) in [
            (
                format!("amqps://h/{EVENT_HUB}/ConsumerGroups/$Default/Partitions/3"),
                "$Default",
            ),
            (format!("{EVENT_HUB}/ConsumerGroups/$default/Partitions/3"), "$default"),
            (
                format!("/{EVENT_HUB}/consumergroups/%24Default/partitions/3"),
                "$Default",
            ),
            (
                format!("sb://h:5671/{EVENT_HUB}/ConsumerGroups/a.b/Partitions/3/"),
                "a.b",
            ),
        ] {
            assert_eq!(parse(Role::Receiver, &address), found(group), "{address}");
        }
    }

    #[test]
    fn what_the_hub_calls_its_events_leads_to_the_event_hub() {
        for (address, rest) in [
            ("amqps://hub.test/messages/events/$management", "$management"),
            ("/messages/events", ""),
            (
                "/messages/events/ConsumerGroups/$Default/Partitions/0",
                "ConsumerGroups/$Default/Partitions/0",
            ),
        ] {
            let rest = rest.to_owned();
            assert_eq!(
                parse(Role::Receiver, address),
                Some(ServiceAddress::Redirect { rest }),
                "{address}"
            );
        }
    }

    #[test]
    fn questions_are_asked_with_and_without_the_name() {
        for role in [Role::Sender, Role::Receiver] {
            assert_eq!(
                parse(role, "$management"),
                Some(ServiceAddress::Management { event_hub: None })
            );
            assert_eq!(
                parse(role, "amqps://h:5671/eh/$management"),
                Some(ServiceAddress::Management {
                    event_hub: Some("eh".to_owned())
                })
            );
        }
    }

    #[test]
    fn addresses_of_devices_are_not_for_services() {
        for address in [
            "/devices/d/messages/events",
            "/devices/d/messages/devicebound",
            "amqps://h/devices/messages/modules/m/messages/events",
            "$cbs",
            "",
            "amqps://h",
        ] {
            assert_eq!(parse(Role::Sender, address), None, "{address}");
            assert_eq!(parse(Role::Receiver, address), None, "{address}");
        }
        assert_eq!(
            parse(Role::Sender, &format!("amqps://h/{EVENT_HUB}")),
            Some(ServiceAddress::Produce)
        );
    }
}
