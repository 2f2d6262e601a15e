//! Format and membership, step by step.

use super::*;
use slice_proto::control::pb;

const COORDINATOR: ServerId = ServerId(1000);

fn new(dir: usize, small: usize, block: usize) -> Ensemble {
    let plan = Plan {
        expected: Expected { dir, small, block },
        volumes: vec![],
        placements: vec![Placement { copies: 1 }],
    };
    Ensemble::new(plan, COORDINATOR, "127.0.0.1:1".into()).unwrap()
}

fn come(role: Role, id: u64, port: u16) -> Registration {
    Registration {
        server: ServerId(id),
        entry: ServerEntry { role, address: format!("127.0.0.1:{port}") },
        wire: (MIN_WIRE_VERSION, MAX_WIRE_VERSION),
        fresh: true,
        stamped: vec![],
    }
}

/// As [`come`], with the stamps of everything that the server owns.
fn come_back(e: &Ensemble, role: Role, id: u64, port: u16) -> Registration {
    Registration { fresh: false, stamped: e.sites_of(ServerId(id)), ..come(role, id, port) }
}

fn changed(e: &Ensemble, r: &Registration) -> Ensemble {
    e.register(r).unwrap().unwrap()
}

/// One directory server (1), one small-file server (2), two block storage nodes (3, 4).
fn adopting() -> Ensemble {
    let mut e = new(1, 1, 2);
    for (role, id) in [(Role::Dir, 1), (Role::Small, 2), (Role::Block, 3), (Role::Block, 4)] {
        assert_eq!(e.phase, Phase::Gathering);
        e = changed(&e, &come(role, id, id as u16));
    }
    e
}

fn serving() -> Ensemble {
    let mut e = adopting();
    for id in 1..=4 {
        assert_eq!(e.published(), None);
        e = e.adopted(ServerId(id), &e.sites_of(ServerId(id))).unwrap().unwrap();
    }
    e
}

#[test]
fn sites_are_dealt_when_all_are_there_and_published_when_all_have_stamped() {
    let e = adopting();
    assert_eq!(e.phase, Phase::Adopting);
    assert_eq!(e.to_adopt(ServerId(1)).unwrap().len(), SITES_PER_ROLE);
    assert_eq!(e.to_adopt(ServerId(3)).unwrap().len(), SITES_PER_ROLE / 2);
    let e = serving();
    let table = e.published().unwrap();
    assert_eq!(table.epoch, TableEpoch(1));
    assert_eq!(table.coordinator(), Some(COORDINATOR));
    assert_eq!(e.to_adopt(ServerId(1)), None);
    // What is published passes the checks of those who read it.
    assert_eq!(RoutingTable::try_from(pb::RoutingTable::from(table)).as_ref(), Ok(table));
}

#[test]
fn numbers_of_servers_are_checked() {
    for (dir, small, block) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (257, 1, 1)] {
        let plan = Plan { expected: Expected { dir, small, block }, volumes: vec![], placements: vec![] };
        assert!(matches!(Ensemble::new(plan, COORDINATOR, "x:1".into()), Err(Error::Expected { .. })));
    }
}

#[test]
fn the_same_again_changes_nothing() {
    let e = adopting();
    assert_eq!(e.register(&come(Role::Dir, 1, 1)), Ok(None));
    let e = serving();
    assert_eq!(e.register(&come_back(&e, Role::Block, 3, 3)), Ok(None));
    assert_eq!(e.adopted(ServerId(3), &e.sites_of(ServerId(3))), Ok(None));
    assert_eq!(e.moved(COORDINATOR, "127.0.0.1:1"), None);
}

#[test]
fn a_new_address_is_a_new_epoch() {
    let e = serving();
    let e = changed(&e, &come_back(&e, Role::Block, 3, 33));
    assert_eq!(e.table.epoch, TableEpoch(2));
    assert_eq!(e.table.servers[&ServerId(3)].address, "127.0.0.1:33");
    let e = e.moved(COORDINATOR, "127.0.0.1:2").unwrap();
    assert_eq!(e.table.epoch, TableEpoch(3));
}

#[test]
fn a_new_address_during_format_is_no_epoch() {
    let e = changed(&adopting(), &come(Role::Block, 3, 33));
    assert_eq!((e.phase, e.table.epoch), (Phase::Adopting, TableEpoch(0)));
    assert_eq!(e.table.servers[&ServerId(3)].address, "127.0.0.1:33");
}

/// I4: an absent, empty or foreign store never serves.
#[test]
fn stores_without_their_stamps_are_refused() {
    let e = serving();
    let emptied = e.register(&come(Role::Block, 3, 3));
    assert!(matches!(emptied, Err(Refusal::Emptied { owned: 128, .. })), "{emptied:?}");
    let mut short = come_back(&e, Role::Block, 3, 3);
    short.stamped.pop();
    assert!(matches!(e.register(&short), Err(Refusal::Unstamped { missing: 1, .. })));
    assert!(matches!(e.register(&come(Role::Block, 5, 5)), Err(Refusal::Unknown { .. })));
    assert!(matches!(e.register(&come_back(&e, Role::Small, 3, 3)), Err(Refusal::Role { .. })));
    // The same once a server has stamped, though others have not.
    let e = adopting();
    let e = e.adopted(ServerId(1), &e.sites_of(ServerId(1))).unwrap().unwrap();
    assert!(matches!(e.register(&come(Role::Dir, 1, 1)), Err(Refusal::Emptied { .. })));
}

#[test]
fn a_store_of_a_formatted_ensemble_does_not_join_a_new_one() {
    let r = Registration { stamped: vec![Site(3)], fresh: false, ..come(Role::Dir, 1, 1) };
    assert!(matches!(new(1, 1, 1).register(&r), Err(Refusal::Stamped { .. })));
}

#[test]
fn one_too_many_is_refused_and_a_store_made_anew_takes_its_place() {
    let e = changed(&new(1, 1, 1), &come(Role::Dir, 1, 1));
    assert!(matches!(e.register(&come(Role::Dir, 2, 2)), Err(Refusal::Full { expected: 1, .. })));
    let e = changed(&e, &come(Role::Dir, 3, 1));
    assert_eq!(e.members.keys().collect::<Vec<_>>(), [&ServerId(3)]);
}

#[test]
fn only_what_was_asked_is_adopted() {
    let e = adopting();
    let refused =
        |id, sites: &[Site]| matches!(e.adopted(ServerId(id), sites), Err(Refusal::NotAsked { .. }));
    assert!(refused(9, &[]));
    assert!(refused(3, &[Site(0)]));
    assert!(refused(3, &e.sites_of(ServerId(4))));
}

#[test]
fn programs_without_a_common_version_are_refused_and_proxies_come_and_go() {
    let e = serving();
    let r = Registration { wire: (MAX_WIRE_VERSION + 1, MAX_WIRE_VERSION + 2), ..come(Role::Proxy, 7, 7) };
    assert!(matches!(e.register(&r), Err(Refusal::Wire { .. })));
    assert_eq!(e.register(&come(Role::Proxy, 7, 7)), Ok(None));
}
