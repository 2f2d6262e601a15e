//! Data servers and the coordinator, as docs/wire.md describes them, in maps: what the real directory servers and µproxies
//! are tested against. A kill loses what was not made durable, of each object page by page.

use crate::world::{MS, world};
use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use slice_proto::ids::{Epoch, FileId, IntentionId, Role, ServerId, Site, Xid};
use slice_proto::nfs3::*;
use slice_proto::peer::data::{DataRes, ExtendArgs, PurgeArgs, Sites, TruncateArgs};
use slice_proto::peer::dir::SettledRes;
use slice_proto::peer::intent::{CompleteArgs, Intent, IntentKind, LogArgs, LogRes};
use slice_proto::peer::{PROGRAM, PeerProc, PrivateStatus, VERSION};
use slice_proto::placement::{DataSite, THRESHOLD, block_sites_under, small_site, split};
use slice_proto::rpc_msg::{CallHeader, OpaqueAuth, encode_call, encode_success};
use slice_proto::table::RoutingTable;
use slice_proto::trailer::{CallTrailer, ResultTrailer};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{Directory, Handled, Message, Peer, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PAGE: u64 = 512;
/// An intention that is as old as this is taken over.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(30);

/// Bytes of a file that one server holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    epoch: u64,
    /// What was never written is not there.
    pages: BTreeMap<u64, [u8; PAGE as usize]>,
    /// End of the last byte; small-file servers: min(size, 64 KiB).
    end: u64,
    beyond: bool,
    /// Counts changes: an fsync that ends late does not undo one that began later.
    version: u64,
    /// Whether it was purged.
    pub tombstone: bool,
}

#[derive(Debug, Clone)]
struct Logged {
    intent: Intent,
    at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Kept {
    durable: BTreeMap<FileId, Object>,
    now: BTreeMap<FileId, Object>,
    durable_intents: BTreeMap<IntentionId, Logged>,
    intents: BTreeMap<IntentionId, Logged>,
    lives: u64,
    last_intent: u64,
}

/// What outlives its server.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Arc<Mutex<Kept>>);

impl Object {
    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == 0 && self.pages.is_empty()
    }

    fn byte(&self, at: u64) -> u8 {
        self.pages.get(&(at / PAGE)).map_or(0, |p| p[(at % PAGE) as usize])
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            self.pages.entry(at / PAGE).or_insert([0; PAGE as usize])[(at % PAGE) as usize] = *byte;
        }
        self.end = self.end.max(offset + data.len() as u64);
    }

    fn cut(&mut self, size: u64, small: bool) {
        self.pages.retain(|page, _| page * PAGE < size);
        if let Some(last) = self.pages.get_mut(&(size / PAGE)) {
            last[(size % PAGE) as usize..].fill(0);
        }
        self.beyond = small && size > THRESHOLD;
        self.end = if small { size.min(THRESHOLD) } else { self.end.min(size) };
    }

    /// As docs/wire.md says.
    fn read(&self, small: bool, offset: u64, count: u64) -> (Vec<u8>, bool) {
        let asked = offset + count;
        let (stop, eof) = if small {
            (if self.beyond { THRESHOLD } else { self.end }, !self.beyond && asked >= self.end)
        } else {
            (self.end, self.end <= asked)
        };
        ((offset..asked.min(stop).max(offset)).map(|at| self.byte(at)).collect(), eof)
    }

    /// What is left of it by a crash, of which so much was durable.
    fn crashed(self, durable: Option<&Self>, rng: &mut StdRng) -> Option<Self> {
        let Some(durable) = durable else { return rng.random::<bool>().then_some(self) };
        if self.epoch != durable.epoch || self.tombstone != durable.tombstone {
            return Some(if rng.random() { self } else { durable.clone() });
        }
        let mut left = if rng.random() { self.clone() } else { durable.clone() };
        for (page, bytes) in self.pages {
            match durable.pages.get(&page) {
                Some(old) if rng.random() => drop(left.pages.insert(page, *old)),
                None if rng.random() => drop(left.pages.remove(&page)),
                _ => drop(left.pages.insert(page, bytes)),
            }
        }
        let last = left.pages.keys().next_back().map_or(0, |p| (p + 1) * PAGE);
        left.pages.retain(|page, _| page * PAGE < left.end.max(durable.end));
        left.end = left.end.max(durable.end).min(last.max(durable.end));
        Some(left)
    }
}

impl Shelf {
    /// The server is gone.
    pub fn crash(&self, rng: &mut StdRng) {
        let mut kept = self.0.lock();
        let now = std::mem::take(&mut kept.now);
        let left: BTreeMap<_, _> =
            now.into_iter().filter_map(|(f, o)| Some((f, o.crashed(kept.durable.get(&f), rng)?))).collect();
        kept.durable.clone_from(&left);
        kept.now = left;
        // What was logged and not answered may be there, what was completed may still be.
        let Kept { durable_intents, intents, .. } = &mut *kept;
        durable_intents.retain(|id, _| intents.contains_key(id) || rng.random());
        intents.retain(|id, _| durable_intents.contains_key(id) || rng.random());
        durable_intents.extend(intents.iter().map(|(id, i)| (*id, i.clone())));
        intents.clone_from(durable_intents);
    }

    /// Everything it holds.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<FileId, Object> {
        self.0.lock().now.clone()
    }

    /// Intentions that are not completed.
    #[must_use]
    pub fn open_intents(&self) -> usize {
        self.0.lock().intents.len()
    }
}

/// How long an fsync takes.
async fn fsync() {
    let takes = world().draw(|rng| match rng.random_range(0..10) {
        0 => rng.random_range(0..100 * MS),
        _ => rng.random_range(0..4 * MS),
    });
    sleep(Duration::from_nanos(takes)).await;
}

/// A small-file server or block storage node.
pub struct DataServer {
    id: ServerId,
    small: bool,
    shelf: Shelf,
    table: Arc<RoutingTable>,
    verifier: Verifier,
}

fn later(shelf: Shelf, file: FileId, reply: BytesMut) -> Handled {
    Handled::Later(Box::pin(async move {
        // Durable is what was there when the fsync began.
        let object = shelf.0.lock().now.get(&file).cloned();
        fsync().await;
        let mut kept = shelf.0.lock();
        if let Some(object) = object {
            let newer = kept.durable.get(&file).is_some_and(|o| o.version > object.version);
            if !newer {
                kept.durable.insert(file, object);
            }
        }
        drop(kept);
        reply.into()
    }))
}

impl DataServer {
    /// A new life of the server whose bytes are on this shelf.
    #[must_use]
    pub fn open(id: ServerId, role: Role, shelf: Shelf, table: RoutingTable) -> Self {
        let mut kept = shelf.0.lock();
        kept.lives += 1;
        let verifier = Verifier((id.0 << 32 | kept.lives).to_be_bytes());
        drop(kept);
        Self { id, small: role == Role::Small, shelf, table: Arc::new(table), verifier }
    }

    fn owns(&self, file: FileId, offset: u64) -> bool {
        let owner = split(file, offset, 1).next().and_then(|part| match part.site {
            DataSite::Small(s) => self.table.owner(Role::Small, s),
            DataSite::Block(s) => self.table.owner(Role::Block, s),
        });
        owner == Some(self.id)
    }

    /// The trailer that ends every NFS result.
    fn end(&self, w: &mut BytesMut) {
        ResultTrailer::append_parts(w, &[], self.table.epoch, 0);
    }

    fn refuse(&self, proc: Proc3, status: u32, reply: &mut Message) -> Handled {
        reply.head.clear();
        if PrivateStatus::from_u32(status).is_some() {
            encode_success(&mut reply.head, Xid(0));
            reply.head.put_u32(status);
        } else {
            slice_proxy::reply::put_failure(&mut reply.head, Xid(0), proc, NfsStat3(status));
        }
        self.end(&mut reply.head);
        Handled::Done
    }

    fn nfs(&self, proc: Proc3, record: &[u8], reply: &mut Message) -> Handled {
        let (front, trailer) = CallTrailer::split(record).expect("every forwarded call has a trailer");
        let r = &mut Reader::at(front, CallHeader::decode(front).unwrap().args_at);
        // The file's number stands at its place in the handle.
        let id = |fh: &[u8]| FileId(u64::from_be_bytes(fh[16..24].try_into().unwrap()));
        let w = &mut reply.head;
        let mut kept = self.shelf.0.lock();
        match proc {
            Proc3::Read => {
                let args = ReadArgs::decode(r).unwrap();
                let file = id(args.file);
                assert!(self.owns(file, args.offset), "a READ of another server's bytes");
                let object = kept.now.entry(file).or_default();
                if object.tombstone {
                    return self.refuse(proc, NfsStat3::STALE.0, reply);
                }
                let (data, eof) = object.read(self.small, args.offset, args.count.into());
                encode_success(w, Xid(0));
                w.put_u32(0);
                ReadOk { attr: None, count: data.len() as u32, eof, data: &data }.encode(w);
                self.end(w);
                Handled::Done
            }
            Proc3::Write => {
                let args = WriteArgs::decode(r).unwrap();
                let file = id(args.file);
                assert!(self.owns(file, args.offset), "a WRITE of another server's bytes");
                let object = kept.now.entry(file).or_default();
                if trailer.epoch.0 < object.epoch {
                    return self.refuse(proc, PrivateStatus::Fenced as u32, reply);
                }
                if object.tombstone {
                    return self.refuse(proc, NfsStat3::STALE.0, reply);
                }
                object.epoch = trailer.epoch.0;
                object.version += 1;
                object.put(args.offset, args.data);
                encode_success(w, Xid(0));
                w.put_u32(0);
                let (wcc, verf) = (WccData::default(), self.verifier);
                WriteOk { wcc, count: args.count, committed: args.stable, verf }.encode(w);
                self.end(w);
                if args.stable == StableHow::Unstable {
                    return Handled::Done;
                }
                later(self.shelf.clone(), file, std::mem::take(&mut reply.head))
            }
            Proc3::Commit => {
                let args = CommitArgs::decode(r).unwrap();
                if kept.now.get(&id(args.file)).is_some_and(|o| o.tombstone) {
                    return self.refuse(proc, NfsStat3::STALE.0, reply);
                }
                encode_success(w, Xid(0));
                w.put_u32(0);
                CommitOk { wcc: WccData::default(), verf: self.verifier }.encode(w);
                self.end(w);
                later(self.shelf.clone(), id(args.file), std::mem::take(&mut reply.head))
            }
            other => panic!("{other:?} at a data server"),
        }
    }

    /// What newer epochs do to an object; durable when answered.
    fn newer(
        &self,
        file: FileId,
        epoch: Epoch,
        to: impl FnOnce(&mut Object, bool),
        w: &mut BytesMut,
    ) -> Handled {
        let mut kept = self.shelf.0.lock();
        let object = kept.now.entry(file).or_default();
        let status = if epoch.0 < object.epoch { PrivateStatus::Fenced as u32 } else { 0 };
        if epoch.0 > object.epoch {
            object.epoch = epoch.0;
            object.version += 1;
            to(object, self.small);
        }
        let epoch = Epoch(object.epoch);
        drop(kept);
        encode_success(w, Xid(0));
        DataRes { status, epoch, table: self.table.epoch }.encode(w);
        later(self.shelf.clone(), file, std::mem::take(w))
    }

    fn extend(&self, args: &ExtendArgs, w: &mut BytesMut) -> Handled {
        let mut kept = self.shelf.0.lock();
        let object = kept.now.entry(args.file).or_default();
        let status = if args.epoch.0 < object.epoch {
            PrivateStatus::Fenced as u32
        } else {
            object.epoch = args.epoch.0;
            object.version += 1;
            if !object.tombstone {
                object.end = object.end.max(args.size.min(THRESHOLD));
                object.beyond |= args.size > THRESHOLD;
            }
            0
        };
        let epoch = Epoch(object.epoch);
        drop(kept);
        encode_success(w, Xid(0));
        DataRes { status, epoch, table: self.table.epoch }.encode(w);
        if args.durable {
            return later(self.shelf.clone(), args.file, std::mem::take(w));
        }
        Handled::Done
    }
}

impl Service for DataServer {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = CallHeader::decode(&record).unwrap();
        if header.prog != PROGRAM {
            return self.nfs(Proc3::from_u32(header.proc).unwrap(), &record, reply);
        }
        let r = &mut Reader::at(&record, header.args_at);
        match PeerProc::from_u32(header.proc).unwrap() {
            PeerProc::Truncate => {
                let a = TruncateArgs::decode(r).unwrap();
                self.newer(a.file, a.epoch, |o, small| o.cut(a.size, small), &mut reply.head)
            }
            PeerProc::Purge => {
                let a = PurgeArgs::decode(r).unwrap();
                let purge = |o: &mut Object, _| {
                    let (epoch, version) = (o.epoch, o.version);
                    *o = Object { epoch, version, tombstone: true, ..Object::default() };
                };
                self.newer(a.file, a.epoch, purge, &mut reply.head)
            }
            PeerProc::Extend => self.extend(&ExtendArgs::decode(r).unwrap(), &mut reply.head),
            other => panic!("{other:?} at a data server"),
        }
    }
}

/// The coordinator's intentions.
pub struct Coordinator {
    shelf: Shelf,
    table: RoutingTable,
    /// Of this life: a new one waits anew before it takes over.
    taken_over: AtomicU64,
}

impl Coordinator {
    /// A new life of the coordinator whose log is on this shelf.
    #[must_use]
    pub fn open(shelf: Shelf, table: RoutingTable) -> Self {
        Self { shelf, table, taken_over: AtomicU64::new(0) }
    }

    /// Takes over what is not completed.
    pub async fn run(&self, directory: Directory) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let now = Instant::now();
            let due: Vec<_> = {
                let mut kept = self.shelf.0.lock();
                let old = |l: &mut Logged| now - *l.at.get_or_insert(now) >= TAKE_OVER_AFTER;
                kept.intents
                    .iter_mut()
                    .filter_map(|(id, l)| old(l).then(|| (*id, l.intent.clone())))
                    .collect()
            };
            for (id, intent) in due {
                world().note(|| format!("taking over {intent:?}"));
                self.taken_over.fetch_add(1, Ordering::Relaxed);
                self.roll_forward(&directory, &intent).await;
                self.shelf.0.lock().intents.remove(&id);
            }
        }
    }

    async fn roll_forward(&self, directory: &Directory, intent: &Intent) {
        let small = (Role::Small, small_site(intent.file));
        let blocks = block_sites_under(intent.file, intent.reach).map(|site| (Role::Block, site));
        let mut visits: BTreeMap<ServerId, Vec<Site>> = BTreeMap::new();
        for (role, site) in std::iter::once(small).chain(blocks) {
            visits.entry(self.table.owner(role, site).unwrap()).or_default().push(site);
        }
        for (server, sites) in visits {
            let mut w = BytesMut::new();
            let (table, sites) = (self.table.epoch, Sites(sites));
            let Intent { kind, file, epoch, size, .. } = *intent;
            let proc = if kind == IntentKind::Remove { PeerProc::Purge } else { PeerProc::Truncate };
            encode_call(&mut w, Xid(0), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
            match proc {
                PeerProc::Purge => PurgeArgs { table, sites, file, epoch }.encode(&mut w),
                _ => TruncateArgs { table, sites, file, epoch, size }.encode(&mut w),
            }
            directory
                .channel(server)
                .unwrap()
                .call(Message::from(w))
                .await
                .expect("it is asked until it answers");
        }
    }
}

impl Service for Coordinator {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = CallHeader::decode(&record).unwrap();
        let r = &mut Reader::at(&record, header.args_at);
        let w = &mut reply.head;
        encode_success(w, header.xid);
        let mut kept = self.shelf.0.lock();
        match PeerProc::from_u32(header.proc).unwrap() {
            PeerProc::IntentLog => {
                let intent = LogArgs::decode(r).unwrap().intent;
                kept.last_intent += 1;
                let id = IntentionId(kept.last_intent);
                let logged = Logged { intent, at: Some(Instant::now()) };
                kept.intents.insert(id, logged.clone());
                drop(kept);
                LogRes { status: 0, id }.encode(w);
                let (shelf, reply) = (self.shelf.clone(), std::mem::take(w));
                Handled::Later(Box::pin(async move {
                    fsync().await;
                    shelf.0.lock().durable_intents.insert(id, logged);
                    reply.into()
                }))
            }
            PeerProc::IntentComplete => {
                let args = CompleteArgs::decode(r).unwrap();
                kept.intents.retain(|id, _| !args.ids.contains(id));
                w.put_u32(0);
                Handled::Done
            }
            PeerProc::Settled => {
                SettledRes { status: 0, unsettled: kept.intents.len() as u64 }.encode(w);
                Handled::Done
            }
            other => panic!("{other:?} at the coordinator"),
        }
    }
}
