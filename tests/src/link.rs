//! A link that a test can cut, slow down and let lose bytes: a relay of TCP connections with an address of its own.
//!
//! ```text
//! edge ──► link (127.A.B.C:8883, :443) ──► hub          open: bytes pass, as the weather allows
//! edge ──► link ✕                          hub          cut: what was open ends, what comes is closed at once
//! edge ──► link ~~~                        hub          lost: bytes of what is open vanish, and so does its end
//! ```
//!
//! A hub behind a link has the link's address as its host name, so no client knows of the relay. What a relay can't show is
//! the loss of packets itself; it shows what TCP makes of it: the bytes come late, all behind them too, none is missing.

mod passage;

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::address::Address;
use passage::{Passage, pass};

/// A link; it ends with this value.
#[derive(Debug)]
pub struct Link {
    address: Address,
    shared: Arc<Shared>,
    /// They hold the ports: the address is free for another when they have ended.
    relays: Vec<JoinHandle<()>>,
}

/// How bytes pass, on connections that are made from now on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How long a byte takes, each way.
    pub delay: Duration,
    /// Of how many segments of 1,400 bytes one is lost and sent again by TCP, after 200 ms and longer; 0: none.
    pub one_lost_in: u64,
    /// Bytes a second, each way, for all connections together; 0: no limit.
    pub rate: u64,
}

/// A way over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The ports of the connections that were tried.
    attempts: Mutex<Vec<u16>>,
    /// When the next byte may pass, by way.
    slots: [Mutex<Option<Instant>>; 2],
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    ended: bool,
    weather: Weather,
    /// What passes now.
    open: Vec<Passing>,
}

/// A connection.
#[derive(Debug)]
struct Passing {
    ends: [TcpStream; 2],
    /// By way.
    lost: [Arc<AtomicBool>; 2],
}

impl Link {
    /// Opens a link to these ports of a server, which need not be there yet.
    ///
    /// # Panics
    /// When the ports can't be had.
    #[must_use]
    #[track_caller]
    pub fn open(server: Ipv4Addr, ports: &[u16]) -> Self {
        let address = Address::take();
        let shared = Arc::new(Shared::default());
        let relays = ports.iter().map(|&port| {
            let ip = address.ip();
            let listener = TcpListener::bind((ip, port)).unwrap_or_else(|error| panic!("{ip}:{port}: {error}"));
            listener.set_nonblocking(true).expect("a listener can be asked");
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || relay(&listener, SocketAddr::from((server, port)), &shared))
        });
        Self {
            relays: relays.collect(),
            address,
            shared,
        }
    }

    /// The address at its near end.
    #[must_use]
    pub const fn ip(&self) -> Ipv4Addr {
        self.address.ip()
    }

    /// Cuts the link.
    pub fn cut(&self) {
        let mut state = lock(&self.shared.state);
        state.cut = true;
        close(&mut state);
    }

    /// Mends the link.
    pub fn restore(&self) {
        lock(&self.shared.state).cut = false;
    }

    /// Sets how bytes pass on connections that are made from now on.
    pub fn set_weather(&self, weather: Weather) {
        lock(&self.shared.state).weather = weather;
    }

    /// Lets the bytes of all connections that are open now vanish, for ever, and the end of the connection too: as when a router
    /// has forgotten them, or a device was switched off. New connections pass.
    pub fn lose(&self, ways: &[Way]) {
        for passing in lock(&self.shared.state).open.drain(..) {
            for &way in ways {
                passing.lost[way as usize].store(true, Ordering::SeqCst);
            }
        }
    }

    /// How many connections were tried, to all ports.
    #[must_use]
    pub fn attempts(&self) -> usize {
        lock(&self.shared.attempts).len()
    }

    /// How many connections were tried to a port.
    #[must_use]
    pub fn attempts_to(&self, port: u16) -> usize {
        lock(&self.shared.attempts)
            .iter()
            .filter(|tried| **tried == port)
            .count()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.ended = true;
        close(&mut state);
        drop(state);
        for relay in self.relays.drain(..) {
            // One that panicked has let go of its port, too.
            drop(relay.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(state: &mut State) {
    for stream in state.open.drain(..).flat_map(|passing| passing.ends) {
        // It may have ended by itself.
        stream.shutdown(Shutdown::Both).ok();
    }
}

fn relay(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    while !lock(&shared.state).ended {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        lock(&shared.attempts).push(server.port());
        client.set_nonblocking(false).ok();
        // Before the far end can see the connection: whoever cuts or loses it when it has come, does so.
        let mut state = lock(&shared.state);
        if state.cut || state.ended {
            continue;
        }
        let Ok(far) = TcpStream::connect_timeout(&server, Duration::from_secs(2)) else {
            continue;
        };
        let (Ok(near_again), Ok(far_again)) = (client.try_clone(), far.try_clone()) else {
            continue;
        };
        let (Ok(near_end), Ok(far_end)) = (client.try_clone(), far.try_clone()) else {
            continue;
        };
        for stream in [&client, &far] {
            stream.set_nodelay(true).ok();
        }
        let lost = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let weather = state.weather;
        for (way, from, to) in [(Way::Up, client, far), (Way::Down, far_again, near_again)] {
            let (shared, lost) = (Arc::clone(shared), Arc::clone(&lost[way as usize]));
            std::thread::spawn(move || {
                pass(
                    from,
                    to,
                    &Passage {
                        shared,
                        weather,
                        way,
                        lost,
                    },
                )
            });
        }
        state.open.push(Passing {
            ends: [near_end, far_end],
            lost,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_cut_link_ends_what_is_open_and_a_mended_one_passes_again() {
        let address = Address::take();
        let server = TcpListener::bind((address.ip(), 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let link = Link::open(address.ip(), &[port]);
        let echo = || {
            let mut client = TcpStream::connect((link.ip(), port)).unwrap();
            let (mut far, _) = server.accept().unwrap();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            far.read_exact(&mut byte).unwrap();
            (client, byte)
        };

        let (mut client, byte) = echo();
        link.cut();
        let ended = client.read(&mut [0]);
        link.restore();
        let (_again, second) = echo();

        assert_eq!((byte, second), (*b"x", *b"x"));
        assert_eq!(ended.unwrap_or(0), 0);
    }

    /// A server, a link to it, and a connection over the link.
    fn connected(weather: Weather) -> (Address, Link, TcpStream, TcpStream) {
        let address = Address::take();
        let server = TcpListener::bind((address.ip(), 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let link = Link::open(address.ip(), &[port]);
        link.set_weather(weather);
        let near = TcpStream::connect((link.ip(), port)).unwrap();
        let (far, _) = server.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        (address, link, near, far)
    }

    #[test]
    fn lost_bytes_vanish_one_way_and_the_end_with_them() {
        let (_address, link, mut near, mut far) = connected(Weather::default());
        far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();

        link.lose(&[Way::Up]);
        near.write_all(b"up").unwrap();
        far.write_all(b"down").unwrap();

        let mut down = [0; 4];
        near.read_exact(&mut down).unwrap();
        assert_eq!(&down, b"down");
        drop(near);
        let nothing = far.read(&mut [0; 4]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn bytes_take_their_time_and_none_is_missing() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for (weather, least) in [
            (
                Weather {
                    delay: Duration::from_millis(300),
                    ..Weather::default()
                },
                Duration::from_millis(300),
            ),
            (
                Weather {
                    one_lost_in: 8,
                    ..Weather::default()
                },
                Duration::from_millis(200),
            ),
            (
                Weather {
                    rate: 80_000,
                    ..Weather::default()
                },
                Duration::from_millis(400),
            ),
        ] {
            let (_address, link, mut near, mut far) = connected(weather);
            let began = Instant::now();
            let sent = bytes.clone();
            let sending = std::thread::spawn(move || near.write_all(&sent).map(|()| near));

            let mut came = vec![0; bytes.len()];
            far.read_exact(&mut came).unwrap();

            assert!(came == bytes && began.elapsed() >= least, "{weather:?}");
            drop(sending.join());
            assert_eq!(link.attempts(), 1);
        }
    }
}
