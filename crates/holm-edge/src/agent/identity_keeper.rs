//! Keeps the identities at the hub as the deployment wants them: at once when it changes, hourly otherwise, and with growing
//! waits while the hub is out of reach. Modules are not held up by it: those that have an identity go on.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use holm_model::ModuleId;
use holm_net::error_chain;

use super::Inner;
use crate::identities::Identities;
use crate::keys::ModuleKeys;

/// How often the hub is asked when nothing changes.
const PERIOD: Duration = Duration::from_secs(3600);
/// The first wait after a failure, and the longest; waits double in between.
const WAITS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// An update on its way; what went wrong is told for people.
pub(super) type Updating<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// The identities of modules, and how they are brought up to date at the hub.
pub trait IdentitySource: ModuleKeys {
    /// As [`Identities::update`].
    fn update<'a>(&'a self, wanted: Option<&'a BTreeSet<ModuleId>>) -> Updating<'a>;
}

impl IdentitySource for Identities {
    fn update<'a>(&'a self, wanted: Option<&'a BTreeSet<ModuleId>>) -> Updating<'a> {
        Box::pin(async move { self.update(wanted).await.map_err(|error| error_chain(&error)) })
    }
}

pub(super) async fn run(agent: &Inner) {
    let mut wanted = agent.wanted.subscribe();
    let mut wait = WAITS.0;
    loop {
        let modules = wanted.borrow_and_update().clone();
        // A connection that was made before this attempt says nothing about what comes after it.
        agent.reachable.notified().now_or_never();
        let outcome = agent.identities.0.update(modules.as_ref()).await;
        let error = outcome.err();
        let pause = match &error {
            None => {
                wait = WAITS.0;
                PERIOD
            }
            Some(error) => {
                tracing::warn!(
                    error,
                    "module identities are not up to date; what is known stays in force"
                );
                let pause = wait;
                wait = (wait * 2).min(WAITS.1);
                pause
            }
        };
        let has_failed = error.is_some();
        agent.memory().identities_tried = Some((modules, error));
        agent.wake.notify_one();
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => wait = WAITS.0,
                Err(_) => return,
            },
            () = tokio::time::sleep(pause) => {}
            // A connection that was just made says that the hub can be reached again.
            () = agent.reachable.notified(), if has_failed => wait = WAITS.0,
        }
    }
}
