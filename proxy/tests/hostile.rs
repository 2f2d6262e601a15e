//! Bad input: a clean error or a closed connection, and nobody else notices.

// A test's helpers may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ensemble;

use bytes::{BufMut, BytesMut};
use ensemble::*;
use rand::{Rng, SeedableRng};
use slice_proto::ids::Xid;
use slice_proto::nfs3::{NfsStat3, Proc3, StableHow, WriteArgs};
use slice_proto::rpc_msg::{
    AuthSys, OpaqueAuth, ReplyStatus, auth_flavor, encode_call, program, record_mark,
};
use slice_proto::table::NamePolicy;
use slice_proto::xdr::{Encode, Reader};
use slice_proxy::Exports;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a record and reads until the µproxy has answered or closed.
async fn send(addr: SocketAddr, record: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&record_mark(record.len())).await.unwrap();
    stream.write_all(record).await.ok()?;
    let mut mark = [0; 4];
    stream.read_exact(&mut mark).await.ok()?;
    let mut reply = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
    stream.read_exact(&mut reply).await.ok()?;
    Some(reply)
}

#[test]
fn garbage_is_answered_or_closed_on_and_others_are_served() {
    let world = World::new(NamePolicy::Hash);
    let front = world.start(Exports::default());
    let (_, fh) = world.file(1, 500, 0o644);
    let seed = 20_260_101u64;
    println!("seed {seed}");
    run(|| async move {
        let client = Client::new(front.addr, 500);
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        for round in 0..300u32 {
            let mut w = BytesMut::new();
            let cred = AuthSys { stamp: 1, machine: b"evil", cred: user(0) };
            match round % 3 {
                // Noise.
                0 => {
                    let len = rng.random_range(0..200usize);
                    w.extend((0..len).map(|_| rng.random::<u8>()));
                }
                // A good header and noise behind it. READDIR of the fake's is fine; procedures that it does not have
                // would only test the fake, so nothing may get through to it: the handle is noise.
                1 => {
                    encode_call(&mut w, Xid(round), program::NFS, 3, rng.random_range(0..24), &cred);
                    let len = rng.random_range(0..200usize);
                    w.extend((0..len).map(|_| rng.random::<u8>()));
                }
                // A good call with a length blown up.
                _ => {
                    encode_call(&mut w, Xid(round), program::NFS, 3, Proc3::Write as u32, &cred);
                    let data = [1, 2, 3, 4];
                    WriteArgs { file: &fh, offset: 0, count: 4, stable: StableHow::Unstable, data: &data }
                        .encode(&mut w);
                    let at = rng.random_range(40..w.len() / 4 * 4);
                    let at = at / 4 * 4;
                    w[at..at + 4].copy_from_slice(&rng.random::<u32>().to_be_bytes());
                }
            }
            send(front.addr, &w).await;
            if round % 50 == 0 {
                client.getattr(&fh).await.unwrap();
            }
        }
        client.getattr(&fh).await.unwrap();
    });
}

#[test]
fn forged_handles_foreign_credentials_and_short_calls_get_their_errors() {
    let world = World::new(NamePolicy::Hash);
    let front = world.start(Exports::default());
    let (_, fh) = world.file(1, 500, 0o644);
    run(|| async move {
        let client = Client::new(front.addr, 500);
        let mut forged = fh.clone();
        forged[17] ^= 1;
        assert_eq!(client.getattr(&forged).await, Err(NfsStat3::BADHANDLE));
        assert_eq!(client.getattr(&fh[..32]).await, Err(NfsStat3::BADHANDLE));
        assert_eq!(client.getattr(b"").await, Err(NfsStat3::BADHANDLE));
        let (status, _) = client.raw(program::NFS, 3, Proc3::Rename as u32, &7u32).await;
        assert_eq!(status, ReplyStatus::GarbageArgs);
        let (status, _) = client.raw(program::NFS, 3, 99, &7u32).await;
        assert_eq!(status, ReplyStatus::ProcUnavail);
        for flavor in [auth_flavor::GSS, auth_flavor::TLS] {
            let mut w = BytesMut::new();
            encode_call(&mut w, Xid(1), program::NFS, 3, 1, &OpaqueAuth { flavor, body: &[] });
            w.put_u32(48);
            w.extend_from_slice(&fh);
            let reply = send(front.addr, &w).await.unwrap();
            let status = slice_proto::rpc_msg::ReplyHeader::decode(&reply).unwrap().status;
            assert!(matches!(status, ReplyStatus::AuthError(_)), "{status:?}");
        }
        assert!(world.stage.take_journal().is_empty(), "nothing of this reached a server");
        // AUTH_NONE is the anonymous user.
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(1), program::NFS, 3, 1, &OpaqueAuth::NONE);
        w.put_u32(48);
        w.extend_from_slice(&fh);
        let reply = send(front.addr, &w).await.unwrap();
        assert_eq!(Reader::at(&reply, 24).u32(), Ok(0));
    });
}
