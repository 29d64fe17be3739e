//! The provisioning service over MQTT.
//!
//! ```text
//! CONNECT {scope}/registrations/{id}/…  --attest--> CONNACK 0, session present always 0 | 5
//! SUBSCRIBE $dps/registrations/res/#    SUBACK before any answer
//! PUBLISH …/PUT/iotdps-register/?$rid=  PUBACK, then the answer: C# waits for them in this order
//! ```
//!
//! A device asks one thing after the other, so requests are answered one by one; what comes meanwhile waits in the socket.
//! Nothing is kept of a connection, and it lives as long as its token.
//!
//! Source: `hub-device-protocols.md` §5.2.

use std::time::{Duration, Instant};

use holm_identity::SasToken;
use holm_model::wire::provisioning::{ANSWERS, Registrant, TopicCall, answer_topic};
use holm_model::{ProvisioningCode, ProvisioningError};
use holm_mqtt::{
    Closed, Connect, DeliveryId, Event, Granted, Message, Outcome, PublishError, Qos, Refusal as Code, Session, Text,
};
use holm_net::clock::instant;
use holm_net::{Alarm, Connection, Peer, Scope};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{admit, complain, end};
use crate::backend::{Backend, Credential};
use crate::gateway::{Gateway, now};
use crate::metrics::{ConnectRefusal, End};
use crate::provisioning::{Applicant, MAX_REGISTRATION};
use crate::tracking_id;

/// The longest that a connection stands whose proof has no end of its own.
const LONGEST: Duration = Duration::from_secs(3600);

/// Who connects, if it is a device that asks the provisioning service, and this node has one.
pub(super) fn registrant<B: Backend>(gateway: &Gateway<B>, connect: &Connect) -> Option<Registrant> {
    gateway.backend.id_scope()?;
    let credentials = connect.credentials.as_ref()?;
    Registrant::of_mqtt_user(credentials.user_name.as_str())
}

/// Serves a device that asks the provisioning service, from its CONNECT to its end.
pub(super) async fn run<B, S>(
    gateway: &Gateway<B>,
    scope: &Scope,
    connection: &mut Connection<Session, S>,
    peer: &Peer,
    (registrant, connect): (Registrant, Box<Connect>),
) -> End
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let applicant = match let_in(gateway, registrant, &connect, peer).await {
        Ok(applicant) => applicant,
        Err((code, counted)) => {
            connection.session_mut().refuse(code);
            gateway.metrics.refused.of(counted).increment();
            return End::Refused;
        }
    };
    drop(connect);
    let mut asking = Asking {
        ends: ends(gateway, &applicant.credential),
        gateway,
        connection,
        applicant,
        answers: None,
        end: None,
    };
    asking.connection.session_mut().accept(instant(), false);
    let closed = asking.serve(scope).await;
    complain(gateway, &closed, peer, &asking.applicant.registrant.registration_id);
    end(&closed).or(asking.end).unwrap_or(End::ShuttingDown)
}

async fn let_in<B: Backend>(
    gateway: &Gateway<B>,
    registrant: Registrant,
    connect: &Connect,
    peer: &Peer,
) -> Result<Applicant, (Code, ConnectRefusal)> {
    let refused = |code, counted, reason: &str| {
        tracing::info!(client = %connect.client_id, peer = peer.address.map(tracing::field::display), reason, "a device that asks for its registration was refused");
        (code, counted)
    };
    let not_authorized = |reason: &str| refused(Code::NotAuthorized, ConnectRefusal::NotAuthorized, reason);
    if !registrant
        .registration_id
        .eq_ignore_ascii_case(connect.client_id.as_str())
    {
        return Err(not_authorized(
            "the client id is not the registration id of the user name",
        ));
    }
    let password = connect.credentials.as_ref().and_then(|both| both.password.as_deref());
    let credential = admit::credential(password, peer)
        .map_err(|reason| refused(Code::BadUserNameOrPassword, ConnectRefusal::Malformed, &reason))?;
    let source = peer.address.map(|address| address.ip());
    let applicant = Applicant {
        registrant,
        credential,
        source,
    };
    match gateway.backend.attest(&applicant).await {
        Ok(()) => Ok(applicant),
        Err(error) if error.code == ProvisioningCode::Unauthorized => Err(not_authorized(&error.message)),
        Err(error) => Err(refused(
            Code::ServerUnavailable,
            ConnectRefusal::Unavailable,
            &error.message,
        )),
    }
}

/// When a connection by this proof must end.
fn ends<B>(gateway: &Gateway<B>, credential: &Credential) -> Instant {
    let left = match credential {
        Credential::Token(text) => SasToken::parse(text).ok().map(|token| {
            let now = gateway.clock.now().into();
            let millis = token.honoured_until().millis_since(now);
            Duration::from_millis(u64::try_from(millis).unwrap_or(0))
        }),
        _ => None,
    };
    instant() + left.unwrap_or(LONGEST).min(LONGEST)
}

struct Asking<'c, B: Backend, S> {
    gateway: &'c Gateway<B>,
    connection: &'c mut Connection<Session, S>,
    applicant: Applicant,
    ends: Instant,
    /// At which quality of service it hears answers, once it does.
    answers: Option<Qos>,
    /// Why the connection is closed from this side, once it is.
    end: Option<End>,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Asking<'_, B, S> {
    async fn serve(&mut self, scope: &Scope) -> Closed {
        let mut alarm = Alarm::default();
        let mut stopping = std::pin::pin!(scope.stopping());
        loop {
            let is_open = self.end.is_none();
            tokio::select! {
                biased;
                () = &mut stopping, if is_open => self.close(End::ShuttingDown),
                () = alarm.wait(Some(self.ends).filter(|_| is_open)) => {
                    if self.ends <= instant() {
                        self.close(End::TokenEnded);
                    }
                }
                event = self.connection.next_event() => match event {
                    Event::Closed(reason) => return reason,
                    Event::Publish { message, delivery } => self.publish(&message, delivery).await,
                    Event::Subscribe { request, filters } => {
                        let granted: Vec<_> = filters.iter().map(|wish| self.grant(wish)).collect();
                        if let Err(error) = self.connection.session_mut().suback(request, &granted) {
                            tracing::error!(%error, "a SUBSCRIBE was not answered");
                        }
                    }
                    Event::Unsubscribe { request, filters } => {
                        if filters.iter().any(|filter| filter.as_str() == ANSWERS) {
                            self.answers = None;
                        }
                        if let Err(error) = self.connection.session_mut().unsuback(request) {
                            tracing::error!(%error, "an UNSUBSCRIBE was not answered");
                        }
                    }
                    _ => {}
                },
            }
        }
    }

    fn close(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.connection.session_mut().close();
    }

    fn grant(&mut self, wish: &holm_mqtt::Subscription) -> Granted {
        if wish.filter.as_str() != ANSWERS {
            tracing::info!(registration = %self.applicant.registrant.registration_id, filter = %wish.filter, "a subscription was refused");
            return Granted::Failure;
        }
        self.answers = Some(wish.qos);
        Granted::Qos(wish.qos)
    }

    async fn publish(&mut self, message: &Message, delivery: Option<DeliveryId>) {
        let Some(call) = TopicCall::parse(message.topic.as_str()) else {
            let registration = &self.applicant.registrant.registration_id;
            tracing::warn!(%registration, topic = %message.topic, "a publish was refused: it is no request to the provisioning service; closing");
            return self.close(End::MessageRefused);
        };
        if let Some(delivery) = delivery {
            self.connection.session_mut().acknowledge(delivery, Outcome::Accept);
        }
        let (backend, applicant) = (&self.gateway.backend, &self.applicant);
        let (rid, outcome) = match call {
            TopicCall::Register { rid } if message.payload.len() > MAX_REGISTRATION => {
                let text = format!(
                    "the request has {} bytes; at most {MAX_REGISTRATION} are read",
                    message.payload.len()
                );
                (rid, Err(ProvisioningError::new(ProvisioningCode::TooLarge, text)))
            }
            TopicCall::Register { rid } => {
                // Its own copy, so that the buffer of the packet goes.
                let body = bytes::Bytes::copy_from_slice(&message.payload);
                (rid, backend.begin(applicant, body).await)
            }
            TopicCall::Operation { rid, operation } => (rid, backend.state(applicant, &operation).await),
        };
        match outcome {
            Ok(standing) => {
                let topic = answer_topic(standing.status, &rid, standing.retry_after_seconds());
                self.answer(topic, standing.body.to_string());
            }
            Err(error) => {
                let tracking = tracking_id();
                tracing::debug!(%tracking, code = error.code.number(), %error, "a registration was refused");
                let retry = error.retry_after.map(|wait| wait.as_secs());
                let topic = answer_topic(error.code.status(), &rid, retry);
                self.answer(topic, error.body(tracking, now()).to_string());
            }
        }
    }

    fn answer(&mut self, topic: String, body: String) {
        let Some(qos) = self.answers else {
            let registration = &self.applicant.registrant.registration_id;
            tracing::debug!(%registration, "an answer was dropped: the device has not subscribed to answers");
            return;
        };
        let Ok(topic) = Text::try_from(topic) else {
            tracing::warn!("an answer was dropped: its topic has no form in MQTT");
            return;
        };
        let message = Message {
            topic,
            payload: body.into(),
            qos,
            retain: false,
            dup: false,
        };
        match self.connection.session_mut().publish(instant(), &message) {
            Ok(_) | Err(PublishError::NotOpen) => {}
            Err(error) => {
                tracing::info!(%error, "the device does not read its answers; closing");
                self.close(End::TooSlow);
            }
        }
    }
}
