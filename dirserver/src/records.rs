//! What stands in the store. Every record begins with its version; a record of another version is refused, never
//! guessed at.

use crate::error::Error;
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::{AttrSeq, Epoch, FileId, VolumeId};
use slice_proto::nfs3::{FType3, Fattr3, NfsTime3, SpecData3, WccAttr};
use slice_proto::placement::THRESHOLD;
use slice_proto::trailer::Stamp;
use slice_proto::xdr::{Reader, XdrError};

/// Version of every record.
pub(crate) const VERSION: u8 = 1;
/// The most that an epoch or a set-attribute sequence can come to by counting, in any time: one more never overflows.
const COUNTED_MOST: u64 = u64::MAX >> 1;

/// Format of the whole store, as its stamp says.
pub const STORE_FORMAT: u32 = 1;

/// `used` is the size rounded up to this (DESIGN §8).
const USED_UNIT: u64 = 4 << 10;
/// Size shown for a directory: entries take no bytes that a client could read.
const DIRECTORY_SIZE: u64 = 4 << 10;

/// Set-user-id bit of a mode.
pub(crate) const S_ISUID: u32 = 0o4000;
/// Set-group-id bit.
pub(crate) const S_ISGID: u32 = 0o2000;
/// Sticky bit.
pub(crate) const S_ISVTX: u32 = 0o1000;
/// Execute by group.
pub(crate) const S_IXGRP: u32 = 0o0010;
/// All bits of a mode that are stored.
pub(crate) const MODE_BITS: u32 = 0o7777;

/// mtime was set to a given time since the last push: the next push under the same sequence replaces it, even by
/// an earlier one, as a write does.
const FLAG_MTIME_SET: u16 = 1;
/// An exclusive CREATE made it: it has a verifier, which may be all zeros.
const FLAG_EXCLUSIVE: u16 = 2;

/// The attribute record of a file or directory, at its home site.
///
/// ```text
/// offset length field
///      0      1 version, 1
///      1      1 ftype3
///      2      2 flags: bit 0 mtime was set to a given time; bit 1 it has a verifier
///      4      4 mode: 12 bits
///      8      4 uid             12  4 gid
///     16      4 nlink           20  4 placement policy
///     24      4 volume          28  4+4 rdev, major and minor
///     36      8 size            44  8 atime, ns      52  8 mtime, ns      60  8 ctime, ns
///     68      8 file epoch      76  8 set-attribute sequence              84  8 reach
///     92      8 parent, of a directory              100  8 count of entries, of a directory
///    108      8 verifier of the exclusive CREATE that made it, 0 and flag 1 unset if none
///    116      4 length of the symlink target, then the target
/// ```
/// Fixed fields first, at fixed places, so that reading is a walk without branches; what a symlink needs stands last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttrRec {
    /// What kind of object.
    pub ftype: FType3,
    /// Whether mtime was set to a given time since the last push.
    pub mtime_set: bool,
    /// Permission bits, set-id bits, sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; of a directory 2 + its subdirectories, modulo 2^32: see [`AttrRec::shown_nlink`].
    pub nlink: u32,
    /// Placement policy: stands in the handle.
    pub policy: u32,
    /// The volume it belongs to.
    pub volume: VolumeId,
    /// Device numbers.
    pub rdev: SpecData3,
    /// Size in bytes, of a regular file.
    pub size: u64,
    /// Last access, ns.
    pub atime_ns: u64,
    /// Last change of the data, ns.
    pub mtime_ns: u64,
    /// Last change of the attributes, ns; rises with every change.
    pub ctime_ns: u64,
    /// File epoch (I9).
    pub epoch: Epoch,
    /// Set-attribute sequence (I6).
    pub seq: AttrSeq,
    /// No byte at or past it exists at any data site.
    pub reach: u64,
    /// A directory's parent; the root's is itself.
    pub parent: FileId,
    /// A directory's count of entries, modulo 2^64: a removal may be counted before the creation that it removes. It is
    /// right for whoever holds the record alone.
    pub entries: u64,
    /// Verifier of the exclusive CREATE that made it, if one did.
    pub verf: Option<[u8; 8]>,
    /// What a symlink points to.
    pub target: Bytes,
}

// === impl AttrRec ===

impl AttrRec {
    /// A new object with one link (a directory: two) and every time at `now_ns`.
    #[must_use]
    pub fn new(
        ftype: FType3,
        volume: VolumeId,
        policy: u32,
        mode: u32,
        uid: u32,
        gid: u32,
        now_ns: u64,
    ) -> Self {
        let regular = ftype == FType3::Reg;
        Self {
            ftype,
            mtime_set: false,
            mode: mode & MODE_BITS,
            uid,
            gid,
            nlink: if ftype == FType3::Dir { 2 } else { 1 },
            policy,
            volume,
            rdev: SpecData3::default(),
            size: 0,
            atime_ns: now_ns,
            mtime_ns: now_ns,
            ctime_ns: now_ns,
            epoch: Epoch(1),
            seq: AttrSeq(1),
            reach: if regular { THRESHOLD } else { 0 },
            parent: FileId(0),
            entries: 0,
            verf: None,
            target: Bytes::new(),
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.ftype == FType3::Dir
    }

    /// The record as it is stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = BytesMut::with_capacity(120 + self.target.len());
        w.put_u8(VERSION);
        // ftype3 is below 8.
        w.put_u8(self.ftype as u8);
        let flag = |set, flag| if set { flag } else { 0 };
        w.put_u16(flag(self.mtime_set, FLAG_MTIME_SET) | flag(self.verf.is_some(), FLAG_EXCLUSIVE));
        for v in [
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.policy,
            self.volume.0,
            self.rdev.major,
            self.rdev.minor,
        ] {
            w.put_u32(v);
        }
        let words = [
            self.size,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.epoch.0,
            self.seq.0,
            self.reach,
            self.parent.0,
            self.entries,
        ];
        for v in words {
            w.put_u64(v);
        }
        w.put_slice(&self.verf.unwrap_or_default());
        w.put_u32(self.target.len() as u32);
        w.put_slice(&self.target);
        w.freeze()
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// [`Error::BadRecord`].
    pub fn decode(key: &[u8], bytes: &Bytes) -> Result<Self, Error> {
        let bad = |why| Error::BadRecord { what: "attribute", key: key.to_vec(), why };
        let (ftype, flags) = match bytes.get(..4) {
            Some([VERSION, ftype, f0, f1]) => (u32::from(*ftype), u16::from_be_bytes([*f0, *f1])),
            Some(_) => return Err(bad("unknown version")),
            None => return Err(bad("too short")),
        };
        let ftype = FType3::from_u32(ftype).ok_or_else(|| bad("unknown type"))?;
        let read = |r: &mut Reader<'_>| -> Result<Self, XdrError> {
            Ok(Self {
                ftype,
                mtime_set: flags & FLAG_MTIME_SET != 0,
                mode: r.u32()?,
                uid: r.u32()?,
                gid: r.u32()?,
                nlink: r.u32()?,
                policy: r.u32()?,
                volume: VolumeId(r.u32()?),
                rdev: SpecData3 { major: r.u32()?, minor: r.u32()? },
                size: r.u64()?,
                atime_ns: r.u64()?,
                mtime_ns: r.u64()?,
                ctime_ns: r.u64()?,
                epoch: Epoch(r.u64()?),
                seq: AttrSeq(r.u64()?),
                reach: r.u64()?,
                parent: FileId(r.u64()?),
                entries: r.u64()?,
                verf: Some(r.fixed()?).filter(|_| flags & FLAG_EXCLUSIVE != 0),
                target: {
                    let len = r.u32()? as usize;
                    bytes.slice_ref(r.take(len)?)
                },
            })
        };
        let rec = read(&mut Reader::at(bytes, 4)).map_err(|_| bad("too short"))?;
        if rec.epoch.0 > COUNTED_MOST || rec.seq.0 > COUNTED_MOST {
            return Err(bad("an epoch or a sequence that no counting leads to"));
        }
        Ok(rec)
    }

    /// The size that clients see.
    #[must_use]
    pub fn shown_size(&self) -> u64 {
        match self.ftype {
            FType3::Dir => DIRECTORY_SIZE,
            FType3::Lnk => self.target.len() as u64,
            _ => self.size,
        }
    }

    /// The link count that clients see: a directory has 2 at least, though removals of subdirectories be counted before
    /// their creations for a moment.
    #[must_use]
    pub fn shown_nlink(&self) -> u32 {
        if self.is_dir() {
            u32::try_from(self.nlink.cast_signed()).map_or(2, |n| n.max(2))
        } else {
            self.nlink
        }
    }

    /// The attributes that clients see.
    #[must_use]
    pub fn fattr(&self, file: FileId, fsid: u64) -> Fattr3 {
        let size = self.shown_size();
        Fattr3 {
            ftype: self.ftype,
            mode: self.mode,
            nlink: self.shown_nlink(),
            uid: self.uid,
            gid: self.gid,
            size,
            used: size.checked_next_multiple_of(USED_UNIT).unwrap_or(size),
            rdev: self.rdev,
            fsid,
            fileid: file,
            atime: NfsTime3::from_ns(self.atime_ns),
            mtime: NfsTime3::from_ns(self.mtime_ns),
            ctime: NfsTime3::from_ns(self.ctime_ns),
        }
    }

    /// What of the attributes tells whether the object changed.
    #[must_use]
    pub fn wcc(&self) -> WccAttr {
        WccAttr {
            size: self.shown_size(),
            mtime: NfsTime3::from_ns(self.mtime_ns),
            ctime: NfsTime3::from_ns(self.ctime_ns),
        }
    }

    /// What the µproxy must know beside the attributes.
    #[must_use]
    pub fn stamp(&self, file: FileId) -> Stamp {
        Stamp { file, epoch: self.epoch, seq: self.seq, reach: self.reach }
    }

    /// The next ctime: `now_ns`, but after the present one whatever the clocks say.
    #[must_use]
    pub fn next_ctime(&self, now_ns: u64) -> u64 {
        now_ns.max(self.ctime_ns.saturating_add(1))
    }

    /// Bytes that the record takes in memory.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.target.len()
    }
}

/// What a [`Resize`] does at data servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResizeKind {
    /// Cuts the file under a new epoch.
    Cut = 0,
    /// Lets it grow under the present epoch: no byte goes.
    Grow = 1,
    /// Shuts writers of earlier epochs out, and changes nothing: a repair looks before it cuts.
    Fence = 2,
}

/// A change of a regular file's size under way at data servers, durable before they are asked: it rolls forward.
///
/// ```text
/// offset length field
///      0      1 version, 1
///      1      1 [`ResizeKind`]
///      2      8 epoch   10  8 size   18  8 reach
///     26        the call that asked for it, as it came from the µproxy; nothing if its reply stands already
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// What it does.
    pub kind: ResizeKind,
    /// The epoch that the data servers are told.
    pub epoch: Epoch,
    /// The new size in bytes.
    pub size: u64,
    /// The reach as the operation began: which data sites to visit.
    pub reach: u64,
    /// The call: what else it sets, and whose its reply is.
    pub call: Bytes,
}

/// Where a [`Resize`]'s call begins.
const RESIZE_CALL_AT: usize = 26;

/// Bytes of a removed file, to be purged at its data servers.
///
/// ```text
/// offset length field
///      0      1 version, 1
///      1      8 epoch    9  8 reach
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// The epoch of the last link's removal.
    pub epoch: Epoch,
    /// Which data sites to visit.
    pub reach: u64,
}

/// Says that a site belongs to this store (I4): version and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteStamp;

fn words<const N: usize>(what: &'static str, key: &[u8], bytes: &[u8]) -> Result<(u8, [u64; N]), Error> {
    let bad = |why| Error::BadRecord { what, key: key.to_vec(), why };
    let (version, rest) = bytes.split_first().ok_or_else(|| bad("empty"))?;
    if *version != VERSION {
        return Err(bad("unknown version"));
    }
    // A kind byte stands between version and words where the length leaves room for one.
    let (kind, rest) = match rest.split_first() {
        Some((kind, tail)) if rest.len() == 1 + 8 * N => (*kind, tail),
        _ => (0, rest),
    };
    let mut out = [0; N];
    let mut r = Reader::new(rest);
    for word in &mut out {
        *word = r.u64().map_err(|_| bad("too short"))?;
    }
    Ok((kind, out))
}

// === impl Resize ===

impl Resize {
    pub(crate) fn encode(&self) -> Bytes {
        let mut w = BytesMut::with_capacity(RESIZE_CALL_AT + self.call.len());
        w.put_u8(VERSION);
        w.put_u8(self.kind as u8);
        [self.epoch.0, self.size, self.reach].iter().for_each(|v| w.put_u64(*v));
        w.put_slice(&self.call);
        w.freeze()
    }

    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, Error> {
        let (front, call) = bytes.split_at_checked(RESIZE_CALL_AT).unwrap_or((bytes, &[]));
        let (kind, [epoch, size, reach]) = words("resize", key, front)?;
        let kinds = [ResizeKind::Cut, ResizeKind::Grow, ResizeKind::Fence];
        let bad = || Error::BadRecord { what: "resize", key: key.to_vec(), why: "unknown kind" };
        let kind = kinds.into_iter().find(|k| *k as u8 == kind).ok_or_else(bad)?;
        Ok(Self { kind, epoch: Epoch(epoch), size, reach, call: Bytes::copy_from_slice(call) })
    }
}

// === impl Purge ===

impl Purge {
    pub(crate) fn encode(&self) -> Bytes {
        let mut w = BytesMut::with_capacity(17);
        w.put_u8(VERSION);
        w.put_u64(self.epoch.0);
        w.put_u64(self.reach);
        w.freeze()
    }

    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, Error> {
        let (_, [epoch, reach]) = words("purge", key, bytes)?;
        Ok(Self { epoch: Epoch(epoch), reach })
    }
}

// === impl SiteStamp ===

impl SiteStamp {
    pub(crate) const fn encode() -> Bytes {
        Bytes::from_static(&[VERSION])
    }

    pub(crate) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, Error> {
        words::<0>("site stamp", key, bytes).map(|_| Self)
    }
}

/// A number as a record: version, then 8 bytes.
pub(crate) fn encode_number(n: u64) -> Bytes {
    let mut w = BytesMut::with_capacity(9);
    w.put_u8(VERSION);
    w.put_u64(n);
    w.freeze()
}

pub(crate) fn decode_number(key: &[u8], bytes: &[u8]) -> Result<u64, Error> {
    words("number", key, bytes).map(|(_, [n])| n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_record_reads_back_and_has_the_documented_length() {
        let mut rec = AttrRec::new(FType3::Lnk, VolumeId(3), 4, 0o777, 5, 6, 7);
        rec.target = Bytes::from_static(b"over/there");
        rec.mtime_set = true;
        rec.verf = Some([0; 8]);
        let bytes = rec.encode();
        assert_eq!(bytes.len(), 120 + 10);
        assert_eq!(AttrRec::decode(b"k", &bytes).unwrap(), rec);
        for end in 0..bytes.len() {
            assert!(AttrRec::decode(b"k", &bytes.slice(..end)).is_err(), "{end} bytes");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert!(AttrRec::decode(b"k", &newer.into()).is_err());
    }

    /// Else a SETATTR of it would count past the end: a peer may send any record (found by fuzzing).
    #[test]
    fn what_no_counting_leads_to_is_no_record() {
        let rec = AttrRec::new(FType3::Reg, VolumeId(0), 0, 0o644, 0, 0, 1);
        for (epoch, seq, good) in [
            (COUNTED_MOST, COUNTED_MOST, true),
            (COUNTED_MOST + 1, 1, false),
            (0, COUNTED_MOST + 1, false),
            (u64::MAX, u64::MAX, false),
        ] {
            let rec = AttrRec { epoch: Epoch(epoch), seq: AttrSeq(seq), ..rec.clone() };
            assert_eq!(AttrRec::decode(b"k", &rec.encode()).is_ok(), good, "{epoch} {seq}");
        }
    }

    #[test]
    fn small_records_read_back() {
        for (call, kind) in
            [(&b""[..], ResizeKind::Fence), (b"who asked", ResizeKind::Cut), (b"", ResizeKind::Grow)]
        {
            let call = Bytes::from_static(call);
            let resize = Resize { kind, epoch: Epoch(3), size: 4, reach: 5, call };
            assert_eq!(Resize::decode(b"k", &resize.encode()).unwrap(), resize);
            let mut later = resize.encode().to_vec();
            later[1] = 3;
            assert!(Resize::decode(b"k", &later).is_err());
        }
        let purge = Purge { epoch: Epoch(6), reach: 7 };
        assert_eq!(Purge::decode(b"k", &purge.encode()).unwrap(), purge);
        assert_eq!(decode_number(b"k", &encode_number(9)).unwrap(), 9);
        assert_eq!(SiteStamp::decode(b"k", &SiteStamp::encode()).unwrap(), SiteStamp);
        assert!(SiteStamp::decode(b"k", &[2]).is_err());
        assert!(Purge::decode(b"k", &[1, 2]).is_err());
    }
}
