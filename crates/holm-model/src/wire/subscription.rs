//! What a client can subscribe to. There are no user topics, so a filter is one of a few published texts with the
//! client's own ids in it, compared as text: an id may itself hold `+` or `#`.
//!
//! Source: `hub-device-protocols.md` §2.4, `edge-broker.md` §1.6.

use super::topic::{TopicError, foreign, is_own, owner, path, shown};
use crate::Identity;

/// A kind of delivery that a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscription {
    /// Cloud-to-device messages of a device.
    CloudToDevice,
    /// The address at which Java and C# modules without a gateway wait. It exists and nothing arrives there.
    ModuleCloudToDevice,
    /// All inputs of a module; there is no subscription to a single one.
    Inputs,
    /// Direct methods.
    Methods,
    /// Answers to twin operations.
    TwinResponses,
    /// Changes of desired properties.
    DesiredPatches,
    /// Answers to requests for certificates.
    CertificateResponses,
}

impl Subscription {
    /// Reads a filter that the identity `own` subscribed to.
    ///
    /// # Errors
    /// [`TopicError`]; the answer to that filter is then 0x80.
    pub fn parse(filter: &str, own: &Identity) -> Result<Self, TopicError> {
        match filter {
            "$iothub/methods/POST/#" => return Ok(Self::Methods),
            "$iothub/twin/res/#" => return Ok(Self::TwinResponses),
            "$iothub/twin/PATCH/properties/desired/#" => return Ok(Self::DesiredPatches),
            "$iothub/credentials/res/#" => return Ok(Self::CertificateResponses),
            _ => {}
        }
        let unknown = || TopicError::Unknown(shown(filter));
        let after_devices = filter.strip_prefix("devices/").ok_or_else(unknown)?;
        let (device, module, rest) = owner(after_devices).ok_or_else(unknown)?;
        let subscription = match (module, rest) {
            (None, "messages/devicebound/#") => Self::CloudToDevice,
            (Some(_), "messages/devicebound/#") => Self::ModuleCloudToDevice,
            (Some(_), "#") => Self::Inputs,
            (Some(_), rest) if rest.starts_with("inputs/") && rest.ends_with("/#") => Self::Inputs,
            _ => return Err(unknown()),
        };
        if !is_own(device, module, own) {
            return Err(foreign(filter, device, module, own));
        }
        Ok(subscription)
    }

    /// The filter that `own` subscribes to for this.
    #[must_use]
    pub fn filter(self, own: &Identity) -> String {
        match self {
            Self::CloudToDevice | Self::ModuleCloudToDevice => format!("{}/messages/devicebound/#", path(own)),
            Self::Inputs => format!("{}/inputs/#", path(own)),
            Self::Methods => "$iothub/methods/POST/#".to_owned(),
            Self::TwinResponses => "$iothub/twin/res/#".to_owned(),
            Self::DesiredPatches => "$iothub/twin/PATCH/properties/desired/#".to_owned(),
            Self::CertificateResponses => "$iothub/credentials/res/#".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(filter: &str, own: &str) -> Result<Subscription, TopicError> {
        Subscription::parse(filter, &own.parse().unwrap())
    }

    #[test]
    fn every_filter_of_the_five_sdks_is_known() {
        assert_eq!(
            of("devices/d/messages/devicebound/#", "d"),
            Ok(Subscription::CloudToDevice)
        );
        assert_eq!(of("devices/d/modules/m/inputs/#", "d/m"), Ok(Subscription::Inputs));
        assert_eq!(of("devices/d/modules/m/#", "d/m"), Ok(Subscription::Inputs));
        assert_eq!(
            of("devices/d/modules/m/messages/devicebound/#", "d/m"),
            Ok(Subscription::ModuleCloudToDevice)
        );
        assert_eq!(of("$iothub/methods/POST/#", "d"), Ok(Subscription::Methods));
        assert_eq!(of("$iothub/twin/res/#", "d"), Ok(Subscription::TwinResponses));
        assert_eq!(
            of("$iothub/twin/PATCH/properties/desired/#", "d"),
            Ok(Subscription::DesiredPatches)
        );
    }

    #[test]
    fn our_own_filters_read_back() {
        for (subscription, own) in [
            (Subscription::CloudToDevice, "d"),
            (Subscription::ModuleCloudToDevice, "d/m"),
            (Subscription::Inputs, "d/m"),
            (Subscription::Methods, "d"),
            (Subscription::TwinResponses, "d"),
            (Subscription::DesiredPatches, "d"),
            (Subscription::CertificateResponses, "d"),
        ] {
            let own: Identity = own.parse().unwrap();
            assert_eq!(Subscription::parse(&subscription.filter(&own), &own), Ok(subscription));
        }
    }

    /// Acceptance row 38.
    #[test]
    fn another_identity_is_refused_even_by_wildcard() {
        assert!(matches!(
            of("devices/e/messages/devicebound/#", "d"),
            Err(TopicError::Foreign { .. })
        ));
        assert!(matches!(
            of("devices/+/messages/devicebound/#", "d"),
            Err(TopicError::Foreign { .. })
        ));
        assert!(matches!(
            of("devices/d/modules/+/#", "d/m"),
            Err(TopicError::Foreign { .. })
        ));
        for filter in ["#", "devices/#", "$iothub/#", "devices/d/#", "x", "$iothub/twin/res/+"] {
            assert!(matches!(of(filter, "d"), Err(TopicError::Unknown(_))), "{filter}");
        }
    }

    #[test]
    fn an_id_with_wildcard_characters_is_only_text() {
        assert_eq!(
            of("devices/+#/messages/devicebound/#", "+#"),
            Ok(Subscription::CloudToDevice)
        );
    }

    proptest! {
        #[test]
        fn a_filter_that_is_granted_names_the_own_device(filter in "(devices/)?[de+#]?(/modules/[m+])?(/inputs)?/.*") {
            if of(&filter, "d/m").is_ok() {
                prop_assert!(filter.starts_with("devices/d/modules/m/") || filter.starts_with("$iothub/"));
            }
        }
    }
}
