//! Short runs of the simulations: the code of `cargo xtask soak offline-days` and `storms`.
//!
//! The seed is new in each run and printed when something does not hold; `HOLM_SIM_SEED` gives one again.

use std::time::{SystemTime, UNIX_EPOCH};

use holm_client::Transport;
use holm_sim::story::{Plan, Trouble, run};

#[test]
fn without_the_hub_and_with_restarts_of_everything_nothing_is_lost_and_twins_are_equal() {
    let verdict = run(Plan::hours(Trouble::Offline, seed(), 8));

    println!("{}", verdict.join("; "));
}

#[test]
fn with_a_link_that_changes_all_the_time_nothing_is_lost_and_twins_are_equal() {
    let verdict = run(Plan::hours(Trouble::Storms, seed(), 4));

    println!("{}", verdict.join("; "));
}

#[test]
fn without_the_hub_the_same_holds_over_amqp() {
    let verdict = run(Plan::hours(Trouble::Offline, seed(), 8).over(Transport::Amqp));

    println!("{}", verdict.join("; "));
}

#[test]
fn with_a_link_that_changes_all_the_time_the_same_holds_over_amqp() {
    let verdict = run(Plan::hours(Trouble::Storms, seed(), 4).over(Transport::Amqp));

    println!("{}", verdict.join("; "));
}

fn seed() -> u64 {
    let given = std::env::var("HOLM_SIM_SEED").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    given.unwrap_or_else(|| now.map_or(1, |since| since.subsec_nanos().into()))
}
