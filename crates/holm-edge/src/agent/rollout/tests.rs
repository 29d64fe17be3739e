//! The rollout by itself, and a device around it whose power is cut after every step.

mod device;

use holm_model::Timestamp;
use serde_json::json;

use super::*;
use device::{Device, Outcome, edition};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn deployed(version: u64, image: &str) -> Event {
    Event::Deployed {
        edition: edition(version, &[("m", image)]),
        at: at(100 * i64::try_from(version).unwrap()),
    }
}

fn prepared(version: u64) -> Event {
    Event::Prepared {
        version,
        at: at(100 * i64::try_from(version).unwrap() + 50),
        excused: BTreeSet::new(),
    }
}

fn failed(began: Timestamp) -> Event {
    let id = ModuleId::new("m").unwrap();
    Event::Failed {
        began,
        reasons: vec![(id, "it fell".to_owned())],
    }
}

/// A rollout after events, each of which changes something.
fn after(events: impl IntoIterator<Item = Event>) -> Rollout {
    events.into_iter().fold(Rollout::default(), |rollout, event| {
        let told = format!("{event:?}");
        rollout.after(event).expect(&told)
    })
}

/// Version 1 is good.
fn one() -> [Event; 2] {
    [deployed(1, "a"), Event::Passed { began: at(100) }]
}

/// Version 2 was taken back.
fn two_taken_back() -> Rollout {
    after(
        one()
            .into_iter()
            .chain([deployed(2, "b"), prepared(2), failed(at(250))]),
    )
}

fn versions(rollout: &Rollout) -> (Option<u64>, Option<u64>, Option<u64>) {
    let version = |edition: Option<&Edition>| edition.map(|edition| edition.version);
    (
        version(rollout.in_force()),
        version(rollout.good()),
        version(rollout.next()),
    )
}

#[test]
fn an_edition_comes_into_force_when_it_is_prepared_and_is_good_when_it_has_passed() {
    let mut rollout = after(one());
    assert_eq!(
        (rollout.phase(), versions(&rollout)),
        (Phase::Committed, (Some(1), Some(1), None))
    );

    rollout = rollout.after(deployed(2, "b")).unwrap();
    assert_eq!(
        (rollout.phase(), versions(&rollout)),
        (Phase::Preparing, (Some(1), Some(1), Some(2)))
    );
    rollout = rollout.after(prepared(2)).unwrap();
    assert_eq!(
        (rollout.phase(), versions(&rollout)),
        (Phase::Trial, (Some(2), Some(1), None))
    );
    rollout = rollout.after(Event::Passed { began: at(250) }).unwrap();

    assert_eq!(
        (rollout.phase(), versions(&rollout)),
        (Phase::Committed, (Some(2), Some(2), None))
    );
}

#[test]
fn one_that_fails_is_taken_back_and_not_tried_again_by_itself() {
    let rollout = two_taken_back();

    assert_eq!(
        (rollout.phase(), versions(&rollout)),
        (Phase::TakenBack, (Some(1), Some(1), None))
    );
    assert_eq!(rollout.refused().unwrap().told(), "m: it fell");
    assert_eq!(
        rollout.after(deployed(2, "b")),
        None,
        "the hub's twin is read again at every connection"
    );
    let again = rollout.after(deployed(3, "b")).unwrap();
    assert_eq!(
        versions(&again),
        (Some(1), Some(1), Some(3)),
        "set anew, it is wanted anew"
    );
    let retried = rollout.after(Event::Retry).unwrap();
    assert_eq!(
        (versions(&retried), retried.refused()),
        ((Some(1), Some(1), Some(2)), None)
    );
    assert_eq!(retried.after(Event::Retry), None);
}

#[test]
fn the_good_one_deployed_again_ends_whatever_went_on() {
    let on_trial = after(one().into_iter().chain([deployed(2, "b"), prepared(2)]));

    for rollout in [on_trial, two_taken_back()] {
        let reverted = rollout.after(deployed(3, "a")).unwrap();

        assert_eq!(
            (reverted.phase(), versions(&reverted)),
            (Phase::Committed, (Some(3), Some(3), None))
        );
    }
}

#[test]
fn a_first_deployment_is_in_force_at_once_and_stays_so_until_it_is_replaced() {
    let first = after([deployed(1, "bad")]);

    assert_eq!((first.phase(), versions(&first)), (Phase::Trial, (Some(1), None, None)));
    assert_eq!(first.after(failed(at(100))), None, "there is nothing to go back to");
    let second = first.after(deployed(2, "b")).unwrap();
    assert_eq!(versions(&second), (Some(2), None, None));
}

#[test]
fn what_is_deployed_during_a_trial_is_made_ready_meanwhile() {
    let rollout = after(
        one()
            .into_iter()
            .chain([deployed(2, "b"), prepared(2), deployed(3, "c")]),
    );
    assert_eq!(versions(&rollout), (Some(2), Some(1), Some(3)));

    let failed = rollout.after(failed(at(250))).unwrap();
    let overtaken = rollout.after(prepared(3)).unwrap();

    assert_eq!(
        (versions(&failed), failed.refused()),
        ((Some(1), Some(1), Some(3)), None)
    );
    assert_eq!(versions(&overtaken), (Some(3), Some(1), None));
    assert_eq!(
        overtaken.after(Event::Passed { began: at(250) }),
        None,
        "that trial is over"
    );
}

#[test]
fn the_record_is_read_back_as_it_was_written() {
    let trial = after(
        one()
            .into_iter()
            .chain([deployed(2, "b"), prepared(2), deployed(3, "c")]),
    );
    for rollout in [after([deployed(1, "a")]), trial, two_taken_back()] {
        let document = rollout.to_document();

        assert_eq!(Rollout::from_document(document.as_ref()), rollout);
    }
    let before_trials = json!({"desired": one_desired(), "version": 7});
    let read = Rollout::from_document(Some(&before_trials));
    assert_eq!(
        (read.phase(), versions(&read)),
        (Phase::Committed, (Some(7), Some(7), None))
    );
}

fn one_desired() -> Value {
    edition(1, &[("m", "a")]).to_value()["desired"].take()
}

/// What may be deployed after a good edition, and what must come of it.
fn scenarios() -> Vec<(Edition, Outcome)> {
    vec![
        (
            edition(2, &[("a", "good-2"), ("b", "good-2"), ("c", "good-2")]),
            Outcome::New,
        ),
        (edition(2, &[("a", "good-1"), ("c", "good-2")]), Outcome::New),
        (edition(2, &[("a", "good-2"), ("job", "ends-well")]), Outcome::New),
        (edition(2, &[("a", "good-2"), ("b", "crashes-once")]), Outcome::New),
        (edition(2, &[("a", "good-2"), ("b", "crashes")]), Outcome::Old),
        (edition(2, &[("c", "sick")]), Outcome::Old),
        (edition(2, &[("a", "good-2"), ("b", "starts-never")]), Outcome::Old),
        (edition(2, &[("a", "good-2"), ("b", "no-image")]), Outcome::Waiting),
    ]
}

#[test]
fn a_power_cut_after_any_step_ends_in_the_old_or_the_new_edition() {
    for (new, outcome) in scenarios() {
        let steps = Device::with_good().roll_out(&new, outcome, &[]);
        assert!(steps > 3, "{steps}");
        for cut in 0..=steps {
            Device::with_good().roll_out(&new, outcome, &[cut]);
        }
    }
}

#[test]
fn six_hundred_devices_with_power_cuts_anywhere_end_in_the_old_or_the_new_edition() {
    for seed in 0..600_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let all = scenarios();
        let (new, outcome) = &all[usize::try_from(draw(all.len() as u64)).unwrap()];
        let cuts: Vec<u64> = (0..=draw(5)).map(|_| draw(30)).collect();
        let run = std::panic::AssertUnwindSafe(|| Device::with_good().roll_out(new, *outcome, &cuts));
        assert!(
            std::panic::catch_unwind(run).is_ok(),
            "seed {seed}: {new:?} with cuts {cuts:?}"
        );
    }
}
