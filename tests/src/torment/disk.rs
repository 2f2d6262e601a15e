//! Another disk under one server of an ensemble that is stopped, with what the server had copied onto it: a small one (tmpfs), or one
//! that fails when it is told to (`powercut`). Only root may mount one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{Doing, Error};
use crate::powercut::{Disk, Mounted};

/// A mounted disk. It goes, with all that is on it, when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts a disk with so many bytes left under the directory of a server; `None` if we may not.
    #[must_use]
    pub fn under(server: &Path, left: u64) -> Option<Self> {
        let mounted = moved(server, |aside| {
            let options = format!("size={}", used(aside) + left);
            let options = std::ffi::CString::new(options).unwrap();
            mount("tmpfs", server, "tmpfs", MountFlags::empty(), Some(&*options))
        });
        match mounted {
            Ok(()) => Some(Self(server.to_owned())),
            Err(error) => {
                println!("a tmpfs cannot be mounted ({error}): this test has not run");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its server may still be on its way out.
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Puts a disk that may fail under the directory of a server, and makes durable what is copied onto it. Every read comes to it.
pub fn put_on(server: &Path, disk: Disk) -> Result<Mounted, Error> {
    let mounted = moved(server, |_| Mounted::at(server, disk, false))?;
    let synced = Command::new("find").arg(server).args(["-exec", "sync", "{}", "+"]).status();
    let synced = synced.doing(|| "making a disk's content durable".to_owned())?;
    assert!(synced.success(), "making a disk's content durable");
    Ok(mounted)
}

/// Moves a directory's content onto what `mounts` mounts there; where that fails, all is as it was.
fn moved<T, E>(dir: &Path, mounts: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E> {
    let aside = dir.with_extension("aside");
    fs::rename(dir, &aside).unwrap();
    fs::create_dir(dir).unwrap();
    let mounted = mounts(&aside);
    if mounted.is_err() {
        fs::remove_dir(dir).unwrap();
        fs::rename(&aside, dir).unwrap();
        return mounted;
    }
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(dir).status().unwrap();
    assert!(copied.success(), "copying a server's directory");
    fs::remove_dir_all(&aside).unwrap();
    mounted
}

/// Bytes that a directory takes.
fn used(dir: &Path) -> u64 {
    let said = Command::new("du").args(["-s", "-B1"]).arg(dir).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}
