//! RPC (RFC 5531) and the programs that a stock client tries first (DESIGN §12).

use slice_proto::nfs3::{GetattrArgs, GetattrRes, Proc3};
use slice_proto::rpc_msg::{Cred, ReplyHeader, ReplyStatus, auth_stat, program, version};
use slice_proto::xdr::{Decode, Reader};
use slice_tests::wire::answer::refused;
use slice_tests::wire::raw::{self, Raw, Reaction, Verbatim, ask, call, marked, send};
use slice_tests::wire::{Stage, is_one_of};

crate::claims![
    null_does_nothing,
    other_versions_of_nfs_are_named,
    nfsacl_is_not_here,
    unknown_procedures_are_unavailable,
    another_rpc_version_is_refused,
    arguments_cut_short_are_garbage,
    a_broken_credential_is_refused,
    gss_is_refused,
    the_xid_comes_back,
    records_in_fragments_are_put_together,
    many_calls_in_one_segment_are_all_answered,
];

async fn null_does_nothing(s: Stage) {
    s.c.null().await.unwrap();
    ask(s.c.conn(), program::NFS, version::NFS3, 0, &()).await.unwrap().decode::<()>().unwrap();
}

/// `mount host:/x` tries version 4.2 first; what it is told decides whether it goes on with 3.
async fn other_versions_of_nfs_are_named(s: Stage) {
    for other in [0, 1, 2, 4, 5, u32::MAX] {
        for proc in [0, 1, 7] {
            let told = refused(ask(s.c.conn(), program::NFS, other, proc, &()).await);
            assert_eq!(told, ReplyStatus::ProgMismatch { low: 3, high: 3 }, "version {other}");
        }
    }
}

async fn nfsacl_is_not_here(s: Stage) {
    for (prog, vers) in [(program::NFSACL, 3), (program::NFSACL, 2), (400_000, 1), (0, 0), (u32::MAX, 1)] {
        let told = refused(ask(s.c.conn(), prog, vers, 0, &()).await);
        assert_eq!(told, ReplyStatus::ProgUnavail, "program {prog}");
    }
}

async fn unknown_procedures_are_unavailable(s: Stage) {
    for (prog, vers, proc) in [
        (program::NFS, 3, 22),
        (program::NFS, 3, u32::MAX),
        (program::MOUNT, 3, 6),
        (program::MOUNT, 1, 77),
        (program::PORTMAP, 2, 6),
    ] {
        let told = refused(ask(s.c.conn(), prog, vers, proc, &()).await);
        assert_eq!(told, ReplyStatus::ProcUnavail, "program {prog}, procedure {proc}");
    }
}

async fn another_rpc_version_is_refused(s: Stage) {
    for other in [0_u32, 1, 3, u32::MAX] {
        let mut record = call(77, program::NFS, version::NFS3, 0, Cred::ROOT, &());
        record[8..12].copy_from_slice(&other.to_be_bytes());
        let reply = send(s.c.conn(), &record).await.unwrap();
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!(header.status, ReplyStatus::RPC_MISMATCH);
    }
}

/// Every procedure with arguments, cut at every word.
async fn arguments_cut_short_are_garbage(s: Stage) {
    let handle = s.dir.as_slice();
    let whole = [&(handle.len() as u32).to_be_bytes()[..], handle].concat();
    for proc in 1..22_u32 {
        for len in (0..whole.len()).step_by(4) {
            let args = Verbatim(&whole[..len]);
            let told = refused(s.c.conn().start(program::NFS, 3, proc, &cred(), &args).reply().await);
            assert_eq!(told, ReplyStatus::GarbageArgs, "procedure {proc} with {len} bytes of arguments");
        }
    }
    s.c.null().await.unwrap();
}

fn cred() -> slice_proto::rpc_msg::AuthSys<'static> {
    slice_proto::rpc_msg::AuthSys { stamp: 0, machine: b"m", cred: Cred::ROOT }
}

async fn a_broken_credential_is_refused(s: Stage) {
    let good = call(
        5,
        program::NFS,
        3,
        Proc3::Getattr as u32,
        Cred::ROOT,
        &GetattrArgs { object: s.dir.as_slice() },
    );
    // The machine name's length, at the start of the credential's body after its stamp.
    let mut bad = good.clone();
    bad[36..40].copy_from_slice(&300_u32.to_be_bytes());
    let header = ReplyHeader::decode(&send(s.c.conn(), &bad).await.unwrap()).unwrap();
    assert_eq!(header.status, ReplyStatus::AuthError(auth_stat::BADCRED));
    // 17 groups: one more than there may be (RFC 5531 appendix A).
    let mut body = Vec::new();
    for word in [0_u32, 0, 7, 7, 17].into_iter().chain(0..17) {
        body.extend(word.to_be_bytes());
    }
    let mut record = good[..24].to_vec();
    record.extend(1_u32.to_be_bytes());
    record.extend((body.len() as u32).to_be_bytes());
    record.extend(body);
    record.extend([0; 8]);
    record.extend((s.dir.as_slice().len() as u32).to_be_bytes());
    record.extend(s.dir.as_slice());
    let header = ReplyHeader::decode(&send(s.c.conn(), &record).await.unwrap()).unwrap();
    assert_eq!(header.status, ReplyStatus::AuthError(auth_stat::BADCRED));
}

async fn gss_is_refused(s: Stage) {
    for flavor in [2_u32, 3, 6, 99] {
        let args = GetattrArgs { object: s.dir.as_slice() };
        let mut record = raw::call_none(9, program::NFS, 3, Proc3::Getattr as u32, &args);
        record[24..28].copy_from_slice(&flavor.to_be_bytes());
        let header = ReplyHeader::decode(&send(s.c.conn(), &record).await.unwrap()).unwrap();
        let refusals = [auth_stat::BADCRED, auth_stat::REJECTEDCRED, auth_stat::TOOWEAK, auth_stat::FAILED];
        is_one_of(header.status, &refusals.map(ReplyStatus::AuthError));
    }
}

async fn the_xid_comes_back(s: Stage) {
    let args = GetattrArgs { object: s.dir.as_slice() };
    for xid in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let record = call(xid, program::NFS, 3, Proc3::Getattr as u32, Cred::ROOT, &args);
        let reply = send(s.c.conn(), &record).await.unwrap();
        let header = ReplyHeader::decode(&reply).unwrap();
        assert_eq!((header.xid.0, header.status), (xid, ReplyStatus::Success));
        let res = GetattrRes::decode(&mut Reader::at(&reply, header.body_at)).unwrap();
        assert_eq!(res.into_result().unwrap().fileid, s.attr(&s.dir).await.fileid);
    }
}

/// RFC 5531 §11: a record is one or more fragments, of any length, none included.
async fn records_in_fragments_are_put_together(s: Stage) {
    let args = GetattrArgs { object: s.dir.as_slice() };
    let record = call(3, program::NFS, 3, Proc3::Getattr as u32, Cred::ROOT, &args);
    let mut one = Raw::connect(s.addr).await;
    let Reaction::Record(want) = ({
        one.send(&marked(&record)).await;
        one.reaction().await
    }) else {
        panic!("no answer to a whole record")
    };
    for step in [1, 3, 4, 17, record.len() - 1] {
        let mut sent = Vec::new();
        let parts = record.chunks(step).count();
        for (i, part) in record.chunks(step).enumerate() {
            let last = if i + 1 == parts { 0x8000_0000 } else { 0 };
            sent.extend((part.len() as u32 | last).to_be_bytes());
            sent.extend(part);
            if last == 0 {
                sent.extend([0; 4]);
            }
        }
        assert!(one.send(&sent).await);
        assert_eq!(one.reaction().await, Reaction::Record(want.clone()), "fragments of {step}");
    }
}

async fn many_calls_in_one_segment_are_all_answered(s: Stage) {
    const CALLS: u32 = 300;
    let args = GetattrArgs { object: s.dir.as_slice() };
    let mut raw = Raw::connect(s.addr).await;
    let all = (0..CALLS).flat_map(|xid| marked(&call(xid, program::NFS, 3, 1, Cred::ROOT, &args)));
    assert!(raw.send(&all.collect::<Vec<u8>>()).await);
    let mut seen = Vec::new();
    for _ in 0..CALLS {
        let Reaction::Record(reply) = raw.reaction().await else {
            panic!("closed after {} replies", seen.len())
        };
        seen.push(ReplyHeader::decode(&reply).unwrap().xid.0);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..CALLS).collect::<Vec<_>>());
}
