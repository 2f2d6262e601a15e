//! Whose store it is, and that only one process has it open.

use crate::engine::EngineKind;
use crate::error::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::{EnsembleId, Role, ServerId};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a store was formatted for. Stands in `DIR/store/stamp` and again in the engine beside the data.
///
/// | bytes | what | why there |
/// | --- | --- | --- |
/// | 0..8 | `SLICEST1` | tells a stamp from anything else, and its version |
/// | 8..12 | engine: 1 fjall, 2 sled | decides how to read the rest of the directory |
/// | 12..16 | format of the records | a newer one is refused |
/// | 16..24 | ensemble | |
/// | 24..32 | server | |
/// | 32..36 | role | |
/// | 36..40 | CRC-32 of bytes 0..36 | a damaged stamp is refused, not taken for another's |
///
/// All integers big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStamp {
    /// The ensemble it belongs to.
    pub ensemble: EnsembleId,
    /// The server it belongs to.
    pub server: ServerId,
    /// What that server does.
    pub role: Role,
    /// Version of the records that the role keeps in it. When opening: the newest that the program knows.
    pub format: u32,
}

const MAGIC: &[u8; 8] = b"SLICEST1";
const STAMP_BYTES: usize = 40;

impl StoreStamp {
    pub(crate) fn encode(&self, kind: EngineKind) -> Bytes {
        let mut b = BytesMut::with_capacity(STAMP_BYTES);
        b.put_slice(MAGIC);
        b.put_u32(kind.code());
        b.put_u32(self.format);
        b.put_u64(self.ensemble.0);
        b.put_u64(self.server.0);
        b.put_u32(self.role as u32);
        let crc = crc32fast::hash(&b);
        b.put_u32(crc);
        b.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<(Self, EngineKind), &'static str> {
        use slice_proto::xdr::Reader;
        let short = |_| "it is too short";
        let body = bytes.get(..STAMP_BYTES - 4).ok_or("it is too short")?;
        if body.get(..MAGIC.len()) != Some(MAGIC) {
            return Err("it does not begin with SLICEST1");
        }
        let mut r = Reader::at(bytes, MAGIC.len());
        let kind = r.u32().map_err(short)?;
        let format = r.u32().map_err(short)?;
        let ensemble = EnsembleId(r.u64().map_err(short)?);
        let server = ServerId(r.u64().map_err(short)?);
        let role = r.u32().map_err(short)?;
        if r.u32().map_err(short)? != crc32fast::hash(body) {
            return Err("its checksum is wrong");
        }
        let kind = EngineKind::from_code(kind).ok_or("its engine is unknown")?;
        let role = Role::from_u32(role).ok_or("its role is unknown")?;
        Ok((Self { ensemble, server, role, format }, kind))
    }

    /// Whether a store stamped with `self` may be opened as `wanted`.
    pub(crate) fn admit(
        &self,
        kind: EngineKind,
        wanted: &Self,
        wanted_kind: EngineKind,
        dir: &Path,
    ) -> Result<()> {
        let dir = dir.to_owned();
        if self.ensemble != wanted.ensemble {
            return Err(Error::OtherEnsemble { dir, found: self.ensemble, wanted: wanted.ensemble });
        }
        if self.role != wanted.role {
            return Err(Error::OtherRole { dir, found: self.role, wanted: wanted.role });
        }
        if self.server != wanted.server {
            return Err(Error::OtherServer { dir, found: self.server, wanted: wanted.server });
        }
        if self.format > wanted.format {
            return Err(Error::NewerFormat { dir, found: self.format, known: wanted.format });
        }
        if kind != wanted_kind {
            return Err(Error::OtherEngine { dir, found: kind, wanted: wanted_kind });
        }
        Ok(())
    }
}

impl fmt::Display for StoreStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of ensemble {:016x}", self.role, self.server, self.ensemble.0)
    }
}

pub(crate) fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

pub(crate) fn db_dir(dir: &Path) -> PathBuf {
    store_dir(dir).join("db")
}

fn stamp_file(dir: &Path) -> PathBuf {
    store_dir(dir).join("stamp")
}

/// Reads whose store is in `dir` and which engine keeps it, without opening it.
///
/// # Errors
/// [`Error::Absent`] if none is there, [`Error::BadStamp`], [`Error::Io`].
pub fn read_stamp(dir: &Path) -> Result<(StoreStamp, EngineKind)> {
    let path = stamp_file(dir);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Absent { dir: dir.to_owned() });
        }
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    StoreStamp::decode(&bytes).map_err(|why| Error::BadStamp { path, why })
}

/// Makes a store in `dir`, all or nothing: it is built aside and renamed.
pub(crate) fn format(dir: &Path, kind: EngineKind, stamp: &StoreStamp) -> Result<()> {
    make_dirs(dir)?;
    let _lock = lock(dir)?;
    match read_stamp(dir) {
        Err(Error::Absent { .. }) => {}
        Ok((found, _)) => return Err(Error::Exists { dir: dir.to_owned(), stamp: found.to_string() }),
        Err(e) => return Err(e),
    }
    let to = store_dir(dir);
    if to.exists() {
        // Data without a stamp is somebody's damaged store, not an empty place.
        return Err(Error::BadStamp { path: stamp_file(dir), why: "it is missing" });
    }
    let aside = dir.join("store.new");
    if aside.exists() {
        // A format that did not come to its end.
        std::fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))?;
    }
    std::fs::create_dir(&aside).map_err(Error::io("make", &aside))?;
    let encoded = stamp.encode(kind);
    let engine = kind.open(&aside.join("db"), true)?;
    engine.set_stamp(&encoded)?;
    drop(engine);
    let file = aside.join("stamp");
    let write = || {
        let mut f = File::create_new(&file)?;
        f.write_all(&encoded)?;
        f.sync_all()
    };
    write().map_err(Error::io("write", &file))?;
    sync_dir(&aside)?;
    std::fs::rename(&aside, &to).map_err(Error::io("rename", &aside))?;
    sync_dir(dir)
}

/// Makes a directory, and those above it that are not there, with durable names.
fn make_dirs(dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.exists()).collect();
    std::fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        // A relative path's first name stands in the working directory.
        sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("fsync", dir))
}

/// Takes the directory for this process until the file is dropped; the system frees it if the process dies.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let open = || File::options().create(true).truncate(false).write(true).open(&path);
    let file = open().map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: StoreStamp =
        StoreStamp { ensemble: EnsembleId(1), server: ServerId(2), role: Role::Small, format: 3 };

    #[test]
    fn a_stamp_reads_back() {
        let bytes = STAMP.encode(EngineKind::Sled);
        assert_eq!(bytes.len(), STAMP_BYTES);
        assert_eq!(StoreStamp::decode(&bytes), Ok((STAMP, EngineKind::Sled)));
    }

    #[test]
    fn no_damaged_stamp_is_taken_for_one() {
        let bytes = STAMP.encode(EngineKind::Fjall);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(StoreStamp::decode(&bad).is_err(), "byte {at}");
            assert!(StoreStamp::decode(&bytes[..at]).is_err(), "{at} bytes");
        }
    }
}
