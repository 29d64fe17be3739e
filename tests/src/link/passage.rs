//! One way of one connection over a link: bytes as late, as slow and as lost as the weather has them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Shared, Way, Weather, lock};

/// One way of one connection.
pub(super) struct Passage {
    pub(super) shared: Arc<Shared>,
    pub(super) weather: Weather,
    pub(super) way: Way,
    pub(super) lost: Arc<AtomicBool>,
}

impl Passage {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Waits until so many bytes have had their time on the link.
    fn pace(&self, bytes: usize) {
        let Some(micros) = (bytes as u64 * 1_000_000).checked_div(self.weather.rate) else {
            return;
        };
        let until = {
            let mut slot = lock(&self.shared.slots[self.way as usize]);
            let begin = slot.unwrap_or_else(Instant::now).max(Instant::now());
            *slot.insert(begin + Duration::from_micros(micros))
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// Bytes that a slow link takes at a time, so that connections share it.
const SLICE: usize = 240;
/// What fits into one packet.
const SEGMENT: usize = 1400;
/// Pieces on their way: more than any delay here holds.
const ON_THE_WAY: usize = 4096;

pub(super) fn pass(mut from: TcpStream, mut to: TcpStream, passage: &Passage) {
    let Weather {
        delay,
        one_lost_in,
        rate,
    } = passage.weather;
    let size = match (rate, one_lost_in) {
        (1.., _) => SLICE,
        (0, 1..) => SEGMENT,
        (0, 0) => 64 * 1024,
    };
    if rate > 0 {
        // A modem holds little: what does not pass stays with the sender.
        rustix::net::sockopt::set_socket_recv_buffer_size(&from, 16 * 1024).ok();
    }
    let mut late = (!delay.is_zero() || one_lost_in > 0).then(|| Late::start(&to, delay, one_lost_in));
    let mut bytes = vec![0; size];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        passage.pace(count);
        if passage.is_lost() {
            continue;
        }
        let piece = bytes.get(..count).unwrap_or_default();
        let sent = match &mut late {
            Some(late) => late.send(piece),
            None => to.write_all(piece).is_ok(),
        };
        if !sent {
            break;
        }
    }
    drop(late);
    // Either side may be gone already.
    from.shutdown(Shutdown::Read).ok();
    if !passage.is_lost() {
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}

/// Pieces that arrive later than they were sent, in their order.
struct Late {
    pieces: Option<SyncSender<(Instant, Vec<u8>)>>,
    arrival: Option<JoinHandle<()>>,
    delay: Duration,
    one_lost_in: u64,
    chance: u64,
    /// No piece arrives before the one ahead of it.
    last: Instant,
}

impl Late {
    fn start(to: &TcpStream, delay: Duration, one_lost_in: u64) -> Self {
        let (pieces, arriving) = sync_channel(ON_THE_WAY);
        let to = to.try_clone();
        let arrival = std::thread::spawn(move || {
            if let Ok(to) = to {
                arrive(to, &arriving);
            }
        });
        Self {
            pieces: Some(pieces),
            arrival: Some(arrival),
            delay,
            one_lost_in,
            chance: 0x9e37_79b9_7f4a_7c15,
            last: Instant::now(),
        }
    }

    fn send(&mut self, piece: &[u8]) -> bool {
        let at = Instant::now() + self.delay + self.resent();
        self.last = self.last.max(at);
        let pieces = self.pieces.as_ref();
        pieces.is_some_and(|pieces| pieces.send((self.last, piece.to_vec())).is_ok())
    }

    /// How long TCP takes to send this piece again, and again where that is lost too.
    fn resent(&mut self) -> Duration {
        let mut wait = Duration::ZERO;
        let mut timeout = Duration::from_millis(200);
        while self.one_lost_in > 0 && self.next().is_multiple_of(self.one_lost_in) && wait < Duration::from_secs(3) {
            wait += timeout;
            timeout *= 2;
        }
        wait
    }

    /// Xorshift: the same losses in each run.
    fn next(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(arrival) = self.arrival.take() {
            drop(arrival.join());
        }
    }
}

fn arrive(mut to: TcpStream, arriving: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((at, piece)) = arriving.recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            return;
        }
    }
}
