//! The life of a connection: one loop that waits for whatever happens next, to any of those who act on it, and answers it.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holm_amqp::performative::Attach;
use holm_amqp::{Closed, Event, LinkId, SessionId as AmqpSession};
use holm_model::{Identity, ProvisioningError};
use holm_net::clock::instant;
use holm_net::{Alarm, Connection, Peer, Scope};
use tokio::io::{AsyncRead, AsyncWrite};

use super::cbs::{self, Answers};
use super::client::Client;
use super::crowd::{Crowd, Name};
use super::proofs::{Claim, Proofs};
use super::provisioning::{self, Registrants};
use super::service::ServiceLinks;
use super::tpm;
use crate::backend::{Admission, Backend, Mailbox, Refusal};
use crate::gateway::Gateway;
use crate::metrics::End;
use crate::policies::PolicyChanges;
use crate::provisioning::{Applicant, Standing};
use crate::session::{SessionHandle, SessionInbox};

/// How long a connection may stand on which nobody proves anything (`hub-device-protocols.md` §3.1).
const FIRST_PROOF: Duration = Duration::from_secs(60);

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    CbsRequests,
    CbsAnswers,
    Telemetry,
    Mailbox(Mailbox),
    MethodCalls,
    MethodAnswers,
    TwinRequests,
    TwinAnswers,
}

impl Use {
    /// Whether its client is told something by it without asking: the backend knows who listens.
    pub(super) const fn tells(self) -> bool {
        matches!(self, Self::Mailbox(_) | Self::MethodCalls | Self::TwinAnswers)
    }
}

/// A link that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) purpose: Use,
    /// Who acts on it; nobody on those of `$cbs`.
    pub(super) client: Option<Name>,
}

/// A link whose identity is being let in.
pub(super) struct Arriving {
    pub(super) link: LinkId,
    pub(super) attach: Box<Attach>,
    pub(super) purpose: Use,
}

/// What was asked of the backend, and came out.
pub(super) enum Done {
    /// A user of SASL PLAIN was checked.
    Plain(Proved),
    /// A token that came to `$cbs` was checked.
    Put(cbs::Asker, Proved),
    /// An identity was let in, or not.
    Admitted(Identity, Result<Arrived, Refusal>),
    /// A device that asks the provisioning service logged in, or did not.
    RegistrantKnown(Applicant, Result<(), ProvisioningError>),
    /// What only its TPM can open was made, or not.
    TpmChallenged(Result<Vec<u8>, ProvisioningError>),
    /// Its link is taken, or not.
    RegistrantLink(LinkId, Box<Attach>, Arc<Applicant>, Result<(), ProvisioningError>),
    /// Its request was answered.
    Registration(provisioning::Asker, Result<Standing, ProvisioningError>),
    /// A link of a client that stays was detached: the backend is still to learn of it.
    ListensLess(Name),
    /// The backend knows that a session has ended.
    Left,
}

/// A claim with its token, and whether it is good.
pub(super) struct Proved {
    pub(super) claim: Claim,
    pub(super) token: Arc<str>,
    pub(super) outcome: Result<Option<holm_model::Timestamp>, Refusal>,
}

/// An identity that was let in.
pub(super) struct Arrived {
    pub(super) admission: Admission,
    pub(super) session: (SessionHandle, SessionInbox),
}

pub(super) type Tasks = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>;

/// One connection with everybody on it.
pub(super) struct Front<'c, B: Backend, S> {
    pub(super) gateway: &'c Gateway<B>,
    pub(super) connection: &'c mut Connection<holm_amqp::Connection, S>,
    pub(super) peer: &'c Peer,
    pub(super) proofs: Proofs,
    pub(super) answers: Answers,
    pub(super) clients: Crowd<Client<B>>,
    pub(super) acting: HashMap<Identity, Name>,
    pub(super) links: HashMap<LinkId, Link>,
    /// Those of back ends.
    pub(super) service: ServiceLinks<B>,
    /// Those who ask the provisioning service.
    pub(super) registrants: Registrants,
    /// Listened to once the token of a policy was shown for something.
    pub(super) policies: PolicyChanges,
    /// How far the one is that proves itself by a TPM.
    pub(super) tpm: Option<tpm::Asked>,
    pub(super) arriving: HashMap<Identity, Vec<Arriving>>,
    pub(super) tasks: Tasks,
    /// Tokens that came to `$cbs` and are being checked.
    pub(super) proving: usize,
    /// Clients that brought messages which have not entered yet.
    pub(super) touched: Vec<Name>,
    /// Clients of which a message waits for room.
    pub(super) waiting: HashSet<Name>,
    /// Clients for which messages wait that the connection had no room for.
    pub(super) blocked: HashSet<Name>,
    /// When what waits for room is given up: set when the connection has ended.
    pub(super) give_up: Option<Instant>,
    pub(super) look_at: Option<Instant>,
    /// When nobody will have proved anything for too long.
    pub(super) unproved: Option<Instant>,
    /// Until when acknowledgements are awaited: set when the node stops.
    pub(super) last_acknowledgements: Option<Instant>,
    /// Why the connection is closed from this side, once it is.
    pub(super) end: Option<End>,
}

impl<'c, B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'c, B, S> {
    pub(super) fn new(
        gateway: &'c Gateway<B>,
        connection: &'c mut Connection<holm_amqp::Connection, S>,
        peer: &'c Peer,
    ) -> Self {
        Self {
            gateway,
            connection,
            peer,
            proofs: Proofs::default(),
            answers: Answers::default(),
            clients: Crowd::default(),
            acting: HashMap::new(),
            links: HashMap::new(),
            service: ServiceLinks::new(Arc::clone(gateway.backend())),
            registrants: Registrants::default(),
            policies: PolicyChanges::default(),
            tpm: None,
            arriving: HashMap::new(),
            tasks: FuturesUnordered::new(),
            proving: 0,
            touched: Vec::new(),
            waiting: HashSet::new(),
            blocked: HashSet::new(),
            give_up: None,
            look_at: None,
            unproved: Some(instant() + FIRST_PROOF),
            last_acknowledgements: None,
            end: None,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self, scope: &Scope) -> (Closed, Option<End>) {
        let closed = self.serve(scope).await;
        Box::pin(self.leave_all()).await;
        (closed, self.end)
    }

    async fn serve(&mut self, scope: &Scope) -> Closed {
        let mut alarm = Alarm::default();
        let mut stopping = std::pin::pin!(scope.stopping());
        loop {
            self.note_end();
            let has_room = self.awaited_room();
            let (waits, stops) = (self.takes_no_more(), self.last_acknowledgements.is_some());
            let give_up = self.give_up.filter(|_| !self.waiting.is_empty());
            let due = [
                self.unproved,
                self.look_at,
                give_up,
                self.last_acknowledgements,
                self.service_end(),
            ];
            // The connection comes last: what everything before it has to say leaves in one write.
            tokio::select! {
                biased;
                () = &mut stopping, if !stops && self.end.is_none() => self.stop(),
                (name, news) = self.clients.next() => self.hear(name, news),
                Some(done) = self.tasks.next() => Box::pin(self.take(done)).await,
                () = self.policies.next() => self.look_at_policies(),
                () = alarm.wait(due.into_iter().flatten().min()) => self.look_at_clock(),
                news = self.service.next() => self.service.handle(self.connection.session_mut(), news),
                event = self.connection.next_event_or_room(|event| is_wanted(event, waits, stops), has_room) => {
                    match event {
                        None => self.room(),
                        Some(event) => {
                            if let Some(closed) = self.handle_events(event).await {
                                return closed;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether what comes waits in the session: for room in the node, or until messages to devices have arrived.
    fn takes_no_more(&self) -> bool {
        !self.waiting.is_empty() || self.service.is_choked()
    }

    /// Whether the connection has the room that something waits for: on links with credit, or at all.
    fn awaited_room(&self) -> impl Fn(&holm_amqp::Connection) -> bool + use<B, S> {
        let mut links: Vec<LinkId> = self.service.wait_for_room();
        let mut untold = false;
        for client in self.blocked.iter().filter_map(|name| self.clients.look(*name)) {
            links.extend(client.deliveries.blocked());
            untold |= client.untold.waits();
        }
        move |session| links.iter().any(|link| session.can_send(*link)) || untold && !session.is_full()
    }

    /// The connection has room again.
    fn room(&mut self) {
        self.service.room(self.connection.session_mut());
        for name in std::mem::take(&mut self.blocked) {
            let Some(client) = self.clients.get(name) else { continue };
            let session = self.connection.session_mut();
            client.deliveries.send(session);
            let told = client.untold.tell_waiting(session);
            if client.is_blocked() {
                self.blocked.insert(name);
            }
            if let Err(error) = told {
                self.expel_slow(name, &error);
            }
        }
    }

    /// Handles an event and those that are there behind it: what came in one read enters together and is answered in one
    /// write. The reason, if the connection has ended.
    async fn handle_events(&mut self, first: Event) -> Option<Closed> {
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Closed(reason) => return Some(reason),
                Event::Delivery(delivery) => self.deliver(delivery).await,
                event => {
                    // What came before it comes before it.
                    self.enter_touched();
                    Box::pin(self.handle_event(event)).await;
                }
            }
            let (waits, stops) = (self.takes_no_more(), self.last_acknowledgements.is_some());
            next = self.connection.session_mut().poll_event_where(|event| {
                // The end waits until what came before it has entered.
                is_wanted(event, waits, stops) && !matches!(event, Event::Closed(_))
            });
        }
        self.enter_touched();
        None
    }

    async fn handle_event(&mut self, event: Event) {
        match event {
            Event::Authenticate { credentials, .. } => self.authenticate(credentials),
            Event::SaslResponse(response) => self.tpm_answered(&response.0),
            Event::Attach { link, attach } => self.attach(link, attach).await,
            Event::Detached { link, .. } => self.link_gone(link).await,
            Event::Ended { session, .. } => self.session_gone(session).await,
            Event::Credit { link, credit, drain } => self.credit(link, credit, drain),
            Event::Settled { token, outcome } if self.service.holds(token.link()) => {
                self.service.settled(token, outcome.as_ref());
            }
            Event::Settled { token, outcome } => {
                let client = self.links.get(&token.link()).and_then(|link| link.client);
                if let Some(client) = client.and_then(|name| self.clients.get(name)) {
                    client.deliveries.settled(token, outcome.as_ref());
                }
            }
            Event::Opened(_)
            | Event::Begun(_)
            | Event::Attached { .. }
            | Event::Drained(_)
            | Event::Delivery(_)
            | Event::Closed(_) => {}
        }
    }

    /// Takes what was asked of the backend.
    async fn take(&mut self, done: Done) {
        match done {
            Done::Plain(proved) => self.plain_proved(proved),
            Done::Put(asker, proved) => self.put(asker, proved),
            Done::Admitted(identity, outcome) => self.admitted(identity, outcome).await,
            Done::RegistrantKnown(applicant, outcome) => self.registrant_known(applicant, outcome),
            Done::TpmChallenged(sealed) => self.tpm_challenged(sealed),
            Done::RegistrantLink(link, attach, applicant, outcome) => {
                self.take_registrant_link(link, &attach, applicant, outcome);
            }
            Done::Registration(asker, outcome) => self.answer_registrant(asker, outcome),
            Done::ListensLess(name) => self.tell_less(name).await,
            Done::Left => {}
        }
    }

    pub(super) async fn session_gone(&mut self, session: AmqpSession) {
        self.service.ended(session);
        self.registrants.ended(session);
        let gone: Vec<LinkId> = self
            .links
            .keys()
            .copied()
            .chain(self.arriving.values().flatten().map(|arriving| arriving.link))
            .filter(|link| link.session() == session)
            .collect();
        for link in gone {
            self.link_gone(link).await;
        }
    }

    /// What a client receives has changed.
    pub(super) async fn tell_subscriptions(&mut self, name: Name) -> Result<(), Refusal> {
        let Some(client) = self.clients.look(name) else {
            return Ok(());
        };
        let (all, handle, admission) = (
            client.subscriptions(),
            client.handle.clone(),
            Arc::clone(&client.admission),
        );
        // First: while the backend is told, it may ask who listens.
        let before = handle.subscriptions();
        handle.set_subscriptions(all);
        let told = self
            .gateway
            .backend
            .subscribed(handle.id(), &admission, all, None)
            .await;
        match &told {
            Ok(()) => self.gateway.directory.subscribed(),
            Err(_) => handle.set_subscriptions(before),
        }
        told
    }
}

/// While a message waits for room, those behind it wait too, and so does everything that is behind them. A connection that the
/// node ends takes nothing more.
const fn is_wanted(event: &Event, waits_for_room: bool, stops: bool) -> bool {
    match event {
        Event::Credit { .. } | Event::Settled { .. } | Event::Drained(_) => true,
        Event::Delivery(_) | Event::Attach { .. } => !waits_for_room && !stops,
        _ => !waits_for_room,
    }
}
