//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The address, on TCP.
    pub address: Option<SocketAddr>,
    /// The certificates shown in the TLS handshake, leaf first. The handshake proved the leaf's key; nothing else is
    /// checked yet.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The process at the other end of a unix socket.
    pub unix: Option<UnixPeer>,
}

/// The process at the other end of a unix socket, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its user.
    pub uid: u32,
    /// Its process id, if it is in our process namespace.
    pub pid: Option<i32>,
}
