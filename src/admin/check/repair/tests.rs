//! Plans, on the made-up ensemble of the check's own tests: what is done about each kind of problem; and that what is done, done
//! to the made-up servers, leaves them clean, whatever was damaged.

use super::super::problem::{Problem, Report};
use super::super::tests::*;
use super::facts::{Facts, Record};
use super::plan::{Plan, Repair, plan};
use proptest::prelude::*;
use slice_proto::ids::{Epoch, FileId, Role, ServerId, VolumeId};
use slice_proto::nfs3::FType3;
use slice_proto::peer::dir::{AttrInfo, EntryInfo};
use slice_proto::peer::repair::{NameRepair, Repair as Home, Seen};
use slice_proto::placement::{THRESHOLD, cookie, name_hash};
use slice_proto::table::RoutingTable;

/// Seed of the made-up ensemble's volume.
const SEED: u64 = 5;
/// A directory that a repair makes.
const LOST: FileId = FileId(77);

fn role(server: ServerId) -> Role {
    match server.0 / 10 {
        r if r == Role::Small as u64 => Role::Small,
        r if r == Role::Block as u64 => Role::Block,
        _ => Role::Dir,
    }
}

fn seen(attr: &AttrInfo) -> Seen {
    Seen { attr: attr.clone(), ctime_ns: 1, volume: VolumeId(0), policy: 0 }
}

/// What `gather` would find.
fn facts<'t>(table: &'t RoutingTable, world: &World, report: &Report) -> Facts<'t> {
    let mut facts = Facts::new(table, report.problems.iter().cloned());
    for file in facts.files() {
        let home = table.owner(Role::Dir, file.home());
        let record = home.and_then(|home| world.attrs.get(&(home, file)));
        facts.record(file, record.map_or(Record::Gone, |a| Record::Is(seen(a))));
    }
    let mut entries = world.entries.clone();
    entries.sort_by_key(|(_, e)| (e.dir, e.cookie));
    entries.iter().for_each(|(server, e)| facts.entry(*server, e));
    for ((server, _), o) in &world.objects {
        facts.object(role(*server), *server, o.clone());
    }
    facts
}

/// Does what a directory server does, under no load.
fn name(world: &mut World, r: &NameRepair) -> bool {
    let same = |e: &EntryInfo| e.dir == r.dir && e.name == r.name;
    let first = world.entries.iter().filter(|(_, e)| same(e)).min_by_key(|(_, e)| e.cookie).cloned();
    if first.as_ref().map(|(_, e)| e.child.file) != r.from {
        return false;
    }
    world.entries.retain(|(_, e)| !same(e));
    if let Some(child) = r.to {
        let hash = name_hash(SEED, r.dir, &r.name);
        let (server, cookie) =
            first.map_or((server(Role::Dir, hash % 2), cookie(hash, 9)), |(s, e)| (s, e.cookie));
        let (dir, name) = (r.dir, r.name.clone());
        world.entries.push((server, EntryInfo { dir, cookie, name, child }));
    }
    true
}

/// Does a repair; whether it was not void.
fn act(world: &mut World, repair: &Repair) -> bool {
    match repair {
        Repair::At(Home::Name(r)) => return name(world, r),
        Repair::At(Home::Counts(r)) => {
            let attr = world.attr(r.seen.attr.file);
            if *attr != r.seen.attr {
                return false;
            }
            (attr.nlink, attr.entries, attr.parent) = (r.nlink, r.entries, r.parent);
        }
        Repair::At(Home::Make(r)) => {
            assert!(world.attrs.keys().all(|(_, f)| *f != r.dir));
            world.record(r.dir, FType3::Dir, r.nlink, 4096, r.parent, r.entries);
        }
        Repair::At(Home::Size(r)) => {
            let file = r.seen.attr.file;
            let attr = world.attr(file);
            if *attr != r.seen.attr {
                return false;
            }
            attr.epoch = Epoch(attr.epoch.max(r.past).0 + 2);
            attr.reach = attr.reach.max(attr.size.next_power_of_two());
            let (size, epoch) = (attr.size, attr.epoch);
            let small = slice_proto::placement::small_site(file);
            if size > 0 && world.objects.keys().all(|(s, f)| *f != file || role(*s) != Role::Small) {
                world.hold(Role::Small, small, file, 0, false);
            }
            for ((server, _), o) in world.objects.iter_mut().filter(|((_, f), _)| *f == file) {
                assert!(!o.tombstone);
                o.epoch = epoch;
                match role(*server) {
                    Role::Small => (o.size, o.beyond) = (size.min(THRESHOLD), size > THRESHOLD),
                    _ => o.size = o.size.min(size),
                }
            }
        }
        Repair::Adopt(seen) => {
            if world.attrs.keys().all(|(_, f)| *f != LOST) {
                world.record(LOST, FType3::Dir, 2, 4096, ROOT, 0);
                world.name(ROOT, "lost+found", LOST, FType3::Dir);
                let root = world.attr(ROOT);
                (root.nlink, root.entries) = (root.nlink.wrapping_add(1), root.entries.wrapping_add(1));
            }
            let ftype = FType3::from_u32(seen.attr.ftype).unwrap();
            world.name(LOST, &format!("#{}", seen.attr.file.0), seen.attr.file, ftype);
        }
        Repair::Purge { server, file, epoch, .. } => {
            let o = world.objects.get_mut(&(*server, *file)).unwrap();
            assert!(*epoch > o.epoch);
            (o.epoch, o.tombstone, o.size, o.used) = (*epoch, true, 0, 0);
        }
    }
    true
}

/// One round, as `mend` makes it; whether anything was done.
fn round(world: &mut World) -> bool {
    let (table, report) = (table(), world.judge());
    let facts = facts(&table, world, &report);
    let plans = report.problems.iter().map(|p| plan(p, &facts));
    let mut repairs: Vec<Repair> = Vec::new();
    for plan in plans {
        if let Plan::Do(some) = plan {
            let new: Vec<_> = some.into_iter().filter(|r| !repairs.contains(r)).collect();
            repairs.extend(new);
        }
    }
    if repairs.iter().any(Repair::names) {
        repairs.retain(|r| !r.counts());
    }
    repairs.iter().filter(|r| act(world, r)).count() > 0
}

/// Rounds until nothing more can be done.
fn mend(world: &mut World) -> usize {
    let rounds = (0..).take_while(|_| round(world)).take(20).count();
    assert!(rounds < 20, "it does not end: {}", world.judge());
    rounds
}

/// What is done about a damage of the check's own tests, in short: a letter for each problem, in order.
/// `N`ame, `C`ounts, `M`ake, `S`ize, `A`dopt, `P`urge; `-` later, `.` over, `!` left.
fn done(plan: &Plan) -> char {
    match plan {
        Plan::Do(repairs) => match repairs.first().unwrap() {
            Repair::At(Home::Name(_)) => 'N',
            Repair::At(Home::Counts(_)) => 'C',
            Repair::At(Home::Make(_)) => 'M',
            Repair::At(Home::Size(_)) => 'S',
            Repair::Adopt(_) => 'A',
            Repair::Purge { .. } => 'P',
        },
        Plan::Later(_) => '-',
        Plan::Over => '.',
        Plan::Leave(_) => '!',
    }
}

const DECISIONS: [(&str, &str); 24] = [
    ("nothing", ""),
    ("a name of nobody", "NA"),
    ("no name", "AC"),
    ("no directory", "-M"),
    ("links", "C"),
    ("links of a directory", "C"),
    ("entries", "C"),
    ("a parent", "C"),
    ("a directory's second name", "N"),
    ("a cycle", "N"),
    ("a type", "N"),
    ("a name twice", "N"),
    ("names in a file", "N"),
    ("no root", "-M"),
    ("a record at a strange server", "!!"),
    ("a size", "S"),
    ("bytes that were never written", "S"),
    ("beyond, but not known", "S"),
    ("beyond, but not so", "S"),
    ("bytes past the end", "S"),
    ("bytes past the reach", "S"),
    ("an epoch of the future", "S"),
    ("buried alive", "!!"),
    ("bytes of a link", "P"),
];

#[test]
fn each_kind_of_problem_has_its_decision_and_is_clean_afterwards() {
    let decided: Vec<_> = DECISIONS.into_iter().chain([("orphans", "PP")]).collect();
    let cases = cases();
    assert_eq!(
        cases.iter().map(|c| c.0).collect::<Vec<_>>(),
        decided.iter().map(|d| d.0).collect::<Vec<_>>()
    );
    for ((what, change, _), (_, want)) in cases.into_iter().zip(decided) {
        let mut world = world();
        change(&mut world);
        let (table, report) = (table(), world.judge());
        let facts = facts(&table, &world, &report);
        let plans: Vec<Plan> = report.problems.iter().map(|p| plan(p, &facts)).collect();
        assert_eq!(plans.iter().map(done).collect::<String>(), want, "{what}: {plans:#?}");
        let rounds = mend(&mut world);
        let left = world.judge();
        if want.contains('!') {
            assert_eq!((rounds, &left.problems), (0, &report.problems), "{what}");
        } else {
            assert!(left.clean() && rounds <= 4, "{what}: {left} after {rounds}");
        }
    }
}

#[test]
fn what_was_lost_with_its_server_is_not_thrown_away() {
    // The record went, the bytes did not: neither the name nor the bytes are taken.
    let mut world = world();
    world.attrs.retain(|(_, f), _| *f != SMALL);
    let report = world.judge();
    assert!(report.problems.iter().any(|p| matches!(p, Problem::Orphan { file, .. } if *file == SMALL)));
    let (entries, objects) = (world.entries.clone(), world.objects.clone());
    assert_eq!(mend(&mut world), 0);
    assert_eq!((world.entries.len(), world.objects), (entries.len(), objects));
}

#[test]
fn what_changed_meanwhile_is_no_occasion() {
    let (mut damaged, table) = (world(), table());
    damaged.attr(SMALL).nlink = 3;
    damaged.attr(SUB).entries = 9;
    let report = damaged.judge();
    let now = facts(&table, &world(), &report);
    assert!(report.problems.iter().all(|p| plan(p, &now) == Plan::Over), "{report}");
    let mut busy = facts(&table, &damaged, &report);
    busy.record(SMALL, Record::Busy);
    busy.record(SUB, Record::Busy);
    assert!(report.problems.iter().all(|p| matches!(plan(p, &busy), Plan::Later(_))), "{report}");
}

/// A random damage of any record, name or object.
#[derive(Debug, Clone)]
enum Damage {
    NoRecord(usize),
    Ftype(usize, u32),
    Nlink(usize, u32),
    Size(usize, u64),
    Reach(usize, u64),
    Epoch(usize, u64),
    Parent(usize, usize),
    Entries(usize, u64),
    NoName(usize),
    StandFor(usize, usize),
    NameType(usize, u32),
    Twin(usize),
    NoObject(usize),
    Bytes(usize, u64, bool),
    ObjectEpoch(usize, u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let i = || 0usize..16;
    prop_oneof![
        i().prop_map(Damage::NoRecord),
        (i(), 1u32..6).prop_map(|(i, t)| Damage::Ftype(i, t)),
        (i(), 0u32..9).prop_map(|(i, n)| Damage::Nlink(i, n)),
        (i(), 0u64..(4 << 20)).prop_map(|(i, n)| Damage::Size(i, n)),
        (i(), 0u64..(4 << 20)).prop_map(|(i, n)| Damage::Reach(i, n)),
        (i(), 0u64..9).prop_map(|(i, n)| Damage::Epoch(i, n)),
        (i(), i()).prop_map(|(i, n)| Damage::Parent(i, n)),
        (i(), 0u64..9).prop_map(|(i, n)| Damage::Entries(i, n)),
        i().prop_map(Damage::NoName),
        (i(), i()).prop_map(|(i, n)| Damage::StandFor(i, n)),
        (i(), 1u32..6).prop_map(|(i, t)| Damage::NameType(i, t)),
        i().prop_map(Damage::Twin),
        i().prop_map(Damage::NoObject),
        (i(), 0u64..(4 << 20), any::<bool>()).prop_map(|(i, n, b)| Damage::Bytes(i, n, b)),
        (i(), 0u64..9).prop_map(|(i, n)| Damage::ObjectEpoch(i, n)),
    ]
}

fn damaged(world: &mut World, damage: &Damage) {
    let files: Vec<FileId> = world.attrs.keys().map(|(_, f)| *f).collect();
    let file = |i: usize| files.get(i % files.len().max(1)).copied().unwrap_or(NOBODY);
    if files.is_empty() {
        return;
    }
    let (n, o) = (world.entries.len().max(1), world.objects.len().max(1));
    match *damage {
        Damage::NoRecord(i) => world.attrs.retain(|(_, f), _| *f != file(i)),
        Damage::Ftype(i, t) => world.attr(file(i)).ftype = t,
        Damage::Nlink(i, n) => world.attr(file(i)).nlink = n,
        Damage::Size(i, n) => world.attr(file(i)).size = n,
        Damage::Reach(i, n) => world.attr(file(i)).reach = n,
        Damage::Epoch(i, n) => world.attr(file(i)).epoch = Epoch(n),
        Damage::Parent(i, p) => world.attr(file(i)).parent = file(p),
        Damage::Entries(i, n) => world.attr(file(i)).entries = n,
        Damage::NoName(i) => drop((!world.entries.is_empty()).then(|| world.entries.remove(i % n))),
        Damage::StandFor(i, f) => {
            world.entries.iter_mut().skip(i % n).take(1).for_each(|(_, e)| e.child.file = file(f));
        }
        Damage::NameType(i, t) => {
            world.entries.iter_mut().skip(i % n).take(1).for_each(|(_, e)| e.child.ftype = t);
        }
        Damage::Twin(i) => {
            if let Some((s, mut e)) = world.entries.get(i % n).cloned() {
                e.cookie += 1;
                if world.entries.iter().all(|(_, o)| (o.dir, o.cookie) != (e.dir, e.cookie)) {
                    world.entries.push((s, e));
                }
            }
        }
        Damage::NoObject(i) => {
            let key = world.objects.keys().nth(i % o).copied();
            key.map(|key| world.objects.remove(&key));
        }
        Damage::Bytes(i, size, beyond) => {
            world.objects.iter_mut().skip(i % o).take(1).for_each(|((s, _), o)| {
                let small = role(*s) == Role::Small;
                (o.size, o.beyond) = if small { (size.min(THRESHOLD), beyond) } else { (size, false) };
            });
        }
        Damage::ObjectEpoch(i, n) => {
            world.objects.values_mut().skip(i % o).take(1).for_each(|o| o.epoch = Epoch(n));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever was damaged, the repair comes to an end, and what is left is what an operator must decide.
    #[test]
    fn random_damage_is_mended_or_left_to_the_operator(all in proptest::collection::vec(damage(), 1..6)) {
        let mut world = world();
        all.iter().for_each(|d| damaged(&mut world, d));
        mend(&mut world);
        let (table, report) = (table(), world.judge());
        let facts = facts(&table, &world, &report);
        let plans: Vec<Plan> = report.problems.iter().map(|p| plan(p, &facts)).collect();
        let left = plans.iter().any(|p| matches!(p, Plan::Leave(_)));
        prop_assert!(report.clean() || left, "{report}\n{plans:#?}");
    }
}
