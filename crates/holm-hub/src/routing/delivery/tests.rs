//! Deliveries to endpoints that answer by a script, over a real log.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use holm_model::Timestamp;
use holm_queue::LaneKind;
use tokio::sync::mpsc;

use super::*;
use crate::events::Filing;

const NOW: i64 = 1_800_000_000_000;
/// No test sends more.
const BATCHES: usize = 64;

/// An endpoint that says what it is told to say, then takes everything.
#[derive(Debug)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: mpsc::Sender<Vec<u64>>,
    limits: Limits,
}

#[derive(Debug)]
enum Answer {
    Result(Result<(), SendError>),
    /// Does not answer any more.
    Silence,
}

impl Endpoint for Script {
    fn send<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<(), SendError>> {
        let sequences = batch.iter().map(|routed| routed.sequence).collect();
        self.asked.try_send(sequences).unwrap();
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            None => Box::pin(std::future::ready(Ok(()))),
            Some(Answer::Result(result)) => Box::pin(std::future::ready(result)),
            Some(Answer::Silence) => Box::pin(std::future::pending()),
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> String {
        "a script".to_owned()
    }
}

/// A log with a lane, and a delivery from it.
struct Stage {
    log: EventLog,
    lane: LaneId,
    health: Health,
    asked: mpsc::Receiver<Vec<u64>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Stage {
    async fn open(directory: &Path, messages: u64, limits: Limits, answers: Vec<Answer>) -> Self {
        let clock = Clock::new(|| Timestamp::from_unix_millis(NOW));
        let day = Duration::from_secs(24 * 3600);
        let log = EventLog::open(directory, 4, day, 1 << 30, &clock).unwrap();
        let lane = log.queue().lane("endpoint:e:1", LaneKind::UntilAcknowledged).unwrap();
        for _ in 0..messages {
            let mut message = Message::new("{}");
            message.system.set(SystemProperty::ConnectionDeviceId, "d1");
            let filing = Filing {
                lanes: vec![(lane, 0)],
                payload: message.encode(),
            };
            let filed = log.file_when_room("d1", clock.now(), &[filing]).await.unwrap();
            filed.await.unwrap();
        }
        let (health, (asking, asked)) = (Health::default(), mpsc::channel(BATCHES));
        let delivery = Delivery {
            name: "e".to_owned(),
            log: log.clone(),
            lane,
            health: health.clone(),
            dead_letters: None,
            max_waiting_bytes: 1 << 30,
            clock,
        };
        let endpoint = Script {
            answers: Arc::new(Mutex::new(answers.into())),
            asked: asking,
            limits,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        tokio::spawn(delivery.run(Box::new(endpoint), async { drop(stopped.await) }));
        Self {
            log,
            lane,
            health,
            asked,
            _stop: stop,
        }
    }

    /// The numbers that the endpoint was asked to take, in the next so many batches.
    async fn asked(&mut self, batches: usize) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        while all.len() < batches {
            all.push(self.asked.recv().await.unwrap());
        }
        all
    }

    async fn until_settled(&self, low_water: u64) {
        while self.log.queue().low_water(self.lane) != Some(low_water) {
            tokio::task::yield_now().await;
        }
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

fn at_most(messages: usize) -> Limits {
    Limits {
        messages,
        ..Limits::USUAL
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_of_a_batch_does_not_come_again_and_what_can_never_be_taken_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let later = SendError::Later {
        delivered: 3,
        after: None,
        why: "busy".to_owned(),
    };
    let never = SendError::Never {
        index: 2,
        why: "too large".to_owned(),
    };
    let answers = vec![
        Answer::Result(Err(SendError::later("away"))),
        Answer::Result(Err(later)),
        Answer::Result(Err(never)),
    ];

    let mut stage = Stage::open(directory.path(), 10, at_most(100), answers).await;
    let asked = stage.asked(4).await;
    stage.until_settled(10).await;

    assert_eq!(asked, [numbers(0..10), numbers(0..10), numbers(3..10), numbers(6..10)]);
    let counts = stage.health.read();
    assert_eq!(
        (counts.delivered, counts.rejected, counts.failures, counts.dropped),
        (9, 1, 2, 0)
    );
    assert_eq!(counts.last_rejection.unwrap().1, "too large");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_full_or_as_old_as_it_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        linger: Duration::from_secs(60),
        ..at_most(4)
    };

    let before = Instant::now();
    let mut stage = Stage::open(directory.path(), 10, limits, Vec::new()).await;
    let full = stage.asked(2).await;
    let at_once = before.elapsed();
    let rest = stage.asked(1).await;
    let lingered = before.elapsed();

    assert_eq!(full, [numbers(0..4), numbers(4..8)]);
    assert_eq!(rest, [numbers(8..10)]);
    assert!(at_once < Duration::from_secs(60) && lingered >= Duration::from_secs(60));
}

#[tokio::test]
async fn after_a_crash_no_more_than_the_batch_on_its_way_comes_again() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let answers = vec![Answer::Result(Ok(())), Answer::Silence];
    let mut before = Stage::open(first.path(), 12, at_most(4), answers).await;
    let taken = before.asked(2).await;

    // The process is killed between the delivery of the second batch and its record.
    copy_all(first.path(), second.path());
    let mut after = Stage::open(second.path(), 0, at_most(4), Vec::new()).await;
    let again = after.asked(2).await;

    assert_eq!(taken, [numbers(0..4), numbers(4..8)]);
    assert_eq!(again, [numbers(4..8), numbers(8..12)]);
}

#[test]
fn pauses_double_up_to_a_minute_and_half_of_each_is_chance() {
    let seconds = |failures, chance| pause(failures, None, chance).as_secs_f64();

    assert_eq!((seconds(1, 0), seconds(1, u16::MAX)), (0.5, 1.0));
    assert_eq!((seconds(4, 0), seconds(4, u16::MAX)), (4.0, 8.0));
    assert_eq!((seconds(1000, 0), seconds(1000, u16::MAX)), (30.0, 60.0));
    let asked = |seconds| pause(1, Some(Duration::from_secs(seconds)), 0).as_secs();
    assert_eq!((asked(120), asked(86_400)), (120, 300));
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&copy).unwrap();
            copy_all(&entry.path(), &copy);
        } else {
            std::fs::copy(entry.path(), copy).unwrap();
        }
    }
}
