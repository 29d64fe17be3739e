//! `/digitaltwins` (`hub-service-api.md` §2.2).

use holm_gateway::session::Command;
use holm_gateway::{Subscriptions, Twins};
use holm_model::MethodResponse;
use hyper::Method;
use serde_json::json;

use crate::support::TestHub;

#[tokio::test]
async fn a_digital_twin_is_read_and_patched_under_its_etag() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let backend = hub.hub.backend();
    let reported = json!({"serial": "x7", "pump": {"__t": "c", "load": 0.5}});
    backend.patch_reported(&client.admission, reported, None).await.unwrap();

    let before = hub.get("/digitaltwins/d1").await;
    let etag = before.header("etag").unwrap().to_owned();
    let patch = json!([{"op": "add", "path": "/pump/speed", "value": 9}]).to_string();
    let patched = hub
        .call(Method::PATCH, "/digitaltwins/d1", &[("if-match", &etag)], patch.clone())
        .await;
    let again = hub
        .call(Method::PATCH, "/digitaltwins/d1", &[("if-match", &etag)], patch)
        .await;
    let after = hub.get("/digitaltwins/d1").await.ok();

    assert!(before.header("x-ms-request-id").is_some_and(|id| id.len() == 32));
    let before = before.ok();
    assert_eq!((&before["$dtId"], &before["serial"]), (&json!("d1"), &json!("x7")));
    assert_eq!((patched.status, patched.body.len()), (202, 0));
    assert_eq!(patched.header("location"), Some("/digitaltwins/d1"));
    assert_ne!(patched.header("etag"), Some(etag.as_str()));
    again.assert_error(412, "PreconditionFailed");
    assert_eq!(after["pump"]["$metadata"]["speed"]["desiredValue"], 9);
    let twin = hub.get("/twins/d1").await.ok();
    assert_eq!(twin["properties"]["desired"]["pump"], json!({"__t": "c", "speed": 9}));
    hub.get("/digitaltwins/no").await.assert_error(404, "DeviceNotFound");
    client.disconnect().await;
}

#[tokio::test]
async fn a_command_is_a_method_whose_answer_is_the_body() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let mut client = hub.connect("d1", Subscriptions::METHODS).await;

    let path = "/digitaltwins/d1/components/pump/commands/start?connectTimeoutInSeconds=0&responseTimeoutInSeconds=10";
    let calling = hub.call(Method::POST, path, &[], "[1]");
    let answering = async {
        let Command::Invoke(call, reply) = client.inbox.next().await else {
            panic!("no call")
        };
        let payload = json!({"ok": true});
        reply.send(Ok(MethodResponse { status: 201, payload })).unwrap();
        (call.name, call.payload)
    };
    let (reply, asked) = tokio::join!(calling, answering);
    let offline = hub
        .call(
            Method::POST,
            "/digitaltwins/d1/commands/x?responseTimeoutInSeconds=4",
            &[],
            "",
        )
        .await;

    assert_eq!(asked, ("pump*start".to_owned(), json!([1])));
    assert_eq!(reply.header("x-ms-command-statuscode"), Some("201"));
    assert_eq!(reply.ok(), json!({"ok": true}));
    offline.assert_error(400, "ArgumentInvalid");
    client.disconnect().await;
}
