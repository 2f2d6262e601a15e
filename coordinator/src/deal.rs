//! Deals the sites of a role to its servers, evenly: at format, and as the target of later moves.
//!
//! The ring (consistent hashing with an xxh3 hasher and 256 virtual nodes) gives each site an order of preference over
//! the servers. Each site goes to the first server of its order that may still take one:
//!
//! * **bounded load**: with n sites and N servers exactly n mod N servers get ⌈n/N⌉ sites and all others ⌊n/N⌋;
//! * **apart** (storage sites): neighbours, the last and the first included, lie on different servers whenever N ≥ 2,
//!   so that a sequential reader is served by two machines and a mirror is never on its own original.

use consistent_hash_ring::{Ring, RingBuilder};
use slice_proto::ids::{Role, SITES_PER_ROLE, ServerId, Site};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3Builder;

/// Virtual nodes a server: the fullest server is then within 10 % of its share before load is bounded (measured),
/// so that few sites fall through to their second choice.
const VIRTUAL_NODES: usize = 256;

/// Key in the ring, beside the sites, whose order of preference says which servers get one site more.
const EXTRA: u32 = u32::MAX;

/// Deals [`SITES_PER_ROLE`] sites of `role` to `servers`; the index is the site. `None` if there are no servers, or
/// more than sites. The order of `servers` does not matter.
#[must_use]
pub fn deal(role: Role, servers: &[ServerId]) -> Option<Vec<ServerId>> {
    let ring = RingBuilder::new(Xxh3Builder::new()).vnodes(VIRTUAL_NODES).nodes(servers).build();
    if ring.is_empty() || servers.len() > SITES_PER_ROLE {
        return None;
    }
    let mut left = shares(role, &ring, servers);
    let mut dealt: Vec<ServerId> = Vec::with_capacity(SITES_PER_ROLE);
    let apart = role == Role::Block && left.len() > 1;
    while dealt.len() < SITES_PER_ROLE {
        let site = Site(dealt.len() as u16);
        let takes = |s: &&ServerId| {
            left.get(*s).is_some_and(|n| *n > 0) && (!apart || stays_possible(&left, &dealt, **s))
        };
        let server = *ring.replicas((role as u32, u32::from(site.0))).find(takes)?;
        if let Some(n) = left.get_mut(&server) {
            *n -= 1;
        }
        dealt.push(server);
    }
    Some(dealt)
}

/// How many sites each server gets.
fn shares(role: Role, ring: &Ring<ServerId, Xxh3Builder>, servers: &[ServerId]) -> BTreeMap<ServerId, usize> {
    let mut shares: BTreeMap<_, _> = servers.iter().map(|s| (*s, 0)).collect();
    let (floor, extra) = (SITES_PER_ROLE / shares.len().max(1), SITES_PER_ROLE % shares.len().max(1));
    shares.values_mut().for_each(|n| *n = floor);
    for server in ring.replicas((role as u32, EXTRA)).take(extra) {
        if let Some(n) = shares.get_mut(server) {
            *n += 1;
        }
    }
    shares
}

/// Whether the remaining sites can still be dealt with all neighbours apart if the next one goes to `next`.
///
/// `L` places remain in a row after it. A server can be at every second of them at most: ⌈L/2⌉; one less if it may not
/// stand at an end where that would matter, because its neighbour beyond that end is itself (`next`, or the first site).
fn stays_possible(left: &BTreeMap<ServerId, usize>, dealt: &[ServerId], next: ServerId) -> bool {
    if dealt.last() == Some(&next) {
        return false;
    }
    let places = SITES_PER_ROLE - dealt.len() - 1;
    let first = dealt.first().copied().unwrap_or(next);
    if places == 0 {
        return next != first;
    }
    left.iter().all(|(server, n)| {
        let n = if *server == next { n.saturating_sub(1) } else { *n };
        let ends_closed = usize::from(*server == next) + usize::from(*server == first);
        n <= (places + 1).saturating_sub(ends_closed) / 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loads(dealt: &[ServerId]) -> BTreeMap<ServerId, usize> {
        let mut loads = BTreeMap::new();
        for s in dealt {
            *loads.entry(*s).or_default() += 1;
        }
        loads
    }

    fn check(role: Role, servers: &[ServerId]) {
        let dealt = deal(role, servers).unwrap();
        assert_eq!(dealt.len(), SITES_PER_ROLE);
        let loads = loads(&dealt);
        let n = servers.len();
        for server in servers {
            let load = loads.get(server).copied().unwrap_or(0);
            assert!(load >= SITES_PER_ROLE / n, "{server} has {load} of {n}");
            assert!(load <= SITES_PER_ROLE.div_ceil(n), "{server} has {load} of {n}");
        }
        if role == Role::Block && n >= 2 {
            for (i, s) in dealt.iter().enumerate() {
                assert_ne!(*s, dealt[(i + 1) % SITES_PER_ROLE], "sites {i} and the next, {n} servers");
            }
        }
    }

    #[test]
    fn nobody_to_deal_to_and_too_many() {
        assert_eq!(deal(Role::Dir, &[]), None);
        let many: Vec<_> = (1..=257).map(ServerId).collect();
        assert_eq!(deal(Role::Dir, &many), None);
        assert!(deal(Role::Block, &many[..256]).is_some());
    }

    #[test]
    fn the_order_of_servers_does_not_matter() {
        let servers: Vec<_> = [5, 900, 17, 3].map(ServerId).to_vec();
        let reversed: Vec<_> = servers.iter().rev().copied().collect();
        assert_eq!(deal(Role::Block, &servers), deal(Role::Block, &reversed));
    }

    /// The ring is worth its keep: most sites keep their server when one joins.
    #[test]
    fn few_sites_move_when_a_server_joins() {
        let servers: Vec<_> = (1..=9).map(|i: u64| ServerId(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let before = deal(Role::Dir, &servers[..8]).unwrap();
        let after = deal(Role::Dir, &servers).unwrap();
        let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
        // Dealing anew at random would move 7/8 of all sites; 1/9 must move.
        assert!((28..SITES_PER_ROLE / 2).contains(&moved), "{moved} moved");
    }

    proptest! {
        #[test]
        fn loads_are_even_and_storage_neighbours_apart(
            ids in proptest::collection::btree_set(1u64.., 1..=40), role in 1u32..=3,
        ) {
            let servers: Vec<_> = ids.into_iter().map(ServerId).collect();
            check(Role::from_u32(role).unwrap(), &servers);
        }
    }

    #[test]
    fn every_number_of_servers() {
        for n in 1..=40 {
            let servers: Vec<_> = (1..=n).map(ServerId).collect();
            for role in [Role::Dir, Role::Small, Role::Block] {
                check(role, &servers);
            }
        }
    }
}
