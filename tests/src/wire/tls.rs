//! A TLS connection that trusts one CA.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificate::Certificate;
use crate::patience;

/// A TLS stream over TCP; reads and writes end with an error after [`patience::short`].
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Where a server is, and which name its certificate must have.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The address to connect to.
    pub ip: IpAddr,
    /// The name, which in these tests is an address too.
    pub name: IpAddr,
}

/// Connects, trusting the CA in a PEM file, showing a client certificate if one is given.
///
/// # Errors
/// When a file is not PEM, nobody listens, or the handshake fails.
pub fn connect(place: Place, port: u16, ca: &Path, certificate: Option<&Certificate>) -> Result<Stream> {
    let Place { ip, name } = place;
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(ca).with_context(|| format!("`{}` is no PEM file", ca.display()))?;
    roots.add(authority).context("the CA is not one")?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let chain = vec![CertificateDer::from_pem_file(&certificate.certificate)?];
            let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from_pem_file(&certificate.key)?)?;
            // Shown as it is: the check that key and certificate belong together can't read certificates of version 1.
            let shown = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(shown))
        }
    };
    let name = ServerName::IpAddress(name.into());
    let session = ClientConnection::new(Arc::new(config), name)?;
    let socket = TcpStream::connect_timeout(&SocketAddr::new(ip, port), patience::short())
        .with_context(|| format!("nobody listens on {ip}:{port}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience::short()))?;
    socket.set_write_timeout(Some(patience::short()))?;
    let mut stream = StreamOwned::new(session, socket);
    stream
        .conn
        .complete_io(&mut stream.sock)
        .context("the TLS handshake failed")?;
    Ok(stream)
}
