//! `DIR/layout.json`: what a start of `slice up` must find again: what was decided at format, and the ports.
//!
//! `ensemble.json` tells others what runs now; this tells ourselves what there is.

use super::ports::Ports;
use crate::cli::up::{FormatArgs, UpArgs, VolumeEntry};
use crate::cli::values::{Engine, Policy};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use slice_proto::ids::Role;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of the file.
const VERSION: u32 = 1;
/// Servers of each role unless flags say otherwise. Two storage nodes, so that striping is real.
const DIRSERVERS: usize = 1;
const SMALLFILES: usize = 1;
const BLOCKSTORES: usize = 2;

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    version: u32,
    /// Whether the coordinator's store was made to its end.
    pub formatted: bool,
    /// Engine of every store.
    pub store: Engine,
    /// Directory servers.
    pub dirservers: usize,
    /// Small-file servers.
    pub smallfiles: usize,
    /// Block storage nodes.
    pub blockstores: usize,
    /// Policy of volumes that have none of their own.
    pub policy: Policy,
    /// Volumes of the configuration file.
    pub volumes: Vec<VolumeEntry>,
    /// Loopback ports: `dirserver-0`, …, `coordinator`, `control`.
    pub ports: Ports,
}

impl Layout {
    /// A new one, by the flags.
    #[must_use]
    pub fn new(args: &UpArgs) -> Self {
        let FormatArgs { dirservers, smallfiles, blockstores, policy, volume, .. } = args.plan.clone();
        Self {
            version: VERSION,
            formatted: false,
            store: args.store.unwrap_or_default(),
            dirservers: dirservers.unwrap_or(DIRSERVERS),
            smallfiles: smallfiles.unwrap_or(SMALLFILES),
            blockstores: blockstores.unwrap_or(BLOCKSTORES),
            policy: policy.unwrap_or_default(),
            volumes: volume,
            ports: Ports::default(),
        }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("layout.json")
    }

    /// What there is in `dir`, if anything; the flags must not say otherwise.
    ///
    /// # Errors
    /// A sentence.
    pub fn find(dir: &Path, args: &UpArgs) -> Result<Option<Self>> {
        let path = Self::path(dir);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let damaged = |why: String| Error::Damaged { path: path.clone(), why };
        let layout: Self = serde_json::from_slice(&bytes)
            .map_err(|e| damaged(format!("is not what slice wrote ({e}): restore it from a backup")))?;
        if layout.version > VERSION {
            return Err(damaged(format!("has version {}: run a newer program", layout.version)));
        }
        layout.admit(dir, args)?;
        Ok(Some(layout))
    }

    /// Checks that the flags do not contradict what was decided at format.
    fn admit(&self, dir: &Path, args: &UpArgs) -> Result<()> {
        let plan = &args.plan;
        let differs = |flag: &str, given: Option<String>, made: String| match given {
            Some(given) if given != made => Err(Error::usage(format!(
                "{} was formatted with {flag} {made}, which cannot be changed to {given}: leave {flag} out, or give another --data",
                dir.display()
            ))),
            _ => Ok(()),
        };
        let number = |n: Option<usize>| n.map(|n| n.to_string());
        differs("--dirservers", number(plan.dirservers), self.dirservers.to_string())?;
        differs("--smallfiles", number(plan.smallfiles), self.smallfiles.to_string())?;
        differs("--blockstores", number(plan.blockstores), self.blockstores.to_string())?;
        differs("--policy", plan.policy.map(|p| p.to_string()), self.policy.to_string())?;
        differs("--store", args.store.map(|e| e.to_string()), self.store.to_string())?;
        if !plan.volume.is_empty() && plan.volume != self.volumes {
            return Err(Error::usage(format!(
                "{} was formatted with other volumes than the file lists: volumes are fixed at format in this version",
                dir.display()
            )));
        }
        Ok(())
    }

    /// Writes it, durably, all or nothing.
    ///
    /// # Errors
    /// A sentence.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::usage(e.to_string()))?;
        replace_file(&Self::path(dir), &text)
    }

    /// What the coordinator is told at format.
    #[must_use]
    pub fn plan(&self, args: &FormatArgs) -> FormatArgs {
        FormatArgs {
            dirservers: Some(self.dirservers),
            smallfiles: Some(self.smallfiles),
            blockstores: Some(self.blockstores),
            policy: Some(self.policy),
            volume: self.volumes.clone(),
            root_owner: args.root_owner,
            root_mode: args.root_mode,
        }
    }

    /// The servers that own sites, in order.
    #[must_use]
    pub fn servers(&self) -> Vec<(Role, usize)> {
        let of = |role, n| (0..n).map(move |i| (role, i));
        of(Role::Dir, self.dirservers)
            .chain(of(Role::Small, self.smallfiles))
            .chain(of(Role::Block, self.blockstores))
            .collect()
    }
}

/// The name of a server: of its directory, its port, its log.
#[must_use]
pub fn name(role: Role, index: usize) -> String {
    match role {
        Role::Dir | Role::Small | Role::Block => format!("{role}-{index}"),
        Role::Proxy | Role::Coordinator | Role::Admin => role.name().to_owned(),
    }
}

/// Puts `content` at `path`, durably, all or nothing.
///
/// # Errors
/// A sentence.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_again_and_not_contradicted() {
        let dir = tempfile::tempdir().unwrap();
        let args = UpArgs::default();
        assert_eq!(Layout::find(dir.path(), &args).unwrap(), None);
        let mut layout = Layout::new(&args);
        layout.ports.address("dirserver-0", &[]).unwrap();
        layout.save(dir.path()).unwrap();
        let found = Layout::find(dir.path(), &args).unwrap().unwrap();
        assert_eq!(found, layout);
        assert_eq!(found.servers().len(), 4);

        let plan = FormatArgs { dirservers: Some(2), ..FormatArgs::default() };
        let more = UpArgs { plan, ..UpArgs::default() };
        let error = Layout::find(dir.path(), &more).unwrap_err().to_string();
        assert!(error.contains("formatted with --dirservers 1, which cannot be changed to 2"), "{error}");
        std::fs::write(Layout::path(dir.path()), "x").unwrap();
        assert!(Layout::find(dir.path(), &args).unwrap_err().to_string().contains("restore it"));
    }
}
