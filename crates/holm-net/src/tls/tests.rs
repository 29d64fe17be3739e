use std::io;

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// The settings of both ends, with a certificate for `names`.
pub(super) fn settings(
    names: Vec<String>,
    version: &'static rustls::SupportedProtocolVersion,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

type Pair = (Box<TlsStream<DuplexStream>>, Box<TlsStream<DuplexStream>>);

/// A server and its client over a pipe that holds so many bytes.
async fn pair(pipe: usize, version: &'static rustls::SupportedProtocolVersion) -> Pair {
    let (server, client) = settings(vec!["localhost".to_owned()], version);
    let (near, far) = duplex(pipe);
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(TlsStream::accept(server, near), TlsStream::connect(client, name, far));
    (server.unwrap(), client.unwrap())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| u8::try_from(number % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_arrive_whole_through_pipes_of_any_size() {
    let sent = bytes(150_000);
    for version in [&TLS12, &TLS13] {
        for pipe in [2003, 1 << 20] {
            let (mut server, mut client) = pair(pipe, version).await;

            let writing = async {
                client.write_all(&sent).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let echoing = async {
                let mut heard = Vec::new();
                server.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let ((), heard) = tokio::join!(writing, echoing);

            assert!(heard == sent, "through a pipe of {pipe}");
        }
    }
}

#[tokio::test]
async fn a_connection_with_nothing_on_its_way_holds_no_buffer() {
    let (mut server, mut client) = pair(1 << 20, &TLS13).await;
    let sent = bytes(100_000);
    let mut heard = vec![0; sent.len()];

    for _ in 0..3 {
        client.write_all(&sent).await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut heard).await.unwrap();
        server.write_all(&sent).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
    }

    assert_eq!((server.held(), client.held()), (0, 0));
}

#[tokio::test]
async fn what_a_small_reader_leaves_comes_with_the_next_reads() {
    let (mut server, mut client) = pair(1 << 20, &TLS13).await;
    let sent = bytes(40_000);
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();

    let mut heard = Vec::new();
    let mut piece = [0; 11];
    loop {
        let count = server.read(&mut piece).await.unwrap();
        if count == 0 {
            break;
        }
        heard.extend_from_slice(&piece[..count]);
    }

    assert!(heard == sent);
    assert_eq!(server.held(), 0);
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_and_one_with_it_is_none() {
    for says_so in [false, true] {
        let (mut server, mut client) = pair(1 << 20, &TLS13).await;
        client.write_all(b"last").await.unwrap();
        client.flush().await.unwrap();
        if says_so {
            client.shutdown().await.unwrap();
        }
        drop(client);

        let mut heard = Vec::new();
        let end = server.read_to_end(&mut heard).await;

        assert_eq!(heard, b"last");
        let expected = if says_so {
            None
        } else {
            Some(io::ErrorKind::UnexpectedEof)
        };
        assert_eq!(end.err().map(|error| error.kind()), expected);
    }
}

#[tokio::test]
async fn a_side_that_was_told_the_end_can_still_speak() {
    let (mut server, mut client) = pair(1 << 20, &TLS13).await;
    client.shutdown().await.unwrap();

    let end = server.read(&mut [0; 8]).await.unwrap();
    server.write_all(b"goodbye").await.unwrap();
    server.shutdown().await.unwrap();

    assert_eq!(end, 0);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"goodbye");
}

#[tokio::test]
async fn a_certificate_that_takes_several_records_is_taken() {
    let names = (0..1200)
        .map(|number| format!("host-{number}.example.org"))
        .chain(["localhost".to_owned()]);
    let (server, client) = settings(names.collect(), &TLS13);
    let (near, far) = duplex(2003);
    let name = ServerName::try_from("localhost").unwrap();

    let (server, client) = tokio::join!(TlsStream::accept(server, near), TlsStream::connect(client, name, far));

    server.unwrap();
    let client = client.unwrap();
    assert!(client.peer_certificates()[0].len() > 16 * 1024);
    assert_eq!(client.held(), 0);
}

#[tokio::test]
async fn a_peer_that_is_refused_is_told_why_and_one_that_speaks_no_tls_too() {
    let (server, _) = settings(vec!["localhost".to_owned()], &TLS13);
    let (_, stranger) = settings(vec!["localhost".to_owned()], &TLS13);
    let (near, far) = duplex(1 << 20);
    let name = ServerName::try_from("localhost").unwrap();
    let (refused, distrusts) = tokio::join!(
        TlsStream::accept(Arc::clone(&server), near),
        TlsStream::connect(stranger, name, far)
    );
    let (near, mut far) = duplex(1 << 20);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();

    let no_tls = TlsStream::accept(server, near).await;

    let text = |error: io::Error| error.to_string();
    assert!(text(refused.err().unwrap()).contains("alert"));
    assert!(text(distrusts.err().unwrap()).contains("certificate"));
    assert_eq!(no_tls.err().unwrap().kind(), io::ErrorKind::InvalidData);
    let mut alert = Vec::new();
    far.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert record");
}

#[tokio::test]
async fn after_a_record_that_nobody_encrypted_nothing_is_read_or_written_any_more() {
    let (mut server, client) = pair(1 << 20, &TLS13).await;
    let mut socket = (*client).into_socket();
    socket.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
    socket.write_all(&[0; 20]).await.unwrap();

    let errors = [
        server.read(&mut [0; 8]).await.err(),
        server.read(&mut [0; 8]).await.err(),
        server.write(b"late").await.err(),
    ];
    let shutdown = server.shutdown().await;

    let kinds = errors.map(|error| error.map(|error| error.kind()));
    let (data, pipe) = (io::ErrorKind::InvalidData, io::ErrorKind::BrokenPipe);
    assert_eq!(kinds, [Some(data), Some(data), Some(pipe)]);
    assert!(shutdown.is_ok());
}

#[tokio::test]
async fn what_came_whole_before_a_wrong_record_is_read_and_then_the_error() {
    let (mut server, mut client) = pair(1 << 20, &TLS13).await;
    client.write_all(b"last").await.unwrap();
    client.flush().await.unwrap();
    let mut socket = (*client).into_socket();
    socket.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
    socket.write_all(&[0; 20]).await.unwrap();

    let mut heard = [0; 8];
    let count = server.read(&mut heard).await.unwrap();
    let error = server.read(&mut [0; 8]).await.unwrap_err();

    assert_eq!(&heard[..count], b"last");
    assert!(error.to_string().contains("decrypt"), "{error}");
}

#[tokio::test]
async fn after_its_end_was_told_nothing_is_written_though_the_end_is_still_on_its_way() {
    let (_server, mut client) = pair(2003, &TLS13).await;
    client.write_all(&bytes(4000)).await.unwrap();

    let shutdown = tokio::time::timeout(Duration::ZERO, client.shutdown()).await;
    let late = tokio::time::timeout(Duration::ZERO, client.write(b"late")).await;

    assert!(shutdown.is_err(), "nobody reads");
    assert_eq!(late.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_an_error() {
    let (server, _) = settings(vec!["localhost".to_owned()], &TLS13);
    let (near, mut far) = duplex(1 << 20);
    far.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    drop(far);

    let outcome = TlsStream::accept(server, near).await;

    assert_eq!(outcome.err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
}

/// What a client says first.
async fn client_hello(client: Arc<ClientConfig>) -> Vec<u8> {
    let (near, mut far) = duplex(1 << 16);
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = vec![0; 1 << 16];
    let count = tokio::select! {
        _ = TlsStream::connect(client, name, near) => panic!("nobody has answered"),
        count = far.read(&mut hello) => count.unwrap(),
    };
    hello.truncate(count);
    hello
}

/// The same handshake message in records of `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let (header, message) = hello.split_at(5);
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&header[..3], &length, piece].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

#[tokio::test]
async fn a_hello_in_pieces_is_understood_and_one_that_is_wrong_anywhere_ends_without_a_panic() {
    let (server, client) = settings(vec!["localhost".to_owned()], &TLS13);
    let hello = client_hello(client).await;
    for size in [1, 3, 50, 1000] {
        let pieces = in_records(&hello, size);
        for wrong in std::iter::once(None).chain((0..pieces.len()).step_by(7).map(Some)) {
            let (near, mut far) = duplex(1 << 16);
            let mut said = pieces.clone();
            if let Some(place) = wrong {
                said[place] ^= 0x15;
            }
            let speaking = async {
                for piece in said.chunks(211) {
                    // Who is told of an error does not listen to the rest.
                    if far.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                far.shutdown().await.unwrap();
                let mut answer = Vec::new();
                far.read_to_end(&mut answer).await.unwrap();
                answer
            };

            let (outcome, answer) = tokio::join!(TlsStream::accept(Arc::clone(&server), near), speaking);

            assert!(outcome.is_err(), "nobody has finished the handshake");
            // Server hello, or an alert: a handshake that was not understood is not answered otherwise.
            assert!(wrong.is_some() || answer.first() == Some(&22), "in records of {size}");
        }
    }
}
