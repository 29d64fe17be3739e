//! Files of the blob store that stay while they are copied.
//!
//! ```text
//! remove(files) --nobody copies--> they go
//!               '-somebody does--> they wait --the last copy has ended--> they go
//! ```
//!
//! What waits has no name in the database any more; a crash leaves it to the next opening, which removes it.

use std::sync::{Arc, Mutex, PoisonError};

/// Files and their bytes.
pub(super) type Garbage = Vec<(String, u64)>;

/// Who copies, and what waits for that. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    copies: usize,
    garbage: Garbage,
}

/// As long as this lives, no file of the store is removed.
pub(crate) struct BlobsHeld {
    holds: Holds,
    remove: Arc<dyn Fn(Garbage) + Send + Sync>,
}

impl std::fmt::Debug for BlobsHeld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobsHeld")
    }
}

impl Holds {
    /// Holds all files; `remove` removes what waited, when nobody copies any more.
    pub(super) fn hold(&self, remove: impl Fn(Garbage) + Send + Sync + 'static) -> BlobsHeld {
        self.lock(|waiting| waiting.copies += 1);
        BlobsHeld {
            holds: self.clone(),
            remove: Arc::new(remove),
        }
    }

    /// What of these files may go now; the others wait.
    pub(super) fn may_go(&self, garbage: Garbage) -> Garbage {
        self.lock(|waiting| {
            if waiting.copies == 0 {
                return garbage;
            }
            waiting.garbage.extend(garbage);
            Garbage::new()
        })
    }

    /// Held for a moment and never across a wait.
    fn lock<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for BlobsHeld {
    fn drop(&mut self) {
        let garbage = self.holds.lock(|waiting| {
            waiting.copies -= 1;
            match waiting.copies {
                0 => std::mem::take(&mut waiting.garbage),
                _ => Garbage::new(),
            }
        });
        if !garbage.is_empty() {
            (self.remove)(garbage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_while_somebody_copies_goes_when_the_last_one_has_ended() {
        let gone = Arc::new(Mutex::new(Garbage::new()));
        let holds = Holds::default();
        let hold = || {
            let gone = Arc::clone(&gone);
            holds.hold(move |garbage| gone.lock().unwrap().extend(garbage))
        };
        let (one, other) = (hold(), hold());

        let now = holds.may_go(vec![("a".to_owned(), 1)]);
        drop(one);
        let before = gone.lock().unwrap().len();
        drop(other);
        let after = gone.lock().unwrap().len();

        assert_eq!((now.len(), before, after), (0, 0, 1));
        assert_eq!(holds.may_go(vec![("b".to_owned(), 1)]).len(), 1);
    }
}
