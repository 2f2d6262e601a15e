//! Data servers and a coordinator that keep what they are told in a map, and a door before a service that can be told to
//! let some calls wait.

use bytes::BytesMut;
use parking_lot::Mutex;
use slice_proto::ids::{Epoch, FileId, IntentionId, TableEpoch};
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{DataRes, ExtendArgs, PurgeArgs, TruncateArgs};
use slice_proto::peer::intent::{CompleteArgs, Intent, LogArgs, LogRes};
use slice_proto::rpc_msg::{CallHeader, encode_success};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::service::{Handled, Message, Peer, Service};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What data servers know of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Object {
    pub epoch: Epoch,
    pub size: u64,
    pub tombstone: bool,
}

/// All data servers and the coordinator in one.
#[derive(Debug, Default)]
pub struct Fake {
    pub objects: Mutex<BTreeMap<FileId, Object>>,
    pub intents: Mutex<BTreeMap<IntentionId, Intent>>,
    pub calls: Mutex<Vec<PeerProc>>,
}

impl Fake {
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
}

impl Service for Fake {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let h = CallHeader::decode(&record).unwrap();
        let r = &mut Reader::at(&record, h.args_at);
        encode_success(&mut reply.head, h.xid);
        let w = &mut reply.head;
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
            PeerProc::IntentLog => {
                let a = LogArgs::decode(r).unwrap();
                let mut intents = self.intents.lock();
                let id = IntentionId(intents.len() as u64 + 1);
                intents.insert(id, a.intent);
                LogRes { status: 0, id }.encode(w);
            }
            PeerProc::IntentComplete => {
                let a = CompleteArgs::decode(r).unwrap();
                self.intents.lock().retain(|id, _| !a.ids.contains(id));
                0u32.encode(w);
            }
            other => panic!("{other:?}"),
        }
        Handled::Done
    }
}

/// Calls of some procedures of the private program wait for ever at the door; those that pass are counted.
#[derive(Clone, Default)]
pub struct Door(Arc<Mutex<DoorState>>);

#[derive(Default)]
struct DoorState {
    closed: HashSet<u32>,
    waiting: Vec<u32>,
}

impl Door {
    pub fn close_to(&self, procs: &[PeerProc]) {
        self.0.lock().closed = procs.iter().map(|p| *p as u32).collect();
    }

    /// How many calls stand before it.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    pub fn open(&self) {
        let mut state = self.0.lock();
        state.closed.clear();
        state.waiting.clear();
    }
}

pub struct Guarded {
    pub door: Door,
    pub service: Arc<dyn Service>,
}

impl Service for Guarded {
    fn call(&self, peer: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let h = CallHeader::decode(&record).unwrap();
        let mut state = self.door.0.lock();
        if h.prog == slice_proto::peer::PROGRAM && state.closed.contains(&h.proc) {
            state.waiting.push(h.proc);
            return Handled::Later(Box::pin(std::future::pending()));
        }
        drop(state);
        self.service.call(peer, record, reply)
    }
}
