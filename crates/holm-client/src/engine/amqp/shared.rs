//! One connection and who sits on it: the task that drives it, and the seats of the identities.
//!
//! ```text
//!   socket ⇄ drive ── poll_event ──> by session ──> news of a seat (bounded by what its links let the peer send)
//!                └─── $cbs ──> whoever waits for the answer
//!   seat ── with(…) ──> lock, attach, send, settle ──> wake ──> drive writes it
//! ```
//!
//! - The lock spans no wait: whoever has it moves a few values.
//! - A peer that sends a seat more than was allowed loses that session, not the connection.
//! - The connection closes with its last seat.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_amqp::condition::{NOT_ALLOWED, RESOURCE_LIMIT_EXCEEDED};
use holm_amqp::{AmqpError, Config, Connection, Event, Login, OpenError, SessionId};
use holm_identity::Secret;
use holm_net::clock::instant;
use holm_net::{Scope, Stream};
use tokio::sync::{Notify, mpsc, oneshot};

use super::cbs::{Cbs, MOST_TOKENS, NotTaken};
use super::driver::drive;
use super::links::MOST_NEWS;
use crate::credential::Credential;
use crate::options::Options;

/// The most identities of a connection (`hub-device-protocols.md` §3.4: what the C# pool takes).
pub(super) const MOST_SEATS: usize = 995;
/// How long a new connection may take to open, with its `$cbs`.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
/// How long an answer to a token may take (`hub-device-protocols.md` §3.2: 20 to 120 s).
const TOKEN_DEADLINE: Duration = Duration::from_secs(30);

/// What happened in a session.
#[derive(Debug)]
pub(super) enum News {
    /// Of AMQP.
    Event(Event),
    /// There may be room for what could not be sent.
    Room,
}

/// Whether there was room for what was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// Too many bytes wait to leave.
    Needed,
}

impl Room {
    pub(super) const fn needed_if(needed: bool) -> Self {
        if needed { Self::Needed } else { Self::Enough }
    }
}

/// A connection, for all who sit on it.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// The driver has something to do.
    pub(super) wake: Notify,
}

pub(super) struct Inner {
    pub(super) connection: Connection,
    seats: HashMap<SessionId, mpsc::Sender<Box<News>>>,
    /// Whether rights come by tokens.
    with_tokens: bool,
    cbs: Option<Cbs>,
    /// Told when the connection is open, or never will be.
    opening: Option<oneshot::Sender<Result<(), String>>>,
    /// Seats that wait for room in the output.
    blocked: Vec<SessionId>,
    /// The peer takes no more sessions.
    is_full: bool,
    /// Why the connection has ended.
    ended: Option<String>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Shared")
            .field("seats", &inner.seats.len())
            .field("ended", &inner.ended)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Opens a connection over a stream, driven by a task of the scope; it closes if nobody takes a seat before what is given
    /// here is dropped.
    pub(super) async fn open(options: &Options, stream: Box<dyn Stream>, scope: &Scope) -> Result<Opening, String> {
        let (opening, opened) = oneshot::channel();
        let login = Login {
            hostname: Some(options.endpoint.host.as_str().into()),
            // Rights come by token, or by the certificate: no SASL at all, as the C# SDK has it.
            credentials: None,
            ..Login::default()
        };
        let shared = Arc::new(Self {
            inner: Mutex::new(Inner {
                connection: Connection::client(instant(), Arc::new(config(options)), login),
                seats: HashMap::new(),
                with_tokens: matches!(options.credential, Credential::Tokens(_)),
                cbs: None,
                opening: Some(opening),
                blocked: Vec::new(),
                is_full: false,
                ended: None,
            }),
            wake: Notify::new(),
        });
        scope.spawn_until_stopped(drive(Arc::clone(&shared), stream));
        let opening = Opening(shared);
        let told = tokio::time::timeout(OPEN_DEADLINE, opened).await;
        match told {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(reason))) => return Err(reason),
            Ok(Err(_)) => return Err("the connection was given up".to_owned()),
            Err(_) => return Err("the node above did not open the connection in time".to_owned()),
        }
        Ok(opening)
    }

    /// A seat, if there is one.
    pub(super) fn try_sit(self: &Arc<Self>, options: &Options) -> Option<Seat> {
        let mut inner = self.lock();
        if inner.ended.is_some() || inner.is_full || inner.seats.len() >= MOST_SEATS {
            return None;
        }
        let session = match inner.connection.begin() {
            Ok(session) => session,
            Err(OpenError::TooMany) => {
                inner.is_full = true;
                return None;
            }
            Err(_) => return None,
        };
        let (sender, news) = mpsc::channel(MOST_NEWS + options.window);
        inner.seats.insert(session, sender);
        drop(inner);
        self.wake.notify_one();
        Some(Seat {
            shared: Arc::clone(self),
            session,
            news,
        })
    }

    /// Gives a token to `$cbs` and waits for the answer.
    pub(super) async fn put_token(
        &self,
        audience: &str,
        token: &Secret,
        auth_chain: Option<&str>,
    ) -> Result<(), NotTaken> {
        let asked = {
            let mut inner = self.lock();
            let Inner { connection, cbs, .. } = &mut *inner;
            let cbs = cbs.as_mut().ok_or_else(NotTaken::gone)?;
            cbs.ask(connection, audience, token.expose(), auth_chain)?
        };
        self.wake.notify_one();
        match tokio::time::timeout(TOKEN_DEADLINE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NotTaken::gone()),
            Err(_) => Err(NotTaken::Failed("no answer to the token in time".to_owned())),
        }
    }

    /// Why it ended.
    pub(super) fn reason(&self) -> String {
        let ended = self.lock().ended.clone();
        ended.unwrap_or_else(|| "the node above sent more than it was allowed to".to_owned())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, session: SessionId) {
        let mut inner = self.lock();
        inner.seats.remove(&session);
        inner.connection.end(session, None);
        inner.is_full = false;
        drop(inner);
        self.close_if_unused();
    }

    fn close_if_unused(&self) {
        let mut inner = self.lock();
        if inner.seats.is_empty() && inner.ended.is_none() {
            inner.ended = Some("nobody needs the connection any more".to_owned());
            inner.connection.close(instant(), None);
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// The connection has ended, or its task has.
    pub(super) fn end(&self, reason: String) {
        let mut inner = self.lock();
        inner.seats.clear();
        inner.cbs = None;
        if let Some(opening) = inner.opening.take()
            && opening.send(Err(reason.clone())).is_err()
        {
            tracing::trace!("nobody waits for the connection any more");
        }
        inner.ended.get_or_insert(reason);
    }
}

/// A connection that is being opened, or was just now.
pub(super) struct Opening(pub(super) Arc<Shared>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.close_if_unused();
    }
}

/// The limits of a connection. The peer is to be heard of three times within two keep-alives; then the link counts as dead,
/// as an MQTT connection whose ping is not answered.
fn config(options: &Options) -> Config {
    let usual = Config::default();
    Config {
        container_id: format!("{}/{}", options.user_agent, options.identity).into(),
        idle_timeout: options.keep_alive.mul_f64(4.0 / 3.0),
        // Of a link. A seat keeps to its window by itself; tokens of all who sit here go through one link, however small that is.
        max_unsettled: options.window.max(MOST_TOKENS),
        handshake_timeout: Duration::from_secs(30),
        ..usual
    }
}

impl Inner {
    /// Tells an event to whom it concerns.
    pub(super) fn dispatch(&mut self, event: Event) {
        let session = match &event {
            Event::Opened(_) => return self.opened(),
            Event::Attach { link, .. } => {
                let error = AmqpError::new(NOT_ALLOWED, "links are attached by the client here");
                self.connection.refuse_link(*link, error);
                return;
            }
            Event::Authenticate { .. } | Event::SaslResponse(_) | Event::Closed(_) => return,
            Event::Begun(session) | Event::Ended { session, .. } => *session,
            Event::Attached { link, .. }
            | Event::Detached { link, .. }
            | Event::Credit { link, .. }
            | Event::Drained(link) => link.session(),
            Event::Delivery(delivery) => delivery.link.session(),
            Event::Settled { token, .. } => token.link().session(),
        };
        if let Some(cbs) = self.cbs.as_mut().filter(|cbs| cbs.session() == session) {
            let is_open = cbs.handle(&mut self.connection, event);
            return self.cbs_stands(is_open);
        }
        let is_over = matches!(event, Event::Ended { .. });
        // Whoever has news to read looks at its credit after each.
        let is_needed = !matches!(event, Event::Credit { .. });
        let Some(seat) = self.seats.get(&session) else {
            return;
        };
        let is_told = seat.try_send(Box::new(News::Event(event))).is_ok() || !is_needed;
        if is_over || !is_told {
            self.seats.remove(&session);
        }
        if !is_told {
            let error = AmqpError::new(RESOURCE_LIMIT_EXCEEDED, "more came than the links of the session allow");
            self.connection.end(session, Some(error));
        }
    }

    fn opened(&mut self) {
        if !self.with_tokens {
            return self.cbs_stands(Some(Ok(())));
        }
        match Cbs::attach(&mut self.connection) {
            Ok(cbs) => self.cbs = Some(cbs),
            Err(error) => self.cbs_stands(Some(Err(error.to_string()))),
        }
    }

    /// `$cbs` came into being or was lost; the connection is of no use without.
    fn cbs_stands(&mut self, outcome: Option<Result<(), String>>) {
        let Some(outcome) = outcome else { return };
        if let Err(reason) = &outcome {
            self.ended.get_or_insert_with(|| reason.clone());
            self.cbs = None;
            self.connection.close(instant(), None);
        }
        if let Some(opening) = self.opening.take()
            && opening.send(outcome).is_err()
        {
            tracing::trace!("nobody waits for the connection any more");
        }
    }

    /// Bytes have left: those who wait for room look again.
    pub(super) fn tell_of_room(&mut self) {
        for session in std::mem::take(&mut self.blocked) {
            // One whose news are full looks again when it reads them.
            if let Some(seat) = self.seats.get(&session)
                && seat.try_send(Box::new(News::Room)).is_err()
            {
                tracing::trace!("a seat has much to read");
            }
        }
    }
}

/// The place of one identity on a connection: a session. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    session: SessionId,
    news: mpsc::Receiver<Box<News>>,
}

impl Seat {
    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// The next thing that happened; `None` when the session is over. Cancel-safe.
    pub(super) async fn news(&mut self) -> Option<News> {
        self.news.recv().await.map(|news| *news)
    }

    /// What has happened already.
    pub(super) fn try_news(&mut self) -> Option<News> {
        self.news.try_recv().ok().map(|news| *news)
    }

    /// Sends with the connection, as far as it has room; when that is needed, news of more room follow.
    pub(super) fn with_room(&self, action: impl FnOnce(&mut Connection) -> Room) {
        let mut inner = self.shared.lock();
        // Noted under the same lock: room that comes at once is not missed.
        if action(&mut inner.connection) == Room::Needed && !inner.blocked.contains(&self.session) {
            inner.blocked.push(self.session);
        }
        drop(inner);
        self.shared.wake.notify_one();
    }

    /// Does something with the connection; what it has to send then leaves.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut Connection) -> T) -> T {
        let done = action(&mut self.shared.lock().connection);
        self.shared.wake.notify_one();
        done
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.leave(self.session);
    }
}
