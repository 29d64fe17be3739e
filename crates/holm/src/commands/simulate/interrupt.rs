//! The end that a user wants, by Ctrl-C or SIGTERM: the first ends the simulation in good order, with its report; the second ends the
//! program.

use anyhow::Context as _;
use holm_net::Scope;
use tokio::signal::unix::{SignalKind, signal};

use crate::output;

/// Whether the end was asked for. Clones know the same.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Scope);

impl Interrupt {
    /// Listens until the scope stops.
    ///
    /// # Errors
    /// The system gives no signals.
    pub(super) fn listen(scope: &Scope) -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals can't be received");
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let told = Self(Scope::new());
        let teller = told.clone();
        scope.spawn_until_stopped(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if teller.is_told() {
                    output::note("holm: ended at once; what was made stays at the hub");
                    std::process::exit(output::EXIT_FAILED.into());
                }
                output::note("holm: ending; once more ends at once");
                teller.0.stop();
            }
        });
        Ok(told)
    }

    /// Whether the simulation is to end.
    pub(super) fn is_told(&self) -> bool {
        self.0.is_stopping()
    }

    /// Resolves when it is. Cancel-safe.
    pub(super) async fn told(&self) {
        self.0.stopping().await;
    }
}
