//! Draws operations: mostly such as succeed, on few names, so that they meet.

use super::check::special;
use super::fs::{Fs, Id, Kind, Node};
use super::op::{At, Guard, Op};
use super::scan::Scan;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use slice_proto::nfs3::{CreateHow, FType3, NfsTime3, Sattr3, SpecData3, StableHow, TimeHow, access};
use slice_proto::rpc_msg::{Cred, Gids};

/// Nodes that live at a time: beyond, things are removed rather than made.
const MOST_NODES: usize = 120;
/// Bytes that files have together before only small writes are drawn: the model keeps them all.
const MOST_BYTES: usize = 96 << 20;
/// Listings under way at a time.
const MOST_SCANS: usize = 4;
/// Offsets near which much happens: threshold, stripe units.
const BORDERS: [u64; 6] = [0, 4096, 64 << 10, 1 << 20, 2 << 20, 3 << 20];

/// Draws operations.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    users: Vec<Cred>,
}

impl Generator {
    /// The superuser, and two that share a group.
    pub fn new(rng: StdRng) -> Self {
        let user = |uid, gid, gids: &[u32]| Cred { uid, gid, gids: Gids::new(gids) };
        let users = vec![Cred::ROOT, user(1000, 1000, &[1000, 2000]), user(1001, 1001, &[2000])];
        Self { rng, users }
    }

    /// The source of randomness.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// The next operation, and who does it.
    pub fn next(&mut self, fs: &mut Fs) -> (Cred, Op) {
        let cred = *self.users.choose(&mut self.rng).unwrap_or(&Cred::ROOT);
        let living = fs.nodes().filter(|(_, n)| n.alive()).count();
        let crowded = living > MOST_NODES;
        let op = match self.rng.random_range(0..100) {
            0 => Op::Null,
            1..5 => Op::Getattr(self.any(fs)),
            5..14 => self.setattr(fs, &cred),
            14..19 => Op::Lookup(self.at(fs)),
            19..22 => Op::Access { node: self.any(fs), bits: self.rng.random_range(0..=access::ALL) },
            22..25 => Op::Readlink(self.of(fs, |n| matches!(n.kind, Kind::Link(_)))),
            25..37 => {
                let (offset, count) = (self.offset(), self.length());
                Op::Read { node: self.file(fs), offset, count }
            }
            37..50 => self.write(fs),
            50..53 => Op::Commit(self.file(fs)),
            53..60 if !crowded => self.create(fs),
            60..64 if !crowded => Op::Mkdir { at: self.at(fs), attr: self.new_attr(&cred) },
            64..66 if !crowded => {
                let len = *[1usize, 7, 60, 1023].choose(&mut self.rng).unwrap_or(&7);
                Op::Symlink { at: self.at(fs), attr: Sattr3::default(), target: vec![b't'; len] }
            }
            66..68 if !crowded => self.mknod(fs, &cred),
            68..72 => Op::Link { node: self.file(fs), at: self.at(fs) },
            72..80 => Op::Rename { from: self.taken(fs), to: self.at(fs) },
            80..83 => Op::Rmdir(self.taken(fs)),
            83..97 if !crowded && self.rng.random_bool(0.7) => self.list(fs),
            97 => Op::Fsstat(self.any(fs)),
            98 => Op::Fsinfo(self.any(fs)),
            99 => Op::Pathconf(self.any(fs)),
            _ => Op::Remove(self.taken(fs)),
        };
        (cred, op)
    }

    /// Any node, sometimes one that is gone.
    fn any(&mut self, fs: &Fs) -> Id {
        let gone = self.rng.random_bool(0.05);
        self.of(fs, |n| n.alive() != gone)
    }

    /// A node for which `wanted` is true; now and then another one.
    fn of(&mut self, fs: &Fs, wanted: impl Fn(&Node) -> bool) -> Id {
        let strict = self.rng.random_bool(0.97);
        let all: Vec<Id> = fs
            .nodes()
            .filter(|(_, n)| if strict { wanted(n) } else { true })
            .filter(|(_, n)| n.alive() || !strict || wanted(n))
            .map(|(id, _)| id)
            .collect();
        let recent = all.len().saturating_sub(MOST_NODES);
        all.get(recent..).unwrap_or_default().choose(&mut self.rng).copied().unwrap_or(0)
    }

    fn file(&mut self, fs: &Fs) -> Id {
        self.of(fs, |n| n.alive() && n.bytes().is_some())
    }

    fn dir(&mut self, fs: &Fs) -> Id {
        if self.rng.random_bool(0.3) { 0 } else { self.of(fs, |n| n.alive() && n.is_dir()) }
    }

    fn name(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..60) {
            0 => vec![b'l'; 255],
            1 => vec![b'l'; 256],
            2 => b".".to_vec(),
            3 => b"..".to_vec(),
            4..8 => format!("a longer name, number {}", self.rng.random_range(0..20)).into_bytes(),
            _ => vec![b'a' + self.rng.random_range(0..12u8)],
        }
    }

    /// A name that may be there or not.
    fn at(&mut self, fs: &Fs) -> At {
        At { dir: self.dir(fs), name: self.name() }
    }

    /// A name that is there, mostly.
    fn taken(&mut self, fs: &Fs) -> At {
        let full = self.of(fs, |n| n.alive() && n.names().is_some_and(|n| !n.is_empty()));
        let names: Vec<_> =
            fs.node(full).and_then(Node::names).map(|n| n.keys().cloned().collect()).unwrap_or_default();
        match names.choose(&mut self.rng) {
            Some(name) if self.rng.random_bool(0.95) => At { dir: full, name: name.clone() },
            _ => self.at(fs),
        }
    }

    fn mode(&mut self) -> u32 {
        let usual = [0o644, 0o666, 0o755, 0o777, 0o600, 0o640, 0o000, 0o711, 0o1777, 0o2775, 0o4755, 0o2755];
        if self.rng.random_bool(0.8) {
            *usual.choose(&mut self.rng).unwrap_or(&0o644)
        } else {
            self.rng.random_range(0..=0o7777)
        }
    }

    fn time(&mut self) -> TimeHow {
        match self.rng.random_range(0..3) {
            0 => TimeHow::ServerTime,
            1 => TimeHow::DontChange,
            _ => TimeHow::Client(NfsTime3 {
                seconds: self.rng.random_range(1..2_000_000_000),
                nseconds: self.rng.random_range(0..1_000_000_000),
            }),
        }
    }

    /// Attributes for something new. Directories stay open to others, mostly, or little would succeed in them.
    fn new_attr(&mut self, cred: &Cred) -> Sattr3 {
        let mode = if self.rng.random_bool(0.6) { 0o777 } else { self.mode() };
        let mut attr = Sattr3 { mode: Some(mode), ..Sattr3::default() };
        if cred.uid == 0 && self.rng.random_bool(0.2) {
            attr.uid = Some(1000);
            attr.gid = Some(2000);
        }
        attr
    }

    fn setattr(&mut self, fs: &Fs, cred: &Cred) -> Op {
        let mut attr = Sattr3::default();
        let mut node = self.any(fs);
        match self.rng.random_range(0..6) {
            0 => attr.mode = Some(self.mode()),
            1 => {
                attr.uid =
                    self.rng.random_bool(0.5).then(|| *[0, 1000, 1001].choose(&mut self.rng).unwrap_or(&0));
                attr.gid =
                    self.rng.random_bool(0.7).then(|| *[0, 1000, 2000].choose(&mut self.rng).unwrap_or(&0));
            }
            2 => (attr.atime, attr.mtime) = (self.time(), self.time()),
            3 | 4 => {
                node = self.file(fs);
                attr.size = Some(self.size(fs));
            }
            _ => {
                attr.mode = Some(self.mode() & 0o777);
                attr.mtime = self.time();
            }
        }
        if node == 0 {
            // The root stays open to all, and root's.
            attr.mode = attr.mode.map(|_| 0o777);
            (attr.uid, attr.gid) = (None, None);
            if *cred != Cred::ROOT {
                attr.mode = None;
            }
        }
        let guard = match self.rng.random_range(0..20) {
            0 => Guard::Wrong,
            // Only one whose ctime is known.
            1..4 if fs.node(node).is_some_and(|n| {
                n.seen.is_some() && !n.unpushed && n.moved == super::fs::Moved::default()
            }) =>
            {
                Guard::Right
            }
            _ => Guard::Absent,
        };
        Op::Setattr { node, attr, guard }
    }

    fn offset(&mut self) -> u64 {
        let border = *BORDERS.choose(&mut self.rng).unwrap_or(&0);
        let by = self.rng.random_range(0..20_000);
        if self.rng.random_bool(0.5) { border.saturating_sub(by) } else { border + by }
    }

    fn length(&mut self) -> u32 {
        match self.rng.random_range(0..20) {
            0 => 0,
            1..12 => self.rng.random_range(1..6000),
            12..18 => self.rng.random_range(1..150_000),
            _ => self.rng.random_range(1..=1 << 20),
        }
    }

    fn size(&mut self, fs: &Fs) -> u64 {
        match self.rng.random_range(0..4) {
            0 => 0,
            1 => self.rng.random_range(0..70_000),
            _ if fs.total_bytes() > MOST_BYTES => 100,
            _ => self.offset(),
        }
    }

    fn write(&mut self, fs: &Fs) -> Op {
        let node = self.file(fs);
        let (mut offset, mut len) = (self.offset(), self.length());
        if fs.total_bytes() > MOST_BYTES {
            (offset, len) = (offset % 5000, len % 5000);
        } else if self.rng.random_bool(0.3) {
            // Behind what is there.
            offset = fs.node(node).and_then(Node::bytes).map_or(0, |b| b.len() as u64).min(4 << 20);
        }
        let (first, step) = (self.rng.random::<u8>(), self.rng.random::<u8>() | 1);
        let data =
            (0..len).map(|i| first.wrapping_add((i as u8).wrapping_mul(step)) ^ (i >> 8) as u8).collect();
        let stable = *[StableHow::Unstable, StableHow::Unstable, StableHow::DataSync, StableHow::FileSync]
            .choose(&mut self.rng)
            .unwrap_or(&StableHow::Unstable);
        Op::Write { node, offset, data, stable }
    }

    fn create(&mut self, fs: &Fs) -> Op {
        let at = self.at(fs);
        let mut attr = Sattr3 { mode: Some(self.mode()), ..Sattr3::default() };
        let how = match self.rng.random_range(0..10) {
            0..5 => {
                attr.size = match self.rng.random_range(0..4) {
                    0 => Some(0),
                    1 if fs.total_bytes() < MOST_BYTES => Some(self.rng.random_range(0..200_000)),
                    _ => None,
                };
                CreateHow::Unchecked(attr)
            }
            5..8 => CreateHow::Guarded(attr),
            _ => {
                let there = fs.child(at.dir, &at.name).and_then(|id| fs.node(id)).and_then(|n| n.verf);
                // Mostly that of whoever made it: then it is the same CREATE again.
                CreateHow::Exclusive(
                    there.filter(|_| self.rng.random_bool(0.7)).unwrap_or_else(|| self.rng.random()),
                )
            }
        };
        Op::Create { at, how }
    }

    fn mknod(&mut self, fs: &Fs, cred: &Cred) -> Op {
        let all = [FType3::Chr, FType3::Blk, FType3::Sock, FType3::Fifo, FType3::Fifo, FType3::Reg];
        let ftype = *all.choose(&mut self.rng).unwrap_or(&FType3::Fifo);
        let dev = SpecData3 { major: self.rng.random_range(0..200), minor: self.rng.random_range(0..200) };
        Op::Mknod { at: self.at(fs), what: special(ftype, self.new_attr(cred), dev) }
    }

    /// Goes on with a listing, or begins one.
    fn list(&mut self, fs: &mut Fs) -> Op {
        fs.scans.retain(|s| !s.over);
        if fs.scans.is_empty() || (fs.scans.len() < MOST_SCANS && self.rng.random_bool(0.3)) {
            let dir = self.dir(fs);
            let names = fs.node(dir).and_then(Node::names).cloned().unwrap_or_default();
            fs.scans.push(Scan::new(dir, &names));
        }
        let scan = self.rng.random_range(0..fs.scans.len().max(1));
        // What cannot be listed (any more) is tried once.
        if let Some(s) = fs.scans.get(scan)
            && fs.node(s.dir).is_none_or(|n| !n.alive() || !n.is_dir())
            && let Some(s) = fs.scans.get_mut(scan)
        {
            s.over = true;
        }
        let count = match self.rng.random_range(0..12) {
            0 => 24,
            1..8 => self.rng.random_range(600..1500),
            _ => self.rng.random_range(1500..40_000),
        };
        if self.rng.random_bool(0.5) {
            Op::Readdir { scan, count }
        } else {
            Op::Readdirplus { scan, dircount: self.rng.random_range(300..=count.max(301)), maxcount: count }
        }
    }
}
