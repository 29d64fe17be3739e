//! One identity's session, from its links to its end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use holm_amqp::{AmqpError, Event as Happened, LinkId, OpenError, Outcome, Token};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::links::{Links, Purpose};
use super::messages::{self, TwinOperation};
use super::shared::{News, Seat};
use super::{Link, Unacknowledged, authenticate, end_of};
use crate::client::{State, TwinError};
use crate::engine::renewal::Life;
use crate::engine::requests::Requests;
use crate::engine::{Answer, Call, Command, Delivered, End, Ends, Outgoing, Verdict, sleep_until};
use crate::event::Event;
use crate::options::{Interests, Options};

/// What the wish for changes of desired properties is called.
pub(super) const SUBSCRIBE: &str = "desired";
/// The same for its end, whose answer nobody waits for.
pub(super) const UNSUBSCRIBE: &str = "no-desired";

type Renewing<'o> = Pin<Box<dyn Future<Output = Result<Option<Life>, End>> + Send + 'o>>;

pub(super) struct Serving<'e> {
    pub(super) options: &'e Options,
    ends: &'e mut Ends,
    pub(super) kept: &'e mut VecDeque<Unacknowledged>,
    pub(super) seat: Seat,
    pub(super) links: Links,
    pub(super) answers: (mpsc::Sender<Box<Answer>>, mpsc::Receiver<Box<Answer>>),
    /// Oldest first.
    pub(super) in_flight: VecDeque<(Token, Unacknowledged)>,
    pub(super) last_tag: u64,
    pub(super) twins: Requests,
    /// Asked before the twin links stood.
    pub(super) early: Vec<Command>,
    /// With the link that gets its credit back when the application has the event.
    pub(super) events: VecDeque<(Event, Option<LinkId>)>,
    /// What is attached, or asked for.
    subscribed: Interests,
    /// Changes of desired properties are asked for, and that is not answered.
    pub(super) awaits_desired: bool,
    up: bool,
}

/// Serves a session until its end. What was not acknowledged is then in `kept`.
pub(super) async fn serve(
    options: &Options,
    ends: &mut Ends,
    kept: &mut VecDeque<Unacknowledged>,
    Link { seat, life }: Link,
) -> End {
    let mut serving = Serving {
        options,
        ends,
        kept,
        links: Links::new(options),
        seat,
        answers: mpsc::channel(crate::event::MAX_WAITING_EVENTS),
        in_flight: VecDeque::new(),
        last_tag: 0,
        twins: Requests::default(),
        early: Vec::new(),
        events: VecDeque::new(),
        subscribed: Interests::default(),
        awaits_desired: false,
        up: false,
    };
    let end = serving.run(options.renewal(life)).await;
    serving.wind_up();
    end
}

impl Serving<'_> {
    async fn run(&mut self, mut renewal: Option<Instant>) -> End {
        let events = self.ends.events.clone();
        let mut abandoned = std::pin::pin!(self.ends.abandoned());
        let mut renewing: Option<Renewing<'_>> = None;
        let (options, shared) = (self.options, Arc::clone(self.seat.shared()));
        if let Err(error) = self.subscribe() {
            return lost(error);
        }
        loop {
            self.send_kept();
            let may_send = self.is_open() && self.kept.is_empty() && self.in_flight.len() < self.options.window.max(1);
            let may_ask = self.up && self.twins.has_room() && self.early.is_empty();
            let deadline = self.twins.deadline();
            let renew_at = renewal.filter(|_| renewing.is_none());
            let ended = tokio::select! {
                news = self.seat.news() => match news {
                    Some(News::Event(event)) => self.handle(event),
                    Some(News::Room) => None,
                    None => Some(End::Lost(self.seat.shared().reason())),
                },
                room = events.reserve(), if !self.events.is_empty() => {
                    self.hand_over(room.ok());
                    None
                }
                outgoing = self.ends.outgoing.recv(), if may_send => match outgoing {
                    Some(outgoing) => {
                        self.take(outgoing);
                        None
                    }
                    None => Some(End::Stopped),
                },
                // What is on its way may never be acknowledged.
                () = &mut abandoned, if !may_send => Some(End::Stopped),
                Some(command) = self.ends.requests.recv(), if may_ask => self.request(*command),
                Some(answer) = self.answers.1.recv() => {
                    self.answer(*answer);
                    None
                }
                Ok(()) = self.ends.wanted.changed(), if self.up => self.subscribe().err().map(lost),
                () = sleep_until(deadline) => {
                    self.twins.expire();
                    None
                }
                () = sleep_until(renew_at) => {
                    renewing = Some(Box::pin(renew(options, Arc::clone(&shared))));
                    None
                }
                renewed = done(&mut renewing), if renewing.is_some() => {
                    renewing = None;
                    match renewed {
                        Ok(life) => {
                            tracing::debug!(identity = %self.options.identity, "a new token was taken");
                            renewal = self.options.renewal(life);
                            None
                        }
                        Err(end) => Some(end),
                    }
                }
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// Takes a message, and those that wait behind it: they leave together.
    fn take(&mut self, outgoing: Outgoing) {
        let mut next = Some(outgoing);
        while let Some(Outgoing { message, acknowledged }) = next {
            self.kept.push_back(Unacknowledged { message, acknowledged });
            let has_room = self.kept.len() + self.in_flight.len() < self.options.window.max(1);
            next = if has_room {
                self.ends.outgoing.try_recv().ok()
            } else {
                None
            };
        }
    }

    /// Keeps what was not acknowledged for the next session; this one ends with its seat.
    fn wind_up(mut self) {
        // Acknowledgements that are here already count.
        while let Some(news) = self.seat.try_news() {
            if let News::Event(Happened::Settled { token, outcome }) = news {
                // The end is known.
                drop(self.settled(token, outcome));
            }
        }
        self.twins.fail_all();
        for command in self.early.drain(..) {
            command.fail(TwinError::NotConnected);
        }
        for (_, unacknowledged) in self.in_flight.drain(..).rev() {
            self.kept.push_front(unacknowledged);
        }
    }

    /// Whether messages may be sent. Inputs come before all links stand, and whoever first sends what it makes of them must
    /// not wait for more.
    fn is_open(&self) -> bool {
        self.links.standing(Purpose::Telemetry).is_some()
    }

    fn handle(&mut self, event: Happened) -> Option<End> {
        match event {
            Happened::Attached { link, .. } => self.attached(link),
            Happened::Detached { link, error, .. } => self.detached(link, error.as_deref()),
            Happened::Ended { error, .. } => Some(end_of("the session", error.as_deref())),
            Happened::Settled { token, outcome } => self.settled(token, outcome),
            Happened::Delivery(delivery) => {
                self.arrived(&delivery);
                None
            }
            // What may be sent is looked at each time.
            Happened::Credit { .. } | Happened::Drained(_) | Happened::Begun(_) => None,
            Happened::Authenticate { .. }
            | Happened::SaslResponse(_)
            | Happened::Opened(_)
            | Happened::Attach { .. }
            | Happened::Closed(_) => {
                tracing::debug!("an event of another role or time was dropped");
                None
            }
        }
    }

    /// Attaches what is wanted and not yet there, and gives up what is no longer wanted.
    fn subscribe(&mut self) -> Result<(), OpenError> {
        let wanted = *self.ends.wanted.borrow_and_update();
        let session = self.seat.session();
        let (links, identity) = (&mut self.links, &self.options.identity);
        let (had, has) = (self.subscribed, wanted);
        self.seat.with(|connection| {
            let gone = Purpose::of(had).filter(|purpose| !Purpose::of(has).any(|wanted| wanted == *purpose));
            gone.for_each(|purpose| links.leave(connection, purpose));
            Purpose::of(has).try_for_each(|purpose| links.attach(connection, session, purpose, identity))
        })?;
        self.subscribed = wanted;
        if wanted.desired_properties && !had.desired_properties {
            self.awaits_desired = true;
            self.ask_for_desired();
        } else if had.desired_properties && !wanted.desired_properties {
            self.awaits_desired = false;
            self.ask_twin(TwinOperation::Unsubscribe, UNSUBSCRIBE);
        }
        Ok(())
    }

    /// When the twin links stand: the answer of that makes the subscription.
    fn ask_for_desired(&mut self) {
        if self.awaits_desired && self.twin_stands() {
            self.ask_twin(TwinOperation::Subscribe, SUBSCRIBE);
        }
    }

    fn twin_stands(&self) -> bool {
        let stands = |purpose| self.links.standing(purpose).is_some();
        stands(Purpose::TwinRequests) && stands(Purpose::TwinNews)
    }

    fn attached(&mut self, link: LinkId) -> Option<End> {
        let purpose = self.links.attached(link)?;
        let credit = purpose.credit();
        if credit > 0 {
            self.seat.with(|connection| connection.grant(link, credit));
        }
        if matches!(purpose, Purpose::TwinRequests | Purpose::TwinNews) && self.twin_stands() {
            self.ask_for_desired();
            for command in std::mem::take(&mut self.early) {
                self.send_request(command);
            }
        }
        self.look_whether_up();
        None
    }

    pub(super) fn look_whether_up(&mut self) {
        if !self.up && !self.awaits_desired && self.links.all_stand() && self.is_open() {
            self.up = true;
            self.ends.state.send_replace(State::Connected);
            self.events.push_back((Event::Connected, None));
        }
    }

    fn detached(&mut self, link: LinkId, error: Option<&AmqpError>) -> Option<End> {
        let (purpose, had_been_taken) = self.links.remove(link)?;
        if had_been_taken || !purpose.is_dispensable() {
            return Some(end_of("a link", error));
        }
        let error = error.map(ToString::to_string).unwrap_or_default();
        tracing::warn!(identity = %self.options.identity, ?purpose, error, "the node above refused a link; what it brings will be missing");
        self.look_whether_up();
        None
    }

    fn request(&mut self, command: Command) -> Option<End> {
        if self.twin_stands() {
            self.send_request(command);
            return None;
        }
        self.early.push(command);
        let session = self.seat.session();
        let (links, identity) = (&mut self.links, &self.options.identity);
        let attached = self.seat.with(|connection| {
            [Purpose::TwinRequests, Purpose::TwinNews]
                .into_iter()
                .try_for_each(|purpose| links.attach(connection, session, purpose, identity))
        });
        attached.err().map(lost)
    }

    fn send_request(&mut self, command: Command) {
        let id = self.twins.next_id();
        let operation = match &command {
            Command::Twin(_) => TwinOperation::Get,
            Command::PatchReported(patch, _) => TwinOperation::PatchReported(patch),
        };
        if self.ask_twin(operation, &id) {
            self.twins.insert(id, command);
        } else {
            command.fail(TwinError::NotConnected);
        }
    }

    /// Gives the application an event, or drops all of them: it wants none, and may still send.
    fn hand_over(&mut self, room: Option<mpsc::Permit<'_, Box<Event>>>) {
        let count = if room.is_some() { 1 } else { self.events.len() };
        let mut room = room;
        for (event, link) in self.events.drain(..count) {
            if let Some(room) = room.take() {
                room.send(Box::new(event));
            }
            if let Some(link) = link {
                self.seat.with(|connection| connection.grant(link, 1));
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Settle(Delivered::Amqp(delivery), verdict) => {
                let outcome = match verdict {
                    Verdict::Complete => Outcome::Accepted,
                    Verdict::Abandon => Outcome::Released,
                    Verdict::Reject => Outcome::Rejected(None),
                };
                let links = &mut self.links;
                self.seat.with(|connection| {
                    connection.settle(delivery, outcome);
                    links.release(connection, delivery.link());
                });
            }
            Answer::Method(Call::Amqp(id), response) => {
                self.send_once(Purpose::MethodAnswers, &messages::method_answer(id, &response));
            }
            Answer::Settle(Delivered::Mqtt(_), _) | Answer::Method(Call::Mqtt(_), _) => {
                tracing::debug!("an answer for another carrier was dropped");
            }
        }
    }
}

async fn renew(options: &Options, shared: Arc<super::Shared>) -> Result<Option<Life>, End> {
    authenticate(options, &shared).await
}

async fn done(renewing: &mut Option<Renewing<'_>>) -> Result<Option<Life>, End> {
    match renewing {
        Some(renewing) => renewing.await,
        None => std::future::pending().await,
    }
}

fn lost(error: OpenError) -> End {
    End::Lost(format!("a link can't be opened: {error}"))
}
