//! Calls that change something, by the client's call: of its copies one is carried out, and all have that one's answer (I9, I10).
//!
//! A client that hears nothing for long sends its call again, over the same connection or a new one. Once one copy is answered
//! it goes on, and another that is carried out late would undo what it did since: a WRITE brings back what was truncated, a
//! name that was refused is given after all. All connections of a client are one thread's, so its copies meet here:
//!
//! ```text
//!  copy ─▶ begin ─┬─ first ──────▶ carried out ─▶ answered ─┬─▶ its connection
//!                 ├─ under way ──▶ waits ◀──────────────────┤
//!                 └─ answered ───▶ the same answer ◀────────┘ kept, unless a server keeps it
//! ```
//!
//! At most one copy of a call is on its way to a server, so none that was answered is sent again when that server comes back.
//! What succeeded on names is kept by directory servers, durably. Kept here, in memory, are refusals, which they forget as they
//! die, and WRITEs. Both are lost only with this µproxy, and with it the sockets in which copies can wait (decision 0014).

use crate::classify::Target;
use crate::front::Job;
use bytes::{Bytes, BytesMut};
use slice_proto::ids::Xid;
use slice_proto::nfs3::Proc3;
use slice_proto::procedures::status_of;
use slice_proto::trailer::ClientId;
use slice_rpc::Message;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a WRITE's data, at its beginning and at its end, that tell calls apart.
const EDGE: usize = 256;

/// Answers kept per client, as many as a directory server keeps: what a client may have on the way with nconnect=16 and
/// 64 slots each. About half a mebibyte.
const PER_CLIENT: usize = 1024;

/// Answers kept by a thread: about 8 MiB. Then the client that has had none for longest loses its own.
const IN_ALL: usize = 16 << 10;

/// How long an answer is given again. A client's kernel may go on sending what stood in a connection that the client has
/// given up, for some 100 s (Linux `tcp_orphan_retries`); much later a call of the same number is rather another program's.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Which call of which client it is: two clients at one address may use the same numbers, as two processes of one machine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    client: ClientId,
    xid: Xid,
    /// Of procedure, caller and arguments; of a WRITE's data the edges.
    sum: u64,
}

impl Hash for Key {
    /// The checksum tells calls apart well enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.sum ^ u64::from(self.xid.0));
    }
}

/// The calls of one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copies(Rc<RefCell<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    all: HashMap<Key, State>,
    rings: HashMap<ClientId, Ring>,
    /// Answers kept, in all rings.
    kept: usize,
    /// Counts answers that were kept.
    number: u64,
}

#[derive(Debug)]
enum State {
    /// One copy is being carried out; these wait for its answer.
    UnderWay(Vec<oneshot::Sender<Bytes>>),
    /// The answer, which of those kept it was, and when.
    Answered(Bytes, u64, Instant),
}

/// Of one client: what is kept, the oldest first.
#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<(Key, u64)>,
}

/// What to do with a copy.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Carry it out: it is the first.
    First(Turn),
    /// Another is being carried out, and this brings its answer; an error if it ends without one.
    UnderWay(oneshot::Receiver<Bytes>),
    /// Another was answered so.
    Answered(Bytes),
}

/// The copy that is being carried out. If it is dropped unanswered, the next one is the first.
#[derive(Debug)]
pub(crate) struct Turn {
    copies: Copies,
    key: Key,
    over: bool,
}

impl Key {
    /// Of a call whose arguments begin at `args_at`. A client sends the same bytes again, but perhaps another stamp in its
    /// credential.
    pub(crate) fn of(job: &Job, args_at: usize) -> Self {
        let data = match &job.target {
            Target::Write { data, .. } => Some(data),
            _ => None,
        };
        let seed = u64::from(job.cred.uid) << 32 | u64::from(job.proc as u32);
        Self { client: job.client, xid: job.xid, sum: sum(&job.record, args_at, data, seed) }
    }
}

fn sum(record: &[u8], args_at: usize, data: Option<&Range<usize>>, seed: u64) -> u64 {
    let Some(data) = data else { return xxh3_64_with_seed(record.get(args_at..).unwrap_or_default(), seed) };
    let front = record.get(args_at..data.end.min(data.start.saturating_add(EDGE))).unwrap_or_default();
    let back = record.get(data.end.saturating_sub(EDGE).max(data.start)..data.end).unwrap_or_default();
    xxh3_64_with_seed(back, xxh3_64_with_seed(front, seed))
}

// === impl Copies ===

impl Copies {
    /// A copy comes.
    pub(crate) fn begin(&self, key: Key) -> Begin {
        match self.0.borrow_mut().all.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(State::UnderWay(Vec::new()));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                State::UnderWay(waiting) => {
                    let (tx, rx) = oneshot::channel();
                    waiting.push(tx);
                    return Begin::UnderWay(rx);
                }
                State::Answered(answer, _, when) if when.elapsed() < KEPT_FOR => {
                    return Begin::Answered(answer.clone());
                }
                State::Answered(..) => {
                    entry.insert(State::UnderWay(Vec::new()));
                }
            },
        }
        Begin::First(Turn { copies: self.clone(), key, over: false })
    }

    /// Answers that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.0.borrow().kept
    }
}

// === impl Turn ===

impl Turn {
    /// The call is answered: to be told before the reply goes out.
    pub(crate) fn answered(mut self, proc: Proc3, reply: &Message) {
        self.over = true;
        let mut calls = self.copies.0.borrow_mut();
        let waiting = match calls.all.remove(&self.key) {
            Some(State::UnderWay(waiting)) => waiting,
            _ => Vec::new(),
        };
        let keep = proc == Proc3::Write || status_of(proc as usize, &reply.head) != 0;
        if !keep && waiting.is_empty() {
            return;
        }
        let answer = whole(reply);
        for copy in waiting {
            // Its connection may be gone.
            let _ = copy.send(answer.clone());
        }
        if keep {
            calls.keep(self.key, answer);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            self.copies.0.borrow_mut().all.remove(&self.key);
        }
    }
}

/// A reply as one record.
fn whole(reply: &Message) -> Bytes {
    let Message { head, body, tail } = reply;
    if body.is_empty() && tail.is_empty() {
        return Bytes::copy_from_slice(head);
    }
    let mut record = BytesMut::with_capacity(reply.len());
    [&**head, &**body, &**tail].into_iter().for_each(|part| record.extend_from_slice(part));
    record.freeze()
}

// === impl Calls ===

impl Calls {
    fn keep(&mut self, key: Key, answer: Bytes) {
        self.number += 1;
        let number = self.number;
        self.all.insert(key, State::Answered(answer, number, Instant::now()));
        let ring = self.rings.entry(key.client).or_default();
        ring.kept.push_back((key, number));
        self.kept += 1;
        if ring.kept.len() > PER_CLIENT {
            let oldest = ring.kept.pop_front();
            self.forget(oldest);
        }
        if self.kept > IN_ALL {
            let last = |ring: &Ring| ring.kept.back().map(|(_, number)| *number);
            let silent = self.rings.iter().min_by_key(|(_, ring)| last(ring)).map(|(client, _)| *client);
            let ring = silent.and_then(|client| self.rings.remove(&client)).unwrap_or_default();
            ring.kept.into_iter().for_each(|kept| self.forget(Some(kept)));
        }
    }

    /// Forgets an answer that has left its ring.
    fn forget(&mut self, kept: Option<(Key, u64)>) {
        let Some((key, number)) = kept else { return };
        self.kept -= 1;
        // It may have aged, and been answered anew.
        if let Some(State::Answered(_, of, _)) = self.all.get(&key)
            && *of == number
        {
            self.all.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use slice_proto::nfs3::NfsStat3;
    use slice_proto::rpc_msg::encode_success;

    fn reply(status: NfsStat3, more: u32) -> Message {
        let mut w = BytesMut::new();
        encode_success(&mut w, Xid(1));
        w.put_u32(status.0);
        w.put_u32(more);
        w.into()
    }

    fn key(client: u16, xid: u32) -> Key {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&client.to_be_bytes());
        Key { client: ClientId(id), xid: Xid(xid), sum: 0 }
    }

    fn first(copies: &Copies, key: Key) -> Turn {
        match copies.begin(key) {
            Begin::First(turn) => turn,
            other => panic!("not the first: {other:?}"),
        }
    }

    fn refuse(copies: &Copies, key: Key) {
        first(copies, key).answered(Proc3::Mkdir, &reply(NfsStat3::EXIST, 0));
    }

    fn is_kept(copies: &Copies, key: Key) -> bool {
        matches!(copies.begin(key), Begin::Answered(_))
    }

    #[test]
    fn copies_share_the_answer_of_the_first() {
        let copies = Copies::default();
        let turn = first(&copies, key(1, 1));
        let Begin::UnderWay(mut second) = copies.begin(key(1, 1)) else { panic!("two at once") };
        let others = [first(&copies, key(2, 1)), first(&copies, key(1, 2))];
        assert!(second.try_recv().is_err());
        turn.answered(Proc3::Mkdir, &reply(NfsStat3::OK, 7));
        assert_eq!(second.try_recv().unwrap(), reply(NfsStat3::OK, 7).into_record());
        drop(others);
        assert!(copies.0.borrow().all.is_empty(), "what its server remembers is not kept");
    }

    #[test]
    fn what_no_server_remembers_is_kept() {
        let copies = Copies::default();
        let answers =
            [(Proc3::Mkdir, NfsStat3::EXIST), (Proc3::Write, NfsStat3::OK), (Proc3::Write, NfsStat3::FBIG)];
        for (n, (proc, status)) in (0..).zip(answers) {
            first(&copies, key(1, n)).answered(proc, &reply(status, n));
            let Begin::Answered(again) = copies.begin(key(1, n)) else { panic!("{proc} {status:?}") };
            assert_eq!(again, reply(status, n).into_record());
        }
        assert_eq!(copies.kept(), 3);
    }

    #[test]
    fn one_that_ends_without_an_answer_makes_room_for_the_next() {
        let copies = Copies::default();
        let turn = first(&copies, key(1, 1));
        let Begin::UnderWay(mut second) = copies.begin(key(1, 1)) else { panic!("two at once") };
        drop(turn);
        assert!(matches!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        first(&copies, key(1, 1));
    }

    #[test]
    fn a_client_keeps_so_many_and_pushes_out_nobody_elses() {
        let copies = Copies::default();
        refuse(&copies, key(1, 1));
        (0..=PER_CLIENT as u32).for_each(|xid| refuse(&copies, key(2, xid)));
        assert_eq!(copies.kept(), 1 + PER_CLIENT);
        assert!(is_kept(&copies, key(1, 1)) && is_kept(&copies, key(2, 1)));
        drop(first(&copies, key(2, 0)));
        assert_eq!(copies.0.borrow().all.len(), copies.kept());
    }

    #[test]
    fn of_too_many_clients_the_one_that_is_silent_for_longest_loses_its_own() {
        let copies = Copies::default();
        let full = (IN_ALL / PER_CLIENT) as u16;
        for xid in 0..PER_CLIENT as u32 {
            (0..full).for_each(|client| refuse(&copies, key(client, xid)));
        }
        refuse(&copies, key(0, 10_000));
        // The first client has just been heard.
        refuse(&copies, key(full, 0));
        assert!(is_kept(&copies, key(full, 0)) && is_kept(&copies, key(0, 10_000)));
        assert!(is_kept(&copies, key(2, 0)), "one client's only");
        drop(first(&copies, key(1, 0)));
        assert_eq!((copies.kept(), copies.0.borrow().all.len()), (IN_ALL - PER_CLIENT + 1, copies.kept()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ages_and_its_number_may_be_used_again() {
        let copies = Copies::default();
        refuse(&copies, key(1, 1));
        tokio::time::advance(KEPT_FOR - Duration::from_secs(1)).await;
        assert!(is_kept(&copies, key(1, 1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        refuse(&copies, key(1, 1));
        // The old one leaves the ring, the new one stays.
        (2..=PER_CLIENT as u32).for_each(|xid| refuse(&copies, key(1, xid)));
        assert_eq!(copies.kept(), PER_CLIENT);
        assert!(is_kept(&copies, key(1, 1)));
    }

    #[test]
    fn calls_of_one_number_are_told_apart_by_what_they_ask_for() {
        let of = |record: &[u8]| sum(record, 60, Some(&(100..record.len())), 5);
        let record = vec![7; 2000];
        let with = |at: usize| {
            let mut other = record.clone();
            other[at] = 8;
            other
        };
        for at in [60, 99, 100, 300, 1999] {
            assert_ne!(of(&record), of(&with(at)), "{at}");
        }
        assert_eq!(of(&record), of(&with(59)), "the credential's stamp may differ");
        // Short data, and none.
        assert_ne!(of(&record[..101]), of(&record[..100]));
        let name = |record: &[u8], seed| sum(record, 60, None, seed);
        assert_ne!(name(&record, 5), name(&with(1000), 5));
        assert_ne!(name(&record, 5), name(&record, 6), "another procedure, or another caller");
    }
}
