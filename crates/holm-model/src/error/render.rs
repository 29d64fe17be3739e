//! How an error looks on each wire. Both members of a REST body are always there: Java needs both, and Node splits
//! `Message` at the first `;` and needs something on each side of it.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::ServiceError;
use crate::Timestamp;

/// Ties an answer to a line of the log. The caller makes it from random bits; shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrackingId(u128);

impl TrackingId {
    /// From 128 random bits.
    #[must_use]
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for TrackingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl ServiceError {
    /// The body of a REST answer: `{"Message":"ErrorCode:<Name>;<text>","ExceptionMessage":"Tracking ID:<32
    /// hex>-G:0-TimeStamp:MM/dd/yyyy HH:mm:ss"}`. The header `iothub-errorcode` carries `self.code.name()` beside it.
    #[must_use]
    pub fn rest_body(&self, tracking: TrackingId, now: Timestamp) -> Value {
        json!({
            "Message": format!("ErrorCode:{};{}", self.code, self.text()),
            "ExceptionMessage": format!("Tracking ID:{tracking}-G:0-TimeStamp:{}", american(now)),
        })
    }

    /// The body of a failed method call (`DeviceNotOnline`, `GatewayTimeout`), whose `Message` is itself JSON text.
    /// `timeout` is how long the call waited for what did not come.
    #[must_use]
    pub fn nested_body(&self, tracking: TrackingId, now: Timestamp, timeout: Duration) -> Value {
        let inner = json!({
            "errorCode": self.code.device_number(),
            "trackingId": format!("{tracking}-G:0-TimeStamp:{}", american(now)),
            "message": self.text(),
            "info": { "timeout": clock(timeout) },
            "timestampUtc": now,
        });
        json!({ "Message": inner.to_string(), "ExceptionMessage": "" })
    }

    /// The body of a twin answer to a device. Node decides by `errorCode` and crashes on an empty body, so every answer of
    /// status 400 or above carries this.
    #[must_use]
    pub fn device_body(&self, tracking: TrackingId, now: Timestamp) -> Value {
        json!({
            "errorCode": self.code.device_number(),
            "message": self.text(),
            "trackingId": tracking.to_string(),
            "timestampUtc": now,
        })
    }

    /// The message, or the name where there is no message: Node fails on an empty text.
    fn text(&self) -> &str {
        if self.message.is_empty() {
            self.code.name()
        } else {
            &self.message
        }
    }
}

/// `MM/dd/yyyy HH:mm:ss`, UTC.
fn american(moment: Timestamp) -> String {
    let form = format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
    OffsetDateTime::from_unix_timestamp(moment.unix_seconds())
        .ok()
        .and_then(|moment| moment.format(form).ok())
        .unwrap_or_else(|| moment.to_string())
}

/// `HH:mm:ss`, as .NET writes a time span of less than a day.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    const TRACKING: TrackingId = TrackingId::new(0xabc);
    const NOW: Timestamp = Timestamp::from_unix_millis(1_767_323_045_123);

    #[test]
    fn a_rest_body_has_the_published_form() {
        let body = ServiceError::device_not_found("d1").rest_body(TRACKING, NOW);

        assert_eq!(
            body,
            json!({
                "Message": "ErrorCode:DeviceNotFound;device `d1` is not registered",
                "ExceptionMessage":
                    "Tracking ID:00000000000000000000000000000abc-G:0-TimeStamp:01/02/2026 03:04:05",
            })
        );
    }

    #[test]
    fn a_rest_body_without_a_text_still_has_two_parts_for_node() {
        let body = ServiceError::new(ErrorCode::ServerError, "").rest_body(TRACKING, NOW);

        assert_eq!(body["Message"], "ErrorCode:ServerError;ServerError");
    }

    #[test]
    fn a_method_call_to_an_absent_device_answers_json_within_json() {
        let body = ServiceError::not_online().nested_body(TRACKING, NOW, Duration::from_secs(65));

        let inner: Value = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
        assert_eq!(inner["errorCode"], 404_103);
        assert_eq!(inner["message"], "Timed out waiting for device to connect.");
        assert_eq!(inner["info"]["timeout"], "00:01:05");
        assert_eq!(inner["timestampUtc"], "2026-01-02T03:04:05.1230000Z");
        assert_eq!(body["ExceptionMessage"], "");
    }

    #[test]
    fn a_device_reads_a_number_even_where_none_is_published() {
        let throttled = ServiceError::new(ErrorCode::ThrottlingException, "throttled");
        let too_large = ServiceError::new(ErrorCode::DeviceModelMaxPropertiesExceeded, "too large");

        assert_eq!(throttled.device_body(TRACKING, NOW)["errorCode"], 429_001);
        assert_eq!(too_large.device_body(TRACKING, NOW)["errorCode"], 403_000);
    }
}
