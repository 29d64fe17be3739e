//! Long runs with faults: what must hold after hours holds here after as many as you give it.
//!
//! Each scenario starts its own hub and edge, breaks something at moments chosen by the seed, and at the end compares what the
//! modules say they sent with what the hub's log holds. Short runs of the same code are tests (`tests/faults`).

mod crowd;
mod fleet;
mod hub_kills;
mod kills;
mod ledger;
mod link_cut;
mod power_cuts;
mod story;
mod tally;
mod upgrade;

use std::time::Duration;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Chooses the moments.
    pub seed: u64,
    /// How long the faults last.
    pub time: Duration,
    /// Messages a second that must be reached where a scenario is about load; clients that send one a second where it is
    /// about clients.
    pub rate: u64,
}

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does and what must hold.
    pub about: &'static str,
    /// How long it runs when nothing is said.
    pub usual: Duration,
    /// Runs it and returns what was measured, one line each.
    ///
    /// # Panics
    /// When something that must hold does not; with what was found.
    pub run: fn(Plan) -> Vec<String>,
}

/// The load that the scenarios promise, in messages a second.
pub const RATE: u64 = 1000;

/// The scenario of that name.
#[must_use]
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fleet",
        about: "devices over every protocol at a hub and again through an edge, back ends on SDKs, hub and edge killed and \
                restarted: nothing acknowledged is lost, offsets only rise, memory is flat",
        usual: Duration::from_secs(3600),
        run: fleet::run,
    },
    Scenario {
        name: "hub-kills",
        about: "kills the hub again and again under three devices: nothing acknowledged is lost, order is kept",
        usual: Duration::from_secs(60),
        run: hub_kills::run,
    },
    Scenario {
        name: "kills",
        about: "kills edge, hub, or both, every six seconds: nothing is lost, order is kept, no module is restarted",
        usual: Duration::from_secs(120),
        run: kills::run,
    },
    Scenario {
        name: "link-cut",
        about: "cuts the link under 1,000 messages a second: the edge's memory stays, everything is delivered afterwards",
        usual: Duration::from_secs(600),
        run: link_cut::run,
    },
    Scenario {
        name: "power-cuts",
        about: "cuts a device's power during deployments, a cut for each six seconds: it comes back old or new, whole",
        usual: Duration::from_secs(3000),
        run: power_cuts::run,
    },
    Scenario {
        name: "upgrade",
        about: "replaces the edge's program under 1,000 clients (`--rate`), containers and processes, and back: nothing is lost, \
                no module is restarted",
        usual: Duration::from_secs(120),
        run: upgrade::run,
    },
];

/// A small generator (SplitMix64): the same moments for the same seed.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A while between two bounds, in milliseconds.
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to.saturating_sub(from)))
    }
}
