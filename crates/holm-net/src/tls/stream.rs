//! A TLS stream that holds no buffer while nothing is on its way.
//!
//! ```text
//!   socket --read--> room of the thread --decrypt--> reader         half a record: `partial`; no room at the reader: `unread`
//!   writer --encrypt--> room of the thread --write--> socket        what the socket does not take: `output`
//! ```
//!
//! - Each thread has one room for input and one for output, lent for a call: a thousand idle connections cost what they have to
//!   remember, which is their keys.
//! - What is kept of a connection is bounded: a record that is not whole, a handshake message of at most 64 KiB, the records of one
//!   write. While something waits to be written, nothing more is taken to be written.
//! - An end without close_notify is an error (`UnexpectedEof`), so that nobody takes a cut message for a whole one.
//!
//! Why not tokio-rustls: rustls's own buffers stay as long as the connection, 4 KiB at least, and are filled 4 KiB a call.
//! `docs/decisions/0013-a-tls-stream-of-our-own.md` has more.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::{Results, Session, Step, StepError, Wish};

/// Bytes that a call reads, with the piece of a record from before: the largest record that is usual, of 16 KiB.
const READ: usize = 16 * 1024 + 256;
/// At least so many are read, behind a long piece: a handshake message may take several records.
const LEAST_READ: usize = 4 * 1024;
/// The most that may have to be kept until it is whole: a handshake message of 64 KiB, which is the most that rustls takes, and a
/// record.
const MAX_PARTIAL: usize = 64 * 1024 + 18 * 1024 + 512;
/// Bytes of the application that one call takes: two records.
const MOST_WRITTEN: usize = 32 * 1024;

/// A TLS connection over a stream of bytes, in either role.
pub struct TlsStream<S> {
    socket: S,
    session: Session,
    /// Input that is no whole record yet, or no whole handshake message.
    partial: Vec<u8>,
    /// Decrypted, and read up to `read`.
    unread: Vec<u8>,
    read: usize,
    /// Encrypted, and written up to `written`.
    output: Vec<u8>,
    written: usize,
    /// The peer has said that nothing more follows.
    peer_closed: bool,
    /// This side has.
    closed: bool,
    /// An error has ended it. rustls is asked nothing more: it would look for input that is gone.
    failed: bool,
    /// That error, while the reader has only what came before it.
    untold: Option<io::Error>,
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("peer_closed", &self.peer_closed)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl<S> TlsStream<S> {
    fn new(socket: S, session: Session) -> Box<Self> {
        Box::new(Self {
            socket,
            session,
            partial: Vec::new(),
            unread: Vec::new(),
            read: 0,
            output: Vec::new(),
            written: 0,
            peer_closed: false,
            closed: false,
            failed: false,
            untold: None,
        })
    }

    /// The certificates that the peer showed, leaf first; none when it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.session.peer_certificates()
    }

    /// What lies below.
    #[cfg(test)]
    pub(super) fn into_socket(self) -> S {
        self.socket
    }

    /// Bytes of buffers that the connection holds now.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.partial.capacity() + self.unread.capacity() + self.output.capacity()
    }
}

/// The rooms of a thread. Taken for a call and given back: a stream over another stream finds none, and makes its own.
struct Rooms {
    input: Cell<Vec<u8>>,
    output: Cell<Vec<u8>>,
}

thread_local! {
    static ROOMS: Rooms = const {
        Rooms {
            input: Cell::new(Vec::new()),
            output: Cell::new(Vec::new()),
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Does the server's part of a handshake. Cancel-safe: the connection is dropped with the future.
    pub(super) async fn accept(config: Arc<ServerConfig>, socket: S) -> io::Result<Box<Self>> {
        let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
        Self::new(socket, Session::Server(session)).shake_hands().await
    }

    /// Does the client's part of a handshake with a server of this name. Cancel-safe, as [`TlsStream::accept`].
    pub(super) async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        socket: S,
    ) -> io::Result<Box<Self>> {
        let session = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
        Self::new(socket, Session::Client(session)).shake_hands().await
    }

    async fn shake_hands(mut self: Box<Self>) -> io::Result<Box<Self>> {
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await?;
        Ok(self)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut input = std::mem::take(&mut self.partial);
            let decided = self.decide(cx, &mut input, None);
            self.keep(&input, decided?);
            ready!(self.poll_output(cx))?;
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_more(cx, None))? == 0 {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed the connection in the middle of the handshake",
                )));
            }
        }
    }

    /// Reads once, behind the piece from before, and decides what came. Gives the number of bytes; 0 is the end.
    fn poll_more(&mut self, cx: &mut Context<'_>, reader: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<usize>> {
        let kept = self.partial.len();
        if self.failed {
            let told = || invalid("an error has ended the TLS connection before");
            return Poll::Ready(Err(self.untold.take().unwrap_or_else(told)));
        }
        if kept >= MAX_PARTIAL {
            return Poll::Ready(Err(invalid("a handshake message is longer than 64 KiB")));
        }
        let mut room = ROOMS.with(|rooms| rooms.input.take());
        let wanted = READ.max(kept + LEAST_READ);
        if room.len() < wanted {
            room.resize(wanted, 0);
        }
        let outcome = self.read_into(cx, &mut room, kept, wanted, reader);
        if room.len() <= READ {
            ROOMS.with(|rooms| rooms.input.set(room));
        }
        outcome
    }

    fn read_into(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
        kept: usize,
        wanted: usize,
        reader: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(room.get_mut(kept..wanted).unwrap_or_default());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        let Some((piece, _)) = room.split_at_mut_checked(kept) else {
            return Poll::Ready(Ok(0));
        };
        piece.copy_from_slice(&self.partial);
        self.partial = Vec::new();
        let input = room.get_mut(..kept + count).unwrap_or_default();
        let decided = self.decide(cx, input, reader);
        self.keep(input, decided?);
        Poll::Ready(Ok(count))
    }

    /// Takes steps until more input is wanted. Gives how much of the input is done with.
    fn decide(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        mut reader: Option<&mut ReadBuf<'_>>,
    ) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let mut results = Results {
                reader: reader.as_deref_mut(),
                unread: &mut self.unread,
                output: &mut self.output,
            };
            let rest = input.get_mut(done..).unwrap_or_default();
            let (count, step) = self.session.step(rest, &Wish::Nothing, &mut results);
            done += count;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(Step::Waits | Step::Said | Step::Closed) => return Ok(done),
                Err(error) => {
                    self.failed = true;
                    let rest = input.get_mut(done..).unwrap_or_default();
                    self.tell_why(cx, rest);
                    return Err(io::Error::from(error));
                }
            }
        }
    }

    /// Keeps what is no whole record.
    fn keep(&mut self, input: &[u8], done: usize) {
        self.partial = input.get(done..).unwrap_or_default().to_vec();
    }

    /// After an error: the alert that tells the peer, if the socket takes it at once. The error counts, not this.
    fn tell_why(&mut self, cx: &mut Context<'_>, input: &mut [u8]) {
        let mut results = Results {
            reader: None,
            unread: &mut self.unread,
            output: &mut self.output,
        };
        let (_, step) = self.session.step(input, &Wish::Nothing, &mut results);
        if step.is_err() || !matches!(self.poll_output(cx), Poll::Ready(Ok(()))) {
            tracing::trace!("the peer was not told why its connection ends");
        }
    }

    /// Encrypts what is wished, behind everything that must be said before it. Says whether it was.
    fn say(&mut self, wish: &Wish<'_>) -> io::Result<bool> {
        if self.failed {
            return Ok(false);
        }
        let mut done = 0;
        let outcome = loop {
            let mut results = Results {
                reader: None,
                unread: &mut self.unread,
                output: &mut self.output,
            };
            let rest = self.partial.get_mut(done..).unwrap_or_default();
            let (count, step) = self.session.step(rest, wish, &mut results);
            done += count;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(step @ (Step::Waits | Step::Said | Step::Closed)) => break Ok(step == Step::Said),
                Err(error) => {
                    self.failed = true;
                    break Err(io::Error::from(error));
                }
            }
        };
        self.partial.drain(..done.min(self.partial.len()));
        outcome
    }

    /// Writes what is encrypted. Then the buffer goes back.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.output = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Gives what was decrypted and had no room. Then the buffer goes back.
    fn give_unread(&mut self, reader: &mut ReadBuf<'_>) {
        let rest = self.unread.get(self.read..).unwrap_or_default();
        let count = rest.len().min(reader.remaining());
        reader.put_slice(rest.get(..count).unwrap_or_default());
        self.read += count;
        if self.read >= self.unread.len() {
            self.unread = Vec::new();
            self.read = 0;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = reader.filled().len();
        loop {
            if !this.unread.is_empty() {
                this.give_unread(reader);
            }
            if reader.filled().len() > before || reader.remaining() == 0 || this.peer_closed {
                return Poll::Ready(Ok(()));
            }
            let is_idle = this.output.is_empty();
            let outcome = ready!(this.poll_more(cx, Some(reader)));
            if is_idle && !this.output.is_empty() {
                // What TLS itself answers, such as that it does not negotiate anew: the owner may have nothing to write for
                // long. An error is there for the next write.
                drop(this.poll_output(cx));
            }
            match outcome {
                Ok(0) if !this.peer_closed => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the peer closed the connection without saying so in TLS",
                    )));
                }
                Ok(_) => {}
                // What came whole before it is the reader's; the error is there when it comes for more.
                Err(error) if reader.filled().len() > before => this.untold = Some(error),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.closed {
            // The peer was told that nothing more follows.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_output(cx))?;
        let data = data.get(..MOST_WRITTEN).unwrap_or(data);
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.output = ROOMS.with(|rooms| rooms.output.take());
        let said = this.say(&Wish::Send(data));
        if said.is_ok() {
            this.write_room(cx)?;
        } else {
            this.output = Vec::new();
        }
        Poll::Ready(if said? {
            Ok(data.len())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_output(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) && !this.session.is_handshaking() {
            this.say(&Wish::Close)?;
        }
        ready!(this.poll_output(cx))?;
        match ready!(Pin::new(&mut this.socket).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Writes what stands in the thread's room, as far as the socket takes it, keeps a copy of the rest, and gives the room back.
    fn write_room(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut room = std::mem::take(&mut self.output);
        let mut written = 0;
        let outcome = loop {
            let Some(rest) = room.get(written..).filter(|rest| !rest.is_empty()) else {
                break Ok(());
            };
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Pending => {
                    self.output = rest.to_vec();
                    break Ok(());
                }
            }
        };
        room.clear();
        ROOMS.with(|rooms| rooms.output.set(room));
        outcome
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl From<StepError> for io::Error {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Peer(error) => invalid(error),
            other => invalid(other),
        }
    }
}
