//! Edge, hub, or both, killed at random moments of the pump's story.
//!
//! The modules go on all the while. At the end each says what it did: the watcher and the summary must have taken every reading
//! that the sensor sent, once each and in order, and what they made of it and had acknowledged must be at the hub.

use std::collections::BTreeMap;

use super::ledger::{Arrivals, Ledger};
use super::story::Story;
use super::{Chance, Plan};
use crate::monitor::read_log;
use crate::patience;

/// The mean time from a restart to the next kill, in milliseconds.
const BETWEEN_MS: u64 = 6000;
/// The sensor's pause, in milliseconds.
const INTERVAL_MS: u64 = 10;
/// The longest time for which what was killed stays away, in milliseconds.
const AWAY_MS: u64 = 2000;
/// The modules whose messages go to the hub, and how they call the number of these.
const SENDERS: [(&str, &str); 2] = [("watcher", "alerts"), ("summary", "summaries")];

#[derive(Debug, Default)]
struct Killed {
    edge_alone: u32,
    hub_alone: u32,
    both: u32,
}

pub(super) fn run(plan: Plan) -> Vec<String> {
    let mut chance = Chance(plan.seed);
    let mut story = Story::pump(INTERVAL_MS);
    let began = story.processes();
    assert_eq!(began.len(), 3, "three modules run: {began:?}");
    let mut killed = Killed::default();
    let kills = (plan.time.as_millis() / u128::from(BETWEEN_MS)).max(1);
    for number in 1..=kills {
        std::thread::sleep(chance.millis(0, 2 * BETWEEN_MS));
        killed.once(&mut story, &mut chance);
        assert_eq!(
            story.processes(),
            began,
            "modules were restarted by kill {number}: {killed:?}"
        );
    }

    let sent = story.rest();
    for (module, _) in SENDERS {
        patience::wait(&format!("every reading at `{module}`"), patience::long(), || {
            let taken = story.readings(module);
            (taken == sent)
                .then_some(())
                .ok_or_else(|| format!("it took {taken} of {sent}"))
        });
    }
    story.deliver();
    assert_eq!(story.processes(), began, "modules were restarted: {killed:?}");
    let mut verdict = vec![format!(
        "killed the edge {} times, the hub {}, both {}; readings {sent}, each taken once and in order by both modules",
        killed.edge_alone, killed.hub_alone, killed.both
    )];
    verdict.extend(compare(&story));
    verdict.push("modules restarted 0".to_owned());
    story.end();
    verdict
}

impl Killed {
    fn once(&mut self, story: &mut Story, chance: &mut Chance) {
        let which = chance.below(3);
        let away = chance.millis(0, AWAY_MS);
        let edge_first = chance.below(2) == 0;
        let (edge, hub) = (which != 1, which != 0);
        match (edge, hub) {
            (true, true) => self.both += 1,
            (true, false) => self.edge_alone += 1,
            _ => self.hub_alone += 1,
        }
        if edge {
            story.edge.crash();
        }
        if hub {
            story.hub.crash();
        }
        std::thread::sleep(away);
        if edge && edge_first {
            story.edge.restart();
        }
        if hub {
            story.hub.restart();
        }
        if edge && !edge_first {
            story.edge.restart();
        }
    }
}

/// Compares the logs of the modules with the hub's; a line for each sender.
#[track_caller]
fn compare(story: &Story) -> Vec<String> {
    let mut arrivals: BTreeMap<String, Arrivals> = BTreeMap::new();
    read_log(&story.hub, |event| {
        let sender = event
            .module
            .clone()
            .unwrap_or_else(|| panic!("of no module: {}", event.line));
        arrivals.entry(sender).or_default().add(&event);
    });
    let expected: Vec<&str> = arrivals.keys().map(String::as_str).collect();
    assert_eq!(expected, ["summary", "watcher"], "senders at the hub");
    let line = |(sender, what): (&str, &str)| {
        let ledger = Ledger::read(&story.edge.holm(&["logs", sender]));
        let arrived = arrivals.get(sender).expect("it was just seen");
        let made = story.ask(sender)[what].as_u64();
        assert_eq!(made, Some(ledger.made.len() as u64), "`{sender}` and its log disagree");
        ledger.compare(sender, arrived);
        format!(
            "{what}: made {}, acknowledged {}, at the hub {}; lost 0, in order, duplicates {}",
            ledger.made.len(),
            ledger.stored.len(),
            arrived.first.len(),
            arrived.duplicates()
        )
    };
    SENDERS.into_iter().map(line).collect()
}
