//! The ensemble as the coordinator's store keeps it: one record, so that every change is atomic.
//!
//! Key `ensemble`; value: one byte of version, then a protocol buffer, so that fields can be added. Some 10 KiB,
//! written only when a server is new or moves.

use crate::ensemble::{Ensemble, Expected, Member, Phase};
use crate::error::{Error, Result};
use prost::Message;
use slice_proto::control::pb;
use slice_proto::ids::{Role, ServerId};
use slice_proto::table::{RoutingTable, ServerEntry};
use std::collections::BTreeMap;

/// Where it stands.
pub const KEY: &[u8] = b"ensemble";
const VERSION: u8 = 1;

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(enumeration = "pb::Phase", tag = "1")]
    phase: i32,
    #[prost(uint32, tag = "2")]
    expected_dir: u32,
    #[prost(uint32, tag = "3")]
    expected_small: u32,
    #[prost(uint32, tag = "4")]
    expected_block: u32,
    #[prost(message, repeated, tag = "5")]
    members: Vec<StoredMember>,
    #[prost(message, optional, tag = "6")]
    table: Option<pb::RoutingTable>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredMember {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    role: u32,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(bool, tag = "4")]
    adopted: bool,
}

impl From<Phase> for pb::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Gathering => Self::Gathering,
            Phase::Adopting => Self::Adopting,
            Phase::Serving => Self::Serving,
        }
    }
}

/// The record's value.
#[must_use]
pub fn encode(e: &Ensemble) -> Vec<u8> {
    let member = |(id, m): (&ServerId, &Member)| StoredMember {
        id: id.0,
        role: m.entry.role as u32,
        address: m.entry.address.clone(),
        adopted: m.adopted,
    };
    let stored = Stored {
        phase: pb::Phase::from(e.phase).into(),
        // At most the number of sites.
        expected_dir: e.expected.dir as u32,
        expected_small: e.expected.small as u32,
        expected_block: e.expected.block as u32,
        members: e.members.iter().map(member).collect(),
        table: Some((&e.table).into()),
    };
    let mut bytes = vec![VERSION];
    bytes.extend(stored.encode_to_vec());
    bytes
}

/// Reads the record's value.
///
/// # Errors
/// [`Error::NewerFormat`], [`Error::BadRecord`].
pub fn decode(bytes: &[u8]) -> Result<Ensemble> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            read(rest).ok_or(Error::BadRecord { what: "the ensemble's record", whose: "store" })
        }
        found => Err(Error::NewerFormat {
            what: "the ensemble's record",
            found: found.map_or(0, |(v, _)| u32::from(*v)),
            known: u32::from(VERSION),
        }),
    }
}

fn read(bytes: &[u8]) -> Option<Ensemble> {
    let stored = Stored::decode(bytes).ok()?;
    let phase = match pb::Phase::try_from(stored.phase).ok()? {
        pb::Phase::Gathering => Phase::Gathering,
        pb::Phase::Adopting => Phase::Adopting,
        pb::Phase::Serving => Phase::Serving,
        pb::Phase::Unspecified => return None,
    };
    let table = stored.table?;
    let table = match phase {
        // Before sites are dealt the table is not whole, and does not pass the checks.
        Phase::Gathering => RoutingTable::undealt(table).ok()?,
        Phase::Adopting | Phase::Serving => RoutingTable::try_from(table).ok()?,
    };
    let mut members = BTreeMap::new();
    for m in stored.members {
        let entry = ServerEntry { role: Role::from_u32(m.role)?, address: m.address };
        members.insert(ServerId(m.id), Member { entry, adopted: m.adopted });
    }
    let expected = Expected {
        dir: stored.expected_dir as usize,
        small: stored.expected_small as usize,
        block: stored.expected_block as usize,
    };
    Some(Ensemble { phase, expected, members, table })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::{Plan, Registration};
    use slice_proto::peer::hello::{MAX_WIRE_VERSION, MIN_WIRE_VERSION};
    use slice_proto::table::Placement;

    /// Every phase of a format comes back as it was stored.
    #[test]
    fn every_phase_comes_back() {
        let plan = Plan {
            expected: Expected { dir: 1, small: 1, block: 1 },
            volumes: vec![],
            placements: vec![Placement { copies: 1 }],
        };
        let mut e = Ensemble::new(plan, ServerId(9), "[::1]:9".into()).unwrap();
        assert_eq!(decode(&encode(&e)).unwrap(), e);
        for role in [Role::Dir, Role::Small, Role::Block] {
            let entry = ServerEntry { role, address: "127.0.0.1:1".into() };
            let wire = (MIN_WIRE_VERSION, MAX_WIRE_VERSION);
            let r = Registration { server: ServerId(role as u64), entry, wire, fresh: true, stamped: vec![] };
            e = e.register(&r).unwrap().unwrap();
            assert_eq!(decode(&encode(&e)).unwrap(), e);
        }
        for id in 1..=3 {
            e = e.adopted(ServerId(id), &e.sites_of(ServerId(id))).unwrap().unwrap();
            assert_eq!(decode(&encode(&e)).unwrap(), e);
        }
        assert_eq!(e.phase, Phase::Serving);
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        assert!(matches!(decode(&[2, 0]), Err(Error::NewerFormat { found: 2, .. })));
        assert!(matches!(decode(&[]), Err(Error::NewerFormat { .. })));
        assert!(matches!(decode(&[1, 0xff]), Err(Error::BadRecord { .. })));
    }
}
