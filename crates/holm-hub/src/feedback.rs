//! Feedback: what became of a cloud-to-device message, told to the back end that asked for it.
//!
//! ```text
//! a message ends (c2d) --wanted by its `iothub-ack`?--> record --Notices--> a batch of records to one reader
//! ```
//!
//! | `iothub-ack` | told of |
//! | --- | --- |
//! | `none` | nothing |
//! | `positive` | `Success` |
//! | `negative` | `Expired`, `DeliveryCountExceeded`, `Rejected`, `Purged` |
//! | `full` | all of them |
//!
//! A record is written in the change that ends its message, so there is one for each that was asked for, and never two.
//!
//! Source: `hub-service-api.md` §5.3.

use holm_model::{DeviceId, ServiceError, Timestamp};
use serde::Serialize;

use crate::notices::NoticeKind;
use crate::storage::{Repository, Transaction};

/// What became of a message. Shown as the published feedback says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device has it.
    Success,
    /// Its time ended before.
    Expired,
    /// The device abandoned it too often.
    DeliveryCountExceeded,
    /// The device refused it.
    Rejected,
    /// It was removed by an operator.
    Purged,
}

impl Outcome {
    /// The published name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Expired => "Expired",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
            Self::Rejected => "Rejected",
            Self::Purged => "Purged",
        }
    }

    /// Whether a sender who asked for `ack` wants to know of it.
    #[must_use]
    pub fn is_wanted(self, ack: &str) -> bool {
        match ack {
            "full" => true,
            "positive" => self == Self::Success,
            "negative" => self != Self::Success,
            _ => false,
        }
    }
}

/// A record of feedback.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The message id that the sender gave; empty if it gave none.
    pub message: &'a str,
    /// To which device it was sent.
    pub device: &'a DeviceId,
    /// To which device of this name.
    pub generation: &'a str,
    /// What became of it.
    pub outcome: &'a str,
    /// When.
    pub at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Published<'a> {
    original_message_id: &'a str,
    description: &'a str,
    device_generation_id: &'a str,
    device_id: &'a str,
    enqueued_time_utc: Timestamp,
    status_code: &'a str,
}

impl Record<'_> {
    /// The record as JSON, in the published form; the description says what the status says, as the original's does.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let published = Published {
            original_message_id: self.message,
            description: self.outcome,
            device_generation_id: self.generation,
            device_id: self.device.as_str(),
            enqueued_time_utc: self.at,
            status_code: self.outcome,
        };
        serde_json::to_vec(&published).expect("texts and a time are JSON")
    }
}

/// Makes feedback of the outcomes that a release without feedback has kept. They are as old as they are: what has waited
/// longer than feedback may is given up at the next sweep.
///
/// # Errors
/// When the database can't be written to.
pub(crate) async fn adopt_old_outcomes(repository: &Repository) -> Result<usize, ServiceError> {
    let adopt = |transaction: &Transaction<'_>| {
        let mut adopted = 0;
        for old in transaction.take_old_outcomes()? {
            let Ok(device) = DeviceId::new(&old.device) else {
                continue;
            };
            let record = Record {
                message: &old.message_id,
                device: &device,
                generation: &old.generation,
                outcome: &old.outcome,
                at: old.at,
            };
            transaction.add_notice(NoticeKind::Feedback, old.at, &record.to_json())?;
            adopted += 1;
        }
        Ok(adopted)
    };
    repository.change(adopt).await
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_sender_is_told_what_it_asked_for() {
        use Outcome::*;
        let all = [Success, Expired, DeliveryCountExceeded, Rejected, Purged];
        let told = |ack: &str| {
            all.into_iter()
                .filter(|outcome| outcome.is_wanted(ack))
                .collect::<Vec<_>>()
        };

        assert_eq!(told("none"), []);
        assert_eq!(told("positive"), [Success]);
        assert_eq!(told("negative"), [Expired, DeliveryCountExceeded, Rejected, Purged]);
        assert_eq!(told("full"), all);
    }

    #[test]
    fn a_record_has_the_published_form() {
        let device = DeviceId::new("d1").unwrap();
        let record = Record {
            message: "m-1",
            device: &device,
            generation: "637",
            outcome: Outcome::Success.name(),
            at: Timestamp::from_unix_millis(1_800_000_000_000),
        };

        let published: Value = serde_json::from_slice(&record.to_json()).unwrap();

        let expected = json!({
            "originalMessageId": "m-1",
            "description": "Success",
            "deviceGenerationId": "637",
            "deviceId": "d1",
            "enqueuedTimeUtc": "2027-01-15T08:00:00.0000000Z",
            "statusCode": "Success",
        });
        assert_eq!(published, expected);
    }
}
