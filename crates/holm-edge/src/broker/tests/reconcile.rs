//! A twin between a hub, an edge and a device, message by message: whatever the order, in the end all three agree.
//!
//! ```text
//!   hub <──requests, in order── edge <── reports, reads ── device
//!       ──answers, patches──>        ── news ──>
//! ```
//!
//! The edge's part is the order of `Serving`: one request at a time, changes from above behind its answer; a device that reads its
//! twin asks beside it. What is on its way is lost with the link. A restart keeps what is on disk, which is everything.

use std::collections::VecDeque;

use holm_model::twin::patch;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::broker::replica::{Above, Heard, Replica};

type Properties = Map<String, Value>;

#[derive(Clone, Debug)]
enum Step {
    LinkUp,
    LinkDown,
    Restart,
    /// Somebody changes desired properties at the hub.
    Desire(Properties),
    /// The device reports.
    Report(Properties),
    /// The device reads its twin.
    Read,
    /// The hub takes a request.
    Hub,
    /// The edge takes an answer or a change.
    Edge,
    /// The session of the device takes the answer to a read: a task of its own, which may be late.
    Session,
}

/// From the edge to the hub.
#[derive(Debug)]
enum Request {
    Twin { is_first: bool },
    Patch(Properties),
}

/// From the hub to the edge.
#[derive(Debug)]
enum Word {
    Twin { twin: Value, is_first: bool },
    Patched(u64),
    Desired(Properties),
}

/// What the edge's task of this twin waits for.
#[derive(Debug, PartialEq)]
enum Phase {
    Idle,
    Twin,
    /// The reported section as it will be above when the answer comes.
    Patch(Properties),
}

struct World {
    desired: (Properties, u64),
    reported: (Properties, u64),
    replica: Replica,
    is_up: bool,
    phase: Phase,
    above: Option<Properties>,
    to_hub: VecDeque<Request>,
    to_edge: VecDeque<Word>,
    /// Changes of desired properties that came while the task waited for an answer.
    behind: VecDeque<Properties>,
    /// Answers to reads that their task has not taken yet.
    reads: VecDeque<Above>,
    /// What the device made of its own reports, and of what it was told.
    said: Properties,
    told: (Properties, u64),
    /// The highest versions that the edge has shown.
    shown: (u64, u64),
}

impl World {
    /// After the first synchronisation, with the link down.
    fn new(desired: Properties, reported: Properties) -> Self {
        let mut world = Self {
            desired: (desired.clone(), 1),
            reported: (reported.clone(), 1),
            replica: Replica::default(),
            is_up: false,
            phase: Phase::Idle,
            above: None,
            to_hub: VecDeque::new(),
            to_edge: VecDeque::new(),
            behind: VecDeque::new(),
            reads: VecDeque::new(),
            said: reported,
            told: (desired, 1),
            shown: (1, 1),
        };
        let twin = Above::read(world.twin()).unwrap();
        world.replica.adopt(&twin, true);
        world
    }

    fn twin(&self) -> Value {
        let section = |(properties, version): &(Properties, u64)| {
            let mut section = properties.clone();
            section.insert("$version".to_owned(), json!(version));
            section
        };
        json!({"desired": section(&self.desired), "reported": section(&self.reported)})
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::LinkUp if !self.is_up => {
                self.is_up = true;
                self.ask_for_twin();
            }
            Step::LinkDown => self.cut(),
            Step::Restart => {
                self.cut();
                self.reads.clear();
                let kept = serde_json::to_string(&self.replica).unwrap();
                self.replica = serde_json::from_str(&kept).unwrap();
            }
            Step::Desire(changes) => {
                patch::apply(&mut self.desired.0, &changes);
                self.desired.1 += 1;
                let mut word = changes;
                word.insert("$version".to_owned(), json!(self.desired.1));
                if self.is_up {
                    self.to_edge.push_back(Word::Desired(word));
                }
            }
            Step::Report(changes) => {
                patch::apply(&mut self.said, &changes);
                self.replica.patch_reported(&changes).unwrap();
                self.send();
            }
            Step::Read if self.is_up => self.to_hub.push_back(Request::Twin { is_first: false }),
            Step::Hub => self.hub(),
            Step::Edge => self.edge(),
            Step::Session => {
                if let Some(above) = self.reads.pop_front()
                    && let Some(news) = self.replica.adopt(&above, false)
                {
                    self.tell(&news);
                }
            }
            Step::LinkUp | Step::Read => {}
        }
        self.check();
    }

    fn cut(&mut self) {
        self.is_up = false;
        self.phase = Phase::Idle;
        self.above = None;
        self.to_hub.clear();
        self.to_edge.clear();
        self.behind.clear();
    }

    fn ask_for_twin(&mut self) {
        self.above = None;
        self.phase = Phase::Twin;
        self.to_hub.push_back(Request::Twin { is_first: true });
    }

    fn hub(&mut self) {
        let word = match self.to_hub.pop_front() {
            None => return,
            Some(Request::Twin { is_first }) => Word::Twin {
                twin: self.twin(),
                is_first,
            },
            Some(Request::Patch(changes)) => {
                patch::apply(&mut self.reported.0, &changes);
                self.reported.1 += 1;
                Word::Patched(self.reported.1)
            }
        };
        self.to_edge.push_back(word);
    }

    fn edge(&mut self) {
        match self.to_edge.pop_front() {
            None => {}
            Some(Word::Twin { twin, is_first }) => {
                let above = Above::read(twin).unwrap();
                if !is_first {
                    return self.reads.push_back(above);
                }
                if let Some(news) = self.replica.adopt(&above, true) {
                    self.tell(&news);
                }
                self.above = Some(above.reported);
                self.phase = Phase::Idle;
                self.go_on();
            }
            Some(Word::Patched(version)) => {
                if let Phase::Patch(confirmed) = std::mem::replace(&mut self.phase, Phase::Idle) {
                    self.replica.confirm(&confirmed, Some(version));
                    self.above = Some(confirmed);
                }
                self.go_on();
            }
            Some(Word::Desired(changes)) => {
                self.behind.push_back(changes);
                self.go_on();
            }
        }
    }

    /// What the task does when no answer is awaited.
    fn go_on(&mut self) {
        self.send();
        while self.phase == Phase::Idle
            && let Some(changes) = self.behind.pop_front()
        {
            match self.replica.hear(&changes) {
                Heard::Applied => self.tell(&changes),
                Heard::Known => {}
                Heard::Missed => self.ask_for_twin(),
            }
        }
    }

    fn send(&mut self) {
        while self.phase == Phase::Idle
            && self.replica.is_pending()
            && let Some(above) = self.above.clone()
        {
            let (difference, reported) = (self.replica.difference_to(&above), self.replica.reported().clone());
            if difference.is_empty() {
                self.replica.confirm(&reported, None);
                self.above = Some(reported);
            } else {
                self.to_hub.push_back(Request::Patch(difference));
                self.phase = Phase::Patch(reported);
            }
        }
    }

    fn tell(&mut self, news: &Properties) {
        let version = news["$version"].as_u64().unwrap();
        assert!(version > self.told.1, "told {version} after {}", self.told.1);
        let mut news = news.clone();
        news.remove("$version");
        patch::apply(&mut self.told.0, &news);
        self.told.1 = version;
    }

    fn check(&mut self) {
        let now = (self.replica.desired_version(), self.replica.reported_version());
        assert!(
            now.0 >= self.shown.0 && now.1 >= self.shown.1,
            "{now:?} after {:?}",
            self.shown
        );
        assert!(
            now.0 <= self.desired.1 && now.1 <= self.reported.1,
            "a version that the hub has not given"
        );
        assert_eq!(self.replica.reported(), &self.said, "the device reads what it reported");
        self.shown = now;
    }

    /// The link comes back and everything arrives.
    fn settle(&mut self) {
        self.take(Step::LinkUp);
        for _ in 0..1000 {
            if self.to_hub.is_empty() && self.to_edge.is_empty() && self.reads.is_empty() {
                return;
            }
            self.take(Step::Hub);
            self.take(Step::Edge);
            self.take(Step::Session);
        }
        panic!("the twin does not come to rest");
    }
}

fn objects(with_nulls: bool) -> impl Strategy<Value = Properties> {
    let leaf = prop_oneof![
        2 => (0..3_i32).prop_map(|n| json!(n)),
        u32::from(with_nulls) => Just(Value::Null),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| json!(map))
    });
    proptest::collection::btree_map("[abc]", value, 0..3).prop_map(|map| map.into_iter().collect())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::LinkUp),
        1 => Just(Step::LinkDown),
        1 => Just(Step::Restart),
        3 => objects(true).prop_map(Step::Desire),
        3 => objects(true).prop_map(Step::Report),
        1 => Just(Step::Read),
        5 => Just(Step::Hub),
        5 => Just(Step::Edge),
        1 => Just(Step::Session),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Invariant 2 of the design, both ways: in the end hub, edge and device agree on both sections, and no version went back.
    #[test]
    fn hub_edge_and_device_agree_in_the_end(desired in objects(false), reported in objects(false), steps in steps()) {
        let mut world = World::new(desired, reported);

        for step in steps {
            world.take(step);
        }
        world.settle();

        prop_assert_eq!(world.replica.desired(), &world.desired.0);
        prop_assert_eq!(world.replica.desired_version(), world.desired.1);
        prop_assert_eq!(&world.reported.0, &world.said);
        prop_assert_eq!(world.replica.reported_version(), world.reported.1);
        prop_assert!(!world.replica.is_pending());
        prop_assert_eq!(&world.told.0, &world.desired.0);
    }
}
