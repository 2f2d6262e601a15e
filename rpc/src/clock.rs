//! The clock that comes in from outside, so that a whole ensemble can run under a simulated one.
//!
//! A machine's time of day is set, now and then by hours, and back. So it is asked only for what has to agree with other machines'
//! (stamps, proofs); how long something has lasted, and what comes after what within one process, is told by [`Steady`].

use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since 1970. It leaps when somebody sets the clock.
    fn now_ns(&self) -> u64;

    /// Nanoseconds since a moment of the clock's own. It never leaps and never goes back: for what has lasted how long.
    fn monotonic_ns(&self) -> u64 {
        // A clock that nobody sets is its own.
        self.now_ns()
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        // A clock before 1970 reads as 1970; one past 2554 as the end of u64.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&self) -> u64 {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        // After 584 years it stands.
        u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The time of day as it was when this was made, carried on by the monotonic clock: it goes on as time passes, whatever is done to
/// the machine's clock meanwhile.
pub struct Steady {
    clock: SharedClock,
    made_ns: u64,
    made_monotonic_ns: u64,
}

impl Steady {
    /// Begins with the time of day that `clock` tells now.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let (made_ns, made_monotonic_ns) = (clock.now_ns(), clock.monotonic_ns());
        Self { clock, made_ns, made_monotonic_ns }
    }

    /// Nanoseconds since this was made.
    #[must_use]
    pub fn lasted_ns(&self) -> u64 {
        self.clock.monotonic_ns().saturating_sub(self.made_monotonic_ns)
    }
}

impl Clock for Steady {
    fn now_ns(&self) -> u64 {
        self.made_ns.saturating_add(self.lasted_ns())
    }

    fn monotonic_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }
}

impl std::fmt::Debug for Steady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steady").field("now_ns", &self.now_ns()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Time of day and monotonic time, set apart.
    #[derive(Default)]
    struct Hands(AtomicU64, AtomicU64);

    impl Clock for Hands {
        fn now_ns(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
        fn monotonic_ns(&self) -> u64 {
            self.1.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_steady_clock_does_not_leap() {
        let hands = Arc::new(Hands(500.into(), 70.into()));
        let steady = Steady::new(hands.clone());
        assert_eq!((steady.now_ns(), steady.lasted_ns()), (500, 0));
        hands.0.store(5, Ordering::SeqCst);
        hands.1.store(80, Ordering::SeqCst);
        assert_eq!((steady.now_ns(), steady.lasted_ns()), (510, 10));
        hands.0.store(u64::MAX, Ordering::SeqCst);
        assert_eq!((steady.now_ns(), steady.monotonic_ns()), (510, 80));
    }

    #[test]
    fn the_machines_monotonic_clock_goes_on() {
        let first = SystemClock.monotonic_ns();
        assert!(SystemClock.monotonic_ns() >= first);
        assert!(SystemClock.now_ns() > 1_500_000_000_000_000_000);
    }
}
