//! A network in memory: hosts listen, others dial them, and the line in between fails as told.
//!
//! ```text
//!   dial("hub.sim", 8883) ── near end ──> courier ──> far end ── listener
//!                                            │ up, slow, half open, cut: the state of the line of the dialling site
//! ```
//!
//! - *cut*: connections break at once, and none can be made.
//! - *half open*: bytes vanish on the way and connections stay, for good: both ends must find out by themselves.
//! - *slow*: each piece takes a delay, and the time that its bytes need.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_net::dial::Dialing;
use holm_net::{Dial, Dialer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is on its way on one end of a connection.
const BUFFER: usize = 64 * 1024;
/// What a courier takes at a time.
const PIECE: usize = 4096;
/// How long a host that nobody answers for is tried.
const NO_ANSWER: Duration = Duration::from_secs(120);

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Good.
    Up,
    /// Each piece takes this long, and its bytes take their time at so many bits a second.
    Slow {
        /// How much later a piece arrives.
        delay: Duration,
        /// How fast its bytes go.
        bits_per_second: u32,
    },
    /// Bytes vanish.
    HalfOpen,
    /// There is none.
    Cut,
}

type Accept = Arc<dyn Fn(DuplexStream) + Send + Sync>;

/// A host that listens.
struct Host {
    accept: Accept,
    /// Ends its connections.
    alive: CancellationToken,
}

/// The network. Clones are the same.
#[derive(Clone, Default)]
pub struct Network {
    hosts: Arc<Mutex<HashMap<(String, u16), Host>>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    fn hosts(&self) -> MutexGuard<'_, HashMap<(String, u16), Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens: `accept` takes each stream that somebody opens.
    pub fn listen(&self, host: &str, port: u16, accept: impl Fn(DuplexStream) + Send + Sync + 'static) {
        let host_entry = Host {
            accept: Arc::new(accept),
            alive: CancellationToken::new(),
        };
        self.hosts().insert((host.to_owned(), port), host_entry);
    }

    /// Takes a host off the network: its connections break, and nobody listens there.
    pub fn take_off(&self, host: &str) {
        self.hosts().retain(|(name, _), entry| {
            let is_it = name == host;
            if is_it {
                entry.alive.cancel();
            }
            !is_it
        });
    }

    /// A site on the network, with a line of its own.
    #[must_use]
    pub fn site(&self) -> Site {
        Site {
            network: self.clone(),
            line: watch::Sender::new(Line::Up),
            alive: Arc::new(Mutex::new(CancellationToken::new())),
        }
    }
}

/// Somebody who dials. Clones are the same.
#[derive(Clone, Debug)]
pub struct Site {
    network: Network,
    line: watch::Sender<Line>,
    alive: Arc<Mutex<CancellationToken>>,
}

impl Site {
    /// Changes the line.
    pub fn set_line(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// How the line is.
    #[must_use]
    pub fn line(&self) -> Line {
        *self.line.borrow()
    }

    /// Breaks all connections from here: whoever made them is dead.
    pub fn die(&self) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *alive).cancel();
    }

    /// As parts of Holm take it.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.clone())
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        match self.line() {
            Line::Cut => return Err(io::ErrorKind::NetworkUnreachable.into()),
            Line::HalfOpen => {
                tokio::time::sleep(NO_ANSWER).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            Line::Slow { delay, .. } => tokio::time::sleep(2 * delay).await,
            Line::Up => {}
        }
        let own = self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (near, courier_near) = tokio::io::duplex(BUFFER);
        let (courier_far, far) = tokio::io::duplex(BUFFER);
        let (accept, theirs) = {
            let hosts = self.network.hosts();
            let entry = hosts.get(&(host.to_owned(), port));
            let entry = entry.ok_or(io::ErrorKind::ConnectionRefused)?;
            (Arc::clone(&entry.accept), entry.alive.clone())
        };
        let courier = Courier {
            line: self.line.subscribe(),
            ends: [own, theirs],
        };
        tokio::spawn(courier.carry(courier_near, courier_far));
        accept(far);
        Ok(near)
    }
}

impl Dial for Site {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            let stream = self.connect(host, port).await?;
            Ok(Box::new(stream) as _)
        })
    }
}

/// Carries the bytes of one connection.
struct Courier {
    line: watch::Receiver<Line>,
    ends: [CancellationToken; 2],
}

impl Courier {
    async fn carry(self, near: DuplexStream, far: DuplexStream) {
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        let mut line = self.line.clone();
        let [own, theirs] = self.ends;
        tokio::select! {
            // When one side has said all, the other still may: both ways end by themselves.
            _ = async { tokio::join!(
                one_way(near_read, far_write, self.line.clone()),
                one_way(far_read, near_write, self.line.clone()),
            ) } => {}
            _ = line.wait_for(|line| *line == Line::Cut) => {}
            () = own.cancelled() => {}
            () = theirs.cancelled() => {}
        }
    }
}

async fn one_way(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, line: watch::Receiver<Line>) {
    let mut piece = [0; PIECE];
    loop {
        let Ok(count @ 1..) = from.read(&mut piece).await else {
            // The other side may be gone already.
            to.shutdown().await.ok();
            return;
        };
        let state = *line.borrow();
        match state {
            Line::Up | Line::Cut => {}
            Line::Slow { delay, bits_per_second } => {
                let bits = u32::try_from(count * 8).unwrap_or(u32::MAX);
                let time = Duration::from_secs(1) * bits / bits_per_second.max(1);
                tokio::time::sleep(delay + time).await;
            }
            // For good, and without an end that the peer would see.
            Line::HalfOpen => std::future::pending().await,
        }
        if to.write_all(piece.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
