//! A made-up ensemble that is consistent, and every way in which it could not be.

use super::judge::{Known, Names};
use super::{Options, Problem, Report, run};
use bytes::{Bytes, BytesMut};
use slice_proto::ids::{Epoch, FileId, Role, SITES_PER_ROLE, ServerId, Site, VolumeId};
use slice_proto::nfs3::FType3;
use slice_proto::peer::PeerProc;
use slice_proto::peer::data::{ListArgs, ObjectInfo, ObjectsRes};
use slice_proto::peer::dir::{
    AttrInfo, Child, EntryInfo, ListAttrsArgs, ListAttrsRes, ListEntriesArgs, ListEntriesRes, SettledRes,
};
use slice_proto::placement::{block_site, cookie, first_tie, name_hash, small_site};
use slice_proto::rpc_msg::{CallHeader, ReplyStatus, encode_reply, encode_success};
use slice_proto::table::{NamePolicy, RoutingTable, ServerEntry, Volume};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{Directory, Handled, Message, Peer, Service, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Server `nth` of a role in the made-up ensemble.
pub(super) fn server(role: Role, nth: u64) -> ServerId {
    ServerId(role as u64 * 10 + nth)
}

pub(super) const ROOT: FileId = FileId(1);

pub(super) fn table() -> RoutingTable {
    let sites = |role| (0..SITES_PER_ROLE as u64).map(|s| vec![server(role, s % 2)]).collect();
    let entry = |role, nth| (server(role, nth), ServerEntry { role, address: String::new() });
    let volume = Volume {
        id: VolumeId(0),
        path: "/".into(),
        root: ROOT,
        policy: NamePolicy::Hash,
        seed: 5,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o755,
    };
    RoutingTable {
        dir: sites(Role::Dir),
        small: sites(Role::Small),
        block: sites(Role::Block),
        servers: [Role::Dir, Role::Small, Role::Block]
            .into_iter()
            .flat_map(|r| [entry(r, 0), entry(r, 1)])
            .collect(),
        volumes: vec![volume],
        ..RoutingTable::default()
    }
}

/// What all servers hold.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) attrs: BTreeMap<(ServerId, FileId), AttrInfo>,
    pub(super) entries: Vec<(ServerId, EntryInfo)>,
    pub(super) objects: BTreeMap<(ServerId, FileId), ObjectInfo>,
}

impl World {
    pub(super) fn attr(&mut self, file: FileId) -> &mut AttrInfo {
        self.attrs.values_mut().find(|a| a.file == file).unwrap()
    }

    pub(super) fn entry(&mut self, name: &str) -> &mut EntryInfo {
        self.entries.iter_mut().map(|(_, e)| e).find(|e| e.name == name.as_bytes()).unwrap()
    }

    pub(super) fn object(&mut self, role: Role, file: FileId) -> &mut ObjectInfo {
        let mut all = self.objects.iter_mut();
        all.find(|((s, f), _)| *f == file && s.0 / 10 == role as u64).map(|(_, o)| o).unwrap()
    }

    /// Makes a name for a file, as CREATE, MKDIR or LINK would.
    pub(super) fn name(&mut self, dir: FileId, name: &str, file: FileId, ftype: FType3) {
        let hash = name_hash(5, dir, name.as_bytes());
        let child = Child { file, ftype: ftype as u32, policy: 0 };
        let cookie = cookie(hash, first_tie(hash));
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.entries.push((server(Role::Dir, hash % 2), EntryInfo { dir, cookie, name, child }));
    }

    pub(super) fn record(
        &mut self,
        file: FileId,
        ftype: FType3,
        nlink: u32,
        size: u64,
        parent: FileId,
        entries: u64,
    ) {
        let ftype = ftype as u32;
        let reach = size.max(64 << 10).next_power_of_two();
        let epoch = Epoch(3);
        let info = AttrInfo { file, ftype, nlink, size, reach, epoch, parent, entries };
        self.attrs.insert((table().owner(Role::Dir, file.home()).unwrap(), file), info);
    }

    pub(super) fn hold(&mut self, role: Role, site: Site, file: FileId, size: u64, beyond: bool) {
        let at = table().owner(role, site).unwrap();
        let info = ObjectInfo { file, epoch: Epoch(3), size, used: 4096, beyond, tombstone: false };
        self.objects.insert((at, file), info);
    }

    /// The lists, judged.
    pub(super) fn judge(&self) -> Report {
        let table = table();
        let mut entries: Vec<_> = self.entries.iter().map(|(_, e)| e).collect();
        entries.sort_by_key(|e| (e.dir, e.cookie));
        let mut names = Names::default();
        entries.into_iter().for_each(|e| names.entry(e));
        let mut files = names.files(&table);
        let all: BTreeSet<_> = self.attrs.keys().chain(self.objects.keys()).map(|(_, f)| *f).collect();
        for file in all {
            let mut known = Known::default();
            let attrs = self.attrs.iter().filter(|((_, f), _)| *f == file);
            known.attrs.extend(attrs.map(|((s, _), a)| (*s, a.clone())));
            for ((s, _), o) in self.objects.iter().filter(|((_, f), _)| *f == file) {
                let list = if s.0 / 10 == Role::Small as u64 { &mut known.small } else { &mut known.block };
                list.push((*s, o.clone()));
            }
            files.file(file, &known);
        }
        files.finish()
    }
}

pub(super) const SUB: FileId = FileId::new(Site(7), 9);
pub(super) const SMALL: FileId = FileId::new(Site(7), 10);
pub(super) const LARGE: FileId = FileId::new(Site(8), 3);
pub(super) const LINK: FileId = FileId::new(Site(9), 1);
pub(super) const EMPTY: FileId = FileId::new(Site(9), 2);
pub(super) const GONE: FileId = FileId::new(Site(9), 3);
pub(super) const NOBODY: FileId = FileId::new(Site(200), 1);
const MIB: u64 = 1 << 20;

/// `/sub/`, `/small` (also `/sub/small`), `/sub/large`, `/link`, `/sub/empty`, and what is left of a removed file.
pub(super) fn world() -> World {
    let mut w = World::default();
    w.record(ROOT, FType3::Dir, 3, 4096, ROOT, 3);
    w.record(SUB, FType3::Dir, 2, 4096, ROOT, 3);
    w.record(SMALL, FType3::Reg, 2, 1000, FileId(0), 0);
    w.record(LARGE, FType3::Reg, 1, 3 * MIB, FileId(0), 0);
    w.record(LINK, FType3::Lnk, 1, 8, FileId(0), 0);
    w.record(EMPTY, FType3::Reg, 1, 0, FileId(0), 0);
    w.name(ROOT, "sub", SUB, FType3::Dir);
    w.name(ROOT, "small", SMALL, FType3::Reg);
    w.name(SUB, "small again", SMALL, FType3::Reg);
    w.name(SUB, "large", LARGE, FType3::Reg);
    w.name(ROOT, "link", LINK, FType3::Lnk);
    w.name(SUB, "empty", EMPTY, FType3::Reg);
    w.hold(Role::Small, small_site(SMALL), SMALL, 1000, false);
    w.hold(Role::Small, small_site(LARGE), LARGE, 64 << 10, true);
    w.hold(Role::Block, block_site(LARGE, 2 * MIB), LARGE, 3 * MIB, false);
    w.hold(Role::Small, small_site(GONE), GONE, 0, false);
    w.hold(Role::Block, block_site(GONE, MIB), GONE, 0, false);
    w.object(Role::Small, GONE).tombstone = true;
    w.object(Role::Block, GONE).tombstone = true;
    w
}

/// A change of the world, and what is wrong then.
pub(super) type Case = (&'static str, fn(&mut World), Vec<Problem>);

pub(super) fn cases() -> Vec<Case> {
    let small = table().owner(Role::Small, small_site(SMALL)).unwrap();
    let small_of_large = table().owner(Role::Small, small_site(LARGE)).unwrap();
    let small_of_gone = table().owner(Role::Small, small_site(GONE)).unwrap();
    let block = table().owner(Role::Block, block_site(LARGE, 2 * MIB)).unwrap();
    let block_of_gone = table().owner(Role::Block, block_site(GONE, MIB)).unwrap();
    vec![
        ("nothing", |_| {}, vec![]),
        (
            "a name of nobody",
            |w| w.entry("link").child.file = NOBODY,
            vec![
                Problem::EntryWithoutAttributes { dir: ROOT, child: NOBODY },
                Problem::AttributesWithoutEntry { file: LINK },
            ],
        ),
        (
            "no name",
            |w| w.entries.retain(|(_, e)| e.name != "large"),
            vec![
                Problem::AttributesWithoutEntry { file: LARGE },
                Problem::EntryCount { dir: SUB, counts: 3, has: 2 },
            ],
        ),
        (
            "no directory",
            |w| w.attrs.retain(|(_, f), _| *f != SUB),
            vec![
                Problem::EntryWithoutAttributes { dir: ROOT, child: SUB },
                Problem::EntriesWithoutDirectory { dir: SUB, entries: 3 },
            ],
        ),
        ("links", |w| w.attr(SMALL).nlink = 3, vec![Problem::LinkCount { file: SMALL, nlink: 3, should: 2 }]),
        ("links of a directory", |w| w.attr(ROOT).nlink = 2, {
            vec![Problem::LinkCount { file: ROOT, nlink: 2, should: 3 }]
        }),
        ("entries", |w| w.attr(ROOT).entries = 4, vec![Problem::EntryCount { dir: ROOT, counts: 4, has: 3 }]),
        ("a parent", |w| w.attr(SUB).parent = NOBODY, {
            vec![Problem::Parent { dir: SUB, names: NOBODY, should: ROOT }]
        }),
        (
            "a directory's second name",
            |w| {
                w.name(SUB, "self", SUB, FType3::Dir);
                w.attr(SUB).entries = 4;
                w.attr(SUB).nlink = 3;
            },
            vec![Problem::DirectoryLinked { dir: SUB, names: 2 }],
        ),
        (
            "a cycle",
            |w| {
                w.entries.retain(|(_, e)| e.name != "sub");
                w.name(SUB, "sub", SUB, FType3::Dir);
                w.attr(SUB).parent = SUB;
                w.attr(SUB).entries = 4;
                w.attr(SUB).nlink = 3;
                w.attr(ROOT).entries = 2;
                w.attr(ROOT).nlink = 2;
            },
            vec![Problem::Unreachable { dir: SUB }],
        ),
        ("a type", |w| w.entry("link").child.ftype = 1, {
            vec![Problem::TypeDiffers { file: LINK, entry: 1, record: 5 }]
        }),
        (
            "a name twice",
            |w| {
                let mut e = w.entry("link").clone();
                e.cookie += 1;
                w.entries.push((server(Role::Dir, 0), e));
                w.attr(LINK).nlink = 2;
                w.attr(ROOT).entries = 4;
            },
            vec![Problem::NameTwice { dir: ROOT, name: b"link".to_vec() }],
        ),
        (
            "names in a file",
            |w| {
                w.name(EMPTY, "odd", LINK, FType3::Lnk);
                w.attr(LINK).nlink = 2;
            },
            vec![Problem::EntriesOfAFile { file: EMPTY, entries: 1 }],
        ),
        (
            "no root",
            |w| w.attrs.retain(|(_, f), _| *f != ROOT),
            vec![Problem::EntriesWithoutDirectory { dir: ROOT, entries: 3 }, Problem::NoRoot { root: ROOT }],
        ),
        (
            "a record at a strange server",
            |w| {
                let a = w.attr(LINK).clone();
                w.attrs.insert((server(Role::Dir, 0), LINK), a);
            },
            vec![
                Problem::Misplaced { file: LINK, role: Role::Dir, server: server(Role::Dir, 0) },
                Problem::Misplaced { file: LINK, role: Role::Dir, server: server(Role::Dir, 1) },
            ],
        ),
        (
            "a size",
            |w| w.attr(SMALL).size = 999,
            vec![Problem::SmallSize { file: SMALL, size: 999, holds: 1000 }],
        ),
        (
            "bytes that were never written",
            |w| w.attr(EMPTY).size = 5,
            vec![Problem::SmallSize { file: EMPTY, size: 5, holds: 0 }],
        ),
        (
            "beyond, but not known",
            |w| w.object(Role::Small, LARGE).beyond = false,
            vec![Problem::Beyond { file: LARGE, size: 3 * MIB, beyond: false }],
        ),
        (
            "beyond, but not so",
            |w| w.object(Role::Small, SMALL).beyond = true,
            vec![Problem::Beyond { file: SMALL, size: 1000, beyond: true }],
        ),
        ("bytes past the end", |w| w.object(Role::Block, LARGE).size += 1, {
            vec![Problem::BytesBeyondSize { file: LARGE, size: 3 * MIB, end: 3 * MIB + 1, server: block }]
        }),
        ("bytes past the reach", |w| w.attr(LARGE).reach = 2 * MIB, {
            vec![Problem::BytesBeyondReach { file: LARGE, reach: 2 * MIB, end: 3 * MIB, server: block }]
        }),
        ("an epoch of the future", |w| w.object(Role::Small, LARGE).epoch = Epoch(4), {
            let (record, object) = (Epoch(3), Epoch(4));
            vec![Problem::EpochAhead { file: LARGE, record, object, server: small_of_large }]
        }),
        (
            "buried alive",
            |w| w.object(Role::Small, SMALL).tombstone = true,
            vec![
                Problem::SmallSize { file: SMALL, size: 1000, holds: 0 },
                Problem::Buried { file: SMALL, server: small },
            ],
        ),
        ("bytes of a link", |w| w.hold(Role::Small, Site(0), LINK, 8, false), {
            vec![Problem::BytesOfNoFile { file: LINK, server: server(Role::Small, 0) }]
        }),
        (
            "orphans",
            |w| {
                w.object(Role::Small, GONE).tombstone = false;
                w.object(Role::Block, GONE).tombstone = false;
            },
            vec![
                Problem::Orphan { file: GONE, server: small_of_gone, used: 4096 },
                Problem::Orphan { file: GONE, server: block_of_gone, used: 4096 },
            ],
        ),
    ]
}

#[test]
fn every_inconsistency_is_told_of_and_nothing_else() {
    for (what, change, mut want) in cases() {
        let mut w = world();
        change(&mut w);
        want.sort();
        assert_eq!(w.judge().problems, want, "{what}");
    }
    let report = world().judge();
    assert_eq!((report.files, report.directories, report.entries, report.objects), (6, 2, 6, 5));
}

/// A server of the made-up ensemble.
struct Fake {
    id: ServerId,
    world: World,
    /// Answers to SETTLED before it is.
    unsettled: AtomicU64,
    /// Lists of attributes, the first of which lacks the link: as if it were made meanwhile.
    changing: Option<AtomicU64>,
}

impl Fake {
    fn answer(&self, proc: Option<PeerProc>, r: &mut Reader<'_>, w: &mut BytesMut) -> Option<()> {
        const FEW: usize = 2;
        match proc? {
            PeerProc::Settled => {
                let left = self.unsettled.load(Ordering::SeqCst);
                self.unsettled.store(left.saturating_sub(1), Ordering::SeqCst);
                SettledRes { status: 0, unsettled: left }.encode(w);
            }
            PeerProc::ListAttrs => {
                let after = ListAttrsArgs::decode(r).unwrap().after;
                let mine = self.world.attrs.iter().filter(|((s, f), _)| *s == self.id && *f > after);
                let mut attrs: Vec<_> = mine.map(|(_, a)| a.clone()).take(FEW).collect();
                if self.changing.as_ref().is_some_and(|c| c.fetch_add(1, Ordering::SeqCst) < 4) {
                    attrs.retain(|a| a.file != LINK);
                }
                ListAttrsRes { status: 0, attrs }.encode(w);
            }
            PeerProc::ListEntries => {
                let args = ListEntriesArgs::decode(r).unwrap();
                let mine = self.world.entries.iter().filter(|(s, _)| *s == self.id);
                let mut mine: Vec<_> = mine.map(|(_, e)| e.clone()).collect();
                mine.sort_by_key(|e| (e.dir, e.cookie));
                mine.retain(|e| (e.dir, e.cookie) > (args.dir, args.cookie));
                mine.truncate(FEW);
                ListEntriesRes { status: 0, entries: mine }.encode(w);
            }
            PeerProc::ListObjects => {
                let after = ListArgs::decode(r).unwrap().after;
                let mine = self.world.objects.iter().filter(|((s, f), _)| *s == self.id && *f > after);
                ObjectsRes { status: 0, objects: mine.map(|(_, o)| o.clone()).take(FEW).collect() }.encode(w);
            }
            _ => return None,
        }
        Some(())
    }
}

impl Service for Fake {
    fn call(&self, _: &Peer, record: BytesMut, reply: &mut Message) -> Handled {
        let header = CallHeader::decode(&record).unwrap();
        encode_success(&mut reply.head, header.xid);
        let mut r = Reader::at(&record, header.args_at);
        if self.answer(PeerProc::from_u32(header.proc), &mut r, &mut reply.head).is_none() {
            reply.head.clear();
            encode_reply(&mut reply.head, header.xid, ReplyStatus::ProcUnavail);
        }
        Handled::Done
    }
}

/// Checks a world over channels.
fn check(world: &World, changing: bool, unsettled: u64, options: &Options) -> Result<Report, super::Error> {
    let directory = Directory::new(None);
    for id in table().servers.keys() {
        let changing = changing.then(AtomicU64::default);
        let fake = Fake { id: *id, world: world.clone(), unsettled: AtomicU64::new(unsettled), changing };
        directory.set(*id, Target::InProcess(Arc::new(fake)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run(&directory, &table(), options))
}

#[test]
fn the_collector_pages_merges_and_looks_twice() {
    let options = Options { apart: std::time::Duration::ZERO, ..Options::default() };
    let mut want = world().judge();
    want.passes = 1;
    assert_eq!(check(&world(), false, 2, &options).unwrap(), want);
    for (what, change, mut want) in cases() {
        let mut w = world();
        change(&mut w);
        want.sort();
        assert_eq!(check(&w, false, 0, &options).unwrap().problems, want, "{what}");
    }
    let report = check(&world(), true, 0, &options).unwrap();
    assert!(report.clean(), "what only the first look saw: {report}");
    assert!(report.passes > 1);
    let once = Options { passes: 1, ..options.clone() };
    assert!(!check(&world(), true, 0, &once).unwrap().clean());
    let hurry = Options { settle: std::time::Duration::ZERO, ..options };
    assert!(matches!(check(&world(), false, 2, &hurry), Err(super::Error::Unsettled { .. })));
}
