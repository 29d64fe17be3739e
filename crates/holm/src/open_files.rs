//! How many files this process may have open. A connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as this process may itself; gives what it is then. `u64::MAX`: there is none.
pub(crate) fn raise() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let (Some(current), most) = (before.current, before.maximum) else {
        return u64::MAX;
    };
    let most_allowed = most.unwrap_or(u64::MAX);
    let wanted = Rlimit {
        current: most,
        maximum: most,
    };
    if current < most_allowed && setrlimit(Resource::Nofile, wanted).is_ok() {
        return most_allowed;
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_may_be_had_and_stays_so() {
        let raised = raise();

        let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert_eq!((raised, raise()), (now, now));
    }
}
