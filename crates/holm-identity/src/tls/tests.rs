//! Real handshakes in memory, and the small language that other tests use for them.

use std::time::SystemTime;

use holm_model::Timestamp;
use rustls::{ClientConnection, HandshakeKind, ServerConnection};

use super::*;
use crate::ca::CertificateAuthority;
use crate::client_verifier::ProofOfKeyVerifier;

/// What a server knows after a handshake.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The chain that the client showed and proved.
    pub(crate) client_chain: Option<Vec<CertificateDer<'static>>>,
    /// The chain that the client saw.
    pub(crate) server_chain: Vec<CertificateDer<'static>>,
    pub(crate) resumed: bool,
}

/// TLS certificates are checked against the real clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_millis(i64::try_from(since.as_millis()).unwrap())
}

/// A server of our own kind, and the authority that made its certificate.
pub(crate) struct Server {
    pub(crate) authority: CertificateAuthority,
    pub(crate) certificate: Arc<ReloadableCertificate>,
    pub(crate) config: Arc<ServerConfig>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let authority = CertificateAuthority::create("test authority", 30, now()).unwrap();
        let identity = authority.issue_server(&["hub.test", "127.0.0.1"], 30, now()).unwrap();
        let certificate = Arc::new(ReloadableCertificate::new(&identity).unwrap());
        let config = server_config(Arc::clone(&certificate) as _, Arc::new(ProofOfKeyVerifier)).unwrap();
        Self {
            authority,
            certificate,
            config: Arc::new(config),
        }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::none()
            .with_pem(self.authority.certificate_pem().as_bytes())
            .unwrap()
    }

    /// Settings of a client that trusts this server, for one version of TLS.
    pub(crate) fn client(
        &self,
        identity: Option<&TlsIdentity>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        client_config_of_versions(self.roots(), identity, &[version]).unwrap()
    }

    pub(crate) fn handshake(&self, client: &Arc<ClientConfig>, name: &str) -> Result<Outcome, rustls::Error> {
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(&self.config))?;
        loop {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                server.read_tls(&mut input).unwrap();
                server.process_new_packets()?;
            }
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            let mut input = answer.as_slice();
            while !input.is_empty() {
                client.read_tls(&mut input).unwrap();
                client.process_new_packets()?;
            }
            if bytes.is_empty() && answer.is_empty() {
                break;
            }
        }
        assert!(
            !client.is_handshaking() && !server.is_handshaking(),
            "the handshake stopped halfway"
        );
        Ok(Outcome {
            client_chain: server.peer_certificates().map(<[_]>::to_vec),
            server_chain: client.peer_certificates().unwrap().to_vec(),
            resumed: server.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }
}

#[test]
fn a_client_reaches_the_server_by_any_of_its_names_and_by_no_other() {
    let server = Server::new();
    let client = Arc::new(client_config(server.roots(), None).unwrap());

    for name in ["hub.test", "HUB.test", "127.0.0.1"] {
        assert!(server.handshake(&client, name).is_ok(), "{name}");
    }
    for name in ["other.test", "127.0.0.2"] {
        assert!(server.handshake(&client, name).is_err(), "{name}");
    }
}

#[test]
fn a_client_trusts_only_the_roots_that_it_was_given() {
    let server = Server::new();
    let other = CertificateAuthority::create("other authority", 30, now()).unwrap();
    let roots = Roots::none().with_pem(other.certificate_pem().as_bytes()).unwrap();
    let client = Arc::new(client_config(roots, None).unwrap());

    assert!(server.handshake(&client, "hub.test").is_err());
    assert!(matches!(client_config(Roots::none(), None), Err(TlsError::NoRoots(_))));
}

#[test]
fn roots_come_from_files_and_from_a_replacement_of_the_system_bundle() {
    let server = Server::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    private_file::write_public(&path, server.authority.certificate_pem().as_bytes()).unwrap();
    let empty = directory.path().join("empty.pem");
    private_file::write_public(&empty, b"# nothing\n").unwrap();

    for roots in [
        Roots::none().with_file(&path).unwrap(),
        Roots::none().with_system(Some(&path)).unwrap(),
    ] {
        let client = Arc::new(client_config(roots, None).unwrap());
        assert!(server.handshake(&client, "hub.test").is_ok());
    }
    assert!(Roots::none().with_file(&empty).is_err());
    assert!(Roots::none().with_system(Some(&empty)).is_err());
    assert!(Roots::none().with_file(&directory.path().join("none.pem")).is_err());
}

#[test]
fn a_replaced_certificate_is_shown_from_the_next_handshake_on() {
    let server = Server::new();
    let client = |server: &Server| Arc::new(client_config(server.roots(), None).unwrap());
    let before = server.handshake(&client(&server), "hub.test").unwrap();

    let renewed = server.authority.issue_server(&["hub.test"], 30, now()).unwrap();
    server.certificate.replace(&renewed).unwrap();
    let after = server.handshake(&client(&server), "hub.test").unwrap();

    assert_ne!(before.server_chain, after.server_chain);
    assert_eq!(after.server_chain, renewed.chain());
}

#[test]
fn a_resumed_session_still_names_the_client_certificate() {
    let server = Server::new();
    let device = server.authority.issue_client("dev1", &[""; 0], 30, now()).unwrap();
    for version in VERSIONS {
        let client = Arc::new(server.client(Some(&device), version));

        let first = server.handshake(&client, "hub.test").unwrap();
        let second = server.handshake(&client, "hub.test").unwrap();

        assert!(!first.resumed && second.resumed, "{version:?}");
        assert_eq!(second.client_chain.as_deref(), Some(device.chain()));
    }
}
