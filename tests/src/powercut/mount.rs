//! Where the kernel shows the disk.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Config, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use slice_system::disk::{Disk, Power};

use super::fuse::Fuse;
use crate::error::{Doing, Error};

const DEVICE: &str = "/dev/fuse";

/// A disk in a directory, until its power is cut.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    /// A directory of its own, if it has one.
    _own: Option<TempDir>,
    power: Arc<Power>,
}

impl Mounted {
    /// Mounts a disk on a directory of its own. For root alone, and without any helper: the device is opened and mounted here.
    pub fn new(disk: Disk) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("slice-power-").tempdir();
        let dir = dir.doing(|| "making a directory to mount on".to_owned())?;
        let at = dir.path().to_owned();
        let mut mounted = Self::at(&at, disk, true)?;
        mounted._own = Some(dir);
        Ok(mounted)
    }

    /// Mounts a disk on this directory. `cached`: the kernel may read from its own memory what it has read or written before.
    pub fn at(at: &Path, disk: Disk, cached: bool) -> Result<Self, Error> {
        let power = Arc::new(Power::new(disk));
        let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let device = device.map_err(io::Error::from).doing(|| format!("opening {DEVICE}"))?;
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        let told = format!(
            "fd={},rootmode=40000,user_id={},group_id={}",
            device.as_raw_fd(),
            user.as_raw(),
            group.as_raw()
        );
        let told = CString::new(told).map_err(io::Error::from).doing(|| "mount options".to_owned())?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let mounted = rustix::mount::mount("slice-power", at, "fuse", flags, told.as_c_str());
        mounted
            .map_err(io::Error::from)
            .doing(|| format!("mounting a FUSE file system on {}", at.display()))?;
        let mounted = Self { at: at.to_owned(), _own: None, power: Arc::clone(&power) };
        // Its thread ends when the last file on it is closed.
        let session = Session::from_fd(Fuse::new(power, cached), device, SessionACL::All, Config::default());
        let session = session.doing(|| "speaking to the kernel".to_owned())?;
        drop(session.spawn().doing(|| "starting the file system's thread".to_owned())?);
        Ok(mounted)
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Its switch.
    pub fn power(&self) -> &Arc<Power> {
        &self.power
    }

    /// Cuts the power, unless that has happened, and gives back the disk with what survived: `seed` decides what that is.
    /// Whoever still has files open on it gets EIO for ever.
    #[must_use]
    pub fn cut(self, seed: u64) -> Disk {
        self.power.take().unwrap().cut(seed)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.power.take();
        // Lazily: a server that is going down may still have files open.
        if let Err(error) = rustix::mount::unmount(&self.at, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}

/// Why no disk can be mounted on this machine: none if it can.
pub fn obstacle() -> Option<String> {
    Mounted::new(Disk::new(0)).err().map(|error| error.to_string())
}
