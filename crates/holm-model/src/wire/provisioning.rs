//! How devices and the provisioning service spell things.
//!
//! ```text
//! MQTT user      0ne00000000/registrations/reg-1/api-version=2019-03-31&ClientVersion=…
//! topics up      $dps/registrations/PUT/iotdps-register/?$rid=1[&forceRegistration=true]
//!                $dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=4.d0a1.7f3c
//! topic down     $dps/registrations/res/202/?$rid=1&retry-after=3
//! HTTPS          PUT  /{scope}/registrations/{id}/register     GET …/operations/{op}     POST /{scope}/registrations/{id}
//! AMQP           user and address {scope}/registrations/{id}, with a slash before it or a scheme and host
//! ```
//!
//! What tells this traffic from that of a hub is the second word, `registrations`, and that no `?` follows: a device of that
//! name writes `hub/registrations/?api-version=…`.
//!
//! Source: `hub-device-protocols.md` §5.

use super::{address, percent};

/// The filter under which a device hears answers.
pub const ANSWERS: &str = "$dps/registrations/res/#";
/// The application property that says what a request is.
pub const AMQP_OPERATION: &str = "iotdps-operation-type";
/// The application property with the id of an operation.
pub const AMQP_OPERATION_ID: &str = "iotdps-operation-id";
/// What a request for registration is called on AMQP.
pub const REGISTER: &str = "iotdps-register";
/// What a question for the state of an operation is called on AMQP.
pub const OPERATION_STATUS: &str = "iotdps-get-operationstatus";

const REGISTRATIONS: &str = "registrations";

/// Who asks, where the user name says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// The id scope that it asks for.
    pub id_scope: String,
    /// Its registration id, as it is written.
    pub registration_id: String,
}

impl Registrant {
    /// Reads the user name of an MQTT CONNECT; `None` if it is not one of a device that asks for its registration.
    #[must_use]
    pub fn of_mqtt_user(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '/');
        let (scope, word, id) = (parts.next()?, parts.next()?, parts.next()?);
        let query = parts.next().unwrap_or_default();
        let is_query = query.is_empty() || query.starts_with("api-version=") || query.starts_with("ClientVersion=");
        (is_query && !id.starts_with('?')).then_some(())?;
        Self::of(scope, word, id)
    }

    /// Reads the user of SASL PLAIN, or the address of a link.
    #[must_use]
    pub fn of_amqp(text: &str) -> Option<Self> {
        let path = address::path(text)?;
        match path.split('/').collect::<Vec<_>>().as_slice() {
            [scope, word, id] => Self::of(scope, word, id),
            _ => None,
        }
    }

    fn of(scope: &str, word: &str, id: &str) -> Option<Self> {
        if scope.is_empty() || id.is_empty() || !word.eq_ignore_ascii_case(REGISTRATIONS) {
            return None;
        }
        Some(Self {
            id_scope: percent::try_decode(scope)?.into_owned(),
            registration_id: percent::try_decode(id)?.into_owned(),
        })
    }

    /// The user name for MQTT.
    #[must_use]
    pub fn mqtt_user(&self, client: &str) -> String {
        let (scope, id) = (&self.id_scope, &self.registration_id);
        format!(
            "{scope}/{REGISTRATIONS}/{id}/api-version=2019-03-31&ClientVersion={}",
            percent::encode(client)
        )
    }

    /// The scope of its tokens, not yet encoded.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{}/{REGISTRATIONS}/{}", self.id_scope, self.registration_id)
    }
}

/// What a device asks over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpCall {
    /// `PUT …/register`
    Register,
    /// `GET …/operations/{op}`
    Operation(String),
    /// `POST …`: its last registration
    Last,
}

impl HttpCall {
    /// Reads a path; `None` if it is none of the service's for devices.
    #[must_use]
    pub fn parse(path: &str) -> Option<(Registrant, Self)> {
        let segments = super::http::segments(path)?;
        let [scope, word, id, rest @ ..] = segments.as_slice() else {
            return None;
        };
        let registrant = Registrant::of(scope, word, id)?;
        let call = match rest {
            [] => Self::Last,
            [what] if what.eq_ignore_ascii_case("register") => Self::Register,
            [what, operation] if what.eq_ignore_ascii_case("operations") => {
                Self::Operation(percent::try_decode(operation)?.into_owned())
            }
            _ => return None,
        };
        Some((registrant, call))
    }
}

/// What a device asks by a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicCall {
    /// To be registered.
    Register {
        /// Names the request in the answer.
        rid: String,
    },
    /// How far an operation is.
    Operation {
        /// Names the request in the answer.
        rid: String,
        /// The operation.
        operation: String,
    },
}

impl TopicCall {
    /// Reads a topic; `None` if it is none of the service's, or names no request.
    #[must_use]
    pub fn parse(topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix("$dps/registrations/")?;
        let (path, query) = rest.split_once('?')?;
        let path = path.trim_end_matches('/');
        let find = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut found = pairs.filter(|(known, _)| known.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.to_owned())
        };
        let rid = find("$rid")?;
        if path.eq_ignore_ascii_case("PUT/iotdps-register") {
            Some(Self::Register { rid })
        } else if path.eq_ignore_ascii_case("GET/iotdps-get-operationstatus") {
            let operation = find("operationId")?;
            let operation = percent::try_decode(&operation)?.into_owned();
            Some(Self::Operation { rid, operation })
        } else {
            None
        }
    }
}

/// The topic of an answer. `$rid` comes first, since C# looks there; `retry-after` last, since Java does.
#[must_use]
pub fn answer_topic(status: u16, rid: &str, retry_after_seconds: Option<u64>) -> String {
    let retry = retry_after_seconds.map(|seconds| format!("&retry-after={seconds}"));
    format!(
        "$dps/registrations/res/{status}/?$rid={rid}{}",
        retry.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registrant(scope: &str, id: &str) -> Registrant {
        Registrant {
            id_scope: scope.to_owned(),
            registration_id: id.to_owned(),
        }
    }

    #[test]
    fn the_user_names_of_the_sdks_are_those_of_registrants_and_a_hubs_are_not() {
        let python = "0ne1/registrations/reg-1/api-version=2019-03-31&ClientVersion=azure-iot%2F2.14";
        assert_eq!(Registrant::of_mqtt_user(python), Some(registrant("0ne1", "reg-1")));
        assert_eq!(
            Registrant::of_mqtt_user("0ne1/registrations/r"),
            Some(registrant("0ne1", "r"))
        );
        for other in [
            "hub.test/registrations/?api-version=2021-04-12",
            "hub.test/registrations/m/?api-version=2021-04-12",
            "hub.test/dev1/?api-version=2021-04-12",
            "0ne1/registrations",
            "/registrations/x/api-version=1",
        ] {
            assert_eq!(Registrant::of_mqtt_user(other), None, "{other}");
        }
        let own = registrant("0ne1", "reg-1");
        assert_eq!(Registrant::of_mqtt_user(&own.mqtt_user("holm/1")), Some(own));
    }

    #[test]
    fn addresses_of_every_sdk_name_the_registrant() {
        for address in [
            "0ne1/registrations/reg-1",
            "/0ne1/registrations/reg-1",
            "amqps://hub.test/0ne1/registrations/reg-1",
        ] {
            assert_eq!(
                Registrant::of_amqp(address),
                Some(registrant("0ne1", "reg-1")),
                "{address}"
            );
        }
        assert_eq!(Registrant::of_amqp("/devices/d1/messages/events"), None);
        assert_eq!(Registrant::of_amqp("dev1@sas.hub"), None);
    }

    #[test]
    fn paths_name_what_is_asked() {
        let parsed = |path| HttpCall::parse(path).map(|(_, call)| call);
        assert_eq!(parsed("/0ne1/registrations/r/register"), Some(HttpCall::Register));
        assert_eq!(
            parsed("/0ne1/registrations/r/operations/4.a.b"),
            Some(HttpCall::Operation("4.a.b".to_owned()))
        );
        assert_eq!(parsed("/0ne1/registrations/r/"), Some(HttpCall::Last));
        assert_eq!(parsed("/registrations/r"), None);
        assert_eq!(parsed("/devices/d1/messages/events"), None);
    }

    #[test]
    fn topics_are_read_and_the_answer_has_the_rid_first_and_retry_after_last() {
        let register = TopicCall::Register { rid: "1".to_owned() };
        assert_eq!(
            TopicCall::parse("$dps/registrations/PUT/iotdps-register/?$rid=1&forceRegistration=true"),
            Some(register)
        );
        assert_eq!(
            TopicCall::parse("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=4.d0a1.7f3c"),
            Some(TopicCall::Operation {
                rid: "2".to_owned(),
                operation: "4.d0a1.7f3c".to_owned()
            })
        );
        for other in [
            "$dps/registrations/PUT/iotdps-register/",
            "$dps/registrations/PUT/iotdps-register/?x=1",
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2",
            "devices/d1/messages/events/",
        ] {
            assert_eq!(TopicCall::parse(other), None, "{other}");
        }
        assert_eq!(
            answer_topic(202, "7", Some(3)),
            "$dps/registrations/res/202/?$rid=7&retry-after=3"
        );
        assert_eq!(answer_topic(200, "7", None), "$dps/registrations/res/200/?$rid=7");
    }
}
