//! An ensemble of the workload's own: `slice up` of a program in a directory that goes with it.

use crate::servers::Watched;
use crate::site::Target;
use crate::{Error, Stop, client};
use rustix::process::{Pid, Signal, kill_process};
use slice_proto::rpc_msg::Cred;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest start of an ensemble: every store is made and opened.
const START: Duration = Duration::from_secs(120);
/// Longest clean stop; after it the ensemble is killed.
const STOP: Duration = Duration::from_secs(60);
/// Pause between attempts to mount: nothing tells us when another process is ready.
const RETRY: Duration = Duration::from_millis(50);

/// Where and of what ensembles are started.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The program `slice`.
    pub program: PathBuf,
    /// Directory in which each gets one of its own.
    pub scratch: PathBuf,
    /// Whether each server is a process.
    pub separate: bool,
}

/// How many servers there are.
#[derive(Debug, Clone)]
pub struct Shape {
    /// As `slice up --policy` takes it.
    pub policy: String,
    /// Directory servers.
    pub dirservers: u32,
    /// Small-file servers.
    pub smallfiles: u32,
    /// Block storage nodes.
    pub blockstores: u32,
}

/// A running ensemble. Killed, and its directory removed, when it is dropped.
#[derive(Debug)]
pub struct Own {
    child: Child,
    dir: tempfile::TempDir,
    target: Target,
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |e| Error::File { path: path.into(), why: e.to_string().into() }
}

impl Maker {
    /// Starts one and waits until it can be mounted.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its log if it does not start; [`Error::File`].
    pub async fn start(&self, shape: &Shape, stop: &Stop) -> Result<Own, Error> {
        let dir = tempfile::Builder::new().prefix("slice-load.").tempdir_in(&self.scratch);
        let dir = dir.map_err(file_error(&self.scratch))?;
        let log_path = dir.path().join("log");
        let log = std::fs::File::create(&log_path).map_err(file_error(&log_path))?;
        // Free now, and nobody draws it again soon.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let at: SocketAddr = free.map_err(Error::io("find a free port"))?;
        let mut command = Command::new(&self.program);
        command.arg("up").arg("--data").arg(dir.path().join("data"));
        command.args(["--listen", &at.to_string(), "--no-root-squash", "--policy", &shape.policy]);
        command.args(["--dirservers", &shape.dirservers.to_string()]);
        command.args(["--smallfiles", &shape.smallfiles.to_string()]);
        command.args(["--blockstores", &shape.blockstores.to_string()]);
        // It goes when we go, however we go.
        command.args(["--parent", &std::process::id().to_string()]);
        if self.separate {
            command.arg("--separate");
        }
        // A group of its own: Ctrl-C asks us for a stop, and the ensemble serves until we have stopped.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(file_error(&self.program))?;
        let target = Target { nfs: at, mount: at, export: "/".into(), cred: Cred::ROOT };
        let mut own = Own { child, dir, target };
        own.wait(stop).await?;
        Ok(own)
    }
}

impl Own {
    async fn wait(&mut self, stop: &Stop) -> Result<(), Error> {
        let from = Instant::now();
        loop {
            let listed = self.data().join("ensemble.json").exists();
            if listed && client::mount(self.target.mount, &self.target.export).await.is_ok() {
                return Ok(());
            }
            if stop.asked() {
                return Err(Error::Stopped);
            }
            if let Ok(Some(_)) = self.child.try_wait() {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("without a word").to_owned();
                return Err(Error::Ended(last.into()));
            }
            if from.elapsed() > START {
                return Err(Error::Timeout(START.as_secs()));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where it is mounted.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Its servers.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn servers(&self) -> Result<Watched, Error> {
        Watched::ensemble(&self.data())
    }

    /// Stops it, and removes its directory.
    ///
    /// # Errors
    /// [`Error::Ended`] if it does not stop cleanly.
    pub async fn stop(mut self) -> Result<(), Error> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(pid, Signal::TERM); // It has ended: waiting tells how.
        }
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Error::Ended(format!("{status} at its stop").into())),
            Ok(Err(e)) => Err(Error::io("wait for the ensemble")(e)),
            Err(_) => Err(Error::Timeout(STOP.as_secs())),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Its children are tied to it and go with it.
        let _ = self.child.start_kill();
    }
}
