//! The connection against servers that answer late, in another order, wrongly, or not at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use bytes::{BufMut, BytesMut};
use slice_load::client::Fh;
use slice_load::frame::{self, Deframer, Frame};
use slice_load::{Client, Error};
use slice_proto::ids::Xid;
use slice_proto::nfs3::{NfsStat3, Proc3, Res3};
use slice_proto::rpc_msg::{CallHeader, ReplyStatus, encode_reply, encode_success};
use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Runs a server for one connection, and a client of it.
fn against<S: Future<Output = ()> + 'static, C: Future<Output = ()>>(
    server: impl FnOnce(Peer) -> S + 'static,
    client: impl FnOnce(SocketAddr) -> C,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            server(Peer { stream, buf: BytesMut::new(), deframer: Deframer::default() }).await;
        });
        client(addr).await;
        served.await.unwrap();
    });
}

/// The server's end.
struct Peer {
    stream: TcpStream,
    buf: BytesMut,
    deframer: Deframer,
}

impl Peer {
    /// The next call's xid and procedure; `None` at the end of the stream.
    async fn call(&mut self) -> Option<(Xid, u32)> {
        loop {
            if let Frame::Record(record) = self.deframer.next(&mut self.buf).unwrap() {
                let call = CallHeader::decode(&record).unwrap();
                return Some((call.xid, call.proc));
            }
            if self.stream.read_buf(&mut self.buf).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn reply(&mut self, message: impl FnOnce(&mut BytesMut)) {
        let mut w = BytesMut::new();
        frame::append(&mut w, message);
        self.stream.write_all(&w).await.unwrap();
    }
}

#[test]
fn replies_find_their_calls_in_any_order() {
    const CALLS: u32 = 100;
    let server = |mut peer: Peer| async move {
        let mut xids = Vec::new();
        for _ in 0..CALLS {
            xids.push(peer.call().await.unwrap().0);
        }
        for (n, xid) in xids.into_iter().enumerate().rev() {
            peer.reply(|w| {
                encode_success(w, xid);
                w.put_u32(n as u32 + 1);
            })
            .await;
        }
        assert_eq!(peer.call().await, None);
    };
    against(server, |addr| async move {
        let client = Client::connect(addr).await.unwrap();
        let done = Rc::new(RefCell::new(Vec::new()));
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..CALLS {
            let (client, done) = (client.clone(), Rc::clone(&done));
            calls.spawn_local(async move {
                // The server's n-th call is answered with status n + 1.
                let got = client.getattr(&Fh::new(&[1])).await.unwrap();
                assert_eq!(got, Res3::Err(NfsStat3(n + 1), ()));
                done.borrow_mut().push(n);
            });
        }
        while let Some(ended) = calls.join_next().await {
            ended.unwrap();
        }
        assert_eq!(*done.borrow(), (0..CALLS).rev().collect::<Vec<_>>());
    });
}

#[test]
fn what_is_outstanding_when_the_server_closes_fails() {
    let server = |mut peer: Peer| async move {
        let (first, _) = peer.call().await.unwrap();
        peer.reply(|w| encode_success(w, first)).await;
        peer.call().await.unwrap();
    };
    against(server, |addr| async move {
        let client = Client::connect(addr).await.unwrap();
        let answered = client.start(Proc3::Null, &());
        let unanswered = client.start(Proc3::Null, &());
        assert!(matches!(unanswered.reply().await, Err(Error::Closed)));
        // The reply that came stays good.
        answered.reply().await.unwrap().decode::<()>().unwrap();
        assert!(
            matches!(client.null().await, Err(Error::Closed)),
            "a broken connection takes no further call"
        );
    });
}

#[test]
fn wrong_replies_are_errors_not_panics() {
    let server = |mut peer: Peer| async move {
        let (xid, _) = peer.call().await.unwrap();
        peer.reply(|w| encode_reply(w, xid, ReplyStatus::ProcUnavail)).await;
        let (xid, _) = peer.call().await.unwrap();
        peer.reply(|w| {
            encode_success(w, xid);
            w.put_u32(0);
        })
        .await;
        let (xid, _) = peer.call().await.unwrap();
        // Nobody asked this.
        peer.reply(|w| encode_success(w, Xid(xid.0.wrapping_add(77)))).await;
        peer.reply(|w| {
            encode_success(w, xid);
            w.put_u64(NfsStat3::STALE.0.into());
        })
        .await;
        let (xid, _) = peer.call().await.unwrap();
        peer.reply(|w| {
            encode_success(w, xid);
            w.put_u32(NfsStat3::STALE.0);
            w.put_u32(0xbad);
        })
        .await;
        peer.call().await.unwrap();
        peer.stream.write_all(&[0xff; 64]).await.unwrap();
        peer.call().await;
    };
    against(server, |addr| async move {
        let client = Client::connect(addr).await.unwrap();
        let fh = Fh::new(&[1]);
        assert!(matches!(client.getattr(&fh).await, Err(Error::Rpc(ReplyStatus::ProcUnavail))));
        assert!(matches!(client.getattr(&fh).await, Err(Error::Xdr(_))), "OK without attributes");
        assert!(matches!(client.getattr(&fh).await, Err(Error::Xdr(_))), "OK with four bytes of attributes");
        assert!(matches!(client.getattr(&fh).await, Err(Error::Trailing(4))));
        assert!(matches!(client.getattr(&fh).await, Err(Error::RecordTooLong(_))));
    });
}

#[test]
fn the_connection_closes_with_its_last_user() {
    let server = |mut peer: Peer| async move {
        let (xid, _) = peer.call().await.unwrap();
        // One call was given up before the client went: its reply is nobody's.
        let (given_up, _) = peer.call().await.unwrap();
        peer.reply(|w| encode_success(w, given_up)).await;
        peer.reply(|w| encode_success(w, xid)).await;
        assert_eq!(peer.call().await, None);
    };
    against(server, |addr| async move {
        let client = Client::connect(addr).await.unwrap();
        let wanted = client.start(Proc3::Null, &());
        let unwanted = client.start(Proc3::Null, &());
        drop(unwanted);
        drop(client);
        wanted.reply().await.unwrap();
    });
}

#[test]
fn a_record_can_be_sent_again() {
    let server = |mut peer: Peer| async move {
        for _ in 0..2 {
            let got = peer.call().await.unwrap();
            assert_eq!(got, (Xid(42), 0));
            peer.reply(|w| encode_success(w, got.0)).await;
        }
    };
    against(server, |addr| async move {
        let client = Client::connect(addr).await.unwrap();
        let mut record = BytesMut::new();
        let cred = slice_proto::rpc_msg::OpaqueAuth::NONE;
        slice_proto::rpc_msg::encode_call(&mut record, Xid(42), 100_003, 3, 0, &cred);
        for _ in 0..2 {
            client.conn().start_record(&record).unwrap().reply().await.unwrap();
        }
        assert!(client.conn().start_record(&[1, 2]).is_err());
    });
}
