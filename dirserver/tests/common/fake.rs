//! Data servers and a coordinator that keep what they are told in a map, and a door before a service that can be told to
//! let some calls wait, or to forget them.

use bytes::BytesMut;
use parking_lot::Mutex;
use slice_proto::ids::{Epoch, FileId, IntentionId, TableEpoch};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{
    DataRes, ExtendArgs, ObjectInfo, ObjectsRes, PurgeArgs, StatArgs, TruncateArgs,
};
use slice_proto::peer::dir::{DirRes, HoldArgs, HoldMode};
use slice_proto::peer::intent::{CompleteArgs, Intent, LogArgs, LogRes};
use slice_proto::rpc_msg::{CallHeader, encode_success};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::sync::watch;

/// What data servers know of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Object {
    pub epoch: Epoch,
    pub size: u64,
    pub tombstone: bool,
}

/// All data servers and the coordinator in one.
#[derive(Debug, Default)]
pub struct Fake(Arc<Known>);

/// What they know.
#[derive(Debug, Default)]
pub struct Known {
    pub objects: Mutex<BTreeMap<FileId, Object>>,
    pub intents: Mutex<BTreeMap<IntentionId, Intent>>,
    pub calls: Mutex<Vec<PeerProc>>,
    next_intent: AtomicU64,
    stop: Mutex<Option<(PeerProc, When)>>,
    /// Somebody stands before the gate.
    pub stands: Notify,
    opened: Notify,
}

/// When a call is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it is executed.
    Before,
    /// Executed, but not answered.
    After,
}

impl std::ops::Deref for Fake {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.0
    }
}

impl Known {
    /// Calls of a procedure stop until [`Known::open`].
    pub fn stop_at(&self, proc: PeerProc, when: When) {
        *self.stop.lock() = Some((proc, when));
    }

    /// Those that were stopped go on, and others pass.
    pub fn open(&self) {
        *self.stop.lock() = None;
        self.opened.notify_waiters();
    }

    pub fn object(&self, file: FileId) -> Option<Object> {
        self.objects.lock().get(&file).copied()
    }

    fn newer(&self, file: FileId, epoch: Epoch, to: impl FnOnce(&mut Object)) -> DataRes {
        let mut objects = self.objects.lock();
        let o = objects.entry(file).or_default();
        let status = if epoch < o.epoch { 0x534c_0002 } else { 0 };
        if epoch > o.epoch {
            o.epoch = epoch;
            to(o);
        }
        DataRes { status, epoch: o.epoch, table: TableEpoch(1) }
    }

    fn execute(&self, record: &BytesMut, w: &mut BytesMut) {
        let h = CallHeader::decode(record).unwrap();
        let r = &mut Reader::at(record, h.args_at);
        encode_success(w, h.xid);
        let proc = PeerProc::from_u32(h.proc).unwrap();
        self.calls.lock().push(proc);
        match proc {
            PeerProc::Truncate => {
                let a = TruncateArgs::decode(r).unwrap();
                self.newer(a.file, a.epoch, |o| o.size = a.size).encode(w);
            }
            PeerProc::Purge => {
                let a = PurgeArgs::decode(r).unwrap();
                self.newer(a.file, a.epoch, |o| o.tombstone = true).encode(w);
            }
            PeerProc::Extend => {
                let a = ExtendArgs::decode(r).unwrap();
                let mut objects = self.objects.lock();
                let o = objects.entry(a.file).or_default();
                if a.epoch >= o.epoch {
                    o.epoch = a.epoch;
                    o.size = o.size.max(a.size);
                }
                DataRes { status: 0, epoch: o.epoch, table: TableEpoch(1) }.encode(w);
            }
            PeerProc::Stat => {
                let file = StatArgs::decode(r).unwrap().file;
                // As a small-file server shows it.
                let info = |o: Object| ObjectInfo {
                    file,
                    epoch: o.epoch,
                    size: o.size,
                    used: o.size,
                    beyond: false,
                    tombstone: o.tombstone,
                };
                ObjectsRes { status: 0, objects: self.object(file).map(info).into_iter().collect() }
                    .encode(w);
            }
            PeerProc::IntentLog => {
                let a = LogArgs::decode(r).unwrap();
                let id = IntentionId(self.next_intent.fetch_add(1, Ordering::Relaxed) + 1);
                self.intents.lock().insert(id, a.intent);
                LogRes { status: 0, id }.encode(w);
            }
            PeerProc::IntentComplete => {
                let a = CompleteArgs::decode(r).unwrap();
                self.intents.lock().retain(|id, _| !a.ids.contains(id));
                0u32.encode(w);
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Service for Fake {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let proc = PeerProc::from_u32(CallHeader::decode(&record).unwrap().proc).unwrap();
        let when = self.stop.lock().filter(|(stopped, _)| *stopped == proc).map(|(_, when)| when);
        let Some(when) = when else {
            self.execute(&record, &mut reply.head);
            return Handled::Done;
        };
        let known = Arc::clone(&self.0);
        Handled::Later(Box::pin(async move {
            let opened = known.opened.notified();
            let mut head = BytesMut::new();
            if when == When::After {
                known.execute(&record, &mut head);
            }
            known.stands.notify_one();
            opened.await;
            if when == When::Before {
                known.execute(&record, &mut head);
            }
            head.into()
        }))
    }
}

/// Calls of some procedures of the private program wait at the door until it lets them in, or for ever.
#[derive(Clone, Default)]
pub struct Door(Arc<Mutex<DoorState>>);

#[derive(Default)]
struct DoorState {
    closed: HashSet<u32>,
    /// Of a closed HOLD, only those of these modes wait; empty: all.
    modes: Vec<HoldMode>,
    /// CONFIRMs are answered as by this life, and get no further.
    lost: Option<u64>,
    waiting: Vec<u32>,
    /// How often it has let in those who waited.
    rounds: watch::Sender<u64>,
}

impl Door {
    pub fn close_to(&self, procs: &[PeerProc]) {
        let mut state = self.0.lock();
        state.closed = procs.iter().map(|p| *p as u32).collect();
        state.modes.clear();
    }

    /// Only HOLDs of some modes wait.
    pub fn close_to_holds(&self, modes: &[HoldMode]) {
        self.close_to(&[PeerProc::Hold]);
        self.0.lock().modes = modes.to_vec();
    }

    /// CONFIRMs are answered as by a server that carries them out, but has not made them durable, in its life `life`; and
    /// forgotten, as if it died then.
    pub fn lose_confirms(&self, life: u64) {
        self.0.lock().lost = Some(life);
    }

    /// How many calls stand before it.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Returns once a call stands before it.
    pub async fn knocked(&self) {
        while self.waiting() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Opens it; who stands before it is forgotten.
    pub fn open(&self) {
        let mut state = self.0.lock();
        state.closed.clear();
        state.waiting.clear();
        state.lost = None;
    }

    /// Opens it; who stands before it comes in.
    pub fn let_in(&self) {
        self.open();
        self.0.lock().rounds.send_modify(|n| *n += 1);
    }
}

impl DoorState {
    fn stops(&self, proc: u32, args: &mut Reader<'_>) -> bool {
        let only = proc == PeerProc::Hold as u32 && !self.modes.is_empty();
        self.closed.contains(&proc) && (!only || self.modes.contains(&HoldArgs::decode(args).unwrap().mode))
    }
}

pub struct Guarded {
    pub door: Door,
    pub service: Arc<dyn Service>,
}

impl Service for Guarded {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let h = CallHeader::decode(&record).unwrap();
        if h.prog != slice_proto::peer::PROGRAM {
            return self.service.call(peer, record, reply);
        }
        let mut state = self.door.0.lock();
        if let (Some(life), true) = (state.lost, h.proc == PeerProc::Confirm as u32) {
            encode_success(&mut reply.head, h.xid);
            DirRes { status: 0, table: TableEpoch(1), durable: false, life }.encode(&mut reply.head);
            return Handled::Done;
        }
        if !state.stops(h.proc, &mut Reader::at(&record, h.args_at)) {
            drop(state);
            return self.service.call(peer, record, reply);
        }
        state.waiting.push(h.proc);
        let mut rounds = state.rounds.subscribe();
        let now = *rounds.borrow_and_update();
        let (peer, service) = (peer.clone(), Arc::clone(&self.service));
        Handled::Later(Box::pin(async move {
            let _ = rounds.wait_for(|n| *n > now).await;
            let mut reply = Message::default();
            match service.call(&peer, record, &mut reply) {
                Handled::Later(later) => later.await,
                _ => reply,
            }
        }))
    }
}
