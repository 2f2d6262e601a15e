//! A directory server in memory. All share one set of files: what is tested is whom the µproxy asks, and what.

use super::data::FakeData;
use super::{Stage, begin, end, open_call, root};
use bytes::{BufMut, BytesMut};
use slice_proto::handle::KeyRing;
use slice_proto::ids::{AttrSeq, Epoch, FileId, Role, ServerId, Site, TableEpoch};
use slice_proto::nfs3::*;
use slice_proto::peer::attrs::{AttrRes, PushArgs, RaiseArgs};
use slice_proto::peer::{self, PeerProc, PrivateStatus};
use slice_proto::placement;
use slice_proto::rpc_msg::{AuthSys, CallHeader, Cred, encode_success, program};
use slice_proto::trailer::Stamp;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::tables::Tables;
use slice_rpc::{Handled, Message, Peer, Service};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

#[derive(Clone)]
pub struct Record {
    pub attr: Fattr3,
    pub epoch: u64,
    pub seq: u64,
    pub reach: u64,
}

/// All attribute records, and the entries of the root.
pub struct Files {
    records: Mutex<HashMap<FileId, Record>>,
    pub entries: Mutex<BTreeMap<u64, (Vec<u8>, FileId)>>,
    data: Vec<Arc<FakeData>>,
}

impl Files {
    pub fn new(data: Vec<Arc<FakeData>>) -> Self {
        let files = Self { records: Mutex::default(), entries: Mutex::default(), data };
        files.insert(root(), super::attributes(root(), FType3::Dir, 0, 0o755));
        files
    }

    pub fn insert(&self, id: FileId, attr: Fattr3) {
        let record = Record { attr, epoch: 1, seq: 1, reach: placement::THRESHOLD };
        self.records.lock().unwrap().insert(id, record);
    }

    pub fn name(&self, name: &[u8], id: FileId) {
        let cookie = placement::cookie(placement::name_hash(1, root(), name), 0);
        self.entries.lock().unwrap().insert(cookie, (name.to_vec(), id));
    }

    pub fn get(&self, id: FileId) -> Option<Record> {
        self.records.lock().unwrap().get(&id).cloned()
    }

    pub fn size(&self, id: FileId) -> u64 {
        self.get(id).unwrap().attr.size
    }

    pub fn remove(&self, id: FileId) {
        self.records.lock().unwrap().remove(&id);
    }

    pub fn change<T>(&self, id: FileId, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.records.lock().unwrap().get_mut(&id).map(change)
    }

    /// SETATTR size, as a home site does it: everywhere, then here.
    pub fn truncate(&self, id: FileId, size: u64) {
        let epoch = self.get(id).unwrap().epoch + 1;
        for d in &self.data {
            d.truncate(id, Epoch(epoch), size);
        }
        self.change(id, |r| {
            (r.epoch, r.seq, r.attr.size) = (epoch, r.seq + 1, size);
            r.touch(0);
        });
    }
}

impl Record {
    fn stamp(&self) -> Stamp {
        Stamp { file: self.attr.fileid, epoch: Epoch(self.epoch), seq: AttrSeq(self.seq), reach: self.reach }
    }

    fn touch(&mut self, ns: u64) {
        let next = (self.attr.ctime.as_ns() + 1).max(ns);
        self.attr.ctime = NfsTime3::from_ns(next);
    }
}

pub struct FakeDir {
    pub id: ServerId,
    keys: KeyRing,
    files: Arc<Files>,
    stage: Arc<Stage>,
    tables: Tables,
    /// Credentials that came in.
    pub creds: Mutex<Vec<Cred>>,
    pub trailers: Mutex<Vec<slice_proto::trailer::CallTrailer>>,
}

impl FakeDir {
    pub fn new(id: ServerId, keys: KeyRing, files: Arc<Files>, stage: Arc<Stage>, tables: Tables) -> Self {
        Self { id, keys, files, stage, tables, creds: Mutex::default(), trailers: Mutex::default() }
    }

    fn owns(&self, site: Site) -> bool {
        self.tables.current().owner(Role::Dir, site) == Some(self.id)
    }

    fn table(&self) -> TableEpoch {
        self.tables.current().epoch
    }

    fn private(&self, proc: PeerProc, r: &mut Reader<'_>, w: &mut BytesMut) {
        encode_success(w, slice_proto::ids::Xid(0));
        let (file, name) = match proc {
            PeerProc::Push => (PushArgs::decode(&mut r.clone()).unwrap().file, "PUSH"),
            PeerProc::RaiseReach => (RaiseArgs::decode(&mut r.clone()).unwrap().file, "RAISE"),
            other => panic!("{other:?} at a directory server"),
        };
        let mut res = AttrRes { status: 0, current: None, table: self.table(), now_ns: 0 };
        if let Some(status) = self.stage.enter(format!("dir {name}")) {
            res.status = status;
        } else if !self.owns(file.home()) {
            res.status = PrivateStatus::WrongSite as u32;
        } else {
            let changed = self.files.change(file, |f| {
                match proc {
                    PeerProc::Push => push(f, &PushArgs::decode(r).unwrap()),
                    _ => {
                        let args = RaiseArgs::decode(r).unwrap();
                        if args.epoch.0 == f.epoch {
                            f.reach = f.reach.max(args.reach);
                        }
                    }
                }
                f.clone()
            });
            match changed {
                None => res.status = NfsStat3::STALE.0,
                Some(f) => {
                    let mut attr = BytesMut::new();
                    f.attr.encode(&mut attr);
                    res.current = Some((attr[..].try_into().unwrap(), f.stamp()));
                }
            }
        }
        res.encode(w);
    }

    fn nfs(&self, proc: Proc3, record: &[u8], w: &mut BytesMut) {
        let (mut r, trailer) = open_call(record);
        let header = CallHeader::decode(record).unwrap();
        self.creds.lock().unwrap().push(AuthSys::from_body(header.cred.body).unwrap().cred);
        self.trailers.lock().unwrap().push(trailer);
        assert!(trailer.table <= self.table());
        if let Some(status) = self.stage.enter(format!("dir {}", proc.name())) {
            begin(w, status);
            return end(w, &[], self.table());
        }
        let fh = r.clone().opaque(64).unwrap();
        let object = self.keys.open(fh).unwrap().file;
        let wrong = |w: &mut BytesMut| {
            begin(w, PrivateStatus::WrongSite as u32);
            end(w, &[], self.table());
        };
        match proc {
            Proc3::Getattr | Proc3::Access | Proc3::Setattr if !self.owns(object.home()) => return wrong(w),
            _ => {}
        }
        let stale = |w: &mut BytesMut| {
            slice_proxy::reply::put_failure(w, slice_proto::ids::Xid(0), proc, NfsStat3::STALE);
            end(w, &[], self.table());
        };
        match proc {
            Proc3::Getattr => {
                let Some(f) = self.files.get(object) else { return stale(w) };
                begin(w, 0);
                f.attr.encode(w);
                end(w, &[f.stamp()], self.table());
            }
            Proc3::Access => {
                let Some(f) = self.files.get(object) else { return stale(w) };
                begin(w, 0);
                let asked = AccessArgs::decode(&mut r).unwrap().access;
                AccessOk { attr: Some(f.attr), access: asked }.encode(w);
                end(w, &[f.stamp()], self.table());
            }
            Proc3::Setattr => {
                let args = SetattrArgs::decode(&mut r).unwrap().attr;
                if self.files.get(object).is_none() {
                    return stale(w);
                }
                if let Some(size) = args.size {
                    self.files.truncate(object, size);
                }
                let f = self.files.change(object, |f| {
                    if let TimeHow::Client(t) = args.mtime {
                        f.attr.mtime = t;
                        f.seq += 1;
                    }
                    f.attr.mode = args.mode.unwrap_or(f.attr.mode);
                    f.touch(0);
                    f.clone()
                });
                let f = f.unwrap();
                begin(w, 0);
                WccData { before: None, after: Some(f.attr) }.encode(w);
                end(w, &[f.stamp()], self.table());
            }
            Proc3::Lookup => {
                let args = LookupArgs::decode(&mut r).unwrap();
                let volume = self.tables.current().volumes[0].clone();
                if !self.owns(placement::entry_site(&volume, object, args.what.name)) {
                    return wrong(w);
                }
                let entries = self.files.entries.lock().unwrap();
                let Some((_, id)) = entries.values().find(|(n, _)| n == args.what.name) else {
                    slice_proxy::reply::put_failure(w, slice_proto::ids::Xid(0), proc, NfsStat3::NOENT);
                    return end(w, &[], self.table());
                };
                let f = self.files.get(*id).unwrap();
                let ftype = f.attr.ftype as u8;
                let h = slice_proto::handle::Handle {
                    ftype,
                    volume: slice_proto::ids::VolumeId(0),
                    policy: 0,
                    file: *id,
                    snapshot: 0,
                };
                begin(w, 0);
                LookupOk { object: &self.keys.seal(&h), attr: Some(f.attr), dir_attr: None }.encode(w);
                end(w, &[f.stamp()], self.table());
            }
            // Of one of several links; whose it was is not in the reply.
            Proc3::Remove => {
                let args = RemoveArgs::decode(&mut r).unwrap();
                let mut entries = self.files.entries.lock().unwrap();
                let (cookie, id) = entries
                    .iter()
                    .find(|(_, (n, _))| n == args.object.name)
                    .map(|(c, (_, id))| (*c, *id))
                    .unwrap();
                entries.remove(&cookie);
                self.files.change(id, |f| {
                    f.attr.nlink -= 1;
                    f.touch(0);
                });
                begin(w, 0);
                WccData::default().encode(w);
                end(w, &[], self.table());
            }
            Proc3::Readdir => self.readdir(&ReaddirArgs::decode(&mut r).unwrap(), object, w),
            other => panic!("the fake has no {other:?}"),
        }
    }

    fn readdir(&self, args: &ReaddirArgs<'_>, dir: FileId, w: &mut BytesMut) {
        use slice_proto::nfs3::readdir::{END_LEN, encode_end, encode_entry};
        let home = self.owns(dir.home());
        let attr = home.then(|| self.files.get(dir).unwrap());
        let start = w.len();
        begin(w, 0);
        let head = ReaddirOkHead { dir_attr: attr.as_ref().map(|f| f.attr), verf: CookieVerf::default() };
        head.encode(w);
        let dots = [(1, (b".".to_vec(), dir)), (2, (b"..".to_vec(), dir))];
        let entries = self.files.entries.lock().unwrap();
        let held = entries.iter().filter(|(c, _)| self.owns(placement::site_of_cookie(**c)));
        let held = held.map(|(c, e)| (*c, e.clone()));
        let all = dots.into_iter().filter(|_| home).chain(held);
        let (mut eof, mut n) = (true, 0);
        let mut total = head.encoded_len() + END_LEN;
        for (cookie, (name, id)) in all.filter(|(c, _)| *c > args.cookie) {
            let entry = Entry { fileid: id, name: &name, cookie };
            total += entry.encoded_len();
            if total > args.count as usize {
                eof = false;
                break;
            }
            encode_entry(w, &entry);
            n += 1;
        }
        if !eof && n == 0 {
            w.truncate(start);
            begin(w, NfsStat3::TOOSMALL.0);
            w.put_u32(0);
            return end(w, &[], self.table());
        }
        encode_end(w, eof);
        end(w, &attr.iter().map(Record::stamp).collect::<Vec<_>>(), self.table());
    }
}

/// As docs/wire.md says: judged per field.
fn push(f: &mut Record, args: &PushArgs) {
    if args.epoch.0 == f.epoch {
        f.attr.size = f.attr.size.max(args.end);
    }
    if args.mtime_ns != 0 && args.seq.0 == f.seq {
        f.attr.mtime = f.attr.mtime.max(NfsTime3::from_ns(args.mtime_ns));
    }
    if args.ctime_ns != 0 {
        f.touch(args.ctime_ns);
    }
    if args.clear_set_ids {
        f.attr.mode &= !0o6000;
    }
}

impl Service for FakeDir {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = CallHeader::decode(&record).unwrap();
        let mut r = Reader::at(&record, header.args_at);
        match header.prog {
            peer::PROGRAM => self.private(PeerProc::from_u32(header.proc).unwrap(), &mut r, &mut reply.head),
            program::NFS => self.nfs(Proc3::from_u32(header.proc).unwrap(), &record, &mut reply.head),
            other => panic!("program {other}"),
        }
        self.stage.leave(reply)
    }
}
