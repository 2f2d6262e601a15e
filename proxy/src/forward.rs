//! The fast path: the client's own record to the server that owns the site, and the reply back, by a token: no future,
//! no task, no allocation per request. What does not go well the first time goes on in a future (I4).

use crate::front::{Front, Job};
use crate::reply::settle;
use crate::upstream::Fault;
use bytes::BytesMut;
use slice_proto::ids::{Epoch, Role, Site, TableEpoch};
use slice_proto::trailer::{CALL_TRAILER_LEN, CallTrailer};
use slice_rpc::{CallError, Connection, Handled, Message, ReplySink};
use std::rc::Weak;

/// A forwarded call that is unanswered.
pub struct Forwarded {
    connection: Connection,
    site: Site,
    /// Its record is kept: it may have to go elsewhere. It pins the read chunk that it was cut from, no more.
    job: Job,
}

impl Front {
    /// Forwards a call to the directory server of `site`. The answer goes to `connection`, or into a future where there
    /// is none.
    pub(crate) fn forward(&self, site: Site, job: Job, connection: Option<&Connection>) -> Handled {
        let Some(connection) = connection else {
            let Some(front) = self.rc() else { return Handled::Close };
            return Handled::Later(Box::pin(async move { front.forward_slowly(site, job, None).await }));
        };
        let (epoch, owner) = self.owner(Role::Dir, site);
        let message = self.forwarded_record(&job, epoch);
        let forwarded = Forwarded { connection: connection.clone(), site, job };
        let channel = owner.ok_or(CallError::Gone).and_then(|server| self.channels.get(server));
        match channel {
            Ok(channel) => {
                let token = self.forwarded.borrow_mut().insert(forwarded) as u64;
                // A server in this process may answer before this returns: nothing is borrowed here.
                channel.forward(message, token);
            }
            Err(error) => self.go_on(forwarded, Fault::of(error, epoch)),
        }
        Handled::Detached
    }

    /// The client's record with the call trailer behind it.
    pub(crate) fn forwarded_record(&self, job: &Job, table: TableEpoch) -> Message {
        let trailer = self.trailer(job, table, Epoch(0));
        self.make(|w| {
            w.reserve(job.record.len() + CALL_TRAILER_LEN);
            w.extend_from_slice(&job.record);
            trailer.append(w);
        })
        .into()
    }

    /// The call trailer of a call made for this job.
    pub(crate) const fn trailer(&self, job: &Job, table: TableEpoch, epoch: Epoch) -> CallTrailer {
        CallTrailer { client: job.client, xid: job.xid, flags: 0, table, epoch }
    }

    /// Takes the reply to a forwarded call.
    fn answered(&self, token: u64, reply: Result<Message, CallError>) {
        // A token is a key that we gave.
        let Some(forwarded) = self.forwarded.borrow_mut().try_remove(token as usize) else { return };
        let fault = match reply {
            Ok(mut reply) => {
                let job = &forwarded.job;
                let verdict = settle(&mut self.soft.borrow_mut(), job.proc, job.xid, &mut reply, self);
                match Fault::of_verdict(verdict) {
                    None => return forwarded.connection.answer(&mut reply),
                    Some(fault) => fault,
                }
            }
            Err(error) => Fault::of(error, self.table().epoch),
        };
        self.go_on(forwarded, fault);
    }

    /// Goes on with a call that was not answered well, in a task of its own.
    fn go_on(&self, forwarded: Forwarded, fault: Fault) {
        let Some(front) = self.rc() else { return forwarded.connection.forget() };
        let Forwarded { connection, site, job } = forwarded;
        tokio::task::spawn_local(async move {
            let reply = front.forward_slowly(site, job, Some(fault)).await;
            connection.reply(reply);
        });
    }

    /// Forwards a call until it is answered by the right server. `fault` is what became of the first try.
    pub(crate) async fn forward_slowly(&self, site: Site, job: Job, fault: Option<Fault>) -> Message {
        if let Some(fault) = fault
            && let Err(status) = self.overcome(fault, self.table().epoch).await
        {
            return self.fail(job.xid, job.proc, status);
        }
        let answer = self
            .routed(
                Role::Dir,
                site,
                |table| self.forwarded_record(&job, table),
                |mut reply, _| {
                    let verdict = settle(&mut self.soft.borrow_mut(), job.proc, job.xid, &mut reply, self);
                    Fault::of_verdict(verdict).map_or(Ok(reply), Err)
                },
            )
            .await;
        answer.unwrap_or_else(|refused| self.fail(job.xid, job.proc, refused.status()))
    }

    /// A record that its sender may change without touching the client's.
    pub(crate) fn copy(&self, record: &[u8]) -> BytesMut {
        self.make(|w| w.extend_from_slice(record))
    }
}

/// Where the thread's channels bring replies to forwarded calls.
pub(crate) struct Sink(pub Weak<Front>);

impl ReplySink for Sink {
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>) {
        self.on_message(token, reply.map(Message::from));
    }

    fn on_message(&self, token: u64, reply: Result<Message, CallError>) {
        if let Some(front) = self.0.upgrade() {
            front.answered(token, reply);
        }
    }
}
