//! A segment: a preallocated file of fixed size that is written over, never appended to. Overwriting and fdatasync of a
//! preallocated file costs a tenth of appending, because no metadata changes with it.

use super::Place;
use super::record::{End, Record, read_run};
use crate::error::{Error, Result};
use slice_proto::ids::EnsembleId;
use slice_proto::xdr::Reader;
use slice_system::{File, Files, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size of a segment: some 150,000 intentions; preallocated in about 10 ms.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Where records begin: the header has a block of its own, so that writing records never touches it.
pub const RECORDS_AT: u64 = 4096;
const MAGIC: &[u8; 8] = b"SLICELG1";
const HEADER_BYTES: usize = 36;

/// What a segment says of itself.
///
/// | bytes | what |
/// | --- | --- |
/// | 0..8 | `SLICELG1`: tells a segment, and the version of its layout |
/// | 8..16 | ensemble |
/// | 16..24 | sequence of the first record |
/// | 24..32 | salt of every record's checksum, drawn anew with each use of the file |
/// | 32..36 | CRC-32 of bytes 0..32 |
///
/// All integers big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub ensemble: EnsembleId,
    pub first: u64,
    pub salt: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(HEADER_BYTES);
        b.extend_from_slice(MAGIC);
        for v in [self.ensemble.0, self.first, self.salt] {
            b.extend_from_slice(&v.to_be_bytes());
        }
        let crc = crc32fast::hash(&b);
        b.extend_from_slice(&crc.to_be_bytes());
        b
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        let short = "it is too short";
        let body = bytes.get(..HEADER_BYTES - 4).ok_or(short)?;
        if body.get(..MAGIC.len()) != Some(MAGIC) {
            return Err("it does not begin with SLICELG1");
        }
        let mut r = Reader::at(bytes, MAGIC.len());
        let mut next = || r.u64().map_err(|_| short);
        let header = Self { ensemble: EnsembleId(next()?), first: next()?, salt: next()? };
        match r.u32() {
            Ok(crc) if crc == crc32fast::hash(body) => Ok(header),
            _ => Err("its header's checksum is wrong"),
        }
    }
}

/// Names a segment so that a listing shows the order.
pub fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}.seg"))
}

/// The file that waits to become the next segment.
pub fn spare_path(dir: &Path) -> PathBuf {
    dir.join("spare")
}

/// Makes a file of zeros in place of `path`: allocated and written, so that no later write changes metadata.
pub fn preallocate(files: &dyn Files, path: &Path, bytes: u64) -> Result<()> {
    let write = || {
        let file = files.open(path, Open::Empty)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < bytes {
            let part = zeros.get(..(bytes - at).min(zeros.len() as u64) as usize).unwrap_or_default();
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        file.sync_all()
    };
    write().map_err(Error::io("preallocate", path))
}

pub fn sync_dir(files: &dyn Files, dir: &Path) -> Result<()> {
    files.sync_dir(dir).map_err(Error::io("fsync", dir))
}

/// Turns the spare into the segment that begins with sequence `header.first`, durably.
pub fn start(place: &Place, header: Header) -> Result<(Arc<dyn File>, PathBuf)> {
    let (files, dir) = (&*place.files, &place.dir);
    let spare = spare_path(dir);
    // A crash may have left a spare that is not whole.
    if files.stat(&spare).map_or(0, |s| s.len) != place.segment_bytes {
        preallocate(files, &spare, place.segment_bytes)?;
    }
    let write = || {
        let file = files.open(&spare, Open::Existing)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        Ok(file)
    };
    let file = write().map_err(Error::io("write", &spare))?;
    // Only a whole header ever has a segment's name.
    let path = path_of(dir, header.first);
    files.rename(&spare, &path).map_err(Error::io("rename", &spare))?;
    sync_dir(files, dir)?;
    Ok((file, path))
}

/// The segments, in order.
pub fn list(Place { files, dir, ensemble, .. }: &Place) -> Result<Vec<(PathBuf, Header)>> {
    let mut found = Vec::new();
    let names = match files.names(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(Error::io("read", dir)(e)),
    };
    for name in names {
        let path = dir.join(name);
        if path.extension().is_none_or(|e| e != "seg") {
            continue;
        }
        let read = || {
            let file = files.open(&path, Open::Existing)?;
            let mut bytes = [0; HEADER_BYTES];
            file.read_exact_at(&mut bytes, 0).map(|()| bytes)
        };
        let bytes = read().map_err(Error::io("read", &path))?;
        let header = Header::decode(&bytes).map_err(|why| Error::BadSegment { path: path.clone(), why })?;
        if header.ensemble != *ensemble {
            return Err(Error::BadSegment { path, why: "it belongs to another ensemble" });
        }
        found.push((path, header));
    }
    found.sort_by_key(|(_, h)| h.first);
    Ok(found)
}

/// Reads a segment's records; returns the next sequence. What a crash tore off the end is left out.
pub fn read(files: &dyn Files, path: &Path, header: Header, each: impl FnMut(&Record<'_>)) -> Result<u64> {
    let bytes = files.read(path).map_err(Error::io("read", path))?;
    let records = bytes.get(RECORDS_AT as usize..).unwrap_or_default();
    let mut each = each;
    match read_run(header.salt, header.first, records, |r| each(&r)) {
        End::Clean(next) => Ok(next),
        End::Damaged(at) => Err(Error::Damaged { path: path.to_owned(), at: RECORDS_AT + at as u64 }),
    }
}
