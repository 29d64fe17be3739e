//! Parents and children: who may stand where, what an edge learns of those below it, and for whom it may speak.

use bytes::Bytes;
use holm_gateway::session::{Command, SessionInbox};
use holm_gateway::{
    Admission, Announced, Attempt, Authority, CloseReason, Credential, Earlier, Presence, Principal, Refusal,
    SessionHandle,
};
use holm_hub::registry::MAX_LEVELS;
use holm_identity::{SasToken, SymmetricKey};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{HOST, Reply, TestHub};

fn key(fill: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(vec![fill; 32]).unwrap()
}

/// An edge device whose `$edgeHub` has the key of this fill, as the device itself sets it.
async fn edge(hub: &TestHub, id: &str, fill: u8) -> Value {
    let document = hub.edge_device(id).await;
    set_edge_hub_key(hub, id, fill).await;
    document["deviceScope"].clone()
}

async fn set_edge_hub_key(hub: &TestHub, id: &str, fill: u8) {
    let token = hub.device_token(id).await;
    let path = format!("/devices/{id}/modules/$edgeHub?api-version=2017-11-08-preview");
    let key = key(fill).to_base64();
    let body = json!({"authentication": {"type": "sas", "symmetricKey": {
        "primaryKey": key.expose(), "secondaryKey": key.expose()}}});
    let headers = [("authorization", token.as_str()), ("if-match", "*")];
    hub.raw(Method::PUT, &path, &headers, body.to_string().into())
        .await
        .ok();
}

async fn child(hub: &TestHub, id: &str, scope: &Value) -> Value {
    hub.put(&format!("/devices/{id}"), json!({"deviceScope": scope}))
        .await
        .ok()
}

fn token(hub: &TestHub, of: &str, fill: u8) -> String {
    let path = of.replacen('/', "/modules/", 1);
    let resource = format!("{HOST}/devices/{path}");
    let token = SasToken::sign(&resource, hub.now_seconds() + 3600, None, &key(fill));
    token.to_text().expose().to_owned()
}

async fn speak_for(hub: &TestHub, identity: &str, chain: &str, token: String) -> Result<Admission, Refusal> {
    let announced = Announced {
        auth_chain: Some(chain.to_owned()),
        ..Announced::default()
    };
    let attempt = Attempt {
        identity: identity.parse().unwrap(),
        credential: Credential::Token(token),
        announced,
    };
    hub.hub.backend().authenticate(attempt).await
}

async fn session(hub: &TestHub, identity: &str, edge: &str, fill: u8) -> SessionInbox {
    let chain = format!("{identity};{edge}");
    let admission = speak_for(hub, identity, &chain, token(hub, identity, fill))
        .await
        .unwrap();
    let (handle, inbox) = SessionHandle::new(admission.identity.clone());
    hub.hub
        .backend()
        .opened(&handle, &admission, Earlier::Resumed)
        .await
        .unwrap();
    hub.hub.signals().directory().enter(&handle);
    inbox
}

async fn ask(hub: &TestHub, edge: &str, fill: u8, call: &str, body: Value) -> Reply {
    let token = token(hub, &format!("{edge}/$edgeHub"), fill);
    let path = format!("/devices/{edge}/modules/$edgeHub/{call}?api-version=2020-06-30-preview");
    let body = Bytes::from(body.to_string());
    hub.raw(Method::POST, &path, &[("authorization", &token)], body).await
}

fn ids(list: &Value) -> Vec<&str> {
    let all = list.as_array().unwrap().iter();
    all.map(|entry| {
        entry["moduleId"]
            .as_str()
            .or_else(|| entry["deviceId"].as_str())
            .unwrap()
    })
    .collect()
}

#[tokio::test]
async fn an_edge_reads_its_scope_page_by_page_with_keys_and_modules() {
    let hub = TestHub::start().await;
    let scope = edge(&hub, "e1", 1).await;
    for id in ["a", "b", "c"] {
        child(&hub, id, &scope).await;
    }
    hub.put("/devices/b/modules/m", json!({})).await.ok();
    hub.device("stranger").await;

    let first = ask(
        &hub,
        "e1",
        1,
        "devicesAndModulesInTargetDeviceScope",
        json!({"pageSize": 2, "authChain": "e1"}),
    );
    let first = first.await.ok();
    let link = first["continuationLink"].clone();
    let body = json!({"pageSize": 2, "continuationLink": link, "authChain": "e1"});
    let second = ask(&hub, "e1", 1, "devicesAndModulesInTargetDeviceScope", body)
        .await
        .ok();
    let link = second["continuationLink"].as_str().unwrap();
    let token = token(&hub, "e1/$edgeHub", 1);
    let third = hub
        .raw(Method::GET, link, &[("authorization", &token)], Bytes::new())
        .await
        .ok();

    assert_eq!(
        (ids(&first["devices"]), ids(&first["modules"])),
        (vec!["a", "b"], vec!["m"])
    );
    assert_eq!(ids(&second["devices"]), ["c", "e1"]);
    assert_eq!(ids(&second["modules"]), ["$edgeAgent", "$edgeHub"]);
    assert_eq!(
        (ids(&third["devices"]), &third["continuationLink"]),
        (vec![], &Value::Null)
    );
    let shown = &first["devices"][0];
    assert!(shown["authentication"]["symmetricKey"]["primaryKey"].is_string());
    assert_eq!(
        (&shown["parentScopes"][0], &shown["status"]),
        (&scope, &json!("enabled"))
    );
}

#[tokio::test]
async fn an_edge_asks_about_one_of_its_own_and_learns_nothing_of_others() {
    let hub = TestHub::start().await;
    let scope = edge(&hub, "e1", 1).await;
    edge(&hub, "e2", 2).await;
    child(&hub, "leaf", &scope).await;
    hub.put("/devices/leaf/modules/m", json!({})).await.ok();
    hub.device("stranger").await;
    let call = "getDeviceAndModuleOnBehalfOf";

    let one = ask(
        &hub,
        "e1",
        1,
        call,
        json!({"targetDeviceId": "leaf", "targetModuleId": "m", "authChain": "leaf/m;leaf;e1"}),
    );
    let one = one.await.ok();
    let stranger = ask(&hub, "e1", 1, call, json!({"targetDeviceId": "stranger"})).await;
    let absent = ask(&hub, "e1", 1, call, json!({"targetDeviceId": "absent"})).await;
    let by_other = ask(&hub, "e2", 2, call, json!({"targetDeviceId": "leaf"})).await;
    let forged = ask(&hub, "e1", 2, call, json!({"targetDeviceId": "leaf"})).await;
    let owner = hub
        .post(
            &format!("/devices/e1/modules/$edgeHub/{call}"),
            json!({"targetDeviceId": "leaf"}),
        )
        .await;

    assert_eq!((ids(&one["devices"]), ids(&one["modules"])), (vec!["leaf"], vec!["m"]));
    for reply in [stranger, absent, by_other] {
        reply.assert_error(404, "DeviceNotFound");
    }
    forged.assert_error(401, "IotHubUnauthorized");
    assert_eq!(owner.status, 401, "keys of devices are for their edge alone");
}

#[tokio::test]
async fn an_edge_speaks_for_those_below_it_and_for_nobody_else() {
    let hub = TestHub::start().await;
    let scope = edge(&hub, "e1", 1).await;
    let below = hub
        .put(
            "/devices/e2",
            json!({"capabilities": {"iotEdge": true}, "parentScopes": [scope]}),
        )
        .await
        .ok();
    set_edge_hub_key(&hub, "e2", 2).await;
    let print = "A".repeat(64);
    let x509 = json!({"deviceScope": scope, "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print}}});
    hub.put("/devices/leaf", x509).await.ok();
    hub.put("/devices/leaf/modules/m", json!({})).await.ok();
    child(&hub, "deep", &below["deviceScope"]).await;
    hub.device("stranger").await;

    for (identity, chain) in [
        ("leaf", "leaf;e1"),
        ("leaf/m", "leaf/m;leaf;e1/$edgeHub"),
        ("deep", "deep;e2;e1"),
        ("e1/$edgeAgent", "e1/$edgeAgent;e1"),
    ] {
        let admitted = speak_for(&hub, identity, chain, token(&hub, identity, 1))
            .await
            .unwrap();
        assert_eq!(admitted.identity.to_string(), identity);
        assert_eq!(admitted.principal, Principal::Identity("e1/$edgeHub".parse().unwrap()));
    }
    for (identity, chain, of, fill) in [
        ("stranger", "stranger;e1", "stranger", 1),
        ("leaf", "leaf;e2", "leaf", 2),
        ("leaf", "leaf;e1", "leaf", 2),
        ("leaf", "leaf;e1", "deep", 1),
        ("leaf", "deep;e1", "leaf", 1),
        ("e1", "e1;e2", "e1", 2),
        ("absent", "absent;e1", "absent", 1),
        ("leaf", "leaf;leaf", "leaf", 1),
    ] {
        let refused = speak_for(&hub, identity, chain, token(&hub, of, fill)).await;
        assert!(
            matches!(refused, Err(Refusal::NotAuthorized(_))),
            "{identity} {chain} {of} {fill}"
        );
    }
}

#[tokio::test]
async fn what_takes_the_right_to_speak_ends_the_sessions() {
    let hub = TestHub::start().await;
    let scope = edge(&hub, "e1", 1).await;
    let free = json!({"deviceScope": "", "parentScopes": []});
    let changes = [
        ("/devices/leaf", Some(free)),
        ("/devices/leaf", Some(json!({"status": "disabled"}))),
        ("/devices/leaf", None),
        ("/devices/e1", Some(json!({"status": "disabled"}))),
    ];

    for (path, change) in changes {
        child(&hub, "leaf", &scope).await;
        let mut inbox = session(&hub, "leaf", "e1", 1).await;
        match &change {
            Some(change) => drop(hub.update(path, "*", change.clone()).await.ok()),
            None => assert_eq!(hub.delete(path).await.status, 204),
        }

        assert!(
            matches!(inbox.next().await, Command::Close(CloseReason::Revoked)),
            "{change:?}"
        );
        let again = speak_for(&hub, "leaf", "leaf;e1", token(&hub, "leaf", 1)).await;
        assert!(again.is_err(), "{change:?}");
        hub.delete("/devices/leaf").await;
    }
    hub.update("/devices/e1", "*", json!({"status": "enabled"})).await.ok();
    child(&hub, "leaf", &scope).await;
    let mut inbox = session(&hub, "leaf", "e1", 1).await;
    set_edge_hub_key(&hub, "e1", 9).await;
    assert!(matches!(inbox.next().await, Command::Close(CloseReason::Revoked)));
}

#[tokio::test]
async fn the_children_of_a_deleted_edge_are_free_and_not_those_of_its_namesake() {
    let hub = TestHub::start().await;
    let scope = edge(&hub, "e1", 1).await;
    child(&hub, "leaf", &scope).await;

    assert_eq!(hub.delete("/devices/e1").await.status, 204);
    edge(&hub, "e1", 1).await;

    let leaf = hub.get("/devices/leaf").await.ok();
    assert_eq!(
        (&leaf["deviceScope"], &leaf["parentScopes"]),
        (&Value::Null, &json!([]))
    );
    assert!(
        speak_for(&hub, "leaf", "leaf;e1", token(&hub, "leaf", 1))
            .await
            .is_err()
    );
    let etag = leaf["etag"].as_str().unwrap();
    hub.update("/devices/leaf", &format!("\"{etag}\""), leaf.clone())
        .await
        .ok();
}

#[tokio::test]
async fn a_device_is_never_below_itself_nor_below_too_many() {
    let hub = TestHub::start().await;
    let mut scope = edge(&hub, "e1", 1).await;
    let top = scope.clone();
    for level in 2..=MAX_LEVELS {
        let body = json!({"capabilities": {"iotEdge": true}, "parentScopes": [scope]});
        scope = hub.put(&format!("/devices/e{level}"), body).await.ok()["deviceScope"].clone();
    }

    let circle = hub.update("/devices/e1", "*", json!({"parentScopes": [scope]})).await;
    let deeper = hub
        .put(
            "/devices/e9",
            json!({"capabilities": {"iotEdge": true}, "parentScopes": [scope]}),
        )
        .await;
    let leaf = hub.put("/devices/leaf", json!({"deviceScope": scope})).await;
    let own = hub.update("/devices/e1", "*", json!({"parentScopes": [top]})).await;

    circle.assert_error(400, "InvalidDeviceScope");
    deeper.assert_error(400, "InvalidDeviceScope");
    own.assert_error(400, "InvalidDeviceScope");
    leaf.ok();
}

#[tokio::test]
async fn an_operator_lists_children_in_pages() {
    let hub = TestHub::start().await;
    let scope = edge(&hub, "e1", 1).await;
    for id in ["a", "b", "c"] {
        child(&hub, id, &scope).await;
    }

    let first = hub.get("/holm/v1/devices/e1/children?top=2").await.ok();
    let rest = hub.get("/holm/v1/devices/e1/children?top=2&after=b").await.ok();

    assert_eq!((ids(&first), ids(&rest)), (vec!["a", "b"], vec!["c"]));
    hub.get("/holm/v1/devices/a/children")
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.get("/holm/v1/devices/x/children")
        .await
        .assert_error(404, "DeviceNotFound");
}

#[tokio::test]
async fn an_edge_that_is_moved_brings_along_the_levels_below_it() {
    let hub = TestHub::start().await;
    let mut scopes = Vec::new();
    for id in ["a1", "a2", "a3", "b1", "b2", "b3"] {
        scopes.push(hub.edge_device(id).await["deviceScope"].clone());
    }
    let below = async |id: &str, scope: &Value| {
        let body = json!({"deviceId": id, "capabilities": {"iotEdge": true}, "parentScopes": [scope]});
        hub.update(&format!("/devices/{id}"), "*", body).await
    };
    below("a2", &scopes[0]).await.ok();
    below("a3", &scopes[1]).await.ok();
    below("b2", &scopes[3]).await.ok();
    below("b3", &scopes[4]).await.ok();

    let too_deep = below("a1", &scopes[5]).await;
    let deep_enough = below("a1", &scopes[4]).await;

    too_deep.assert_error(400, "InvalidDeviceScope");
    deep_enough.ok();
}
