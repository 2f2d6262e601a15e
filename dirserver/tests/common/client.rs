//! A client: one call at a time, routed as a µproxy does.

use super::cluster::{Cluster, View, identity};
use bytes::BytesMut;
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{FileId, ServerId, Site, TableEpoch, Xid};
use slice_proto::nfs3::readdir::{ReaddirOk, ReaddirplusOk};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    AccessArgs, AccessOk, CookieVerf, CreateArgs, CreateHow, CreateOk, EntryPlus, Fattr3, GetattrArgs,
    LinkArgs, LinkOk, LookupArgs, LookupOk, MkdirArgs, MknodArgs, MknodWhat, NfsStat3, NfsTime3, PostOpAttr,
    Proc3, ReaddirArgs, ReaddirplusArgs, ReadlinkArgs, ReadlinkOk, RemoveArgs, RenameArgs, RenameOk, Res3,
    Sattr3, SetattrArgs, SymlinkArgs, WccData,
};
use slice_proto::peer::attrs::{AttrRes, PushArgs, RaiseArgs};
use slice_proto::peer::{PROGRAM, PeerProc, VERSION};
use slice_proto::placement::entry_site;
use slice_proto::rpc_msg::{
    AuthSys, Cred, Gids, OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version,
};
use slice_proto::table::{NamePolicy, Volume};
use slice_proto::trailer::{CallTrailer, ClientId, ResultTrailer, Stamp};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::Directory;
use slice_rpc::service::Message;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// A handle as a client has it.
pub type Fh = Vec<u8>;

type Res<T> = Result<T, NfsStat3>;

/// A client.
pub struct Client {
    pub cred: Cred,
    directory: Directory,
    table: slice_proto::table::RoutingTable,
    keys: KeyRing,
    pub client: ClientId,
    next_xid: Cell<u32>,
    /// Stamps of the last reply.
    pub stamps: RefCell<Vec<Stamp>>,
    /// wcc of the directory in the last reply that had one.
    pub wcc: RefCell<Option<WccData>>,
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: Vec<u8>,
    pub cookie: u64,
    pub fileid: FileId,
    pub attr: PostOpAttr,
}

impl Client {
    pub fn new(c: &Cluster, uid: u32, gid: u32, gids: &[u32]) -> Self {
        Self::of(&c.view(), uid, gid, gids)
    }

    pub fn of(c: &View, uid: u32, gid: u32, gids: &[u32]) -> Self {
        Self {
            cred: Cred { uid, gid, gids: Gids::new(gids) },
            directory: c.directory.clone(),
            table: c.table.clone(),
            keys: KeyRing::new(&identity(), 0),
            client: ClientId([uid as u8 + 1; 16]),
            next_xid: Cell::new(1),
            stamps: RefCell::default(),
            wcc: RefCell::default(),
        }
    }

    pub fn root(c: &Cluster) -> Self {
        Self::new(c, 0, 0, &[])
    }

    pub fn set_xid(&self, xid: u32) {
        self.next_xid.set(xid);
    }

    pub fn xid(&self) -> u32 {
        self.next_xid.get()
    }

    pub fn volume(&self) -> &Volume {
        &self.table.volumes[0]
    }

    pub fn root_fh(&self) -> Fh {
        self.volume().sealed_root(&self.keys).to_vec()
    }

    pub fn open(&self, fh: &[u8]) -> Handle {
        self.keys.open(fh).unwrap()
    }

    pub fn seal(&self, h: &Handle) -> Fh {
        self.keys.seal(h).to_vec()
    }

    pub fn owner(&self, site: Site) -> ServerId {
        self.table.owner(slice_proto::ids::Role::Dir, site).unwrap()
    }

    fn at_name(&self, dir: &[u8], name: &[u8]) -> ServerId {
        self.owner(entry_site(self.volume(), self.open(dir).file, name))
    }

    fn at_home(&self, fh: &[u8]) -> ServerId {
        self.owner(self.open(fh).file.home())
    }

    /// A call record with the next xid.
    pub fn record(&self, proc: Proc3, args: &impl Encode) -> BytesMut {
        let xid = self.next_xid.get();
        self.next_xid.set(xid + 1);
        let mut w = BytesMut::new();
        let cred = AuthSys { stamp: 0, machine: b"test", cred: self.cred };
        encode_call(&mut w, Xid(xid), program::NFS, version::NFS3, proc as u32, &cred);
        args.encode(&mut w);
        let trailer = CallTrailer {
            client: self.client,
            xid: Xid(xid),
            table: self.table.epoch,
            ..CallTrailer::default()
        };
        trailer.append(&mut w);
        w
    }

    /// Sends a record; the reply's result without its header, trailer cut off and its stamps kept.
    pub async fn send(&self, server: ServerId, record: BytesMut) -> Vec<u8> {
        let reply = self.directory.channel(server).unwrap().call(Message::from(record)).await.unwrap();
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!(header.status, ReplyStatus::Success);
        let (front, trailer) = ResultTrailer::split(&reply).unwrap();
        *self.stamps.borrow_mut() = trailer.stamps().collect();
        front[header.body_at..].to_vec()
    }

    pub async fn call(&self, server: ServerId, proc: Proc3, args: &impl Encode) -> Vec<u8> {
        let reply = self.send(server, self.record(proc, args)).await;
        // One stamp for every fattr3, naming its file, in order.
        let mut files = Vec::new();
        slice_proto::nfs3::slots::for_each_attr(proc, &reply, |slot| {
            if slot.kind != slice_proto::nfs3::slots::AttrKind::WccBefore {
                files.push(Fattr3::peek_fileid(&reply[slot.at..]).unwrap());
            }
        })
        .unwrap();
        assert_eq!(files, self.stamps.borrow().iter().map(|s| s.file).collect::<Vec<_>>(), "{proc}");
        reply
    }

    pub async fn private<R: for<'a> Decode<'a>>(
        &self,
        server: ServerId,
        proc: PeerProc,
        args: &impl Encode,
    ) -> R {
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(0), PROGRAM, VERSION, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        let reply = self.directory.channel(server).unwrap().call(Message::from(w)).await.unwrap();
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!(header.status, ReplyStatus::Success);
        R::decode(&mut Reader::at(&reply, header.body_at)).unwrap()
    }

    pub async fn getattr(&self, fh: &[u8]) -> Res<Fattr3> {
        let r = self.call(self.at_home(fh), Proc3::Getattr, &GetattrArgs { object: fh }).await;
        Res3::<Fattr3, ()>::decode(&mut Reader::new(&r)).unwrap().into_result()
    }

    pub async fn access(&self, fh: &[u8], access: u32) -> Res<u32> {
        let r = self.call(self.at_home(fh), Proc3::Access, &AccessArgs { object: fh, access }).await;
        let res = Res3::<AccessOk, PostOpAttr>::decode(&mut Reader::new(&r)).unwrap();
        res.into_result().map(|ok| ok.access)
    }

    pub async fn readlink(&self, fh: &[u8]) -> Res<Vec<u8>> {
        let r = self.call(self.at_home(fh), Proc3::Readlink, &ReadlinkArgs { symlink: fh }).await;
        let res = Res3::<ReadlinkOk<'_>, PostOpAttr>::decode(&mut Reader::new(&r)).unwrap();
        res.into_result().map(|ok| ok.target.to_vec())
    }

    /// The handle and attributes, fetched from the home where LOOKUP does not have them.
    pub async fn lookup(&self, dir: &[u8], name: &[u8]) -> Res<(Fh, Fattr3)> {
        let dots = matches!(name, b"." | b"..");
        let server = if dots { self.at_home(dir) } else { self.at_name(dir, name) };
        let r = self.call(server, Proc3::Lookup, &LookupArgs { what: DirOp { dir, name } }).await;
        let res = Res3::<LookupOk<'_>, PostOpAttr>::decode(&mut Reader::new(&r)).unwrap();
        let ok = res.into_result()?;
        let fh = ok.object.to_vec();
        match ok.attr {
            Some(attr) => Ok((fh, attr)),
            None => self.getattr(&fh).await.map(|attr| (fh, attr)),
        }
    }

    async fn making(
        &self,
        dir: &[u8],
        name: &[u8],
        proc: Proc3,
        args: &impl Encode,
    ) -> Res<(Fh, PostOpAttr)> {
        let r = self.call(self.at_name(dir, name), proc, args).await;
        match Res3::<CreateOk<'_>, WccData>::decode(&mut Reader::new(&r)).unwrap() {
            Res3::Ok(ok) => {
                *self.wcc.borrow_mut() = Some(ok.dir_wcc);
                Ok((ok.object.unwrap().to_vec(), ok.attr))
            }
            Res3::Err(status, wcc) => {
                *self.wcc.borrow_mut() = Some(wcc);
                Err(status)
            }
        }
    }

    pub async fn create(&self, dir: &[u8], name: &[u8], how: CreateHow) -> Res<(Fh, PostOpAttr)> {
        let at = DirOp { dir, name };
        self.making(dir, name, Proc3::Create, &CreateArgs { at, how }).await
    }

    /// Exclusive creation is not wanted: a file of this mode.
    pub async fn file(&self, dir: &[u8], name: &[u8], mode: u32) -> Res<Fh> {
        let how = CreateHow::Guarded(Sattr3 { mode: Some(mode), ..Sattr3::default() });
        self.create(dir, name, how).await.map(|(fh, _)| fh)
    }

    pub async fn mkdir(&self, dir: &[u8], name: &[u8], mode: u32) -> Res<Fh> {
        let (at, attr) = (DirOp { dir, name }, Sattr3 { mode: Some(mode), ..Sattr3::default() });
        self.making(dir, name, Proc3::Mkdir, &MkdirArgs { at, attr }).await.map(|(fh, _)| fh)
    }

    pub async fn symlink(&self, dir: &[u8], name: &[u8], target: &[u8]) -> Res<Fh> {
        let (at, attr) = (DirOp { dir, name }, Sattr3::default());
        self.making(dir, name, Proc3::Symlink, &SymlinkArgs { at, attr, target }).await.map(|(fh, _)| fh)
    }

    pub async fn mknod(&self, dir: &[u8], name: &[u8], what: MknodWhat) -> Res<Fh> {
        let at = DirOp { dir, name };
        self.making(dir, name, Proc3::Mknod, &MknodArgs { at, what }).await.map(|(fh, _)| fh)
    }

    fn wcc(&self, res: Res3<WccData, WccData>) -> Res<()> {
        let (Res3::Ok(wcc) | Res3::Err(_, wcc)) = &res;
        *self.wcc.borrow_mut() = Some(*wcc);
        res.into_result().map(|_| ())
    }

    pub async fn remove(&self, dir: &[u8], name: &[u8]) -> Res<()> {
        let args = RemoveArgs { object: DirOp { dir, name } };
        let r = self.call(self.at_name(dir, name), Proc3::Remove, &args).await;
        self.wcc(Decode::decode(&mut Reader::new(&r)).unwrap())
    }

    pub async fn rmdir(&self, dir: &[u8], name: &[u8]) -> Res<()> {
        let args = RemoveArgs { object: DirOp { dir, name } };
        let r = self.call(self.at_name(dir, name), Proc3::Rmdir, &args).await;
        self.wcc(Decode::decode(&mut Reader::new(&r)).unwrap())
    }

    pub async fn rename(&self, dir: &[u8], name: &[u8], to_dir: &[u8], to: &[u8]) -> Res<()> {
        let args = RenameArgs { from: DirOp { dir, name }, to: DirOp { dir: to_dir, name: to } };
        let r = self.call(self.at_name(to_dir, to), Proc3::Rename, &args).await;
        let res = Res3::<RenameOk, RenameOk>::decode(&mut Reader::new(&r)).unwrap();
        let (Res3::Ok(wcc) | Res3::Err(_, wcc)) = &res;
        *self.wcc.borrow_mut() = Some(wcc.to_wcc);
        res.into_result().map(|_| ())
    }

    pub async fn link(&self, file: &[u8], dir: &[u8], name: &[u8]) -> Res<()> {
        let args = LinkArgs { file, link: DirOp { dir, name } };
        let r = self.call(self.at_name(dir, name), Proc3::Link, &args).await;
        let res = Res3::<LinkOk, LinkOk>::decode(&mut Reader::new(&r)).unwrap();
        let (Res3::Ok(ok) | Res3::Err(_, ok)) = &res;
        *self.wcc.borrow_mut() = Some(ok.dir_wcc);
        res.into_result().map(|_| ())
    }

    pub async fn setattr(&self, fh: &[u8], attr: Sattr3, guard: Option<NfsTime3>) -> Res<Option<Fattr3>> {
        let args = SetattrArgs { object: fh, attr, guard };
        let r = self.call(self.at_home(fh), Proc3::Setattr, &args).await;
        let res = Res3::<WccData, WccData>::decode(&mut Reader::new(&r)).unwrap();
        res.into_result().map(|wcc| wcc.after)
    }

    pub async fn chmod(&self, fh: &[u8], mode: u32) -> Res<()> {
        self.setattr(fh, Sattr3 { mode: Some(mode), ..Sattr3::default() }, None).await.map(|_| ())
    }

    pub async fn truncate(&self, fh: &[u8], size: u64) -> Res<()> {
        self.setattr(fh, Sattr3 { size: Some(size), ..Sattr3::default() }, None).await.map(|_| ())
    }

    /// One READDIRPLUS of one server.
    pub async fn page(
        &self,
        server: ServerId,
        dir: &[u8],
        cookie: u64,
        maxcount: u32,
    ) -> Res<(Vec<Listed>, bool)> {
        let args = ReaddirplusArgs { dir, cookie, verf: CookieVerf::default(), dircount: maxcount, maxcount };
        let r = self.call(server, Proc3::Readdirplus, &args).await;
        let body = r.len() - 4;
        let res = Res3::<ReaddirplusOk<'_>, PostOpAttr>::decode(&mut Reader::new(&r)).unwrap();
        let ok = res.into_result()?;
        assert!(body <= maxcount as usize, "{body} bytes, {maxcount} allowed");
        let listed = |e: &EntryPlus<'_>| Listed {
            name: e.entry.name.to_vec(),
            cookie: e.entry.cookie,
            fileid: e.entry.fileid,
            attr: e.attr,
        };
        Ok((ok.entries.iter().map(listed).collect(), ok.eof))
    }

    /// One READDIR of one server.
    pub async fn plain_page(
        &self,
        server: ServerId,
        dir: &[u8],
        cookie: u64,
        count: u32,
    ) -> Res<(Vec<Listed>, bool)> {
        let args = ReaddirArgs { dir, cookie, verf: CookieVerf::default(), count };
        let r = self.call(server, Proc3::Readdir, &args).await;
        let body = r.len() - 4;
        let res = Res3::<ReaddirOk<'_>, PostOpAttr>::decode(&mut Reader::new(&r)).unwrap();
        let ok = res.into_result()?;
        assert!(body <= count as usize, "{body} bytes, {count} allowed");
        let listed = |e: &slice_proto::nfs3::Entry<'_>| Listed {
            name: e.name.to_vec(),
            cookie: e.cookie,
            fileid: e.fileid,
            attr: None,
        };
        Ok((ok.entries.iter().map(listed).collect(), ok.eof))
    }

    /// The servers that have entries of a directory, home first.
    pub fn servers_of(&self, dir: &[u8]) -> Vec<ServerId> {
        let home = self.at_home(dir);
        let mut all = vec![home];
        if self.volume().policy == NamePolicy::Hash {
            all.extend(self.table.servers_of(slice_proto::ids::Role::Dir).filter(|s| *s != home));
        }
        all
    }

    /// Everything in a directory but `.` and `..`, by name.
    pub async fn list(&self, dir: &[u8]) -> Res<BTreeMap<Vec<u8>, FileId>> {
        let mut all = BTreeMap::new();
        for server in self.servers_of(dir) {
            let mut cookie = 0;
            loop {
                let (entries, eof) = self.page(server, dir, cookie, 4096).await?;
                cookie = entries.last().map_or(cookie, |e| e.cookie);
                for e in entries.into_iter().filter(|e| e.cookie > 2) {
                    assert!(all.insert(e.name, e.fileid).is_none());
                }
                if eof {
                    break;
                }
            }
        }
        Ok(all)
    }

    pub async fn push(&self, args: &PushArgs) -> AttrRes {
        self.private(self.owner(args.file.home()), PeerProc::Push, args).await
    }

    pub async fn raise(&self, fh: &[u8], epoch: slice_proto::ids::Epoch, reach: u64) -> AttrRes {
        let file = self.open(fh).file;
        let args = RaiseArgs { table: TableEpoch(1), file, epoch, reach };
        self.private(self.owner(file.home()), PeerProc::RaiseReach, &args).await
    }

    pub async fn stamp(&self, fh: &[u8]) -> Stamp {
        self.getattr(fh).await.unwrap();
        self.stamps.borrow()[0]
    }
}
