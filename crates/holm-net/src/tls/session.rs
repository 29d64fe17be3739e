//! What rustls decides, for both roles: one step after the other until it wants input.
//!
//! ```text
//!   input (whole and half records) --> Step --> decrypted: to whoever reads
//!                  what is to be said --'  '--> encrypted: to the socket, in the order of the steps
//! ```
//!
//! rustls owns no buffer here ("unbuffered"): those that it has in its usual form stay with a connection for as long as it
//! lives, and thousands of connections are idle.

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use tokio::io::ReadBuf;

/// Either end of a connection.
pub(super) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What is to be said as soon as the handshake allows it.
pub(super) enum Wish<'w> {
    Nothing,
    /// Bytes of the application; none of them empty.
    Send(&'w [u8]),
    /// That nothing more follows.
    Close,
}

/// Where the results of steps go.
pub(super) struct Results<'r, 'b> {
    /// Whoever reads now.
    pub(super) reader: Option<&'r mut ReadBuf<'b>>,
    /// What had no room there.
    pub(super) unread: &'r mut Vec<u8>,
    /// Records for the socket are appended.
    pub(super) output: &'r mut Vec<u8>,
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more in the input.
    Again,
    /// The peer has said that nothing more follows from it.
    PeerClosed,
    /// It wants input. What was wished was not said.
    Waits,
    /// What was wished is among the output; it wants input.
    Said,
    /// Both have said that nothing more follows.
    Closed,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Peer(#[from] rustls::Error),
    #[error("the keys of the connection are used up")]
    KeysUsedUp,
    #[error("TLS asks for what was not offered: early data")]
    EarlyData,
}

impl Session {
    /// Whether data of the application can't flow in both directions yet.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(client) => client.is_handshaking(),
            Self::Server(server) => server.is_handshaking(),
        }
    }

    /// The certificates that the peer has shown, leaf first.
    pub(super) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        let certificates = match self {
            Self::Client(client) => client.peer_certificates(),
            Self::Server(server) => server.peer_certificates(),
        };
        certificates.unwrap_or_default()
    }

    /// Takes one step. The first bytes of the input, as many as are told, are done with, in error or not.
    pub(super) fn step(
        &mut self,
        input: &mut [u8],
        wish: &Wish<'_>,
        results: &mut Results<'_, '_>,
    ) -> (usize, Result<Step, StepError>) {
        match self {
            Self::Client(client) => handle(client.process_tls_records(input), wish, results),
            Self::Server(server) => handle(server.process_tls_records(input), wish, results),
        }
    }
}

fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wish: &Wish<'_>,
    results: &mut Results<'_, '_>,
) -> (usize, Result<Step, StepError>) {
    let mut done = status.discard;
    let step = match status.state {
        Err(error) => Err(error.into()),
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    done += record.discard;
                    results.give(record.payload);
                }
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut record)) => append(results.output, 0, |room| match record.encode(room) {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(EncodeError::InsufficientSize(size)) => Err(size),
            Err(EncodeError::AlreadyEncoded) => Ok(Ok(0)),
        })
        .map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            // It will be: everything leaves in the order of the output.
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match wish {
            Wish::Nothing => Ok(Step::Waits),
            Wish::Send(data) => append(results.output, data.len() + RECORD_OVERHEAD, |room| {
                encrypted(traffic.encrypt(data, room))
            })
            .map(|()| Step::Said),
            Wish::Close => append(results.output, RECORD_OVERHEAD, |room| {
                encrypted(traffic.queue_close_notify(room))
            })
            .map(|()| Step::Said),
        },
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Waits),
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::Closed) => Ok(Step::Closed),
        Ok(_) => Err(StepError::EarlyData),
    };
    (done, step)
}

/// What one record adds at most to its bytes: header, explicit nonce and tag of TLS 1.2, with some to spare. For several
/// records rustls says by itself what it needs.
const RECORD_OVERHEAD: usize = 64;

/// Appends what `write` writes, in a second try if it wanted more room.
fn append(
    output: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, StepError>, InsufficientSizeError>,
) -> Result<(), StepError> {
    let start = output.len();
    loop {
        output.resize(start + room, 0);
        match write(output.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                output.truncate(start + *written.as_ref().unwrap_or(&0));
                return written.map(drop);
            }
            Err(size) => room = size.required_size.max(room + 1),
        }
    }
}

fn encrypted(outcome: Result<usize, EncryptError>) -> Result<Result<usize, StepError>, InsufficientSizeError> {
    match outcome {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(EncryptError::InsufficientSize(size)) => Err(size),
        Err(EncryptError::EncryptExhausted) => Ok(Err(StepError::KeysUsedUp)),
    }
}

impl Results<'_, '_> {
    /// Gives decrypted bytes to the reader as far as it has room, and keeps the rest.
    fn give(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Some(reader) = self.reader.as_mut().filter(|_| self.unread.is_empty()) {
            let (now, later) = bytes.split_at(bytes.len().min(reader.remaining()));
            reader.put_slice(now);
            rest = later;
        }
        self.unread.extend_from_slice(rest);
    }
}
