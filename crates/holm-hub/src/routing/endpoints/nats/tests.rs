use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::testing::{World, routed};
use super::*;
use crate::routing::SendError;

const INFO: &str = "INFO {\"server_id\":\"x\",\"headers\":true,\"max_payload\":400,\"nonce\":\"n\"} \r\n";

fn endpoint(document: serde_json::Value) -> Result<Box<dyn Endpoint>, DefinitionError> {
    let mut definition =
        json!({ "kind": "nats", "url": "nats://localhost", "subject": "in.{device}", "timeoutSeconds": 60 });
    for (name, value) in document.as_object().unwrap() {
        definition[name] = value.clone();
    }
    World::new(Path::new("unused")).open(definition)
}

/// What a server says first, and then on the first connection; what the client said then is given back when it has ended.
async fn server(first: &'static str, then: &'static str) -> (String, JoinHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        let mut has_answered = false;
        loop {
            let count = stream.read(&mut piece).await.unwrap_or(0);
            if count == 0 {
                return String::from_utf8_lossy(&heard).into_owned();
            }
            heard.extend_from_slice(&piece[..count]);
            if !has_answered {
                stream.write_all(then.as_bytes()).await.unwrap();
                has_answered = true;
            }
        }
    });
    (url, heard)
}

type JoinHandle = tokio::task::JoinHandle<String>;

fn why(refused: Result<(), SendError>) -> String {
    match refused {
        Err(SendError::Later { delivered: 0, why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_nats_server_is_told_as_such() {
    for (first, then, said) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "", "no NATS server"),
        ("INFO {not json}\r\n", "", "no NATS server"),
        ("INFO {\"headers\":false}\r\n", "", "version 2.2"),
        (
            "INFO {\"headers\":true,\"tls_required\":true}\r\n",
            "",
            "begin `url` with `tls://`",
        ),
        (INFO, "-ERR 'Authorization Violation'\r\n", "check `user`"),
    ] {
        let (url, _heard) = server(first, then).await;
        let mut endpoint = endpoint(json!({ "url": url })).unwrap();

        let told = why(endpoint.send(&[routed(1, "d1")]).await);

        assert!(told.contains(said), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_acknowledge_is_given_up_in_the_time_that_is_set() {
    let (url, _heard) = server(INFO, "PONG\r\n").await;
    // Connecting has the same time, and succeeds.
    let mut endpoint = endpoint(json!({ "url": url, "timeoutSeconds": 5 })).unwrap();

    let told = why(endpoint.send(&[routed(1, "d1")]).await);

    assert!(told.contains("no acknowledgement within 5 s"), "{told}");
}

#[tokio::test]
async fn a_message_that_is_larger_than_the_server_takes_is_told_apart_when_those_before_it_are_delivered() {
    let (url, heard) = server(INFO, "PONG\r\n").await;
    let mut endpoint = endpoint(json!({ "url": url, "token": "tok" })).unwrap();
    let mut large = routed(1, "d1");
    large.message.body = vec![b'x'; 500].into();

    let refused = endpoint.send(&[large]).await;

    let Err(SendError::Never { index: 0, why }) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("takes 400 at most"), "{why}");
    drop(endpoint);
    let heard = heard.await.unwrap();
    assert!(
        heard.contains("\"auth_token\":\"tok\"") && !heard.contains("HPUB"),
        "{heard}"
    );
}

#[test]
fn what_can_not_work_names_its_member_and_no_secret_is_printed() {
    for (document, member) in [
        (json!({ "subject": "in.>" }), "subject"),
        (json!({ "stream": "a\nb" }), "stream"),
        (json!({ "url": "nats://h/x" }), "url"),
        (json!({ "user": "u" }), "password"),
        (json!({ "user": "u", "password": "p", "token": "t" }), "token"),
        (json!({ "token": "t", "nkeySeed": "SU" }), "nkeySeed"),
        (json!({ "nkeySeed": "hunter2" }), "nkeySeed"),
        (json!({ "credentials": "hunter2" }), "credentials"),
        (json!({ "clientCertificate": "x" }), "clientCertificate"),
    ] {
        let refused = endpoint(document.clone()).unwrap_err();

        assert_eq!(refused.member, member, "{document}");
        assert!(!refused.to_string().contains("hunter2"));
    }
    let good = endpoint(json!({ "token": "hunter2" })).unwrap();
    assert_eq!(good.describe(), "publish in.{device} at nats://localhost");
    assert!(!format!("{good:?}").contains("hunter2"));
}
