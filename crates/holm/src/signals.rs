//! What the operating system tells a service: stop (SIGTERM, SIGINT), reload (SIGHUP), make room for the program that is in
//! this one's place now (SIGUSR2).

use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of a service.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    second_user: Signal,
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// End, in good order.
    Stop,
    /// Read certificates anew.
    Reload,
    /// Go on as the program that the file holds now.
    Upgrade,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals can't be received");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            second_user: listen(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Reload,
            _ = self.second_user.recv() => Told::Upgrade,
        }
    }
}

/// Tells a supervisor such as systemd (`Type=notify`) that the service is ready, or is stopping, if one listens.
pub(crate) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| {
        let name = path.as_encoded_bytes();
        match name.strip_prefix(b"@") {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(state.as_bytes(), &address)
            }
            None => socket.send_to(state.as_bytes(), Path::new(&path)),
        }
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager could not be told `{state}`");
    }
}
