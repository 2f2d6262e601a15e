//! `slice up`: a whole ensemble on this machine.
//!
//! ```text
//!  DIR/up.lock        one `slice up` at a time
//!  DIR/identity       the ensemble's id and secret (0600)
//!  DIR/layout.json    what was decided at format; ports          layout, ports
//!  DIR/ensemble.json  what runs now, while it runs               ensemble_file
//!  DIR/proxy.toml     export rules, for µproxies
//!  DIR/coordinator/   DIR/dirserver-0/ …                          a store each
//!  DIR/log/           logs of children (--separate)
//! ```

pub mod ensemble_file;
mod in_process;
pub mod layout;
mod ports;
pub mod ready;
mod separate;

use crate::cli::exports::ExportArgs;
use crate::cli::role::PROXY_LISTEN;
use crate::cli::up::UpArgs;
use crate::error::{Error, Result};
use crate::identity;
use crate::plan::plan;
use crate::store::make_dir;
use ensemble_file::EnsembleFile;
use layout::{Layout, replace_file};
use serde::Serialize;
use slice_coordinator::{Coordinator, CoordinatorConfig, TAKE_OVER_AFTER};
use slice_proto::ids::{Role, ServerId};
use slice_proto::secret::Identity;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where everything is kept unless flags say otherwise.
const DATA: &str = "slice-data";
/// How long a process that was killed may take to be gone, and how often we look: nothing tells.
const GOING: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What may stand in a directory that holds no ensemble yet: what file systems and an earlier start leave.
const MAY_STAND: [&str; 7] =
    ["lost+found", "up.lock", "identity", "identity.new", "layout.new", "ensemble.json", "log"];

/// An ensemble that is about to run.
pub struct Deployment {
    /// Its directory, absolute.
    dir: PathBuf,
    identity: Identity,
    layout: Layout,
    args: UpArgs,
    /// Where clients mount.
    listen: SocketAddr,
    /// Held until the process ends.
    _lock: File,
}

/// Starts an ensemble, runs it until a signal, stops it.
///
/// # Errors
/// A sentence.
pub async fn run(args: UpArgs) -> Result<()> {
    let separate = args.separate;
    let deployment = Deployment::prepare(args)?;
    if separate { separate::run(deployment).await } else { in_process::run(deployment).await }
}

impl Deployment {
    /// Finds the ensemble in the directory, or makes it.
    fn prepare(args: UpArgs) -> Result<Self> {
        let exports = args.exports.exports()?;
        drop(exports);
        let listen = args.listen.unwrap_or_else(|| SocketAddr::from(PROXY_LISTEN));
        let data = args.data.clone().unwrap_or_else(|| PathBuf::from(DATA));
        make_dir(&data)?;
        let dir = data.canonicalize().map_err(Error::io("read", &data))?;
        let lock = lock(&dir)?;
        EnsembleFile::remove(&dir)?;
        let found = Layout::find(&dir, &args)?;
        // Before anything is made: a port that is taken is the most likely mistake.
        bindable(listen, found.is_some())?;
        let (layout, identity) = match found {
            Some(layout) => (layout, identity::read(&dir.join("identity"))?),
            None => begin(&dir, &args)?,
        };
        let mut deployment = Self { dir, identity, layout, args, listen, _lock: lock };
        deployment.write_rules()?;
        deployment.format()?;
        Ok(deployment)
    }

    /// The export rules, where children and further µproxies find them.
    fn write_rules(&self) -> Result<()> {
        #[derive(Serialize)]
        struct Sections<'a> {
            proxy: &'a ExportArgs,
        }
        let text = toml::to_string(&Sections { proxy: &self.args.exports });
        let text = text.map_err(|e| Error::usage(e.to_string()))?;
        replace_file(&rules_path(&self.dir), text.as_bytes())
    }

    /// Makes the coordinator's store, if that did not come to its end before.
    fn format(&mut self) -> Result<()> {
        if self.layout.formatted {
            return Ok(());
        }
        // No coordinator ever ran on what stands there, so no server can have been dealt anything.
        let data = self.dir.join(layout::name(Role::Coordinator, 0));
        match std::fs::remove_dir_all(&data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &data)(e)),
            _ => {}
        }
        let asked = self.layout.plan(&self.args.plan);
        let plan = plan(&asked, !self.args.exports.no_root_squash)?;
        let server = ServerId(identity::random_id()?);
        Coordinator::format(&self.coordinator_config(server), plan)?;
        self.layout.formatted = true;
        self.layout.save(&self.dir)
    }

    /// The coordinator's configuration; its address is not known yet.
    fn coordinator_config(&self, server: ServerId) -> CoordinatorConfig {
        let after = self.args.take_over_after;
        CoordinatorConfig {
            data: self.dir.join(layout::name(Role::Coordinator, 0)),
            engine: self.layout.store.0,
            identity: self.identity.clone(),
            server,
            address: "127.0.0.1:1".into(),
            take_over_after: after.map_or(TAKE_OVER_AFTER, |s| Duration::from_secs(u64::from(s))),
        }
    }

    /// The coordinator's id, from its store.
    fn coordinator_id(&self) -> Result<ServerId> {
        let data = self.dir.join(layout::name(Role::Coordinator, 0));
        Ok(slice_store::read_stamp(&data)?.0.server)
    }

    /// The loopback address of a server.
    fn address(&mut self, name: &str) -> Result<SocketAddr> {
        let not = self.taken();
        self.layout.ports.address(name, &not)
    }

    /// Ports that the flags give away.
    fn taken(&self) -> Vec<u16> {
        [Some(self.listen), self.args.portmap, self.args.run.metrics]
            .into_iter()
            .flatten()
            .map(|at| at.port())
            .collect()
    }

    /// Path of the volume that the mount command names: the first.
    fn volume(&self) -> &str {
        self.layout.volumes.first().map_or("/", |v| &v.path)
    }

    /// Tells the world that the mount works.
    fn announce(&self, file: &EnsembleFile, mount: SocketAddr) -> Result<()> {
        file.publish(&self.dir)?;
        let Layout { dirservers, smallfiles, blockstores, policy, .. } = &self.layout;
        let text = format!(
            "Slice ensemble {} in {}: {dirservers} dirserver(s), {smallfiles} smallfile(s), {blockstores} blockstore(s), policy {policy}.\nMount it with:\n  {}\n",
            file.ensemble,
            self.dir.display(),
            ready::mount_command(mount, self.volume()),
        );
        print_out(&text)
    }
}

/// Prints to standard output; a reader that is gone is no reason to stop.
///
/// # Errors
/// A sentence if the output cannot be written for another reason.
pub fn print_out(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write", "standard output")(e)),
        _ => Ok(()),
    }
}

/// Whether `addr` can be listened on. `again`: the µproxy of an earlier start may have been killed just now, and be going.
fn bindable(addr: SocketAddr, again: bool) -> Result<()> {
    let until = Instant::now() + if again { GOING } else { Duration::ZERO };
    loop {
        match TcpListener::bind(addr) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(LOOK_AGAIN)
            }
            Err(source) => return Err(Error::Listen { addr, source }),
        }
    }
}

/// Where the export rules of an ensemble stand.
#[must_use]
pub fn rules_path(dir: &Path) -> PathBuf {
    dir.join("proxy.toml")
}

/// A directory that holds no ensemble yet gets its identity and layout.
fn begin(dir: &Path, args: &UpArgs) -> Result<(Layout, Identity)> {
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let name = entry.map_err(Error::io("read", dir))?.file_name();
        if !MAY_STAND.iter().any(|may| name == *may) {
            return Err(Error::usage(format!(
                "{} holds {}, but no ensemble: give a new or an empty directory with --data",
                dir.display(),
                name.display()
            )));
        }
    }
    let layout = Layout::new(args);
    // Volumes and numbers are checked before anything is made of them.
    plan(&layout.plan(&args.plan), true)?;
    let identity = identity::read_or_make(&dir.join("identity"))?;
    layout.save(dir)?;
    Ok((layout, identity))
}

/// Takes the directory for this process; the system frees it when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("up.lock");
    let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the sentence.
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
            return Err(Error::InUse { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path)(e)),
    }
    let note = || {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(std::process::id().to_string().as_bytes())
    };
    let mut note = note;
    note().map_err(Error::io("write", &path))?;
    Ok(file)
}
