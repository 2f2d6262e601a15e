//! Ensemble time: the machine's clock plus an offset learned from directory servers' replies, so that the stamps of
//! all µproxies are of one time (DESIGN §8).
//!
//! A reply's time is of before its arrival, by as much as its way and a busy machine took: what it says of the offset is too
//! low, never too high. So the highest of the last replies counts. Without that a file written after another could have the
//! earlier time, and `make` would believe it.

/// Differences below this are the reply's way and noise, not the clocks'.
const NOISE_NS: i64 = 1_000_000;

/// Of so many forwarded replies one is learned from: clocks drift by microseconds a second.
const LEARN_EVERY: u32 = 64;

/// So many replies are looked at together; the first of all are all learned from.
const WINDOW: usize = 8;

/// This thread's view of ensemble time.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnsembleClock {
    offset_ns: i64,
    /// What the last replies said of the offset. At first: that all clocks agree.
    said: [i64; WINDOW],
    /// Replies learned from.
    learned: usize,
    /// Replies passed.
    passed: u32,
}

impl EnsembleClock {
    /// Whether this reply is one to learn from: each costs a look at the machine's clock.
    pub const fn wants(&mut self) -> bool {
        let wants = (self.passed as usize) < WINDOW || self.passed.is_multiple_of(LEARN_EVERY);
        // Round again without a second beginning.
        self.passed = if self.passed == u32::MAX { LEARN_EVERY } else { self.passed + 1 };
        wants
    }

    /// Learns from a reply: the server's ensemble time and the machine's time as it arrived. 0 says nothing.
    pub fn learn(&mut self, server_ns: u64, local_ns: u64) {
        if server_ns == 0 {
            return;
        }
        let Ok(offset) = i64::try_from(i128::from(server_ns) - i128::from(local_ns)) else { return };
        if let Some(slot) = self.said.get_mut(self.learned % WINDOW) {
            *slot = offset;
        }
        self.learned = self.learned.wrapping_add(1);
        let highest = self.said.iter().copied().max().unwrap_or(offset);
        if highest.abs_diff(self.offset_ns) > NOISE_NS as u64 {
            self.offset_ns = highest;
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
    fn the_first_replies_and_then_some_are_learned_from() {
        let mut clock = EnsembleClock::default();
        assert_eq!((0..WINDOW).filter(|_| clock.wants()).count(), WINDOW);
        assert_eq!((0..640).filter(|_| clock.wants()).count(), 10);
        clock.passed = u32::MAX;
        assert_eq!((0..640).filter(|_| clock.wants()).count(), 10, "round again");
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
        (0..WINDOW).for_each(|_| clock.learn(1_000_000_000, 5_000_000_000));
        assert_eq!(clock.at(5_000_000_000), 1_000_000_000);
        assert_eq!(clock.at(0), 0, "before 1970 there is nothing");
    }

    #[test]
    fn a_reply_that_took_long_sets_no_clock_back() {
        let mut clock = EnsembleClock::default();
        // 20 ms late, the very first; then one in time and six late ones, again and again.
        for n in 0..100u64 {
            let late = if n % 7 == 1 { 10_000 } else { 20_000_000 };
            let sent = 1_000_000_000 + n * 30_000_000;
            clock.learn(sent, sent + late);
            assert_eq!(clock.at(sent), sent);
        }
    }
}
