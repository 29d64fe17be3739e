//! Why a service link or a message to a device is refused, as its peer learns it. Source: `hub-service-api.md` §5.2, §6;
//! `hub-device-protocols.md` §3.5.

use holm_amqp::{AmqpError, Symbol, Value, condition};
use holm_model::error::{ErrorCode, ServiceError};

use super::super::refusals::{ARGUMENT_ERROR, THROTTLED, error as error_of};
use crate::backend::Refusal;
use crate::service::{EventHub, ReadRefusal};

/// A refusal of a message to a device.
#[must_use]
pub(crate) fn of_service(error: &ServiceError) -> AmqpError {
    let condition = match error.code {
        ErrorCode::DeviceNotFound | ErrorCode::ModuleNotFound => condition::NOT_FOUND,
        ErrorCode::DeviceMaximumQueueDepthExceeded => condition::RESOURCE_LIMIT_EXCEEDED,
        ErrorCode::MessageTooLarge => condition::MESSAGE_SIZE_EXCEEDED,
        ErrorCode::IotHubUnauthorized | ErrorCode::IotHubUnauthorizedAccess => condition::UNAUTHORIZED_ACCESS,
        ErrorCode::ThrottlingException => "com.microsoft:device-container-throttled",
        ErrorCode::IotHubQuotaExceeded => "com.microsoft:quota-exceeded",
        ErrorCode::PreconditionFailed => "com.microsoft:precondition-failed",
        ErrorCode::InvalidOperation => condition::NOT_ALLOWED,
        code if code.status() < 500 => ARGUMENT_ERROR,
        _ => condition::INTERNAL_ERROR,
    };
    error_of(condition, error.message.as_str())
}

/// A refusal of somebody who has no right, or not now.
#[must_use]
pub(crate) fn of_refusal(refusal: &Refusal) -> AmqpError {
    match refusal {
        Refusal::NotAuthorized(why) => error_of(condition::UNAUTHORIZED_ACCESS, why.as_str()),
        Refusal::Unavailable(why) => error_of(condition::INTERNAL_ERROR, why.as_str()),
        Refusal::Throttled(why) => error_of(THROTTLED, why.as_str()),
    }
}

/// A refusal of a reader of events.
#[must_use]
pub(crate) fn of_read(refusal: &ReadRefusal) -> AmqpError {
    let condition = match refusal {
        ReadRefusal::NotFound(_) => condition::NOT_FOUND,
        ReadRefusal::NoPartition(_) => "com.microsoft:argument-out-of-range",
        ReadRefusal::BehindEnd(_) => ARGUMENT_ERROR,
        ReadRefusal::Stolen(_) => condition::LINK_STOLEN,
        ReadRefusal::TooManyReaders(_) => condition::RESOURCE_LIMIT_EXCEEDED,
        ReadRefusal::Unavailable(_) => condition::INTERNAL_ERROR,
    };
    error_of(condition, refusal.to_string())
}

/// Sends a client on to the Event Hub: tools cut its name out of the address, between the port and what follows.
#[must_use]
pub(crate) fn redirect(event_hub: &EventHub, rest: &str) -> AmqpError {
    let EventHub { name, host, port, .. } = event_hub;
    let path = if rest.is_empty() {
        name.clone()
    } else {
        format!("{name}/{rest}")
    };
    let address = format!("amqps://{host}:{port}/{path}");
    let mut error = AmqpError::new(condition::LINK_REDIRECT, format!("the events are at `{address}`"));
    for (key, value) in [
        ("hostname", Value::from(host.as_str())),
        ("network-host", Value::from(host.as_str())),
        ("port", Value::Ushort(*port)),
        ("address", Value::from(address.as_str())),
    ] {
        error.info.push(Symbol::from_static(key), value);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_port_and_event_hub_where_tools_look_for_them() {
        let event_hub = EventHub {
            name: "iothub-ehub-hub-1-abc".to_owned(),
            created: holm_model::Timestamp::NEVER,
            partitions: 4,
            host: "hub.test".to_owned(),
            port: 5671,
        };

        let error = redirect(&event_hub, "$management");

        let told = |key: &str| error.info.get(key).cloned();
        assert_eq!(error.condition, condition::LINK_REDIRECT);
        assert_eq!(told("port"), Some(Value::Ushort(5671)));
        assert_eq!(told("hostname"), Some("hub.test".into()));
        assert_eq!(
            told("address"),
            Some("amqps://hub.test:5671/iothub-ehub-hub-1-abc/$management".into())
        );
    }

    #[test]
    fn every_published_refusal_of_a_message_has_its_condition() {
        for (code, condition) in [
            (ErrorCode::DeviceNotFound, "amqp:not-found"),
            (
                ErrorCode::DeviceMaximumQueueDepthExceeded,
                "amqp:resource-limit-exceeded",
            ),
            (ErrorCode::MessageTooLarge, "amqp:link:message-size-exceeded"),
            (ErrorCode::ArgumentInvalid, "com.microsoft:argument-error"),
            (
                ErrorCode::ThrottlingException,
                "com.microsoft:device-container-throttled",
            ),
            (ErrorCode::ServiceUnavailable, "amqp:internal-error"),
        ] {
            let error = of_service(&ServiceError::new(code, "why"));

            assert_eq!(error.condition, condition);
            assert!(error.info.get("com.microsoft:tracking-id").is_some());
        }
    }
}
