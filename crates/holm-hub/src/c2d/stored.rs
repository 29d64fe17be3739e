//! A message as its mailbox keeps it: checked and stamped when it comes, read back when it is handed out.
//!
//! Source: `hub-service-api.md` §5.2.

use std::time::Duration;

use holm_gateway::Delivery;
use holm_model::message::{DecodeError, MAX_CLOUD_TO_DEVICE_BYTES};
use holm_model::wire::bag;
use holm_model::{DeviceId, ErrorCode, Message, ServiceError, SystemProperty, Timestamp};

use super::MAX_TIME_TO_LIVE_MS;
use super::leases::Free;
use crate::storage::Waiting;

/// Checks a message and stamps it. It waits for `time_to_live` if its sender does not say until when.
pub(super) fn prepare(
    device: &DeviceId,
    mut message: Message,
    now: Timestamp,
    time_to_live: Duration,
) -> Result<Waiting, ServiceError> {
    let size = message.counted_bytes();
    if size > MAX_CLOUD_TO_DEVICE_BYTES {
        return Err(ServiceError::new(
            ErrorCode::MessageTooLarge,
            format!("the message has {size} bytes; at most {MAX_CLOUD_TO_DEVICE_BYTES} are allowed"),
        ));
    }
    let bytes = bag::longest(&message);
    if bytes > bag::MAX_BYTES {
        return Err(ServiceError::new(
            ErrorCode::MessageTooLarge,
            format!(
                "the properties take {bytes} bytes as a topic carries them; at most {} are allowed; send fewer or shorter ones",
                bag::MAX_BYTES
            ),
        ));
    }
    if let Some(id) = message.system.get(SystemProperty::MessageId)
        && !id.is_empty()
    {
        // The published form of a message id is that of a device's id.
        DeviceId::new(id).map_err(|error| {
            ServiceError::argument_invalid(format!("`iothub-messageid` (`message-id` over AMQP): {error}"))
        })?;
    }
    let ack = message
        .system
        .get(SystemProperty::Ack)
        .unwrap_or("none")
        .to_ascii_lowercase();
    if !["none", "positive", "negative", "full"].contains(&ack.as_str()) {
        return Err(ServiceError::argument_invalid(format!(
            "`iothub-ack` is `{ack}`; give `none`, `positive`, `negative` or `full`"
        )));
    }
    let expires = match message.system.get(SystemProperty::AbsoluteExpiryTime) {
        None => now.plus_millis(i64::try_from(time_to_live.as_millis()).unwrap_or(MAX_TIME_TO_LIVE_MS)),
        Some(text) => Timestamp::parse(text)
            .ok_or_else(|| {
                ServiceError::argument_invalid(format!("`iothub-expiry` is `{text}`; give an ISO 8601 point in time"))
            })?
            .min(now.plus_millis(MAX_TIME_TO_LIVE_MS)),
    };
    let to = format!("/devices/{device}/messages/devicebound");
    message.system.set(SystemProperty::To, to);
    message.system.set(SystemProperty::EnqueuedTime, now.to_string());
    if message.system.get(SystemProperty::AbsoluteExpiryTime).is_some() {
        message
            .system
            .set(SystemProperty::AbsoluteExpiryTime, expires.to_string());
    }
    Ok(Waiting {
        sequence: 0,
        enqueued: now,
        expires,
        deliveries: 0,
        ack,
        message: message.encode().into(),
    })
}

pub(super) fn decoded(message: &Waiting) -> Result<Message, DecodeError> {
    Message::decode(message.message.clone().into())
}

pub(super) fn delivery(free: &Free) -> Result<Delivery, DecodeError> {
    let waiting = &free.message;
    let mut message = decoded(waiting)?;
    message
        .system
        .set(SystemProperty::SequenceNumber, waiting.sequence.to_string());
    message
        .system
        .set(SystemProperty::DeliveryCount, waiting.deliveries.to_string());
    Ok(Delivery {
        message,
        input: None,
        lease: free.token,
        redelivered: free.redelivered,
    })
}
