//! A client and the server that a test makes of a holm-mqtt session, over TLS on loopback.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that can't go on panics")]

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use holm_client::credential::KeyTokens;
use holm_client::{Client, Credential, Endpoint, Events, Interests, Options, TokenSource};
use holm_identity::tls::{ReloadableCertificate, Roots, client_config, server_config};
use holm_identity::{CertificateAuthority, ProofOfKeyVerifier, SymmetricKey};
use holm_model::Timestamp;
use holm_mqtt::{Config, Session};
use holm_net::{Connection, Scope, tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Messages that a client may have on their way.
pub const WINDOW: usize = 4;

/// The server's end of the one connection.
pub type Link = Connection<Session, Box<dyn Stream>>;

/// A byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The tokens of module `d/m`.
pub fn tokens() -> KeyTokens {
    let module = "d/m".parse().unwrap();
    KeyTokens::new(SymmetricKey::from_bytes([7; 32]).unwrap(), "hub.test", &module)
}

/// Starts module `d/m` against a server that does what `serve` does with the first connection.
pub async fn start<F>(
    interests: Interests,
    keep_alive: Duration,
    tokens: impl TokenSource,
    serve: impl FnOnce(Link) -> F + Send + 'static,
) -> (Client, Events)
where
    F: Future<Output = ()> + Send + 'static,
{
    let now = Timestamp::from(SystemTime::now());
    let authority = CertificateAuthority::create("test", 1, now).unwrap();
    let identity = authority.issue_server(&["127.0.0.1"], 1, now).unwrap();
    let certificate = Arc::new(ReloadableCertificate::new(&identity).unwrap());
    let server = Arc::new(server_config(certificate, Arc::new(ProofOfKeyVerifier)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scope = Scope::new();
    scope.spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let stream: Box<dyn Stream> = Box::new(tls::accept(server, stream, peer).await.unwrap());
        serve(Connection::new(
            Session::server(Instant::now(), Config::default()),
            stream,
        ))
        .await;
    });
    let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes()).unwrap();
    let module = "d/m".parse().unwrap();
    let tls = Arc::new(client_config(roots, None).unwrap());
    let mut options = Options::new(module, "hub.test", Credential::Tokens(Arc::new(tokens)), tls);
    options.endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
    };
    options.interests = interests;
    options.keep_alive = keep_alive;
    options.window = WINDOW;
    Client::start(&scope, options)
}
