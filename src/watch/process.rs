//! This process, as `/proc/self` has it, under the names that Prometheus's own libraries use.

use slice_metrics::Samples;
use std::time::SystemTime;

/// CPU time and memory of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, ns.
    pub cpu_ns: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

/// What this process uses now; nothing where the system does not say.
#[must_use]
pub fn usage() -> Usage {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_ns =
        u64::try_from(cpu.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(cpu.tv_nsec).unwrap_or(0);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    Usage { cpu_ns, resident_bytes: pages * rustix::param::page_size() as u64 }
}

/// Shows it.
pub fn samples(out: &mut Samples) {
    let usage = usage();
    out.counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        &[],
        usage.cpu_ns as f64 / 1e9,
    );
    let help = "Resident memory size in bytes.";
    out.gauge("process_resident_memory_bytes", help, &[], usage.resident_bytes as f64);
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Number of open file descriptors.", &[], entries.count() as f64);
    }
    // The directory of a process is as old as the process.
    let born = std::fs::metadata("/proc/self").and_then(|m| m.modified()).ok();
    if let Some(since) = born.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()) {
        let help = "Start time of the process since unix epoch in seconds.";
        out.gauge("process_start_time_seconds", help, &[], since.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_uses_something() {
        let usage = usage();
        assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
        assert!(usage.cpu_ns > 0, "{usage:?}");
    }
}
