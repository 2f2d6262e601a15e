//! Waits to the microsecond: tokio's own timers tick in milliseconds, longer than most replies take.

use crate::Error;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::OwnedFd;
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// A timer of the system.
#[derive(Debug)]
pub struct Clock(AsyncFd<OwnedFd>);

const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl Clock {
    /// One timer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new() -> Result<Self, Error> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(|e| Error::io("make a timer")(e.into()))?;
        #[expect(
            deprecated,
            reason = "unsound only for what is not one descriptor all its life, which OwnedFd is; its successor is an unsafe function"
        )]
        let timer = AsyncFd::new(timer).map_err(Error::io("wait for a timer"))?;
        Ok(Self(timer))
    }

    /// Resolves when it is time; at once if it was.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn until(&self, at: Instant) -> Result<(), Error> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let spec = Itimerspec { it_interval: ZERO, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec)
            .map_err(|e| Error::io("set a timer")(e.into()))?;
        let mut ready = self.0.readable().await.map_err(Error::io("wait for a timer"))?;
        // Taking its count makes it quiet; that it has one is what we waited for.
        let _ = rustix::io::read(self.0.get_ref(), &mut [0; 8]);
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn never_early_and_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::new().unwrap();
            for us in [0, 1, 50, 700, 3_000] {
                let at = Instant::now() + Duration::from_micros(us);
                clock.until(at).await.unwrap();
                assert!(Instant::now() >= at);
            }
        });
    }
}
