//! Keeps the identities at the hub as the deployment wants them: at once when it changes, hourly otherwise, and with growing
//! waits while the hub is out of reach or refuses one of them. Modules are not held up by it: those that have an identity go
//! on. An identity that is not wanted any more is deleted when its module has ended and what it sent has arrived.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use holm_model::ModuleId;
use holm_net::error_chain;
use tokio::time::Instant;

use super::Inner;
use crate::broker::Broker;
use crate::identities::{Identities, MayGo};
use crate::keys::ModuleKeys;

/// How often the hub is asked when nothing changes.
const PERIOD: Duration = Duration::from_secs(3600);
/// The first wait after a failure, and the longest; waits double in between.
const WAITS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The same while a module that is not wanted any more has something on its way.
const LEAVING_WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// An update on its way; what went wrong is told for people.
pub(super) type Updating<'a> = Pin<Box<dyn Future<Output = Result<Vec<ModuleId>, String>> + Send + 'a>>;

/// The identities of modules, and how they are brought up to date at the hub.
pub trait IdentitySource: ModuleKeys {
    /// As [`Identities::update`].
    fn update<'a>(&'a self, wanted: Option<&'a BTreeSet<ModuleId>>, may_go: MayGo<'a>) -> Updating<'a>;
}

impl IdentitySource for Identities {
    fn update<'a>(&'a self, wanted: Option<&'a BTreeSet<ModuleId>>, may_go: MayGo<'a>) -> Updating<'a> {
        Box::pin(async move { self.update(wanted, may_go).await.map_err(|error| error_chain(&error)) })
    }
}

/// What modules have handed in for the node above.
pub trait Outbox: Send + Sync {
    /// Whether nothing of a module that has ended is on its way. To be asked again until it is so.
    fn has_left(&self, module: &ModuleId) -> bool;
}

impl Outbox for Broker {
    fn has_left(&self, module: &ModuleId) -> bool {
        self.has_left(module)
    }
}

/// A wait that doubles.
struct Wait {
    range: (Duration, Duration),
    next: Duration,
}

impl Wait {
    const fn new(range: (Duration, Duration)) -> Self {
        Self { range, next: range.0 }
    }

    const fn reset(&mut self) {
        self.next = self.range.0;
    }

    fn take(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.range.1);
        wait
    }
}

/// What went wrong at the last attempt: told when it changes, not at each attempt of an outage that may last for months.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

impl Trouble {
    /// Says whether there was news.
    fn tell(&mut self, now: Option<&String>) -> bool {
        if self.0.as_ref() == now {
            return false;
        }
        match now {
            Some(error) => tracing::warn!(
                error,
                "module identities are not up to date; what is known stays in force, and the hub is asked again"
            ),
            None => tracing::info!("module identities are up to date again"),
        }
        self.0 = now.cloned();
        true
    }
}

pub(super) async fn run(agent: &Inner) {
    let mut wanted = agent.wanted.subscribe();
    let mut refusals = agent.refusals.attempts();
    let (mut failing, mut leaving, mut refused) = (Wait::new(WAITS), Wait::new(LEAVING_WAITS), Wait::new(WAITS));
    let mut trouble = Trouble::default();
    loop {
        let modules = wanted.borrow_and_update().clone();
        // A connection that was made before this attempt, or refused, says nothing about what comes after it.
        agent.reachable.notified().now_or_never();
        refusals.mark_unchanged();
        let outcome = agent
            .identities
            .0
            .update(modules.as_ref(), &|module| agent.may_go(module))
            .await;
        let tried = Instant::now();
        let pause = match &outcome {
            Ok(staying) => {
                failing.reset();
                if staying.is_empty() {
                    leaving.reset();
                    PERIOD
                } else {
                    leaving.take()
                }
            }
            Err(_) => failing.take(),
        };
        trouble.tell(outcome.as_ref().err());
        let error = outcome.err();
        let has_failed = error.is_some();
        agent.memory().identities_tried = Some((modules, error));
        agent.wake.notify_one();
        agent.prepare_due.notify_one();
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    failing.reset();
                    leaving.reset();
                }
                Err(_) => return,
            },
            () = tokio::time::sleep(pause) => {}
            // A connection that was just made says that the hub can be reached again.
            () = agent.reachable.notified(), if has_failed => failing.reset(),
            // The hub has other keys, or no such module. One that goes on to refuse is asked less and less often.
            () = refused_after(&mut refusals, tried + refused.next), if !has_failed => {
                refused.take();
            }
        }
        if tried.elapsed() > 2 * WAITS.1 {
            refused.reset();
        }
    }
}

/// Waits for a refusal, and at least until a moment.
async fn refused_after(refusals: &mut tokio::sync::watch::Receiver<u64>, moment: Instant) {
    if refusals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep_until(moment).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_once_and_again_for_another_reason_and_at_its_end() {
        let [no_route, refused] = ["no route", "refused"].map(str::to_owned);
        let mut trouble = Trouble::default();

        let told = [
            None,
            Some(&no_route),
            Some(&no_route),
            Some(&refused),
            None,
            None,
            Some(&refused),
        ]
        .map(|outcome| trouble.tell(outcome));

        assert_eq!(told, [false, true, false, true, true, false, true]);
    }
}
