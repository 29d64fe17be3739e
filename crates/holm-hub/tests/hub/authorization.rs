//! Rows 1 to 8, 86, and the log-in of devices (`hub-device-protocols.md` §8, rows 1 to 17 where they are the hub's).

use bytes::Bytes;
use holm_gateway::{Credential, Refusal};
use holm_identity::{CertificateAuthority, SasToken, SymmetricKey};
use holm_model::Timestamp;
use hyper::Method;
use serde_json::json;

use crate::support::{HOST, START, TestHub};

const D1: &str = "/devices/d1?api-version=2021-04-12";

async fn with_token(hub: &TestHub, path: &str, token: &str) -> crate::support::Reply {
    hub.raw(Method::GET, path, &[("authorization", token)], Bytes::new())
        .await
}

#[tokio::test]
async fn a_request_without_a_good_token_is_refused() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let key = hub.policy_key("iothubowner").await;
    let other = SymmetricKey::from_bytes(vec![7; 32]).unwrap();
    let end = hub.now_seconds() + 3600;
    let late = SasToken::sign(HOST, hub.now_seconds() - 600, Some("iothubowner"), &key);
    let forged = SasToken::sign(HOST, end, Some("iothubowner"), &other);
    let elsewhere = SasToken::sign("other.test", end, Some("iothubowner"), &key);
    let unknown = SasToken::sign(HOST, end, Some("nobody"), &key);

    hub.raw(Method::GET, D1, &[], Bytes::new())
        .await
        .assert_error(401, "IotHubUnauthorized");
    for token in [late, forged, elsewhere, unknown] {
        let reply = with_token(&hub, D1, token.to_text().expose()).await;
        reply.assert_error(401, "IotHubUnauthorized");
    }
    with_token(&hub, D1, "Bearer eyJ")
        .await
        .assert_error(401, "IotHubUnauthorized");
}

#[tokio::test]
async fn the_signature_is_over_the_raw_scope_however_it_is_written() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let key = hub.policy_key("iothubowner").await;
    let end = (hub.now_seconds() + 3600).to_string();

    for scope in [
        "hub.test",
        "HUB.test",
        "hub.test%2fdevices",
        "hub.test%2Fdevices%2fd1",
        "hub.test/devices/",
    ] {
        let signature = key.hmac_sha256(format!("{scope}\n{end}").as_bytes());
        let signature: String = base64_of(&signature).replace('+', "%2b").replace('=', "%3D");
        let token = format!("SharedAccessSignature sig={signature}&skn=iothubowner&se={end}&sr={scope}");
        assert_eq!(with_token(&hub, D1, &token).await.status, 200, "{scope}");
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test]
async fn a_token_opens_only_what_its_scope_covers() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d10").await;
    let key = hub.policy_key("iothubowner").await;
    let token = SasToken::sign("hub.test/devices/d1", hub.now_seconds() + 60, Some("iothubowner"), &key);
    let token = token.to_text();

    assert_eq!(with_token(&hub, D1, token.expose()).await.status, 200);
    with_token(&hub, "/devices/d10?api-version=2021-04-12", token.expose())
        .await
        .assert_error(401, "IotHubUnauthorized");
}

#[tokio::test]
async fn each_policy_may_do_what_it_is_for() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let allowed = [
        ("registryRead", Method::GET, "/devices/d1", true),
        ("registryRead", Method::PUT, "/devices/d9", false),
        ("registryRead", Method::GET, "/twins/d1", false),
        ("registryReadWrite", Method::PUT, "/devices/d9", true),
        ("service", Method::GET, "/twins/d1", true),
        ("service", Method::GET, "/devices/d1", false),
        ("device", Method::GET, "/devices/d1", false),
        ("iothubowner", Method::GET, "/twins/d1", true),
    ];

    for (policy, method, path, expected) in allowed {
        let token = hub.token_of(policy).await;
        let path = format!("{path}?api-version=2021-04-12");
        let headers = [("authorization", token.as_str())];
        let reply = hub.raw(method, &path, &headers, Bytes::from_static(b"{}")).await;
        if expected {
            assert_eq!(reply.status, 200, "{policy} {path}");
        } else {
            reply.assert_error(401, "IotHubUnauthorizedAccess");
        }
    }
}

#[tokio::test]
async fn any_date_is_an_api_version_and_nothing_else() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let token = hub.token_of("iothubowner").await;

    for version in ["2018-06-30", "2021-04-12", "2024-03-31", "2018-09-01-preview"] {
        let path = format!("/devices/d1?api-version={version}");
        assert_eq!(with_token(&hub, &path, &token).await.status, 200, "{version}");
    }
    for query in ["", "?api-version=", "?api-version=latest", "?api-version=2021-4-12"] {
        let reply = with_token(&hub, &format!("/devices/d1{query}"), &token).await;
        reply.assert_error(400, "InvalidProtocolVersion");
    }
}

#[tokio::test]
async fn an_unknown_path_and_method_have_published_bodies() {
    let hub = TestHub::start().await;

    let unknown = hub.get("/nowhere").await;
    let method = hub.call(Method::DELETE, "/devices", &[], "").await;

    unknown.assert_error(404, "InvalidOperation");
    method.assert_error(405, "InvalidOperation");
}

fn not_authorized(result: Result<holm_gateway::Admission, Refusal>) -> String {
    match result {
        Err(Refusal::NotAuthorized(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_device_logs_in_with_either_key_or_a_policy_that_may() {
    let hub = TestHub::start().await;
    let document = hub.device("d1").await;
    let end = hub.now_seconds() + 3600;
    let secondary = document["authentication"]["symmetricKey"]["secondaryKey"]
        .as_str()
        .unwrap();
    let secondary = SymmetricKey::from_base64(secondary).unwrap();
    let (device, service) = (hub.policy_key("device").await, hub.policy_key("service").await);
    let text = |token: SasToken| Credential::Token(token.to_text().expose().to_owned());

    let own = text(SasToken::sign("hub.test/devices/d1", end, None, &secondary));
    let policy = text(SasToken::sign("hub.test", end, Some("device"), &device));
    let powerless = text(SasToken::sign("hub.test", end, Some("service"), &service));
    let skewed = text(SasToken::sign("hub.test/devices/d1", end - 3800, None, &secondary));
    let late = text(SasToken::sign("hub.test/devices/d1", end - 4000, None, &secondary));

    assert!(hub.authenticate("d1", own.clone()).await.is_ok());
    assert!(hub.authenticate("d1", policy).await.is_ok());
    assert!(not_authorized(hub.authenticate("d1", powerless).await).contains("DeviceConnect"));
    assert!(hub.authenticate("d1", skewed).await.is_ok());
    assert!(not_authorized(hub.authenticate("d1", late).await).contains("ended"));
    assert!(not_authorized(hub.authenticate("d2", own).await).contains("not registered"));
    assert!(not_authorized(hub.authenticate("d1", Credential::None).await).contains("neither"));
}

#[tokio::test]
async fn a_device_token_opens_no_module_and_no_device_of_a_longer_name() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d10").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    let token = Credential::Token(hub.device_token("d1").await);

    assert!(hub.authenticate("d1", token.clone()).await.is_ok());
    not_authorized(hub.authenticate("d10", token.clone()).await);
    not_authorized(hub.authenticate("d1/m", token).await);
}

#[tokio::test]
async fn a_disabled_device_is_refused_with_its_modules() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    let tokens = (hub.device_token("d1").await, hub.device_token("d1/m").await);

    hub.update("/devices/d1", "*", json!({"status": "disabled"})).await.ok();

    assert!(not_authorized(hub.authenticate("d1", Credential::Token(tokens.0)).await).contains("disabled"));
    assert!(not_authorized(hub.authenticate("d1/m", Credential::Token(tokens.1)).await).contains("disabled"));
}

#[tokio::test]
async fn a_thumbprint_device_logs_in_by_its_certificate_only() {
    let hub = TestHub::start().await;
    let now = Timestamp::from_unix_millis(START);
    let authority = CertificateAuthority::create("somebody", 30, now).unwrap();
    let mine = authority.issue_client("d1", &[] as &[&str], 30, now).unwrap();
    let other = authority.issue_client("d1", &[] as &[&str], 30, now).unwrap();
    let print = mine.info().unwrap().sha1.to_uppercase();
    let body = json!({"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print}}});
    hub.put("/devices/d1", body).await.ok();
    hub.device("sas").await;
    let shown = |identity: &holm_identity::TlsIdentity| Credential::Certificate(identity.chain().to_vec().into());

    assert!(hub.authenticate("d1", shown(&mine)).await.is_ok());
    assert!(not_authorized(hub.authenticate("d1", shown(&other)).await).contains("thumbprint"));
    assert!(not_authorized(hub.authenticate("sas", shown(&mine)).await).contains("`sas`"));
    hub.turn_clock(31 * 24 * 3600);
    assert!(not_authorized(hub.authenticate("d1", shown(&mine)).await).contains("valid from"));
}

#[tokio::test]
async fn who_may_not_send_a_body_is_refused_before_it_is_read() {
    let hub = TestHub::start().await;
    let path = "/devices/d1?api-version=2021-04-12";
    let too_large = Bytes::from(vec![b' '; 2 * 1024 * 1024]);
    let token = hub.token_of("iothubowner").await;

    for path in [path, "/enrollments/e1?api-version=2021-10-01"] {
        let unknown = hub.raw(Method::PUT, path, &[], too_large.clone()).await;
        assert_eq!(unknown.status, 401, "{path}");
    }
    let known = hub
        .raw(Method::PUT, path, &[("authorization", &token)], too_large)
        .await;

    assert_eq!(known.status, 413);
}
