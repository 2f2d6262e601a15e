//! Operations that change something: from the call to the durable reply.
//!
//! ```text
//! mutate ─▶ step: is it ours? was it done? ─▶ local: all records here, nothing held ─▶ commit ─▶ wait for fsync ─▶ reply
//!                                              │ a record is held                        (group commit)
//!                                              ├──▶ wait, step again
//!                                              │ a record is a peer's
//!                                              ├──▶ distributed: hold, decide, commit, confirm
//!                                              │ a size is set
//!                                              └──▶ resize: data servers first
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`local`] | tries until nothing is missing, without a wait |
//! | [`attempt`], [`image`] | one attempt: decide, stage, commit; records before and after |
//! | [`distributed`] | an operation with records at peers: the asking side |
//! | [`peer`] | the asked side: HOLD, CONFIRM, DROP, OWE |
//! | [`book`] | what peers' operations hold here |
//! | [`forward`] | CREATE of a file that is there, with a size: its home sets it |
//! | [`recover`] | RECONCILE, what earlier lives owe |
//! | [`journal`], [`entry`] | what our operations owe, in memory and in the store |
//! | [`held`] | what they hold |
//! | [`unfinished`] | what can be read here and not at peers yet: replies wait |

pub(crate) mod attempt;
pub(crate) mod book;
pub(crate) mod distributed;
pub(crate) mod entry;
pub(crate) mod forward;
pub(crate) mod held;
pub(crate) mod image;
pub(crate) mod journal;
pub(crate) mod local;
pub(crate) mod peer;
pub(crate) mod recover;
pub(crate) mod talk;
pub(crate) mod unfinished;

use crate::call::{Bad, Call};
use crate::error::Error;
use crate::replies::{Begin, Replay, Running};
use crate::reply;
use crate::resize;
use crate::server::{Admission, Inner};
use crate::state::locks::{Asked, Turn};
use crate::state::status_of;
use attempt::Fresh;
use bytes::BytesMut;
use local::Ran;
use slice_proto::ids::TableEpoch;
use slice_proto::nfs3::{NfsStat3, Proc3};
use slice_proto::peer::dir::{HoldKey, OpId};
use slice_proto::rpc_msg::{ReplyStatus, encode_reply, patch_xid};
use slice_rpc::service::{Handled, Message};
use slice_store::Ticket;
use std::sync::Arc;
use unfinished::Due;

/// A call on its way.
struct Mutation {
    call: Call,
    running: Option<Running>,
    fresh: Fresh,
    /// A record that it had to queue for: its own until the end.
    waited: Option<Waited>,
}

/// A record of ours, held by a call that found it held by another.
struct Waited {
    inner: Arc<Inner>,
    key: HoldKey,
    op: OpId,
}

impl Waited {
    /// Queues for a record. In the queue, because who only looks from time to time may never find it free.
    async fn queue(inner: &Arc<Inner>, key: HoldKey) -> Self {
        let waited = Self { inner: Arc::clone(inner), key, op: inner.journal.begin() };
        let asked = inner.state.site(key.site).map(|mut s| s.locks.ask(key, waited.op, false, true));
        if let Some(Asked::Queued(turn)) = asked {
            // An error is as good: the call tries, and finds it held, or not.
            let _ = turn.await;
        }
        waited
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.inner.state.release(&self.key, self.op);
        self.inner.journal.forget(self.op);
    }
}

/// How far a step came.
enum Step {
    /// The reply is written.
    Done(Due),
    /// First this.
    Wait(Cause),
}

/// What a call waits for.
enum Cause {
    /// A routing table.
    Table(TableEpoch),
    /// A duplicate that runs.
    Turn(Turn),
    /// An operation that holds a record.
    Busy(HoldKey),
    /// Durability, and peers' parts, of the reply that was given before.
    Replay(Replay),
    /// What peers' operations hold here.
    Reconciled,
    /// A record is a peer's.
    Distributed,
    /// A size is to be set; the reply will show these operations, too.
    Resize(resize::Wanted, Vec<u64>),
}

/// Handles a call of a procedure that changes something.
pub(crate) fn mutate(inner: &Arc<Inner>, call: Call, out: &mut Message) -> Handled {
    let mut m = Mutation { call, running: None, fresh: Fresh::new(), waited: None };
    match m.step(inner, &mut out.head) {
        Step::Done(due) if inner.is_due(&due) => Handled::Done,
        step => {
            let (inner, head) = (Arc::clone(inner), std::mem::take(&mut out.head));
            Handled::Later(Box::pin(async move { m.finish(&inner, step, head).await.into() }))
        }
    }
}

/// Waits until a reply may go out; a store that has failed takes it back (I8).
pub(crate) async fn when_due(inner: &Inner, call: &Call, due: Due, head: BytesMut) -> BytesMut {
    let head = durable(inner, call, due.ticket, head).await;
    // What a failed store has not made durable never comes to peers; nobody is told of it.
    if due.ticket <= inner.state.store.durable() {
        inner.journal.unfinished.ended(&due.after).await;
    }
    head
}

/// Waits until what a reply shows is durable; a store that has failed takes it back (I8).
pub(crate) async fn durable(inner: &Inner, call: &Call, ticket: Ticket, mut head: BytesMut) -> BytesMut {
    if let Err(error) = inner.state.store.wait(ticket).await {
        head.clear();
        fail(inner, call, status_of(&Error::Store(error)), &mut head);
    }
    head
}

/// Writes a failure that shows no attributes.
pub(crate) fn fail(inner: &Inner, call: &Call, status: NfsStat3, out: &mut BytesMut) {
    let head = &call.head;
    reply::bare(out, head.xid, head.proc, status, inner.routes().epoch(), inner.now_ns());
}

/// Writes the answer to arguments that cannot be had.
pub(crate) fn refuse(inner: &Inner, call: &Call, bad: Bad, out: &mut BytesMut) {
    match bad {
        Bad::Garbage => encode_reply(out, call.head.xid, ReplyStatus::GarbageArgs),
        Bad::Status(status) => fail(inner, call, status, out),
    }
}

impl Mutation {
    /// Goes as far as it can without a wait.
    fn step(&mut self, inner: &Arc<Inner>, out: &mut BytesMut) -> Step {
        let done = Step::Done(Due::default());
        let routes = inner.routes();
        let call = &self.call;
        let op = match call.op(&routes.keys) {
            Ok(op) => op,
            Err(bad) => {
                refuse(inner, call, bad, out);
                return done;
            }
        };
        if call.head.trailer.table > routes.epoch() {
            return Step::Wait(Cause::Table(call.head.trailer.table));
        }
        let Some(volume) = routes.volume(op.handle().volume) else {
            fail(inner, call, NfsStat3::STALE, out);
            return done;
        };
        let site = op.site(volume);
        match inner.admit(&routes, call.head.trailer.table, site) {
            Admission::Yes => {}
            Admission::Wait => return Step::Wait(Cause::Table(call.head.trailer.table)),
            Admission::No(status) => {
                reply::private(out, call.head.xid, status, routes.epoch(), inner.now_ns());
                return done;
            }
        }
        if self.running.is_none() {
            match inner.replies.begin(call.head.trailer.client, call.key()) {
                Begin::Run(running) => self.running = Some(running),
                Begin::Wait(turn) => return Step::Wait(Cause::Turn(turn)),
                Begin::Replay(replay) => return Step::Wait(Cause::Replay(replay)),
                Begin::Refused(reply, ticket) => {
                    out.extend_from_slice(&reply);
                    patch_xid(out, call.head.xid);
                    return Step::Done(Due::at(ticket));
                }
            }
        }
        if op.takes_away() && !routes.alone && !inner.reconciled.is_open() {
            return Step::Wait(Cause::Reconciled);
        }
        let Some(running) = &self.running else { return done };
        let number = self.waited.as_ref().map(|w| w.op);
        match local::run(
            inner,
            &routes,
            call,
            &op,
            volume,
            number,
            Some((running, site)),
            &mut self.fresh,
            out,
        ) {
            Ran::Committed(due) => Step::Done(due),
            Ran::Busy(key) => Step::Wait(Cause::Busy(key)),
            Ran::Distributed => Step::Wait(Cause::Distributed),
            Ran::Resize(wanted, after) => Step::Wait(Cause::Resize(wanted, after)),
            Ran::Failed(error) => {
                tracing::error!(%error, proc = %call.head.proc, "the store failed an operation");
                fail(inner, call, status_of(&error), out);
                done
            }
        }
    }

    /// Goes on from `step` to the durable reply.
    async fn finish(mut self, inner: &Arc<Inner>, mut step: Step, mut head: BytesMut) -> BytesMut {
        loop {
            match step {
                Step::Done(due) => {
                    self.waited = None;
                    return when_due(inner, &self.call, due, head).await;
                }
                Step::Wait(Cause::Table(epoch)) => inner.table_at_least(epoch).await,
                // An error is as good: who was waited for has gone away.
                Step::Wait(Cause::Turn(turn)) => drop(turn.await),
                Step::Wait(Cause::Busy(key)) => {
                    // One at a time: what it waited for before goes first, or two would wait for each other.
                    self.waited = None;
                    self.waited = Some(Waited::queue(inner, key).await);
                }
                Step::Wait(Cause::Reconciled) => inner.until_reconciled().await,
                Step::Wait(Cause::Replay(replay)) => {
                    if let Some(reply) = self.replay(inner, replay).await {
                        return reply;
                    }
                }
                Step::Wait(Cause::Distributed) => {
                    self.waited = None;
                    let Some(running) = self.running.take() else { return head };
                    let task = distributed::run(Arc::clone(inner), self.call, running, self.fresh);
                    return to_its_end(task).await;
                }
                Step::Wait(Cause::Resize(wanted, after)) => {
                    self.waited = None;
                    let Some(running) = self.running.take() else { return head };
                    let (inner, call) = (Arc::clone(inner), self.call);
                    return to_its_end(async move {
                        match resize::run(&inner, &call, &running, wanted).await {
                            Some(reply) => {
                                inner.journal.unfinished.ended(&after).await;
                                reply
                            }
                            None => distributed::run(inner, call, running, Fresh::new()).await,
                        }
                    })
                    .await;
                }
            }
            head.clear();
            step = self.step(inner, &mut head);
        }
    }

    /// The first answer, once it is as true as it was to be; `None` if it is no longer kept.
    async fn replay(&self, inner: &Inner, replay: Replay) -> Option<BytesMut> {
        let read = replay.read(&inner.state.store, self.call.head.xid);
        let stored = match read {
            Ok(stored) => stored?,
            Err(error) => {
                let mut out = BytesMut::new();
                fail(inner, &self.call, status_of(&error), &mut out);
                return Some(out);
            }
        };
        if matches!(self.call.head.proc, Proc3::Setattr | Proc3::Create) {
            // Its reply may be durable before the data servers know the size that it speaks of.
            inner.owed.rolled().await;
        }
        if replay.op != 0
            && let Some(applied) = inner.journal.wait_applied(replay.op)
        {
            // An error is as good: the operation is settled.
            let _ = applied.await;
        }
        Some(durable(inner, &self.call, replay.ticket, stored).await)
    }
}

/// Runs what must not stop half-way when its caller goes away, and waits for it.
async fn to_its_end(task: impl Future<Output = BytesMut> + 'static) -> BytesMut {
    // It fails only if the task panicked: the caller gets no answer and comes again.
    tokio::task::spawn_local(task).await.unwrap_or_default()
}
