//! One connection, from CONNECT to its end.

use std::collections::{HashMap, VecDeque};

use holm_model::Message;
use holm_model::wire::{ClientTopic, ServerTopic, Subscription, bag};
use holm_mqtt::{Closed, DeliveryId, Event as Packet, Granted, Outcome, Qos, Refusal, Text, Token};
use holm_net::clock::instant;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Link, Unacknowledged};
use crate::client::{SendError, State, TwinError};
use crate::engine::requests::Requests;
use crate::engine::{Acknowledged, Answer, Call, Command, Delivered, End, Ends, Verdict, sleep_until, tell};
use crate::event::{Event, MethodCall, Received};
use crate::options::{Interests, Options};

/// Events kept for a slow application before no more publishes are taken. What comes then waits in the session, and, when
/// that is full, in the socket.
const MAX_KEPT_EVENTS: usize = 256;

/// What can be wanted, how it is subscribed, and whether it is among interests.
type Kind = (Subscription, Qos, fn(&Interests) -> bool);

const KINDS: [Kind; 4] = [
    (Subscription::Methods, Qos::AtMostOnce, |of| of.methods),
    (Subscription::DesiredPatches, Qos::AtMostOnce, |of| {
        of.desired_properties
    }),
    (Subscription::CloudToDevice, Qos::AtLeastOnce, |of| of.cloud_to_device),
    (Subscription::Inputs, Qos::AtLeastOnce, |of| of.inputs),
];

struct Serving<'e> {
    options: &'e Options,
    ends: &'e mut Ends,
    kept: &'e mut VecDeque<Unacknowledged>,
    link: Link,
    answers: (mpsc::Sender<Box<Answer>>, mpsc::Receiver<Box<Answer>>),
    in_flight: HashMap<Token, Acknowledged>,
    twins: Requests,
    events: VecDeque<Event>,
    /// What is subscribed, or asked for.
    subscribed: Interests,
    /// What may still be subscribed in the session that the hub kept: earlier connections, and programs, wanted what they wanted.
    kept_by_hub: Interests,
    /// Subscriptions asked for and not answered; the connection counts as up when there are none.
    asked: usize,
    /// The hub let us in: messages may be sent. Inputs of a resumed session come before the subscriptions are answered, and
    /// fill the window until they are acknowledged; whoever first sends what it makes of them must not wait for more.
    open: bool,
    up: bool,
}

/// Serves a connection until its end. What was not acknowledged is then in `kept`.
pub(super) async fn serve(options: &Options, ends: &mut Ends, kept: &mut VecDeque<Unacknowledged>, link: Link) -> End {
    let mut serving = Serving {
        options,
        ends,
        kept,
        link,
        answers: mpsc::channel(crate::event::MAX_WAITING_EVENTS),
        in_flight: HashMap::new(),
        twins: Requests::default(),
        events: VecDeque::new(),
        subscribed: Interests::default(),
        kept_by_hub: Interests::default(),
        asked: 0,
        open: false,
        up: false,
    };
    let end = serving.run().await;
    serving.wind_up().await;
    end
}

impl Serving<'_> {
    async fn run(&mut self) -> End {
        let renewal = self.options.renewal(self.link.life);
        let events = self.ends.events.clone();
        let mut abandoned = std::pin::pin!(self.ends.abandoned());
        loop {
            self.send_kept();
            let may_send = self.open && self.kept.is_empty() && self.link.connection.session().can_publish();
            let may_ask = self.up && self.twins.has_room();
            let has_room = self.events.len() < MAX_KEPT_EVENTS;
            let deadline = self.twins.deadline();
            tokio::select! {
                // Whoever does not read its events gets no more of them, and is still connected: what it sends leaves and is
                // acknowledged, the link is proved alive, and its end is noticed.
                packet = self.link.connection.next_event_where(|packet| {
                    has_room || !self.options.is_event(packet)
                }) => {
                    if let Packet::Closed(reason) = packet {
                        return ended(&reason);
                    }
                    self.handle(packet);
                }
                room = events.reserve(), if !self.events.is_empty() => match (room, self.events.pop_front()) {
                    (Ok(room), Some(event)) => room.send(Box::new(event)),
                    // The application has dropped its events: it wants none, and may still send.
                    _ => self.events.clear(),
                },
                outgoing = self.ends.outgoing.recv(), if may_send => match outgoing {
                    Some(outgoing) => self.publish(&outgoing.message, outgoing.acknowledged),
                    None => return End::Stopped,
                },
                // What is on its way may never be acknowledged.
                () = &mut abandoned, if !may_send => return End::Stopped,
                Some(command) = self.ends.requests.recv(), if may_ask => self.request(*command),
                Some(answer) = self.answers.1.recv() => self.answer(*answer),
                Ok(()) = self.ends.wanted.changed(), if self.up => self.subscribe(),
                () = sleep_until(deadline) => self.twins.expire(),
                () = sleep_until(renewal) => return End::Renewing,
            }
        }
    }

    /// Closes what is open, and keeps what was not acknowledged for the next connection.
    async fn wind_up(mut self) {
        self.link.connection.session_mut().close();
        // Acknowledgements that are here already count.
        while let Some(packet) = self.link.connection.session_mut().poll_event() {
            if let Packet::Acknowledged(token) = packet {
                self.acknowledged(token);
            }
        }
        self.link.connection.finish().await;
        self.twins.fail_all();
        let unacknowledged = self.link.connection.into_session().into_unacknowledged();
        for (token, packet) in unacknowledged.into_iter().rev() {
            if let Some(acknowledged) = self.in_flight.remove(&token) {
                self.kept.push_front(Unacknowledged { packet, acknowledged });
            }
        }
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Connected { session_present } => {
                self.open = true;
                if session_present {
                    self.kept_by_hub = Interests::all_of(&self.options.identity);
                }
                self.subscribe();
            }
            Packet::Subscribed { granted, .. } => self.subscribed(&granted),
            Packet::Acknowledged(token) => self.acknowledged(token),
            Packet::Publish { message, delivery } => self.arrived(&message, delivery),
            Packet::Unsubscribed { .. } => {}
            Packet::Connect(_) | Packet::Subscribe { .. } | Packet::Unsubscribe { .. } | Packet::Closed(_) => {
                tracing::debug!("an event of another role or time was dropped");
            }
        }
    }

    /// Asks for what is wanted and not yet subscribed, and gives up what is no longer wanted.
    fn subscribe(&mut self) {
        let wanted = *self.ends.wanted.borrow_and_update();
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        if !self.up && self.asked == 0 {
            add.push(self.filter(Subscription::TwinResponses, Qos::AtMostOnce));
        }
        for (subscription, qos, of) in KINDS {
            let (has, wants) = (of(&self.subscribed), of(&wanted));
            if wants && !has {
                add.push(self.filter(subscription, qos));
            } else if !wants && (has || of(&self.kept_by_hub)) {
                remove.push(self.filter(subscription, qos).filter);
            }
        }
        let session = self.link.connection.session_mut();
        let mut outcome = Ok(());
        if !add.is_empty() {
            outcome = session.subscribe(instant(), add).map(|_| self.asked += 1);
        }
        if outcome.is_ok() && !remove.is_empty() {
            outcome = session.unsubscribe(instant(), remove).map(|_| ());
        }
        match outcome {
            Ok(()) => (self.subscribed, self.kept_by_hub) = (wanted, Interests::default()),
            Err(error) => {
                tracing::warn!(identity = %self.options.identity, %error, "subscriptions could not be sent; reconnecting");
                session.close();
            }
        }
    }

    fn filter(&self, subscription: Subscription, qos: Qos) -> holm_mqtt::Subscription {
        let filter = Text::try_from(subscription.filter(&self.options.identity))
            .expect("ids have at most 128 characters, so every published filter fits");
        holm_mqtt::Subscription { filter, qos }
    }

    fn subscribed(&mut self, granted: &[Granted]) {
        if granted.contains(&Granted::Failure) {
            tracing::warn!(identity = %self.options.identity, "the hub refused a subscription; what it brings will be missing");
        }
        self.asked = self.asked.saturating_sub(1);
        if self.asked == 0 && !self.up {
            self.up = true;
            self.ends.state.send_replace(State::Connected);
            self.events.push_back(Event::Connected);
            // A wish that came meanwhile is seen as changed.
            if *self.ends.wanted.borrow() != self.subscribed {
                self.subscribe();
            }
        }
    }

    fn publish(&mut self, message: &Message, acknowledged: Acknowledged) {
        let topic = ClientTopic::telemetry(&self.options.identity, &bag::to_server(message));
        match Text::try_from(topic) {
            Ok(topic) => {
                let packet = holm_mqtt::Message {
                    topic,
                    payload: message.body.clone(),
                    qos: Qos::AtLeastOnce,
                    retain: false,
                    dup: false,
                };
                self.kept.push_back(Unacknowledged { packet, acknowledged });
                self.send_kept();
            }
            Err(error) => tell(
                acknowledged,
                Err(SendError::Invalid(format!("its properties are too long: {error}"))),
            ),
        }
    }

    /// Sends what waits, oldest first, while the window has room.
    fn send_kept(&mut self) {
        while self.open
            && let Some(first) = self.kept.pop_front()
        {
            match self.link.connection.session_mut().publish(instant(), &first.packet) {
                Ok(Some(token)) => {
                    self.in_flight.insert(token, first.acknowledged);
                }
                Ok(None) => tell(first.acknowledged, Ok(())),
                Err(holm_mqtt::PublishError::Encode(error)) => {
                    tell(first.acknowledged, Err(SendError::Invalid(error.to_string())));
                }
                Err(_) => return self.kept.push_front(first),
            }
        }
    }

    fn acknowledged(&mut self, token: Token) {
        if let Some(acknowledged) = self.in_flight.remove(&token) {
            tell(acknowledged, Ok(()));
        }
    }

    fn request(&mut self, command: Command) {
        let rid = self.twins.next_id();
        let (topic, body) = match &command {
            // One space, as the published SDKs send: some servers refuse an empty body.
            Command::Twin(_) => (ClientTopic::twin_get(&rid), " ".to_owned()),
            Command::PatchReported(patch, _) => (ClientTopic::twin_patch_reported(&rid), patch.to_string()),
        };
        match self.publish_once(topic, body) {
            Ok(()) => self.twins.insert(rid, command),
            Err(reason) => {
                tracing::warn!(identity = %self.options.identity, reason, "a twin request was not sent");
                command.fail(TwinError::NotConnected);
            }
        }
    }

    fn publish_once(&mut self, topic: String, body: String) -> Result<(), String> {
        let topic = Text::try_from(topic).map_err(|error| error.to_string())?;
        let message = holm_mqtt::Message {
            topic,
            payload: body.into(),
            qos: Qos::AtMostOnce,
            retain: false,
            dup: false,
        };
        let sent = self.link.connection.session_mut().publish(instant(), &message);
        sent.map(|_| ()).map_err(|error| error.to_string())
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            // It comes again with the next connection: MQTT has no other word for it.
            Answer::Settle(_, Verdict::Abandon) => {}
            // To the node above what is rejected is completed.
            Answer::Settle(Delivered::Mqtt(delivery), Verdict::Complete | Verdict::Reject) => {
                self.link
                    .connection
                    .session_mut()
                    .acknowledge(delivery, Outcome::Accept);
            }
            Answer::Method(Call::Mqtt(request_id), response) => {
                let topic = ClientTopic::method_response(response.status, &request_id);
                if let Err(reason) = self.publish_once(topic, response.payload.to_string()) {
                    tracing::warn!(identity = %self.options.identity, reason, "the answer of a method was lost");
                }
            }
            Answer::Settle(Delivered::Amqp(_), _) | Answer::Method(Call::Amqp(_), _) => {
                tracing::debug!("an answer for another carrier was dropped");
            }
        }
    }

    fn arrived(&mut self, packet: &holm_mqtt::Message, delivery: Option<DeliveryId>) {
        let topic = packet.topic.as_str();
        let event = match ServerTopic::parse(topic, &self.options.identity) {
            Ok(ServerTopic::CloudToDevice { bag }) => return self.message(bag, None, packet, delivery),
            Ok(ServerTopic::Input { input, bag }) => return self.message(bag, Some(input), packet, delivery),
            Ok(ServerTopic::TwinResponse { status, rid, version }) => {
                self.twins.answered(rid, status, version, &packet.payload);
                None
            }
            Ok(ServerTopic::Method { name, rid }) => {
                let payload = serde_json::from_slice(&packet.payload).unwrap_or(Value::Null);
                let (name, call) = (name.to_owned(), Call::Mqtt(rid.to_owned()));
                Some(Event::Method(MethodCall {
                    name,
                    payload,
                    call,
                    answers: self.answers.0.clone(),
                }))
            }
            Ok(ServerTopic::DesiredPatch { .. }) => match serde_json::from_slice(&packet.payload) {
                Ok(patch) => Some(Event::DesiredChanged(patch)),
                Err(error) => {
                    tracing::warn!(identity = %self.options.identity, %error, "a change of desired properties is not JSON");
                    None
                }
            },
            Err(error) => {
                tracing::warn!(identity = %self.options.identity, %error, "a message came that is none of ours");
                None
            }
        };
        self.events.extend(event);
        if let Some(delivery) = delivery {
            self.link
                .connection
                .session_mut()
                .acknowledge(delivery, Outcome::Accept);
        }
    }

    fn message(&mut self, bag: &str, input: Option<&str>, packet: &holm_mqtt::Message, delivery: Option<DeliveryId>) {
        let (system, properties) = bag::from_server(bag);
        let message = Message {
            body: packet.payload.clone(),
            system,
            properties,
        };
        self.events.push_back(Event::Message(Received {
            message,
            input: input.map(str::to_owned),
            redelivered: packet.dup,
            delivery: delivery.map(Delivered::Mqtt),
            answers: self.answers.0.clone(),
        }));
    }
}

impl Options {
    /// Whether a packet brings the application something to read. Answers to its own requests do not: it waits for them.
    fn is_event(&self, packet: &Packet) -> bool {
        let Packet::Publish { message, .. } = packet else {
            return false;
        };
        !matches!(
            ServerTopic::parse(message.topic.as_str(), &self.identity),
            Ok(ServerTopic::TwinResponse { .. })
        )
    }
}

fn ended(reason: &Closed) -> End {
    let text = holm_net::error_chain(reason);
    match reason {
        Closed::Refused(Refusal::BadUserNameOrPassword | Refusal::NotAuthorized) => End::Refused(text),
        _ => End::Lost(text),
    }
}
