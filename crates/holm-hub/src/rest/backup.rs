//! A backup of the hub: an interface of our own.
//!
//! ```text
//! GET /holm/v1/backup      200, the archive of docs/formats/backup.md, as it is made; 409 while another one is made
//! ```
//!
//! It holds every key that the hub has, so all rights are asked for. `Content-Length` tells how long it will be; where it can't be
//! written to its end the connection breaks, so that nobody takes a part for the whole.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use holm_model::ServiceError;
use holm_net::http::body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::answer::{Answer, Failure};
use super::{Call, RestApi, not_allowed};
use crate::backup::{BackupError, Making};
use crate::storage::SnapshotError;

/// Bytes that are handed on at a time.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for the receiver.
const WAITING: usize = 4;
/// How long a receiver may take for a piece. Files are held for it.
const PATIENCE: Duration = Duration::from_secs(60);

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let text = error.to_string();
        match error {
            BackupError::Busy => Self::with_status(StatusCode::CONFLICT, text),
            BackupError::NoRoom { .. } => Self::with_status(StatusCode::INSUFFICIENT_STORAGE, text),
            BackupError::Snapshot(SnapshotError::DiskFull(_)) => {
                Self::with_status(StatusCode::INSUFFICIENT_STORAGE, holm_net::error_chain(&error))
            }
            BackupError::State(error) => error.into(),
            other => {
                tracing::error!(error = %holm_net::error_chain(&other), "a backup can't be made");
                ServiceError::unavailable("a backup can't be made now; the hub's log tells why").into()
            }
        }
    }
}

impl RestApi {
    pub(super) async fn backup(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let Some(backups) = &self.backups else {
            return Err(ServiceError::unavailable("the hub is starting; try again").into());
        };
        let making = backups.begin().await?;
        let length = making.length();
        tracing::info!(bytes = length, "a backup is being sent");
        let (pieces, streamed) = mpsc::channel(WAITING);
        let sending = tokio::task::spawn_blocking(move || send(&making, pieces));
        // When the hub stops the connection ends, and with it the thread.
        self.streams.spawn_until_stopped(async move {
            if let Err(error) = sending.await {
                tracing::error!(%error, "a backup was not sent");
            }
        });
        let mut response = Response::new(body::streamed(streamed));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        Ok(response)
    }
}

fn send(making: &Making, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let receiver = Receiver {
        pieces: pieces.clone(),
        runtime: Handle::current(),
    };
    let mut buffered = io::BufWriter::with_capacity(PIECE, receiver);
    let written = making.write(&mut |bytes| buffered.write_all(bytes));
    let why = match written {
        Ok(()) => buffered.flush().err().map(|error| error.to_string()),
        Err(error) => Some(holm_net::error_chain(&error)),
    };
    match why {
        None => tracing::info!("a backup was sent"),
        Some(why) => {
            tracing::warn!(error = why, "a backup was not sent to its end");
            // What waits in the buffer is of no use; the receiver may have gone.
            drop(buffered.into_parts());
            drop(pieces.blocking_send(Err(io::Error::other("the backup was not made to its end"))));
        }
    }
}

/// The one who asked, as a file is written to.
struct Receiver {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Write for Receiver {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.pieces.send(Ok(Bytes::copy_from_slice(bytes)));
        let sent = self.runtime.block_on(tokio::time::timeout(PATIENCE, sent));
        match sent {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "its receiver has gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "its receiver takes too long")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
