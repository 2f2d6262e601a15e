//! Names as they stand in the store.

use crate::error::Error;
use crate::records::VERSION;
use bytes::{BufMut, Bytes, BytesMut};
use slice_proto::ids::FileId;
use slice_proto::peer::dir::Child;
use slice_proto::placement::FIRST_ENTRY_COOKIE;

/// The names of a directory whose hashes have the same top 47 bits: nearly always one.
///
/// ```text
/// offset length field
///      0      1 version, 1
/// then for each name, in order of the tie-breaker:
///     +0      2 tie-breaker of the cookie
///     +2      1 ftype3 of the child
///     +3      1 length of the name
///     +4      4 placement policy of the child
///     +8      8 file id of the child
///    +16        name
/// ```
/// Kept as it is stored: a lookup compares names in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket(Bytes);

/// One name of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Tie-breaker of its cookie.
    pub tie: u16,
    /// Whom it stands for.
    pub child: Child,
    /// The name.
    pub name: &'a [u8],
}

/// Bytes that a piece of the heap costs beside what it holds: the allocator's, and a count of who shares it.
const HEAP_OVERHEAD: usize = 40;
/// Bytes of an entry beside its name.
const ENTRY_FIXED: usize = 16;

// === impl Bucket ===

impl Bucket {
    /// A stored bucket.
    ///
    /// # Errors
    /// [`Error::BadRecord`] if it is none of a known version.
    pub fn decode(key: &[u8], bytes: Bytes) -> Result<Self, Error> {
        match bytes.first() {
            None | Some(&VERSION) => Ok(Self(bytes)),
            Some(_) => Err(Error::BadRecord { what: "entry", key: key.to_vec(), why: "unknown version" }),
        }
    }

    /// As it is stored; `None` if it has no names, and is not stored.
    #[must_use]
    pub fn stored(&self) -> Option<Bytes> {
        (self.0.len() > 1).then(|| self.0.clone())
    }

    /// Its names, in cookie order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        let mut rest = self.0.get(1..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (fixed, tail) = rest.split_first_chunk::<ENTRY_FIXED>()?;
            let [t0, t1, ftype, len, p0, p1, p2, p3, file @ ..] = *fixed;
            let (name, next) = tail.split_at_checked(usize::from(len))?;
            rest = next;
            let child = Child {
                file: FileId(u64::from_be_bytes(file)),
                ftype: u32::from(ftype),
                policy: u32::from_be_bytes([p0, p1, p2, p3]),
            };
            Some(EntryRef { tie: u16::from_be_bytes([t0, t1]), child, name })
        })
    }

    /// Whom a name stands for.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Child> {
        self.iter().find(|e| e.name == name).map(|e| e.child)
    }

    /// The bucket with `name` standing for `to`, or for nothing. A name keeps its tie-breaker when it is replaced; a
    /// new one gets the lowest free one. `None` if all 65,536 are taken.
    #[must_use]
    pub fn with(&self, hash47: u64, name: &[u8], to: Option<Child>) -> Option<Self> {
        let lowest = if hash47 == 0 { FIRST_ENTRY_COOKIE as u16 } else { 0 };
        let tie = match self.iter().find(|e| e.name == name) {
            Some(e) => e.tie,
            None => {
                let mut free = Some(lowest);
                for e in self.iter() {
                    if free == Some(e.tie) {
                        free = e.tie.checked_add(1);
                    }
                }
                free?
            }
        };
        let mut w = BytesMut::with_capacity(self.0.len().max(1) + ENTRY_FIXED + name.len());
        w.put_u8(VERSION);
        let mut new = to.map(|child| EntryRef { tie, child, name });
        for e in self.iter().filter(|e| e.name != name) {
            if let Some(n) = new.take_if(|n| n.tie < e.tie) {
                Self::put(&mut w, &n);
            }
            Self::put(&mut w, &e);
        }
        if let Some(n) = new {
            Self::put(&mut w, &n);
        }
        // Kept for long, and by the hundred thousand: no byte more than is needed, and none for a name that is gone.
        Some(Self(if w.len() > 1 { Bytes::copy_from_slice(&w) } else { Bytes::new() }))
    }

    fn put(w: &mut BytesMut, e: &EntryRef<'_>) {
        w.put_u16(e.tie);
        // ftype3 is below 8; names are at most 255 bytes.
        w.put_u8(e.child.ftype as u8);
        w.put_u8(e.name.len() as u8);
        w.put_u32(e.child.policy);
        w.put_u64(e.child.file.0);
        w.put_slice(e.name);
    }

    /// Bytes that it takes in memory.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Self>() + if self.0.is_empty() { 0 } else { HEAP_OVERHEAD + self.0.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn child(id: u64) -> Child {
        Child { file: FileId(id), ftype: 1, policy: 9 }
    }

    #[test]
    fn ties_start_at_three_where_cookies_are_reserved() {
        let b = Bucket::default().with(0, b"a", Some(child(1))).unwrap();
        assert_eq!(b.iter().map(|e| e.tie).collect::<Vec<_>>(), [3]);
        let b = Bucket::default().with(7, b"a", Some(child(1))).unwrap();
        assert_eq!(b.iter().map(|e| e.tie).collect::<Vec<_>>(), [0]);
    }

    proptest! {
        #[test]
        fn a_bucket_is_a_map_with_stable_distinct_ties(ops in proptest::collection::vec((0u8..6, any::<bool>()), 0..40)) {
            let mut model: std::collections::BTreeMap<Vec<u8>, (u16, u64)> = Default::default();
            let mut bucket = Bucket::default();
            for (i, (n, insert)) in ops.into_iter().enumerate() {
                let name = vec![b'a' + n; usize::from(n)];
                let to = insert.then_some(child(i as u64));
                bucket = bucket.with(5, &name, to).unwrap();
                match to {
                    Some(c) => {
                        let tie = bucket.iter().find(|e| e.name == name).unwrap().tie;
                        if let Some((old, _)) = model.get(&name) { prop_assert_eq!(*old, tie); }
                        model.insert(name, (tie, c.file.0));
                    }
                    None => { model.remove(&name); }
                }
                let got: std::collections::BTreeMap<Vec<u8>, (u16, u64)> =
                    bucket.iter().map(|e| (e.name.to_vec(), (e.tie, e.child.file.0))).collect();
                prop_assert_eq!(&got, &model);
                let ties: Vec<u16> = bucket.iter().map(|e| e.tie).collect();
                prop_assert!(ties.windows(2).all(|w| w[0] < w[1]));
                prop_assert_eq!(bucket.stored().is_none(), model.is_empty());
                // Names that are gone leave nothing behind.
                prop_assert!(!model.is_empty() || bucket.weight() == size_of::<Bucket>());
            }
        }
    }
}
