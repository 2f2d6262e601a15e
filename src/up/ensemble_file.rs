//! `DIR/ensemble.json`: what runs now. It appears when the mount works and every server has come (just before the mount
//! command is printed), follows every restart of a child, always whole, and goes at a clean stop. `slice status`,
//! `slice admin` and tests find servers by it.

use super::layout::replace_file;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use slice_proto::ids::{EnsembleId, Role};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What runs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsembleFile {
    /// Version of the file.
    pub version: u32,
    /// The ensemble, in hexadecimal.
    pub ensemble: String,
    /// The process of `slice up`.
    pub pid: u32,
    /// Where the coordinator's control plane listens.
    pub control: SocketAddr,
    /// Every server.
    pub servers: Vec<ServerLine>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerLine {
    /// What it does, as its subcommand is called.
    pub role: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens; the coordinator's control plane comes second.
    pub addresses: Vec<SocketAddr>,
    /// Where its metrics answer, with `--metrics`; the coordinator's status page, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

impl EnsembleFile {
    /// A file without servers.
    #[must_use]
    pub fn new(ensemble: EnsembleId, control: SocketAddr) -> Self {
        Self {
            version: 1,
            ensemble: format!("{:016x}", ensemble.0),
            pid: std::process::id(),
            control,
            servers: Vec::new(),
        }
    }

    /// Adds a server.
    pub fn add(&mut self, role: Role, id: u64, pid: u32, addresses: Vec<SocketAddr>) {
        self.servers.push(ServerLine {
            role: role.name().to_owned(),
            id: format!("{id:016x}"),
            pid,
            addresses,
            metrics: None,
        });
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("ensemble.json")
    }

    /// Reads the file of a running ensemble.
    ///
    /// # Errors
    /// A sentence if nothing runs there.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = Self::path(dir);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let why = "is not there: no `slice up` runs on this directory; start it, or give --coordinator and --identity";
                return Err(Error::Damaged { path, why: why.to_owned() });
            }
            read => read.map_err(Error::io("read", &path))?,
        };
        let damaged =
            |e: serde_json::Error| Error::Damaged { path, why: format!("is not what slice wrote: {e}") };
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Shows it to others, all or nothing.
    ///
    /// # Errors
    /// A sentence.
    pub fn publish(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::usage(e.to_string()))?;
        replace_file(&Self::path(dir), &text)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// A sentence.
    pub fn remove(dir: &Path) -> Result<()> {
        match std::fs::remove_file(Self::path(dir)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", Self::path(dir))(e))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(EnsembleFile::read(dir.path()).unwrap_err().to_string().contains("no `slice up` runs"));
        let mut file = EnsembleFile::new(EnsembleId(7), ([127, 0, 0, 1], 2051).into());
        file.add(Role::Proxy, 1, 2, vec![([127, 0, 0, 1], 2049).into()]);
        file.publish(dir.path()).unwrap();
        assert_eq!(EnsembleFile::read(dir.path()).unwrap(), file);
        let text = std::fs::read_to_string(dir.path().join("ensemble.json")).unwrap();
        assert!(text.contains("\"role\": \"proxy\"") && text.contains("\"127.0.0.1:2049\""), "{text}");
        EnsembleFile::remove(dir.path()).unwrap();
        EnsembleFile::remove(dir.path()).unwrap();
    }
}
