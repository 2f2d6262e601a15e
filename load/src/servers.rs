//! The servers under load: how many there are, and what CPU time each uses.

use crate::Error;
use crate::cpu::{Servers, Used};
use crate::result::{Layout, ServerCpu};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The servers, as far as they run on this machine and are known.
#[derive(Debug, Default)]
pub struct Watched {
    servers: Servers,
    /// How many there are.
    pub layout: Layout,
}

/// What `DIR/ensemble.json` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Ensemble {
    servers: Vec<Server>,
}

#[derive(Debug, Deserialize)]
struct Server {
    role: String,
    pid: i32,
}

/// What `DIR/layout.json` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Formatted {
    policy: String,
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Error> {
    let fail = |why: String| Error::File { path: path.display().to_string().into(), why: why.into() };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
}

impl Watched {
    /// The ensemble that `slice up --data DIR` runs.
    ///
    /// # Errors
    /// [`Error::File`] if none runs there.
    pub fn ensemble(dir: &Path) -> Result<Self, Error> {
        let ensemble: Ensemble = read(&dir.join("ensemble.json"))?;
        let formatted: Formatted = read(&dir.join("layout.json"))?;
        let pids: BTreeSet<i32> = ensemble.servers.iter().map(|s| s.pid).collect();
        let separate = pids.len() > 1;
        let (mut servers, mut count) = (Servers::default(), BTreeMap::new());
        for server in &ensemble.servers {
            let nth = count.entry(server.role.clone()).or_insert(0);
            let name = if separate { format!("{}-{nth}", server.role) } else { "all".to_owned() };
            servers.add(&name, [server.pid]);
            *nth += 1;
        }
        Ok(Self { servers, layout: Layout { policy: Some(formatted.policy), separate, count } })
    }

    /// A server that is not ours, by its processes.
    #[must_use]
    pub fn processes(pids: &[i32]) -> Self {
        let mut servers = Servers::default();
        for pid in pids {
            servers.add(&format!("process {pid}"), [*pid]);
        }
        Self { servers, layout: Layout::default() }
    }

    /// CPU time used so far; none if a process has gone, for then no difference means anything.
    #[must_use]
    pub fn used(&self) -> Option<Used> {
        self.servers.used().ok()
    }

    /// CPU time of each server since then, for each of `ops`.
    #[must_use]
    pub fn since(&self, before: Option<&Used>, ops: f64) -> Vec<ServerCpu> {
        let (Some(before), Some(now)) = (before, self.used()) else { return Vec::new() };
        let per_op = |us: f64| if ops > 0.0 { us / ops } else { 0.0 };
        now.since(before)
            .into_iter()
            .map(|(server, used)| ServerCpu { server, us_per_op: per_op(used.as_secs_f64() * 1e6) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensembles_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Watched::ensemble(dir.path()).is_err());
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("layout.json", r#"{"version":1,"policy":"mkdir:0.5","dirservers":2}"#);
        let me = std::process::id();
        write(
            "ensemble.json",
            &format!(
                r#"{{"servers":[{{"role":"proxy","pid":{me}}},{{"role":"dirserver","pid":{me}}},{{"role":"dirserver","pid":{me}}}]}}"#
            ),
        );
        let got = Watched::ensemble(dir.path()).unwrap();
        assert_eq!(got.layout.policy.as_deref(), Some("mkdir:0.5"));
        assert_eq!((got.layout.separate, got.layout.count["dirserver"]), (false, 2));
        let cpu = got.since(got.used().as_ref(), 10.0);
        assert_eq!(cpu.iter().map(|c| c.server.as_str()).collect::<Vec<_>>(), ["all"]);

        write(
            "ensemble.json",
            &format!(
                r#"{{"servers":[{{"role":"proxy","pid":{me}}},{{"role":"dirserver","pid":1}},{{"role":"dirserver","pid":2}}]}}"#
            ),
        );
        let got = Watched::ensemble(dir.path()).unwrap();
        assert!(got.layout.separate);
    }
}
