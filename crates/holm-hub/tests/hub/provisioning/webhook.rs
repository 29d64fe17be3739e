//! A webhook that says where devices belong.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Device, keys, symmetric, with};
use crate::support::{HOST, TestHub};

/// Answers one request after the other with `answers`, and gives the bodies that came.
async fn webhook(answers: Vec<(u16, Value)>) -> (String, tokio::task::JoinHandle<Vec<Value>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/allocate?code=x", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, answer) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body = loop {
                stream.read_buf(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((_, body)) = text.split_once("\r\n\r\n")
                    && let Ok(body) = serde_json::from_str::<Value>(body)
                {
                    break body;
                }
            };
            asked.push(body);
            let answer = answer.to_string();
            let length = answer.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (url, serving)
}

#[tokio::test]
async fn a_key_that_is_replaced_while_the_webhook_thinks_makes_no_device() {
    let hub = TestHub::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let custom = json!({ "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": url } });
    let made = hub.put("/enrollments/r", with(symmetric(), &custom)).await.ok();
    let key = keys(&hub, "/enrollments/r").await.0;
    let webhook = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let replaced = json!({ "attestation": { "type": "symmetricKey", "symmetricKey": {
            "primaryKey": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=", "secondaryKey": "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=" } } });
        hub.update("/enrollments/r", "*", with(with(made, &custom), &replaced))
            .await
            .ok();
        let answer = json!({ "iotHubHostName": HOST }).to_string();
        let answer = format!(
            "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    };

    let device = Device::with_key(&hub, "r", &key);
    let (told, ()) = tokio::join!(device.register(), webhook);

    assert_eq!(Device::refused(told), 401_002);
    assert_eq!(hub.get("/devices/r").await.status, 404);
}

#[tokio::test]
async fn a_webhook_says_where_a_device_belongs_and_what_it_is_told() {
    let hub = TestHub::start().await;
    let twin = json!({ "tags": { "from": "webhook" } });
    let (url, asked) = webhook(vec![
        (
            200,
            json!({ "iotHubHostName": HOST, "initialTwin": twin, "payload": { "line": 4 } }),
        ),
        (500, json!({})),
        (200, json!({ "iotHubHostName": "elsewhere.test" })),
        (
            200,
            json!({ "iotHubHostName": HOST, "initialTwin": { "tags": { "a.b": 1 } } }),
        ),
    ])
    .await;
    let custom = json!({ "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": url },
        "initialTwin": { "tags": { "from": "enrollment" } } });
    let made = hub.put("/enrollments/r", with(symmetric(), &custom)).await.ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);

    let assigned = device.register().await.unwrap();
    let failed = device.register().await.unwrap();
    let unknown = device.register().await.unwrap();
    let unheld = device.register().await.unwrap();
    let asked = asked.await.unwrap();
    let never = json!({ "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false } });
    hub.update("/enrollments/r", "*", with(made, &never)).await.ok();
    let repeated = device.register().await.unwrap();

    assert_eq!(
        (&assigned["status"], &assigned["payload"]),
        (&json!("assigned"), &json!({ "line": 4 }))
    );
    assert_eq!(hub.get("/twins/r").await.ok()["tags"]["from"], "webhook");
    let context = &asked[0]["deviceRuntimeContext"];
    assert_eq!(
        (&context["registrationId"], &context["payload"]),
        (&json!("r"), &json!({ "serial": 7 }))
    );
    assert_eq!(
        (
            &asked[0]["linkedHubs"],
            &asked[0]["individualEnrollment"]["registrationId"]
        ),
        (&json!([HOST]), &json!("r"))
    );
    assert_eq!(asked[1]["deviceRuntimeContext"]["currentIotHubHostName"], HOST);
    for (state, told) in [
        (failed, "500"),
        (unknown, "`iotHubHostName` is `elsewhere.test`"),
        (unheld, "`initialTwin.tags`"),
    ] {
        assert_eq!(
            (&state["status"], &state["errorCode"]),
            (&json!("failed"), &json!(400_207))
        );
        let message = state["errorMessage"].as_str().unwrap_or_default();
        assert!(state["assignedHub"].is_null() && message.contains(told), "{state}");
    }
    assert_eq!(
        repeated["status"], "assigned",
        "a device that stays where it is is not asked for"
    );
}
