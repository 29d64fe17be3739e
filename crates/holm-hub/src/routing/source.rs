//! Where a routed message comes from.

use holm_model::{Message, SystemProperty};

use crate::events;

/// What kind of message it is. Source: `hub-service-api.md` §4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Devices and modules sent it.
    DeviceMessages,
    /// A twin changed.
    TwinChangeEvents,
    /// An identity came or went.
    DeviceLifecycleEvents,
    /// A device or module connected or disconnected.
    DeviceConnectionStateEvents,
    /// A job did something with a device.
    DeviceJobLifecycleEvents,
    /// A digital twin changed.
    DigitalTwinChangeEvents,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DeviceMessages,
        Self::TwinChangeEvents,
        Self::DeviceLifecycleEvents,
        Self::DeviceConnectionStateEvents,
        Self::DeviceJobLifecycleEvents,
        Self::DigitalTwinChangeEvents,
    ];

    /// Its name in routes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceMessages => "DeviceMessages",
            Self::TwinChangeEvents => "TwinChangeEvents",
            Self::DeviceLifecycleEvents => "DeviceLifecycleEvents",
            Self::DeviceConnectionStateEvents => "DeviceConnectionStateEvents",
            Self::DeviceJobLifecycleEvents => "DeviceJobLifecycleEvents",
            Self::DigitalTwinChangeEvents => "DigitalTwinChangeEvents",
        }
    }

    /// Its name on messages, the value of `iothub-message-source`.
    #[must_use]
    pub const fn message_source(self) -> &'static str {
        match self {
            Self::DeviceMessages => events::TELEMETRY,
            Self::TwinChangeEvents => events::TWIN_CHANGES,
            Self::DeviceLifecycleEvents => events::LIFECYCLE,
            Self::DeviceConnectionStateEvents => events::CONNECTION_STATES,
            Self::DeviceJobLifecycleEvents => events::DEVICE_JOBS,
            Self::DigitalTwinChangeEvents => events::DIGITAL_TWIN_CHANGES,
        }
    }

    /// The source of a name in routes, in any case.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|source| source.name().eq_ignore_ascii_case(name))
    }

    /// The source of a name on messages.
    #[must_use]
    pub fn of_message_source(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.message_source() == name)
    }

    /// The source of a message that the hub has stamped. What has no name that is known was sent by somebody.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let name = message.system.get(SystemProperty::MessageSource).unwrap_or_default();
        Self::of_message_source(name).unwrap_or(Self::DeviceMessages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_found_by_both_of_its_names() {
        for source in Source::ALL {
            assert_eq!(Source::of_name(&source.name().to_lowercase()), Some(source));
            assert_eq!(Source::of_message_source(source.message_source()), Some(source));
        }
        assert_eq!(Source::of_name("Telemetry"), None);
        assert_eq!(Source::of(&Message::new("")), Source::DeviceMessages);
    }
}
