//! A notice to back ends as an AMQP message. Source: `hub-service-api.md` §5.3.

use bytes::Bytes;
use holm_amqp::message::MessageWriter;
use holm_amqp::{MessageId, Properties, Symbol};

use super::event_message::amqp_time;
use crate::service::{Notice, NoticeKind};

/// The bytes of the message. `hub` is the name of the node, which readers find as the sender.
#[must_use]
pub(crate) fn notice_bytes(kind: NoticeKind, notice: &Notice, hub: &str) -> Bytes {
    let mut out = bytes::BytesMut::with_capacity(notice.body.len() + 256);
    let mut writer = MessageWriter::new(&mut out);
    writer.message_annotations(|entries| entries.timestamp("iothub-enqueuedtime", amqp_time(notice.enqueued)));
    writer.properties(&Properties {
        message_id: Some(MessageId::from(MessageId::Uuid(notice.lease).to_string().as_str())),
        user_id: Some(Bytes::copy_from_slice(hub.as_bytes())),
        to: Some(address(kind).into()),
        content_type: Some(Symbol::from_static(content_type(kind))),
        content_encoding: Some(Symbol::from_static("utf-8")),
        ..Properties::default()
    });
    writer.data(&notice.body);
    out.freeze()
}

const fn content_type(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Feedback => "application/vnd.microsoft.iothub.feedback.json",
        NoticeKind::Files => "application/vnd.microsoft.iothub.filenotification.json",
    }
}

const fn address(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Feedback => "/messages/serviceBound/feedback",
        NoticeKind::Files => "/messages/serviceBound/filenotifications",
    }
}

#[cfg(test)]
mod tests {
    use holm_amqp::{Body, Limits, Message, Timestamp, Value};
    use holm_model::Timestamp as Time;

    use super::*;

    #[test]
    fn a_notice_has_the_published_type_sender_and_time() {
        for (kind, content_type) in [
            (NoticeKind::Feedback, "application/vnd.microsoft.iothub.feedback.json"),
            (
                NoticeKind::Files,
                "application/vnd.microsoft.iothub.filenotification.json",
            ),
        ] {
            let notice = Notice {
                lease: [7; 16],
                enqueued: Time::from_unix_millis(5),
                body: Bytes::from_static(b"[]"),
            };

            let bytes = notice_bytes(kind, &notice, "hub");

            let message = Message::decode(&bytes, Limits::default()).unwrap();
            let properties = message.properties.unwrap();
            assert_eq!(properties.content_type.unwrap(), content_type);
            assert_eq!(properties.user_id, Some(Bytes::from_static(b"hub")));
            assert_eq!(
                message.message_annotations.get("iothub-enqueuedtime"),
                Some(&Value::Timestamp(Timestamp(5)))
            );
            assert_eq!(message.body, Body::Data(vec![Bytes::from_static(b"[]")]));
        }
    }
}
