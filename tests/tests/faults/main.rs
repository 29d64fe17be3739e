//! What survives when something breaks: a fault a test, with real processes. `docs/faults.md` has them all in one table.

mod clients;
mod disk;
mod engine;
mod hub_work;
mod link;
mod names;
mod scene;
mod soaks;
mod time;
