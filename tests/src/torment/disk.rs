//! A small disk under one server of an ensemble that is stopped: a tmpfs, with what the server had copied onto it. Only root may
//! mount one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A mounted disk. It goes, with all that is on it, when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts a disk with so many bytes left under the directory of a server; `None` if we may not.
    #[must_use]
    pub fn under(server: &Path, left: u64) -> Option<Self> {
        let aside = server.with_extension("aside");
        fs::rename(server, &aside).unwrap();
        fs::create_dir(server).unwrap();
        let options = format!("size={}", used(&aside) + left);
        let options = std::ffi::CString::new(options).unwrap();
        if let Err(error) = mount("tmpfs", server, "tmpfs", MountFlags::empty(), Some(&*options)) {
            println!("a tmpfs cannot be mounted ({error}): this test has not run");
            fs::remove_dir(server).unwrap();
            fs::rename(&aside, server).unwrap();
            return None;
        }
        let disk = Self(server.to_owned());
        let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(server).status().unwrap();
        assert!(copied.success(), "copying a server's directory");
        Some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its server may still be on its way out.
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Bytes that a directory takes.
fn used(dir: &Path) -> u64 {
    let said = Command::new("du").args(["-s", "-B1"]).arg(dir).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}
