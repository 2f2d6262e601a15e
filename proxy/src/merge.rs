//! Parts of a READ, WRITE or COMMIT become the one answer that one server would give (DESIGN §7): pure.
//!
//! A WRITE returns the contiguous prefix that succeeded, else the first error. A READ's holes are zeros, its end is the
//! file's: no short read without EOF that the file does not have.

use bytes::{Bytes, BytesMut};
use slice_proto::nfs3::{NfsStat3, StableHow};
use slice_proto::placement::{DataSite, Part};

/// What a data server answered to one part of a READ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPart {
    /// What was asked.
    pub part: Part,
    /// What came, at most `part.len` bytes, and the server's EOF; or its status.
    pub got: Result<(Bytes, bool), NfsStat3>,
}

/// What is known of a READ when all parts have answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Complete: this many bytes from the start, and EOF or not.
    Done {
        /// Bytes that the reply carries.
        len: u64,
        /// Whether the file ends there.
        eof: bool,
    },
    /// A part is short, and only the file's size tells whether zeros follow.
    NeedsEnd,
    /// The READ fails.
    Failed(NfsStat3),
}

/// Whether the parts are the whole answer. `parts` are in order and cover the request without a gap.
#[must_use]
pub fn read_verdict(parts: &[ReadPart]) -> ReadVerdict {
    let mut len = 0;
    for p in parts {
        let (data, eof) = match &p.got {
            Ok((data, eof)) => (data, *eof),
            Err(status) => return ReadVerdict::Failed(*status),
        };
        let got = (data.len() as u64).min(u64::from(p.part.len));
        len += got;
        match p.part.site {
            // The small-file site knows whether the file goes beyond it: its EOF is the file's.
            DataSite::Small(_) if eof => return ReadVerdict::Done { len, eof: true },
            _ if got < u64::from(p.part.len) => return ReadVerdict::NeedsEnd,
            // A block storage node's EOF only says that it has no more.
            _ => {}
        }
    }
    ReadVerdict::Done { len, eof: false }
}

/// How many bytes a READ of `offset..offset+count` returns from a file that ends at `end`, and whether that is EOF.
#[must_use]
pub const fn read_extent(offset: u64, count: u64, end: u64) -> (u64, bool) {
    let asked = offset.saturating_add(count);
    let stop = if asked < end { asked } else { end };
    (stop.saturating_sub(offset), end <= asked)
}

/// The bytes of a READ: `len` from the start of the first part, holes filled with zeros. Without a copy where one part
/// has them all.
#[must_use]
pub fn read_bytes(parts: &[ReadPart], len: u64) -> Bytes {
    let start = parts.first().map_or(0, |p| p.part.offset);
    if let [ReadPart { got: Ok((data, _)), .. }] = parts
        && data.len() as u64 >= len
    {
        // len is at most the part's length, a u32.
        return data.slice(..len as usize);
    }
    let mut out = BytesMut::with_capacity(len as usize);
    for p in parts {
        let at = (p.part.offset - start).min(len) as usize;
        let until = (p.part.offset - start + u64::from(p.part.len)).min(len) as usize;
        out.resize(at, 0);
        if let Ok((data, _)) = &p.got {
            out.extend_from_slice(data.get(..data.len().min(until - at)).unwrap_or_default());
        }
        out.resize(until, 0);
    }
    out.freeze()
}

/// What a data server answered to one part of a WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WritePart {
    /// What was asked.
    pub part: Part,
    /// Bytes written and how durably; or the status.
    pub got: Result<(u32, StableHow), NfsStat3>,
}

/// The answer to a WRITE: bytes written from its start and how durably. `parts` are in order, without a gap.
///
/// # Errors
/// The first part's status, if not even its first byte was written.
pub fn write_merge(parts: &[WritePart]) -> Result<(u32, StableHow), NfsStat3> {
    let (mut count, mut committed) = (0, StableHow::FileSync);
    for p in parts {
        match p.got {
            Ok((n, how)) => {
                let n = n.min(p.part.len);
                count += n;
                committed = committed.min(how);
                if n < p.part.len {
                    break;
                }
            }
            Err(status) if count == 0 => return Err(status),
            Err(_) => break,
        }
    }
    Ok((count, committed))
}

/// The answer to a COMMIT: it fails if one part fails.
///
/// # Errors
/// The first failure's status.
pub fn commit_merge(parts: impl IntoIterator<Item = Result<(), NfsStat3>>) -> Result<(), NfsStat3> {
    parts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slice_proto::ids::FileId;
    use slice_proto::placement::{STRIPE_UNIT, THRESHOLD, split};

    /// A file as one server would hold it, and as data servers hold it after the same writes.
    #[derive(Debug, Default)]
    struct Model {
        flat: Vec<u8>,
        /// Which bytes were written (the rest are holes that nobody stores).
        written: Vec<bool>,
    }

    impl Model {
        fn write(&mut self, offset: usize, data: &[u8]) {
            let end = offset + data.len();
            self.extend(end);
            self.flat[offset..end].copy_from_slice(data);
            self.written[offset..end].fill(true);
        }

        fn extend(&mut self, size: usize) {
            if self.flat.len() < size {
                self.flat.resize(size, 0);
                self.written.resize(size, false);
            }
        }

        /// What docs/wire.md says that the data server of `part` answers.
        fn serve(&self, part: Part) -> (Bytes, bool) {
            let (at, size) = (part.offset as usize, self.flat.len());
            match part.site {
                DataSite::Small(_) => {
                    let held = size.min(THRESHOLD as usize);
                    let beyond = size > held;
                    let stop = if beyond { THRESHOLD as usize } else { held };
                    let until = (at + part.len as usize).min(stop).max(at);
                    let mut data = self.flat.get(at..until.min(size)).unwrap_or_default().to_vec();
                    data.resize(until - at, 0);
                    (data.into(), at + part.len as usize >= held && !beyond)
                }
                DataSite::Block(_) => {
                    // The node holds the object up to the last byte written to any unit of it; the worst case for the merge
                    // is a node of this unit alone.
                    let unit_end = ((at as u64 / STRIPE_UNIT + 1) * STRIPE_UNIT) as usize;
                    let unit = at..unit_end.min(size).max(at);
                    let last = unit.clone().rev().find(|i| self.written[*i]).map_or(at, |i| i + 1);
                    let until = (at + part.len as usize).min(last);
                    (
                        self.flat.get(at..until.max(at)).unwrap_or_default().to_vec().into(),
                        until < at + part.len as usize,
                    )
                }
            }
        }
    }

    fn answer(model: &Model, offset: u64, count: u32) -> (Bytes, bool) {
        let parts: Vec<ReadPart> = split(FileId(42), offset, count)
            .map(|part| ReadPart { part, got: Ok(model.serve(part)) })
            .collect();
        let (len, eof) = match read_verdict(&parts) {
            ReadVerdict::Done { len, eof } => (len, eof),
            ReadVerdict::NeedsEnd => read_extent(offset, u64::from(count), model.flat.len() as u64),
            ReadVerdict::Failed(status) => panic!("failed: {status}"),
        };
        (read_bytes(&parts, len), eof)
    }

    const K: u64 = 1 << 10;
    fn around() -> impl Strategy<Value = u64> {
        // Offsets near what matters: the start, the threshold, unit boundaries.
        (prop::sample::select(vec![0, THRESHOLD, STRIPE_UNIT, 2 * STRIPE_UNIT, 3 * STRIPE_UNIT]), 0..140 * K)
            .prop_map(|(base, delta)| (base + delta).saturating_sub(70 * K))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_read_is_what_one_server_would_answer(
            writes in prop::collection::vec((around(), 1..150 * K as usize), 0..5),
            size in around(),
            reads in prop::collection::vec((around(), 0u32..1 << 20), 1..8),
        ) {
            let mut model = Model::default();
            for (i, (offset, len)) in writes.iter().enumerate() {
                model.write(*offset as usize, &vec![i as u8 + 1; *len]);
            }
            model.extend(size as usize);
            for (offset, count) in reads {
                let (data, eof) = answer(&model, offset, count);
                let size = model.flat.len();
                let (at, end) = ((offset as usize).min(size), (offset as usize + count as usize).min(size));
                prop_assert_eq!(&data[..], &model.flat[at..end], "read {} + {}", offset, count);
                // A full read may leave EOF unsaid; a short one must say it, and EOF must be true.
                let at_end = offset as usize + count as usize >= size;
                prop_assert!(!eof || at_end);
                prop_assert!(eof || data.len() == count as usize);
            }
        }

        #[test]
        fn a_write_returns_the_contiguous_prefix_or_the_first_error(
            offset in around(), len in 1u32..1 << 20,
            fates in prop::collection::vec((0u32..3, 0u32..3), 4),
        ) {
            let parts: Vec<WritePart> = split(FileId(42), offset, len).zip(&fates).map(|(part, (fate, how))| {
                let how = StableHow::from_u32(*how).unwrap();
                WritePart { part, got: match fate {
                    0 => Ok((part.len, how)),
                    1 => Ok((part.len / 2, how)),
                    _ => Err(NfsStat3::NOSPC),
                } }
            }).collect();
            // The flat file: bytes that were written, in order, until the first that was not.
            let written: Vec<(bool, StableHow)> = parts.iter().flat_map(|p| {
                let (n, how) = p.got.unwrap_or((0, StableHow::FileSync));
                (0..p.part.len).map(move |i| (i < n, how))
            }).collect();
            let prefix = written.iter().take_while(|(w, _)| *w).count();
            match write_merge(&parts) {
                Ok((count, how)) => {
                    prop_assert_eq!(count as usize, prefix);
                    prop_assert!(written[..prefix].iter().all(|(_, h)| how <= *h), "never more durable than a part");
                }
                Err(status) => { prop_assert_eq!(prefix, 0); prop_assert_eq!(status, NfsStat3::NOSPC); }
            }
        }
    }

    #[test]
    fn any_failed_part_fails_a_read_and_a_commit() {
        let parts: Vec<ReadPart> = split(FileId(1), 0, 1 << 17)
            .map(|part| ReadPart { part, got: Ok((vec![0; part.len as usize].into(), false)) })
            .collect();
        let failed = |mut parts: Vec<ReadPart>| {
            parts[1].got = Err(NfsStat3::IO);
            read_verdict(&parts)
        };
        assert_eq!(failed(parts), ReadVerdict::Failed(NfsStat3::IO));
        assert_eq!(commit_merge([Ok(()), Err(NfsStat3::IO), Ok(())]), Err(NfsStat3::IO));
        assert_eq!(commit_merge([Ok(()), Ok(())]), Ok(()));
    }

    #[test]
    fn one_part_is_passed_on_without_a_copy() {
        let part = split(FileId(1), 0, 100).next().unwrap();
        let data = Bytes::from(vec![7; 100]);
        let whole = [ReadPart { part, got: Ok((data.clone(), false)) }];
        assert_eq!(read_bytes(&whole, 60).as_ptr(), data.as_ptr());
    }
}
