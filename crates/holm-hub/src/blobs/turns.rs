//! How many bodies the blob store receives at once, and how many it sends: of all devices, and of each.
//!
//! Each costs buffers and an open file. A device that stalls on all that it may open leaves the others theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::fault::{Fault, FaultCode};

/// The turns. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Of what they are, in words for who gets none.
    what: &'static str,
    most: usize,
    most_of_device: usize,
    /// How many turns each device has that has any.
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    device: String,
}

impl Turns {
    pub(super) fn new(what: &'static str, most: usize, most_of_device: usize) -> Self {
        Self {
            what,
            most,
            most_of_device,
            taken: Arc::default(),
        }
    }

    /// Takes a turn for a blob, which counts for the device that its name begins with.
    ///
    /// # Errors
    /// `ServerBusy`: clients try again by themselves.
    pub(super) fn take(&self, blob: &str) -> Result<Turn, Fault> {
        let device = blob.split('/').next().unwrap_or_default();
        let busy = |whose: &str| {
            let text = format!("as many {} {whose} as can be are on their way; try again", self.what);
            Err(Fault::new(FaultCode::ServerBusy, text))
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(device).is_some_and(|count| *count >= self.most_of_device) {
            return busy("of this device");
        }
        if taken.values().sum::<usize>() >= self.most {
            return busy("of all devices");
        }
        *taken.entry(device.to_owned()).or_default() += 1;
        Ok(Turn {
            turns: self.clone(),
            device: device.to_owned(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.device) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_takes_all_it_may_leaves_others_their_turns() {
        let turns = Turns::new("uploads", 3, 2);
        let of_first = [turns.take("d1/a").unwrap(), turns.take("d1/b").unwrap()];

        let third = turns.take("d1/c").unwrap_err();
        let of_second = turns.take("d2/a");
        let beyond_all = turns.take("d3/a").unwrap_err();
        drop(of_first);
        let later = [turns.take("d1/c"), turns.take("d3/a")];

        assert_eq!(
            (third.code, beyond_all.code),
            (FaultCode::ServerBusy, FaultCode::ServerBusy)
        );
        assert!(third.text.contains("uploads of this device") && beyond_all.text.contains("all devices"));
        assert!(of_second.is_ok() && later.iter().all(Result::is_ok));
        drop((of_second, later));
        assert!(turns.taken.lock().unwrap().is_empty());
    }
}
