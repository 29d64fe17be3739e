//! The broker over a real queue, below a small hub that speaks the real protocol through the real front.

mod amqp;
mod aside;
mod come_and_go;
mod configuration;
mod dead_letters;
mod downstream;
mod edge;
mod front;
pub(crate) mod hub;
pub(crate) mod keys;
mod local;
mod offline;
mod quota;
mod reconcile;
mod twins;

use std::time::Duration;

use holm_model::{Identity, ModuleId};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

const HUB_HOST: &str = "hub.test";
const EDGE_HOST: &str = "edge.test";

pub(crate) fn module(name: &str) -> ModuleId {
    ModuleId::new(name).unwrap()
}

/// A module of the edge, by its name; a device below it begins with `leaf`.
pub(crate) fn identity(name: &str) -> Identity {
    if name.starts_with("leaf") {
        return name.parse().unwrap();
    }
    format!("box/{name}").parse().unwrap()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("waited in vain until {what}");
    }
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}
