//! When the head of a request began to arrive, and how it spells its names. hyper has one deadline for a head and for the pause
//! before it; a client that rests between two requests may take its time, one that sends half a head may not.
//!
//! ```text
//!   Idle --first byte--> Arriving(since) --head is complete--> Answering --answer is made--> Idle
//! ```
//!
//! What arrives while a request is answered (its body, or the next head) does not count: bodies have a deadline of their own,
//! and the next head is read when the answer has left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::server::HEAD_DEADLINE;
use super::spelling::{Names, Spelling};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// Nothing of it has come.
    Idle,
    /// Its first byte came then.
    Arriving(Instant),
    /// It is there, and its request is answered.
    Answering,
}

/// The heads of one connection. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Heads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    head: watch::Sender<Head>,
    names: Names,
}

impl Default for Heads {
    fn default() -> Self {
        Self(Arc::new(Shared {
            head: watch::Sender::new(Head::Idle),
            names: Names::default(),
        }))
    }
}

impl Heads {
    fn heard(&self, bytes: &[u8]) {
        if *self.0.head.borrow() == Head::Answering {
            return;
        }
        self.0.names.read(bytes);
        self.0.head.send_if_modified(|head| {
            let is_first = *head == Head::Idle;
            if is_first {
                *head = Head::Arriving(Instant::now());
            }
            is_first
        });
    }

    /// A head is complete; gives how its names are written.
    pub(super) fn complete(&self) -> Spelling {
        self.0.head.send_replace(Head::Answering);
        self.0.names.take()
    }

    /// Its request is answered. Not to be called where the connection speaks something else from now on.
    pub(super) fn answered(&self) {
        self.0.head.send_replace(Head::Idle);
    }

    /// Waits until a head has taken too long.
    pub(super) async fn overdue(&self) {
        let mut heads = self.0.head.subscribe();
        loop {
            let head = *heads.borrow_and_update();
            let late = async {
                match head {
                    Head::Arriving(since) => tokio::time::sleep_until(since + HEAD_DEADLINE).await,
                    Head::Idle | Head::Answering => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return,
                changed = heads.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
            }
        }
    }
}

/// A stream that notes when something arrives.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) heads: Heads,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match buffer.filled().get(before..) {
            None | Some([]) => {}
            Some(bytes) => self.heads.heard(bytes),
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_overdue_and_a_pause_between_requests_is_not() {
        let heads = Heads::default();

        tokio::select! {
            () = heads.overdue() => panic!("nothing has arrived"),
            () = tokio::time::sleep(HEAD_DEADLINE * 3) => {}
        }
        heads.heard(b"GE");
        tokio::time::sleep(HEAD_DEADLINE / 2).await;
        // More of it buys no more time.
        heads.heard(b"T");
        let began = Instant::now();
        heads.overdue().await;

        assert!(began.elapsed() <= HEAD_DEADLINE / 2 + std::time::Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_be_answered_for_as_long_as_it_takes() {
        let heads = Heads::default();
        heads.heard(b"GET / HTTP/1.1\r\n\r\n");
        heads.complete();

        tokio::select! {
            () = heads.overdue() => panic!("its head is complete"),
            () = tokio::time::sleep(HEAD_DEADLINE * 3) => {}
        }
        heads.answered();
        tokio::select! {
            () = heads.overdue() => panic!("nothing more has arrived"),
            () = tokio::time::sleep(HEAD_DEADLINE * 3) => {}
        }
    }
}
