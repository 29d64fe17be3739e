//! What a request of a device or module asks for.
//!
//! Ids are percent-encoded once, the other words come in any case (C and C# write `deviceBound`), and a slash may stand at the
//! end. `POST …/messages/devicebound` of a device is not here: that is how services send.

use holm_model::error::ServiceError;
use holm_model::wire::{http, percent};
use holm_model::{DeviceId, Identity, ModuleId};
use hyper::Method;

/// What is asked for, and in whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) identity: Identity,
    pub(super) call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `POST /devices/{d}[/modules/{m}]/messages/events`
    Send,
    /// `GET …/messages/devicebound`
    Receive,
    /// `DELETE …/messages/devicebound/{lock}`
    Settle(String),
    /// `POST …/messages/devicebound/{lock}/abandon`
    Abandon(String),
}

impl Call {
    /// The method of this call.
    pub(super) const fn method(&self) -> Method {
        match self {
            Self::Send | Self::Abandon(_) => Method::POST,
            Self::Receive => Method::GET,
            Self::Settle(_) => Method::DELETE,
        }
    }
}

/// Reads method and path; `None` where they are nothing of devices.
pub(super) fn parse(method: &Method, path: &str) -> Option<Result<Target, ServiceError>> {
    let segments = http::segments(path)?;
    let [devices, device, rest @ ..] = segments.as_slice() else {
        return None;
    };
    if !is(devices, "devices") {
        return None;
    }
    let (module, rest) = match rest {
        [modules, module, rest @ ..] if is(modules, "modules") => (Some(*module), rest),
        rest => (None, rest),
    };
    let call = match rest {
        [messages, events] if is(messages, "messages") && is(events, "events") => Call::Send,
        [messages, bound, rest @ ..] if is(messages, "messages") && is(bound, "devicebound") => match rest {
            [] if module.is_none() && *method != Method::GET => return None,
            [] => Call::Receive,
            [lock] => Call::Settle(percent::decode(lock).into_owned()),
            [lock, abandon] if is(abandon, "abandon") => Call::Abandon(percent::decode(lock).into_owned()),
            _ => return None,
        },
        _ => return None,
    };
    let identity = DeviceId::new(&percent::decode(device)).and_then(|device| {
        let module = module
            .map(|module| ModuleId::new(&percent::decode(module)))
            .transpose()?;
        Ok(Identity { device, module })
    });
    Some(match identity {
        Ok(identity) => Ok(Target { identity, call }),
        Err(error) => Err(ServiceError::argument_invalid(error.to_string())),
    })
}

const fn is(segment: &str, word: &str) -> bool {
    segment.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: Method, path: &str) -> (String, Call) {
        let target = parse(&method, path).unwrap().unwrap();
        (target.identity.to_string(), target.call)
    }

    #[test]
    fn every_spelling_of_a_path_names_the_same() {
        let lock = || Call::Settle("a1".to_owned());
        for (method, path, identity, call) in [
            (Method::POST, "/devices/d1/messages/events", "d1", Call::Send),
            (Method::POST, "/Devices/d1/Messages/events/", "d1", Call::Send),
            (
                Method::POST,
                "/devices/d%231/modules/%24m/messages/events",
                "d#1/$m",
                Call::Send,
            ),
            (Method::GET, "/devices/d1/messages/deviceBound", "d1", Call::Receive),
            (Method::DELETE, "/devices/d1/messages/devicebound/a1", "d1", lock()),
            (Method::DELETE, "/devices/d1/messages/deviceBound/a%31", "d1", lock()),
            (
                Method::POST,
                "/devices/d1/messages/devicebound/a1/abandon",
                "d1",
                Call::Abandon("a1".to_owned()),
            ),
        ] {
            assert_eq!(target(method, path), (identity.to_owned(), call), "{path}");
        }
    }

    #[test]
    fn what_services_ask_is_left_to_the_service_api() {
        for (method, path) in [
            (Method::POST, "/devices/d1/messages/deviceBound"),
            (Method::GET, "/devices/d1"),
            (Method::GET, "/devices/d1/modules/m"),
            (Method::GET, "/twins/d1/messages/events"),
            (Method::POST, "/devices/d1/files"),
            (Method::POST, "/devices/d1/messages/devicebound/a/b"),
            (Method::GET, "/"),
            (Method::POST, "/devices//messages/events"),
            (Method::POST, "/devices/d1//messages/events"),
        ] {
            assert_eq!(parse(&method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn an_id_that_breaks_the_rules_is_an_argument_that_does() {
        let refused = parse(&Method::POST, "/devices/d%201/messages/events").unwrap();

        assert_eq!(refused.unwrap_err().code, holm_model::ErrorCode::ArgumentInvalid);
    }
}
