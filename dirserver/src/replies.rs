//! The reply cache (I10): a retransmission gets the first answer, also after a crash.
//!
//! Key: client, original xid, procedure, checksum of the arguments. The whole reply is written in the batch of the
//! operation's effect. A ring of [`RING`] replies per client bounds it; a slot's old reply is overwritten by the new one
//! under the same store key. In memory only keys and slots are kept: replays are rare and read the store.
//!
//! Refusals change nothing and are not stored, but a client that was refused goes on: a copy of its call that comes late must not
//! do what was refused then. The last [`REFUSALS`] of each client are kept in memory; across our restarts its µproxy keeps them
//! (decision 0014).
//!
//! ```text
//! stored reply
//! offset length field
//!      0      1 version, 1
//!      1      8 count: which of the client's replies it was
//!      9      4 xid    13  4 procedure   17  8 checksum of the arguments
//!     25      2 site that executed it (a record moves with its site)
//!     27      8 sequence of the operation if it has parts at peers, else 0
//!     35        the reply record
//! ```

use crate::error::{Error, Result};
use crate::keys;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use slice_proto::ids::{Site, Xid};
use slice_proto::rpc_msg::patch_xid;
use slice_proto::trailer::ClientId;
use slice_proto::xdr::{Reader, XdrError};
use slice_store::{Batch, Direction, KeyRange, Store, Ticket};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Replies kept per client: as many changing calls as a client may have on the way, nconnect=16 with 64 slots each.
const RING: u16 = 1024;
/// Clients whose replies are kept; of more, those that have been silent longest lose theirs.
const MAX_CLIENTS: usize = 1024;

/// Refusals kept per client: about 16 KiB.
const REFUSALS: usize = 64;

const VERSION: u8 = 1;
const REPLY_AT: usize = 35;

/// Which call of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ReplyKey {
    pub(crate) xid: Xid,
    pub(crate) proc: u32,
    pub(crate) sum: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    slot: u16,
    ticket: Ticket,
    op: u64,
}

#[derive(Debug)]
struct Ring {
    client: ClientId,
    index: HashMap<ReplyKey, Slot>,
    slots: Vec<Option<ReplyKey>>,
    count: u64,
    running: HashMap<ReplyKey, Vec<oneshot::Sender<()>>>,
    refused: HashMap<ReplyKey, (Bytes, Ticket)>,
    /// The keys of those, the oldest first.
    refusals: VecDeque<ReplyKey>,
    /// Of the cache's clock: when the client last asked for anything.
    used: u64,
}

/// The reply cache.
pub(crate) struct Replies {
    rings: RwLock<HashMap<ClientId, Arc<Mutex<Ring>>>>,
    clock: std::sync::atomic::AtomicU64,
}

/// What to do with a call.
pub(crate) enum Begin {
    /// It is new: execute it. Duplicates wait until this is dropped.
    Run(Running),
    /// It was executed.
    Replay(Replay),
    /// It was refused: the reply, and when all that it shows is durable.
    Refused(Bytes, Ticket),
    /// It is being executed: begin again after this.
    Wait(oneshot::Receiver<()>),
}

/// A reply that was given before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replay {
    client: ClientId,
    slot: u16,
    key: ReplyKey,
    /// When it is durable.
    pub(crate) ticket: Ticket,
    /// The operation, if it has parts at peers.
    pub(crate) op: u64,
}

/// A call being executed.
pub(crate) struct Running {
    ring: Arc<Mutex<Ring>>,
    key: ReplyKey,
}

/// Where the reply of a running call goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    slot: u16,
    op: u64,
}

// === impl Replies ===

impl Replies {
    /// Reads the rings back.
    pub(crate) fn load(store: &Store) -> Result<Self> {
        let mut found: HashMap<ClientId, Vec<(u64, u16, ReplyKey, u64)>> = HashMap::new();
        for pair in store.iter(KeyRange::prefix([keys::REPLY]), Direction::Forward) {
            let (key, value) = pair?;
            let bad = |why| Error::BadRecord { what: "reply", key: key.to_vec(), why };
            let (client, slot) = keys::parse_reply(&key).ok_or_else(|| bad("its key is too short"))?;
            let stored = Stored::decode(&value).map_err(|_| bad("too short or of unknown version"))?;
            found.entry(client).or_default().push((stored.count, slot, stored.key, stored.op));
        }
        let rings = found.into_iter().map(|(client, replies)| {
            let mut ring = Ring::new(client);
            for (count, slot, key, op) in replies {
                ring.count = ring.count.max(count + 1);
                if let Some(place) = ring.slots.get_mut(usize::from(slot)) {
                    *place = Some(key);
                    ring.index.insert(key, Slot { slot, ticket: Ticket::default(), op });
                }
            }
            (client, Arc::new(Mutex::new(ring)))
        });
        Ok(Self { rings: RwLock::new(rings.collect()), clock: std::sync::atomic::AtomicU64::new(1) })
    }

    fn ring(&self, client: ClientId) -> Arc<Mutex<Ring>> {
        if let Some(ring) = self.rings.read().get(&client) {
            return Arc::clone(ring);
        }
        let mut rings = self.rings.write();
        if rings.len() >= MAX_CLIENTS {
            let idle = rings.iter().filter(|(_, r)| Arc::strong_count(r) == 1);
            if let Some(oldest) = idle.min_by_key(|(_, r)| r.lock().used).map(|(c, _)| *c) {
                // Its stored replies stay until the client comes again and overwrites them, or for ever: 1,024 of them.
                rings.remove(&oldest);
            }
        }
        Arc::clone(rings.entry(client).or_insert_with(|| Arc::new(Mutex::new(Ring::new(client)))))
    }

    /// Whether a call is new, running or done.
    pub(crate) fn begin(&self, client: ClientId, key: ReplyKey) -> Begin {
        let shared = self.ring(client);
        let mut ring = shared.lock();
        ring.used = self.clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some(waiters) = ring.running.get_mut(&key) {
            let (tx, rx) = oneshot::channel();
            waiters.push(tx);
            return Begin::Wait(rx);
        }
        if let Some(slot) = ring.index.get(&key) {
            return Begin::Replay(Replay { client, slot: slot.slot, key, ticket: slot.ticket, op: slot.op });
        }
        if let Some((reply, ticket)) = ring.refused.get(&key) {
            return Begin::Refused(reply.clone(), *ticket);
        }
        ring.running.insert(key, Vec::new());
        drop(ring);
        Begin::Run(Running { ring: shared, key })
    }
}

// === impl Ring ===

impl Ring {
    fn new(client: ClientId) -> Self {
        Self {
            client,
            index: HashMap::new(),
            slots: vec![None; usize::from(RING)],
            count: 0,
            running: HashMap::new(),
            refused: HashMap::new(),
            refusals: VecDeque::new(),
            used: 0,
        }
    }
}

// === impl Running ===

impl Running {
    /// Puts the reply into the batch of its effect.
    pub(crate) fn record(&self, batch: &mut Batch, site: Site, op: u64, reply: &[u8]) -> Place {
        let mut ring = self.ring.lock();
        let count = ring.count;
        ring.count += 1;
        // The remainder is below RING.
        let slot = (count % u64::from(RING)) as u16;
        if let Some(old) = ring.slots.get_mut(usize::from(slot)).and_then(|place| place.replace(self.key)) {
            ring.index.remove(&old);
        }
        let mut w = BytesMut::with_capacity(REPLY_AT + reply.len());
        w.put_u8(VERSION);
        w.put_u64(count);
        w.put_u32(self.key.xid.0);
        w.put_u32(self.key.proc);
        w.put_u64(self.key.sum);
        w.put_u16(site.0);
        w.put_u64(op);
        w.put_slice(reply);
        batch.put(keys::reply(&ring.client, slot), w.freeze());
        Place { slot, op }
    }

    /// The batch is submitted.
    pub(crate) fn committed(&self, place: Place, ticket: Ticket) {
        let slot = Slot { slot: place.slot, ticket, op: place.op };
        self.ring.lock().index.insert(self.key, slot);
    }

    /// The call is refused with this reply, which shows what is durable with `ticket`.
    pub(crate) fn refused(&self, reply: &[u8], ticket: Ticket) {
        let mut ring = self.ring.lock();
        if ring.refusals.len() >= REFUSALS
            && let Some(oldest) = ring.refusals.pop_front()
        {
            ring.refused.remove(&oldest);
        }
        if ring.refused.insert(self.key, (Bytes::copy_from_slice(reply), ticket)).is_none() {
            ring.refusals.push_back(self.key);
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let waiters = self.ring.lock().running.remove(&self.key);
        for waiter in waiters.into_iter().flatten() {
            // It may have gone away.
            let _ = waiter.send(());
        }
    }
}

// === impl Replay ===

impl Replay {
    /// The reply, for a retransmission under `xid`; `None` if the ring has gone round meanwhile.
    pub(crate) fn read(&self, store: &Store, xid: Xid) -> Result<Option<BytesMut>> {
        let key = keys::reply(&self.client, self.slot);
        let Some(value) = store.get(&key)? else { return Ok(None) };
        let stored = Stored::decode(&value).map_err(|_| Error::BadRecord {
            what: "reply",
            key: key.to_vec(),
            why: "too short or of unknown version",
        })?;
        if stored.key != self.key {
            return Ok(None);
        }
        let mut reply = BytesMut::from(value.get(REPLY_AT..).unwrap_or_default());
        patch_xid(&mut reply, xid);
        Ok(Some(reply))
    }
}

struct Stored {
    count: u64,
    key: ReplyKey,
    op: u64,
}

impl Stored {
    fn decode(value: &Bytes) -> std::result::Result<Self, XdrError> {
        let mut r = Reader::new(value);
        if r.take(1)? != [VERSION] {
            return Err(XdrError::BadEnum { got: 0 });
        }
        let count = r.u64()?;
        let key = ReplyKey { xid: Xid(r.u32()?), proc: r.u32()?, sum: r.u64()? };
        r.take(2)?;
        Ok(Self { count, key, op: r.u64()? })
    }
}
