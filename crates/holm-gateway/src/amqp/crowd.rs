//! Many parties on one connection, each with things of its own to wait for, in one task.
//!
//! ```text
//!   whatever a party waits for --wakes--> its name joins the queue --next--> it alone is asked, of all
//! ```
//!
//! So a connection of a thousand devices does no more when something happens to one of them than a connection of one.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// One that waits for things.
pub(super) trait Party {
    /// What may happen to it.
    type News;

    /// The next thing that happened. When it is pending, the context's waker is told of the next one.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Self::News>;
}

/// Names a party of a crowd; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(u64);

/// Parties, and those among them that have something to tell.
pub(super) struct Crowd<P> {
    parties: HashMap<Name, Place<P>>,
    last: u64,
    bell: Arc<Bell>,
}

struct Place<P> {
    party: P,
    call: Arc<Call>,
}

/// Where parties queue up.
#[derive(Default)]
struct Bell {
    /// Those to be asked. Held for one step, never across an await; each stands in it once.
    called: Mutex<VecDeque<Name>>,
    owner: AtomicWaker,
}

impl Bell {
    fn called(&self) -> MutexGuard<'_, VecDeque<Name>> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of one party.
struct Call {
    name: Name,
    /// It stands in the queue.
    waits: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.waits.swap(true, Ordering::AcqRel) {
            self.bell.called().push_back(self.name);
            self.bell.owner.wake();
        }
    }
}

impl<P> Default for Crowd<P> {
    fn default() -> Self {
        Self {
            parties: HashMap::new(),
            last: 0,
            bell: Arc::default(),
        }
    }
}

impl<P: Party> Crowd<P> {
    /// Lets a party in.
    pub(super) fn insert(&mut self, party: P) -> Name {
        self.last += 1;
        let name = Name(self.last);
        let call = Arc::new(Call {
            name,
            waits: AtomicBool::new(false),
            bell: Arc::clone(&self.bell),
        });
        call.wake_by_ref();
        self.parties.insert(name, Place { party, call });
        name
    }

    /// A party, to be changed: it is asked again afterwards.
    pub(super) fn get(&mut self, name: Name) -> Option<&mut P> {
        let place = self.parties.get_mut(&name)?;
        place.call.wake_by_ref();
        Some(&mut place.party)
    }

    /// A party, to look at.
    pub(super) fn look(&self, name: Name) -> Option<&P> {
        self.parties.get(&name).map(|place| &place.party)
    }

    /// Takes a party out.
    pub(super) fn remove(&mut self, name: Name) -> Option<P> {
        self.parties.remove(&name).map(|place| place.party)
    }

    /// All names.
    pub(super) fn names(&self) -> Vec<Name> {
        self.parties.keys().copied().collect()
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// The next thing that happened to anybody; waits for ever while nothing does. Cancel-safe.
    pub(super) async fn next(&mut self) -> (Name, P::News) {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Name, P::News)> {
        // First the waker, then the look: who calls does both the other way around.
        self.bell.owner.register(cx.waker());
        loop {
            let Some(name) = self.bell.called().pop_front() else {
                return Poll::Pending;
            };
            let Some(place) = self.parties.get_mut(&name) else {
                continue;
            };
            // Before it is asked: what happens meanwhile calls it again.
            place.call.waits.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&place.call));
            if let Poll::Ready(news) = place.party.poll_news(&mut Context::from_waker(&waker)) {
                // There may be more, and it does not tell again of what it did not wait for.
                place.call.wake_by_ref();
                return Poll::Ready((name, news));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    impl Party for mpsc::Receiver<u32> {
        type News = Option<u32>;

        fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Option<u32>> {
            self.poll_recv(cx)
        }
    }

    #[tokio::test]
    async fn only_those_with_news_are_heard_and_each_in_turn() {
        let mut crowd = Crowd::default();
        let (first, receiver) = mpsc::channel(4);
        let a = crowd.insert(receiver);
        let (second, receiver) = mpsc::channel(4);
        let b = crowd.insert(receiver);
        assert!(crowd.next().now_or_never().is_none());

        first.try_send(1).unwrap();
        first.try_send(2).unwrap();
        second.try_send(3).unwrap();

        assert_eq!(crowd.next().await, (a, Some(1)));
        assert_eq!(crowd.next().await, (b, Some(3)));
        assert_eq!(crowd.next().await, (a, Some(2)));
        assert!(crowd.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn one_that_waits_is_woken() {
        let mut crowd = Crowd::default();
        let (sender, receiver) = mpsc::channel(1);
        let name = crowd.insert(receiver);
        let waiting = tokio::spawn(async move { crowd.next().await });
        tokio::task::yield_now().await;

        sender.send(7).await.unwrap();

        assert_eq!(waiting.await.unwrap(), (name, Some(7)));
    }

    #[tokio::test]
    async fn one_that_has_gone_is_not_heard() {
        let mut crowd = Crowd::default();
        let (sender, receiver) = mpsc::channel(1);
        let name = crowd.insert(receiver);
        sender.try_send(1).unwrap();

        assert!(crowd.remove(name).is_some());

        assert!(crowd.next().now_or_never().is_none());
        assert!(crowd.is_empty());
    }

    #[tokio::test]
    async fn one_that_was_changed_is_asked_again() {
        struct Said(Option<u32>);
        impl Party for Said {
            type News = u32;
            fn poll_news(&mut self, _: &mut Context<'_>) -> Poll<u32> {
                self.0.take().map_or(Poll::Pending, Poll::Ready)
            }
        }
        let mut crowd = Crowd::default();
        let name = crowd.insert(Said(None));
        assert!(crowd.next().now_or_never().is_none());

        crowd.get(name).unwrap().0 = Some(5);

        assert_eq!(crowd.next().await, (name, 5));
    }
}
