//! An NFS client: calls records of its own making through one µproxy, as often as it takes.

use crate::model::{DIR_MODE, FILE_MODE, FIRST_DATA_NAME, TARGET};
use crate::net::{Key, Party};
use crate::ops::{Answer, Attr, How, Kind, Name, Obj, Op, Seen};
use crate::world::{MS, World};
use bytes::BytesMut;
use rand::Rng;
use slice_proto::ids::Xid;
use slice_proto::nfs3::readdir::ReaddirOk;
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::*;
use slice_proto::rpc_msg::{AuthSys, Cred, Gids, ReplyHeader, ReplyStatus, encode_call, program, version};
use slice_proto::xdr::{Decode, Encode, Reader};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What all clients act as.
pub const UID: u32 = 1000;
/// Bytes of a READDIR's answer: a few entries, so that scans take several calls.
const SCAN_BYTES: u32 = 400;

/// Handles by file number: what one client has learned, all may use.
#[derive(Debug, Default)]
pub struct Handles(RefCell<BTreeMap<Obj, Vec<u8>>>);

impl Handles {
    /// Remembers a handle; the number in it.
    pub fn learn(&self, fh: &[u8]) -> Obj {
        let obj = u64::from_be_bytes(fh[16..24].try_into().expect("eight bytes"));
        self.0.borrow_mut().insert(obj, fh.to_vec());
        obj
    }

    /// The handle of a file that somebody has seen.
    #[must_use]
    pub fn of(&self, obj: Obj) -> Vec<u8> {
        self.0.borrow()[&obj].clone()
    }
}

/// A client.
pub struct Client {
    /// Which.
    pub index: usize,
    world: Rc<World>,
    key: Key,
    xid: Cell<u32>,
    handles: Rc<Handles>,
}

/// A name on the wire.
fn bytes(name: Name) -> Vec<u8> {
    if name >= FIRST_DATA_NAME { format!("data{}", name - FIRST_DATA_NAME) } else { format!("n{name}") }
        .into_bytes()
}

fn name_of(bytes: &[u8]) -> Name {
    let text = std::str::from_utf8(bytes).expect("names are ours");
    let data = text.strip_prefix("data").map(|n| FIRST_DATA_NAME + n.parse::<Name>().expect("a number"));
    data.unwrap_or_else(|| text.strip_prefix('n').and_then(|n| n.parse().ok()).expect("a name of ours"))
}

fn attr(a: &Fattr3) -> Attr {
    let kind = match a.ftype {
        FType3::Dir => Kind::Dir,
        FType3::Lnk => Kind::Link,
        _ => Kind::File,
    };
    Attr { kind, mode: a.mode & 0o7777, nlink: a.nlink, size: a.size }
}

impl Client {
    /// A client of the µproxy at a node.
    #[must_use]
    pub fn new(world: &Rc<World>, index: usize, proxy: usize, handles: Rc<Handles>) -> Self {
        let key = Key { from: Party::Client(index), to: proxy };
        Self { index, world: Rc::clone(world), key, xid: Cell::new(1), handles }
    }

    /// Calls until there is an answer: the result. Then it goes on, though copies of the call may still be on their way.
    pub async fn call(&self, proc: Proc3, args: &impl Encode) -> BytesMut {
        let xid = self.xid.get();
        self.xid.set(xid + 1);
        let cred = Cred { uid: UID, gid: UID, gids: Gids::new(&[]) };
        let mut w = BytesMut::new();
        let auth = AuthSys { stamp: 0, machine: b"sim", cred };
        encode_call(&mut w, Xid(xid), program::NFS, version::NFS3, proc as u32, &auth);
        args.encode(&mut w);
        self.world.note(|| format!("client {} calls {proc} as {xid}", self.index));
        let mut answer = self.world.submit(self.key, Some(xid.into()), w.freeze());
        let mut patience = self.world.draw(|rng| {
            if rng.random_bool(0.2) { rng.random_range(1..50) } else { rng.random_range(300..3_000) }
        });
        let reply = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer.expect("it is kept until it is answered"),
                () = tokio::time::sleep(Duration::from_millis(patience)) => {}
            }
            patience = (patience * 2).min(20_000);
            // A client sends again over the same connection, or over a new one.
            if self.world.draw(|rng| rng.random_bool(0.3)) {
                self.world.cut(self.key);
            } else {
                self.world.note(|| format!("client {} sends {xid} again", self.index));
                self.world.transmit(self.key, xid.into());
            }
        };
        let mut reply = reply.into_record();
        let header = ReplyHeader::decode(&reply).expect("a reply");
        assert_eq!(header.status, ReplyStatus::Success, "{proc}");
        assert_eq!(header.xid, Xid(xid));
        reply.split_off(header.body_at)
    }

    /// Notes what it has done.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.world.note(|| format!("client {}: {}", self.index, what()));
    }

    /// The result of a call, decoded.
    pub async fn ask<R: for<'a> Decode<'a>>(&self, proc: Proc3, args: &impl Encode) -> R {
        let body = self.call(proc, args).await;
        let mut r = Reader::new(&body);
        let result = R::decode(&mut r).unwrap_or_else(|e| panic!("{proc}: {e}"));
        assert_eq!(r.remaining(), 0, "{proc}: nothing stands behind the result");
        result
    }

    /// A simulated while.
    pub async fn pause(&self, longest_ms: u64) {
        let ms = self.world.draw(|rng| rng.random_range(0..=longest_ms));
        tokio::time::sleep(Duration::from_nanos(ms * MS)).await;
    }

    async fn make(&self, proc: Proc3, args: &impl Encode) -> Answer {
        let body = self.call(proc, args).await;
        match Res3::<CreateOk<'_>, WccData>::decode(&mut Reader::new(&body)).expect("a result") {
            Res3::Ok(ok) => {
                let obj = self.handles.learn(ok.object.expect("the handle of what was made"));
                if let Some(a) = ok.attr {
                    assert_eq!(a.fileid.0, obj, "{proc} shows another's attributes");
                }
                Ok(Seen { obj: Some(obj), ..Seen::default() })
            }
            Res3::Err(status, _) => Err(status.0),
        }
    }

    async fn scan(&self, dir: Obj) -> Answer {
        let fh = self.handles.of(dir);
        let (mut names, mut cookies) = (BTreeMap::new(), Vec::new());
        let mut cookie = 0;
        loop {
            let args = ReaddirArgs { dir: &fh, cookie, verf: CookieVerf::default(), count: SCAN_BYTES };
            let body = self.call(Proc3::Readdir, &args).await;
            let res = Res3::<ReaddirOk<'_>, PostOpAttr>::decode(&mut Reader::new(&body)).expect("a listing");
            let page = match res {
                Res3::Ok(page) => page,
                Res3::Err(status, _) => return Err(status.0),
            };
            for e in &page.entries {
                assert!(!cookies.contains(&e.cookie), "a cookie comes twice in a scan");
                cookies.push(e.cookie);
                cookie = e.cookie;
                if e.name != b"." && e.name != b".." {
                    let twice = names.insert(name_of(e.name), e.fileid.0);
                    // The same name may have been taken away and given again meanwhile; never the same file twice.
                    assert_ne!(twice, Some(e.fileid.0), "a name comes twice in a scan");
                }
            }
            if page.eof {
                return Ok(Seen { names: Some(names), ..Seen::default() });
            }
            assert!(!page.entries.is_empty(), "a page without an entry, and not the end");
        }
    }

    /// Does an operation.
    pub async fn run(&self, op: &Op) -> Answer {
        let fh = |obj: Obj| self.handles.of(obj);
        let mode = |mode| Sattr3 { mode: Some(mode), ..Sattr3::default() };
        let wcc = |res: Res3<WccData, WccData>| {
            res.into_result().map_or_else(|s| Err(s.0), |_| Ok(Seen::default()))
        };
        match *op {
            Op::Create { dir, name, how } => {
                let (dir, name) = (fh(dir), bytes(name));
                let how = match how {
                    How::Unchecked => CreateHow::Unchecked(mode(FILE_MODE)),
                    How::Guarded => CreateHow::Guarded(mode(FILE_MODE)),
                    How::Exclusive => CreateHow::Exclusive(
                        (u64::from(self.xid.get()) << 8 | self.index as u64).to_be_bytes(),
                    ),
                };
                let at = DirOp { dir: &dir, name: &name };
                self.make(Proc3::Create, &CreateArgs { at, how }).await
            }
            Op::Mkdir { dir, name } => {
                let (dir, name) = (fh(dir), bytes(name));
                let at = DirOp { dir: &dir, name: &name };
                self.make(Proc3::Mkdir, &MkdirArgs { at, attr: mode(DIR_MODE) }).await
            }
            Op::Symlink { dir, name } => {
                let (dir, name) = (fh(dir), bytes(name));
                let at = DirOp { dir: &dir, name: &name };
                let args = SymlinkArgs { at, attr: Sattr3::default(), target: TARGET };
                self.make(Proc3::Symlink, &args).await
            }
            Op::Remove { dir, name } | Op::Rmdir { dir, name } => {
                let proc = if matches!(op, Op::Remove { .. }) { Proc3::Remove } else { Proc3::Rmdir };
                let (dir, name) = (fh(dir), bytes(name));
                let args = RemoveArgs { object: DirOp { dir: &dir, name: &name } };
                wcc(self.ask(proc, &args).await)
            }
            Op::Rename { from_dir, from, to_dir, to } => {
                let (from_dir, from, to_dir, to) = (fh(from_dir), bytes(from), fh(to_dir), bytes(to));
                let args = RenameArgs {
                    from: DirOp { dir: &from_dir, name: &from },
                    to: DirOp { dir: &to_dir, name: &to },
                };
                let res: Res3<RenameOk, RenameOk> = self.ask(Proc3::Rename, &args).await;
                res.into_result().map_or_else(|s| Err(s.0), |_| Ok(Seen::default()))
            }
            Op::Link { file, dir, name } => {
                let (file, dir, name) = (fh(file), fh(dir), bytes(name));
                let args = LinkArgs { file: &file, link: DirOp { dir: &dir, name: &name } };
                let res: Res3<LinkOk, LinkOk> = self.ask(Proc3::Link, &args).await;
                res.into_result().map_or_else(|s| Err(s.0), |_| Ok(Seen::default()))
            }
            Op::Chmod { obj, mode: bits } => {
                let fh = fh(obj);
                let args = SetattrArgs { object: &fh, attr: mode(bits), guard: None };
                wcc(self.ask(Proc3::Setattr, &args).await)
            }
            Op::Truncate { obj, size } => {
                let fh = fh(obj);
                let attr = Sattr3 { size: Some(size), ..Sattr3::default() };
                wcc(self.ask(Proc3::Setattr, &SetattrArgs { object: &fh, attr, guard: None }).await)
            }
            Op::Lookup { dir, name } => {
                let (dir, name) = (fh(dir), bytes(name));
                let args = LookupArgs { what: DirOp { dir: &dir, name: &name } };
                let body = self.call(Proc3::Lookup, &args).await;
                match Res3::<LookupOk<'_>, PostOpAttr>::decode(&mut Reader::new(&body)).expect("a result") {
                    Res3::Ok(ok) => Ok(Seen { obj: Some(self.handles.learn(ok.object)), ..Seen::default() }),
                    Res3::Err(status, _) => Err(status.0),
                }
            }
            Op::Getattr { obj } => {
                let res: GetattrRes = self.ask(Proc3::Getattr, &GetattrArgs { object: &fh(obj) }).await;
                match res.into_result() {
                    Ok(a) => {
                        assert_eq!(a.fileid.0, obj, "GETATTR shows another's attributes");
                        Ok(Seen { attr: Some(attr(&a)), ..Seen::default() })
                    }
                    Err(status) => Err(status.0),
                }
            }
            Op::Readdir { dir } => self.scan(dir).await,
        }
    }
}
