//! The provisioning service over AMQP.
//!
//! ```text
//! SASL PLAIN {scope}/registrations/{id}, TPM, or a certificate  attach both links at that address --attest--> taken
//! request   correlation-id, iotdps-operation-type, body        --begin, state--> accepted, and the answer with its id
//!                                                              refused: rejected, with the published JSON as description
//! ```
//!
//! - Each request is proved anew, by what the connection began with.
//! - A request is settled when it is answered, so its link's credit bounds how many are on their way.
//!
//! Source: `hub-device-protocols.md` §5.4.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use holm_amqp::condition::{INTERNAL_ERROR, NOT_FOUND, UNAUTHORIZED_ACCESS};
use holm_amqp::performative::{Attach, SenderSettleMode};
use holm_amqp::{
    Acceptance, AmqpError, ApplicationProperties, Delivery, DeliveryId, DeliveryTag, Limits, LinkId, Message,
    MessageId, Outbound, Outcome, Properties, Role, SaslCode, Symbol, Text,
};
use holm_model::wire::provisioning::{AMQP_OPERATION, AMQP_OPERATION_ID, OPERATION_STATUS, REGISTER, Registrant};
use holm_model::{ProvisioningCode, ProvisioningError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::front::{Done, Front};
use super::{message, refusals};
use crate::backend::{Backend, Credential};
use crate::gateway::now;
use crate::metrics::ConnectRefusal;
use crate::provisioning::{Applicant, MAX_REGISTRATION, Standing};
use crate::tracking_id;

/// Requests of a device that may be on their way: it asks one thing after the other.
const WINDOW: u32 = 8;
/// Links of registrants that one connection may hold: two, and two more while those are attached anew.
const MAX_LINKS: usize = 4;
/// The largest request with what belongs to it.
const MAX_REQUEST: u64 = MAX_REGISTRATION as u64 + 4096;

/// Those on a connection that ask the provisioning service.
#[derive(Debug, Default)]
pub(super) struct Registrants {
    /// Who logged in by SASL PLAIN.
    login: Option<Applicant>,
    links: HashMap<LinkId, Registering>,
    sent: u64,
}

#[derive(Clone, Debug)]
struct Registering {
    applicant: Arc<Applicant>,
    /// Whose end the peer has: it sends requests or receives answers.
    role: Role,
}

/// A request, while it is answered.
pub(super) struct Asker {
    link: LinkId,
    delivery: Option<DeliveryId>,
    correlation: Option<MessageId>,
}

impl Registrants {
    pub(super) fn is_empty(&self) -> bool {
        self.login.is_none() && self.links.is_empty()
    }

    pub(super) fn holds(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    pub(super) fn detached(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    pub(super) fn ended(&mut self, session: holm_amqp::SessionId) {
        self.links.retain(|link, _| link.session() != session);
    }
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// Who a user of SASL or an address is, if that is a device that asks the provisioning service, and this node has one.
    pub(super) fn registrant(&self, text: &str) -> Option<Registrant> {
        if !B::PROVISIONS {
            return None;
        }
        self.gateway.backend().id_scope()?;
        Registrant::of_amqp(text)
    }

    /// SASL PLAIN of such a device.
    pub(super) fn log_in_registrant(&mut self, registrant: Registrant, token: String) {
        if !B::PROVISIONS {
            return;
        }
        let credential = Credential::Token(token);
        let source = self.peer.address.map(|address| address.ip());
        let applicant = Applicant {
            registrant,
            credential,
            source,
        };
        let backend = Arc::clone(self.gateway.backend());
        let checking = async move {
            let outcome = backend.attest(&applicant).await;
            Done::RegistrantKnown(applicant, outcome)
        };
        self.tasks.push(checking.boxed());
    }

    pub(super) fn registrant_known(&mut self, applicant: Applicant, outcome: Result<(), ProvisioningError>) {
        if !B::PROVISIONS {
            return;
        }
        let code = match outcome {
            Ok(()) => {
                self.registrants.login = Some(applicant);
                SaslCode::Ok
            }
            Err(error) => {
                self.count_refused(&error, &applicant);
                match error.code {
                    ProvisioningCode::Unauthorized => SaslCode::Auth,
                    _ => SaslCode::SysTemp,
                }
            }
        };
        self.decide(code);
    }

    fn count_refused(&self, error: &ProvisioningError, applicant: &Applicant) {
        let counted = match error.code {
            ProvisioningCode::Unauthorized => ConnectRefusal::NotAuthorized,
            _ => ConnectRefusal::Unavailable,
        };
        self.gateway.metrics.refused.of(counted).increment();
        let registration = &applicant.registrant.registration_id;
        tracing::info!(%registration, peer = self.peer.address.map(tracing::field::display), %error, "a device that asks for its registration was refused");
    }

    /// Such a device wants a link.
    pub(super) fn attach_registrant(&mut self, link: LinkId, attach: Box<Attach>, registrant: Registrant) {
        if !B::PROVISIONS {
            return;
        }
        if self.registrants.links.len() >= MAX_LINKS {
            let text = "a device has one link for requests and one for answers; detach those that are not used";
            let error = refusals::error(holm_amqp::condition::RESOURCE_LIMIT_EXCEEDED, text);
            self.connection.session_mut().refuse_link(link, error);
            return;
        }
        let logged_in = self.registrants.login.as_ref().filter(|login| {
            let known = &login.registrant;
            known.registration_id.eq_ignore_ascii_case(&registrant.registration_id)
                && known.id_scope.eq_ignore_ascii_case(&registrant.id_scope)
        });
        let credential = match logged_in {
            Some(login) => login.credential.clone(),
            None if self.peer.certificates.is_empty() => Credential::None,
            None => Credential::Certificate(Arc::clone(&self.peer.certificates)),
        };
        let source = self.peer.address.map(|address| address.ip());
        let applicant = Arc::new(Applicant {
            registrant,
            credential,
            source,
        });
        let backend = Arc::clone(self.gateway.backend());
        let checking = async move {
            let outcome = backend.attest(&applicant).await;
            Done::RegistrantLink(link, attach, applicant, outcome)
        };
        self.tasks.push(checking.boxed());
    }

    pub(super) fn take_registrant_link(
        &mut self,
        link: LinkId,
        attach: &Attach,
        applicant: Arc<Applicant>,
        outcome: Result<(), ProvisioningError>,
    ) {
        if !B::PROVISIONS {
            return;
        }
        if let Err(error) = outcome {
            self.count_refused(&error, &applicant);
            self.connection.session_mut().refuse_link(link, of_error(&error));
            return;
        }
        let mut acceptance = Acceptance {
            window: WINDOW,
            max_message_size: Some(MAX_REQUEST),
            ..Acceptance::of(attach)
        };
        if attach.role == Role::Receiver {
            acceptance.snd_settle_mode = SenderSettleMode::Settled;
        }
        if self.connection.session_mut().accept_link(link, acceptance) {
            let role = attach.role;
            self.registrants.links.insert(link, Registering { applicant, role });
        }
    }

    /// A request of such a device.
    pub(super) fn registrant_request(&mut self, delivery: &Delivery) {
        if !B::PROVISIONS {
            return;
        }
        let Some(Registering { applicant, .. }) = self.registrants.links.get(&delivery.link).cloned() else {
            return;
        };
        let request = match Message::decode(&delivery.payload, Limits::default()) {
            Ok(request) => request,
            Err(error) => return self.reject(delivery.id, refusals::of_unreadable(&error.into())),
        };
        let said = |name: &str| {
            let value = request.application_properties.get(name);
            value.and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let (what, operation) = (said(AMQP_OPERATION), said(AMQP_OPERATION_ID));
        let correlation = request.properties.as_deref().and_then(|properties| {
            let given = properties.correlation_id.clone();
            given.or_else(|| properties.message_id.clone())
        });
        let asker = Asker {
            link: delivery.link,
            delivery: delivery.id,
            correlation,
        };
        // What a question for a state has for a body says nothing.
        let body = match message::body(request.body) {
            Ok(body) => body,
            Err(_) if what == OPERATION_STATUS => bytes::Bytes::new(),
            Err(error) => return self.reject(delivery.id, refusals::of_unreadable(&error)),
        };
        let backend = Arc::clone(self.gateway.backend());
        let answering = async move {
            let outcome = match what.as_str() {
                REGISTER => backend.begin(&applicant, body).await,
                OPERATION_STATUS => backend.state(&applicant, &operation).await,
                _ => Err(ProvisioningError::argument_invalid(format!(
                    "the application property `{AMQP_OPERATION}` is `{what}`; send `{REGISTER}` or `{OPERATION_STATUS}`"
                ))),
            };
            Done::Registration(asker, outcome)
        };
        self.tasks.push(answering.boxed());
    }

    pub(super) fn answer_registrant(&mut self, asker: Asker, outcome: Result<Standing, ProvisioningError>) {
        if !B::PROVISIONS {
            return;
        }
        let standing = match outcome {
            Ok(standing) => standing,
            Err(error) => return self.reject(asker.delivery, of_error(&error)),
        };
        self.settle(asker.delivery, Outcome::Accepted);
        let links = &self.registrants.links;
        let asked_by = links.get(&asker.link).map(|link| Arc::clone(&link.applicant));
        let answers = links.iter().find(|(_, link)| {
            let same = asked_by
                .as_ref()
                .is_some_and(|by| by.registrant == link.applicant.registrant);
            link.role == Role::Receiver && same
        });
        let Some(link) = answers.map(|(link, _)| *link) else {
            tracing::debug!("an answer was dropped: the device has no link for answers");
            return;
        };
        let mut properties = ApplicationProperties::new();
        if let Some(seconds) = standing.retry_after_seconds() {
            let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
            // Node and Java look for one, C# for the other.
            properties.push(Text::from_static("retry-after"), seconds);
            properties.push(Text::from_static("Retry-After"), seconds);
        }
        let answer = Message {
            properties: Some(Box::new(Properties {
                correlation_id: asker.correlation,
                ..Properties::default()
            })),
            application_properties: properties,
            ..Message::of_data(standing.body.to_string())
        };
        self.registrants.sent += 1;
        let outbound = Outbound {
            tag: DeliveryTag::from(self.registrants.sent),
            format: 0,
            payload: answer.to_bytes(),
            settled: true,
        };
        if let Err(error) = self.connection.session_mut().send_later(link, &outbound) {
            tracing::info!(%error, "the device does not take its answer");
        }
    }
}

/// An error as C# reads it: the published JSON as description. What may be tried again is an internal error to Node.
fn of_error(error: &ProvisioningError) -> AmqpError {
    let condition = match error.code {
        ProvisioningCode::Unauthorized => UNAUTHORIZED_ACCESS,
        ProvisioningCode::NotFound => NOT_FOUND,
        _ if error.retry_after.is_some() => INTERNAL_ERROR,
        _ => refusals::ARGUMENT_ERROR,
    };
    let text = error.body(tracking_id(), now()).to_string();
    let mut refused = refusals::error(condition, text);
    if let Some(wait) = error.retry_after {
        let seconds = i32::try_from(wait.as_secs()).unwrap_or(i32::MAX);
        refused.info.push(Symbol::from_static("retry-after"), seconds);
    }
    refused
}
