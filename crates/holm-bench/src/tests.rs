//! The generator against a small broker of the test's own, whose faults are known.

mod echo;

use std::time::Duration;

use crate::client::{Login, Target};
use crate::clock::SECOND;
use crate::load::{ListenerPlan, Outcome, Plan, PublisherPlan, run};
use crate::schedule::Pace;
use echo::{Echo, Faults};

/// Long enough for a machine that is busy with other things, short enough for the runs that end by it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A quarter of a second of load: two publishers, one subscriber.
fn plan(broker: &Echo, pace: Pace) -> Plan {
    let target = Target {
        address: broker.address(),
        tls: None,
    };
    let publisher = |number: u32| PublisherPlan {
        login: Login::anonymous(format!("publisher-{number}")),
        topic: format!("load/{number}"),
    };
    Plan {
        target: target.clone(),
        publishers: (0..2).map(publisher).collect(),
        listeners: vec![ListenerPlan::Subscriber {
            target,
            login: Login::anonymous("subscriber"),
            filter: "load/#".into(),
        }],
        payload_bytes: 256,
        window: 8,
        pace,
        duration: Duration::from_millis(250),
        warm_up: Duration::ZERO,
        patience: PATIENCE,
        servers: Vec::new(),
    }
}

async fn outcome(faults: Faults, pace: Pace) -> Outcome {
    let broker = Echo::start(faults).await;
    run(&plan(&broker, pace)).await.unwrap()
}

#[tokio::test]
async fn every_message_of_an_open_loop_is_sent_acknowledged_and_received_once() {
    let outcome = outcome(Faults::default(), Pace::Open { per_second: 400 }).await;

    // On a machine that is busy the last may be due when the time is over: then it is told as unsent.
    assert_eq!(outcome.sent + outcome.unsent, 100);
    assert!(outcome.sent >= 90, "{outcome:?}");
    assert_eq!((outcome.acknowledged, outcome.received), (outcome.sent, outcome.sent));
    assert_eq!((outcome.lost, outcome.duplicates, outcome.out_of_order), (0, 0, 0));
    assert_eq!(
        (outcome.puback.len(), outcome.end_to_end.len()),
        (outcome.sent, outcome.sent)
    );
    // The last of 100 messages is due at 247.5 ms.
    assert!(
        outcome.unsent > 0 || outcome.acknowledged_seconds >= 0.247,
        "{outcome:?}"
    );
    assert!(outcome.received_per_second() <= 404.1, "{outcome:?}");
}

#[tokio::test]
async fn a_closed_loop_sends_far_more_than_a_window_and_all_of_it_arrives() {
    let outcome = outcome(Faults::default(), Pace::Closed).await;

    assert!(outcome.sent > 100, "{outcome:?}");
    assert_eq!(outcome.acknowledged, outcome.sent);
    assert_eq!(outcome.received, outcome.sent);
    assert_eq!((outcome.lost, outcome.unsent), (0, 0));
}

#[tokio::test]
async fn a_message_that_was_acknowledged_and_not_delivered_is_lost() {
    let faults = Faults {
        swallow: Some(17),
        ..Faults::default()
    };

    let outcome = outcome(faults, Pace::Open { per_second: 400 }).await;

    assert!(outcome.sent > 17, "{outcome:?}");
    assert_eq!(
        (outcome.acknowledged, outcome.received),
        (outcome.sent, outcome.sent - 1)
    );
    assert_eq!(outcome.lost, 1);
}

#[tokio::test]
async fn a_message_that_was_neither_acknowledged_nor_delivered_is_not_lost() {
    let faults = Faults {
        ignore: Some(99),
        ..Faults::default()
    };

    let outcome = outcome(faults, Pace::Open { per_second: 400 }).await;

    // On a busy machine the time may end before the hundredth is due.
    assert!(outcome.sent > 50, "{outcome:?}");
    assert_eq!(
        (outcome.acknowledged, outcome.received),
        (outcome.sent - 1, outcome.sent - 1)
    );
    assert_eq!(outcome.lost, 0);
}

#[tokio::test]
async fn a_message_that_is_delivered_twice_is_a_duplicate() {
    let faults = Faults {
        repeat: Some(5),
        ..Faults::default()
    };

    let outcome = outcome(faults, Pace::Open { per_second: 400 }).await;

    assert!(outcome.sent > 5, "{outcome:?}");
    assert_eq!(
        (outcome.received, outcome.duplicates, outcome.lost),
        (outcome.sent, 1, 0)
    );
}

#[tokio::test]
async fn a_stalled_broker_is_charged_for_every_message_that_was_due_meanwhile() {
    let stall = Duration::from_millis(100);
    let faults = Faults {
        stall: Some((20, stall)),
        ..Faults::default()
    };

    let outcome = outcome(faults, Pace::Open { per_second: 400 }).await;

    // 40 messages are due in 100 ms: a generator that waited for answers before it counted would see the window of late
    // ones, 16, and no more.
    assert_eq!((outcome.sent + outcome.unsent, outcome.lost), (100, 0));
    let late = |per_mille| outcome.puback.quantile(per_mille).unwrap();
    assert!(late(1000) >= 95 * SECOND / 1000, "{outcome:?}");
    assert!(
        late(750) >= 20 * SECOND / 1000,
        "a quarter waited 20 ms or more: {outcome:?}"
    );
}

#[tokio::test]
async fn messages_of_the_warm_up_are_counted_but_not_timed() {
    let broker = Echo::start(Faults::default()).await;
    let plan = Plan {
        warm_up: Duration::from_millis(125),
        ..plan(&broker, Pace::Open { per_second: 400 })
    };

    let outcome = run(&plan).await.unwrap();

    // On a machine that is busy with other things the last ones may not get out in time.
    let late = outcome.unsent;
    assert_eq!((outcome.received + late, outcome.lost), (100, 0));
    assert_eq!((outcome.puback.len() + late, outcome.end_to_end.len() + late), (50, 50));
    assert!(late < 50, "{late} of 100 messages were not sent");
}

#[tokio::test]
async fn a_refused_login_is_an_error_that_names_the_client() {
    let broker = Echo::start(Faults {
        refuse: true,
        ..Faults::default()
    })
    .await;

    let error = run(&plan(&broker, Pace::Closed)).await.unwrap_err();

    let told = format!("{error:#}");
    assert!(told.contains("`subscriber` can't log in"), "{told}");
    assert!(told.contains("not authorized"), "{told}");
}
