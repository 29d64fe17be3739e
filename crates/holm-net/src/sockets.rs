//! Listening sockets that outlive the process that opened them.
//!
//! ```text
//!   process 1   tcp(address), unix(path)   opens, and keeps a second descriptor of each
//!               hand_on()              --> descriptors, for whoever comes next
//!   process 2   inherited(descriptors)     holds them
//!               tcp(address), unix(path)   finds the one with that address, or opens
//!               close_unused()             lets go of those that nobody asked for
//! ```
//!
//! A socket that stays open refuses nobody: connections that come while no process accepts wait in its queue. So the gap
//! between two processes costs a client some time and no error.
//!
//! Sockets are told apart by their address alone. The second process may have other settings than the first: what it does not
//! want is closed, what is new is opened, and no list of names has to agree.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// Connections that may wait to be accepted; the system caps it at `net.core.somaxconn`, usually 4,096. Further ones are not
/// refused: the client's system tries again after a second.
const BACKLOG: i32 = 4096;

/// The listening sockets of a process. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct ListeningSockets(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// From the process before, and not asked for yet.
    inherited: Vec<Socket>,
    /// A second descriptor of each that is in use here.
    open: Vec<Socket>,
    /// Whether another process goes on with them.
    handed_on: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl ListeningSockets {
    /// Those of the process before. What is not a listening socket of TCP, or one with a path, is closed.
    #[must_use]
    pub fn inherited(descriptors: Vec<OwnedFd>) -> Self {
        let inherited = descriptors.into_iter().filter_map(Socket::of).collect();
        let held = Held {
            inherited,
            ..Held::default()
        };
        Self(Arc::new(Mutex::new(held)))
    }

    /// A socket that listens on an address: the one that is open here, the inherited one, or a new one. Port 0 is always a
    /// new one.
    ///
    /// # Errors
    /// The address is in use, is not of this machine, or needs more rights.
    pub fn tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut held = self.lock();
        if let Some(listener) = held.open.iter().find_map(|socket| socket.on(&address)) {
            return listener.try_clone();
        }
        let listener = match held.take(|socket| socket.on(&address).is_some()) {
            Some(Socket::Tcp(listener, _)) => listener,
            _ => {
                // One of the process before that has the port on other addresses is in the way.
                held.inherited.retain(|socket| !socket.is_in_the_way_of(&address));
                let listener = TcpListener::bind(address)?;
                rustix::net::listen(&listener, BACKLOG)?;
                listener
            }
        };
        let bound = listener.local_addr()?;
        held.open.push(Socket::Tcp(listener.try_clone()?, bound));
        Ok(listener)
    }

    /// A socket that listens at a path: the inherited one if its file is still there, or a new one in its place.
    ///
    /// # Errors
    /// Another process answers there, or the file system refuses.
    pub fn unix(&self, path: &Path) -> io::Result<UnixListener> {
        let mut held = self.lock();
        let before = held.open.len();
        held.open.retain(|socket| !socket.is_at(path));
        let was_own = held.open.len() < before;
        let found = held.take(|socket| socket.is_at(path));
        let listener = match found {
            Some(Socket::Unix(listener, _)) if fs::symlink_metadata(path).is_ok() => listener,
            found => {
                // A file whose process has gone refuses at once.
                if found.is_none() && !was_own && UnixStream::connect(path).is_ok() {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another process answers there; end it, or give this one another path",
                    ));
                }
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                UnixListener::bind(path)?
            }
        };
        held.open.push(Socket::Unix(listener.try_clone()?, path.to_owned()));
        Ok(listener)
    }

    /// Closes the socket at a path for good, and removes its file; nothing if another process goes on with it.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn close_unix(&self, path: &Path) -> io::Result<()> {
        let mut held = self.lock();
        if held.handed_on {
            return Ok(());
        }
        held.open.retain(|socket| !socket.is_at(path));
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes what was inherited and nobody has asked for; says how many that were.
    pub fn close_unused(&self) -> usize {
        std::mem::take(&mut self.lock().inherited).len()
    }

    /// Says that another process will go on with them: from now on files of sockets stay.
    pub fn keep(&self) {
        self.lock().handed_on = true;
    }

    /// All of them, for the process that comes next; those that were inherited and not asked for yet, too.
    #[must_use]
    pub fn hand_on(&self) -> Vec<OwnedFd> {
        let mut held = self.lock();
        held.handed_on = true;
        let Held { inherited, open, .. } = &mut *held;
        open.drain(..)
            .chain(inherited.drain(..))
            .map(Socket::into_descriptor)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Held for a few system calls that do not wait; each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn take(&mut self, wanted: impl Fn(&Socket) -> bool) -> Option<Socket> {
        let index = self.inherited.iter().position(wanted)?;
        Some(self.inherited.swap_remove(index))
    }
}

impl Socket {
    fn of(descriptor: OwnedFd) -> Option<Self> {
        let listens = sockopt::socket_acceptconn(&descriptor).unwrap_or(false)
            && sockopt::socket_type(&descriptor) == Ok(SocketType::STREAM);
        match sockopt::socket_domain(&descriptor) {
            Ok(AddressFamily::INET | AddressFamily::INET6) if listens => {
                let listener = TcpListener::from(descriptor);
                let address = listener.local_addr().ok()?;
                Some(Self::Tcp(listener, address))
            }
            Ok(AddressFamily::UNIX) if listens => {
                let listener = UnixListener::from(descriptor);
                let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
                Some(Self::Unix(listener, path))
            }
            _ => None,
        }
    }

    fn on(&self, address: &SocketAddr) -> Option<&TcpListener> {
        match self {
            Self::Tcp(listener, bound) if bound == address => Some(listener),
            _ => None,
        }
    }

    /// Whether it has the port of an address, on that or on all addresses.
    fn is_in_the_way_of(&self, address: &SocketAddr) -> bool {
        let Self::Tcp(_, bound) = self else { return false };
        let (one, other) = (bound.ip(), address.ip());
        bound.port() == address.port() && (one == other || one.is_unspecified() || other.is_unspecified())
    }

    fn is_at(&self, path: &Path) -> bool {
        matches!(self, Self::Unix(_, bound) if bound == path)
    }

    fn into_descriptor(self) -> OwnedFd {
        match self {
            Self::Tcp(listener, _) => listener.into(),
            Self::Unix(listener, _) => listener.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    fn free() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_connection_made_between_two_processes_is_accepted_by_the_second() {
        let first = ListeningSockets::default();
        let listener = first.tcp(free()).unwrap();
        let address = listener.local_addr().unwrap();
        let handed_on = first.hand_on();
        drop((listener, first));

        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"early").unwrap();
        let second = ListeningSockets::inherited(handed_on);
        let (mut accepted, _) = second.tcp(address).unwrap().accept().unwrap();

        let mut said = [0; 5];
        accepted.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"early");
        assert_eq!(second.close_unused(), 0);
    }

    #[test]
    fn a_socket_with_a_path_goes_on_and_its_file_stays_only_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = ListeningSockets::default();
        let listener = first.unix(&path).unwrap();
        first.keep();
        first.close_unix(&path).unwrap();
        let handed_on = first.hand_on();
        drop((listener, first));

        let _waits = UnixStream::connect(&path).unwrap();
        let second = ListeningSockets::inherited(handed_on);
        second.unix(&path).unwrap().accept().unwrap();

        second.close_unix(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_path_where_another_process_answers_is_refused_and_one_that_it_has_left_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let other = UnixListener::bind(&path).unwrap();

        let refused = ListeningSockets::default().unix(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(other);

        ListeningSockets::default().unix(&path).unwrap();
    }

    #[test]
    fn a_path_whose_file_is_gone_is_listened_on_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = ListeningSockets::default();
        drop(first.unix(&path).unwrap());
        let second = ListeningSockets::inherited(first.hand_on());

        fs::remove_file(&path).unwrap();
        let listener = second.unix(&path).unwrap();

        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn an_inherited_socket_that_is_in_the_way_of_a_new_address_is_closed() {
        let first = ListeningSockets::default();
        let everywhere = first.tcp("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let handed_on = first.hand_on();
        drop((everywhere, first));
        let second = ListeningSockets::inherited(handed_on);

        let narrow = second.tcp(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();

        let _client = TcpStream::connect(narrow.local_addr().unwrap()).unwrap();
        narrow.accept().unwrap();
    }

    #[test]
    fn an_address_asked_for_again_gives_the_same_socket() {
        let sockets = ListeningSockets::default();
        let address = sockets.tcp(free()).unwrap().local_addr().unwrap();

        let again = sockets.tcp(address).unwrap();

        let _client = TcpStream::connect(address).unwrap();
        again.accept().unwrap();
        assert_eq!(sockets.hand_on().len(), 1);
    }

    #[test]
    fn what_nobody_asks_for_is_closed_and_what_does_not_listen_is_not_taken() {
        let first = ListeningSockets::default();
        let listener = first.tcp(free()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        drop(listener);
        let mut handed_on = first.hand_on();
        handed_on.push(client.into());

        let second = ListeningSockets::inherited(handed_on);

        assert_eq!(second.close_unused(), 1);
        assert!(TcpStream::connect(address).is_err());
    }
}
