//! WRITEs that take their time, by the client's call: once one copy of a call is answered, no other goes further, and all have
//! one answer (I9, I10).
//!
//! A client that hears nothing for long sends its call again, over the same connection or a new one. When one copy is
//! answered it goes on, and may truncate the file; the other copy, fenced by that truncation, would go again under the new
//! epoch and bring the bytes back. What was sent to a data server before is fenced there.

use bytes::{Bytes, BytesMut};
use slice_proto::ids::Xid;
use slice_proto::trailer::ClientId;
use slice_rpc::Message;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the data, at its beginning and at its end, that tell calls apart.
const EDGE: usize = 256;

/// Which call of which client it is: two clients at one address may use the same numbers, as two processes of one machine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    client: ClientId,
    xid: Xid,
    /// Of all before the data (whose file, where, how long), and of the data's edges.
    sum: u64,
}

/// The reply to a call, once one of its copies has it.
pub(crate) type Answer = Rc<OnceCell<Bytes>>;

/// The WRITEs of one thread that may be sent more than once; all connections of a client are one thread's.
#[derive(Debug, Default)]
pub(crate) struct Copies(RefCell<HashMap<Key, Answer>>);

impl Key {
    /// Of a WRITE's record, with its data at `data`. A client sends the same bytes again.
    pub(crate) fn of(client: ClientId, xid: Xid, record: &[u8], data: &Range<usize>) -> Self {
        let front = record.get(..data.end.min(data.start.saturating_add(EDGE))).unwrap_or_default();
        let back = record.get(data.end.saturating_sub(EDGE).max(data.start)..data.end).unwrap_or_default();
        let front = xxh3_64_with_seed(front, data.len() as u64);
        Self { client, xid, sum: xxh3_64_with_seed(back, front) }
    }
}

impl Copies {
    /// Whether there are none: nearly always, and then nothing needs to be looked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Begins one; it shares its answer with the other copies of the call that are under way.
    pub(crate) fn begin(&self, key: Key) -> Answer {
        Rc::clone(self.0.borrow_mut().entry(key).or_default())
    }

    /// A copy is answered.
    pub(crate) fn answered(&self, key: Key, reply: &Message) {
        if let Some(answer) = self.0.borrow_mut().remove(&key) {
            let Message { head, body, tail } = reply;
            let mut record = BytesMut::with_capacity(head.len() + body.len() + tail.len());
            [&**head, &**body, &**tail].into_iter().for_each(|part| record.extend_from_slice(part));
            // What was listed has none.
            let _ = answer.set(record.freeze());
        }
    }

    /// One ends whose answer reaches nobody: another copy of it is still wanted.
    pub(crate) fn unheard(&self, key: Key, answer: &Answer) {
        let mut all = self.0.borrow_mut();
        // The list's and the caller's: no other copy has it.
        let last = Rc::strong_count(answer) == 2;
        if last && all.get(&key).is_some_and(|listed| Rc::ptr_eq(listed, answer)) {
            all.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &'static [u8]) -> Message {
        BytesMut::from(text).into()
    }

    fn key(client: u8, xid: u32) -> Key {
        Key { client: ClientId([client; 16]), xid: Xid(xid), sum: 0 }
    }

    #[test]
    fn copies_end_with_the_first_that_is_answered() {
        let copies = Copies::default();
        copies.answered(key(1, 1), &reply(b"of none"));
        let (first, second) = (copies.begin(key(1, 1)), copies.begin(key(1, 1)));
        let others = [copies.begin(key(2, 1)), copies.begin(key(1, 2))];
        copies.answered(key(1, 1), &reply(b"answer"));
        assert!([first, second].iter().all(|copy| copy.get().is_some_and(|answer| answer == "answer")));
        assert!(others.iter().all(|other| other.get().is_none()));
        // The number may be used again: that is another call.
        assert_eq!(copies.begin(key(1, 1)).get(), None);
        for (client, xid) in [(1, 1), (2, 1), (1, 2)] {
            copies.answered(key(client, xid), &reply(b"answer"));
        }
        assert!(copies.is_empty());
    }

    #[test]
    fn an_answer_that_nobody_heard_ends_no_other_copy() {
        let copies = Copies::default();
        let (first, second) = (copies.begin(key(1, 1)), copies.begin(key(1, 1)));
        copies.unheard(key(1, 1), &first);
        assert_eq!(second.get(), None);
        drop(first);
        copies.unheard(key(1, 1), &second);
        assert!(copies.is_empty());
    }

    #[test]
    fn calls_of_one_number_are_told_apart_by_what_they_ask_for() {
        let of = |record: &[u8]| Key::of(ClientId::default(), Xid(1), record, &(100..record.len()));
        let record = vec![7; 2000];
        assert_eq!(of(&record), of(&record.clone()));
        for at in [0, 99, 100, 300, 1999] {
            let mut other = record.clone();
            other[at] = 8;
            assert_ne!(of(&record), of(&other), "{at}");
        }
        assert_ne!(of(&record), of(&record[..1999]));
        // Short data, and none.
        assert_ne!(of(&record[..101]), of(&record[..100]));
    }
}
