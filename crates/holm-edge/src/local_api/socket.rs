//! Unix sockets that HTTP is served on: made with their mode, replaced when an earlier process left one behind, with the
//! calling process known.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use holm_net::http::{Handler, serve_connection};
use holm_net::{ListeningSockets, Peer, Scope, UnixPeer};
use tokio::net::{UnixListener, UnixStream};

/// The longest path of a socket, in bytes (`sun_path` without its final zero).
pub const MAX_PATH: usize = 107;

/// Why a socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit.
    #[error(
        "the path `{path}` has {length} bytes; a socket's path has at most {MAX_PATH}: choose a shorter data directory"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The file system refused.
    #[error("can't {operation} `{path}`")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// How many connections each user may have at once; more are closed without an answer, as published.
#[derive(Clone, Debug)]
pub struct Admission {
    most: usize,
    open: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Admission {
    /// At most this many a user.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    fn enter(&self, uid: u32) -> Option<Admitted> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(uid).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Admitted {
            admission: self.clone(),
            uid,
        })
    }
}

struct Admitted {
    admission: Admission,
    uid: u32,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

/// A socket that is listened on.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    sockets: ListeningSockets,
    path: PathBuf,
}

impl Socket {
    /// Makes a socket at a path, with a mode. One that an earlier process has handed on goes on; one that it left there dead
    /// is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(sockets: &ListeningSockets, path: &Path, mode: u32) -> Result<Self, SocketError> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(SocketError::TooLong {
                path: path.to_owned(),
                length,
            });
        }
        let failed = |operation| {
            move |source| SocketError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let listener = sockets.unix(path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        let listener = listener.map_err(failed("listen on"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
        Ok(Self {
            listener,
            sockets: sockets.clone(),
            path: path.to_owned(),
        })
    }

    /// Serves until the scope stops, and removes the socket then, unless another process goes on with it.
    pub async fn serve<H: Handler>(self, scope: Scope, admission: Admission, handler: Arc<H>) {
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(path = %self.path.display(), %error, "a connection could not be accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = scope.stopping() => break,
            };
            let Some((peer, admitted)) = identify(&stream, &admission) else {
                continue;
            };
            let (connections, handler) = (scope.clone(), Arc::clone(&handler));
            scope.spawn(async move {
                let _admitted = admitted;
                serve_connection(connections, stream, peer, handler).await;
            });
        }
        if let Err(error) = self.sockets.close_unix(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a socket could not be removed");
        }
    }
}

fn identify(stream: &UnixStream, admission: &Admission) -> Option<(Peer, Admitted)> {
    let credentials = match stream.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::warn!(%error, "a caller could not be identified");
            return None;
        }
    };
    let uid = credentials.uid();
    let Some(admitted) = admission.enter(uid) else {
        tracing::warn!("max simultaneous connections reached for user {uid}");
        return None;
    };
    let unix = UnixPeer {
        uid,
        pid: credentials.pid(),
    };
    Some((
        Peer {
            unix: Some(unix),
            ..Peer::default()
        },
        admitted,
    ))
}
