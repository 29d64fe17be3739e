//! The memory of processes that are restarted now and then: each of their lives must be flat.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From when on a process has everything that it needs.
const SETTLED: Duration = Duration::from_secs(90);
/// How much more than then it may hold later, in parts of a hundred.
const MORE_PERCENT: u64 = 25;
/// What is always allowed: a page of the allocator here, a table that doubles there.
const ALWAYS_KIB: u64 = 8 * 1024;

#[derive(Debug)]
struct Life {
    began: Instant,
    /// The first that was seen after it had settled.
    settled_kib: Option<u64>,
    most_kib: u64,
    last_kib: u64,
}

/// What was seen of each process.
#[derive(Debug, Default)]
pub(super) struct Memory {
    lives: BTreeMap<&'static str, Vec<Life>>,
}

impl Memory {
    /// A process holds so much now.
    pub(super) fn note(&mut self, name: &'static str, kib: u64) {
        let lives = self.lives.entry(name).or_default();
        if lives.is_empty() {
            lives.push(Life::begin());
        }
        if let Some(life) = lives.last_mut() {
            (life.most_kib, life.last_kib) = (life.most_kib.max(kib), kib);
            if life.began.elapsed() >= SETTLED {
                life.settled_kib.get_or_insert(kib);
            }
        }
    }

    /// A process began anew.
    pub(super) fn restarted(&mut self, name: &'static str) {
        self.lives.entry(name).or_default().push(Life::begin());
    }

    /// A line for each process.
    ///
    /// # Panics
    /// When one grew.
    #[track_caller]
    pub(super) fn verdict(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, lives) in &self.lives {
            for life in lives {
                if let Some(settled) = life.settled_kib {
                    let limit = settled + settled * MORE_PERCENT / 100 + ALWAYS_KIB;
                    assert!(
                        life.last_kib <= limit,
                        "the {name} held {settled} KiB when it had settled and {} KiB at the end",
                        life.last_kib
                    );
                }
            }
            let shown = lives.iter().map(|life| match life.settled_kib {
                Some(settled) => format!("{settled} -> {}", life.last_kib),
                None => format!("{} (short)", life.last_kib),
            });
            let most = lives.iter().map(|life| life.most_kib).max().unwrap_or_default();
            lines.push(format!(
                "resident KiB of the {name}, in each life from when it had settled to its end: {}; at most {most}",
                shown.collect::<Vec<_>>().join(", ")
            ));
        }
        lines
    }
}

impl Life {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            settled_kib: None,
            most_kib: 0,
            last_kib: 0,
        }
    }
}
