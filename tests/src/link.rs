//! A link that a test can cut: a relay of TCP connections with an address of its own.
//!
//! ```text
//! edge ──► link (127.A.B.C:8883, :443) ──► hub          open: bytes pass
//! edge ──► link ✕                          hub          cut: what was open ends, what comes is closed at once
//! ```
//!
//! A hub behind a link has the link's address as its host name, so no client knows of the relay.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::address::Address;

/// A link; it ends with this value.
#[derive(Debug)]
pub struct Link {
    address: Address,
    state: Arc<Mutex<State>>,
    /// They hold the ports: the address is free for another when they have ended.
    relays: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    ended: bool,
    /// Both ends of what passes now.
    open: Vec<TcpStream>,
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
        let state = Arc::new(Mutex::new(State::default()));
        let relays = ports.iter().map(|&port| {
            let ip = address.ip();
            let listener = TcpListener::bind((ip, port)).unwrap_or_else(|error| panic!("{ip}:{port}: {error}"));
            listener.set_nonblocking(true).expect("a listener can be asked");
            let state = Arc::clone(&state);
            std::thread::spawn(move || relay(&listener, SocketAddr::from((server, port)), &state))
        });
        Self {
            relays: relays.collect(),
            address,
            state,
        }
    }

    /// The address at its near end.
    #[must_use]
    pub const fn ip(&self) -> Ipv4Addr {
        self.address.ip()
    }

    /// Cuts the link.
    pub fn cut(&self) {
        let mut state = lock(&self.state);
        state.cut = true;
        close(&mut state);
    }

    /// Mends the link.
    pub fn restore(&self) {
        lock(&self.state).cut = false;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.ended = true;
        close(&mut state);
        drop(state);
        for relay in self.relays.drain(..) {
            // One that panicked has let go of its port, too.
            drop(relay.join());
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(state: &mut State) {
    for stream in state.open.drain(..) {
        // It may have ended by itself.
        stream.shutdown(Shutdown::Both).ok();
    }
}

fn relay(listener: &TcpListener, server: SocketAddr, state: &Arc<Mutex<State>>) {
    while !lock(state).ended {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        client.set_nonblocking(false).ok();
        let Ok(far) = TcpStream::connect_timeout(&server, Duration::from_secs(2)) else {
            continue;
        };
        let mut state = lock(state);
        if state.cut || state.ended {
            continue;
        }
        let (Ok(near_again), Ok(far_again)) = (client.try_clone(), far.try_clone()) else {
            continue;
        };
        for stream in [&client, &far] {
            stream.set_nodelay(true).ok();
            state.open.extend(stream.try_clone());
        }
        std::thread::spawn(move || pass(client, far));
        std::thread::spawn(move || pass(far_again, near_again));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(bytes.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

#[cfg(test)]
mod tests {
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
}
