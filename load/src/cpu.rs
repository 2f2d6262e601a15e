//! CPU time of server processes, with the kernel's precision: the process's own CPU clock counts all its
//! threads, those that ended too, in nanoseconds (`/proc/PID/stat` counts in ticks of 10 ms).

use crate::Error;
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use nix::unistd::Pid;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// The server processes, by what they are.
#[derive(Debug, Default)]
pub struct Servers {
    groups: BTreeMap<String, BTreeSet<i32>>,
}

/// CPU time used so far, by group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used(BTreeMap<String, Duration>);

/// What `ensemble.json` says, as far as it is needed here: a list of servers, at the top or under `servers`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ensemble {
    Named { servers: Vec<EnsembleServer> },
    Bare(Vec<EnsembleServer>),
}

#[derive(Debug, Deserialize)]
struct EnsembleServer {
    role: String,
    pid: i32,
}

// === impl Servers ===

impl Servers {
    /// Adds processes to a group.
    pub fn add(&mut self, group: &str, pids: impl IntoIterator<Item = i32>) {
        self.groups.entry(group.to_owned()).or_default().extend(pids);
    }

    /// Adds every server that an ensemble's `ensemble.json` lists, by role.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read.
    pub fn add_ensemble(&mut self, path: &Path) -> Result<(), Error> {
        let shown = path.display().to_string();
        let fail = |why: String| Error::File { path: shown.as_str().into(), why: why.into() };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let (Ensemble::Named { servers } | Ensemble::Bare(servers)) =
            serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        for server in servers {
            self.add(&server.role, [server.pid]);
        }
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// CPU time used so far. A process that plays several roles is counted in the first group that has it.
    ///
    /// # Errors
    /// [`Error::NoProcess`] if one is not there.
    pub fn used(&self) -> Result<Used, Error> {
        let mut seen = BTreeSet::new();
        let mut used = BTreeMap::new();
        for (group, pids) in &self.groups {
            let mut sum = Duration::ZERO;
            for pid in pids.iter().filter(|pid| seen.insert(**pid)) {
                sum += cpu_time(*pid)?;
            }
            used.insert(group.clone(), sum);
        }
        Ok(Used(used))
    }
}

/// CPU time that this process has used: what the load itself costs.
///
/// # Errors
/// [`Error::NoProcess`] if the system has no such clock.
pub fn own() -> Result<Duration, Error> {
    cpu_time(i32::try_from(std::process::id()).unwrap_or_default())
}

/// Linux's largest process id. The clock of a larger one would be another clock.
const PID_MAX: i32 = 1 << 22;

fn cpu_time(pid: i32) -> Result<Duration, Error> {
    if !(1..=PID_MAX).contains(&pid) {
        return Err(Error::NoProcess(pid));
    }
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).map_err(|_| Error::NoProcess(pid))?;
    let now: TimeSpec = clock.now().map_err(|_| Error::NoProcess(pid))?;
    Ok(Duration::from(now))
}

// === impl Used ===

impl Used {
    /// CPU time between `earlier` and this, by group.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, Duration> {
        let before = |group| earlier.0.get(group).copied().unwrap_or_default();
        self.0.iter().map(|(group, now)| (group.clone(), now.saturating_sub(before(group)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_roles_counts_once() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut servers = Servers::default();
        servers.add("a", [me, me]);
        servers.add("b", [me]);
        let start = servers.used().unwrap();
        while servers.used().unwrap() == start {
            std::hint::spin_loop();
        }
        let used = servers.used().unwrap().since(&start);
        assert!(used["a"] > Duration::ZERO);
        assert_eq!(used["b"], Duration::ZERO);
    }

    #[test]
    fn ensemble_json_is_read() {
        let path = std::env::temp_dir().join(format!("slice-load-cpu-{}.json", std::process::id()));
        let list = r#"[{"role": "proxy", "pid": 5, "id": "x"}, {"role": "dirserver", "pid": 6}, {"role": "proxy", "pid": 7}]"#;
        for text in [list.to_owned(), format!(r#"{{"version": 1, "servers": {list}}}"#)] {
            std::fs::write(&path, text).unwrap();
            let mut servers = Servers::default();
            servers.add_ensemble(&path).unwrap();
            assert_eq!(servers.groups["proxy"], BTreeSet::from([5, 7]));
            assert_eq!(servers.groups["dirserver"], BTreeSet::from([6]));
        }
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Servers::default().add_ensemble(&path), Err(Error::File { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Servers::default().add_ensemble(&path), Err(Error::File { .. })));
    }

    #[test]
    fn an_absent_process_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        for pid in [gone, 0, -1, i32::MAX] {
            let mut servers = Servers::default();
            servers.add("a", [pid]);
            assert!(matches!(servers.used(), Err(Error::NoProcess(got)) if got == pid));
        }
    }
}
