//! The stores of servers: whose they are, made when a server first joins, opened as the service that they belong to.

use crate::error::{Error, Result};
use crate::hosted::Hosted;
use crate::identity::random_id;
use crate::targets::Targets;
use slice_blockstore::{BlockConfig, BlockStore};
use slice_coordinator::client::Client;
use slice_dirserver::{DirConfig, DirServer};
use slice_proto::control::pb;
use slice_proto::ids::{Role, ServerId};
use slice_proto::secret::Identity;
use slice_rpc::clock::SharedClock;
use slice_smallfile::{SmallConfig, SmallFileStore};
use slice_store::EngineKind;
use std::hash::Hasher;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Pause between attempts to reach a coordinator that is away, or a store that is open elsewhere: nothing tells when.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a process that was killed may take to be gone: its memory is freed first.
const GOING: Duration = Duration::from_secs(5);

/// Whose a store is.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// The server's id.
    pub server: ServerId,
    /// The engine that keeps it.
    pub engine: EngineKind,
    /// Whether it was made just now.
    pub fresh: bool,
}

/// Finds whose store is in `data`. If none is there and the ensemble still waits for its servers, makes one (I4: a store
/// that was lost is never replaced by an empty one).
///
/// # Errors
/// A sentence.
pub async fn find_or_make(
    role: Role,
    data: &Path,
    engine: Option<EngineKind>,
    identity: &Identity,
    client: &Client,
) -> Result<Made> {
    if let Some(made) = find(role, data, engine, identity)? {
        free(data).await;
        return Ok(made);
    }
    let status = patient_status(client).await?;
    if status.phase != pb::Phase::Gathering as i32 {
        return Err(Error::Damaged {
            path: data.to_owned(),
            why: format!(
                "holds no store, and the ensemble has all its {role}s: restore the lost store from its backup, or give the right --data"
            ),
        });
    }
    let made = Made { server: ServerId(random_id()?), engine: engine.unwrap_or_default(), fresh: true };
    make(role, data, &made, identity)?;
    Ok(made)
}

/// Whose store is in `data`, if there is one.
///
/// # Errors
/// A sentence, also if it is another role's or another ensemble's.
pub fn find(
    role: Role,
    data: &Path,
    engine: Option<EngineKind>,
    identity: &Identity,
) -> Result<Option<Made>> {
    let dir = || data.to_owned();
    let (stamp, found) = match slice_store::read_stamp(data) {
        Err(slice_store::Error::Absent { .. }) => return Ok(None),
        read => read?,
    };
    if stamp.role != role {
        return Err(slice_store::Error::OtherRole { dir: dir(), found: stamp.role, wanted: role }.into());
    }
    if stamp.ensemble != identity.ensemble {
        let (found, wanted) = (stamp.ensemble, identity.ensemble);
        return Err(slice_store::Error::OtherEnsemble { dir: dir(), found, wanted }.into());
    }
    match engine {
        Some(wanted) if wanted != found => {
            Err(slice_store::Error::OtherEngine { dir: dir(), found, wanted }.into())
        }
        _ => Ok(Some(Made { server: stamp.server, engine: found, fresh: false })),
    }
}

/// Waits a while for a store that another process has open: usually one that was just killed, and is going. If it does
/// not go, opening the store says so.
pub async fn free(data: &Path) {
    let until = tokio::time::Instant::now() + GOING;
    while tokio::time::Instant::now() < until {
        let file = std::fs::File::open(data.join("lock"));
        if !file.is_ok_and(|f| matches!(f.try_lock(), Err(std::fs::TryLockError::WouldBlock))) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks the coordinator until it answers.
async fn patient_status(client: &Client) -> Result<pb::StatusReply> {
    let mut told = false;
    loop {
        match client.status().await {
            Err(e) if e.is_passing() => {
                if !told {
                    tracing::warn!(error = %e, "waiting for the coordinator");
                    told = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            answered => return Ok(answered?),
        }
    }
}

fn make(role: Role, data: &Path, made: &Made, identity: &Identity) -> Result<()> {
    make_dir(data)?;
    let (data, identity) = (data.to_owned(), identity.clone());
    let Made { server, engine, .. } = *made;
    match role {
        Role::Dir => DirServer::format(&DirConfig { engine, ..DirConfig::new(data, identity, server) })
            .map_err(Error::service(role)),
        Role::Small => SmallFileStore::format(&SmallConfig { data, engine, identity, server })
            .map_err(Error::service(role)),
        Role::Block => {
            BlockStore::format(&BlockConfig { data, engine, identity, server }).map_err(Error::service(role))
        }
        other => Err(Error::usage(format!("a {other} keeps no store of this kind"))),
    }
}

/// Opens the server that a store belongs to.
///
/// # Errors
/// A sentence.
pub async fn open(
    role: Role,
    data: PathBuf,
    made: &Made,
    identity: &Identity,
    targets: &Targets,
    clock: &SharedClock,
) -> Result<Arc<dyn Hosted>> {
    let identity = identity.clone();
    let Made { server, engine, .. } = *made;
    let (tables, directory, clock) = (targets.tables(), targets.directory(), Arc::clone(clock));
    Ok(match role {
        Role::Dir => {
            let config = DirConfig { engine, ..DirConfig::new(data, identity, server) };
            let opened = DirServer::open(config, tables, directory, clock).await;
            Arc::new(opened.map_err(Error::service(role))?)
        }
        Role::Small => {
            let config = SmallConfig { data, engine, identity, server };
            let opened = SmallFileStore::open(config, tables, directory, clock).await;
            Arc::new(opened.map_err(Error::service(role))?)
        }
        Role::Block => {
            let config = BlockConfig { data, engine, identity, server };
            let opened = BlockStore::open(config, tables, directory, clock).await;
            Arc::new(opened.map_err(Error::service(role))?)
        }
        other => return Err(Error::usage(format!("a {other} keeps no store of this kind"))),
    })
}

/// Makes a directory that only its owner may look into: it will hold users' files and the ensemble's secret. One that is
/// there stays as it is.
///
/// # Errors
/// A sentence.
pub fn make_dir(dir: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::io("make", dir))
}

/// Names the file system that a path lies on: the same number for all processes on this machine. 0 if unknown.
#[must_use]
pub fn filesystem(path: &Path) -> u64 {
    // The machine, as its kernel names this boot: containers on one machine share it, and the file system.
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let Ok(meta) = std::fs::metadata(path) else { return 0 };
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(&boot);
    hasher.write_u64(meta.dev());
    hasher.finish()
}
