//! `holm c2d …`: messages to devices, and what became of them.

mod feedback;

use std::io::Read;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use holm_model::Timestamp;
use holm_model::wire::http::{APPLICATION_PREFIX, OWN_PROPERTIES, own_properties};
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::values::Property;
use crate::cli::{Ack, C2d, Send};
use crate::output::{self, WrongUse};
use crate::service::Service;

use feedback::{Look, Record};

/// The longest that a message may wait; a hub makes more of it less, without a word.
const LONGEST_WAIT: Duration = Duration::from_secs(48 * 3600);

pub(crate) async fn run(command: C2d) -> anyhow::Result<()> {
    match command {
        C2d::Send(send) => self::send(*send).await,
        C2d::Purge { device, hub } => {
            let service = hub_access::open(&hub)?;
            let device = device.id();
            let path = format!("/devices/{}/commands", percent::encode(&device));
            let purged = service.call(Method::DELETE, &path, &[], None).await?.body;
            if hub.json {
                output::json(&purged);
            } else {
                let count = &purged["totalMessagesPurged"];
                output::note(&format!("thrown away: {count} messages for `{device}`"));
            }
            Ok(())
        }
        C2d::Feedback(options) => feedback::run(options).await,
    }
}

async fn send(mut send: Send) -> anyhow::Result<()> {
    if send.expires_in.is_some_and(|time| time > LONGEST_WAIT) {
        bail!(WrongUse(
            "`--expires-in` is more than two days; give 2d or less".to_owned()
        ));
    }
    if send.wait.is_some() {
        send.ack = Some(Ack::Full);
    }
    if send.message_id.is_none() && send.ack.is_some_and(|ack| ack != Ack::None) {
        // Without one nobody could tell which message the feedback is on.
        send.message_id = Some(holm_gateway::tracking_id().to_string());
    }
    let body = body(&send)?;
    let service = hub_access::open(&send.hub)?;
    // Before the message: its feedback may come before the next request would.
    let look = match send.wait {
        Some(_) => Some(Look::from_now(&service, &send.device).await?),
        None => None,
    };
    post(&service, &send, body).await?;
    let id = send.message_id.as_deref();
    if !send.hub.json {
        output::note(&format!("queued for `{}`", send.device));
    }
    let mut told = json!({ "deviceId": send.device, "messageId": id, "queued": true });
    let (Some(look), Some(seconds), Some(id)) = (look, send.wait, id) else {
        if send.hub.json {
            output::json(&told);
        }
        return Ok(());
    };
    let waiting = outcome(look, id);
    let outcome = tokio::time::timeout(Duration::from_secs(seconds), waiting).await;
    let outcome = outcome.ok().transpose()?;
    if send.hub.json {
        told["feedback"] = outcome.as_ref().map_or(Value::Null, Record::to_json);
        output::json(&told);
    } else if let Some(record) = &outcome {
        output::line(&record.to_line());
    }
    match outcome.as_ref().map(Record::status) {
        Some("Success") => Ok(()),
        Some(status) => bail!("device `{}` does not have the message `{id}`: {status}", send.device),
        None => bail!(
            "no feedback on the message `{id}` within {seconds} s; it may reach `{}` later: `holm c2d feedback --peek` shows it then",
            send.device
        ),
    }
}

fn body(send: &Send) -> anyhow::Result<Bytes> {
    if let Some(file) = &send.file {
        let bytes = std::fs::read(file).with_context(|| format!("`{}` can't be read", file.display()))?;
        return Ok(bytes.into());
    }
    let text = send.text.as_deref().unwrap_or_default();
    if text != "-" {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("standard input can't be read")?;
    Ok(bytes.into())
}

async fn post(service: &Service, send: &Send, body: Bytes) -> anyhow::Result<()> {
    let expiry = send.expires_in.map(|time| {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from(SystemTime::now()).plus_millis(millis).to_string()
    });
    let system = [
        ("iothub-messageid", send.message_id.as_deref()),
        ("iothub-correlationid", send.correlation_id.as_deref()),
        ("iothub-userid", send.user_id.as_deref()),
        ("iothub-contenttype", send.content_type.as_deref()),
        ("iothub-contentencoding", send.content_encoding.as_deref()),
        ("iothub-expiry", expiry.as_deref()),
        ("iothub-ack", send.ack.map(Ack::word)),
    ];
    let (plain, other): (Vec<_>, Vec<_>) = send.properties.iter().partition(|property| fits_a_header(property));
    let own: Vec<_> = plain
        .iter()
        .map(|property| {
            (
                format!("{APPLICATION_PREFIX}{}", property.name),
                property.value.as_str(),
            )
        })
        .collect();
    let other = own_properties(
        other
            .iter()
            .map(|property| (property.name.as_str(), property.value.as_str())),
    );
    let mut headers: Vec<(&str, &str)> = system
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)))
        .collect();
    headers.extend(own.iter().map(|(name, value)| (name.as_str(), *value)));
    if !other.is_empty() {
        headers.push((OWN_PROPERTIES, &other));
    }
    let path = format!("/devices/{}/messages/deviceBound", percent::encode(&send.device));
    service.post_bytes(&path, &headers, body).await
}

/// Whether a property arrives by the published header as it was given: names of headers have no case.
fn fits_a_header(property: &Property) -> bool {
    let is_plain = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || matches!(sign, '-' | '_' | '.');
    let value = &property.value;
    property.name.chars().all(is_plain) && !value.chars().any(char::is_control) && value.trim() == value
}

/// Waits for the feedback on a message.
async fn outcome(mut look: Look, id: &str) -> anyhow::Result<Record> {
    while let Some(record) = look.next().await? {
        if record.message() == id {
            return Ok(record);
        }
    }
    bail!("the hub broke off before it told what became of the message `{id}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_header_carries_as_it_is_goes_as_one() {
        let fits = |name: &str, value: &str| {
            fits_a_header(&Property {
                name: name.to_owned(),
                value: value.to_owned(),
            })
        };

        assert!(fits("level", "2") && fits("a-b_c.9", "größer als"));
        for (name, value) in [
            ("Level", "2"),
            ("two words", "x"),
            ("größe", "x"),
            ("a", "x\ny"),
            ("a", " x"),
        ] {
            assert!(!fits(name, value), "{name}={value}");
        }
    }
}
