//! What is submitted but not yet in the engine, as readers must see it.
//!
//! Two generations: `pending` gathers while `writing` is being written. Readers ask them in that order, then the
//! engine. `writing` is dropped only when the engine shows it, so nothing ever disappears in between.

use crate::engine::{Direction, KeyRange};
use crate::{Batch, Op};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Last change of every key.
pub(crate) type Changes = BTreeMap<Bytes, Option<Bytes>>;

#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pending: Changes,
    /// Bytes in `pending`, counting a key that was overwritten again.
    pending_bytes: usize,
    writing: Option<Arc<Changes>>,
}

impl Overlay {
    pub(crate) fn add(&mut self, batch: Batch) {
        self.pending_bytes = self.pending_bytes.saturating_add(batch.bytes);
        for Op { key, value } in batch.ops {
            self.pending.insert(key, value);
        }
    }

    pub(crate) const fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.writing.is_none()
    }

    /// Moves what is pending to be written.
    pub(crate) fn start_writing(&mut self) -> Arc<Changes> {
        let changes = Arc::new(std::mem::take(&mut self.pending));
        self.pending_bytes = 0;
        self.writing = Some(Arc::clone(&changes));
        changes
    }

    /// The engine shows what was being written.
    pub(crate) fn written(&mut self) {
        self.writing = None;
    }

    /// The last change of `key`, if one is here.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.pending.get(key).or_else(|| self.writing.as_ref()?.get(key)).cloned()
    }

    /// The last changes in `range`, in the order of a scan in `direction`. The range must not be empty.
    pub(crate) fn range(&self, range: &KeyRange, direction: Direction) -> Vec<(Bytes, Option<Bytes>)> {
        let bounds = || (range.start.as_ref(), range.end.as_ref());
        let mut newest: BTreeMap<&Bytes, &Option<Bytes>> = BTreeMap::new();
        if let Some(writing) = &self.writing {
            newest.extend(writing.range::<Bytes, _>(bounds()));
        }
        newest.extend(self.pending.range::<Bytes, _>(bounds()));
        let own = |(k, v): (&Bytes, &Option<Bytes>)| (k.clone(), v.clone());
        match direction {
            Direction::Forward => newest.into_iter().map(own).collect(),
            Direction::Backward => newest.into_iter().rev().map(own).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(o: &mut Overlay, k: &'static [u8], v: Option<&'static [u8]>) {
        let mut b = Batch::new();
        match v {
            Some(v) => b.put(k, v),
            None => b.delete(k),
        };
        o.add(b);
    }

    #[test]
    fn the_newer_generation_wins() {
        let mut o = Overlay::default();
        put(&mut o, b"a", Some(b"1"));
        put(&mut o, b"b", Some(b"1"));
        assert_eq!(o.start_writing().len(), 2);
        put(&mut o, b"a", None);
        put(&mut o, b"c", Some(b"2"));
        assert_eq!(o.get(b"a"), Some(None));
        assert_eq!(o.get(b"b"), Some(Some(Bytes::from_static(b"1"))));
        assert_eq!(o.get(b"x"), None);
        let keys: Vec<_> =
            o.range(&KeyRange::all(), Direction::Backward).into_iter().map(|(k, _)| k).collect();
        assert_eq!(keys, [&b"c"[..], b"b", b"a"]);
        o.written();
        assert_eq!(o.get(b"b"), None);
        assert!(!o.is_empty());
    }
}
