//! A real broker, and its own client to read what was published.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::*;

struct Mosquitto {
    programs: [PathBuf; 3],
    directory: tempfile::TempDir,
    port: u16,
}

impl Mosquitto {
    fn find() -> Option<Self> {
        Some(Self {
            programs: programs(["mosquitto", "mosquitto_sub", "mosquitto_passwd"])?,
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
        })
    }

    fn start(&self, settings: &str) -> Server {
        let config = self.directory.path().join("mosquitto.conf");
        let text = format!(
            "user root\nmax_queued_messages 0\nlistener {} 127.0.0.1\n{settings}\n",
            self.port
        );
        std::fs::write(&config, text).unwrap();
        Server::start(Command::new(&self.programs[0]).arg("-c").arg(config), self.port)
    }

    /// Makes a session that the broker keeps messages for; it is there when this returns.
    fn subscribe(&self, login: &[&str]) {
        // `-E` ends the client when the broker has acknowledged the subscription.
        let done = self.reader(login).args(["-E"]).status().unwrap();
        assert!(done.success());
    }

    /// Topics and payloads of that session's messages, once there are so many.
    fn messages(&self, count: usize, login: &[&str]) -> Vec<(String, String)> {
        let seconds = PATIENCE.as_secs().to_string();
        let output = self
            .reader(login)
            .args(["-C", &count.to_string(), "-W", &seconds, "-F", "%t %p"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| line.split_once(' ').unwrap());
        lines
            .map(|(topic, payload)| (topic.to_owned(), payload.to_owned()))
            .collect()
    }

    fn reader(&self, login: &[&str]) -> Command {
        let mut command = Command::new(&self.programs[1]);
        command
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", "in/#"])
            .args(["-c", "-i", "reader"])
            .args(login);
        command
    }
}

fn bodies(messages: &[(String, String)]) -> Vec<u64> {
    let numbers = messages.iter().map(|(_, payload)| {
        let payload: Value = serde_json::from_str(payload).unwrap();
        payload["n"].as_u64().unwrap()
    });
    numbers.collect()
}

#[tokio::test]
async fn a_broker_gets_all_messages_in_order_with_their_properties_once_it_lets_us_in() {
    let Some(mosquitto) = Mosquitto::find() else { return };
    let passwords = mosquitto.directory.path().join("passwords");
    let made = Command::new(&mosquitto.programs[2])
        .args(["-c", "-b"])
        .arg(&passwords)
        .args(["hub", "right"])
        .status();
    assert!(made.unwrap().success());
    let _server = mosquitto.start(&format!("password_file {}", passwords.display()));
    let define = |password: &str, properties: &str| {
        open(
            mosquitto.directory.path(),
            json!({ "kind": "mqtt", "url": format!("mqtt://127.0.0.1:{}", mosquitto.port), "topic": "in/{hub}/{device}/{module}",
                    "user": "hub", "password": password, "properties": properties, "maxInFlight": 7 }),
        )
    };
    let login = ["-u", "hub", "-P", "right"];
    mosquitto.subscribe(&login);

    let refused = why_not(define("wrong", "none").as_mut()).await;
    let mut endpoint = define("right", "none");
    endpoint.send(&batch(0..500)).await.unwrap();
    endpoint.close().await;
    define("right", "topic").send(&[routed(500)]).await.unwrap();
    define("right", "envelope").send(&[routed(501)]).await.unwrap();

    assert!(refused.contains("check `user`"), "{refused}");
    let messages = mosquitto.messages(502, &login);
    assert_eq!(bodies(&messages[..501]), (0..501).collect::<Vec<_>>());
    assert_eq!(messages[0].0, "in/hub/d1/-");
    assert_eq!(
        messages[500].0,
        "in/hub/d1/-/%24.ct=application%2Fjson&%24.ce=utf-8&level=high&%24.cdid=d1"
    );
    let envelope: Value = serde_json::from_str(&messages[501].1).unwrap();
    assert_eq!(
        (&envelope["Body"]["n"], &envelope["Properties"]["level"]),
        (&json!(501), &json!("high"))
    );
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_gets_everything() {
    let Some(mosquitto) = Mosquitto::find() else { return };
    let url = format!("mqtt://127.0.0.1:{}", mosquitto.port);
    let definition = json!({ "kind": "mqtt", "url": url, "topic": "in/x", "properties": "none" });
    let mut endpoint = open(mosquitto.directory.path(), definition);

    let away = why_not(endpoint.as_mut()).await;
    let mut server = mosquitto.start("allow_anonymous true");
    endpoint.send(&batch(0..10)).await.unwrap();
    server.stop();
    let gone = why_not(endpoint.as_mut()).await;
    drop(server);
    let _server = mosquitto.start("allow_anonymous true");
    mosquitto.subscribe(&[]);
    send_until_taken(endpoint.as_mut(), &batch(10..20)).await;

    assert!(away.contains("can't connect"), "{away}");
    assert!(!gone.is_empty());
    let got = bodies(&mosquitto.messages(10, &[]));
    assert_eq!(got, (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_broker_with_tls_is_trusted_by_its_authority_and_trusts_our_certificate() {
    let Some(mosquitto) = Mosquitto::find() else { return };
    let certificates = Certificates::make();
    let [ca, chain, key] = ["ca.pem", "server.pem", "server-key.pem"].map(|name| certificates.path(name));
    let _server = mosquitto.start(&format!(
        "allow_anonymous true\ncafile {ca}\ncertfile {chain}\nkeyfile {key}\nrequire_certificate true"
    ));
    let url = format!("mqtts://localhost:{}", mosquitto.port);
    let define = |more: Value| {
        let mut definition = json!({ "kind": "mqtt", "url": url, "topic": "in/x", "timeoutSeconds": 20 });
        definition
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        open(mosquitto.directory.path(), definition)
    };
    let other = Certificates::make();

    let untrusted = why_not(define(json!({ "ca": other.ca })).as_mut()).await;
    let unknown = why_not(define(json!({ "ca": certificates.ca })).as_mut()).await;
    let identity = (certificates.client.chain_pem(), certificates.client.key_pem().expose());
    let mut endpoint =
        define(json!({ "ca": certificates.ca, "clientCertificate": identity.0, "clientKey": identity.1 }));
    endpoint.send(&batch(0..10)).await.unwrap();

    assert!(untrusted.contains("TLS handshake"), "{untrusted}");
    assert!(!unknown.is_empty());
}
