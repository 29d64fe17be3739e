//! Links as they come and go.
//!
//! ```text
//!   attach --address--> $cbs                                        taken at once
//!                       a device's, whose client acts here          taken by it
//!                       a device's --authenticate, open a session-> taken, or refused with the published condition
//!                       anything else                               refused
//! ```
//!
//! The first link of an identity makes it act here, the last takes it away. Names of links mean nothing: C# gives the same ones in
//! every session. Nor does the property that ties the two links of methods or of a twin together: an identity has one pair of each.

use std::sync::Arc;

use futures_util::FutureExt as _;
use holm_amqp::performative::{Attach, SenderSettleMode};
use holm_amqp::{Acceptance, Allowance, AmqpError, LinkId, Role, Text};
use holm_model::Identity;
use holm_model::wire::{LinkAddress, LinkKind, amqp};
use tokio::io::{AsyncRead, AsyncWrite};

use super::cbs;
use super::client::Client;
use super::crowd::Name;
use super::front::{Arrived, Arriving, Done, Front, Link, Use};
use super::message::MAX_DELIVERY_BYTES;
use super::refusals;
use crate::backend::{Announced, Attempt, Backend, Credential, Earlier, Mailbox, Refusal};
use crate::gateway::Gateway;
use crate::metrics::ConnectRefusal;
use crate::session::{SessionHandle, SessionId};

/// Deliveries of a client on one link that may wait for the disk (`hub-device-protocols.md` §3.3).
const TELEMETRY_WINDOW: u32 = 256;
/// Answers and twin requests of a client that may be on their way.
const REQUEST_WINDOW: u32 = 64;
/// The largest answer of a method, with what belongs to it; twin patches are smaller.
const MAX_REQUEST: u64 = 192 * 1024;

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// The peer wants a link.
    pub(super) async fn attach(&mut self, link: LinkId, attach: Box<Attach>) {
        let address = address_of(&attach);
        if address.as_str().eq_ignore_ascii_case(cbs::NODE) {
            return self.attach_cbs(link, &attach);
        }
        if let Some(service) = self.service.address(&attach) {
            self.policies.listen(&**self.gateway.backend());
            let tokens: Vec<&str> = self.proofs.policies().map(|token| &**token).collect();
            let session = self.connection.session_mut();
            return self.service.attach(session, link, (&attach, &service), &tokens);
        }
        if let Some(registrant) = self.registrant(address.as_str()) {
            return self.attach_registrant(link, attach, registrant);
        }
        let wanted = LinkAddress::parse(address.as_str())
            .and_then(|address| Some((use_of(address.kind, attach.role, &address.identity)?, address)));
        let Some((purpose, wanted)) = wanted else {
            let error = refusals::no_such_address(address.as_str());
            self.connection.session_mut().refuse_link(link, error);
            return;
        };
        let identity = self.meant(wanted);
        if let Some(name) = self.acting.get(&identity).copied() {
            return self.place(name, Arriving { link, attach, purpose }).await;
        }
        let arriving = Arriving { link, attach, purpose };
        if let Some(others) = self.arriving.get_mut(&identity) {
            others.push(arriving);
            return;
        }
        let attempt = self.attempt(&identity, &arriving.attach);
        if matches!(attempt.credential, Credential::None) {
            self.gateway
                .metrics
                .refused
                .of(ConnectRefusal::NotAuthorized)
                .increment();
            let error = refusals::unauthorized(&identity);
            self.connection.session_mut().refuse_link(link, error);
            return;
        }
        let admitting = admit(self.gateway.clone(), attempt);
        self.arriving.insert(identity.clone(), vec![arriving]);
        self.tasks
            .push(admitting.map(|outcome| Done::Admitted(identity, outcome)).boxed());
    }

    fn attach_cbs(&mut self, link: LinkId, attach: &Attach) {
        let purpose = match attach.role {
            Role::Sender => Use::CbsRequests,
            Role::Receiver => Use::CbsAnswers,
        };
        let acceptance = Acceptance {
            window: cbs::WINDOW,
            max_message_size: Some(cbs::MAX_REQUEST),
            ..Acceptance::of(attach)
        };
        if !self.connection.session_mut().accept_link(link, acceptance) {
            return;
        }
        self.links.insert(link, Link { purpose, client: None });
        if purpose == Use::CbsAnswers {
            let target = attach.target.as_ref().and_then(|target| target.address.clone());
            for (asker, verdict) in self.answers.attached(link, target) {
                self.answer_put(asker, verdict);
            }
        }
    }

    /// Which of the readings of an address is meant: the one that somebody here proved, else the decoded one.
    fn meant(&self, address: LinkAddress) -> Identity {
        let known = |identity: &Identity| self.proofs.has(identity) || self.acting.contains_key(identity);
        match address.literal {
            Some(literal) if known(&literal) && !known(&address.identity) => literal,
            _ => address.identity,
        }
    }

    fn attempt(&self, identity: &Identity, attach: &Attach) -> Attempt {
        let said = |name: &str| {
            attach
                .properties
                .get(name)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        let announced = Announced {
            api_version: said(amqp::API_VERSION),
            client_type: said(amqp::CLIENT_VERSION),
            model_id: said(amqp::MODEL_ID),
            auth_chain: said(amqp::AUTH_CHAIN),
        };
        Attempt {
            identity: identity.clone(),
            credential: self
                .proofs
                .credential(identity, announced.auth_chain.as_deref(), self.peer),
            announced,
        }
    }

    /// An identity was let in, or not: its links are taken or refused.
    pub(super) async fn admitted(&mut self, identity: Identity, outcome: Result<Arrived, Refusal>) {
        let arriving = self.arriving.remove(&identity).unwrap_or_default();
        let arrived = match outcome {
            Ok(arrived) => arrived,
            Err(refusal) => {
                self.gateway
                    .metrics
                    .refused
                    .of(ConnectRefusal::from(&refusal))
                    .increment();
                self.gateway
                    .complaints
                    .not_let_in(&refusal, self.peer.address, &identity);
                for one in arriving {
                    let error = refusals::of_refusal(&refusal, &identity);
                    self.connection.session_mut().refuse_link(one.link, error);
                }
                return;
            }
        };
        let gateway = self.gateway;
        gateway.directory.enter(&arrived.session.0);
        // A certificate is a proof too.
        if self.proofs.is_empty() {
            self.connection.session_mut().set_allowance(Allowance::default());
        }
        tracing::debug!(%identity, "connected");
        let client = Client::new(
            gateway.backend(),
            &gateway.profile,
            &gateway.clock,
            arrived.admission,
            arrived.session,
        );
        let name = self.clients.insert(client);
        self.acting.insert(identity, name);
        self.watch_policy(name);
        for one in arriving {
            self.place(name, one).await;
        }
        // All of its links may have gone meanwhile.
        if self.clients.look(name).is_some_and(|client| client.links == 0) {
            self.leave(name);
        }
    }

    /// Takes a link for a client that acts here.
    async fn place(&mut self, name: Name, arriving: Arriving) {
        let Arriving { link, attach, purpose } = arriving;
        let Some(client) = self.clients.get(name) else {
            // It has left, with a link that came before this one.
            let error = refusals::error(
                holm_amqp::condition::DETACH_FORCED,
                "the client has just left; attach again",
            );
            self.connection.session_mut().refuse_link(link, error);
            return;
        };
        client.links += 1;
        let before = match purpose {
            Use::Mailbox(mailbox) => client.deliveries.open(mailbox, link),
            Use::MethodCalls => client.methods.replace(link),
            Use::TwinAnswers => {
                client.wants_desired = false;
                client.twin.replace(link)
            }
            _ => None,
        };
        self.links.insert(
            link,
            Link {
                purpose,
                client: Some(name),
            },
        );
        if let Some(before) = before {
            // One link of a kind an identity: the newest, as SDKs that lost one attach it again.
            let text = "a newer link of the same client took its place";
            self.links.remove(&before);
            self.forget_link_of(name);
            let error = refusals::error(holm_amqp::condition::LINK_STOLEN, text);
            self.connection.session_mut().detach(before, true, Some(error));
        }
        if purpose.tells()
            && let Err(refusal) = self.tell_subscriptions(name).await
        {
            tracing::warn!(reason = %refusal, "a subscription can't be kept; its link is refused");
            let error = refusals::error(
                holm_amqp::condition::INTERNAL_ERROR,
                "the subscription can't be kept now; try again",
            );
            self.connection.session_mut().refuse_link(link, error);
            return self.link_gone(link).await;
        }
        if !self
            .connection
            .session_mut()
            .accept_link(link, acceptance(&attach, purpose))
        {
            self.link_gone(link).await;
        }
    }

    /// A link is gone.
    pub(super) async fn link_gone(&mut self, link: LinkId) {
        self.service.detached(link);
        self.registrants.detached(link);
        self.answers.detached(link);
        for arriving in self.arriving.values_mut() {
            arriving.retain(|one| one.link != link);
        }
        let Some(name) = self.unlink(link) else { return };
        self.tell_less(name).await;
    }

    /// Detaches a link, with the reason.
    pub(super) fn detach(&mut self, link: LinkId, error: AmqpError) {
        self.connection.session_mut().detach(link, true, Some(error));
        if let Some(name) = self.unlink(link) {
            self.tasks.push(std::future::ready(Done::ListensLess(name)).boxed());
        }
    }

    /// Forgets a link. The client that it belonged to, if it is still here and was told something by it.
    fn unlink(&mut self, link: LinkId) -> Option<Name> {
        let Link { purpose, client } = self.links.remove(&link)?;
        let name = client?;
        let client = self.clients.get(name)?;
        match purpose {
            Use::Mailbox(mailbox) => {
                client.deliveries.close(mailbox);
            }
            Use::MethodCalls => client.methods = None,
            Use::TwinAnswers => {
                client.twin = None;
                client.wants_desired = false;
            }
            _ => {}
        }
        self.forget_link_of(name);
        if self.clients.look(name).is_none_or(|client| client.links == 0) {
            self.leave(name);
            return None;
        }
        purpose.tells().then_some(name)
    }

    /// A client listens to less than before.
    pub(super) async fn tell_less(&mut self, name: Name) {
        if let Err(refusal) = self.tell_subscriptions(name).await {
            tracing::warn!(reason = %refusal, "that a client listens no more is not kept");
        }
    }

    fn forget_link_of(&mut self, name: Name) {
        if let Some(client) = self.clients.get(name) {
            client.links = client.links.saturating_sub(1);
        }
    }

    /// Detaches all links of a client, with the reason, and ends its session.
    pub(super) fn expel(&mut self, name: Name, error: &AmqpError) {
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.client == Some(name))
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.links.remove(&link);
            self.connection.session_mut().detach(link, true, Some(error.clone()));
        }
        self.leave(name);
    }

    /// A client acts here no more: its leases go back, and the backend learns of it.
    pub(super) fn leave(&mut self, name: Name) {
        self.waiting.remove(&name);
        self.blocked.remove(&name);
        let Some(client) = self.clients.remove(name) else {
            return;
        };
        let identity = &client.admission.identity;
        if self.acting.get(identity) == Some(&name) {
            self.acting.remove(identity);
        }
        self.gateway.directory.leave(&client.handle);
        tracing::debug!(%identity, "disconnected");
        let (backend, admission) = (Arc::clone(self.gateway.backend()), Arc::clone(&client.admission));
        let session = client.handle.id();
        drop(client);
        let leaving = async move {
            backend.closed(session, &admission).await;
            Done::Left
        };
        self.tasks.push(leaving.boxed());
    }
}

/// The node that a peer wants to send to or receive from.
fn address_of(attach: &Attach) -> Text {
    let address = match attach.role {
        Role::Sender => attach.target.as_ref().and_then(|target| target.address.clone()),
        Role::Receiver => attach.source.as_ref().and_then(|source| source.address.clone()),
    };
    address.unwrap_or_default()
}

/// What a link is for, if there is such a thing.
const fn use_of(kind: LinkKind, role: Role, identity: &Identity) -> Option<Use> {
    Some(match (kind, role) {
        (LinkKind::Events, Role::Sender) => Use::Telemetry,
        (LinkKind::Events, Role::Receiver) if identity.is_module() => Use::Mailbox(Mailbox::Inputs),
        (LinkKind::DeviceBound, Role::Receiver) => Use::Mailbox(Mailbox::CloudToDevice),
        (LinkKind::Methods, Role::Receiver) => Use::MethodCalls,
        (LinkKind::Methods, Role::Sender) => Use::MethodAnswers,
        (LinkKind::Twin, Role::Receiver) => Use::TwinAnswers,
        (LinkKind::Twin, Role::Sender) => Use::TwinRequests,
        (LinkKind::Events, Role::Receiver) | (LinkKind::DeviceBound, Role::Sender) => return None,
    })
}

fn acceptance(attach: &Attach, purpose: Use) -> Acceptance {
    let (window, size) = match purpose {
        Use::Telemetry => (TELEMETRY_WINDOW, MAX_DELIVERY_BYTES as u64),
        _ => (REQUEST_WINDOW, MAX_REQUEST),
    };
    let mut acceptance = Acceptance {
        window,
        max_message_size: Some(size),
        ..Acceptance::of(attach)
    };
    match purpose {
        // What is leased waits for its outcome, if the client did not ask for messages that have none. SDKs don't ask: Node, C#
        // and Java say nothing of it, C says unsettled.
        Use::Mailbox(_) if attach.snd_settle_mode != SenderSettleMode::Settled => {
            acceptance.snd_settle_mode = SenderSettleMode::Unsettled;
        }
        // Calls and answers are not.
        Use::MethodCalls | Use::TwinAnswers => acceptance.snd_settle_mode = SenderSettleMode::Settled,
        _ => {}
    }
    acceptance
}

/// Lets an identity in and opens its session. It is named before it is checked: of two that come, the later one is the newer,
/// whoever is let in first.
fn admit<B: Backend>(gateway: Gateway<B>, attempt: Attempt) -> impl Future<Output = Result<Arrived, Refusal>> + Send {
    let session = SessionId::next();
    async move {
        gateway.await_turn().await?;
        let backend = gateway.backend();
        let admission = backend.authenticate(attempt).await?;
        let session = SessionHandle::named(session, admission.identity.clone());
        backend.opened(&session.0, &admission, Earlier::LeftAlone).await?;
        Ok(Arrived { admission, session })
    }
}
