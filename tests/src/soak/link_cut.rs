//! A long cut of the link under load.

use std::time::Duration;

use super::Plan;
use super::story::Story;

/// How much the edge's resident set may grow between the first minute and the end, in KiB.
const GROWTH_KIB: u64 = 10 * 1024;

pub(super) fn run(plan: Plan) -> Vec<String> {
    let story = Story::start(1);
    let settling = Duration::from_secs(60).min(plan.time / 10);
    let before = story.sent();

    story.link.cut();
    std::thread::sleep(settling);
    let early = story.edge.daemon().resident_kib();
    std::thread::sleep(plan.time.saturating_sub(settling));
    let late = story.edge.daemon().resident_kib();
    story.link.restore();

    let sent = story.rest();
    let tally = story.read_all(sent);
    let rate = (sent - before) / plan.time.as_secs().max(1);
    assert!(
        late <= early + GROWTH_KIB,
        "the edge grew from {early} to {late} KiB while the link was cut"
    );
    vec![
        format!(
            "resident set {early} KiB after {} s, {late} KiB at the end of the cut",
            settling.as_secs()
        ),
        format!(
            "readings {sent}, about {rate} a second; lost 0, duplicates {}",
            tally.duplicates()
        ),
    ]
}
