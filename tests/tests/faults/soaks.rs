//! Short runs of the soak scenarios: the code of `cargo xtask soak`, for as long as a test may take.
//!
//! The seed is new in each run and printed; `HOLM_E2E_SEED` gives one again.
#![allow(clippy::print_stderr, reason = "a test with random moments says which they were")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holm_e2e::Need;
use holm_e2e::soak::{Plan, scenario};

#[test]
fn killed_edge_and_hub_lose_nothing_acknowledged_and_restart_no_module() {
    run("kills", 24, 0);
}

#[test]
fn a_killed_hub_loses_nothing_acknowledged() {
    run("hub-kills", 6, 0);
}

#[test]
fn a_cut_link_under_load_leaves_the_edges_memory_and_loses_nothing() {
    // The rate is that of the machine and the build; the soak has one to reach.
    run("link-cut", 8, 1);
}

#[test]
fn an_upgrade_and_its_return_under_a_crowd_lose_nothing_and_restart_no_module() {
    if Need::all(&[Need::Docker, Need::Python, Need::NextBuild]) {
        run("upgrade", 0, 100);
    }
}

#[test]
fn a_fleet_over_every_protocol_and_its_back_ends_outlive_a_hub_and_an_edge_killed_or_stopped() {
    if Need::all(&[Need::Python, Need::Node]) {
        run("fleet", 20, 0);
    }
}

#[test]
fn a_power_cut_during_a_deployment_ends_in_the_old_or_the_new_one() {
    if Need::all(&[Need::PowerDisk]) {
        run("power-cuts", 60, 0);
    }
}

#[track_caller]
fn run(name: &str, seconds: u64, rate: u64) {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let plan = Plan {
        seed: seed(),
        time: Duration::from_secs(seconds),
        rate,
    };
    eprintln!("{name}: HOLM_E2E_SEED={}", plan.seed);

    let scenario = scenario(name).expect("the scenario exists");
    let verdict = (scenario.run)(plan);

    eprintln!("{name}: {}", verdict.join("; "));
}

fn seed() -> u64 {
    let given = std::env::var("HOLM_E2E_SEED").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    given.unwrap_or_else(|| now.map_or(1, |since| since.subsec_nanos().into()))
}
