//! A file system in maps: POSIX as a Linux server has it, without times.

use super::client::{Client, Fh};
use super::rng::Rng;
use slice_proto::nfs3::{CreateHow, FType3, Fattr3, MknodWhat, NfsStat3, Sattr3};
use slice_proto::rpc_msg::Cred;
use std::collections::BTreeMap;

type Ino = usize;

#[derive(Debug, Clone)]
struct Node {
    ftype: FType3,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    size: u64,
    parent: Ino,
    target: Vec<u8>,
    entries: BTreeMap<Vec<u8>, Ino>,
    fh: Fh,
    last_ctime: u64,
}

/// What the model knows.
#[derive(Debug)]
pub struct Model {
    nodes: BTreeMap<Ino, Node>,
    /// Handles of what is gone.
    dead: Vec<Fh>,
    next: Ino,
}

/// Names to play with.
pub struct Names(Vec<Vec<u8>>);

impl Names {
    pub fn few() -> Self {
        Self((0..7).map(|i| format!("n{i}").into_bytes()).collect())
    }
}

/// An operation on inodes and names.
#[derive(Debug, Clone)]
pub enum Op {
    Create(Ino, Vec<u8>, u32, bool),
    Mkdir(Ino, Vec<u8>, u32),
    Symlink(Ino, Vec<u8>, Vec<u8>),
    Fifo(Ino, Vec<u8>, u32),
    Remove(Ino, Vec<u8>),
    Rmdir(Ino, Vec<u8>),
    Rename(Ino, Vec<u8>, Ino, Vec<u8>),
    Link(Ino, Ino, Vec<u8>),
    Chmod(Ino, u32),
    Chown(Ino, Option<u32>, Option<u32>),
    Truncate(Ino, u64),
    Lookup(Ino, Vec<u8>),
    Getattr(Ino),
    Access(Ino),
    List(Ino),
    Stale(usize),
}

fn may(cred: &Cred, n: &Node, want: u32) -> bool {
    if cred.uid == 0 {
        return want & 1 == 0 || n.ftype == FType3::Dir || n.mode & 0o111 != 0;
    }
    let shift = if cred.uid == n.uid {
        6
    } else if cred.in_group(n.gid) {
        3
    } else {
        0
    };
    (n.mode >> shift) & want == want
}

const ROOT: Ino = 1;
type Res<T> = Result<T, NfsStat3>;

impl Model {
    pub fn new(fh: Fh) -> Self {
        let root = Node {
            ftype: FType3::Dir,
            mode: 0o777,
            uid: 0,
            gid: 0,
            nlink: 2,
            size: 0,
            parent: ROOT,
            target: Vec::new(),
            entries: BTreeMap::new(),
            fh,
            last_ctime: 0,
        };
        Self { nodes: [(ROOT, root)].into(), dead: Vec::new(), next: ROOT }
    }

    fn pick(&self, rng: &mut Rng, dir: bool) -> Ino {
        let fits = |n: &&Ino| !dir || self.nodes[n].ftype == FType3::Dir || n.is_multiple_of(9);
        let all: Vec<_> = self.nodes.keys().filter(fits).copied().collect();
        all[rng.index() % all.len()]
    }

    pub fn random(&self, rng: &mut Rng, names: &Names) -> Op {
        let name = |rng: &mut Rng| names.0[rng.index() % names.0.len()].clone();
        let dir = self.pick(rng, true);
        let any = self.pick(rng, false);
        let mode = [0o777, 0o755, 0o700, 0o1777, 0o2775, 0o644, 0o4711][rng.index() % 7];
        let dirmode = [0o777, 0o777, 0o755, 0o1777, 0o2777][rng.index() % 5];
        match rng.next() % 32 {
            0..6 => Op::Create(dir, name(rng), mode, rng.next().is_multiple_of(2)),
            6..10 => Op::Mkdir(dir, name(rng), dirmode),
            10 => Op::Symlink(dir, name(rng), name(rng)),
            11 => Op::Fifo(dir, name(rng), mode),
            12..15 => Op::Remove(dir, name(rng)),
            15..17 => Op::Rmdir(dir, name(rng)),
            17..22 => Op::Rename(dir, name(rng), self.pick(rng, true), name(rng)),
            22..24 => Op::Link(any, dir, name(rng)),
            24 => Op::Chmod(any, if self.nodes[&any].ftype == FType3::Dir { dirmode } else { mode }),
            25 => {
                let id = |v: u32| [None, Some(0), Some(10), Some(20), Some(21)][v as usize % 5];
                Op::Chown(any, id(rng.next()), id(rng.next()))
            }
            26 => Op::Truncate(any, u64::from(rng.next() % 200_000)),
            27 => Op::Lookup(dir, name(rng)),
            28 => Op::Getattr(any),
            29 => Op::Access(any),
            30 => Op::List(dir),
            _ => Op::Stale(rng.index()),
        }
    }

    fn dir(&self, d: Ino) -> Res<&Node> {
        let n = &self.nodes[&d];
        if n.ftype == FType3::Dir { Ok(n) } else { Err(NfsStat3::NOTDIR) }
    }

    fn need(cred: &Cred, n: &Node, want: u32) -> Res<()> {
        if may(cred, n, want) { Ok(()) } else { Err(NfsStat3::ACCES) }
    }

    fn sticky(&self, cred: &Cred, dir: &Node, child: Ino) -> Res<()> {
        let free = dir.mode & 0o1000 == 0 || cred.uid == 0;
        if free || cred.uid == dir.uid || cred.uid == self.nodes[&child].uid {
            Ok(())
        } else {
            Err(NfsStat3::PERM)
        }
    }

    /// Whether a new object may be made, and its parts that the directory decides.
    fn make(&mut self, cred: &Cred, d: Ino, name: &[u8], ftype: FType3, mode: u32) -> Res<Ino> {
        let dir = self.dir(d)?;
        Self::need(cred, dir, 1)?;
        if dir.entries.contains_key(name) {
            return Err(NfsStat3::EXIST);
        }
        Self::need(cred, dir, 2)?;
        let setgid = dir.mode & 0o2000 != 0;
        let gid = if setgid { dir.gid } else { cred.gid };
        let is_dir = ftype == FType3::Dir;
        let mut mode = mode;
        if is_dir && setgid {
            mode |= 0o2000;
        } else if !is_dir && mode & 0o2010 == 0o2010 && cred.uid != 0 && !cred.in_group(gid) {
            mode &= !0o2000;
        }
        self.next += 1;
        let ino = self.next;
        let node = Node {
            ftype,
            mode,
            uid: cred.uid,
            gid,
            nlink: 1 + u32::from(is_dir),
            size: 0,
            parent: d,
            target: Vec::new(),
            entries: BTreeMap::new(),
            fh: Vec::new(),
            last_ctime: 0,
        };
        self.nodes.insert(ino, node);
        let dir = self.nodes.get_mut(&d).unwrap();
        dir.entries.insert(name.to_vec(), ino);
        dir.nlink += u32::from(is_dir);
        Ok(ino)
    }

    fn unlink(&mut self, ino: Ino) {
        let n = self.nodes.get_mut(&ino).unwrap();
        n.nlink -= 1;
        if n.nlink == 0 || n.ftype == FType3::Dir {
            self.dead.push(n.fh.clone());
            self.nodes.remove(&ino);
        }
    }

    fn remove(&mut self, cred: &Cred, d: Ino, name: &[u8], want_dir: bool) -> Res<()> {
        let dir = self.dir(d)?;
        Self::need(cred, dir, 1)?;
        let ino = *dir.entries.get(name).ok_or(NfsStat3::NOENT)?;
        Self::need(cred, dir, 2)?;
        self.sticky(cred, dir, ino)?;
        let child = &self.nodes[&ino];
        match (want_dir, child.ftype == FType3::Dir) {
            (true, false) => return Err(NfsStat3::NOTDIR),
            (false, true) => return Err(NfsStat3::ISDIR),
            (true, true) if !child.entries.is_empty() => return Err(NfsStat3::NOTEMPTY),
            _ => {}
        }
        let dir = self.nodes.get_mut(&d).unwrap();
        dir.entries.remove(name);
        dir.nlink -= u32::from(want_dir);
        self.unlink(ino);
        Ok(())
    }

    fn rename(&mut self, cred: &Cred, fd: Ino, from: &[u8], td: Ino, to: &[u8]) -> Res<()> {
        let (fdir, tdir) = (self.dir(fd)?, self.dir(td)?);
        Self::need(cred, fdir, 1)?;
        Self::need(cred, tdir, 1)?;
        let src = *fdir.entries.get(from).ok_or(NfsStat3::NOENT)?;
        let dst = tdir.entries.get(to).copied();
        if dst == Some(src) {
            return Ok(());
        }
        let is_dir = self.nodes[&src].ftype == FType3::Dir;
        if is_dir && fd != td {
            let mut at = td;
            while at != ROOT {
                if at == src {
                    return Err(NfsStat3::INVAL);
                }
                at = self.nodes[&at].parent;
            }
        }
        Self::need(cred, fdir, 2)?;
        self.sticky(cred, fdir, src)?;
        Self::need(cred, tdir, 2)?;
        if let Some(dst) = dst {
            self.sticky(cred, tdir, dst)?;
            match (is_dir, self.nodes[&dst].ftype == FType3::Dir) {
                (true, false) => return Err(NfsStat3::NOTDIR),
                (false, true) => return Err(NfsStat3::ISDIR),
                _ => {}
            }
        }
        if is_dir && fd != td {
            Self::need(cred, &self.nodes[&src], 2)?;
        }
        if let Some(dst) = dst {
            if is_dir && !self.nodes[&dst].entries.is_empty() {
                return Err(NfsStat3::NOTEMPTY);
            }
            self.nodes.get_mut(&td).unwrap().nlink -= u32::from(is_dir);
            self.unlink(dst);
        }
        let f = self.nodes.get_mut(&fd).unwrap();
        f.entries.remove(from);
        f.nlink -= u32::from(is_dir);
        let t = self.nodes.get_mut(&td).unwrap();
        t.entries.insert(to.to_vec(), src);
        t.nlink += u32::from(is_dir);
        self.nodes.get_mut(&src).unwrap().parent = td;
        Ok(())
    }

    fn link(&mut self, cred: &Cred, file: Ino, d: Ino, name: &[u8]) -> Res<()> {
        let dir = self.dir(d)?;
        Self::need(cred, dir, 1)?;
        if dir.entries.contains_key(name) {
            return Err(NfsStat3::EXIST);
        }
        Self::need(cred, dir, 2)?;
        if self.nodes[&file].ftype == FType3::Dir {
            return Err(NfsStat3::PERM);
        }
        self.nodes.get_mut(&file).unwrap().nlink += 1;
        self.nodes.get_mut(&d).unwrap().entries.insert(name.to_vec(), file);
        Ok(())
    }

    fn chown(&mut self, cred: &Cred, ino: Ino, uid: Option<u32>, gid: Option<u32>) -> Res<()> {
        let n = self.nodes.get_mut(&ino).unwrap();
        if cred.uid != 0 {
            let owner = cred.uid == n.uid;
            if uid.is_some_and(|u| !owner || u != n.uid) {
                return Err(NfsStat3::PERM);
            }
            if gid.is_some_and(|g| !owner || (g != n.gid && !cred.in_group(g))) {
                return Err(NfsStat3::PERM);
            }
        }
        if (uid.is_some() || gid.is_some()) && n.ftype != FType3::Dir {
            n.mode &= !0o4000;
            if n.mode & 0o10 != 0 {
                n.mode &= !0o2000;
            }
        }
        n.uid = uid.unwrap_or(n.uid);
        n.gid = gid.unwrap_or(n.gid);
        Ok(())
    }

    /// Does the operation there and here, and compares.
    pub async fn check(&mut self, step: usize, user: &Client, op: Op) {
        let cred = user.cred;
        let what = format!("step {step}, uid {}: {op:?}", cred.uid);
        let fh = |m: &Self, i: Ino| m.nodes[&i].fh.clone();
        let attr = |mode| Sattr3 { mode: Some(mode), ..Sattr3::default() };
        match op {
            Op::Create(d, name, mode, guarded) => {
                let dir = fh(self, d);
                let how =
                    if guarded { CreateHow::Guarded(attr(mode)) } else { CreateHow::Unchecked(attr(mode)) };
                let got = user.create(&dir, &name, how).await.map(|(fh, _)| fh);
                let found = self.dir(d).ok().and_then(|n| n.entries.get(&name).copied());
                if let (false, Some(found)) = (guarded, found)
                    && may(&cred, &self.nodes[&d], 1)
                {
                    let there = &self.nodes[&found];
                    let want =
                        if there.ftype == FType3::Dir { Err(NfsStat3::ISDIR) } else { Ok(there.fh.clone()) };
                    assert_eq!(got, want, "{what}");
                    return;
                }
                let made = self.make(&cred, d, &name, FType3::Reg, mode);
                self.made(&what, got, made, None);
            }
            Op::Mkdir(d, name, mode) => {
                let got = user.mkdir(&fh(self, d), &name, mode).await;
                let made = self.make(&cred, d, &name, FType3::Dir, mode);
                self.made(&what, got, made, None);
            }
            Op::Symlink(d, name, target) => {
                let got = user.symlink(&fh(self, d), &name, &target).await;
                let made = self.make(&cred, d, &name, FType3::Lnk, 0o777);
                self.made(&what, got, made, Some(target));
            }
            Op::Fifo(d, name, mode) => {
                let got = user.mknod(&fh(self, d), &name, MknodWhat::Fifo(attr(mode))).await;
                let made = self.make(&cred, d, &name, FType3::Fifo, mode);
                self.made(&what, got, made, None);
            }
            Op::Remove(d, name) => {
                let got = user.remove(&fh(self, d), &name).await;
                assert_eq!(got, self.remove(&cred, d, &name, false), "{what}");
                self.wcc(&what, user, d);
            }
            Op::Rmdir(d, name) => {
                let got = user.rmdir(&fh(self, d), &name).await;
                assert_eq!(got, self.remove(&cred, d, &name, true), "{what}");
                self.wcc(&what, user, d);
            }
            Op::Rename(fd, from, td, to) => {
                let got = user.rename(&fh(self, fd), &from, &fh(self, td), &to).await;
                assert_eq!(got, self.rename(&cred, fd, &from, td, &to), "{what}");
                self.wcc(&what, user, td);
            }
            Op::Link(file, d, name) => {
                let got = user.link(&fh(self, file), &fh(self, d), &name).await;
                assert_eq!(got, self.link(&cred, file, d, &name), "{what}");
                self.wcc(&what, user, d);
            }
            Op::Chmod(i, mode) => {
                let got = user.chmod(&fh(self, i), mode).await;
                let n = self.nodes.get_mut(&i).unwrap();
                let want = if cred.uid == 0 || cred.uid == n.uid { Ok(()) } else { Err(NfsStat3::PERM) };
                assert_eq!(got, want, "{what}");
                if want.is_ok() {
                    n.mode = mode;
                    if cred.uid != 0 && !cred.in_group(n.gid) {
                        n.mode &= !0o2000;
                    }
                }
            }
            Op::Chown(i, uid, gid) => {
                let sattr = Sattr3 { uid, gid, ..Sattr3::default() };
                let got = user.setattr(&fh(self, i), sattr, None).await.map(|_| ());
                assert_eq!(got, self.chown(&cred, i, uid, gid), "{what}");
            }
            Op::Truncate(i, size) => {
                let got = user.truncate(&fh(self, i), size).await;
                let n = self.nodes.get_mut(&i).unwrap();
                let want = match n.ftype {
                    FType3::Reg if cred.uid == n.uid || may(&cred, n, 2) => Ok(()),
                    FType3::Reg => Err(NfsStat3::ACCES),
                    FType3::Dir => Err(NfsStat3::ISDIR),
                    _ => Err(NfsStat3::INVAL),
                };
                assert_eq!(got, want, "{what}");
                if want.is_ok() {
                    n.size = size;
                    if cred.uid != 0 {
                        n.mode &= !0o4000;
                        if n.mode & 0o10 != 0 {
                            n.mode &= !0o2000;
                        }
                    }
                }
            }
            Op::Lookup(d, name) => {
                let got = user.lookup(&fh(self, d), &name).await;
                let want = self.dir(d).and_then(|n| {
                    // A directory whose home is elsewhere than the name is checked by the µproxy.
                    Self::need(&cred, n, 1)?;
                    n.entries.get(&name).copied().ok_or(NfsStat3::NOENT)
                });
                match (&got, &want) {
                    (Ok((fh, attr)), Ok(i)) => {
                        assert_eq!(fh, &self.nodes[i].fh, "{what}");
                        self.same(&what, *i, attr);
                    }
                    (_, Err(NfsStat3::ACCES | NfsStat3::NOTDIR)) => {}
                    _ => assert_eq!(got.as_ref().err(), want.as_ref().err(), "{what}"),
                }
            }
            Op::Getattr(i) => {
                let got = user.getattr(&fh(self, i)).await.unwrap();
                self.same(&what, i, &got);
            }
            Op::Access(i) => {
                let got = user.access(&fh(self, i), 0x3f).await.unwrap();
                let n = &self.nodes[&i];
                assert_eq!(got & 1 != 0, may(&cred, n, 4), "{what}");
                let write = if n.ftype == FType3::Dir { 3 } else { 2 };
                assert_eq!(got & 8 != 0, may(&cred, n, write), "{what}");
            }
            Op::List(d) => {
                let got = user.list(&fh(self, d)).await;
                let want = self.dir(d).and_then(|n| {
                    Self::need(&cred, n, 4)?;
                    Ok(n.entries.keys().cloned().collect::<Vec<_>>())
                });
                assert_eq!(got.map(|m| m.into_keys().collect::<Vec<_>>()), want, "{what}");
            }
            Op::Stale(n) => {
                if !self.dead.is_empty() {
                    let fh = self.dead[n % self.dead.len()].clone();
                    assert_eq!(user.getattr(&fh).await, Err(NfsStat3::STALE), "{what}");
                }
            }
        }
    }

    fn made(&mut self, what: &str, got: Res<Fh>, made: Res<Ino>, target: Option<Vec<u8>>) {
        match (got, made) {
            (Ok(fh), Ok(ino)) => {
                let n = self.nodes.get_mut(&ino).unwrap();
                n.fh = fh;
                n.target = target.unwrap_or_default();
            }
            (got, made) => assert_eq!(got.err(), made.err(), "{what}"),
        }
    }

    /// The directory's attributes of the last reply are there, and true.
    fn wcc(&mut self, what: &str, user: &Client, d: Ino) {
        let wcc = user.wcc.borrow().unwrap_or_else(|| panic!("{what}: no wcc"));
        let after = wcc.after.unwrap_or_else(|| panic!("{what}: no attributes after"));
        assert!(wcc.before.is_some(), "{what}: no attributes before");
        self.same(what, d, &after);
    }

    fn same(&mut self, what: &str, i: Ino, got: &Fattr3) {
        let n = self.nodes.get_mut(&i).unwrap();
        let size = match n.ftype {
            FType3::Lnk => n.target.len() as u64,
            FType3::Dir => got.size,
            _ => n.size,
        };
        let want = (n.ftype, n.mode, n.uid, n.gid, n.nlink, size);
        assert_eq!((got.ftype, got.mode, got.uid, got.gid, got.nlink, got.size), want, "{what}");
        assert!(got.ctime.as_ns() >= n.last_ctime, "{what}: ctime went back");
        n.last_ctime = got.ctime.as_ns();
    }

    /// Everything there is as it is here.
    pub async fn check_all(&mut self, root: &Client) {
        for i in self.nodes.keys().copied().collect::<Vec<_>>() {
            let n = self.nodes[&i].clone();
            let got = root.getattr(&n.fh).await.unwrap_or_else(|e| panic!("inode {i}: {e}"));
            self.same(&format!("inode {i} at the end"), i, &got);
            if n.ftype == FType3::Dir {
                let listed = root.list(&n.fh).await.unwrap();
                assert_eq!(listed.keys().collect::<Vec<_>>(), n.entries.keys().collect::<Vec<_>>());
                for (name, child) in &n.entries {
                    assert_eq!(listed[name], root.open(&self.nodes[child].fh).file);
                }
                let (up, _) = root.lookup(&n.fh, b"..").await.unwrap();
                assert_eq!(up, self.nodes[&n.parent].fh);
            }
        }
    }
}
