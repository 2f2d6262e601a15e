//! A small-file server or block storage node in memory: objects with an epoch, durable and not.

use super::{Objects, Stage, begin, end, open_call};
use bytes::BytesMut;
use slice_proto::ids::{Epoch, FileId, Role, ServerId, TableEpoch, Xid};
use slice_proto::nfs3::*;
use slice_proto::peer::data::{DataRes, ExtendArgs};
use slice_proto::peer::{self, PeerProc, PrivateStatus};
use slice_proto::placement::{self, DataSite, STRIPE_UNIT, THRESHOLD};
use slice_proto::rpc_msg::{CallHeader, encode_success};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::tables::Tables;
use slice_rpc::{Handled, Message, Peer, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes by file offset; what was never written is not there.
#[derive(Clone, Default)]
pub struct Object {
    epoch: u64,
    bytes: BTreeMap<u64, u8>,
    /// Small-file servers: min(size, 64 KiB), and whether the file goes beyond.
    size: u64,
    beyond: bool,
}

pub struct FakeData {
    pub id: ServerId,
    role: Role,
    stage: Arc<Stage>,
    tables: Tables,
    volatile: Objects<Object>,
    durable: Objects<Object>,
    life: AtomicU64,
}

impl FakeData {
    pub fn new(id: ServerId, role: Role, stage: Arc<Stage>, tables: Tables) -> Self {
        Self {
            id,
            role,
            stage,
            tables,
            volatile: Objects::default(),
            durable: Objects::default(),
            life: AtomicU64::new(1),
        }
    }

    /// Killed and restarted: what was not durable is lost, and the verifier is another.
    pub fn restart(&self) {
        *self.volatile.lock().unwrap() = self.durable.lock().unwrap().clone();
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    fn name(&self) -> &'static str {
        if self.role == Role::Small { "small" } else { "block" }
    }

    fn table(&self) -> TableEpoch {
        self.tables.current().epoch
    }

    pub fn truncate(&self, file: FileId, epoch: Epoch, size: u64) {
        let small = self.role == Role::Small;
        for objects in [&self.volatile, &self.durable] {
            let mut objects = objects.lock().unwrap();
            let object = objects.entry(file).or_default();
            object.epoch = object.epoch.max(epoch.0);
            object.bytes.retain(|at, _| *at < size);
            if small {
                object.size = size.min(THRESHOLD);
                object.beyond = size > THRESHOLD;
            }
        }
    }

    pub fn copy_out(&self, file: FileId, out: &mut [u8]) {
        if let Some(object) = self.volatile.lock().unwrap().get(&file) {
            for (at, byte) in &object.bytes {
                if let Some(to) = out.get_mut(*at as usize) {
                    *to = *byte;
                }
            }
        }
    }

    fn make_durable(&self, file: FileId) {
        if let Some(object) = self.volatile.lock().unwrap().get(&file) {
            self.durable.lock().unwrap().insert(file, object.clone());
        }
    }

    fn owns(&self, file: FileId, offset: u64) -> bool {
        let site = placement::split(file, offset, 1).next().unwrap().site;
        let owner = match site {
            DataSite::Small(s) => self.tables.current().owner(Role::Small, s),
            DataSite::Block(s) => self.tables.current().owner(Role::Block, s),
        };
        owner == Some(self.id)
    }

    fn verf(&self) -> Verifier {
        Verifier((self.id.0 << 32 | self.life.load(Ordering::SeqCst)).to_be_bytes())
    }

    fn status(&self, w: &mut BytesMut, proc: Proc3, status: u32) {
        if PrivateStatus::from_u32(status).is_some() {
            begin(w, status);
        } else {
            slice_proxy::reply::put_failure(w, Xid(0), proc, NfsStat3(status));
        }
        end(w, &[], self.table());
    }

    fn nfs(&self, proc: Proc3, record: &[u8], keys: impl Fn(&[u8]) -> FileId, w: &mut BytesMut) {
        let (mut r, trailer) = open_call(record);
        if let Some(status) = self.stage.enter(format!("{} {}", self.name(), proc.name())) {
            return self.status(w, proc, status);
        }
        match proc {
            Proc3::Read => {
                let args = ReadArgs::decode(&mut r).unwrap();
                let file = keys(args.file);
                if !self.owns(file, args.offset) {
                    return self.status(w, proc, PrivateStatus::WrongSite as u32);
                }
                let object = self.volatile.lock().unwrap().get(&file).cloned().unwrap_or_default();
                let (data, eof) = object.read(self.role, args.offset, u64::from(args.count));
                begin(w, 0);
                ReadOk { attr: None, count: data.len() as u32, eof, data: &data }.encode(w);
            }
            Proc3::Write => {
                let args = WriteArgs::decode(&mut r).unwrap();
                let file = keys(args.file);
                let last = args.offset + u64::from(args.count) - 1;
                assert_eq!(args.count as usize, args.data.len());
                assert_eq!(
                    placement::split(file, args.offset, args.count).count(),
                    1,
                    "a part lies at one site: {} + {}",
                    args.offset,
                    args.count
                );
                if !self.owns(file, last) {
                    return self.status(w, proc, PrivateStatus::WrongSite as u32);
                }
                {
                    let mut objects = self.volatile.lock().unwrap();
                    let object = objects.entry(file).or_default();
                    if trailer.epoch.0 < object.epoch {
                        return self.status(w, proc, PrivateStatus::Fenced as u32);
                    }
                    object.epoch = trailer.epoch.0;
                    object.bytes.extend((args.offset..).zip(args.data.iter().copied()));
                    if self.role == Role::Small {
                        object.size = object.size.max(last + 1);
                    }
                }
                if args.stable != StableHow::Unstable {
                    self.make_durable(file);
                }
                let ok = WriteOk {
                    wcc: WccData::default(),
                    count: args.count,
                    committed: args.stable,
                    verf: self.verf(),
                };
                begin(w, 0);
                ok.encode(w);
            }
            Proc3::Commit => {
                let args = CommitArgs::decode(&mut r).unwrap();
                assert_eq!((args.offset, args.count), (0, 0));
                self.make_durable(keys(args.file));
                begin(w, 0);
                CommitOk { wcc: WccData::default(), verf: self.verf() }.encode(w);
            }
            other => panic!("{other:?} at a data server"),
        }
        end(w, &[], self.table());
    }

    fn extend(&self, args: &ExtendArgs, w: &mut BytesMut) {
        let status = self.stage.enter("small EXTEND".to_owned());
        let mut objects = self.volatile.lock().unwrap();
        let object = objects.entry(args.file).or_default();
        let status = match status {
            Some(status) => status,
            None if args.epoch.0 < object.epoch => PrivateStatus::Fenced as u32,
            None => {
                object.epoch = args.epoch.0;
                object.size = object.size.max(args.size.min(THRESHOLD));
                object.beyond |= args.size > THRESHOLD;
                0
            }
        };
        let epoch = Epoch(object.epoch);
        drop(objects);
        if args.durable {
            self.make_durable(args.file);
        }
        encode_success(w, Xid(0));
        DataRes { status, epoch, table: self.table() }.encode(w);
    }
}

impl Object {
    /// As docs/wire.md says.
    fn read(&self, role: Role, offset: u64, count: u64) -> (Vec<u8>, bool) {
        let asked = offset + count;
        let (stop, eof) = if role == Role::Small {
            let stop = if self.beyond { THRESHOLD } else { self.size };
            (asked.min(stop), !self.beyond && asked >= self.size)
        } else {
            // The object's bytes of this very unit: the hardest case for the merge.
            let unit = offset / STRIPE_UNIT;
            let last =
                self.bytes.range(offset..(unit + 1) * STRIPE_UNIT).next_back().map_or(0, |(at, _)| at + 1);
            (asked.min(last), last <= asked)
        };
        let data = (offset..stop.max(offset)).map(|at| self.bytes.get(&at).copied().unwrap_or(0)).collect();
        (data, eof)
    }
}

impl Service for FakeData {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = CallHeader::decode(&record).unwrap();
        if header.prog == peer::PROGRAM {
            assert_eq!(header.proc, PeerProc::Extend as u32);
            let args = ExtendArgs::decode(&mut Reader::at(&record, header.args_at)).unwrap();
            self.extend(&args, &mut reply.head);
        } else {
            // The fake trusts handles: the file id stands at its place.
            let file = |fh: &[u8]| FileId(u64::from_be_bytes(fh[16..24].try_into().unwrap()));
            self.nfs(Proc3::from_u32(header.proc).unwrap(), &record, file, &mut reply.head);
        }
        self.stage.leave(reply)
    }
}
