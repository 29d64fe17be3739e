//! The nouns of the provisioning service: the id under which a device asks where it belongs, and what it is told when it
//! can't be.
//!
//! ```text
//! RegistrationId     1 to 128 of letters, digits and - . _ : ; not one of these signs at its end; compared without case
//! ProvisioningError  {"errorCode":401002,"trackingId":"…","message":"…","timestampUtc":"…"}    number = HTTP status × 1000 + n
//! ```
//!
//! A device signs and derives keys with its id as it writes it, and is found by it without case, so an id keeps both forms.
//!
//! Source: `hub-device-protocols.md` §5, `hub-service-api.md` §7.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::{ErrorCode, ServiceError, TrackingId};
use crate::{DeviceId, Timestamp};

/// The longest id, in characters.
pub const MAX_REGISTRATION_ID: usize = 128;

/// Why a text is not a registration id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistrationId {
    /// It is empty or too long.
    #[error("a registration id has 1 to {MAX_REGISTRATION_ID} characters; this has {0}")]
    Length(usize),
    /// It holds something else than is allowed.
    #[error("the registration id holds `{0}`; allowed are ASCII letters, digits and - . _ :")]
    Character(char),
    /// It ends in a sign.
    #[error("the registration id ends in `{0}`; let it end in a letter or digit")]
    End(char),
}

/// The id under which a device asks, or an enrollment is kept. Equal without case.
#[derive(Clone, Debug)]
pub struct RegistrationId {
    text: String,
    key: String,
}

impl RegistrationId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`InvalidRegistrationId`].
    pub fn new(text: &str) -> Result<Self, InvalidRegistrationId> {
        let length = text.chars().count();
        if !(1..=MAX_REGISTRATION_ID).contains(&length) {
            return Err(InvalidRegistrationId::Length(length));
        }
        let is_sign = |character: char| "-._:".contains(character);
        let wrong = text.chars().find(|c| !c.is_ascii_alphanumeric() && !is_sign(*c));
        if let Some(character) = wrong {
            return Err(InvalidRegistrationId::Character(character));
        }
        match text.chars().last().filter(|last| is_sign(*last)) {
            Some(last) => Err(InvalidRegistrationId::End(last)),
            None => Ok(Self {
                text: text.to_owned(),
                key: text.to_ascii_lowercase(),
            }),
        }
    }

    /// The id as it was written: what keys are derived from and tokens signed for.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id in lower case: what it is found by.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The device of this name.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId::new(&self.text).expect("the characters and length of a registration id are those of a device id")
    }
}

impl PartialEq for RegistrationId {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for RegistrationId {}

impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What can be wrong, as the provisioning service tells it. The numbers are published where one is known, else the HTTP status
/// and a number of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisioningCode {
    /// 400004: a value breaks a rule.
    ArgumentInvalid,
    /// 400207: the webhook of a custom allocation gave no usable answer.
    CustomAllocationFailed,
    /// 400209: the hub that was chosen did not take the device.
    HubFailed,
    /// 401002: the proof is missing, wrong or expired, or lacks the right.
    Unauthorized,
    /// 404201: there is no such enrollment, registration or operation.
    NotFound,
    /// 405001: the method is not possible here.
    MethodNotAllowed,
    /// 409201: there is one of that id already.
    Conflict,
    /// 412201: somebody else has changed it.
    PreconditionFailed,
    /// 413001: the request is too large.
    TooLarge,
    /// 429001: too many requests; come again later.
    TooManyRequests,
    /// 500001: the fault is ours.
    ServerError,
    /// 503001: it can't be done now; come again later.
    Unavailable,
}

impl ProvisioningCode {
    /// The published number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::ArgumentInvalid => 400_004,
            Self::CustomAllocationFailed => 400_207,
            Self::HubFailed => 400_209,
            Self::Unauthorized => 401_002,
            Self::NotFound => 404_201,
            Self::MethodNotAllowed => 405_001,
            Self::Conflict => 409_201,
            Self::PreconditionFailed => 412_201,
            Self::TooLarge => 413_001,
            Self::TooManyRequests => 429_001,
            Self::ServerError => 500_001,
            Self::Unavailable => 503_001,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        u16::try_from(self.number() / 1000).expect("a number of six digits has a status of three")
    }
}

/// Why the provisioning service refused or could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProvisioningError {
    /// What is wrong, for programs.
    pub code: ProvisioningCode,
    /// What is wrong and what to do about it. It must not hold secrets.
    pub message: String,
    /// When to come again, if that helps.
    pub retry_after: Option<Duration>,
    /// Other members of the body.
    pub extra: Map<String, Value>,
}

impl ProvisioningError {
    /// An error with a text.
    #[must_use]
    pub fn new(code: ProvisioningCode, message: impl Into<String>) -> Self {
        let message = message.into();
        let retry_after = matches!(
            code,
            ProvisioningCode::TooManyRequests | ProvisioningCode::Unavailable | ProvisioningCode::ServerError
        );
        Self {
            code,
            message,
            retry_after: retry_after.then_some(Duration::from_secs(5)),
            extra: Map::new(),
        }
    }

    /// 401002, in the words that any refused device is told: the reason is for the log.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(ProvisioningCode::Unauthorized, "Unauthorized")
    }

    /// 400004.
    #[must_use]
    pub fn argument_invalid(message: impl Into<String>) -> Self {
        Self::new(ProvisioningCode::ArgumentInvalid, message)
    }

    /// 404201.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ProvisioningCode::NotFound, message)
    }

    /// The body of an answer.
    #[must_use]
    pub fn body(&self, tracking: TrackingId, now: Timestamp) -> Value {
        let mut body = json!({
            "errorCode": self.code.number(),
            "trackingId": tracking.to_string(),
            "message": self.message,
            "timestampUtc": now,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.extra.clone());
        }
        body
    }
}

impl From<ServiceError> for ProvisioningError {
    /// An error of the hub behind, in the provisioning service's numbers.
    fn from(error: ServiceError) -> Self {
        let code = match error.code {
            ErrorCode::ServerError => ProvisioningCode::ServerError,
            ErrorCode::PreconditionFailed => ProvisioningCode::PreconditionFailed,
            ErrorCode::IotHubUnauthorized | ErrorCode::IotHubUnauthorizedAccess => ProvisioningCode::Unauthorized,
            ErrorCode::MessageTooLarge => ProvisioningCode::TooLarge,
            code if code.status() == 503 => ProvisioningCode::Unavailable,
            code if code.status() == 429 => ProvisioningCode::TooManyRequests,
            code if code.status() == 404 => ProvisioningCode::NotFound,
            _ => ProvisioningCode::ArgumentInvalid,
        };
        Self::new(code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_ids_are_equal_without_case_and_keep_their_spelling() {
        let id = RegistrationId::new("Reg-1.a:b_C9").unwrap();

        assert_eq!(id, RegistrationId::new("reg-1.A:B_c9").unwrap());
        assert_eq!(
            (id.as_str(), id.key(), id.device().as_str()),
            ("Reg-1.a:b_C9", "reg-1.a:b_c9", "Reg-1.a:b_C9")
        );
    }

    #[test]
    fn what_is_no_registration_id_is_told_why() {
        let long = "x".repeat(129);
        for (text, wrong) in [
            ("", InvalidRegistrationId::Length(0)),
            (long.as_str(), InvalidRegistrationId::Length(129)),
            ("a b", InvalidRegistrationId::Character(' ')),
            ("größe", InvalidRegistrationId::Character('ö')),
            ("a-", InvalidRegistrationId::End('-')),
        ] {
            assert_eq!(RegistrationId::new(text).unwrap_err(), wrong, "{text}");
        }
        assert!(RegistrationId::new(&"x".repeat(128)).is_ok());
    }

    #[test]
    fn the_number_begins_with_the_status_and_the_body_has_the_published_members() {
        let error = ProvisioningError::new(ProvisioningCode::TooManyRequests, "slower");

        let body = error.body(TrackingId::new(7), Timestamp::from_unix_seconds(1_800_000_000));

        assert_eq!((error.code.status(), body["errorCode"].as_u64()), (429, Some(429_001)));
        assert_eq!(
            (body["message"].as_str(), error.retry_after),
            (Some("slower"), Some(Duration::from_secs(5)))
        );
        assert!(body["trackingId"].is_string() && body["timestampUtc"].as_str().unwrap().ends_with('Z'));
    }
}
