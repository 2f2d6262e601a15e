//! Ensemble time: the machine's clock plus an offset learned from directory servers' replies, so that the stamps of
//! all µproxies are of one time (DESIGN §8).

/// Differences below this are the reply's way and noise, not the clocks'.
const NOISE_NS: i64 = 1_000_000;

/// Of so many forwarded replies one is learned from: clocks drift by microseconds a second.
const LEARN_EVERY: u32 = 64;

/// This thread's view of ensemble time.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnsembleClock {
    offset_ns: i64,
    /// Replies passed since one was learned from.
    passed: u32,
}

impl EnsembleClock {
    /// Whether this reply is one to learn from: each costs a look at the machine's clock.
    pub const fn wants(&mut self) -> bool {
        let wants = self.passed.is_multiple_of(LEARN_EVERY);
        self.passed = self.passed.wrapping_add(1);
        wants
    }

    /// Learns from a reply: the server's ensemble time and the machine's time as it arrived. 0 says nothing.
    pub fn learn(&mut self, server_ns: u64, local_ns: u64) {
        if server_ns == 0 {
            return;
        }
        let offset = i64::try_from(i128::from(server_ns) - i128::from(local_ns)).unwrap_or(self.offset_ns);
        if offset.abs_diff(self.offset_ns) > NOISE_NS as u64 {
            self.offset_ns = offset;
        }
    }

    /// Ensemble time when the machine's clock says `local_ns`.
    #[must_use]
    pub const fn at(&self, local_ns: u64) -> u64 {
        local_ns.saturating_add_signed(self.offset_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reply_and_then_some_are_learned_from() {
        let mut clock = EnsembleClock::default();
        assert!(clock.wants());
        assert_eq!((0..640).filter(|_| clock.wants()).count(), 10);
    }

    #[test]
    fn the_offset_follows_the_servers_and_not_the_noise() {
        let mut clock = EnsembleClock::default();
        clock.learn(0, 500);
        assert_eq!(clock.at(500), 500);
        clock.learn(1_000_500_000, 1_000_000_000);
        assert_eq!(clock.at(7), 7, "half a millisecond is noise");
        clock.learn(9_000_000_000, 1_000_000_000);
        assert_eq!(clock.at(1_000_000_000), 9_000_000_000);
        clock.learn(1_000_000_000, 5_000_000_000);
        assert_eq!(clock.at(5_000_000_000), 1_000_000_000);
        assert_eq!(clock.at(0), 0, "before 1970 there is nothing");
    }
}
