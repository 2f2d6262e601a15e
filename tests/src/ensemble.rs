//! A whole ensemble under test: `slice up` on a directory of its own, with every server's process in the test's hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::error::{Doing, Error};
use crate::guest::Mount;
use crate::paths;
use crate::process::{Process, clean, free_port, raw_pid};

/// How names are spread over directory servers (DESIGN §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All names at one server.
    Partition,
    /// A directory's names at its home; some new directories elsewhere.
    Mkdir,
    /// Each name where its hash says.
    Hash,
}

impl Policy {
    /// As `slice up --policy` takes it. Half of the new directories move under mkdir switching, so that both
    /// ways are taken.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Mkdir => "mkdir:0.5",
            Self::Hash => "hash",
        }
    }
}

/// Whether servers are processes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All roles in one process.
    OneProcess,
    /// `--separate`: a process a server.
    Separate,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name policy.
    pub policy: Policy,
    /// One process or several.
    pub layout: Layout,
    /// Directory servers.
    pub dirservers: u32,
    /// Small-file servers.
    pub smallfiles: u32,
    /// Block storage nodes.
    pub blockstores: u32,
    /// Maps root to nobody, as exports do by default.
    pub root_squash: bool,
    /// More arguments of `slice up`.
    pub more: Vec<String>,
}

impl Options {
    /// Several servers of each role, so that requests do cross them; root is root.
    pub fn new(policy: Policy, layout: Layout) -> Self {
        Self {
            policy,
            layout,
            dirservers: 3,
            smallfiles: 2,
            blockstores: 3,
            root_squash: false,
            more: Vec::new(),
        }
    }
}

/// A server of an ensemble, as `ensemble.json` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// proxy, dirserver, smallfile, blockstore or coordinator.
    pub role: String,
    /// Its process; in one process, the same for all.
    pub pid: u32,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// A running (or killed) `slice up`. All of its processes are killed when it is dropped, and its data goes.
#[derive(Debug)]
pub struct Ensemble {
    options: Options,
    data: tempfile::TempDir,
    port: u16,
    binary: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

/// Formatting and opening every store takes seconds; a machine with all cores busy takes longer.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A clean stop makes everything durable.
const STOP_LIMIT: Duration = Duration::from_secs(60);

impl Ensemble {
    /// Starts an ensemble on an empty directory, with its log at `target/ensemble/NAME.log`, and waits for its mount line.
    pub fn start(name: &str, options: Options) -> Result<Self, Error> {
        let folder = paths::target().join("ensemble");
        fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
        let data = tempfile::TempDir::new_in(&folder).doing(|| format!("making {}", folder.display()))?;
        let log = folder.join(format!("{name}.log"));
        fs::write(&log, "").doing(|| format!("writing {}", log.display()))?;
        let mut ensemble = Self { options, data, port: free_port()?, binary: binary()?, log, process: None };
        ensemble.restart()?;
        Ok(ensemble)
    }

    /// Starts it again on the same directory and port, after [`Ensemble::kill`] or [`Ensemble::stop`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill();
        // What the last life left would pass for this one's.
        let list = self.list_path();
        if list.exists() {
            fs::remove_file(&list).doing(|| format!("removing {}", list.display()))?;
        }
        let process = self.process.insert(Process::start(&self.binary, &self.arguments(), &self.log)?);
        process.wait_line("its mount command", START_LIMIT, mount_line)?;
        self.servers().map(|_| ())
    }

    /// Starts another µproxy of the ensemble on a port of its own.
    pub fn second_proxy(&self) -> Result<(Process, u16), Error> {
        let port = free_port()?;
        let log = self.log.with_extension("second.log");
        let arguments = [
            "proxy",
            "--data",
            &self.data.path().to_string_lossy(),
            "--listen",
            &format!("127.0.0.1:{port}"),
        ];
        let mut process = Process::start(&self.binary, &arguments.map(str::to_owned), &log)?;
        process.wait_port(port, START_LIMIT)?;
        Ok((process, port))
    }

    /// The µproxy's port on the loopback, for NFS and MOUNT.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a guest mounts it.
    pub fn mount(&self) -> Mount {
        Mount::new(self.port)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The program under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// True while the process that was started runs.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    /// All servers, as `ensemble.json` has them now: a restarted one has another process.
    pub fn servers(&self) -> Result<Vec<Server>, Error> {
        let path = self.list_path();
        let text = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        parse(&text).map_err(|what| Error::Ensemble { path, what })
    }

    /// The `nth` server of a role, from 0.
    pub fn server(&self, role: &str, nth: usize) -> Result<Server, Error> {
        let found = self.servers()?.into_iter().filter(|server| server.role == role).nth(nth);
        let what = || format!("no {role} number {nth}");
        found.ok_or_else(|| Error::Ensemble { path: self.list_path(), what: what() })
    }

    /// True while the process that `ensemble.json` named runs our program: another may have got its id meanwhile.
    pub fn lives(&self, server: &Server) -> bool {
        // A rebuild meanwhile makes it "PATH (deleted)". A process that is ending has none.
        let runs = fs::read_link(format!("/proc/{}/exe", server.pid)).unwrap_or_default();
        runs.to_string_lossy().trim_end_matches(" (deleted)") == self.binary.to_string_lossy()
    }

    /// Sends a signal (SIGKILL, SIGSTOP, SIGCONT) to one server's process.
    pub fn signal(&self, server: &Server, signal: Signal) -> Result<(), Error> {
        let Some(pid) = raw_pid(server.pid) else { return Ok(()) };
        let done = kill_process(pid, signal).map_err(Into::into);
        done.doing(|| format!("signalling the {} {}", server.role, server.pid))
    }

    /// SIGKILL to every process of the ensemble.
    pub fn kill(&mut self) {
        let servers = self.servers().unwrap_or_default();
        let Some(mut process) = self.process.take() else { return };
        process.kill();
        // Servers that have a process group of their own.
        for server in servers.iter().filter(|server| server.pid != process.pid()) {
            if self.lives(server)
                && let Some(pid) = raw_pid(server.pid)
            {
                let _ = kill_process(pid, Signal::KILL); // It has ended meanwhile.
            }
        }
    }

    /// SIGTERM; fails unless it ends cleanly.
    pub fn stop(&mut self) -> Result<(), Error> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.stop(STOP_LIMIT)?;
        if clean(status) {
            Ok(())
        } else {
            Err(process.ended(format!("after SIGTERM it ended with {status}")))
        }
    }

    fn list_path(&self) -> PathBuf {
        self.data.path().join("ensemble.json")
    }

    fn arguments(&self) -> Vec<String> {
        let Options { policy, layout, dirservers, smallfiles, blockstores, root_squash, more } =
            &self.options;
        let mut all = vec!["up".to_owned()];
        let mut pair = |flag: &str, value: String| all.extend([flag.to_owned(), value]);
        pair("--data", self.data.path().to_string_lossy().into_owned());
        pair("--listen", format!("127.0.0.1:{}", self.port));
        pair("--policy", policy.argument().to_owned());
        pair("--dirservers", dirservers.to_string());
        pair("--smallfiles", smallfiles.to_string());
        pair("--blockstores", blockstores.to_string());
        if *layout == Layout::Separate {
            all.push("--separate".to_owned());
        }
        if !root_squash {
            all.push("--no-root-squash".to_owned());
        }
        all.extend(more.iter().cloned());
        all
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The line that says how to mount.
fn mount_line(line: &str) -> bool {
    line.contains("mount ") && line.contains("port=")
}

/// The program under test: `SLICE_BIN`, else the last build, release or debug.
pub fn binary() -> Result<PathBuf, Error> {
    let built = ["release/slice", "debug/slice"].map(|path| paths::target().join(path));
    let last = built.into_iter().max_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
    let found = std::env::var_os("SLICE_BIN").map(PathBuf::from).or(last).filter(|path| path.is_file());
    found.and_then(|path| path.canonicalize().ok()).ok_or_else(|| Error::Missing {
        what: "the program slice (cargo build --release)".into(),
        package: "cargo",
    })
}

/// The servers in `ensemble.json`: a list of objects, at the top or under `servers`.
fn parse(text: &str) -> Result<Vec<Server>, String> {
    let whole: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list = whole.get("servers").unwrap_or(&whole).as_array().ok_or("no list of servers")?;
    let servers: Option<Vec<_>> = list.iter().map(parse_server).collect();
    servers.ok_or_else(|| "a server without role or pid".to_owned())
}

fn parse_server(server: &Value) -> Option<Server> {
    let role = server.get("role")?.as_str()?.to_owned();
    let pid = u32::try_from(server.get("pid")?.as_u64()?).ok()?;
    let addresses = server.get("addresses").and_then(Value::as_array);
    let addresses = addresses.into_iter().flatten().filter_map(|a| Some(a.as_str()?.to_owned())).collect();
    Some(Server { role, pid, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ensemble_json_is_a_list_of_roles_and_processes() {
        let text = r#"{"servers":[{"role":"proxy","pid":7,"addresses":["127.0.0.1:2049"]},{"role":"dirserver","pid":8}]}"#;
        let servers = parse(text).unwrap();
        assert_eq!(servers.len(), 2);
        assert_eq!(servers[0].addresses, ["127.0.0.1:2049"]);
        assert_eq!((servers[1].role.as_str(), servers[1].pid), ("dirserver", 8));
        assert!(parse("{}").is_err());
        assert!(parse(r#"[{"role":"proxy"}]"#).is_err());
    }
}
