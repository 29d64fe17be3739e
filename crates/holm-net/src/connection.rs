//! The one loop that moves bytes: it hands input to a sans-I/O session, writes what the session has to send, sleeps until
//! its next timeout, and gives its events to the owner. Gateway and client drive every protocol with it.
//!
//! ```text
//!   socket --read--> handle_input \                       / poll_event --> owner
//!   clock  --------> handle_timeout > session (decides) -<
//!   owner  --------> session_mut() /                      \ poll_transmit --write--> socket
//! ```
//!
//! Events come before writes and writes before reads: while the owner has events to handle, what it sends in answer gathers
//! in one buffer, and goes out in one write when it comes back for more. So a lone answer leaves at once, and a busy
//! connection batches by itself, without a timer.
//!
//! Memory: an idle connection holds no buffers; a busy one what its session allows itself.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Alarm;

use crate::clock::instant;

/// The most bytes taken from a socket in one read. Larger gains nothing over TLS, whose records hold 16 KiB.
pub const READ_BUFFER: usize = 16 * 1024;

/// When this many bytes are waiting to be written, input is not read, and nothing more is taken from the session, until
/// some are gone: a peer that sends and does not read holds this much memory, what its session allows itself, and no more.
pub const WRITE_HIGH_WATER: usize = 256 * 1024;

/// How long a peer may take to accept the last bytes of a session that has ended.
const LAST_WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// A sans-I/O session: a state machine that is given bytes and time. It tells its end as an event, once, after everything
/// that came before it.
pub trait Protocol {
    /// What it tells its owner.
    type Event;

    /// Where input is appended, before [`Protocol::handle_input`].
    fn input_buffer(&mut self) -> &mut BytesMut;
    /// Takes the input that was appended.
    fn handle_input(&mut self, now: Instant);
    /// Takes the end of the transport, in error or not.
    fn handle_end(&mut self);
    /// Whether it wants input now; if not, the socket is not read, and the peer feels it. Not after its end.
    fn wants_input(&self) -> bool;
    /// Tells it that the time of [`Protocol::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);
    /// When it next wants to be told the time; not after its end.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Appends what is to be sent. That it is taken may make room for more of it, and for events.
    fn poll_transmit(&mut self, out: &mut BytesMut);
    /// The next event for the owner that is `wanted`; those before it wait.
    fn poll_event(&mut self, wanted: &impl Fn(&Self::Event) -> bool) -> Option<Self::Event>;
}

/// The sessions of both protocols have these methods of their own: they know nothing of this crate, or of each other.
macro_rules! protocol {
    ($session:ty, $event:ty) => {
        impl Protocol for $session {
            type Event = $event;

            fn input_buffer(&mut self) -> &mut BytesMut {
                self.input_buffer()
            }
            fn handle_input(&mut self, now: Instant) {
                self.handle_input(now);
            }
            fn handle_end(&mut self) {
                self.handle_end();
            }
            fn wants_input(&self) -> bool {
                self.wants_input()
            }
            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }
            fn poll_transmit(&mut self, out: &mut BytesMut) {
                self.poll_transmit(out);
            }
            fn poll_event(&mut self, wanted: &impl Fn(&Self::Event) -> bool) -> Option<Self::Event> {
                self.poll_event_where(wanted)
            }
        }
    };
}

protocol!(holm_mqtt::Session, holm_mqtt::Event);
protocol!(holm_amqp::Connection, holm_amqp::Event);

/// A session and its socket.
#[derive(Debug)]
pub struct Connection<P, S> {
    session: P,
    stream: S,
    output: BytesMut,
    unflushed: bool,
    /// The transport has ended; the session knows.
    ended: bool,
    alarm: Alarm,
}

/// How far the writing is.
enum Sending {
    /// Something moved: the session may have more of everything.
    Moved,
    /// There is nothing (more) to write.
    Done,
    /// The peer takes nothing now, or never again.
    Stuck,
}

impl<P: Protocol, S: AsyncRead + AsyncWrite + Unpin> Connection<P, S> {
    /// Joins a session and a stream.
    #[must_use]
    pub fn new(session: P, stream: S) -> Self {
        Self {
            session,
            stream,
            output: BytesMut::new(),
            unflushed: false,
            ended: false,
            alarm: Alarm::default(),
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

    /// Whether the transport has ended. The session may still have events from before.
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Gives the session back, for what it still holds (messages not acknowledged, say). The socket is dropped.
    pub fn into_session(self) -> P {
        self.session
    }

    /// Moves bytes until the session has an event. After the event that tells its end, waits for the owner for ever:
    /// [`Connection::finish`] then.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped and the method called again.
    pub async fn next_event(&mut self) -> P::Event {
        self.next_event_where(|_| true).await
    }

    /// As [`Connection::next_event`], for an owner that has no room for every event: those that are not `wanted` wait in
    /// the session, whose bounds then stop the reading, while everything else goes on: what is written, the clock, and
    /// events that are wanted.
    ///
    /// Cancel-safe, as that.
    pub async fn next_event_where(&mut self, wanted: impl Fn(&P::Event) -> bool) -> P::Event {
        poll_fn(|cx| match ready!(self.poll_next(cx, &wanted, &|_| false)) {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        })
        .await
    }

    /// As [`Connection::next_event_where`], for an owner that may have more to send than the session queues: gives none once
    /// everything that the session gave out is written and it `has_room`.
    ///
    /// Cancel-safe, as that.
    pub async fn next_event_or_room(
        &mut self,
        wanted: impl Fn(&P::Event) -> bool,
        has_room: impl Fn(&P) -> bool,
    ) -> Option<P::Event> {
        poll_fn(|cx| self.poll_next(cx, &wanted, &has_room)).await
    }

    /// Writes the last bytes of a session that has ended and closes the stream, waiting at most 5 s for the peer.
    pub async fn finish(&mut self) {
        let last = poll_fn(|cx| {
            self.session.poll_transmit(&mut self.output);
            ready!(self.poll_write(cx))?;
            Pin::new(&mut self.stream).poll_shutdown(cx)
        });
        if !matches!(tokio::time::timeout(LAST_WRITE_DEADLINE, last).await, Ok(Ok(()))) {
            tracing::trace!("the peer was gone before the connection was closed");
        }
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        wanted: &impl Fn(&P::Event) -> bool,
        has_room: &impl Fn(&P) -> bool,
    ) -> Poll<Option<P::Event>> {
        loop {
            if let Some(event) = self.session.poll_event(wanted) {
                return Poll::Ready(Some(event));
            }
            match self.poll_send(cx) {
                Sending::Moved => continue,
                Sending::Done if has_room(&self.session) => return Poll::Ready(None),
                Sending::Done | Sending::Stuck => {}
            }
            let may_read = !self.ended && self.session.wants_input() && self.output.len() < WRITE_HIGH_WATER;
            if may_read && self.poll_read(cx).is_ready() {
                continue;
            }
            if self.poll_timer(cx).is_ready() {
                continue;
            }
            // An idle connection holds no buffer: thousands of them must fit.
            let left = self.session.input_buffer();
            if left.is_empty() {
                *left = BytesMut::new();
            }
            return Poll::Pending;
        }
    }

    /// Writes what the session has to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Sending {
        if self.ended {
            return Sending::Stuck;
        }
        let waiting = self.output.len();
        if waiting < WRITE_HIGH_WATER {
            self.session.poll_transmit(&mut self.output);
        }
        let taken = self.output.len() > waiting;
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) if !taken && waiting == 0 => Sending::Done,
            Poll::Ready(Ok(())) => Sending::Moved,
            Poll::Ready(Err(error)) => {
                self.end(&error);
                Sending::Moved
            }
            Poll::Pending if taken => Sending::Moved,
            Poll::Pending => Sending::Stuck,
        }
    }

    /// A connection that ends without a TLS close_notify, or is reset, has ended: peers do it all the time.
    fn end(&mut self, reason: &dyn std::fmt::Display) {
        tracing::trace!(%reason, "the transport ended");
        self.ended = true;
        self.output.clear();
        self.session.handle_end();
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
            self.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and hands it to the session; ready when something happened.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [const { MaybeUninit::uninit() }; READ_BUFFER];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
            Err(error) => self.end(&error),
            Ok(()) if buffer.filled().is_empty() => self.end(&"closed by the peer"),
            Ok(()) => {
                self.session.input_buffer().extend_from_slice(buffer.filled());
                self.session.handle_input(instant());
            }
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.alarm.poll(cx, self.session.poll_timeout()));
        self.session.handle_timeout(instant());
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A protocol of single bytes: each is an event and is echoed; `.` ends the session, with a last `.` of its own, and
    /// so does the end of the transport. It sends `t` when its time comes.
    #[derive(Debug, Default)]
    struct Echo {
        input: BytesMut,
        events: VecDeque<Heard>,
        out: Vec<u8>,
        closed: bool,
        alarm: Option<Instant>,
        tells_of_sending: bool,
    }

    #[derive(Debug, PartialEq)]
    enum Heard {
        Byte(u8),
        Sent,
        End,
    }

    impl Echo {
        fn close(&mut self) {
            if !std::mem::replace(&mut self.closed, true) {
                self.events.push_back(Heard::End);
            }
        }
    }

    impl Protocol for Echo {
        type Event = Heard;

        fn input_buffer(&mut self) -> &mut BytesMut {
            &mut self.input
        }
        fn handle_input(&mut self, _now: Instant) {
            for byte in std::mem::take(&mut self.input) {
                self.out.push(byte);
                if byte == b'.' {
                    return self.close();
                }
                self.events.push_back(Heard::Byte(byte));
            }
        }
        fn handle_end(&mut self) {
            self.close();
        }
        fn wants_input(&self) -> bool {
            !self.closed
        }
        fn handle_timeout(&mut self, _now: Instant) {
            self.alarm = None;
            self.out.push(b't');
        }
        fn poll_timeout(&self) -> Option<Instant> {
            self.alarm
        }
        fn poll_transmit(&mut self, out: &mut BytesMut) {
            if self.tells_of_sending && !self.out.is_empty() {
                self.events.push_back(Heard::Sent);
            }
            out.extend_from_slice(&std::mem::take(&mut self.out));
        }
        fn poll_event(&mut self, wanted: &impl Fn(&Heard) -> bool) -> Option<Heard> {
            let index = self.events.iter().position(wanted)?;
            self.events.remove(index)
        }
    }

    fn pair() -> (Connection<Echo, tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        (Connection::new(Echo::default(), near), far)
    }

    /// Sends a byte at a time.
    #[derive(Debug, Default)]
    struct Slow {
        echo: Echo,
        left: usize,
    }

    impl Protocol for Slow {
        type Event = Heard;

        fn input_buffer(&mut self) -> &mut BytesMut {
            self.echo.input_buffer()
        }
        fn handle_input(&mut self, now: Instant) {
            self.echo.handle_input(now);
        }
        fn handle_end(&mut self) {
            self.echo.handle_end();
        }
        fn wants_input(&self) -> bool {
            self.echo.wants_input()
        }
        fn handle_timeout(&mut self, now: Instant) {
            self.echo.handle_timeout(now);
        }
        fn poll_timeout(&self) -> Option<Instant> {
            self.echo.poll_timeout()
        }
        fn poll_transmit(&mut self, out: &mut BytesMut) {
            if self.left > 0 && out.is_empty() {
                self.left -= 1;
                out.extend_from_slice(b"x");
            }
        }
        fn poll_event(&mut self, wanted: &impl Fn(&Heard) -> bool) -> Option<Heard> {
            self.echo.poll_event(wanted)
        }
    }

    #[tokio::test]
    async fn what_a_session_gives_out_in_pieces_is_written_to_the_last_before_there_is_room() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut connection = Connection::new(
            Slow {
                left: 1000,
                ..Slow::default()
            },
            near,
        );

        let reads = async {
            let mut all = vec![0; 1000];
            far.read_exact(&mut all).await.unwrap();
        };
        let (room, ()) = tokio::join!(
            connection.next_event_or_room(|_| true, |session| session.left == 0),
            reads
        );

        assert_eq!((room, connection.session().left), (None, 0));
    }

    #[tokio::test]
    async fn answers_are_written_before_a_session_that_ended_closes_the_stream() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"a.").await.unwrap();

        assert_eq!(connection.next_event().await, Heard::Byte(b'a'));
        assert_eq!(connection.next_event().await, Heard::End);
        connection.finish().await;

        let mut answers = Vec::new();
        peer.read_to_end(&mut answers).await.unwrap();
        assert_eq!(answers, b"a.");
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
    async fn an_event_that_is_not_wanted_waits_while_bytes_and_time_go_on() {
        let (mut connection, mut peer) = pair();
        connection.session_mut().alarm = Some(Instant::now() + Duration::from_millis(5));
        peer.write_all(b"ab").await.unwrap();

        let mut answers = [0; 3];
        tokio::select! {
            event = connection.next_event_where(|_| false) => panic!("no event was wanted: {event:?}"),
            read = peer.read_exact(&mut answers) => { read.unwrap(); }
        }

        assert_eq!(&answers, b"abt");
        assert_eq!(
            connection.next_event_where(|heard| *heard == Heard::Byte(b'b')).await,
            Heard::Byte(b'b')
        );
        assert_eq!(connection.next_event().await, Heard::Byte(b'a'));
    }

    #[tokio::test]
    async fn two_ends_of_amqp_open_and_close_over_a_stream() {
        let (near, far) = tokio::io::duplex(READ_BUFFER);
        let config = std::sync::Arc::new(holm_amqp::Config::default());
        let client = holm_amqp::Connection::client(instant(), config.clone(), holm_amqp::Login::default());
        let server = holm_amqp::Connection::server(instant(), config);
        let mut client = Connection::new(client, near);
        let served = tokio::spawn(all_events(Connection::new(server, far)));

        let opened = client.next_event().await;
        client.session_mut().close(instant(), None);
        let closed = client.next_event().await;

        assert!(matches!(opened, holm_amqp::Event::Opened(_)), "{opened:?}");
        assert_eq!(closed, holm_amqp::Event::Closed(holm_amqp::Closed::ByApplication));
        let told = served.await.unwrap();
        assert!(matches!(told[0], holm_amqp::Event::Opened(_)), "{told:?}");
        assert_eq!(told[1], holm_amqp::Event::Closed(holm_amqp::Closed::ByPeer(None)));
    }

    /// Everything up to the end, and the last bytes.
    async fn all_events(
        mut connection: Connection<holm_amqp::Connection, tokio::io::DuplexStream>,
    ) -> Vec<holm_amqp::Event> {
        let mut told = Vec::new();
        while !matches!(told.last(), Some(holm_amqp::Event::Closed(_))) {
            told.push(connection.next_event().await);
        }
        connection.finish().await;
        told
    }

    #[tokio::test]
    async fn an_event_that_comes_of_sending_is_told_at_once() {
        let (mut connection, _peer) = pair();
        connection.session_mut().tells_of_sending = true;
        connection.session_mut().out.push(b'a');

        assert_eq!(connection.next_event().await, Heard::Sent);
    }

    #[tokio::test]
    async fn what_a_peer_sent_before_it_left_is_told_before_its_end() {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"a").await.unwrap();
        drop(peer);

        assert_eq!(connection.next_event().await, Heard::Byte(b'a'));
        assert_eq!(connection.next_event().await, Heard::End);
    }
}
