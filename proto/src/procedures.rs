//! One numbering of all procedures between client, µproxy and servers, so that calls can be counted in one array:
//! NFSv3's by their numbers, then the private program's, then what else a µproxy answers.

use crate::nfs3::{NfsStat3, Proc3};
use crate::peer::{PeerProc, PrivateStatus};
use crate::rpc_msg::program;

/// Procedures of NFSv3.
const NFS: usize = Proc3::ALL.len();
/// MOUNT's, all as one.
pub const MOUNT: usize = NFS + PEER.len();
/// Portmap's and rpcbind's, all as one.
pub const PORTMAP: usize = MOUNT + 1;
/// What is none of these.
pub const UNKNOWN: usize = PORTMAP + 1;
/// How many numbers there are.
pub const COUNT: usize = UNKNOWN + 1;

const PEER: [(PeerProc, &str); 22] = [
    (PeerProc::Null, "PEER_NULL"),
    (PeerProc::Hello, "HELLO"),
    (PeerProc::Prove, "PROVE"),
    (PeerProc::Push, "PUSH"),
    (PeerProc::RaiseReach, "RAISE_REACH"),
    (PeerProc::Hold, "HOLD"),
    (PeerProc::Confirm, "CONFIRM"),
    (PeerProc::Drop, "DROP"),
    (PeerProc::Owe, "OWE"),
    (PeerProc::Reconcile, "RECONCILE"),
    (PeerProc::Truncate, "TRUNCATE"),
    (PeerProc::Purge, "PURGE"),
    (PeerProc::Extend, "EXTEND"),
    (PeerProc::Stat, "STAT"),
    (PeerProc::IntentLog, "INTENT_LOG"),
    (PeerProc::IntentComplete, "INTENT_COMPLETE"),
    (PeerProc::ListObjects, "LIST_OBJECTS"),
    (PeerProc::ListAttrs, "LIST_ATTRS"),
    (PeerProc::ListEntries, "LIST_ENTRIES"),
    (PeerProc::Settled, "SETTLED"),
    (PeerProc::Inspect, "INSPECT"),
    (PeerProc::Repair, "REPAIR"),
];

/// The number of a call, by the program and the procedure in its header.
#[must_use]
pub fn number(prog: u32, proc: u32) -> usize {
    match prog {
        program::NFS if (proc as usize) < NFS => proc as usize,
        crate::peer::PROGRAM => {
            PEER.iter().position(|(p, _)| *p as u32 == proc).map_or(UNKNOWN, |at| NFS + at)
        }
        program::MOUNT => MOUNT,
        program::PORTMAP => PORTMAP,
        _ => UNKNOWN,
    }
}

/// The number of the call in this record, which need not be one.
#[must_use]
pub fn of_call(record: &[u8]) -> usize {
    // xid, CALL, RPC version, program, program version, procedure (RFC 5531 section 9).
    let word = |at: usize| record.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_be_bytes(*b));
    match (word(12), word(20)) {
        (Some(prog), Some(proc)) => number(prog, proc),
        _ => UNKNOWN,
    }
}

/// A procedure's name.
#[must_use]
pub fn name(number: usize) -> &'static str {
    match number {
        MOUNT => "MOUNT",
        PORTMAP => "PORTMAP",
        _ => match Proc3::ALL.get(number) {
            Some(proc) => proc.name(),
            None => PEER.get(number.wrapping_sub(NFS)).map_or("UNKNOWN", |(_, name)| name),
        },
    }
}

/// A call that the RPC layer refused, as an error is counted: no nfsstat3 has this number.
pub const REFUSED: u32 = 0x534c_00ff;

/// The status in a reply's head: 0 for success, and for results that begin with none.
#[must_use]
pub fn status_of(procedure: usize, reply: &[u8]) -> u32 {
    let word = |at: usize| reply.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_be_bytes(*b));
    // xid, REPLY, MSG_ACCEPTED, a verifier that none of ours fills, accept_stat, result.
    match (word(8), word(20)) {
        (Some(0), Some(0)) if has_status(procedure) => word(24).unwrap_or(0),
        (Some(0), Some(0)) => 0,
        _ => REFUSED,
    }
}

const fn has_status(procedure: usize) -> bool {
    // HELLO and PROVE have statuses of their own.
    procedure != Proc3::Null as usize && (procedure < NFS || (procedure > NFS + 2 && procedure < MOUNT))
}

/// A status's name, as errors are labelled.
#[must_use]
pub fn status_name(status: u32) -> &'static str {
    match PrivateStatus::from_u32(status) {
        Some(PrivateStatus::WrongSite) => "WRONG_SITE",
        Some(PrivateStatus::Fenced) => "FENCED",
        Some(PrivateStatus::Retry) => "RETRY",
        Some(PrivateStatus::Unstamped) => "UNSTAMPED",
        None if status == REFUSED => "RPC_REFUSED",
        None => NfsStat3(status).name(),
    }
}

/// Whether a status tells of a fault of the server, which no request should meet however wrong it is.
#[must_use]
pub fn is_fault(status: u32) -> bool {
    [NfsStat3::IO.0, NfsStat3::SERVERFAULT.0, PrivateStatus::Unstamped as u32].contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Xid;
    use crate::rpc_msg::{OpaqueAuth, ReplyStatus, encode_call, encode_reply, encode_success, version};
    use bytes::{BufMut, BytesMut};

    #[test]
    fn every_procedure_has_a_number_and_a_name_of_its_own() {
        let peers = PEER.map(|(p, _)| number(crate::peer::PROGRAM, p as u32));
        let all: Vec<usize> =
            Proc3::ALL.iter().map(|p| number(program::NFS, *p as u32)).chain(peers).collect();
        assert_eq!(all, (0..MOUNT).collect::<Vec<_>>());
        let names: std::collections::BTreeSet<_> = (0..COUNT).map(name).collect();
        assert_eq!(names.len(), COUNT);
        assert_eq!((number(program::NFS, 22), number(1, 1), name(UNKNOWN)), (UNKNOWN, UNKNOWN, "UNKNOWN"));
        // A procedure that was added must be added here, too.
        assert_eq!((0..1000).filter(|n| PeerProc::from_u32(*n).is_some()).count(), PEER.len());
    }

    #[test]
    fn calls_and_replies_are_told_by_their_records() {
        let mut call = BytesMut::new();
        encode_call(&mut call, Xid(1), program::NFS, version::NFS3, Proc3::Lookup as u32, &OpaqueAuth::NONE);
        assert_eq!(name(of_call(&call)), "LOOKUP");
        assert_eq!(of_call(&call[..20]), UNKNOWN);
        let mut reply = BytesMut::new();
        encode_success(&mut reply, Xid(1));
        assert_eq!(status_of(Proc3::Null as usize, &reply), 0);
        reply.put_u32(NfsStat3::NOENT.0);
        assert_eq!(status_name(status_of(Proc3::Lookup as usize, &reply)), "NOENT");
        reply.clear();
        encode_reply(&mut reply, Xid(1), ReplyStatus::GarbageArgs);
        assert_eq!(status_name(status_of(Proc3::Lookup as usize, &reply)), "RPC_REFUSED");
        assert_eq!(status_name(PrivateStatus::Fenced as u32), "FENCED");
    }
}
