//! The one loop that moves bytes: it hands input to a sans-I/O session, writes what the session has to send, sleeps until
//! its next timeout, and gives its events to the owner. Gateway and client drive every protocol with it.
//!
//! ```text
//!   socket --read--> handle_bytes \                       / poll_event --> owner
//!   clock  --------> handle_timeout > session (decides) -<
//!   owner  --------> session_mut() /                      \ poll_transmit --write--> socket
//! ```
//!
//! Events come before writes and writes before reads: while the owner has events to handle, what it sends in answer gathers
//! in one buffer, and goes out in one write when it comes back for more. So a lone answer leaves at once, and a busy
//! connection batches by itself, without a timer.
//!
//! Memory: one read buffer of [`READ_BUFFER`] while reading, and what the session allows itself to have in flight.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

/// The most bytes taken from a socket in one read. Larger gains nothing over TLS, whose records hold 16 KiB.
pub const READ_BUFFER: usize = 16 * 1024;

/// When this many bytes are waiting to be written, input is not read until some are gone: a peer that sends and does not
/// read holds this much memory and no more.
pub const WRITE_HIGH_WATER: usize = 256 * 1024;

/// A sans-I/O session: a state machine that is given bytes and time.
pub trait Protocol {
    /// What it tells its owner.
    type Event;
    /// How a peer can break the protocol.
    type Violation: std::error::Error + Send + Sync + 'static;

    /// Takes input from the peer. The session removes from `input` what it has used; the rest comes again with more.
    ///
    /// # Errors
    /// The peer broke the protocol: what is waiting to be sent is still written, then the connection ends.
    fn handle_bytes(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), Self::Violation>;
    /// Whether it wants input now; if not, the socket is not read, and the peer feels it.
    fn wants_input(&self) -> bool;
    /// Tells it that the time of [`Protocol::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);
    /// When it next wants to be told the time.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Appends what is to be sent.
    fn poll_transmit(&mut self, out: &mut BytesMut);
    /// The next event for the owner.
    fn poll_event(&mut self) -> Option<Self::Event>;
    /// Whether the session has ended: after its last bytes are written, the connection closes.
    fn is_closed(&self) -> bool;
}

/// Why a connection ended other than by the session's own decision.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError<V: std::error::Error + 'static> {
    /// The peer closed, or the network did.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol")]
    Violation(#[source] V),
}

/// What [`Connection::next_event`] gives: an event, nothing more to come, or how the connection ended.
pub type Next<P> = Result<Option<<P as Protocol>::Event>, ConnectionError<<P as Protocol>::Violation>>;

/// A session and its socket.
#[derive(Debug)]
pub struct Connection<P: Protocol, S> {
    session: P,
    stream: S,
    input: BytesMut,
    /// The session stopped wanting input with some of it unused: it is handed over again before more is read.
    paused: bool,
    output: BytesMut,
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    ended: Option<Ended<P::Violation>>,
}

#[derive(Debug)]
enum Ended<V> {
    BySession,
    ByPeer,
    ByIo(io::Error),
    ByViolation(V),
    Reported,
}

impl<P: Protocol, S: AsyncRead + AsyncWrite + Unpin> Connection<P, S> {
    /// Joins a session and a stream.
    #[must_use]
    pub fn new(session: P, stream: S) -> Self {
        Self {
            session,
            stream,
            input: BytesMut::new(),
            paused: false,
            output: BytesMut::new(),
            unflushed: false,
            timer: Box::pin(tokio::time::sleep_until(tokio::time::Instant::now())),
            armed: None,
            ended: None,
        }
    }

    /// The session, to send with. What it has to send goes out at the next call of [`Connection::next_event`].
    pub const fn session_mut(&mut self) -> &mut P {
        &mut self.session
    }

    /// The session, to look at.
    pub const fn session(&self) -> &P {
        &self.session
    }

    /// Gives the session back, for what it still holds (messages not acknowledged, say).
    pub fn into_session(self) -> P {
        self.session
    }

    /// Moves bytes until the session has an event: `Ok(None)` when the session ended the connection itself.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped and the method called again.
    ///
    /// # Errors
    /// [`ConnectionError`] when the peer, the network or a violation ended it; later calls give `Ok(None)`.
    pub async fn next_event(&mut self) -> Next<P> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Writes what is still to be sent and closes the stream; gives up after `patience`.
    pub async fn close(mut self, patience: std::time::Duration) {
        let finish = poll_fn(|cx| {
            self.session.poll_transmit(&mut self.output);
            ready!(self.poll_write(cx))?;
            Pin::new(&mut self.stream).poll_shutdown(cx)
        });
        if !matches!(tokio::time::timeout(patience, finish).await, Ok(Ok(()))) {
            tracing::trace!("the peer was gone before the connection was closed");
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<P>> {
        loop {
            if let Some(event) = self.session.poll_event() {
                return Poll::Ready(Ok(Some(event)));
            }
            if self.ended.is_none() && self.session.is_closed() {
                self.ended = Some(Ended::BySession);
            }

            self.session.poll_transmit(&mut self.output);
            let written = match self.poll_write(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(error)) => {
                    self.output.clear();
                    self.ended.get_or_insert(Ended::ByIo(error));
                    true
                }
                Poll::Pending => false,
            };
            if self.ended.is_some() {
                return if written {
                    Poll::Ready(self.report_end())
                } else {
                    Poll::Pending
                };
            }

            if self.session.wants_input() && self.output.len() < WRITE_HIGH_WATER {
                match self.poll_read(cx) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => {}
                }
            }
            if self.poll_timer(cx).is_ready() {
                continue;
            }
            return Poll::Pending;
        }
    }

    fn report_end(&mut self) -> Next<P> {
        match self.ended.replace(Ended::Reported) {
            Some(Ended::ByPeer) => Err(ConnectionError::Closed),
            Some(Ended::ByIo(error)) => Err(ConnectionError::Io(error)),
            Some(Ended::ByViolation(violation)) => Err(ConnectionError::Violation(violation)),
            Some(Ended::BySession | Ended::Reported) | None => Ok(None),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(n);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        if self.output.capacity() > WRITE_HIGH_WATER {
            self.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Hands the session what a pause left behind, or else reads once; ready when something happened.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::take(&mut self.paused) {
            self.input.reserve(READ_BUFFER);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
                Poll::Pending => {
                    if self.input.is_empty() {
                        // An idle connection holds no buffer: thousands of them must fit.
                        self.input = BytesMut::new();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => {
                    self.ended = Some(end_of(error));
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(0)) => {
                    self.ended = Some(Ended::ByPeer);
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
        if let Err(violation) = self.session.handle_bytes(Instant::now(), &mut self.input) {
            self.ended = Some(Ended::ByViolation(violation));
        }
        self.paused = !self.session.wants_input() && !self.input.is_empty();
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.session.poll_timeout() else {
            self.armed = None;
            return Poll::Pending;
        };
        if self.armed != Some(deadline) {
            self.timer.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
        ready!(self.timer.as_mut().poll(cx));
        self.armed = None;
        self.session.handle_timeout(Instant::now());
        Poll::Ready(())
    }
}

/// A connection that ends without a TLS close_notify, or is reset, has ended: peers do it all the time.
fn end_of<V>(error: io::Error) -> Ended<V> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ended::ByPeer,
        _ => Ended::ByIo(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A protocol of single bytes: each is an event and is echoed; `!` is a violation, `.` ends the session. It takes no
    /// input while `full`, and sends `t` when its time comes.
    #[derive(Debug, Default)]
    struct Echo {
        events: std::collections::VecDeque<u8>,
        out: Vec<u8>,
        full: bool,
        closed: bool,
        alarm: Option<Instant>,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("an exclamation mark")]
    struct Shouting;

    impl Protocol for Echo {
        type Event = u8;
        type Violation = Shouting;

        fn handle_bytes(&mut self, _now: Instant, input: &mut BytesMut) -> Result<(), Shouting> {
            while self.wants_input() && !input.is_empty() {
                match input.get_u8() {
                    b'!' => return Err(Shouting),
                    b'.' => self.closed = true,
                    b'#' => self.full = true,
                    byte => {
                        self.events.push_back(byte);
                        self.out.push(byte);
                    }
                }
            }
            Ok(())
        }
        fn wants_input(&self) -> bool {
            !self.full
        }
        fn handle_timeout(&mut self, _now: Instant) {
            self.alarm = None;
            self.out.push(b't');
        }
        fn poll_timeout(&self) -> Option<Instant> {
            self.alarm
        }
        fn poll_transmit(&mut self, out: &mut BytesMut) {
            out.extend_from_slice(&std::mem::take(&mut self.out));
        }
        fn poll_event(&mut self) -> Option<u8> {
            self.events.pop_front()
        }
        fn is_closed(&self) -> bool {
            self.closed
        }
    }

    fn pair() -> (Connection<Echo, tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        (Connection::new(Echo::default(), near), far)
    }

    #[tokio::test]
    async fn what_is_left_by_a_pause_is_handled_when_it_ends_without_new_input() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"a#b").await.unwrap();
        assert_eq!(connection.next_event().await.unwrap(), Some(b'a'));
        let paused = tokio::time::timeout(Duration::from_millis(20), connection.next_event()).await;
        assert!(paused.is_err());

        connection.session_mut().full = false;

        assert_eq!(connection.next_event().await.unwrap(), Some(b'b'));
    }

    #[tokio::test]
    async fn answers_are_written_before_a_violation_ends_the_connection() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"ab!c").await.unwrap();

        assert_eq!(connection.next_event().await.unwrap(), Some(b'a'));
        assert_eq!(connection.next_event().await.unwrap(), Some(b'b'));
        assert!(matches!(
            connection.next_event().await,
            Err(ConnectionError::Violation(Shouting))
        ));

        drop(connection);
        let mut answers = Vec::new();
        peer.read_to_end(&mut answers).await.unwrap();
        assert_eq!(answers, b"ab");
    }

    #[tokio::test]
    async fn the_session_is_told_the_time_and_its_output_leaves() {
        let (mut connection, mut peer) = pair();
        connection.session_mut().alarm = Some(Instant::now() + Duration::from_millis(5));

        let mut byte = [0];
        tokio::select! {
            event = connection.next_event() => panic!("no event was due: {event:?}"),
            read = peer.read_exact(&mut byte) => { read.unwrap(); }
        }

        assert_eq!(&byte, b"t");
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_reported_once() {
        let (mut connection, peer) = pair();
        drop(peer);

        assert!(matches!(connection.next_event().await, Err(ConnectionError::Closed)));
        assert!(matches!(connection.next_event().await, Ok(None)));
    }
}
