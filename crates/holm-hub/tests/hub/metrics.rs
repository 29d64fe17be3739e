//! What an operator reads of a hub in figures.

use holm_gateway::metrics::Exposition;
use holm_gateway::{Credential, Ingest, Subscriptions, Twins};
use holm_identity::{SasToken, SymmetricKey};
use holm_model::Message;
use hyper::Method;
use serde_json::json;

use crate::support::{HOST, TestHub};

/// The figures as they are read, a line each.
async fn figures(hub: &TestHub) -> Vec<String> {
    let mut out = Exposition::default();
    hub.hub.backend().write_metrics(&mut out).await;
    out.into_text().lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_figures(figures: &[String], expected: &[&str]) {
    for line in expected {
        assert!(
            figures.iter().any(|figure| figure == line),
            "`{line}` is not in {figures:#?}"
        );
    }
}

#[tokio::test]
async fn a_new_hub_shows_every_figure_at_zero() {
    let hub = TestHub::start().await;

    let figures = figures(&hub).await;

    let values = figures.iter().filter(|line| !line.starts_with('#'));
    for line in values.filter(|line| !line.starts_with("holm_hub_event_log_bytes")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    assert_figures(
        &figures,
        &[
            "# TYPE holm_hub_event_log_bytes gauge",
            "# TYPE holm_hub_messages_total counter",
        ],
    );
}

#[tokio::test]
async fn what_devices_do_is_counted() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let backend = hub.hub.backend();

    let mut bytes = 0;
    for body in ["one", "three"] {
        let message = Message::new(body);
        bytes += message.counted_bytes();
        backend.ingest(&client.admission, message).await.unwrap().await.unwrap();
    }
    let large = backend
        .ingest(&client.admission, Message::new(vec![0; 256 * 1024 + 1]))
        .await;
    backend
        .patch_reported(&client.admission, json!({"a": 1}), None)
        .await
        .unwrap();
    let refused = backend.patch_reported(&client.admission, json!({"a.b": 1}), None).await;

    assert!(large.is_err() && refused.is_err());
    assert_figures(
        &figures(&hub).await,
        &[
            "holm_hub_sessions 1",
            "holm_hub_messages_total 2",
            &format!("holm_hub_message_bytes_total {bytes}"),
            "holm_hub_messages_refused_total{reason=\"too_large\"} 1",
            "holm_hub_twin_updates_total{part=\"reported\"} 1",
            "holm_hub_twin_updates_refused_total{part=\"reported\"} 1",
        ],
    );
}

#[tokio::test]
async fn what_back_ends_do_is_counted() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    hub.patch("/twins/d1", json!({"properties": {"desired": {"a": 1}}}))
        .await
        .ok();
    hub.patch("/twins/d1", json!({"properties": {"desired": {"a": 1_i64 << 60}}}))
        .await;
    hub.post(
        "/twins/d1/methods",
        json!({"methodName": "m", "connectTimeoutInSeconds": 0}),
    )
    .await;
    for _ in 0..3 {
        hub.call(Method::POST, "/devices/d1/messages/deviceBound", &[], "x")
            .await;
    }

    assert_figures(
        &figures(&hub).await,
        &[
            "holm_hub_twin_updates_total{part=\"desired\"} 1",
            "holm_hub_twin_updates_refused_total{part=\"desired\"} 1",
            "holm_hub_method_calls_total{outcome=\"not_online\"} 1",
            "holm_hub_c2d_sent_total 3",
            "holm_hub_c2d_waiting 3",
            // The device, the twin, three messages.
            "holm_hub_requests_total{status=\"2xx\"} 5",
            "holm_hub_requests_total{status=\"4xx\"} 2",
        ],
    );
}

#[tokio::test]
async fn a_proof_that_is_not_good_is_counted_by_its_reason() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let key = SymmetricKey::from_bytes([9; 32]).unwrap();
    let token = |resource: &str, end: i64| {
        let token = SasToken::sign(resource, hub.now_seconds() + end, None, &key);
        Credential::Token(token.to_text().expose().to_owned())
    };
    let own = format!("{HOST}/devices/d1");

    for (identity, credential) in [
        ("d1", token(&own, 60)),
        ("d1", token(&own, 60)),
        ("d1", token(&own, -3600)),
        ("d1", token("elsewhere/devices/d1", 60)),
        ("d1", Credential::Token("nonsense".to_owned())),
        ("d1", Credential::None),
        ("nobody", token(&own, 60)),
    ] {
        assert!(hub.authenticate(identity, credential).await.is_err());
    }
    let reply = hub
        .raw(Method::GET, "/devices/d1?api-version=2021-04-12", &[], "".into())
        .await;
    reply.assert_error(401, "IotHubUnauthorized");

    assert_figures(
        &figures(&hub).await,
        &[
            "holm_hub_authentications_refused_total{reason=\"wrong_key\"} 2",
            "holm_hub_authentications_refused_total{reason=\"ended\"} 1",
            "holm_hub_authentications_refused_total{reason=\"other_resource\"} 1",
            "holm_hub_authentications_refused_total{reason=\"malformed\"} 1",
            "holm_hub_authentications_refused_total{reason=\"no_proof\"} 2",
            "holm_hub_authentications_refused_total{reason=\"not_registered\"} 1",
        ],
    );
}
