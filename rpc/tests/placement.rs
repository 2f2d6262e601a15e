//! All connections of one client live on one thread; a service of each thread's own gives its replies when it likes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may stop at the first surprise

mod common;

use bytes::BytesMut;
use common::*;
use slice_proto::rpc_msg::{CallHeader, encode_success, peek_xid};
use slice_rpc::{Connection, Handled, LocalService, Message, Options, Workers, serve_local};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Collects calls and answers each three with the number of its thread, last first.
struct Collector {
    worker: usize,
    waiting: RefCell<Vec<(Connection, BytesMut)>>,
    open: Arc<AtomicUsize>,
}

impl LocalService for Collector {
    fn call(&self, connection: &Connection, record: BytesMut, _reply: &mut Message) -> Handled {
        assert_eq!(Workers::current(), Some(self.worker));
        let mut waiting = self.waiting.borrow_mut();
        waiting.push((connection.clone(), record));
        if waiting.len() == 3 {
            while let Some((connection, record)) = waiting.pop() {
                let mut reply = BytesMut::new();
                encode_success(&mut reply, CallHeader::decode(&record).unwrap().xid);
                reply.extend_from_slice(&[self.worker as u8]);
                connection.reply(reply.into());
            }
        }
        Handled::Detached
    }

    fn opened(&self, connection: &Connection) {
        assert!(connection.is_open() && connection.peer().proved.is_none());
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self, connection: &Connection) {
        assert!(!connection.is_open());
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn one_client_one_thread() {
    run(async {
        let workers = workers(4);
        let open = Arc::new(AtomicUsize::new(0));
        let make = {
            let open = Arc::clone(&open);
            move |worker| {
                let collector = Collector { worker, waiting: RefCell::default(), open: Arc::clone(&open) };
                Rc::new(collector) as Rc<dyn LocalService>
            }
        };
        let listener = serve_local(&workers, local(), make, Options::clients()).unwrap();
        let mut raws = Vec::new();
        for _ in 0..16 {
            raws.push(Raw::connect(listener.local_addr()).await);
        }
        let mut threads = Vec::new();
        for (i, raw) in raws.iter_mut().enumerate() {
            let i = i as u32;
            raw.write(&[framed(i, 0, b""), framed(i + 100, 0, b""), framed(i + 200, 0, b"")].concat()).await;
            for xid in [i + 200, i + 100, i] {
                let reply = raw.reply().await;
                assert_eq!(peek_xid(&reply).unwrap().0, xid);
                threads.push(results(&reply)[0]);
            }
        }
        assert_eq!(open.load(Ordering::SeqCst), 16);
        threads.dedup();
        assert_eq!(threads.len(), 1, "all connections of one host on one thread");
        drop(raws);
        while open.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
        workers.stop();
    });
}
