//! A long cut of the link under load: the edge keeps everything on disk, and its memory stays where it is.

use std::time::{Duration, Instant};

use super::Plan;
use super::story::Story;
use super::tally::Tally;
use crate::monitor::read_log;

/// How much the edge's resident set may grow from the first sample that counts to the last, in KiB.
const GROWTH_KIB: u64 = 10 * 1024;
/// Buffers have found their size by then; in runs shorter than twice this, at half time.
const SETTLED: Duration = Duration::from_secs(60);
/// The pause between two looks at the edge.
const PERIOD: Duration = Duration::from_secs(5);
/// Sensors that make the load together.
const SENSORS: usize = 5;

/// The edge at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    resident_kib: u64,
    waiting: u64,
}

pub(super) fn run(plan: Plan) -> Vec<String> {
    let story = Story::flood(SENSORS, pause_ms(plan.rate));

    story.link.cut();
    let samples = watch(&story, plan.time);
    story.link.restore();
    let restored = Instant::now();
    let sent = story.rest();
    story.deliver();
    let caught_up = restored.elapsed();

    let duplicates = read_all(&story, sent);
    let verdict = judge(plan, &samples);
    story.end();
    [
        verdict,
        vec![format!(
            "readings {sent}, all at the hub {:.0} s after the link returned; lost 0, in order, duplicates {duplicates}",
            caught_up.as_secs_f64()
        )],
    ]
    .concat()
}

/// The pause of each sensor, by which they make a quarter more than the load that is wanted.
fn pause_ms(rate: u64) -> u64 {
    (SENSORS as u64 * 800 / rate.max(1)).max(1)
}

fn watch(story: &Story, time: Duration) -> Vec<Sample> {
    let began = Instant::now();
    let settled = SETTLED.min(time / 2);
    let mut samples = Vec::new();
    loop {
        samples.push(Sample {
            at: began.elapsed(),
            waiting: story.waiting(),
            resident_kib: story.edge.daemon().resident_kib(),
        });
        let now = began.elapsed();
        if now >= time {
            return samples;
        }
        // One sample falls on the moment that counts.
        let next = if now < settled { settled } else { time };
        std::thread::sleep(PERIOD.min(next.saturating_sub(now)));
    }
}

#[track_caller]
fn judge(plan: Plan, samples: &[Sample]) -> Vec<String> {
    let settled = SETTLED.min(plan.time / 2);
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        panic!("the edge was never looked at");
    };
    let early = samples.iter().find(|sample| sample.at >= settled).unwrap_or(last);
    let most = samples
        .iter()
        .map(|sample| sample.resident_kib)
        .max()
        .unwrap_or_default();
    let arrived = last.waiting.saturating_sub(first.waiting);
    let rate = u128::from(arrived) * 1000 / (last.at - first.at).as_millis().max(1);
    assert!(
        rate >= u128::from(plan.rate),
        "only {rate} messages a second arrived of the {} wanted: {samples:#?}",
        plan.rate
    );
    assert!(
        last.resident_kib <= early.resident_kib + GROWTH_KIB,
        "the edge grew while the link was cut: {samples:#?}"
    );
    vec![
        format!(
            "cut for {:.0} s, {rate} messages a second arrived, {} waited at the end",
            last.at.as_secs_f64(),
            last.waiting
        ),
        format!(
            "resident set {} KiB after {:.0} s, {} KiB at the end, {most} KiB at most, in {} samples",
            early.resident_kib,
            early.at.as_secs_f64(),
            last.resident_kib,
            samples.len()
        ),
    ]
}

/// Reads the hub's log; every reading of each sensor must be there, its first arrivals in order. Returns the repeats.
#[track_caller]
fn read_all(story: &Story, sent: u64) -> u64 {
    let mut tally = Tally::default();
    read_log(&story.hub, |event| {
        let id = event.system["messageId"].as_str().unwrap_or_default();
        let numbered = id
            .rsplit_once('-')
            .and_then(|(run, number)| Some((run, number.parse().ok()?)));
        let (run, number) = numbered.unwrap_or_else(|| panic!("not ours: {}", event.line));
        tally.add(run, number);
    });
    tally.assert_in_order();
    assert_eq!(
        tally.senders().len(),
        SENSORS,
        "a healthy module was restarted: {:?}",
        tally.senders()
    );
    assert_eq!(tally.arrived(), sent, "readings at the hub, and readings sent");
    tally.duplicates()
}
