//! nfs-ganesha over a local directory: the reference that shows whether a failed test is the server's fault or the stage's.
//!
//! It is used when `SLICE_TEST_SERVER=ganesha` (`cargo xtask test --reference`), never by default. It registers with a
//! portmapper; where none runs, one is started and ended with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Doing, Error};
use crate::guest::Mount;
use crate::image::find_program;
use crate::paths;
use crate::process::{Process, free_port, listens};

/// A ganesha with one export.
#[derive(Debug)]
pub struct Ganesha {
    process: Option<Process>,
    _rpcbind: Option<Process>,
    folder: tempfile::TempDir,
    port: u16,
    mount_port: u16,
}

/// It starts its threads within a second or two; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(60);

impl Ganesha {
    /// Starts it over a new directory.
    pub fn start() -> Result<Self, Error> {
        let base = paths::target().join("ganesha");
        fs::create_dir_all(&base).doing(|| format!("making {}", base.display()))?;
        let folder = tempfile::TempDir::new_in(&base).doing(|| format!("making {}", base.display()))?;
        let export = folder.path().join("export");
        fs::create_dir(&export).doing(|| format!("making {}", export.display()))?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&export, open).doing(|| format!("opening {}", export.display()))?;
        let (port, mount_port) = (free_port()?, free_port()?);
        let rpcbind = if listens(PORTMAPPER) { None } else { Some(start_rpcbind(folder.path())?) };
        let mut ganesha = Self { process: None, _rpcbind: rpcbind, folder, port, mount_port };
        ganesha.restart()?;
        Ok(ganesha)
    }

    /// Kills it, if it runs, and starts it on the same directory and ports.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill();
        let folder = self.folder.path();
        let config = folder.join("ganesha.conf");
        fs::write(&config, self.config()).doing(|| format!("writing {}", config.display()))?;
        let arguments =
            ["-F", "-f", &text(&config), "-L", &text(&folder.join("log")), "-p", &text(&folder.join("pid"))];
        let arguments = arguments.map(str::to_owned);
        let program = find_program("ganesha.nfsd", "nfs-ganesha")?;
        let process = self.process.insert(Process::start(&program, &arguments, &folder.join("output"))?);
        process.wait_port(self.port, START_LIMIT)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Where it listens on the loopback, for NFS and for MOUNT, and its export: for clients without a kernel.
    pub fn raw(&self) -> (u16, u16, String) {
        (self.port, self.mount_port, text(&self.folder.path().join("export")))
    }

    /// How a guest mounts it.
    pub fn mount(&self) -> Mount {
        Mount::new(self.port)
            .export(&text(&self.folder.path().join("export")))
            .option(&format!("mountport={}", self.mount_port))
    }

    fn config(&self) -> String {
        let Self { folder, port, mount_port, .. } = self;
        let export = text(&folder.path().join("export"));
        format!(
            "NFS_CORE_PARAM {{ NFS_Protocols = 3; NFS_Port = {port}; MNT_Port = {mount_port}; Bind_addr = 127.0.0.1; \
             Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}\n\
             EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /; Protocols = 3; Transports = TCP; Access_Type = RW; \
             Squash = No_Root_Squash; SecType = sys; FSAL {{ Name = VFS; }} }}\n"
        )
    }
}

/// RFC 1833.
const PORTMAPPER: u16 = 111;

fn start_rpcbind(folder: &Path) -> Result<Process, Error> {
    let program = find_program("rpcbind", "rpcbind")?;
    let mut process = Process::start(&program, &["-f".to_owned()], &folder.join("rpcbind.log"))?;
    process.wait_port(PORTMAPPER, START_LIMIT)?;
    Ok(process)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
