//! The generator and the brokers that it is meant for: mosquitto and NATS as Debian packages them, and the edge in a process of
//! its own.

use std::time::Duration;

use anyhow::Result;
use holm_bench::brokers::{Broker, Certificates, Kind, Product};
use holm_bench::load::{Outcome, Plan, run};
use holm_bench::schedule::Pace;

/// Half a second of load by three publishers on a fresh broker.
async fn load(product: Product, tls: bool) -> Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let certificates = Certificates::create(directory.path())?;
    let kind = Kind { product, tls };
    let broker = Broker::start(kind, &directory.path().join("broker"), &certificates, 3).await?;
    let plan = Plan {
        target: broker.target().clone(),
        publishers: (0..3).map(|number| broker.publisher(number)).collect::<Result<_>>()?,
        listeners: vec![broker.subscriber()?],
        payload_bytes: 256,
        window: 16,
        pace: Pace::Open { per_second: 300 },
        duration: Duration::from_millis(500),
        warm_up: Duration::ZERO,
        patience: Duration::from_secs(10),
        servers: vec![broker.pid()],
    };
    run(&plan).await
}

fn check(outcome: &Outcome) {
    // On a busy machine the last ones may not get out in time.
    assert_eq!(outcome.sent + outcome.unsent, 150);
    assert!(outcome.sent > 50, "{outcome:?}");
    assert_eq!((outcome.acknowledged, outcome.received), (outcome.sent, outcome.sent));
    assert_eq!(outcome.lost, 0);
    assert!(outcome.server.resident_kib > 1000, "{outcome:?}");
}

#[tokio::test]
async fn mosquitto_delivers_every_message_with_and_without_tls() {
    for tls in [false, true] {
        let outcome = load(Product::Mosquitto, tls).await.unwrap();

        check(&outcome);
    }
}

#[tokio::test]
async fn nats_delivers_every_message_with_and_without_tls() {
    for tls in [false, true] {
        let outcome = load(Product::Nats, tls).await.unwrap();

        check(&outcome);
    }
}

#[tokio::test]
async fn an_edge_passes_every_message_of_its_modules_to_the_module_that_the_route_names() {
    let outcome = load(Product::HolmEdge, true).await.unwrap();

    check(&outcome);
}
