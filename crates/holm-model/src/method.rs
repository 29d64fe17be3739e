//! Direct methods: a call to a device or module that waits for the answer. Never stored, never retried.
//!
//! ```text
//! caller --REST JSON--> MethodRequest --name in the topic, payload as body--> device
//! caller <--REST JSON-- MethodResponse <--status in the topic, body--------- device
//! ```
//!
//! A payload is any JSON value. An absent one is `null`, because Python devices die on an empty body and Node answers 400.
//!
//! Source: `hub-service-api.md` §2.5, `hub-device-protocols.md` §2.7 and §4.4, `edge-broker.md` §5.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::{ErrorCode, ServiceError};

/// The longest method name, in characters.
pub const MAX_METHOD_NAME_CHARS: usize = 100;
/// The largest payload of a call or an answer, in bytes of compact JSON.
pub const MAX_METHOD_PAYLOAD_BYTES: usize = 128 * 1024;
/// How long a call waits for its answer when it does not say.
pub const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

const RESPONSE_TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 5..=300;
const CONNECT_TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 0..=300;

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodRequest {
    /// Which method; 1 to [`MAX_METHOD_NAME_CHARS`] characters.
    pub name: String,
    /// The argument; `Null` when absent.
    pub payload: Value,
    /// How long to wait for the answer, 5 to 300 seconds.
    pub response_timeout: Duration,
    /// How long to wait for the device to connect, 0 to 300 seconds; 0 means that it must be connected now.
    pub connect_timeout: Duration,
}

impl MethodRequest {
    /// A call with the default timeouts.
    ///
    /// # Errors
    /// `ArgumentInvalid` when the name or the payload breaks a limit.
    pub fn new(name: impl Into<String>, payload: Value) -> Result<Self, ServiceError> {
        let request = Self {
            name: name.into(),
            payload,
            response_timeout: DEFAULT_RESPONSE_TIMEOUT,
            connect_timeout: Duration::ZERO,
        };
        check_name(&request.name)?;
        check_payload(&request.payload)?;
        Ok(request)
    }

    /// Reads the body of `POST /twins/{id}/methods`: `{"methodName", "payload", "responseTimeoutInSeconds",
    /// "connectTimeoutInSeconds"}`; `timeout` is how the C SDK names the response timeout.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the field that breaks a rule.
    pub fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let mut fields = object(body, "the body of a method call")?;
        let name = match fields.remove("methodName") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(ServiceError::argument_invalid("`methodName` must be a string")),
            None => {
                return Err(ServiceError::argument_invalid(
                    "`methodName` is missing; give the method's name",
                ));
            }
        };
        let response_timeout = match seconds(&fields, "responseTimeoutInSeconds", RESPONSE_TIMEOUT_SECONDS)? {
            Some(timeout) => Some(timeout),
            None => seconds(&fields, "timeout", RESPONSE_TIMEOUT_SECONDS)?,
        };
        let connect_timeout = seconds(&fields, "connectTimeoutInSeconds", CONNECT_TIMEOUT_SECONDS)?;
        let request = Self::new(name, fields.remove("payload").unwrap_or_default())?;
        Ok(Self {
            response_timeout: response_timeout.unwrap_or(DEFAULT_RESPONSE_TIMEOUT),
            connect_timeout: connect_timeout.unwrap_or_default(),
            ..request
        })
    }

    /// The body that [`MethodRequest::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "methodName": self.name,
            "payload": self.payload,
            "responseTimeoutInSeconds": self.response_timeout.as_secs(),
            "connectTimeoutInSeconds": self.connect_timeout.as_secs(),
        })
    }

    /// The payload as the device gets it: JSON text, never empty.
    #[must_use]
    pub fn payload_bytes(&self) -> Vec<u8> {
        self.payload.to_string().into_bytes()
    }
}

/// An answer. The status is the device's own; 404 or 500 here is still a call that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodResponse {
    /// What the device said about how it went; its own numbers, most like HTTP's.
    pub status: i32,
    /// The result; `Null` when absent.
    pub payload: Value,
}

impl MethodResponse {
    /// Reads what a device sent: the status from the topic, and a body that is JSON text or empty.
    ///
    /// # Errors
    /// `BadDeviceResponse` (502) when the body is not JSON or too large.
    pub fn from_device(status: i32, body: &[u8]) -> Result<Self, ServiceError> {
        let bad = |text: String| ServiceError::new(ErrorCode::BadDeviceResponse, text);
        if body.len() > MAX_METHOD_PAYLOAD_BYTES {
            return Err(bad(format!(
                "the device answered with {} bytes; at most {MAX_METHOD_PAYLOAD_BYTES} are allowed",
                body.len()
            )));
        }
        if body.is_empty() {
            return Ok(Self {
                status,
                payload: Value::Null,
            });
        }
        let payload = serde_json::from_slice(body).map_err(|error| {
            bad(format!(
                "the device's answer is not JSON ({error}); answer with a JSON value"
            ))
        })?;
        Ok(Self { status, payload })
    }

    /// Reads `{"status": n, "payload": …}`, the body of a successful call over REST.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the field that is missing or wrong.
    pub fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let mut fields = object(body, "the answer to a method call")?;
        let status = fields
            .get("status")
            .and_then(Value::as_i64)
            .and_then(|status| i32::try_from(status).ok())
            .ok_or_else(|| ServiceError::argument_invalid("`status` must be an integer of 32 bits"))?;
        Ok(Self {
            status,
            payload: fields.remove("payload").unwrap_or_default(),
        })
    }

    /// The body of a successful call over REST.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "status": self.status, "payload": self.payload })
    }
}

fn object(body: &[u8], what: &str) -> Result<Map<String, Value>, ServiceError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ServiceError::argument_invalid(format!("{what} must be a JSON object"))),
        Err(error) => Err(ServiceError::argument_invalid(format!("{what} is not JSON: {error}"))),
    }
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    match name.chars().count() {
        0 => Err(ServiceError::argument_invalid(
            "`methodName` must not be empty; give the method's name",
        )),
        1..=MAX_METHOD_NAME_CHARS => Ok(()),
        length => Err(ServiceError::argument_invalid(format!(
            "`methodName` has {length} characters; at most {MAX_METHOD_NAME_CHARS} are allowed"
        ))),
    }
}

fn check_payload(payload: &Value) -> Result<(), ServiceError> {
    let length = payload.to_string().len();
    if length > MAX_METHOD_PAYLOAD_BYTES {
        return Err(ServiceError::argument_invalid(format!(
            "`payload` has {length} bytes; at most {MAX_METHOD_PAYLOAD_BYTES} are allowed"
        )));
    }
    Ok(())
}

/// A timeout in whole seconds; `None` when the field is absent or null.
fn seconds(
    fields: &Map<String, Value>,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<Duration>, ServiceError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) if range.contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(ServiceError::argument_invalid(format!(
                "`{name}` is {value}; give whole seconds from {} to {}",
                range.start(),
                range.end()
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        let error = MethodRequest::from_json(body.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::ArgumentInvalid);
        error.message
    }

    #[test]
    fn absent_members_take_the_published_defaults() {
        let request = MethodRequest::from_json(br#"{"methodName":"reboot"}"#).unwrap();

        assert_eq!(request, MethodRequest::new("reboot", Value::Null).unwrap());
        assert_eq!(request.payload_bytes(), b"null");
        assert_eq!(request.response_timeout.as_secs(), 30);
        assert_eq!(request.connect_timeout.as_secs(), 0);
    }

    #[test]
    fn null_empty_text_and_arrays_are_payloads() {
        for payload in ["null", "\"\"", "[1]", "{\"a\":1}"] {
            let body = format!(r#"{{"methodName":"m","payload":{payload}}}"#);
            let request = MethodRequest::from_json(body.as_bytes()).unwrap();
            assert_eq!(request.payload_bytes(), payload.as_bytes());
        }
    }

    #[test]
    fn timeouts_outside_their_range_are_refused_by_name() {
        for timeout in ["4", "301", "-1", "5.5", "\"30\""] {
            let text = refusal(&format!(r#"{{"methodName":"m","responseTimeoutInSeconds":{timeout}}}"#));
            assert!(text.contains("`responseTimeoutInSeconds`"), "{text}");
        }
        assert!(refusal(r#"{"methodName":"m","connectTimeoutInSeconds":301}"#).contains("`connectTimeoutInSeconds`"));
        assert!(refusal(r#"{"methodName":"m","timeout":1}"#).contains("`timeout`"));
    }

    #[test]
    fn the_old_timeout_of_the_c_sdk_is_the_response_timeout() {
        let request = MethodRequest::from_json(br#"{"methodName":"m","timeout":60}"#).unwrap();

        assert_eq!(request.response_timeout.as_secs(), 60);
    }

    #[test]
    fn a_missing_empty_or_long_name_is_refused() {
        for body in ["{}", r#"{"methodName":""}"#, r#"{"methodName":3}"#] {
            assert!(refusal(body).contains("`methodName`"));
        }
        let longest = "é".repeat(100);
        assert!(MethodRequest::new(longest.clone(), Value::Null).is_ok());
        assert!(MethodRequest::new(longest + "x", Value::Null).is_err());
    }

    #[test]
    fn a_payload_has_at_most_128_kib() {
        let fits = Value::String("x".repeat(128 * 1024 - 2));
        let larger = Value::String("x".repeat(128 * 1024 - 1));

        assert!(MethodRequest::new("m", fits).is_ok());
        assert!(
            MethodRequest::new("m", larger)
                .unwrap_err()
                .message
                .contains("`payload`")
        );
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert!(refusal("[]").contains("object"));
        assert!(refusal("{").contains("not JSON"));
    }

    #[test]
    fn a_device_may_answer_with_json_or_nothing() {
        assert_eq!(MethodResponse::from_device(200, b"").unwrap().payload, Value::Null);
        assert_eq!(
            MethodResponse::from_device(-3, b"{\"a\":1}").unwrap().payload,
            json!({"a": 1})
        );
        assert_eq!(
            MethodResponse::from_device(200, b"ok").unwrap_err().code,
            ErrorCode::BadDeviceResponse
        );
    }

    #[test]
    fn requests_and_answers_read_back_what_they_write() {
        let request = MethodRequest::new("m", json!([1, null])).unwrap();
        let response = MethodResponse {
            status: 404,
            payload: json!({"e": 1}),
        };

        assert_eq!(
            MethodRequest::from_json(request.to_json().to_string().as_bytes()),
            Ok(request)
        );
        assert_eq!(
            MethodResponse::from_json(response.to_json().to_string().as_bytes()),
            Ok(response)
        );
    }
}
