//! The machine's monotonic clock as a number, and an alarm on it that is exact to some tens of microseconds.
//!
//! The timer of the async runtime counts whole milliseconds: a schedule of 1,000 messages a second kept by it would add up to
//! a millisecond to every latency. A `timerfd` has the kernel's own resolution and wakes the runtime like a socket does.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The monotonic clock in nanoseconds; the same for every process of this machine.
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND).saturating_add(nanoseconds)
}

/// Wakes a task at a time of the monotonic clock.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    armed: Option<u64>,
}

impl Alarm {
    /// An alarm that is not set. It belongs to the runtime in which it is made.
    ///
    /// # Errors
    /// The system gives no more descriptors.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that change their descriptor; an `OwnedFd` can't"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, armed: None })
    }

    /// Resolves at `due_ns` of [`now_ns`], at once when that is past. Cancel-safe.
    ///
    /// # Errors
    /// The system refused the timer.
    pub async fn wait_until(&mut self, due_ns: u64) -> io::Result<()> {
        while now_ns() < due_ns {
            if self.armed != Some(due_ns) {
                self.arm(due_ns)?;
            }
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(ready.get_inner(), &mut count) {
                Ok(_) => self.armed = None,
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn arm(&mut self, due_ns: u64) -> io::Result<()> {
        let time = |ns: u64| -> io::Result<Timespec> {
            let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
            Ok(Timespec {
                tv_sec: i64::try_from(ns / SECOND).map_err(too_far)?,
                tv_nsec: i64::try_from(ns % SECOND).map_err(too_far)?,
            })
        };
        let once = Itimerspec {
            it_interval: time(0)?,
            it_value: time(due_ns.max(1))?,
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = Some(due_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_never_rings_early_and_can_be_set_again_after_it_was_dropped() {
        let mut alarm = Alarm::new().unwrap();
        let far = now_ns() + 3600 * SECOND;
        let near = now_ns() + 2_000_000;

        tokio::select! {
            biased;
            _ = alarm.wait_until(far) => panic!("an hour has not passed"),
            () = std::future::ready(()) => {}
        }
        alarm.wait_until(near).await.unwrap();

        assert!(now_ns() >= near);
        assert!(now_ns() < far);
    }
}
