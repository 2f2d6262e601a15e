//! Two directory servers under name hashing on one disk: several users, each with names of its own in two shared directories.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use slice_dirserver::DirServer;
use slice_proto::ids::{Role as Place, ServerId, Xid};
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{
    CreateArgs, CreateHow, CreateOk, FType3, Fattr3, GetattrArgs, LinkArgs, LookupArgs, LookupOk, MkdirArgs,
    NfsStat3, PostOpAttr, Proc3, RemoveArgs, RenameArgs, Res3, Sattr3, SetattrArgs, SymlinkArgs, WccData,
};
use slice_proto::rpc_msg::{AuthSys, Cred, Gids, encode_call, program, version};
use slice_proto::trailer::{CallTrailer, ClientId};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::tables::{TablesSender, tables};

use super::dirs::{Caller, Elsewhere, Sent, at_home, at_name, config};
use super::round::{Dark, Life, Role};
use super::wire::{self, DIRS, TABLE};

const USERS: u8 = 6;

/// Names of a user in each directory.
const NAMES: u8 = 6;

type Fh = Vec<u8>;

/// A name: which of the two directories, and the user's number of it.
type Name = (usize, u8);

/// A file, directory or link that a user made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    ftype: FType3,
    mode: u32,
    /// None while nobody has seen it.
    fh: Option<Fh>,
}

/// What a user has: names, and what they stand for.
#[derive(Debug, Clone, Default)]
struct Tree {
    names: BTreeMap<Name, u64>,
    objects: BTreeMap<u64, Object>,
}

#[derive(Debug, Clone)]
enum Op {
    Make(Name, FType3, u32, bool),
    Remove(Name),
    Rename(Name, Name),
    Link(Name, Name),
    Mode(Name, u32),
}

struct User {
    number: u8,
    tree: Tree,
    next: u64,
    xid: u32,
    doubt: Option<(Op, Sent)>,
    /// The last that was answered, with its result.
    last: Option<(Sent, Bytes)>,
    acknowledged: u64,
    rng: StdRng,
}

impl Tree {
    fn links(&self, object: u64) -> u32 {
        self.names.values().filter(|o| **o == object).count() as u32
    }

    fn unlink(&mut self, name: Name) {
        if let Some(object) = self.names.remove(&name)
            && self.links(object) == 0
        {
            self.objects.remove(&object);
        }
    }

    /// What an operation that succeeds makes of it. `next`: an object's number, if it makes one.
    fn apply(&mut self, op: &Op, next: u64, fh: Option<Fh>) {
        match *op {
            Op::Make(name, ftype, mode, _) => {
                self.names.insert(name, next);
                self.objects.insert(next, Object { ftype, mode, fh });
            }
            Op::Remove(name) => self.unlink(name),
            Op::Rename(from, to) => {
                if self.names.get(&from) != self.names.get(&to) {
                    let object = self.names.remove(&from).unwrap();
                    self.unlink(to);
                    self.names.insert(to, object);
                }
            }
            Op::Link(from, to) => {
                self.names.insert(to, self.names[&from]);
            }
            Op::Mode(name, mode) => self.objects.get_mut(&self.names[&name]).unwrap().mode = mode,
        }
    }
}

impl User {
    fn new(number: u8, rng: StdRng) -> Self {
        Self { number, tree: Tree::default(), next: 0, xid: 1, doubt: None, last: None, acknowledged: 0, rng }
    }

    fn name(&self, name: Name) -> Vec<u8> {
        format!("u{}-{}", self.number, name.1).into_bytes()
    }

    fn sent(&mut self, server: ServerId, proc: Proc3, args: &impl Encode) -> Sent {
        self.xid += 1;
        let mut record = BytesMut::new();
        let cred = Cred { uid: 0, gid: 0, gids: Gids::new(&[]) };
        let cred = AuthSys { stamp: 0, machine: b"power", cred };
        encode_call(&mut record, Xid(self.xid), program::NFS, version::NFS3, proc as u32, &cred);
        args.encode(&mut record);
        let client = ClientId([self.number + 1; 16]);
        CallTrailer { client, xid: Xid(self.xid), table: TABLE, ..CallTrailer::default() }
            .append(&mut record);
        Sent { server, record }
    }

    /// An operation that must succeed.
    fn draw(&mut self) -> Op {
        let rng = &mut self.rng;
        let any = |rng: &mut StdRng| (rng.random_range(0..2), rng.random_range(0..NAMES));
        loop {
            let (a, b) = (any(rng), any(rng));
            let there = |name: &Name| self.tree.names.get(name).map(|object| &self.tree.objects[object]);
            match (rng.random_range(0..100), there(&a), there(&b)) {
                (0..40, None, _) => {
                    let ftype = [FType3::Reg, FType3::Reg, FType3::Dir, FType3::Lnk][rng.random_range(0..4)];
                    let exclusive = ftype == FType3::Reg && rng.random_ratio(1, 4);
                    let mode = if exclusive { 0 } else { rng.random_range(0..0o1000) };
                    return Op::Make(a, ftype, mode, exclusive);
                }
                (40..55, Some(_), _) => return Op::Remove(a),
                (55..75, Some(one), two) if a != b => {
                    let dir = one.ftype == FType3::Dir;
                    if two.is_none_or(|two| (two.ftype == FType3::Dir) == dir) {
                        return Op::Rename(a, b);
                    }
                }
                (75..85, Some(one), None) if one.ftype == FType3::Reg => return Op::Link(a, b),
                (85..100, Some(one), _) if one.ftype != FType3::Lnk => {
                    return Op::Mode(a, rng.random_range(0..0o1000));
                }
                _ => {}
            }
        }
    }

    fn call(&mut self, op: &Op, dirs: &[Fh; 2]) -> Sent {
        let place = |user: &Self, name: Name| (dirs[name.0].clone(), user.name(name));
        let fh = |user: &Self, name| user.tree.objects[&user.tree.names[&name]].fh.clone().unwrap();
        match *op {
            Op::Make(name, ftype, mode, exclusive) => {
                let (dir, name) = place(self, name);
                let (at, server) = (DirOp { dir: &dir, name: &name }, at_name(&dir, &name));
                let attr = Sattr3 { mode: Some(mode), ..Sattr3::default() };
                match ftype {
                    FType3::Dir => self.sent(server, Proc3::Mkdir, &MkdirArgs { at, attr }),
                    FType3::Lnk => {
                        self.sent(server, Proc3::Symlink, &SymlinkArgs { at, attr, target: b"there" })
                    }
                    _ => {
                        let verifier = u64::from(self.xid).to_be_bytes();
                        let how =
                            if exclusive { CreateHow::Exclusive(verifier) } else { CreateHow::Guarded(attr) };
                        self.sent(server, Proc3::Create, &CreateArgs { at, how })
                    }
                }
            }
            Op::Remove(name) => {
                let is_dir = self.tree.objects[&self.tree.names[&name]].ftype == FType3::Dir;
                let (dir, name) = place(self, name);
                let proc = if is_dir { Proc3::Rmdir } else { Proc3::Remove };
                let object = DirOp { dir: &dir, name: &name };
                self.sent(at_name(&dir, &name), proc, &RemoveArgs { object })
            }
            Op::Rename(from, to) => {
                let ((from_dir, from), (to_dir, to)) = (place(self, from), place(self, to));
                let from = DirOp { dir: &from_dir, name: &from };
                let args = RenameArgs { from, to: DirOp { dir: &to_dir, name: &to } };
                self.sent(at_name(&to_dir, &to), Proc3::Rename, &args)
            }
            Op::Link(from, to) => {
                let (file, (dir, name)) = (fh(self, from), place(self, to));
                let args = LinkArgs { file: &file, link: DirOp { dir: &dir, name: &name } };
                self.sent(at_name(&dir, &name), Proc3::Link, &args)
            }
            Op::Mode(name, mode) => {
                let object = fh(self, name);
                let attr = Sattr3 { mode: Some(mode), ..Sattr3::default() };
                self.sent(
                    at_home(&object),
                    Proc3::Setattr,
                    &SetattrArgs { object: &object, attr, guard: None },
                )
            }
        }
    }

    /// An operation has succeeded.
    fn answered(&mut self, op: &Op, sent: Sent, result: Bytes) {
        let fh = matches!(op, Op::Make(..)).then(|| {
            let res = Res3::<CreateOk<'_>, WccData>::decode(&mut Reader::new(&result)).unwrap();
            res.into_result().unwrap().object.unwrap().to_vec()
        });
        self.next += 1;
        self.tree.apply(op, self.next, fh);
        (self.doubt, self.last) = (None, Some((sent, result)));
        self.acknowledged += 1;
    }

    async fn step(&mut self, c: &Caller<'_>, dirs: &[Fh; 2]) -> Result<(), Dark> {
        let op = self.draw();
        let sent = self.call(&op, dirs);
        self.doubt = Some((op.clone(), sent.clone()));
        let result = c.send(&sent).await?;
        c.life.good(&format!("{op:?}"), ok(&result))?;
        self.answered(&op, sent, result);
        Ok(())
    }

    /// After a cut, as a client does that has had no answer: it sends again, at once or never.
    async fn again(&mut self, c: &Caller<'_>) -> Result<(), Dark> {
        let Some((op, sent)) = self.doubt.clone() else {
            if let Some((sent, first)) = &self.last {
                assert_eq!(c.send(sent).await?, *first, "a retransmission gets the first answer (I10)");
            }
            return Ok(());
        };
        if self.rng.random() {
            // Whether it had happened or not, it has now.
            let result = c.send(&sent).await?;
            c.life.good(&format!("{op:?}, sent again"), ok(&result))?;
            self.answered(&op, sent, result);
        }
        Ok(())
    }

    /// What was acknowledged holds, and what was under way at the cut happened once or not at all.
    async fn judge(&mut self, c: &Caller<'_>, dirs: &[Fh; 2]) -> Result<(), Dark> {
        let seen = self.look(c, dirs).await?;
        let Err(why) = fits(&self.tree, &seen) else {
            self.doubt = None;
            return Ok(());
        };
        let Some((op, _)) = self.doubt.take() else { panic!("user {}: {why}", self.number) };
        let mut after = self.tree.clone();
        self.next += 1;
        after.apply(&op, self.next, None);
        if let Err(also) = fits(&after, &seen) {
            panic!("user {}: neither before ({why}) nor after {op:?} ({also})", self.number);
        }
        for (name, object) in &after.names {
            let fh = &mut after.objects.get_mut(object).unwrap().fh;
            fh.get_or_insert_with(|| seen[name].0.clone());
        }
        self.tree = after;
        Ok(())
    }

    /// All of the user's names, as LOOKUP finds them.
    async fn look(&mut self, c: &Caller<'_>, dirs: &[Fh; 2]) -> Result<BTreeMap<Name, (Fh, Fattr3)>, Dark> {
        let mut seen = BTreeMap::new();
        for name in (0..2).flat_map(|dir| (0..NAMES).map(move |n| (dir, n))) {
            let (dir, text) = (&dirs[name.0], self.name(name));
            let sent = self.sent(
                at_name(dir, &text),
                Proc3::Lookup,
                &LookupArgs { what: DirOp { dir, name: &text } },
            );
            let result = c.send(&sent).await?;
            let res = Res3::<LookupOk<'_>, PostOpAttr>::decode(&mut Reader::new(&result)).unwrap();
            let fh = match res.into_result() {
                Ok(found) => found.object.to_vec(),
                Err(NfsStat3::NOENT) => continue,
                Err(status) => c.life.good("LOOKUP", Err(status))?,
            };
            let sent = self.sent(at_home(&fh), Proc3::Getattr, &GetattrArgs { object: &fh });
            let result = c.send(&sent).await?;
            let res = Res3::<Fattr3, ()>::decode(&mut Reader::new(&result)).unwrap();
            let attr = c.life.good(&format!("GETATTR of {name:?}"), res.into_result())?;
            seen.insert(name, (fh, attr));
        }
        Ok(seen)
    }
}

fn ok(result: &Bytes) -> Result<(), NfsStat3> {
    match u32::from_be_bytes(result[..4].try_into().unwrap()) {
        0 => Ok(()),
        status => Err(NfsStat3(status)),
    }
}

/// Whether what was seen is this tree.
fn fits(tree: &Tree, seen: &BTreeMap<Name, (Fh, Fattr3)>) -> Result<(), String> {
    if !tree.names.keys().eq(seen.keys()) {
        return Err(format!("names are {:?}, not {:?}", seen.keys(), tree.names.keys()));
    }
    for (name, (fh, attr)) in seen {
        let number = tree.names[name];
        let object = &tree.objects[&number];
        // An exclusive CREATE leaves the mode open.
        let mode = object.mode == 0 || object.ftype == FType3::Lnk || attr.mode == object.mode;
        let links = object.ftype == FType3::Dir || attr.nlink == tree.links(number);
        if attr.ftype != object.ftype
            || !mode
            || !links
            || object.fh.as_ref().is_some_and(|known| known != fh)
        {
            return Err(format!("{name:?} is {attr:?}, not {object:?} with {} links", tree.links(number)));
        }
    }
    Ok(())
}

/// The servers and their users.
pub struct Names {
    users: Vec<User>,
    dirs: Option<[Fh; 2]>,
    elsewhere: Arc<Elsewhere>,
    tables: (TablesSender, slice_rpc::tables::Tables),
}

impl Role for Names {
    const NAME: &'static str = "directory servers";
    const CHANGES: u64 = 250;

    fn new(mut rng: StdRng) -> Self {
        let (sender, follower) = tables();
        sender.publish(wire::table());
        let users = (0..USERS).map(|n| User::new(n, StdRng::seed_from_u64(rng.random()))).collect();
        Self { users, dirs: None, elsewhere: Arc::default(), tables: (sender, follower) }
    }

    fn format(data: &Path) -> Result<(), String> {
        let format = |which| {
            let config = config(data, which);
            wire::make_once(&config.data, || DirServer::format(&config).map_err(|e| e.to_string()))
        };
        (0..2).try_for_each(format)
    }

    async fn make(&mut self, data: &Path) {
        let life = Life::whole(data);
        let c = Caller::open(&life, Arc::clone(&self.elsewhere), &self.tables.1).await.unwrap();
        let table = wire::table();
        for (id, server) in DIRS.into_iter().zip(&c.servers) {
            let mine: Vec<_> = table.owned(Place::Dir, id).collect();
            server.adopt(&mine, &table.volumes).await.unwrap();
        }
        c.run();
        let root = wire::volume().sealed_root(&wire::keys()).to_vec();
        let mut user = User::new(200, StdRng::seed_from_u64(0));
        let mut dirs = Vec::new();
        for name in [b"one", b"two"] {
            let attr = Sattr3 { mode: Some(0o777), ..Sattr3::default() };
            let args = MkdirArgs { at: DirOp { dir: &root, name }, attr };
            let sent = user.sent(at_name(&root, name), Proc3::Mkdir, &args);
            let result = c.send(&sent).await.unwrap();
            let res = Res3::<CreateOk<'_>, WccData>::decode(&mut Reader::new(&result)).unwrap();
            dirs.push(res.into_result().unwrap().object.unwrap().to_vec());
        }
        self.dirs = dirs.try_into().ok();
    }

    async fn live(&mut self, life: &Life) -> Result<(), Dark> {
        let c = Caller::open(life, Arc::clone(&self.elsewhere), &self.tables.1).await?;
        c.run();
        let dirs = self.dirs.clone().unwrap();
        try_join_all(self.users.iter_mut().map(|user| user.again(&c))).await?;
        c.settle().await?;
        for user in &mut self.users {
            user.judge(&c, &dirs).await?;
        }
        c.consistent().await?;
        if life.last {
            for server in &c.servers {
                server.shutdown().await;
            }
            return Ok(());
        }
        life.load();
        let work = self.users.iter_mut().map(|user| async {
            loop {
                user.step(&c, &dirs).await?;
            }
        });
        try_join_all(work).await.map(|_: Vec<()>| ())
    }

    fn acknowledged(&self) -> u64 {
        self.users.iter().map(|user| user.acknowledged).sum()
    }
}
