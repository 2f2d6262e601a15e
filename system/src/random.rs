//! Random numbers.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where random numbers come from: the kernel, or whoever a simulation names.
#[derive(Clone, Default)]
pub struct Random(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl Random {
    /// Numbers that `draw` draws.
    #[must_use]
    pub fn of(draw: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(draw)))
    }

    /// 64 random bits.
    ///
    /// # Errors
    /// The system has none.
    pub fn number(&self) -> io::Result<u64> {
        match &self.0 {
            None => Ok(getrandom::u64()?),
            Some(draw) => Ok(draw()),
        }
    }

    /// 64 bits for a write verifier, which must differ from that of an earlier life. Without randomness from the system there is
    /// no safe one; the clock is the best that is left.
    #[must_use]
    pub fn verifier(&self) -> u64 {
        self.number().unwrap_or_else(|_| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
        })
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Random(simulated)" } else { "Random" })
    }
}
