//! The stories of the link once more, over AMQP: the same tests in a process of their own, whose edges and hubs speak that.

use std::process::Command;

use holm_client::Transport;

/// Names what edges and hubs of these tests speak with each other. Default: MQTT.
const VARIABLE: &str = "HOLM_TEST_UPLINK";

/// The tests in which the link matters.
const STORIES: &[&str] = &[
    "broker::tests::aside",
    "broker::tests::come_and_go",
    "broker::tests::downstream",
    "broker::tests::offline",
    "broker::tests::reconcile",
    "broker::tests::twins",
];

pub(super) fn transport() -> Transport {
    let named = std::env::var(VARIABLE).ok();
    named.map_or(Transport::Mqtt, |name| name.parse().unwrap())
}

#[test]
fn the_stories_of_the_link_hold_over_amqp_too() {
    let stories = Command::new(std::env::current_exe().unwrap())
        .args(STORIES)
        .args(["--test-threads", "4"])
        .env(VARIABLE, Transport::Amqp.name())
        // What a runner of one test tells it is not meant for these.
        .env_remove("NEXTEST")
        .output()
        .unwrap();

    let told = String::from_utf8_lossy(&stories.stdout);
    assert!(stories.status.success(), "{told}");
    let count = told.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(count > 40, "only {count} stories were found: {told}");
}
