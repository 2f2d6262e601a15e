//! A segment: one file, allocated whole before it is used.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | `SLICESG1` |
//! | 8..12 | its number, which is its name |
//! | 12..16 | its length in bytes |
//! | 16..24 | the server whose it is |
//! | 24..28 | CRC-32 of bytes 0..24 |
//! | 64.. | frames |

use super::frame;
use crate::core::Extent;
use crate::error::{Error, Result};
use bytes::{BufMut, BytesMut};
use rustix::io::Errno;
use slice_proto::ids::ServerId;
use slice_proto::xdr::Reader;
use slice_system::{File, Files, Open};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MAGIC: &[u8; 8] = b"SLICESG1";
/// Where frames begin.
pub(crate) const FIRST: u32 = 64;
/// Zeros written at a time where the file system cannot allocate.
const ZEROS: usize = 1 << 20;

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub id: u32,
    pub len: u32,
    pub file: Arc<dyn File>,
    /// Bytes that extents point to.
    live: AtomicU64,
    /// Copying it forward did not empty it: a checksum is wrong there.
    stuck: AtomicBool,
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It answers [`Miss::NotCached`] instead.
    None,
    /// It may.
    Any,
}

/// Why a read has not read.
#[derive(Debug)]
pub(crate) enum Miss {
    /// It would wait for the disk.
    NotCached,
    /// It cannot.
    Failed(Error),
}

impl From<Error> for Miss {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

/// The name of a segment's file.
pub(crate) fn name(id: u32) -> String {
    format!("{id:08x}.seg")
}

/// The segment whose file has this name.
pub(crate) fn id_of(path: &Path) -> Option<u32> {
    let stem = path.file_stem()?.to_str().filter(|s| s.len() == 8)?;
    (path.extension()? == "seg").then(|| u32::from_str_radix(stem, 16).ok()).flatten()
}

fn header(id: u32, len: u32, server: ServerId) -> BytesMut {
    let mut b = BytesMut::with_capacity(FIRST as usize);
    b.put_slice(MAGIC);
    b.put_u32(id);
    b.put_u32(len);
    b.put_u64(server.0);
    let crc = crc32fast::hash(&b);
    b.put_u32(crc);
    b
}

/// Reads a segment's header: whose it is, and how long; `None` if it is none.
fn parse(bytes: &[u8], id: u32) -> Option<(ServerId, u32)> {
    let body = bytes.get(..24)?;
    let mut r = Reader::at(bytes.get(..28)?, 8);
    let (got, len, server, crc) = (r.u32().ok()?, r.u32().ok()?, ServerId(r.u64().ok()?), r.u32().ok()?);
    (body.starts_with(MAGIC) && got == id && crc == crc32fast::hash(body)).then_some((server, len))
}

/// fsyncs a directory: its entries are durable.
pub(crate) fn sync_dir(files: &dyn Files, dir: &Path) -> Result<()> {
    files.sync_dir(dir).map_err(Error::io("fsync", dir))
}

impl Segment {
    /// Makes a segment with all its blocks allocated; durable when it returns. Nothing is left if it fails.
    pub(crate) fn create(files: &dyn Files, dir: &Path, id: u32, len: u32, server: ServerId) -> Result<Self> {
        let path = dir.join(name(id));
        Self::make(files, &path, id, len, server).inspect_err(|_| {
            // A leftover without a header is removed at the next start all the same.
            let _ = files.remove(&path);
        })
    }

    fn make(files: &dyn Files, path: &Path, id: u32, len: u32, server: ServerId) -> Result<Self> {
        let file = files.open(path, Open::Empty).map_err(Error::io("make", path))?;
        if let Err(e) = file.allocate(0, len.into(), false) {
            match Errno::from_io_error(&e) {
                Some(Errno::OPNOTSUPP) => {
                    write_zeros(&*file, len).map_err(Error::io("allocate", path))?;
                }
                Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Err(Error::NoSpace),
                _ => return Err(Error::io("allocate", path)(e)),
            }
        }
        file.write_all_at(&header(id, len, server), 0).map_err(Error::io("write", path))?;
        file.sync_all().map_err(Error::io("fsync", path))?;
        if let Some(dir) = path.parent() {
            sync_dir(files, dir)?;
        }
        Ok(Self { id, len, file, live: AtomicU64::new(0), stuck: AtomicBool::new(false) })
    }

    /// Opens a segment; `None` if its making did not come to its end.
    pub(crate) fn open(files: &dyn Files, path: &Path, id: u32, server: ServerId) -> Result<Option<Self>> {
        let file = files.open(path, Open::Existing).map_err(Error::io("open", path))?;
        let mut bytes = [0; FIRST as usize];
        let whole = file.stat().map_err(Error::io("stat", path))?.len;
        if whole < bytes.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
        match parse(&bytes, id) {
            None => Ok(None),
            Some((found, _)) if found != server => {
                Err(Error::NotOurSegments { path: path.to_owned(), server })
            }
            Some((_, len)) if u64::from(len) != whole => Ok(None),
            Some((_, len)) => {
                Ok(Some(Self { id, len, file, live: AtomicU64::new(0), stuck: AtomicBool::new(false) }))
            }
        }
    }

    /// Bytes that extents point to.
    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Acquire)
    }

    /// An extent points here.
    pub(crate) fn hold(&self, stored: u16) {
        self.live.fetch_add(stored.into(), Ordering::AcqRel);
    }

    /// An extent points here no more. Whether the segment is empty now, or one of these shares of it, in percent, is not in
    /// use any more.
    pub(crate) fn release(&self, stored: u16, shares: [u64; 2]) -> bool {
        let before = self.live.fetch_sub(stored.into(), Ordering::AcqRel);
        let after = before.saturating_sub(stored.into());
        let crossed = |percent| {
            before * 100 > u64::from(self.len) * percent && after * 100 <= u64::from(self.len) * percent
        };
        after == 0 || shares.into_iter().any(crossed)
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    pub(crate) fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
    }

    /// The header of the frame at byte `at`, if one is there. May wait for the disk.
    pub(crate) fn frame_at(&self, at: u32) -> Result<Option<frame::Header>> {
        let mut bytes = [0; frame::HEADER_MAX];
        let room = (self.len.saturating_sub(at) as usize).min(bytes.len());
        let bytes = bytes.get_mut(..room).unwrap_or_default();
        self.file.read_exact_at(bytes, at.into()).map_err(Error::io("read", name(self.id)))?;
        // One that leads past the end, or nowhere, is none.
        Ok(frame::decode(self.id, at, bytes).filter(|h| h.len > 0 && h.len <= self.len - at))
    }

    /// Reads `out.len()` bytes at `offset`.
    pub(crate) fn read(
        &self,
        offset: u32,
        out: &mut [u8],
        patience: Patience,
    ) -> std::result::Result<(), Miss> {
        let at = u64::from(offset);
        let failed = |e: std::io::Error| Miss::Failed(Error::io("read", name(self.id))(e));
        if patience == Patience::None {
            match self.file.read_cached_at(out, at) {
                Ok(got) if got == out.len() => return Ok(()),
                Ok(_) => return Err(Miss::NotCached),
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return Err(Miss::NotCached),
                    // A file system that cannot tell: then it is memory, or old.
                    ErrorKind::Unsupported => {}
                    _ => return Err(failed(e)),
                },
            }
        }
        self.file.read_exact_at(out, at).map_err(failed)
    }
}

/// Checks that `bytes` are those of the extent.
pub(crate) fn verify(e: &Extent, bytes: &[u8]) -> Result<()> {
    let got = crc32fast::hash(bytes);
    if got == e.crc {
        return Ok(());
    }
    Err(Error::Checksum { got, expected: e.crc, segment: e.segment, offset: e.offset, len: e.stored })
}

fn write_zeros(file: &dyn File, len: u32) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut at = 0;
    while at < u64::from(len) {
        let part = (u64::from(len) - at).min(ZEROS as u64) as usize;
        file.write_all_at(zeros.get(..part).unwrap_or_default(), at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_system::Kernel;

    #[test]
    fn a_segment_opens_again_and_a_foreign_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let s = Segment::create(&Kernel, dir.path(), 7, 1 << 20, ServerId(3)).unwrap();
        s.file.write_all_at(b"hello", 1000).unwrap();
        let path = dir.path().join(name(7));
        assert_eq!(id_of(&path), Some(7));
        let s = Segment::open(&Kernel, &path, 7, ServerId(3)).unwrap().unwrap();
        let mut got = [0; 5];
        s.read(1000, &mut got, Patience::None).unwrap();
        assert_eq!((&got, s.len), (b"hello", 1 << 20));
        assert!(matches!(s.read(s.len - 2, &mut got, Patience::Any), Err(Miss::Failed(_))));
        assert!(matches!(Segment::open(&Kernel, &path, 7, ServerId(4)), Err(Error::NotOurSegments { .. })));
        assert!(Segment::open(&Kernel, &path, 8, ServerId(3)).unwrap().is_none(), "renamed");
        s.file.set_len(1000).unwrap();
        assert!(Segment::open(&Kernel, &path, 7, ServerId(3)).unwrap().is_none(), "cut");
    }
}
