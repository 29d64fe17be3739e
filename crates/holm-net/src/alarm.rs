//! An alarm for deadlines that nearly always move on before they come: keep-alives, acknowledgements, tokens.
//!
//! ```text
//!   deadline   |-----x  |-----x     |-----x        moves on with every packet
//!   timer      |-----!--------!-----------!        set once a period, looks at the deadline when it fires
//! ```
//!
//! A timer of the runtime costs a lock when it is set, and a lock when it is dropped. So it is set again only for a deadline
//! that comes before the one that is set; a later one is looked at when the timer fires.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

/// Wakes its task at a deadline. It holds no timer before the first.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` is set to; `None` once it has fired.
    set: Option<Instant>,
}

impl Alarm {
    /// Ready when `deadline` has come; never without one. The deadline may be another at each call.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        loop {
            let is_early = self.set.is_some_and(|set| set <= deadline);
            let sleep = match &mut self.sleep {
                Some(sleep) => {
                    if !is_early {
                        sleep.as_mut().reset(deadline.into());
                    }
                    sleep
                }
                empty => empty.insert(Box::pin(tokio::time::sleep_until(deadline.into()))),
            };
            if !is_early {
                self.set = Some(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            self.set = None;
            if tokio::time::Instant::now().into_std() >= deadline {
                return Poll::Ready(());
            }
        }
    }

    /// [`Alarm::poll`] as a future. Cancel-safe.
    pub async fn wait(&mut self, deadline: Option<Instant>) {
        std::future::poll_fn(|cx| self.poll(cx, deadline)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moved_on_is_not_told_at_its_old_time() {
        let mut alarm = Alarm::default();
        let start = tokio::time::Instant::now();
        let after = |seconds| Some((start + Duration::from_secs(seconds)).into_std());
        assert!(alarm.wait(after(1)).now_or_never().is_none());

        alarm.wait(after(3)).await;

        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_is_told_in_time_and_an_alarm_rings_again() {
        let mut alarm = Alarm::default();
        let start = tokio::time::Instant::now();
        let after = |seconds| Some((start + Duration::from_secs(seconds)).into_std());
        assert!(alarm.wait(after(9)).now_or_never().is_none());

        alarm.wait(after(2)).await;
        let first = start.elapsed().as_secs();
        alarm.wait(after(4)).await;

        assert_eq!((first, start.elapsed().as_secs()), (2, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_nothing_is_told() {
        let mut alarm = Alarm::default();
        let now = tokio::time::Instant::now().into_std();
        alarm.wait(Some(now)).await;

        let told = tokio::time::timeout(Duration::from_secs(60), alarm.wait(None)).await;

        assert!(told.is_err());
    }
}
