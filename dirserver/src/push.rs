//! PUSH and RAISE_REACH (DESIGN §8, docs/wire.md): decided in [`crate::decide::push`].

use crate::decide::{Change, Missing, View, push};
use crate::error::Error;
use crate::records::AttrRec;
use crate::server::{Admission, Inner};
use crate::state::locks::Turn;
use crate::state::status_of;
use crate::tx::attempt::{Attempt, Fresh, Ground};
use crate::tx::unfinished::Due;
use bytes::BytesMut;
use slice_proto::ids::{FileId, TableEpoch, Xid};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::attrs::{AttrRes, FATTR_LEN, PushArgs, RaiseArgs};
use slice_proto::rpc_msg::encode_success;
use slice_proto::xdr::Encode;
use slice_rpc::service::{Handled, Message};
use slice_store::Batch;
use std::sync::Arc;

/// Either call.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Push(PushArgs),
    Raise(RaiseArgs),
}

enum Step {
    Done(AttrRes, Due),
    Held(Turn),
    Table,
}

/// Handles either call.
pub(crate) fn handle(inner: &Arc<Inner>, xid: Xid, told: Told, out: &mut Message) -> Handled {
    match step(inner, &told) {
        Step::Done(res, due) if inner.is_due(&due) => {
            write(&mut out.head, xid, &res);
            Handled::Done
        }
        first => {
            let inner = Arc::clone(inner);
            Handled::Later(Box::pin(async move {
                let mut head = BytesMut::new();
                write(&mut head, xid, &finish(&inner, &told, first).await);
                head.into()
            }))
        }
    }
}

fn write(w: &mut BytesMut, xid: Xid, res: &AttrRes) {
    encode_success(w, xid);
    res.encode(w);
}

async fn finish(inner: &Arc<Inner>, told: &Told, mut at: Step) -> AttrRes {
    loop {
        match at {
            Step::Done(res, due) => {
                return match inner.state.store.wait(due.ticket).await {
                    Ok(()) => {
                        inner.journal.unfinished.ended(&due.after).await;
                        res
                    }
                    Err(error) => failure(inner, status_of(&Error::Store(error)).0),
                };
            }
            // An error is as good: who held it has gone away.
            Step::Held(turn) => drop(turn.await),
            Step::Table => inner.table_at_least(told.table()).await,
        }
        at = step(inner, told);
    }
}

fn failure(inner: &Inner, status: u32) -> AttrRes {
    AttrRes { status, current: None, table: inner.routes().epoch(), now_ns: inner.now_ns() }
}

// === impl Told ===

impl Told {
    const fn table(&self) -> TableEpoch {
        match self {
            Self::Push(p) => p.table,
            Self::Raise(r) => r.table,
        }
    }

    const fn file(&self) -> FileId {
        match self {
            Self::Push(p) => p.file,
            Self::Raise(r) => r.file,
        }
    }

    fn apply(&self, rec: &AttrRec) -> Option<AttrRec> {
        match self {
            Self::Push(p) => push::push(rec, p),
            Self::Raise(r) => push::raise(rec, r),
        }
    }
}

fn step(inner: &Inner, told: &Told) -> Step {
    let routes = inner.routes();
    let file = told.file();
    match inner.admit(&routes, told.table(), file.home()) {
        Admission::Yes => {}
        Admission::Wait => return Step::Table,
        Admission::No(status) => return Step::Done(failure(inner, status as u32), Due::default()),
    }
    // Before the mutex: a read of the store must not keep the site's others waiting.
    if let Err(error) = inner.state.attr(file) {
        return Step::Done(failure(inner, status_of(&error).0), Due::default());
    }
    let mut fresh = Fresh::new();
    let ground = Ground { inner, routes: &routes, op: None, held: None };
    let mut attempt = Attempt::new(ground, &[file.home()], &mut fresh, true);
    let cell = match attempt.attr(file) {
        Ok(Some(cell)) => cell,
        Ok(None) => {
            // Its removal is among all that was submitted.
            let due = Due { ticket: inner.state.read_ticket(), after: attempt.unfinished() };
            return Step::Done(failure(inner, NfsStat3::STALE.0), due);
        }
        Err(Missing::Busy(key)) => {
            drop(attempt);
            return match inner.state.look(&key) {
                Some(turn) => Step::Held(turn),
                None => step(inner, told),
            };
        }
        Err(Missing::Fail(error)) => {
            return Step::Done(failure(inner, status_of(&error).0), Due::default());
        }
        Err(_) => return Step::Done(failure(inner, NfsStat3::SERVERFAULT.0), Due::default()),
    };
    let new = told.apply(&cell.rec);
    let shown = new.as_ref().unwrap_or(&cell.rec);
    let current = Some((fattr(inner, file, shown), shown.stamp(file)));
    if let Some(new) = new {
        // The record was read and its site is locked: staging it cannot miss anything.
        let _ = attempt.stage(Change::Set(file, Box::new(new)));
    }
    match attempt.commit(None, &[], Batch::new()) {
        Ok(done) => {
            let res = AttrRes { status: 0, current, table: routes.epoch(), now_ns: inner.now_ns() };
            Step::Done(res, done.due)
        }
        Err(error) => Step::Done(failure(inner, status_of(&error).0), Due::default()),
    }
}

fn fattr(inner: &Inner, file: FileId, rec: &AttrRec) -> [u8; FATTR_LEN] {
    let mut w = BytesMut::with_capacity(FATTR_LEN);
    rec.fattr(file, inner.fsid(rec.volume)).encode(&mut w);
    let mut out = [0; FATTR_LEN];
    out.iter_mut().zip(&w).for_each(|(to, from)| *to = *from);
    out
}
