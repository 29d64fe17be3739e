//! A real server with JetStream, and a small client of the tests' own to make streams and read them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

struct Nats {
    program: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
}

impl Nats {
    fn find() -> Option<Self> {
        let [program] = programs(["nats-server"])?;
        Some(Self {
            program,
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
        })
    }

    fn start(&self, settings: &str) -> Server {
        let config = self.directory.path().join("nats.conf");
        let store = self.directory.path().join("store");
        let text = format!(
            "server_name: test\nhost: 127.0.0.1\nport: {}\njetstream {{ store_dir: \"{}\" }}\n{settings}\n",
            self.port,
            store.display()
        );
        std::fs::write(&config, text).unwrap();
        Server::start(Command::new(&self.program).arg("-c").arg(config), self.port)
    }

    fn define(&self, more: Value) -> Box<dyn Endpoint> {
        let url = format!("nats://127.0.0.1:{}", self.port);
        let mut definition = json!({ "kind": "nats", "url": url, "subject": "in.{device}" });
        definition
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        open(self.directory.path(), definition)
    }

    /// The API of JetStream, as whoever `hello` says.
    fn client(&self, hello: Value) -> Client {
        let mut client = Client(BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap()));
        client.say(&format!("CONNECT {hello}\r\nSUB answers 1\r\nPING\r\n"));
        while !client.line().starts_with("PONG") {}
        client
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty() && !line.starts_with("-ERR"), "{line}");
        line
    }

    fn ask(&mut self, subject: &str, payload: &Value) -> Value {
        let payload = payload.to_string();
        self.say(&format!(
            "PUB $JS.API.{subject} answers {}\r\n{payload}\r\n",
            payload.len()
        ));
        loop {
            let line = self.line();
            if line.starts_with("MSG") {
                let length: usize = line.split_ascii_whitespace().last().unwrap().parse().unwrap();
                let mut answer = vec![0; length + 2];
                self.0.read_exact(&mut answer).unwrap();
                return serde_json::from_slice(&answer[..length]).unwrap();
            }
        }
    }

    fn make_stream(&mut self, more: Value) {
        // JetStream is there a moment after the port.
        let mut stream = json!({ "name": "EVENTS", "subjects": ["in.*"], "storage": "file", "retention": "limits" });
        stream
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let made = self.ask("STREAM.CREATE.EVENTS", &stream);
        assert_eq!(made["error"], Value::Null, "{made}");
    }

    fn count(&mut self) -> u64 {
        let info = self.ask("STREAM.INFO.EVENTS", &json!({}));
        info["state"]["messages"].as_u64().unwrap()
    }

    /// Subject, headers and payload of a message.
    fn message(&mut self, sequence: u64) -> (String, String, String) {
        let answer = self.ask("STREAM.MSG.GET.EVENTS", &json!({ "seq": sequence }));
        let message = &answer["message"];
        let text = |name: &str| {
            let bytes = STANDARD.decode(message[name].as_str().unwrap_or_default()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        (
            message["subject"].as_str().unwrap().to_owned(),
            text("hdrs"),
            text("data"),
        )
    }
}

#[tokio::test]
async fn a_stream_has_each_message_once_and_in_order_though_they_come_again() {
    let Some(nats) = Nats::find() else { return };
    let server = nats.start("");
    let mut endpoint = nats.define(json!({ "maxInFlight": 7 }));

    let uncovered = why_not(endpoint.as_mut()).await;
    nats.client(json!({})).make_stream(json!({}));
    endpoint.send(&batch(0..500)).await.unwrap();
    endpoint.send(&batch(400..600)).await.unwrap();
    // Killed while a connection is kept, and back with what it has on its disk.
    drop(server);
    let gone = why_not(endpoint.as_mut()).await;
    let _server = nats.start("");
    send_until_taken(endpoint.as_mut(), &batch(550..700)).await;
    endpoint.close().await;

    assert!(uncovered.contains("no stream covers"), "{uncovered}");
    assert!(!gone.is_empty());
    let mut client = nats.client(json!({}));
    assert_eq!(client.count(), 700);
    let numbers: Vec<u64> = (1..=700)
        .map(|sequence| {
            let (_, _, body) = client.message(sequence);
            serde_json::from_str::<Value>(&body).unwrap()["n"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(numbers, (0..700).collect::<Vec<_>>());
    let (subject, headers, _) = client.message(1);
    assert_eq!(subject, "in.d1");
    for header in [
        "Nats-Msg-Id: hub/routed/hot/1/0/1767323045123\r\n",
        "iothub-connection-device-id: d1\r\n",
        "iothub-app-level: high\r\n",
    ] {
        assert!(headers.contains(header), "{headers}");
    }
}

#[tokio::test]
async fn a_stream_that_is_full_is_tried_again_and_what_is_too_large_for_it_never() {
    let Some(nats) = Nats::find() else { return };
    let _server = nats.start("");
    let mut client = nats.client(json!({}));
    client.make_stream(json!({ "max_msgs": 3, "discard": "new", "max_msg_size": 2000 }));
    let mut endpoint = nats.define(json!({ "stream": "EVENTS", "maxInFlight": 1 }));
    let mut large = routed(1);
    large.message.body = vec![b' '; 4000].into();

    let never = endpoint.send(&[routed(0), large, routed(2)]).await;
    let later = endpoint.send(&batch(2..10)).await;
    client.ask("STREAM.PURGE.EVENTS", &json!({}));
    endpoint.send(&batch(4..6)).await.unwrap();
    let elsewhere = why_not(nats.define(json!({ "stream": "OTHER" })).as_mut()).await;

    assert!(matches!(never, Err(SendError::Never { index: 1, .. })), "{never:?}");
    assert!(matches!(later, Err(SendError::Later { delivered: 2, .. })), "{later:?}");
    assert!(elsewhere.contains("stream"), "{elsewhere}");
    assert_eq!(client.count(), 2);
}

#[tokio::test]
async fn whoever_the_server_knows_is_let_in() {
    // A pair that the documentation of NATS shows.
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const USER: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let Some(nats) = Nats::find() else { return };
    let server = nats.start(&format!(
        "authorization {{ users: [ {{ user: hub, password: right }}, {{ nkey: {USER} }}, \
         {{ user: narrow, password: p, permissions: {{ publish: \"other\", subscribe: \"_INBOX.>\" }} }} ] }}"
    ));
    let user = |name: &str, password: &str| json!({ "user": name, "password": password });
    nats.client(json!({ "user": "hub", "pass": "right" }))
        .make_stream(json!({}));

    let wrong = why_not(nats.define(user("hub", "wrong")).as_mut()).await;
    let nobody = why_not(nats.define(json!({})).as_mut()).await;
    let narrow = why_not(nats.define(user("narrow", "p")).as_mut()).await;
    nats.define(user("hub", "right")).send(&batch(0..2)).await.unwrap();
    nats.define(json!({ "nkeySeed": SEED }))
        .send(&batch(2..4))
        .await
        .unwrap();
    drop(server);
    let _server = nats.start("authorization { token: right }");
    let token = why_not(nats.define(json!({ "token": "wrong" })).as_mut()).await;
    nats.define(json!({ "token": "right" }))
        .send(&batch(4..6))
        .await
        .unwrap();

    for told in [wrong, nobody, token] {
        assert!(told.contains("check `user`"), "{told}");
    }
    assert!(narrow.contains("allowed to publish"), "{narrow}");
    assert_eq!(nats.client(json!({ "auth_token": "right" })).count(), 6);
}

#[tokio::test]
async fn tls_begins_behind_the_servers_first_line() {
    let Some(nats) = Nats::find() else { return };
    let certificates = Certificates::make();
    let [ca, chain, key] = ["ca.pem", "server.pem", "server-key.pem"].map(|name| certificates.path(name));
    let server = nats.start("");
    nats.client(json!({})).make_stream(json!({}));
    drop(server);
    let _server = nats.start(&format!(
        "tls {{ cert_file: \"{chain}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: true }}"
    ));
    let url = format!("tls://localhost:{}", nats.port);
    let identity = (certificates.client.chain_pem(), certificates.client.key_pem().expose());

    let plain = why_not(nats.define(json!({})).as_mut()).await;
    let untrusted = why_not(
        nats.define(json!({ "url": url, "ca": Certificates::make().ca }))
            .as_mut(),
    )
    .await;
    let unknown = why_not(nats.define(json!({ "url": url, "ca": certificates.ca })).as_mut()).await;
    let shown = json!({ "url": url, "ca": certificates.ca, "clientCertificate": identity.0, "clientKey": identity.1 });
    let mut endpoint = nats.define(shown);
    send_until_taken(endpoint.as_mut(), &batch(0..50)).await;

    assert!(plain.contains("begin `url` with `tls://`"), "{plain}");
    assert!(untrusted.contains("TLS handshake"), "{untrusted}");
    assert!(!unknown.is_empty());
}
