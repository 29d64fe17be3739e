//! The generator and the peers that it is meant for, where they are installed.

use std::time::Duration;

use crate::brokers::{Broker, Certificates, Kind, Product};
use crate::load::{Plan, run};
use crate::schedule::Pace;

async fn every_message_arrives(product: Product) {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::create(directory.path()).unwrap();
    for tls in [false, true] {
        let place = directory.path().join(tls.to_string());
        let broker = Broker::start(Kind { product, tls }, &place, &certificates)
            .await
            .unwrap();
        let plan = Plan {
            target: broker.target().clone(),
            subscribers_at: broker.target().clone(),
            publishers: (0..3).map(|number| broker.publisher(number)).collect(),
            subscribers: vec![broker.subscriber()],
            payload_bytes: 256,
            window: 16,
            pace: Pace::Open { per_second: 300 },
            duration: Duration::from_millis(500),
            warm_up: Duration::ZERO,
            patience: Duration::from_secs(10),
            servers: vec![broker.pid()],
        };

        let outcome = run(&plan).await.unwrap();

        assert_eq!((outcome.sent, outcome.acknowledged, outcome.received), (150, 150, 150));
        assert_eq!(outcome.lost, 0);
        assert!(outcome.server.resident_kib > 1000, "{outcome:?}");
    }
}

#[tokio::test]
async fn mosquitto_delivers_every_message_with_and_without_tls() {
    every_message_arrives(Product::Mosquitto).await;
}

#[tokio::test]
async fn nats_delivers_every_message_with_and_without_tls() {
    every_message_arrives(Product::Nats).await;
}
