//! The machine on which the load runs, for the report.

use serde::{Deserialize, Serialize};
use std::fs;

/// What a reader must know of it. Empty or 0 where the system does not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel's name and release.
    pub kernel: String,
    /// MiB of memory.
    pub memory_mib: u64,
    /// Load average of the minute before the run: with much else to do, figures mean little.
    pub load_average: f64,
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of `KEY : VALUE` in a listing.
fn value<'a>(listing: &'a str, key: &str) -> Option<&'a str> {
    let line = listing.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
    Some(line.split_once(':')?.1.trim())
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let (cpu, memory, load) = (text("/proc/cpuinfo"), text("/proc/meminfo"), text("/proc/loadavg"));
        let kib = value(&memory, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        Self {
            cpu: value(&cpu, "model name").unwrap_or_default().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: format!("{} {}", std::env::consts::OS, text("/proc/sys/kernel/osrelease").trim()),
            memory_mib: kib.unwrap_or(0) / 1024,
            load_average: load.split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found() {
        let listing = "processor\t: 0\nmodel name\t: A: fast one\nMemTotal:  123 kB\n";
        assert_eq!(value(listing, "model name"), Some("A: fast one"));
        assert_eq!(value(listing, "MemTotal"), Some("123 kB"));
        assert_eq!(value(listing, "model"), None);
        assert!(Machine::here().cores > 0);
    }
}
