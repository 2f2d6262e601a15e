//! A way in for fuzzing (`fuzz/`): what only this crate decodes. No part of its interface.

use crate::bucket::Bucket;
use crate::keys;
use crate::records::{AttrRec, Purge, Resize, SiteStamp, decode_number};
use bytes::Bytes;
use slice_proto::ids::FileId;
use slice_proto::peer::dir::Child;

const KEY: &[u8] = b"key";

/// A stored record of any kind, or a key. What is understood reads back as the same.
///
/// # Panics
/// If it does not.
pub fn records(data: &Bytes) {
    if let Ok(rec) = AttrRec::decode(KEY, data) {
        assert_eq!(AttrRec::decode(KEY, &rec.encode()).ok().as_ref(), Some(&rec));
    }
    if let Ok(resize) = Resize::decode(KEY, data) {
        assert_eq!(Resize::decode(KEY, &resize.encode()).ok().as_ref(), Some(&resize));
    }
    if let Ok(purge) = Purge::decode(KEY, data) {
        assert_eq!(Purge::decode(KEY, &purge.encode()).ok().as_ref(), Some(&purge));
    }
    if let Ok(bucket) = Bucket::decode(KEY, data.clone()) {
        names(&bucket);
    }
    let _ = (SiteStamp::decode(KEY, data).is_ok(), decode_number(KEY, data).is_ok());
    let _ = (keys::parse_hold(data), keys::parse_entry(data), keys::parse_reply(data));
    let _ = (keys::parse_site(data), keys::number(data), crate::tx::entry::decode(data).is_ok());
}

/// A name more and a name less is a bucket like others.
fn names(bucket: &Bucket) {
    const NEW: &[u8] = b"a name that is new";
    let before = bucket.iter().count();
    if bucket.find(NEW).is_some() {
        return;
    }
    let child = Child { file: FileId(7), ftype: 1, policy: 0 };
    if let Some(more) = bucket.with(5, NEW, Some(child)) {
        assert_eq!((more.find(NEW), more.iter().count()), (Some(child), before + 1));
        if let Some(less) = more.with(5, NEW, None) {
            assert_eq!((less.find(NEW), less.iter().count()), (None, before));
        }
    }
}
