//! Edge, hub, or both, killed at random moments of the story.

use super::story::Story;
use super::{Chance, Plan};

/// How often something is killed.
const KILLS: u64 = 20;

pub(super) fn run(plan: Plan) -> Vec<String> {
    let mut chance = Chance(plan.seed);
    let mut story = Story::start(10);
    let between = u64::try_from(plan.time.as_millis()).unwrap_or(u64::MAX) / KILLS;
    let (mut edges, mut hubs) = (0, 0);
    for _ in 0..KILLS {
        std::thread::sleep(chance.millis(0, 2 * between));
        let which = chance.below(3);
        if which != 0 {
            story.hub.crash();
            hubs += 1;
        }
        if which != 1 {
            story.edge.crash();
            edges += 1;
        }
        if which != 0 {
            story.hub.restart();
        }
        if which != 1 {
            story.edge.restart();
        }
    }
    let sent = story.rest();
    let tally = story.read_all(sent);
    vec![
        format!("edge killed {edges} times, hub {hubs} times, readings {sent}"),
        format!("lost 0, duplicates {}, modules restarted 0", tally.duplicates()),
    ]
}
