//! SIGTERM and SIGINT: a clean stop.

use crate::error::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears the signals that ask for a stop.
pub struct Stop {
    term: Signal,
    int: Signal,
}

/// From now on SIGTERM and SIGINT are heard, not deadly.
///
/// # Errors
/// A sentence if the system does not let us.
pub fn stop() -> Result<Stop> {
    let hear = |kind| signal(kind).map_err(Error::io("hear", "signals"));
    Ok(Stop { term: hear(SignalKind::terminate())?, int: hear(SignalKind::interrupt())? })
}

impl Stop {
    /// Resolves when a stop is asked for.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Ties this process's life to another's: it is killed when that one dies, however it dies.
///
/// # Errors
/// A sentence if that one is gone already.
#[cfg(target_os = "linux")]
pub fn die_with(parent: u32) -> Result<()> {
    let set = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    set.map_err(|e| Error::io("tie this process to", "its parent")(e.into()))?;
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    // It may have died before we asked.
    if i64::from(now) == i64::from(parent) {
        Ok(())
    } else {
        Err(Error::Ended("the parent process is gone".into()))
    }
}

/// Elsewhere the parent's clean stop ends its children; a parent that is killed leaves them to run.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn die_with(_parent: u32) -> Result<()> {
    Ok(())
}
