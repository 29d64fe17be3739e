//! What a client does with the inputs of a resumed session, which come before its subscriptions are answered.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use holm_client::credential::KeyTokens;
use holm_client::{Client, Credential, Endpoint, Event, Interests, Options};
use holm_identity::tls::{ReloadableCertificate, Roots, client_config, server_config};
use holm_identity::{CertificateAuthority, ProofOfKeyVerifier, SymmetricKey};
use holm_model::{Message, Timestamp};
use holm_mqtt::{Config, Granted, Outcome, Qos, Session, Text};
use holm_net::{Connection, Scope, tls};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that resumes a session with 16 inputs, and answers SUBSCRIBE only when a message of the client has come: what
/// a connection looks like whose window was full before the client could say anything.
async fn serve(listener: TcpListener, config: Arc<rustls::ServerConfig>) {
    let (stream, peer) = listener.accept().await.unwrap();
    let stream = tls::accept(config, stream, peer).await.unwrap();
    let mut connection = Connection::new(Session::server(Instant::now(), Config::default()), stream);
    let mut request = None;
    loop {
        let event = connection.next_event().await;
        let session = connection.session_mut();
        match event {
            holm_mqtt::Event::Connect(_) => {
                session.accept(Instant::now(), true);
                for number in 0..16 {
                    let topic = Text::try_from("devices/d/modules/m/inputs/in/%24.cdid=d").unwrap();
                    let payload = vec![number].into();
                    let message = holm_mqtt::Message {
                        topic,
                        payload,
                        qos: Qos::AtLeastOnce,
                        retain: false,
                        dup: false,
                    };
                    session.publish(Instant::now(), &message).unwrap();
                }
            }
            holm_mqtt::Event::Subscribe {
                request: asked,
                filters,
            } => request = Some((asked, filters.len())),
            holm_mqtt::Event::Publish { delivery, .. } => {
                if let Some((request, filters)) = request.take() {
                    session
                        .suback(request, &vec![Granted::Qos(Qos::AtLeastOnce); filters])
                        .unwrap();
                }
                session.acknowledge(delivery.unwrap(), Outcome::Accept);
            }
            holm_mqtt::Event::Closed(_) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_made_of_an_input_can_be_sent_before_the_subscriptions_are_answered() {
    let now = Timestamp::from(SystemTime::now());
    let authority = CertificateAuthority::create("test", 1, now).unwrap();
    let identity = authority.issue_server(&["127.0.0.1"], 1, now).unwrap();
    let certificate = Arc::new(ReloadableCertificate::new(&identity).unwrap());
    let server = server_config(certificate, Arc::new(ProofOfKeyVerifier)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scope = Scope::new();
    scope.spawn(serve(listener, Arc::new(server)));
    let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes()).unwrap();
    let module = "d/m".parse().unwrap();
    let tokens = KeyTokens::new(SymmetricKey::from_bytes([7; 32]).unwrap(), "hub.test", &module);
    let tls = Arc::new(client_config(roots, None).unwrap());
    let mut options = Options::new(module, "hub.test", Credential::Tokens(Arc::new(tokens)), tls);
    options.endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
    };
    options.interests = Interests {
        inputs: true,
        ..Interests::default()
    };

    let (client, mut events) = Client::start(&scope, options);
    let handled = async {
        for _ in 0..16 {
            match events.next().await {
                Some(Event::Message(received)) => {
                    // As a careful module does: what it makes of a message is safe before the message counts as handled.
                    client.send(Message::new("made of it")).await.unwrap().await.unwrap();
                    received.complete().await;
                }
                Some(Event::Connected) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    };

    assert!(
        tokio::time::timeout(PATIENCE, handled).await.is_ok(),
        "the client waits for ever"
    );
}
