//! What comes for an identity: messages, method calls, and news of its twin.

use holm_amqp::{Delivery, Limits, LinkId, Message, Outcome};
use holm_model::SystemProperty;
use serde_json::Value;

use super::links::Purpose;
use super::messages::{self, TwinNews};
use super::serving::{SUBSCRIBE, Serving, UNSUBSCRIBE};
use crate::engine::{Call, Delivered};
use crate::event::{Event, MethodCall, Received};

impl Serving<'_> {
    pub(super) fn arrived(&mut self, delivery: &Delivery) {
        let Some(purpose) = self.links.purpose(delivery.link) else {
            return;
        };
        let decoded = Message::decode(&delivery.payload, Limits::default());
        let is_mail = matches!(purpose, Purpose::CloudToDevice | Purpose::Inputs);
        if let Some(id) = delivery.id
            && (!is_mail || decoded.is_err())
        {
            let outcome = if decoded.is_ok() {
                Outcome::Accepted
            } else {
                Outcome::Rejected(None)
            };
            self.seat.with(|connection| connection.settle(id, outcome));
        }
        let message = match decoded {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(identity = %self.options.identity, ?purpose, %error, "a message came that can't be read");
                return self.give_back(delivery.link, purpose);
            }
        };
        match purpose {
            Purpose::CloudToDevice | Purpose::Inputs => self.mail(&message, purpose, delivery),
            Purpose::MethodCalls => self.method(&message, delivery.link),
            Purpose::TwinNews => self.twin_news(&message, delivery.link),
            Purpose::Telemetry | Purpose::MethodAnswers | Purpose::TwinRequests => {}
        }
    }

    /// Lets another one come for one that the application does not get.
    pub(super) fn give_back(&self, link: LinkId, purpose: Purpose) {
        if purpose.credit() > 0 {
            self.seat.with(|connection| connection.grant(link, 1));
        }
    }

    pub(super) fn mail(&mut self, message: &Message, purpose: Purpose, delivery: &Delivery) {
        let (message, input) = messages::from_server(message);
        let input = (purpose == Purpose::Inputs).then(|| input.unwrap_or_default());
        if delivery.id.is_some() {
            self.links.hold(delivery.link);
        }
        let deliveries = message.system.get(SystemProperty::DeliveryCount);
        let received = Received {
            redelivered: deliveries.is_some_and(|count| count != "0"),
            message,
            input,
            delivery: delivery.id.map(Delivered::Amqp),
            answers: self.answers.0.clone(),
        };
        self.events.push_back((Event::Message(received), None));
    }

    pub(super) fn method(&mut self, message: &Message, link: LinkId) {
        let Some((id, name, payload)) = messages::method_call(message) else {
            tracing::warn!(identity = %self.options.identity, "a method call came without an id or a name");
            return self.give_back(link, Purpose::MethodCalls);
        };
        let call = MethodCall {
            name,
            payload,
            call: Call::Amqp(id),
            answers: self.answers.0.clone(),
        };
        self.events.push_back((Event::Method(call), Some(link)));
    }

    pub(super) fn twin_news(&mut self, message: &Message, link: LinkId) {
        let body = message.body.data().unwrap_or_default();
        match messages::twin_news(message) {
            TwinNews::Desired => match serde_json::from_slice::<Value>(&body) {
                Ok(patch) => return self.events.push_back((Event::DesiredChanged(patch), Some(link))),
                Err(error) => {
                    tracing::warn!(identity = %self.options.identity, %error, "a change of desired properties is not JSON");
                }
            },
            TwinNews::Answer {
                correlation, status, ..
            } if correlation == SUBSCRIBE => {
                if status >= 300 {
                    tracing::warn!(identity = %self.options.identity, status, "the node above refused a subscription; what it brings will be missing");
                }
                self.awaits_desired = false;
                self.look_whether_up();
            }
            TwinNews::Answer { correlation, .. } if correlation == UNSUBSCRIBE => {}
            TwinNews::Answer {
                correlation,
                status,
                version,
            } => self.twins.answered(&correlation, status, version, &body),
        }
        self.give_back(link, Purpose::TwinNews);
    }
}
